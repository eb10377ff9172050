package autograd

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// mlpParams are those of a plain MLP of 4 columns.
type mlpParams struct{ up, upBias, down, downBias *Param }

func (p mlpParams) list() []*Param { return params(p.up, p.upBias, p.down, p.downBias) }

func (p mlpParams) apart(t *Tape, x *Var) *Var {
	return t.Linear(t.Activate(t.Linear(x, p.up, p.upBias), tensor.GELUTanh), p.down, p.downBias)
}

func (p mlpParams) atOnce(t *Tape, x *Var) *Var {
	return t.GELUMLP(x, p.up, p.upBias, p.down, p.downBias)
}

func TestGELUMLPGradients(t *testing.T) {
	for _, checkpoint := range []bool{false, true} {
		t.Run(fmt.Sprintf("checkpoint=%v", checkpoint), func(t *testing.T) {
			r := newRig(t)
			p := mlpParams{r.param("up", 7, 4), r.param("up bias", 7), r.param("down", 4, 7), r.param("down bias", 4)}
			q := mlpParams{up: r.param("up", 5, 4), down: r.param("down", 4, 5)}
			r.checkGradients(func(t *Tape, x *Var) *Var {
				for _, p := range []mlpParams{p, q} {
					f := func() { x = t.Add(x, p.atOnce(t, x)) }
					if checkpoint {
						t.Checkpoint(f)
					} else {
						f()
					}
				}
				return x
			}, r.random(6, 4), append(p.list(), q.list()...))
		})
	}
}

// TestGELUMLPIsApart: on a device that makes it of the operations, it gives the same bits as
// they do, whichever of its parameters are trained.
func TestGELUMLPIsApart(t *testing.T) {
	dev := cpu.New()
	const rows, cols, wide = 6, 4, 8
	for frozen := range 16 {
		random := rand.New(rand.NewPCG(1, 1))
		fill := func(shape ...int) tensor.Tensor {
			x, buf, err := tensor.New(dev, tensor.F32, shape...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(buf.Free)
			v := make([]float64, x.Len())
			for i := range v {
				v[i] = random.NormFloat64()
			}
			tensor.SetFloat64(x, v)
			return x
		}
		var p mlpParams
		for i, q := range []struct {
			to    **Param
			shape []int
		}{{&p.up, []int{wide, cols}}, {&p.upBias, []int{wide}}, {&p.down, []int{cols, wide}}, {&p.downBias, []int{cols}}} {
			*q.to = &Param{Name: fmt.Sprint(i), Shape: q.shape, Value: fill(q.shape...)}
			if frozen>>i&1 == 0 {
				(*q.to).Grad = fill(q.shape...)
			}
		}
		x, dx, seed := fill(rows, cols), fill(rows, cols), fill(rows, cols)
		start := map[*Param][]byte{}
		bytesOf := func(x tensor.Tensor) []byte {
			b := make([]byte, x.Bytes())
			dev.Read(b, x)
			return b
		}
		for _, q := range p.list() {
			if q.Trainable() {
				start[q] = bytesOf(q.Grad)
			}
		}
		run := func(f func(*Tape, *Var) *Var, selective bool) []byte {
			for q, b := range start {
				dev.Write(q.Grad, b)
			}
			tape := NewTape(dev)
			y := tape.Output(f(tape, tape.GradInput("x", x, dx)))
			prog, err := tape.Compile(NewArena(dev), Options{Train: true, Selective: selective, Seeds: map[*Var]tensor.Tensor{y: seed}})
			if err != nil {
				t.Fatal(err)
			}
			prog.Forward()
			out := bytesOf(y.Value())
			prog.Backward()
			out = append(out, bytesOf(dx)...)
			for _, q := range p.list() {
				if q.Trainable() {
					out = append(out, bytesOf(q.Grad)...)
				}
			}
			return out
		}
		want := run(p.apart, false)
		for _, selective := range []bool{false, true} {
			if !bytes.Equal(run(p.atOnce, selective), want) {
				t.Errorf("frozen parameters %04b, Selective %v: results differ", frozen, selective)
			}
		}
	}
}
