package bench

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/model"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/ref"
)

// TestSame: losses of given batches fall and are the same on another run; files that don't
// fit are refused.
func TestSame(t *testing.T) {
	dev, dir := cpu.New(), t.TempDir()
	c, err := model.ParseConfig([]byte(`{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 40, "n_embd": 16, "n_layer": 2,
		"n_head": 2, "n_positions": 32, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}`))
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.New(c, dev, model.Options{Seed: 3})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	m.Free()
	o := SameOptions{Batch: 2, Seq: 8, Steps: 12, LR: 0.01, Warmup: 3}
	var data []byte
	for i := range o.Steps * o.Batch * (o.Seq + 1) {
		data = binary.LittleEndian.AppendUint32(data, uint32(i*7%9))
	}
	file := filepath.Join(dir, "batches")
	if err := os.WriteFile(file, data, 0o666); err != nil {
		t.Fatal(err)
	}
	a, err := Same(dev, dir, file, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Same(dev, dir, file, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Losses) != o.Steps || a.Losses[o.Steps-1] > a.Losses[0]-0.3 {
		t.Errorf("losses %.3f", a.Losses)
	}
	for i := range a.Losses {
		if a.Losses[i] != b.Losses[i] || a.Norms[i] != b.Norms[i] {
			t.Fatalf("step %d: %v, then %v", i, a.Losses[i], b.Losses[i])
		}
	}
	// In 8-bit floats, where a device has them: another loss, but nearly the same.
	o.Eight = true
	if _, err := Same(dev, dir, file, o); err == nil || !strings.Contains(err.Error(), "8-bit") {
		t.Errorf("8-bit floats on the CPU: %v", err)
	}
	narrow := ref.NewRounded(tensor.BF16)
	c8, err := Same(narrow, dir, file, o)
	if err != nil {
		t.Fatal(err)
	}
	o.Eight = false
	c16, err := Same(narrow, dir, file, o)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range c8.Losses {
		if l == c16.Losses[i] || math.Abs(l/c16.Losses[i]-1) > 0.01 {
			t.Errorf("step %d: loss %.5f in 8-bit floats, %.5f in bfloat16", i, l, c16.Losses[i])
		}
	}
	o.Steps++
	if _, err := Same(dev, dir, file, o); err == nil || !strings.Contains(err.Error(), "216 tokens") {
		t.Error(err)
	}
	copy(data, []byte{40, 0, 0, 0})
	if err := os.WriteFile(file, data, 0o666); err != nil {
		t.Fatal(err)
	}
	o.Steps--
	if _, err := Same(dev, dir, file, o); err == nil || !strings.Contains(err.Error(), "token 0 is 40") {
		t.Error(err)
	}
}
