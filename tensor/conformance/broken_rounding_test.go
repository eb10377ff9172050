package conformance

import (
	"math"
	"strings"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// half is a correct BF16 device's table.
var half = ref.NewRounded(tensor.BF16).Ops()

// halved copies t to BF16 and back.
func halved(t tensor.Tensor) tensor.Tensor {
	dev := ref.NewRounded(tensor.BF16)
	c, _, _ := tensor.New(dev, tensor.BF16, t.Shape...)
	w, _, _ := tensor.New(dev, t.Dtype, t.Shape...)
	half.Copy(c, t)
	half.Copy(w, c)
	return w
}

// roundingMistakes are those of 16-bit devices that round where they need not.
var roundingMistakes = []mistake{
	{"sums kept in BF16", "Matmul", "C ", func(ops *tensor.Ops) {
		ops.Matmul = func(m tensor.Matmul) {
			bias := m.Bias
			m.Bias = tensor.Tensor{}
			inner := m.A.Cols()
			if m.TransA {
				inner = m.A.Rows()
			}
			if m.Beta == 0 {
				half.Zero(m.C)
			}
			sum, _, _ := tensor.New(m.C.Device, tensor.BF16, m.C.Shape...)
			half.Copy(sum, m.C)
			one := func(t tensor.Tensor, rows bool, k int) tensor.Tensor {
				if rows {
					return t.Slice(k, 1)
				}
				return t.Columns(k, 1)
			}
			for k := range inner {
				half.Matmul(tensor.Matmul{C: sum, A: one(m.A, m.TransA, k), B: one(m.B, !m.TransB, k), TransA: m.TransA, TransB: m.TransB, Beta: 1})
			}
			half.Copy(m.C, sum)
			if !bias.IsZero() {
				for i := range m.C.Rows() {
					row := m.C.Slice(i, 1)
					row.Shape = row.Shape[1:]
					half.SumRows(row, bias.Reshape(1, bias.Len()))
				}
			}
		}
	}},
	{"a wide result rounded to BF16", "Matmul", "C F32", func(ops *tensor.Ops) {
		ops.Matmul = func(m tensor.Matmul) {
			half.Matmul(m)
			half.Copy(m.C, halved(m.C))
		}
	}},
	{"sums kept in BF16", "SumRows", "y ", func(ops *tensor.Ops) {
		ops.SumRows = func(y, x tensor.Tensor) {
			for i := range x.Rows() {
				half.SumRows(y, x.Slice(i, 1))
				half.Copy(y, halved(y))
			}
		}
	}},
	{"rounded at each token", "EmbeddingBackward", "dw BF16", func(ops *tensor.Ops) {
		ops.EmbeddingBackward = func(dw, dy, ids tensor.Tensor) {
			for i := range ids.Len() {
				half.EmbeddingBackward(dw, dy.Slice(i, 1), ids.Slice(i, 1))
			}
		}
	}},
	{"statistics in BF16", "RMSNorm", "RStd F32", func(ops *tensor.Ops) {
		ops.RMSNorm = func(a tensor.RMSNorm) {
			half.RMSNorm(a)
			half.Copy(a.RStd, halved(a.RStd))
		}
	}},
	{"the normalised row rounded before its weights", "RMSNorm", "Y BF16", func(ops *tensor.Ops) {
		ops.RMSNorm = func(a tensor.RMSNorm) {
			w := a.W
			one, _, _ := tensor.New(w.Device, tensor.BF16, w.Len())
			tensor.SetFloat64(one, ones(w.Len()))
			offset := a.WOffset
			a.W, a.WOffset = one, 0
			half.RMSNorm(a)
			for i := range a.Y.Rows() {
				row, weights := a.Y.Slice(i, 1), tensor.GetFloat64(halved(w))
				v := tensor.GetFloat64(halved(row))
				for j := range v {
					v[j] *= weights[j] + float64(offset)
				}
				tensor.SetFloat64(row, v)
			}
		}
	}},
	{"gradients of weights in BF16", "RMSNormBackward", "DW F32", func(ops *tensor.Ops) {
		ops.RMSNormBackward = func(a tensor.RMSNormBackward) {
			half.RMSNormBackward(a)
			if !a.DW.IsZero() {
				half.Copy(a.DW, halved(a.DW))
			}
		}
	}},
	{"the gate rounded before its product", "GLU", "y BF16", func(ops *tensor.Ops) {
		ops.GLU = func(y, x tensor.Tensor, act tensor.Activation) {
			n := y.Cols()
			half.Activate(y, x.Columns(0, n), act)
			for i := range y.Rows() {
				gate, up := tensor.GetFloat64(halved(y.Slice(i, 1))), tensor.GetFloat64(halved(x.Slice(i, 1).Columns(n, n)))
				for j := range gate {
					gate[j] *= up[j]
				}
				tensor.SetFloat64(y.Slice(i, 1), gate)
			}
		}
	}},
	{"scores in BF16", "Attention", "LSE F32", func(ops *tensor.Ops) {
		ops.Attention = func(a tensor.Attention) {
			half.Attention(a)
			half.Copy(a.LSE, halved(a.LSE))
		}
	}},
	{"keys scaled in BF16", "Attention", "[", func(ops *tensor.Ops) {
		ops.Attention = func(a tensor.Attention) {
			qkv := halved(a.QKV)
			half.Scale(qkv, 1.1)
			half.Scale(qkv, 1/1.1)
			a.QKV = qkv
			half.Attention(a)
		}
	}},
	{"logits in BF16", "LogProb", "F32", func(ops *tensor.Ops) {
		ops.LogProb = func(a tensor.LogProb) {
			half.LogProb(a)
			half.Copy(a.LSE, halved(a.LSE))
			half.Copy(a.LogProbs, halved(a.LogProbs))
		}
	}},
	{"cut off in place of rounded", "AdamW", "Param BF16", func(ops *tensor.Ops) {
		ops.AdamW = func(a tensor.AdamW) {
			half.AdamW(a)
			if !a.Master.IsZero() && a.Step.Float64()[tensor.StepSkip] == 0 {
				for i, x := range a.Master.Float32() {
					a.Param.Uint16()[i] = uint16(math.Float32bits(x) >> 16)
				}
			}
		}
	}},
	{"Param made of an update by other arithmetic than Master's", "AdamW", "but Master rounded is", func(ops *tensor.Ops) {
		ops.AdamW = func(a tensor.AdamW) {
			half.AdamW(a)
			if !a.Master.IsZero() && a.Step.Float64()[tensor.StepSkip] == 0 {
				v := tensor.GetFloat64(a.Master)
				for i := range v {
					v[i] *= 1 + 3e-6
				}
				tensor.SetFloat64(a.Param, v)
			}
		}
	}},
	{"Master forgotten", "AdamW", "[", func(ops *tensor.Ops) {
		ops.AdamW = func(a tensor.AdamW) { a.Master = tensor.Tensor{}; half.AdamW(a) }
	}},
}

func ones(n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = 1
	}
	return v
}

// TestSuiteFindsRounding breaks a BF16 device in the ways in which mixed precision is
// commonly wrong.
func TestSuiteFindsRounding(t *testing.T) {
	for _, m := range roundingMistakes {
		t.Run(m.section+"/"+m.name, func(t *testing.T) {
			dev := ref.NewRounded(tensor.BF16)
			ops := dev.Ops()
			m.make(ops)
			message := firstFailure(&broken{dev, ops}, m.section)
			if message == "" {
				t.Error("the suite passes")
			} else if !strings.Contains(message, m.want) {
				t.Errorf("the suite says %q, want %q in it", message, m.want)
			}
		})
	}
}
