package train

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/ref"
)

// TestMemoryForTime: where gradients are, and what is computed again, changes no bit of
// the weights that training leads to.
func TestMemoryForTime(t *testing.T) {
	for name, open := range map[string]func() tensor.Device{"cpu": func() tensor.Device { return cpu.New() }, "ref": func() tensor.Device { return ref.New() }} {
		t.Run(name, func(t *testing.T) {
			var want map[string][]float64
			sizes := map[string]int{}
			for _, recompute := range []string{"false", "none", "selective", "full", "true"} {
				for _, micro := range []int{255, 256} { // a step of 4 rows of 64 tokens is known to fit only the latter
					rec := mustDecode(t, base(t), "train.recompute="+recompute, fmt.Sprintf("train.micro_tokens=%d", micro), "train.steps=8")
					tr := testTrainer(t, rec, "sft", open())
					if inArena := tr.model.Store.Gradients() != nil; inArena != (micro == 256) {
						t.Fatalf("micro_tokens %d: gradients in the arena: %v", micro, inArena)
					}
					got := map[string][]float64{}
					for i := range 8 {
						step := nextStep(t, tr)
						if len(step.Micro) != 1 {
							t.Fatalf("%d micro-batches, so that this tests nothing", len(step.Micro))
						}
						if _, err := tr.step(step); err != nil {
							t.Fatal(err)
						}
						if i == 4 { // another program runs in the arena
							if _, err := tr.measure(t.Context()); err != nil {
								t.Fatal(err)
							}
						}
					}
					if bad := tr.learner.badTensor(); bad != "" {
						t.Error(bad)
					}
					for _, e := range tr.model.Store.Layout.Entries {
						got[e.Name] = tensor.GetFloat64(tr.model.Store.Param(e.Name).Value)
					}
					sizes[fmt.Sprint(recompute, micro)] = tr.model.Store.Bytes() + tr.arena.Size()
					if want == nil {
						want = got
					} else if !maps.EqualFunc(got, want, slices.Equal[[]float64]) {
						t.Errorf("recompute %s, micro_tokens %d: other weights", recompute, micro)
					}
				}
			}
			if sizes["false255"] != sizes["none255"] || sizes["true256"] != sizes["full256"] || sizes["none256"] <= sizes["selective256"] ||
				sizes["selective256"] <= sizes["full256"] || sizes["none255"] < sizes["none256"] {
				t.Errorf("bytes: %v", sizes)
			}
			t.Log(sizes)
		})
	}
}

// TestEmulatedMemoryForTime: the same on a GPU, whose passes are recorded, also where sums
// are rounded before a norm is made of them again.
func TestEmulatedMemoryForTime(t *testing.T) {
	for _, float := range []tensor.Dtype{tensor.F32, tensor.BF16} {
		t.Run(float.String(), func(t *testing.T) {
			dev := emulated(t, float)
			var want map[string][]float64
			for _, c := range []struct {
				recompute string
				micro     int
			}{{"none", 255}, {"none", 256}, {"selective", 256}} {
				rec := mustDecode(t, base(t), "model.new.num_hidden_layers=1", "train.recompute="+c.recompute, fmt.Sprintf("train.micro_tokens=%d", c.micro), "train.steps=5",
					"train.gradients="+strings.ToLower(float.String()))
				tr := testTrainer(t, rec, "sft", dev)
				got := map[string][]float64{}
				for range 5 {
					if _, err := tr.step(nextStep(t, tr)); err != nil {
						t.Fatal(err)
					}
				}
				for _, e := range tr.model.Store.Layout.Entries {
					got[e.Name] = tensor.GetFloat64(tr.model.Store.Param(e.Name).Value)
				}
				if want == nil {
					want = got
				}
				worst := 0.0
				for name, w := range want {
					worst = max(worst, relativeError(got[name], w))
				}
				if worst > 0 {
					t.Errorf("recompute %s, micro_tokens %d: weights differ by %.2g", c.recompute, c.micro, worst)
				}
			}
		})
	}
}
