package autograd

import (
	"fmt"
	"math"
	"testing"

	"ringtail/tensor"
)

// eight makes a parameter one of 8-bit floats.
func (r *rig) eight(p *Param) *Param {
	out, in := p.Shape[0], p.Shape[1]
	p.Eight = &Eight{W: r.tensor(tensor.F8E4M3, out, in), WT: r.tensor(tensor.F8E4M3, in, out), Scale: r.tensor(tensor.F64, 1), AMax: r.tensor(tensor.F64, 1), Next: r.tensor(tensor.F64, 1)}
	p.Eight.Measure(r.dev.Ops(), p.Value)
	p.Eight.Update(r.dev.Ops(), p.Value)
	return p
}

// rounded is x as 8-bit floats by its own scale hold it.
func (r *rig) rounded(x tensor.Tensor, format tensor.Dtype) tensor.Tensor {
	ops, q, amax, scale := r.dev.Ops(), r.tensor(format, x.Shape...), r.tensor(tensor.F64, 1), r.tensor(tensor.F64, 1)
	quantise(ops, tensor.Quantize{X: x, Q: q, AMax: amax, Scale: scale})
	y := r.tensor(tensor.F64, x.Shape...)
	ops.Copy(y, q)
	ops.Scale(y, float32(tensor.GetFloat64(scale)[0]))
	return y
}

// TestLinear8 compares a linear layer of 8-bit floats with products of what they stand for, with and
// without checkpointing, of trained and frozen weights; the gradient of x is added to another's.
func TestLinear8(t *testing.T) {
	for variant := range 16 {
		checkpoint, biased, trained, selective := variant&1 != 0, variant&2 != 0, variant&4 != 0, variant&8 != 0
		t.Run(fmt.Sprintf("checkpoint=%v,biased=%v,trained=%v,selective=%v", checkpoint, biased, trained, selective), func(t *testing.T) {
			r := newRig(t)
			const rows, in, out = 6, 20, 9
			ops := r.dev.Ops()
			x, seed, dx := r.random(rows, in), r.random(rows, out), r.tensor(tensor.F64, rows, in)
			ops.Scale(x, 37)
			ops.Scale(seed, 1e-5)
			w := r.eight(r.param("w", out, in))
			var bias *Param
			if biased {
				bias = r.param("b", out)
			}
			if !trained {
				w.Grad = tensor.Tensor{}
			}
			tape := NewTape(r.dev)
			xs := tape.GradInput("x", x, dx)
			var y, other *Var
			f := func() {
				h := tape.Add(xs, xs) // so that its gradient has two parts, of which one is the product's
				y = tape.Linear(h, w, bias)
				other = tape.Add(h, h)
			}
			if checkpoint {
				tape.Checkpoint(f)
			} else {
				f()
			}
			tape.Output(y)
			tape.Output(other)
			otherSeed := r.random(rows, in)
			ops.Scale(otherSeed, 1e-5)
			p, err := tape.Compile(r.arena(), Options{Train: true, Selective: selective, Seeds: map[*Var]tensor.Tensor{y: seed, other: otherSeed}})
			if err != nil {
				t.Fatal(err)
			}
			p.Forward()
			got := map[string][]float64{"y": tensor.GetFloat64(y.Value())}
			p.Backward()
			got["dx"] = tensor.GetFloat64(dx)

			h := r.tensor(tensor.F64, rows, in)
			ops.Add(h, x, x)
			x8, w8, dy8 := r.rounded(h, tensor.F8E4M3), r.rounded(w.Value, tensor.F8E4M3), r.rounded(seed, tensor.F8E5M2)
			wantY, wantDX := r.tensor(tensor.F64, rows, out), r.tensor(tensor.F64, rows, in)
			ops.Matmul(tensor.Matmul{C: wantY, A: x8, B: w8, TransB: true, Bias: valueOf(bias)})
			ops.Matmul(tensor.Matmul{C: wantDX, A: dy8, B: w8})
			ops.Add(wantDX, wantDX, otherSeed)
			ops.Add(wantDX, wantDX, otherSeed)
			ops.Scale(wantDX, 2)
			want := map[string][]float64{"y": tensor.GetFloat64(wantY), "dx": tensor.GetFloat64(wantDX)}
			if trained {
				dw := r.tensor(tensor.F64, out, in)
				ops.Matmul(tensor.Matmul{C: dw, A: dy8, B: x8, TransA: true})
				got["dW"], want["dW"] = tensor.GetFloat64(w.Grad), tensor.GetFloat64(dw)
			}
			if biased {
				db := r.tensor(tensor.F64, out)
				ops.SumRows(db, seed)
				got["db"], want["db"] = tensor.GetFloat64(bias.Grad), tensor.GetFloat64(db)
			}
			for name, v := range want {
				for i := range v {
					if !(math.Abs(got[name][i]-v[i]) <= 1e-12*max(1e-3, math.Abs(v[i]))) {
						t.Fatalf("%s[%d] is %g, want %g", name, i, got[name][i], v[i])
					}
				}
			}
		})
	}
}
