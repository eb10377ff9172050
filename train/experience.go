package train

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"ringtail/safetensors"
)

// experience is what a rollout gathered: the answers of the policy at that time and what
// all four models made of them. What belongs to tokens lies flat, the answers'
// tokens end to end; prompts' tokens have no part in it. Token ids and the
// log-probabilities recorded while sampling are the only record of an answer: its text
// is never encoded again.
type experience struct {
	answers []answer
	starts  []int32 // [B+1], where each answer begins in the slices below

	logProbs    []float32 // [N], of the policy that sampled, at the temperature of sampling
	refLogProbs []float32 // [N], of the reference
	values      []float32 // [N], before each token, normalised like the scores
	advantages  []float32 // [N], whitened where the recipe says so
	returns     []float32 // [N]
	scores      []float32 // [B], normalised, before clips and penalties
}

// answer is what a policy said to a prompt.
type answer struct {
	ids      []int32   // the prompt, then the answer with the token that ended it
	prompt   int       // tokens of the prompt
	logProbs []float32 // of the answer's tokens, recorded while sampling
	finished bool      // it ended by itself, not at the longest length
	empty    bool      // nothing but the token that ends it
}

// length is the answer's number of tokens, the one that ended it included.
func (a *answer) length() int { return len(a.ids) - a.prompt }

// newExperience lays out the answers of a rollout.
func newExperience(answers []answer) *experience {
	x := &experience{answers: answers, starts: make([]int32, 1, len(answers)+1)}
	for i := range answers {
		x.logProbs = append(x.logProbs, answers[i].logProbs...)
		x.starts = append(x.starts, int32(len(x.logProbs)))
	}
	n := len(x.logProbs)
	x.refLogProbs, x.values = make([]float32, n), make([]float32, n)
	x.advantages, x.returns = make([]float32, n), make([]float32, n)
	x.scores = make([]float32, len(answers))
	return x
}

// of is the part of a flat slice that belongs to answer i.
func (x *experience) of(flat []float32, i int) []float32 { return flat[x.starts[i]:x.starts[i+1]] }

const experienceFile = "experience.safetensors"

// Flags of an answer in the file.
const (
	flagFinished = 1 << iota
	flagEmpty
)

// write keeps the experience in a checkpoint: a run that is resumed in the middle
// of a rollout goes on with the very same one.
func (x *experience) write(dir string) error {
	var ids, lengths, prompts, flags []int32
	for _, a := range x.answers {
		ids = append(ids, a.ids...)
		lengths, prompts = append(lengths, int32(len(a.ids))), append(prompts, int32(a.prompt))
		flag := int32(0)
		if a.finished {
			flag |= flagFinished
		}
		if a.empty {
			flag |= flagEmpty
		}
		flags = append(flags, flag)
	}
	var parts []safetensors.Tensor
	for _, p := range []struct {
		name string
		data []int32
	}{{"ids", ids}, {"lengths", lengths}, {"prompts", prompts}, {"flags", flags}} {
		parts = append(parts, safetensors.Tensor{Name: p.name, Dtype: "I32", Shape: []int{len(p.data)}, Data: littleEndian(p.data)})
	}
	for _, p := range x.floats() {
		parts = append(parts, safetensors.Tensor{Name: p.name, Dtype: "F32", Shape: []int{len(*p.data)}, Data: littleEndian(*p.data)})
	}
	return safetensors.WriteFile(filepath.Join(dir, experienceFile), nil, parts)
}

// littleEndian are numbers as safetensors has them.
func littleEndian[T int32 | float32](x []T) []byte {
	b, _ := binary.Append(nil, binary.LittleEndian, x) // numbers of a fixed size never fail
	return b
}

// floats are the parts in float32, by name.
func (x *experience) floats() []namedFloats {
	return []namedFloats{{"log_probs", &x.logProbs}, {"ref_log_probs", &x.refLogProbs}, {"values", &x.values},
		{"advantages", &x.advantages}, {"returns", &x.returns}, {"scores", &x.scores}}
}

type namedFloats struct {
	name string
	data *[]float32
}

// readExperience reads what write wrote; nil if the checkpoint holds none.
func readExperience(dir string) (*experience, error) {
	path := filepath.Join(dir, experienceFile)
	if _, err := os.Stat(path); os.IsNotExist(err) {
		return nil, nil
	}
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ints := map[string][]int32{}
	for _, name := range []string{"ids", "lengths", "prompts", "flags"} {
		t, ok := f.Tensor(name)
		if !ok || t.Dtype != "I32" {
			return nil, fmt.Errorf("%s: no I32 tensor %s", path, name)
		}
		ints[name] = make([]int32, len(t.Data)/4)
		if _, err := binary.Decode(t.Data, binary.LittleEndian, ints[name]); err != nil {
			return nil, fmt.Errorf("%s: tensor %s: %w", path, name, err)
		}
	}
	x := &experience{starts: []int32{0}}
	ids := ints["ids"]
	if len(ints["prompts"]) != len(ints["lengths"]) || len(ints["flags"]) != len(ints["lengths"]) {
		return nil, fmt.Errorf("%s: %d lengths, %d prompts, %d flags: they should be as many", path, len(ints["lengths"]), len(ints["prompts"]), len(ints["flags"]))
	}
	for i, n := range ints["lengths"] {
		prompt, flag := ints["prompts"][i], ints["flags"][i]
		if int(n) > len(ids) || prompt < 1 || prompt >= n || flag&^(flagFinished|flagEmpty) != 0 {
			return nil, fmt.Errorf("%s: answer %d has %d tokens, %d of them the prompt's, with %d left, and the flags %d: the file is damaged", path, i, n, prompt, len(ids), flag)
		}
		x.answers = append(x.answers, answer{ids: ids[:n:n], prompt: int(prompt), finished: flag&flagFinished != 0, empty: flag&flagEmpty != 0})
		ids = ids[n:]
		x.starts = append(x.starts, x.starts[i]+n-prompt)
	}
	if len(ids) > 0 {
		return nil, fmt.Errorf("%s: %d tokens belong to no answer: the file is damaged", path, len(ids))
	}
	for _, p := range x.floats() {
		want := int(x.starts[len(x.answers)])
		if p.name == "scores" {
			want = len(x.answers)
		}
		t, ok := f.Tensor(p.name)
		if !ok || t.Dtype != "F32" || len(t.Data) != 4*want {
			return nil, fmt.Errorf("%s: tensor %s is %s %v, expected F32 [%d]", path, p.name, t.Dtype, t.Shape, want)
		}
		*p.data = make([]float32, want)
		if err := safetensors.ToFloat32(*p.data, "F32", t.Data); err != nil {
			return nil, err
		}
	}
	for i := range x.answers {
		x.answers[i].logProbs = x.of(x.logProbs, i)
	}
	return x, nil
}

// check refuses experience that isn't of a run's rollouts: of so many answers, no
// sequence longer than longest, in a vocabulary of vocab tokens.
func (x *experience) check(answers, longest, vocab int) error {
	if len(x.answers) != answers {
		return fmt.Errorf("%s: %d answers, a rollout of this run has %d", experienceFile, len(x.answers), answers)
	}
	for i := range x.answers {
		ids := x.answers[i].ids
		if len(ids) > longest {
			return fmt.Errorf("%s: answer %d has %d tokens with its prompt, at most %d are possible", experienceFile, i, len(ids), longest)
		}
		for _, id := range ids {
			if id < 0 || int(id) >= vocab {
				return fmt.Errorf("%s: answer %d holds token %d, the vocabulary has %d: the file is damaged", experienceFile, i, id, vocab)
			}
		}
	}
	return nil
}
