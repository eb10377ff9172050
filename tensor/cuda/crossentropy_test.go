package cuda

import (
	"math"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// TestChunksOfLogits compares losses and gradients with the reference device's where rows
// take several chunks and where a row is larger than shared memory keeps.
func TestChunksOfLogits(t *testing.T) {
	defer func(n int) { logitsBytes = n }(logitsBytes)
	logitsBytes = 1 // chunks of the least number of rows
	for _, float := range []tensor.Dtype{tensor.F32, tensor.BF16} {
		for _, shape := range [][3]int{{300, 8, 70}, {3, 4, 60001}, {2, 4, 33000}} {
			d := open(t, Options{Float: float})
			t.Cleanup(d.Close)
			rows, hidden, vocab := shape[0], shape[1], shape[2]
			r := rand.New(rand.NewPCG(1, uint64(vocab)))
			x, w, y := make([]float32, rows*hidden), make([]float32, vocab*hidden), make([]int32, rows)
			for i := range x {
				x[i] = float32(r.IntN(17)-8) / 8 // as both types hold them
			}
			for i := range w {
				w[i] = float32(r.IntN(17)-8) / 8
			}
			for i := range y {
				y[i] = int32(r.IntN(vocab+vocab/8) - vocab/8)
			}
			run := func(dev tensor.Device) (loss, dx, dw []float64) {
				alloc := func(typ tensor.Dtype, shape ...int) tensor.Tensor {
					v, b, err := tensor.New(dev, typ, shape...)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(b.Free)
					return v
				}
				wide := dev.Float().Wide()
				held := func(v []float32, shape ...int) tensor.Tensor {
					from, to := alloc(wide, shape...), alloc(dev.Float(), shape...)
					tensor.SetFloat32(from, v)
					dev.Ops().Copy(to, from)
					return to
				}
				back := func(v tensor.Tensor) []float64 {
					to := alloc(wide, v.Shape...)
					dev.Ops().Copy(to, v)
					return tensor.GetFloat64(to)
				}
				a := tensor.CrossEntropy{Loss: alloc(tensor.F64, 3), X: held(x, rows, hidden), W: held(w, vocab, hidden), Targets: alloc(tensor.I32, rows),
					DX: alloc(dev.Float(), rows, hidden), DW: alloc(wide, vocab, hidden), Scale: alloc(wide, 1)}
				tensor.SetInt32(a.Targets, y)
				tensor.SetFloat32(a.Scale, []float32{0.5})
				dev.Ops().CrossEntropy(a)
				loss, dx, dw = back(a.Loss), back(a.DX), back(a.DW)
				if err := dev.Sync(); err != nil {
					t.Fatal(err)
				}
				return loss, dx, dw
			}
			gotLoss, gotDX, gotDW := run(d)
			wantLoss, wantDX, wantDW := run(ref.New())
			tolerance := 1e-5
			if float == tensor.BF16 {
				tolerance = 0x1p-7
			}
			near := func(name string, got, want []float64, tolerance float64) {
				for i := range want {
					if math.Abs(got[i]-want[i]) > tolerance*max(1, math.Abs(want[i])) {
						t.Errorf("%v %v: %s[%d] is %g, want %g", float, shape, name, i, got[i], want[i])
						return
					}
				}
			}
			near("Loss", gotLoss, wantLoss, 1e-5)
			near("DX", gotDX, wantDX, tolerance)
			near("DW", gotDW, wantDW, tolerance)
		}
	}
}
