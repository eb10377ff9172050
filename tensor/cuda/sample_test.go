package cuda

import (
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// TestSampleLargeVocabulary draws the reference device's tokens from vocabularies of several
// passes a thread: logits that differ, few values with many equals, and all equal.
func TestSampleLargeVocabulary(t *testing.T) {
	d := open(t, Options{Float: tensor.F32})
	t.Cleanup(d.Close)
	const vocab = 70001
	r := rand.New(rand.NewPCG(5, 6))
	kinds := []func() float32{
		func() float32 { return float32(3 * r.NormFloat64()) },
		func() float32 { return float32(r.IntN(4)) },
		func() float32 { return -2 },
	}
	settings := []tensor.SampleRow{
		{Temperature: 1}, {Temperature: 0.7, TopK: 50}, {Temperature: 1, TopP: 0.9}, {Temperature: 1.2, TopK: 40000, TopP: 0.6},
		{Temperature: 1, MinP: 0.05}, {Temperature: 0.8, TopK: 20000, TopP: 0.95, MinP: 0.01}, {},
	}
	for kind, logit := range kinds {
		v := make([]float32, len(settings)*vocab)
		rows := make([]tensor.SampleRow, len(settings))
		for i := range v {
			v[i] = logit()
		}
		for i := range rows {
			rows[i] = settings[i]
			rows[i].Uniform = r.Float64()
		}
		draw := func(dev tensor.Device) ([]int32, []float64) {
			alloc := func(typ tensor.Dtype, shape ...int) tensor.Tensor {
				v, b, err := tensor.New(dev, typ, shape...)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(b.Free)
				return v
			}
			a := tensor.Sample{IDs: alloc(tensor.I32, len(rows)), LogProbs: alloc(dev.Float().Wide(), len(rows)), Logits: alloc(dev.Float(), len(rows), vocab), Rows: rows}
			tensor.SetFloat32(a.Logits, v)
			dev.Ops().Sample(a)
			ids, logProbs := tensor.GetInt32(a.IDs), tensor.GetFloat64(a.LogProbs)
			if err := dev.Sync(); err != nil {
				t.Fatal(err)
			}
			return ids, logProbs
		}
		got, gotLogProbs := draw(d)
		want, wantLogProbs := draw(ref.New())
		for i := range rows {
			if diff := gotLogProbs[i] - wantLogProbs[i]; got[i] != want[i] || diff > 1e-4 || diff < -1e-4 {
				t.Errorf("kind %d, %+v: drew %d (%g), want %d (%g)", kind, rows[i], got[i], gotLogProbs[i], want[i], wantLogProbs[i])
			}
		}
	}
}
