package train

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// TestGPUFamilies: every family is fine-tuned on the GPU with the losses of the CPU, a
// mixture's router loss with it. The emulator, which is slow, takes those with the most of their own.
func TestGPUFamilies(t *testing.T) {
	for class := range kinds {
		few := class == "Qwen3MoeForCausalLM" || !testing.Short() && (class == "OPTForCausalLM" || class == "Gemma2ForCausalLM" || class == "BloomForCausalLM")
		if os.Getenv("RINGTAIL_TEST_GPU") == "" && !few {
			continue
		}
		t.Run(class, func(t *testing.T) {
			start := kindFolder(t, class)
			text := "model: " + start + "\ndata: {train: [" + rlFixture(t) + "/chats.jsonl], max_tokens: 40, held_out: 0.1}\n" +
				"train: {steps: 3, batch: 4, micro_tokens: 64, lr: 0.002}\nsamples: {off: true}\nlog: {tensorboard: false}\n"
			run := func(name string, dev tensor.Device) []map[string]float64 {
				t.Helper()
				dir := filepath.Join(t.TempDir(), name)
				if err := trainRun(t.Context(), mustDecode(t, text), "sft", dir, false, dev); err != nil {
					t.Fatal(err)
				}
				return metricsOf(t, dir)
			}
			want := run("cpu", cpu.New())
			for _, c := range []struct {
				float tensor.Dtype
				most  float64
			}{{tensor.F32, 1e-4}, {tensor.BF16, 0.03}} {
				for i, got := range run(c.float.String(), emulated(t, c.float)) {
					for name, w := range map[string]float64{"loss": want[i]["loss"], "eval/loss": want[i]["eval/loss"], "router_loss": want[i]["router_loss"]} {
						if d := math.Abs(got[name] - w); !(d <= c.most) {
							t.Errorf("%v, step %d: %s %.6f, on the CPU %.6f", c.float, i, name, got[name], w)
						}
					}
				}
			}
		})
	}
}
