package engine

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"unicode/utf8"

	"ringtail/autograd"
	"ringtail/model"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

func testConfig(t testing.TB, vocab, hidden, heads, positions int, eos ...int) *model.Config {
	t.Helper()
	text, err := json.Marshal(map[string]any{"architectures": []string{"LlamaForCausalLM"}, "vocab_size": vocab, "hidden_size": hidden,
		"num_hidden_layers": 2, "num_attention_heads": heads, "num_key_value_heads": heads / 2, "intermediate_size": 2 * hidden,
		"max_position_embeddings": positions, "initializer_range": 0.35, "eos_token_id": eos})
	if err != nil {
		t.Fatal(err)
	}
	c, err := model.ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// randomModel is a small model with weights large enough for lively answers.
// Its end-of-sequence token is 5.
func randomModel(t testing.TB, dev tensor.Device) *model.Model {
	t.Helper()
	m, err := model.New(testConfig(t, 61, 32, 4, 256, 5), dev, model.Options{Head: model.CausalLM, Seed: 9})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Free)
	return m
}

// chain is a model without memory: the logits after token i are those of a table.
// Token i's embedding is the i-th axis and layers are zero, so that the output
// projection is the table. Its end-of-sequence token is eos.
func chain(t testing.TB, eos int, logits [][]float64) *model.Model {
	t.Helper()
	n := len(logits)
	hidden := (n + 3) / 4 * 4
	m, err := model.New(testConfig(t, n, hidden, 2, 256, eos), cpu.New(), model.Options{Head: model.CausalLM})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Free)
	for _, e := range m.Store.Layout.Entries {
		v := make([]float64, e.Len())
		switch e.Name {
		case "model.norm.weight":
			for i := range v {
				v[i] = 1
			}
		case "model.embed_tokens.weight":
			for i := range n {
				v[i*hidden+i] = 1
			}
		case "lm_head.weight":
			for i := range n {
				for j := range n {
					v[j*hidden+i] = logits[i][j] / math.Sqrt(float64(hidden))
				}
			}
		}
		p := m.Store.Param(e.Name).Value
		tensor.SetFloat64(p.Reshape(p.Len()), v)
	}
	return m
}

// successor is the table in which each token i is followed by next[i].
func successor(next ...int) [][]float64 {
	out := make([][]float64, len(next))
	for i, n := range next {
		out[i] = make([]float64, len(next))
		out[i][n] = 10
	}
	return out
}

// pieces decodes ids to pieces of text, some of which are parts of characters.
type pieces struct {
	of   []string
	held string
}

func (p *pieces) Push(id int32) string {
	p.held += p.of[id]
	n := len(p.held)
	for k := 1; k < utf8.UTFMax && k <= n; k++ {
		if b := p.held[n-k]; b >= 0xc0 { // the first byte of a character
			if !utf8.FullRuneInString(p.held[n-k:]) {
				n -= k
			}
			break
		} else if b < 0x80 {
			break
		}
	}
	text := p.held[:n]
	p.held = p.held[n:]
	return text
}

func (p *pieces) Flush() string {
	text := p.held
	p.held = ""
	return text
}

// answer is what a request made.
type answer struct {
	ids      []int32
	logProbs []float64
	text     string
	finish   Finish
	events   int
	ended    int
}

func (a *answer) take(ev Event) {
	a.events++
	if ev.ID >= 0 {
		a.ids = append(a.ids, ev.ID)
		a.logProbs = append(a.logProbs, float64(ev.LogProb))
	}
	a.text += ev.Text
	a.finish = ev.Finish
	if ev.Finish != Running {
		a.ended++
	}
}

func newEngine(t testing.TB, m *model.Model, opt Options) *Engine {
	t.Helper()
	e, err := New(m, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func submit(t testing.TB, e *Engine, prompt []int32, s Settings) (*Request, *answer) {
	t.Helper()
	a := &answer{}
	r, err := e.Submit(prompt, s, a.take)
	if err != nil {
		t.Fatal(err)
	}
	return r, a
}

// alone is the answer of an engine that has nothing else to do.
func alone(t testing.TB, m *model.Model, prompt []int32, s Settings) *answer {
	t.Helper()
	e, err := New(m, Options{Slots: 1, Capacity: 128})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	_, a := submit(t, e, prompt, s)
	if err := e.Run(); err != nil {
		t.Fatal(err)
	}
	return a
}

// logSoftmax is the model's log-probabilities after each of a sequence's tokens,
// computed as in training: one packed pass, without a cache.
func logSoftmax(t testing.TB, m *model.Model, ids []int32) [][]float64 {
	t.Helper()
	dev := m.Device()
	put := func(v []int32) tensor.Tensor {
		x, b, err := tensor.New(dev, tensor.I32, len(v))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Free)
		tensor.SetInt32(x, v)
		return x
	}
	pos := make([]int32, len(ids))
	for i := range pos {
		pos[i] = int32(i)
	}
	tape := autograd.NewTape(dev)
	h, err := m.Hidden(tape, model.Inputs{IDs: tape.Input("ids", put(ids)), Positions: tape.Input("positions", put(pos)),
		Starts: tape.Input("starts", put([]int32{0, int32(len(ids))})), Longest: len(ids)})
	if err != nil {
		t.Fatal(err)
	}
	logits := tape.Output(m.Logits(tape, h))
	arena := autograd.NewArena(dev)
	defer arena.Free()
	p, err := tape.Compile(arena, autograd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.Forward()
	out := make([][]float64, len(ids))
	for i, v := range slices.Collect(slices.Chunk(tensor.GetFloat64(logits.Value()), m.Config.Vocab)) {
		most := slices.Max(v)
		sum := 0.0
		for _, x := range v {
			sum += math.Exp(x - most)
		}
		for j := range v {
			v[j] -= most + math.Log(sum)
		}
		out[i] = v
	}
	return out
}
