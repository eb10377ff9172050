package ref

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
)

// The tests of this file compare every backward operation with central
// differences of its forward operation, over ragged shapes. The loss is Σ c·y with
// fixed random c, which are the gradient of the forward's result. All matrices are
// windows of wider ones, whose other columns hold NaN.

// maker makes tensors for one test.
type maker struct {
	t   *testing.T
	dev *Device
	ops *tensor.Ops
	rng *rand.Rand
}

func newMaker(t *testing.T) *maker {
	d := New()
	return &maker{t, d, d.Ops(), rand.New(rand.NewPCG(7, uint64(len(t.Name()))))}
}

// blank is a tensor of NaN, of one dimension or a window of a wider matrix.
func (m *maker) blank(shape ...int) tensor.Tensor {
	const left, right = 2, 3
	wide := append([]int(nil), shape...)
	wide[len(wide)-1] += left + right
	x, b, err := tensor.New(m.dev, tensor.F64, wide...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(b.Free)
	for i := range x.Float64() {
		x.Float64()[i] = math.NaN()
	}
	return x.Columns(left, shape[len(shape)-1])
}

func (m *maker) zeros(shape ...int) tensor.Tensor {
	x := m.blank(shape...)
	zero(x)
	return x
}

func (m *maker) random(shape ...int) tensor.Tensor {
	x := m.blank(shape...)
	each(x, func(v *float64) { *v = m.rng.NormFloat64() })
	return x
}

func (m *maker) copy(x tensor.Tensor) tensor.Tensor {
	y := m.blank(x.Shape...)
	copyTensor(y, x)
	return y
}

func (m *maker) ints(v ...int32) tensor.Tensor {
	x, b, err := tensor.New(m.dev, tensor.I32, len(v))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(b.Free)
	tensor.SetInt32(x, v)
	return x
}

// each calls f with every element of x, row by row.
func each(x tensor.Tensor, f func(v *float64)) {
	if x.Len() == 0 {
		return
	}
	data := x.Float64()
	for i := range x.Rows() {
		for j := range x.Cols() {
			f(&data[i*x.Stride+j])
		}
	}
}

func flat(x tensor.Tensor) []float64 {
	var out []float64
	each(x, func(v *float64) { out = append(out, *v) })
	return out
}

// weigh is Σ c·y.
func weigh(c, y tensor.Tensor) float64 {
	sum, cs, i := 0.0, flat(c), 0
	each(y, func(v *float64) { sum += cs[i] * *v; i++ })
	return sum
}

// differ compares the gradient of loss with respect to x, got, with central
// differences. The error is relative to the larger of the element and the root mean
// square of the whole gradient.
func (m *maker) differ(name string, x, got tensor.Tensor, loss func() float64) {
	m.t.Helper()
	const h, tol = 1e-5, 1e-6
	grad, i := flat(got), 0
	size := 0.0
	for _, g := range grad {
		size += g * g / float64(len(grad))
	}
	size = math.Sqrt(size)
	bad := 0
	each(x, func(v *float64) {
		old := *v
		*v = old + h
		up := loss()
		*v = old - h
		down := loss()
		*v = old
		want := (up - down) / (2 * h)
		// Differences of a loss of order one are good to about 1e-10.
		if err := math.Abs(grad[i] - want); !(err <= tol*max(size, math.Abs(want))+1e-9) {
			if bad++; bad <= 3 {
				m.t.Errorf("%s: gradient of %s[%d] is %.10g, differences give %.10g", m.t.Name(), name, i, grad[i], want)
			}
		}
		i++
	})
}

// TestMatmulGradient is of a linear layer y = x·Wᵀ + b, whose three gradients are
// products themselves: dx = dy·W, dW += dyᵀ·x, db += Σ_t dy.
func TestMatmulGradient(t *testing.T) {
	for _, s := range [][3]int{{0, 3, 2}, {1, 1, 1}, {2, 3, 5}, {7, 5, 3}, {3, 9, 4}} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			m := newMaker(t)
			x, w, b, c := m.random(s[0], s[1]), m.random(s[2], s[1]), m.random(s[2]), m.random(s[0], s[2])
			dx, dw, db := m.blank(s[0], s[1]), m.random(s[2], s[1]), m.random(s[2])
			dw0, db0 := m.copy(dw), m.copy(db)
			m.ops.Matmul(tensor.Matmul{C: dx, A: c, B: w})
			m.ops.Matmul(tensor.Matmul{C: dw, A: c, B: x, TransA: true, Beta: 1})
			m.ops.SumRows(db, c)
			subtract(dw, dw0)
			subtract(db, db0)
			y := m.blank(s[0], s[2])
			loss := func() float64 {
				m.ops.Matmul(tensor.Matmul{C: y, A: x, B: w, TransB: true, Bias: b})
				return weigh(c, y)
			}
			m.differ("x", x, dx, loss)
			m.differ("W", w, dw, loss)
			m.differ("b", b, db, loss)
		})
	}
}

// subtract takes out what an accumulated gradient began with.
func subtract(x, y tensor.Tensor) {
	v, i := flat(y), 0
	each(x, func(p *float64) { *p -= v[i]; i++ })
}

func TestEmbeddingGradient(t *testing.T) {
	for _, ids := range [][]int32{{}, {2}, {0, 3, 3, 1, 3}} {
		t.Run(fmt.Sprint(ids), func(t *testing.T) {
			m := newMaker(t)
			w, c, y := m.random(4, 3), m.random(len(ids), 3), m.blank(len(ids), 3)
			at, dw := m.ints(ids...), m.random(4, 3)
			before := m.copy(dw)
			m.ops.EmbeddingBackward(dw, c, at)
			subtract(dw, before)
			m.differ("w", w, dw, func() float64 { m.ops.Embedding(y, w, at); return weigh(c, y) })
		})
	}
}

func TestRMSNormGradient(t *testing.T) {
	for _, s := range [][2]int{{0, 3}, {1, 1}, {2, 3}, {3, 7}, {7, 16}, {2, 33}} {
		for _, residual := range []bool{false, true} {
			for _, accumulate := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v residual %v accumulate %v", s, residual, accumulate), func(t *testing.T) {
					m := newMaker(t)
					x, w, c := m.random(s[0], s[1]), m.random(s[1]), m.random(s[0], s[1])
					y, rstd := m.blank(s[0], s[1]), m.blank(s[0])
					a := tensor.RMSNorm{Y: y, X: x, W: w, RStd: rstd, Eps: 0.01, WOffset: 0.75}
					b := tensor.RMSNormBackward{DY: c, S: x, W: w, RStd: rstd, Accumulate: accumulate, WOffset: 0.75}
					var csum tensor.Tensor
					if residual {
						// The sum flows on in the residual stream: the loss sees it too.
						a.Delta, a.Sum = m.random(s[0], s[1]), m.blank(s[0], s[1])
						csum = m.random(s[0], s[1])
						b.S, b.DSum = a.Sum, csum
					}
					loss := func() float64 {
						m.ops.RMSNorm(a)
						if residual {
							return weigh(c, y) + weigh(csum, a.Sum)
						}
						return weigh(c, y)
					}
					loss()
					b.DX, b.DW = m.blank(s[0], s[1]), m.random(s[1])
					if accumulate {
						b.DX = m.random(s[0], s[1])
					}
					dx0, dw0 := m.copy(b.DX), m.copy(b.DW)
					m.ops.RMSNormBackward(b)
					subtract(b.DW, dw0)
					if accumulate {
						subtract(b.DX, dx0)
					}
					m.differ("X", x, b.DX, loss)
					m.differ("W", w, b.DW, loss)
					if residual {
						m.differ("Delta", a.Delta, b.DX, loss)
						loss() // Sum and RStd belong to the last difference
						alias := b
						alias.DX, alias.DW, alias.Accumulate = m.copy(csum), tensor.Tensor{}, false
						alias.DSum = alias.DX
						m.ops.RMSNormBackward(alias)
						m.differ("X with DX = DSum", x, alias.DX, loss)
					}
				})
			}
		}
	}
}

func TestLayerNormGradient(t *testing.T) {
	for _, s := range [][2]int{{0, 3}, {1, 1}, {2, 3}, {3, 7}, {7, 16}, {2, 33}} {
		for _, residual := range []bool{false, true} {
			for _, accumulate := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v residual %v accumulate %v", s, residual, accumulate), func(t *testing.T) {
					m := newMaker(t)
					x, w, bias, c := m.random(s[0], s[1]), m.random(s[1]), m.random(s[1]), m.random(s[0], s[1])
					y, mean, rstd := m.blank(s[0], s[1]), m.blank(s[0]), m.blank(s[0])
					a := tensor.LayerNorm{Y: y, X: x, W: w, Bias: bias, Mean: mean, RStd: rstd, Eps: 0.01}
					b := tensor.LayerNormBackward{DY: c, S: x, W: w, Mean: mean, RStd: rstd, Accumulate: accumulate}
					var csum tensor.Tensor
					if residual {
						a.Delta, a.Sum = m.random(s[0], s[1]), m.blank(s[0], s[1])
						csum = m.random(s[0], s[1])
						b.S, b.DSum = a.Sum, csum
					}
					loss := func() float64 {
						m.ops.LayerNorm(a)
						if residual {
							return weigh(c, y) + weigh(csum, a.Sum)
						}
						return weigh(c, y)
					}
					loss()
					b.DX, b.DW, b.DBias = m.blank(s[0], s[1]), m.random(s[1]), m.random(s[1])
					if accumulate {
						b.DX = m.random(s[0], s[1])
					}
					dx0, dw0, db0 := m.copy(b.DX), m.copy(b.DW), m.copy(b.DBias)
					m.ops.LayerNormBackward(b)
					subtract(b.DW, dw0)
					subtract(b.DBias, db0)
					if accumulate {
						subtract(b.DX, dx0)
					}
					m.differ("X", x, b.DX, loss)
					m.differ("W", w, b.DW, loss)
					m.differ("Bias", bias, b.DBias, loss)
					if residual {
						m.differ("Delta", a.Delta, b.DX, loss)
						loss() // Sum, Mean and RStd belong to the last difference
						alias := b
						alias.DX, alias.DW, alias.DBias, alias.Accumulate = m.copy(csum), tensor.Tensor{}, tensor.Tensor{}, false
						alias.DSum = alias.DX
						m.ops.LayerNormBackward(alias)
						m.differ("X with DX = DSum", x, alias.DX, loss)
					}
				})
			}
		}
	}
}

func TestHeadNormGradient(t *testing.T) {
	for _, s := range [][3]int{{1, 1, 1}, {2, 1, 3}, {4, 2, 6}, {3, 3, 5}} {
		for _, tokens := range []int{0, 1, 4} {
			t.Run(fmt.Sprint(s, tokens), func(t *testing.T) {
				m := newMaker(t)
				width := (s[0] + 2*s[1]) * s[2]
				x, c, wq, wk := m.random(tokens, width), m.random(tokens, width), m.random(s[2]), m.random(s[2])
				a := tensor.HeadNorm{Y: m.blank(tokens, width), X: x, WQ: wq, WK: wk, RStd: m.blank(tokens, s[0]+s[1]),
					Heads: s[0], KVHeads: s[1], HeadDim: s[2], Eps: 0.01, WOffset: 0.75}
				loss := func() float64 { m.ops.HeadNorm(a); return weigh(c, a.Y) }
				loss()
				b := tensor.HeadNormBackward{DX: m.blank(tokens, width), DWQ: m.random(s[2]), DWK: m.random(s[2]), DY: c, X: x, WQ: wq, WK: wk,
					RStd: a.RStd, Heads: s[0], KVHeads: s[1], HeadDim: s[2], WOffset: 0.75}
				dwq0, dwk0 := m.copy(b.DWQ), m.copy(b.DWK)
				m.ops.HeadNormBackward(b)
				subtract(b.DWQ, dwq0)
				subtract(b.DWK, dwk0)
				m.differ("X", x, b.DX, loss)
				m.differ("WQ", wq, b.DWQ, loss)
				m.differ("WK", wk, b.DWK, loss)
				loss() // RStd belongs to the last difference
				alias := b
				alias.DX, alias.DWQ, alias.DWK = m.copy(c), tensor.Tensor{}, tensor.Tensor{}
				alias.DY = alias.DX
				m.ops.HeadNormBackward(alias)
				m.differ("X with DX = DY", x, alias.DX, loss)
			})
		}
	}
}

func TestRoPEGradient(t *testing.T) {
	for _, s := range []struct{ heads, headDim, half, extra int }{{1, 2, 1, 0}, {3, 6, 3, 0}, {2, 7, 2, 3}} {
		for _, tokens := range []int{0, 1, 5} {
			t.Run(fmt.Sprintf("%+v %d", s, tokens), func(t *testing.T) {
				m := newMaker(t)
				x, c := m.random(tokens, s.heads*s.headDim+s.extra), m.random(tokens, s.heads*s.headDim+s.extra)
				cos, sin := m.random(9, s.half), m.random(9, s.half) // the operation takes any
				at := m.positions(tokens, 9)
				a := tensor.RoPE{Cos: cos, Sin: sin, Positions: at, Heads: s.heads, HeadDim: s.headDim}
				dx := m.copy(c)
				b := a
				b.X, b.Inverse = dx, true
				m.ops.RoPE(b)
				m.differ("X", x, dx, func() float64 {
					forward := a
					forward.X = m.copy(x)
					m.ops.RoPE(forward)
					return weigh(c, forward.X)
				})
			})
		}
	}
}

func (m *maker) positions(n, below int) tensor.Tensor {
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(m.rng.IntN(below))
	}
	return m.ints(v...)
}

func TestAttentionGradient(t *testing.T) {
	for _, heads := range [][3]int{{1, 1, 1}, {2, 2, 3}, {4, 2, 2}, {3, 1, 5}} {
		for _, starts := range [][]int32{{0}, {0, 0}, {0, 1}, {0, 3}, {0, 2, 2, 7, 8}} {
			for _, window := range []int{0, 1, 3} {
				t.Run(fmt.Sprint(heads, starts, window), func(t *testing.T) {
					m := newMaker(t)
					shape := tensor.AttentionShape{Heads: heads[0], KVHeads: heads[1], HeadDim: heads[2], Scale: 0.7, Window: window}
					tokens := int(starts[len(starts)-1])
					qkv, c := m.random(tokens, (heads[0]+2*heads[1])*heads[2]), m.random(tokens, heads[0]*heads[2])
					a := tensor.Attention{AttentionShape: shape, QKV: qkv, O: m.blank(tokens, heads[0]*heads[2]),
						LSE: m.blank(heads[0], tokens), Starts: m.ints(starts...), Longest: 8}
					loss := func() float64 { m.ops.Attention(a); return weigh(c, a.O) }
					loss()
					dqkv := m.blank(qkv.Shape...)
					m.ops.AttentionBackward(tensor.AttentionBackward{AttentionShape: shape, DQKV: dqkv, DO: c,
						O: a.O, LSE: a.LSE, QKV: qkv, Starts: a.Starts, Longest: 8})
					m.differ("QKV", qkv, dqkv, loss)
				})
			}
		}
	}
}

func TestGLUGradient(t *testing.T) {
	for _, act := range []tensor.Activation{tensor.SiLU, tensor.GELU, tensor.GELUTanh, tensor.ReLU} {
		for _, s := range [][2]int{{0, 3}, {1, 1}, {3, 7}, {5, 17}} {
			t.Run(fmt.Sprint(act, s), func(t *testing.T) {
				m := newMaker(t)
				x, c, y := m.random(s[0], 2*s[1]), m.random(s[0], s[1]), m.blank(s[0], s[1])
				each(x, func(v *float64) { *v *= 3 }) // reach the bends on both sides
				dx := m.blank(s[0], 2*s[1])
				m.ops.GLUBackward(dx, c, x, act)
				m.differ("x", x, dx, func() float64 { m.ops.GLU(y, x, act); return weigh(c, y) })
				alias := m.copy(x)
				m.ops.GLUBackward(alias, c, alias, act)
				m.differ("x with dx = x", x, alias, func() float64 { m.ops.GLU(y, x, act); return weigh(c, y) })
			})
		}
	}
}

func TestActivateGradient(t *testing.T) {
	for _, act := range []tensor.Activation{tensor.SiLU, tensor.GELU, tensor.GELUTanh, tensor.ReLU} {
		for _, s := range [][2]int{{0, 3}, {1, 1}, {3, 7}, {5, 17}} {
			t.Run(fmt.Sprint(act, s), func(t *testing.T) {
				m := newMaker(t)
				x, c, y := m.random(s[0], s[1]), m.random(s[0], s[1]), m.blank(s[0], s[1])
				each(x, func(v *float64) { *v *= 3 }) // reach the bends on both sides
				loss := func() float64 { m.ops.Activate(y, x, act); return weigh(c, y) }
				dx, inX, inDY := m.blank(s[0], s[1]), m.copy(x), m.copy(c)
				m.ops.ActivateBackward(dx, c, x, act)
				m.ops.ActivateBackward(inX, c, inX, act)
				m.ops.ActivateBackward(inDY, inDY, x, act)
				m.differ("x", x, dx, loss)
				m.differ("x with dx = x", x, inX, loss)
				m.differ("x with dx = dy", x, inDY, loss)
			})
		}
	}
}

func TestSoftCapGradient(t *testing.T) {
	for _, limit := range []float32{0.5, 2, 30} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			m := newMaker(t)
			x, c, y := m.random(3, 7), m.random(3, 7), m.blank(3, 7)
			loss := func() float64 { m.ops.SoftCap(y, x, limit); return weigh(c, y) }
			loss()
			dx, inY, inDY := m.blank(3, 7), m.copy(y), m.copy(c)
			m.ops.SoftCapBackward(dx, c, y, limit)
			m.ops.SoftCapBackward(inY, c, inY, limit)
			m.ops.SoftCapBackward(inDY, inDY, y, limit)
			m.differ("x", x, dx, loss)
			m.differ("x with dx = y", x, inY, loss)
			m.differ("x with dx = dy", x, inDY, loss)
		})
	}
}

func TestCrossEntropyGradient(t *testing.T) {
	for _, s := range []struct {
		h, vocab int
		targets  []int32
	}{{3, 4, nil}, {1, 2, []int32{1}}, {5, 7, []int32{6, -100, 0}}, {4, 3, []int32{-1, -1}}, {3, 11, []int32{1, 2, 3, -100, 3, 10, 0}}} {
		for _, limit := range []float32{0, 1.5} {
			t.Run(fmt.Sprint(s, limit), func(t *testing.T) {
				m := newMaker(t)
				n := len(s.targets)
				x, w, y, scale := m.random(n, s.h), m.random(s.vocab, s.h), m.ints(s.targets...), m.random(1)
				a := tensor.CrossEntropy{X: x, W: w, Targets: y, Scale: scale, Loss: m.zeros(3), DX: m.blank(n, s.h), DW: m.random(s.vocab, s.h), SoftCap: limit}
				before := m.copy(a.DW)
				m.ops.CrossEntropy(a)
				subtract(a.DW, before)
				loss := func() float64 {
					forward := tensor.CrossEntropy{X: x, W: w, Targets: y, Loss: m.zeros(3), SoftCap: limit}
					m.ops.CrossEntropy(forward)
					return forward.Loss.Float64()[0] * scale.Float64()[0]
				}
				m.differ("X", x, a.DX, loss)
				m.differ("W", w, a.DW, loss)
			})
		}
	}
}

// TestLogProbGradient is of Σ c·logprob + Σ d·entropy, and of either alone.
func TestLogProbGradient(t *testing.T) {
	for _, s := range []struct {
		h, vocab int
		targets  []int32
	}{{3, 4, nil}, {1, 2, []int32{1}}, {2, 1, []int32{0}}, {5, 7, []int32{6, -100, 0}}, {4, 3, []int32{-1, -1}}, {3, 11, []int32{1, 2, 3, -100, 3, 10, 0}}} {
		for i, temperature := range []float32{1, 0.5, 3, 1, 0.5} {
			limit := float32(i / 3 * 2)
			for _, of := range []string{"log-probability", "entropy", "both"} {
				t.Run(fmt.Sprint(s, temperature, limit, of), func(t *testing.T) {
					m := newMaker(t)
					n := len(s.targets)
					a := tensor.LogProb{X: m.random(n, s.h), W: m.random(s.vocab, s.h), Targets: m.ints(s.targets...), Temperature: temperature, SoftCap: limit,
						LogProbs: m.blank(n), Entropies: m.blank(n), LSE: m.blank(n)}
					b := tensor.LogProbBackward{X: a.X, W: a.W, Targets: a.Targets, Temperature: temperature, SoftCap: limit, LSE: a.LSE, Entropies: a.Entropies,
						DX: m.blank(n, s.h), DW: m.random(s.vocab, s.h)}
					if of != "entropy" {
						b.DLogProbs = m.random(n)
					}
					if of != "log-probability" {
						b.DEntropies = m.random(n)
					}
					loss := func() float64 {
						m.ops.LogProb(a)
						sum := 0.0
						if of != "entropy" {
							sum += weigh(b.DLogProbs, a.LogProbs)
						}
						if of != "log-probability" {
							sum += weigh(b.DEntropies, a.Entropies)
						}
						return sum
					}
					loss()
					before := m.copy(b.DW)
					m.ops.LogProbBackward(b)
					subtract(b.DW, before)
					m.differ("X", a.X, b.DX, loss)
					m.differ("W", a.W, b.DW, loss)
				})
			}
		}
	}
}
