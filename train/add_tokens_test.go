package train

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/folder"
	"ringtail/model"
	"ringtail/runs"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// TestAddTokens: a recipe's tokens are in the result's tokenizer, its embedding has grown
// by the mean, and the run goes on after an interruption.
func TestAddTokens(t *testing.T) {
	from, dir := kindFolder(t, "LlamaForCausalLM"), filepath.Join(t.TempDir(), "run")
	text := strings.NewReplacer("DIR", fixture(t), "START", from).Replace(`
model: {path: START, add_tokens: ["<|note|>", "<|im_end|>"], pad_token: "<pad>", freeze: [model.embed_tokens.*]}
data: {train: [DIR/chats.jsonl], max_tokens: 64}
train: {steps: 4, batch: 2, micro_tokens: 128, lr: 0.01}
checkpoint: {every: 2}
samples: {off: true}
`)
	if !start(t, job{Recipe: text, Objective: "sft", Dir: dir, Trip: trip{Op: "loss", At: 6}}) {
		t.Fatal("the run was not interrupted")
	}
	if start(t, job{Recipe: text, Objective: "sft", Dir: dir, Resume: true}) {
		t.Fatal("the resumed run ended early")
	}
	was, err := model.Load(from, cpu.New(), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer was.Free()
	is, err := model.Load(filepath.Join(dir, runs.ModelDir), cpu.New(), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer is.Free()
	tok, err := folder.OpenTokenizer(filepath.Join(dir, runs.ModelDir))
	if err != nil {
		t.Fatal(err)
	}
	old := was.Config.Vocab
	for i, s := range []string{"<|note|>", "<pad>"} {
		if id, ok := tok.ID(s); !ok || int(id) != old+i || !tok.IsSpecial(id) {
			t.Errorf("%s is token %d (%v) after %d", s, id, ok, old)
		}
	}
	if is.Config.Vocab != old+2 || tok.Size() != old+2 || is.Config.PAD != old+1 {
		t.Errorf("vocabulary of %d, tokenizer of %d, pad %d after %d", is.Config.Vocab, tok.Size(), is.Config.PAD, old)
	}
	table := func(m *model.Model) []float64 {
		return tensor.GetFloat64(m.Store.Param("model.embed_tokens.weight").Value)
	}
	a, b, h := table(was), table(is), was.Config.Hidden
	for j := range h {
		mean := 0.0
		for i := range old {
			mean += a[i*h+j] / float64(old)
		}
		if math.Abs(b[old*h+j]-mean) > 1e-6 || a[j] != b[j] {
			t.Fatalf("column %d: %g, the mean is %g; row 0 %g, was %g", j, b[old*h+j], mean, b[j], a[j])
		}
	}
}
