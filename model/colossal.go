package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Folders that ColossalChat and DeepSpeed-Chat leave, and how their reward models
// and critics call what transformers calls otherwise.
//
// Sources: ColossalAI, applications/ColossalChat/coati/{models,utils/ckpt_io.py};
// DeepSpeedExamples, applications/DeepSpeed-Chat/dschat/utils/model/reward_model.py.

// wrapper is a class of models that holds a bare decoder and a linear layer to one value.
type wrapper struct {
	decoder string // stands before the names of the decoder's tensors
	head    string // the layer's name; transformers' is "score"
}

var wrappers = []wrapper{
	{decoder: "rwtransformer.", head: "v_head"},  // DeepSpeed-Chat
	{decoder: "rwtranrsformer.", head: "v_head"}, // the same, misspelt until 2023
	{decoder: "model.", head: "value_head"},      // ColossalChat: RewardModel, Critic
}

// score is transformers' name of the layer.
const score = "score"

// renamed shows a source's tensors under other names.
type renamed struct {
	Source
	names  []string
	stored map[string]string // a name shown → the source's
	notes  []string
}

func (r *renamed) Names() []string { return r.names }

func (r *renamed) Find(name string) (Stored, bool) {
	old, ok := r.stored[name]
	if !ok {
		return Stored{}, false
	}
	return r.Source.Find(old)
}

// Notes says what was left out of a source, for its reader to print.
func (r *renamed) Notes() []string { return r.notes }

// unwrap gives the tensors of a wrapped reward model or critic transformers' names:
// those of a bare decoder, and score.weight. Other sources come back as they
// are. Weights of a LoRA that were not merged are an error, for without them the
// model would be another one.
func unwrap(src Source) (Source, error) {
	names := src.Names()
	if err := refuseLoRA(names); err != nil {
		return nil, err
	}
	for _, w := range wrappers {
		if _, ok := src.Find(w.head + ".weight"); !ok {
			continue
		}
		r := &renamed{Source: src, stored: map[string]string{}}
		decoder := 0
		for _, name := range names {
			shown := name
			switch {
			case name == w.head+".weight":
				shown = score + ".weight"
			case name == w.head+".bias":
				note, err := headBias(src, name)
				if err != nil {
					return nil, err
				}
				if note != "" {
					r.notes = append(r.notes, note)
				}
				continue
			case strings.HasPrefix(name, w.decoder):
				shown = name[len(w.decoder):]
				decoder++
			}
			if other, twice := r.stored[shown]; twice {
				return nil, fmt.Errorf("tensors %s and %s are both %s", other, name, shown)
			}
			r.stored[shown] = name
			r.names = append(r.names, shown)
		}
		if decoder > 0 {
			return r, nil
		}
	}
	return src, nil
}

// headBias says what leaving out the bias of a value head changes: all values by
// the same amount, hence no comparison of two of them.
func headBias(src Source, name string) (string, error) {
	t, _ := src.Find(name)
	if len(t.Shape) != 1 || t.Shape[0] != 1 {
		return "", fmt.Errorf("tensor %s has shape %v, expected [1]", name, t.Shape)
	}
	var b [1]float32
	if err := t.Read(b[:], 0); err != nil {
		return "", fmt.Errorf("tensor %s: %w", name, err)
	}
	if b[0] == 0 {
		return "", nil
	}
	return fmt.Sprintf("%s is left out: all values are %g less than where the model was trained", name, b[0]), nil
}

// loraMarks are in the names of LoRA weights: PEFT's and ColossalChat's, DeepSpeed-Chat's.
var loraMarks = []string{"lora_A", "lora_B", "lora_right_weight", "lora_left_weight"}

func refuseLoRA(names []string) error {
	for _, name := range names {
		for _, mark := range loraMarks {
			if strings.Contains(name, mark) {
				return fmt.Errorf("tensor %s is part of a LoRA that is not merged into the weights: merge it where it was trained (ColossalChat merges at the end of a run: take SAVE_DIR/modeling)", name)
			}
		}
	}
	return nil
}

func inFolder(dir string, err error) error { return fmt.Errorf("%s: %w", dir, err) }

// Run is where the model of a folder lies.
type Run struct {
	Dir       string // the Hugging Face folder: config.json and weights
	Tokenizer string // another folder with its tokenizer, "" if it is in Dir or nowhere near
	Note      string // a word about the choice, where there was one
}

// FindRun finds the model in a folder that ColossalChat's training left:
//
//	RUN/modeling                     the model at the end
//	RUN/actor/modeling               PPO's, beside critic/modeling
//	RUN/epoch-E_step-S/modeling      checkpoints on the way, of which the last one counts
//
// Any other path comes back as it is. Folders that hold only a LoRA's weights, or a
// model without config.json, are errors that say so.
func FindRun(path string) (Run, error) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return Run{Dir: path}, nil // what is wrong with it is for its reader to say
	}
	if has(path, "config.json") {
		return Run{Dir: path}, nil
	}
	if file := first(path, "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"); file != "" {
		return Run{}, fmt.Errorf("%s: %s: a LoRA adapter, not a model: merge it into its base model first (PEFT's merge_and_unload)", path, file)
	}
	if holdsWeights(path) {
		return Run{}, noConfig(path)
	}
	dir, note := runFolder(path)
	if dir == "" {
		return Run{Dir: path}, nil
	}
	if !has(dir, "config.json") {
		if holdsWeights(dir) {
			return Run{}, noConfig(dir)
		}
		return Run{}, fmt.Errorf("%s: holds no model: neither config.json nor weights", dir)
	}
	run := Run{Dir: dir, Note: note}
	if tokenizerIn(dir) == "" {
		for up := filepath.Dir(dir); ; up = filepath.Dir(up) { // beside it, or in a folder of the run above
			if tokenizerIn(up) != "" {
				run.Tokenizer = up
				break
			}
			if rel, err := filepath.Rel(path, up); err != nil || rel == "." || up == filepath.Dir(up) {
				break
			}
		}
	}
	return run, nil
}

func noConfig(dir string) error {
	return fmt.Errorf("%s: weights without config.json, as ColossalChat saves reward models and critics: copy config.json and the tokenizer's files of the model that it was made from into it", dir)
}

// runFolder is the folder of the model within a run, "" if path is none.
func runFolder(path string) (dir, note string) {
	for _, part := range []string{"modeling", "actor/modeling"} {
		dir := filepath.Join(path, filepath.FromSlash(part))
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir, fmt.Sprintf("%s is a ColossalChat run: taking %s", path, dir)
		}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", ""
	}
	best := [2]int{-1, -1}
	for _, e := range entries {
		m := checkpointName.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		epoch, err1 := strconv.Atoi(m[1])
		step, err2 := strconv.Atoi(m[2])
		if errors.Join(err1, err2) != nil || epoch < best[0] || epoch == best[0] && step < best[1] {
			continue
		}
		at := filepath.Join(path, e.Name(), "modeling")
		if info, err := os.Stat(at); err != nil || !info.IsDir() {
			continue
		}
		best = [2]int{epoch, step}
		dir, note = at, fmt.Sprintf("%s is a ColossalChat run that has not ended: taking its last checkpoint, %s", path, at)
	}
	return dir, note
}

var checkpointName = regexp.MustCompile(`^epoch-(\d+)_step-(\d+)$`)

func has(dir, name string) bool { return first(dir, name) != "" }

// first is the first of names that is in a folder.
func first(dir string, names ...string) string {
	for _, n := range names {
		if _, err := os.Stat(filepath.Join(dir, n)); err == nil {
			return n
		}
	}
	return ""
}

func holdsWeights(dir string) bool {
	return first(dir, "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json") != ""
}

func tokenizerIn(dir string) string {
	return first(dir, "tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
}
