package conformance

import (
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// broken is the reference device with one mistake.
type broken struct {
	*ref.Device
	ops *tensor.Ops
}

func (b *broken) Ops() *tensor.Ops { return b.ops }

// firstFailure runs one section up to its first failure, which it returns.
func firstFailure(dev tensor.Device, section string) string { return firstFailureOf(dev, section, 1) }

// firstFailureOf runs one of so many of the section's trials (see Options.Every).
func firstFailureOf(dev tensor.Device, section string, every int) string {
	message := ""
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := &suite{dev: dev, ref: ref.New(), every: every, report: func(args ...any) {
			message = args[0].(string)
			runtime.Goexit()
		}}
		for _, part := range sections {
			if part.name == section {
				part.run(s)
				return
			}
		}
		message = "no such section"
	}()
	<-done
	return message
}

// mistake is one that a section of the suite finds.
type mistake struct {
	name, section string
	want          string // in the message of the first failure
	make          func(ops *tensor.Ops)
}

// good are operations without a mistake.
var good = ref.New().Ops()

// TestSuiteFindsMistakes breaks one operation at a time, in the ways in which
// kernels are commonly wrong, and wants the suite to name the result that shows it.
func TestSuiteFindsMistakes(t *testing.T) {
	runs := 0.0
	mistakes := []mistake{
		{"result off by 1e-9", "Matmul", "C[", func(ops *tensor.Ops) {
			ops.Matmul = func(m tensor.Matmul) {
				good.Matmul(m)
				if m.C.Len() > 0 {
					m.C.Float64()[m.C.Bytes()/8-1] += 1e-9
				}
			}
		}},
		{"C read under Beta 0", "Matmul", "C[", func(ops *tensor.Ops) {
			ops.Matmul = func(m tensor.Matmul) { m.Beta = 1; good.Matmul(m) }
		}},
		{"Beta ignored", "Matmul", "C[", func(ops *tensor.Ops) {
			ops.Matmul = func(m tensor.Matmul) { m.Beta = 0; good.Matmul(m) }
		}},
		{"Bias forgotten", "Matmul", "C[", func(ops *tensor.Ops) {
			ops.Matmul = func(m tensor.Matmul) { m.Bias = tensor.Tensor{}; good.Matmul(m) }
		}},
		{"an operand's stride ignored", "Matmul", "C[", func(ops *tensor.Ops) {
			ops.Matmul = func(m tensor.Matmul) { m.A.Stride = m.A.Cols(); good.Matmul(m) }
		}},
		{"scratch memory in an input", "Matmul", "input A was changed", func(ops *tensor.Ops) {
			ops.Matmul = func(m tensor.Matmul) {
				good.Matmul(m)
				good.Scale(m.A, -1)
			}
		}},
		{"NaN times zero dropped", "Matmul", "C[", func(ops *tensor.Ops) {
			ops.Matmul = func(m tensor.Matmul) {
				good.Matmul(m)
				cleanse(m.C)
			}
		}},
		{"a vector written past the end", "Add", "memory outside of result y", func(ops *tensor.Ops) {
			ops.Add = func(y, a, b tensor.Tensor) {
				good.Add(y, a, b)
				y.Shape = []int{y.Len() + 1}
				y.Float64()[y.Len()-1] = 0
			}
		}},
		{"rows written through the gap between them", "Scale", "memory outside of result x", func(ops *tensor.Ops) {
			ops.Scale = func(x tensor.Tensor, f float32) {
				for i, v := range x.Float64() {
					x.Float64()[i] = v * float64(f)
				}
			}
		}},
		{"a different sum each time", "Add", "differs between two runs", func(ops *tensor.Ops) {
			ops.Add = func(y, a, b tensor.Tensor) {
				good.Add(y, a, b)
				runs++
				if y.Len() > 0 {
					y.Float64()[0] += runs * 1e-15
				}
			}
		}},
		{"truncation in place of rounding", "Copy", "dst[", func(ops *tensor.Ops) {
			ops.Copy = func(dst, src tensor.Tensor) {
				good.Copy(dst, src)
				if dst.Dtype == tensor.BF16 && src.Dtype == tensor.F32 && dst.Dense() && src.Dense() {
					for i, v := range src.Float32() {
						dst.Uint16()[i] = uint16(math.Float32bits(v) >> 16)
					}
				}
			}
		}},
		{"set in place of added", "SumRows", "y[", func(ops *tensor.Ops) {
			ops.SumRows = func(y, x tensor.Tensor) { good.Zero(y); good.SumRows(y, x) }
		}},
		{"ids off by one", "Embedding", "y[", func(ops *tensor.Ops) {
			ops.Embedding = func(y, w, ids tensor.Tensor) {
				good.Embedding(y, w, ids)
				if y.Shape[0] > 1 {
					good.Copy(y.Slice(0, 1), y.Slice(1, 1))
				}
			}
		}},
		{"only the last of equal ids counted", "EmbeddingBackward", "dw[", func(ops *tensor.Ops) {
			ops.EmbeddingBackward = func(dw, dy, ids tensor.Tensor) {
				for t := range ids.Len() {
					good.Copy(dw.Slice(int(ids.Int32()[t]), 1), dy.Slice(t, 1))
				}
			}
		}},
		{"Eps forgotten", "RMSNorm", "[", func(ops *tensor.Ops) {
			ops.RMSNorm = func(a tensor.RMSNorm) { a.Eps = 0; good.RMSNorm(a) }
		}},
		{"Sum not written", "RMSNorm", "Sum[", func(ops *tensor.Ops) {
			ops.RMSNorm = func(a tensor.RMSNorm) {
				if !a.Sum.IsZero() {
					sum, b, _ := tensor.New(ref.New(), tensor.F64, a.X.Shape...)
					defer b.Free()
					a.Sum = sum
				}
				good.RMSNorm(a)
			}
		}},
		{"WOffset forgotten", "RMSNorm", "WOffset 1", func(ops *tensor.Ops) {
			ops.RMSNorm = func(a tensor.RMSNorm) { a.WOffset = 0; good.RMSNorm(a) }
		}},
		{"WOffset forgotten", "RMSNormBackward", "WOffset 1", func(ops *tensor.Ops) {
			ops.RMSNormBackward = func(a tensor.RMSNormBackward) { a.WOffset = 0; good.RMSNormBackward(a) }
		}},
		{"DSum forgotten", "RMSNormBackward", "[", func(ops *tensor.Ops) {
			ops.RMSNormBackward = func(a tensor.RMSNormBackward) { a.DSum = tensor.Tensor{}; good.RMSNormBackward(a) }
		}},
		{"Accumulate ignored", "RMSNormBackward", "DX[", func(ops *tensor.Ops) {
			ops.RMSNormBackward = func(a tensor.RMSNormBackward) { a.Accumulate = false; good.RMSNormBackward(a) }
		}},
		{"the variance around 0", "LayerNorm", "[", func(ops *tensor.Ops) {
			ops.LayerNorm = func(a tensor.LayerNorm) {
				good.LayerNorm(a)
				s := a.X
				if !a.Sum.IsZero() {
					s = a.Sum
				}
				good.RMSNorm(tensor.RMSNorm{Y: a.Y, X: s, W: a.W, RStd: a.RStd, Eps: a.Eps})
			}
		}},
		{"Mean not written", "LayerNorm", "Mean[", func(ops *tensor.Ops) {
			ops.LayerNorm = func(a tensor.LayerNorm) {
				mean, b, _ := tensor.New(ref.New(), tensor.F64, a.Mean.Shape...)
				defer b.Free()
				a.Mean = mean
				good.LayerNorm(a)
			}
		}},
		{"Bias forgotten", "LayerNorm", "Y[", func(ops *tensor.Ops) {
			ops.LayerNorm = func(a tensor.LayerNorm) { a.Bias = tensor.Tensor{}; good.LayerNorm(a) }
		}},
		{"RMSNorm's gradient", "LayerNormBackward", "DX[", func(ops *tensor.Ops) {
			ops.LayerNormBackward = func(a tensor.LayerNormBackward) {
				before, b, _ := tensor.New(ref.New(), tensor.F64, a.DX.Shape...)
				defer b.Free()
				good.Copy(before, a.DX)
				good.LayerNormBackward(a)
				good.Copy(a.DX, before)
				good.RMSNormBackward(tensor.RMSNormBackward{DX: a.DX, DY: a.DY, DSum: a.DSum, S: a.S, W: a.W, RStd: a.RStd, Accumulate: a.Accumulate})
			}
		}},
		{"Accumulate ignored", "LayerNormBackward", "DX[", func(ops *tensor.Ops) {
			ops.LayerNormBackward = func(a tensor.LayerNormBackward) { a.Accumulate = false; good.LayerNormBackward(a) }
		}},
		{"DBias set in place of added", "LayerNormBackward", "DBias[", func(ops *tensor.Ops) {
			ops.LayerNormBackward = func(a tensor.LayerNormBackward) {
				if !a.DBias.IsZero() {
					good.Zero(a.DBias)
				}
				good.LayerNormBackward(a)
			}
		}},
		{"the queries' weights for keys", "HeadNorm", "Y[", func(ops *tensor.Ops) {
			ops.HeadNorm = func(a tensor.HeadNorm) { a.WK = a.WQ; good.HeadNorm(a) }
		}},
		{"values normalised", "HeadNorm", "Y[", func(ops *tensor.Ops) {
			ops.HeadNorm = func(a tensor.HeadNorm) {
				heads := a.Heads + 2*a.KVHeads
				wide, b, _ := tensor.New(ref.New(), tensor.F64, a.X.Rows(), (heads+a.KVHeads)*a.HeadDim)
				defer b.Free()
				out, b2, _ := tensor.New(ref.New(), tensor.F64, wide.Shape...)
				defer b2.Free()
				rstd, b3, _ := tensor.New(ref.New(), tensor.F64, a.X.Rows(), heads)
				defer b3.Free()
				good.Copy(wide.Columns(0, a.X.Cols()), a.X)
				y, r := a.Y, a.RStd
				a.X, a.Y, a.RStd, a.Heads = wide, out, rstd, heads-a.KVHeads
				good.HeadNorm(a)
				good.Copy(y, out.Columns(0, y.Cols()))
				good.Copy(r, rstd.Columns(0, r.Cols()))
			}
		}},
		{"WOffset forgotten", "HeadNorm", "WOffset 1", func(ops *tensor.Ops) {
			ops.HeadNorm = func(a tensor.HeadNorm) { a.WOffset = 0; good.HeadNorm(a) }
		}},
		{"the values' gradients not copied", "HeadNormBackward", "DX[", func(ops *tensor.Ops) {
			ops.HeadNormBackward = func(a tensor.HeadNormBackward) {
				good.HeadNormBackward(a)
				good.Zero(a.DX.Columns((a.Heads+a.KVHeads)*a.HeadDim, a.KVHeads*a.HeadDim))
			}
		}},
		{"DWK set in place of added", "HeadNormBackward", "DWK[", func(ops *tensor.Ops) {
			ops.HeadNormBackward = func(a tensor.HeadNormBackward) {
				if !a.DWK.IsZero() {
					good.Zero(a.DWK)
				}
				good.HeadNormBackward(a)
			}
		}},
		{"Inverse ignored", "RoPE", "X[", func(ops *tensor.Ops) {
			ops.RoPE = func(a tensor.RoPE) { a.Inverse = false; good.RoPE(a) }
		}},
		{"rows in place of Positions", "RoPE", "X[", func(ops *tensor.Ops) {
			ops.RoPE = func(a tensor.RoPE) {
				for t := range a.Positions.Len() {
					a.Positions.Int32()[t] = int32(t)
				}
				good.RoPE(a)
			}
		}},
		{"Window ignored", "Attention", "[", func(ops *tensor.Ops) {
			ops.Attention = func(a tensor.Attention) { a.Window = 0; good.Attention(a) }
		}},
		{"a window longer by one", "Attention", "[", func(ops *tensor.Ops) {
			ops.Attention = func(a tensor.Attention) {
				if a.Window > 0 {
					a.Window++
				}
				good.Attention(a)
			}
		}},
		{"attention across sequences", "Attention", "[", func(ops *tensor.Ops) {
			ops.Attention = func(a tensor.Attention) {
				starts, b, _ := tensor.New(ref.New(), tensor.I32, 2)
				defer b.Free()
				starts.Int32()[1] = int32(a.QKV.Rows())
				a.Starts, a.Longest = starts, a.QKV.Rows()
				good.Attention(a)
			}
		}},
		{"DQKV added to", "AttentionBackward", "DQKV[", func(ops *tensor.Ops) {
			ops.AttentionBackward = func(a tensor.AttentionBackward) {
				before, b, _ := tensor.New(ref.New(), tensor.F64, a.DQKV.Shape...)
				defer b.Free()
				good.Copy(before, a.DQKV)
				good.AttentionBackward(a)
				good.Add(a.DQKV, a.DQKV, before)
			}
		}},
		{"key and value gradients of one head only", "AttentionBackward", "DQKV[", func(ops *tensor.Ops) {
			ops.AttentionBackward = func(a tensor.AttentionBackward) {
				good.AttentionBackward(a)
				good.Scale(a.DQKV.Columns(a.Heads*a.HeadDim, 2*a.KVHeads*a.HeadDim), float32(a.KVHeads)/float32(a.Heads))
			}
		}},
		{"the cache's unwritten rows read", "CachedAttention", "O[", func(ops *tensor.Ops) {
			ops.CachedAttention = func(a tensor.CachedAttention) { a.Window = 0; good.CachedAttention(a) }
		}},
		{"cache not written", "CachedAttention", "[", func(ops *tensor.Ops) {
			ops.CachedAttention = func(a tensor.CachedAttention) {
				k, bk, _ := tensor.New(ref.New(), tensor.F64, a.K.Shape...)
				defer bk.Free()
				good.Copy(k, a.K)
				a.K = k
				good.CachedAttention(a)
			}
		}},
		{"up before gate", "GLU", "y[", func(ops *tensor.Ops) {
			ops.GLU = func(y, x tensor.Tensor, act tensor.Activation) {
				n := y.Cols()
				swapped, b, _ := tensor.New(ref.New(), tensor.F64, x.Shape...)
				defer b.Free()
				good.Copy(swapped.Columns(0, n), x.Columns(n, n))
				good.Copy(swapped.Columns(n, n), x.Columns(0, n))
				good.GLU(y, swapped, act)
			}
		}},
		{"the tanh approximation for GELU", "GLU", "y[", func(ops *tensor.Ops) {
			ops.GLU = func(y, x tensor.Tensor, act tensor.Activation) {
				if act == tensor.GELU {
					act = tensor.GELUTanh
				}
				good.GLU(y, x, act)
			}
		}},
		{"NaN lost by max(x, 0)", "GLU", "y[", func(ops *tensor.Ops) {
			ops.GLU = func(y, x tensor.Tensor, act tensor.Activation) {
				good.GLU(y, x, act)
				if act == tensor.ReLU {
					cleanse(y)
				}
			}
		}},
		{"the activation's slope forgotten", "GLUBackward", "[", func(ops *tensor.Ops) {
			ops.GLUBackward = func(dx, dy, x tensor.Tensor, act tensor.Activation) {
				good.GLUBackward(dx, dy, x, tensor.ReLU)
			}
		}},
		{"the tanh approximation for GELU", "Activate", "y[", func(ops *tensor.Ops) {
			ops.Activate = func(y, x tensor.Tensor, act tensor.Activation) {
				if act == tensor.GELU {
					act = tensor.GELUTanh
				}
				good.Activate(y, x, act)
			}
		}},
		{"the slope taken after dx has become x", "ActivateBackward", "with dx = x", func(ops *tensor.Ops) {
			ops.ActivateBackward = func(dx, dy, x tensor.Tensor, act tensor.Activation) {
				if dx.Addr == x.Addr {
					good.Copy(dx, dy)
				}
				good.ActivateBackward(dx, dy, x, act)
			}
		}},
		{"the value in place of the slope", "ActivateBackward", "dx[", func(ops *tensor.Ops) {
			ops.ActivateBackward = func(dx, dy, x tensor.Tensor, act tensor.Activation) { good.Activate(dx, x, act) }
		}},
		{"SoftCap cut off hard", "SoftCap", "y[", func(ops *tensor.Ops) {
			ops.SoftCap = func(y, x tensor.Tensor, limit float32) {
				good.Copy(y, x)
				for i, v := range y.Float64() {
					y.Float64()[i] = min(max(v, -float64(limit)), float64(limit)) // NaN between rows stays
				}
			}
		}},
		{"SoftCap of infinity not a number", "SoftCap", "of extremes", func(ops *tensor.Ops) {
			ops.SoftCap = func(y, x tensor.Tensor, limit float32) {
				in := slices.Clone(x.Float64())
				good.SoftCap(y, x, limit)
				for i := range y.Len() {
					if y.Rank() == 1 && math.IsInf(in[i], 0) {
						y.Float64()[i] = math.NaN() // e^∞/e^∞
					}
				}
			}
		}},
		{"the slope of x for that of y", "SoftCapBackward", "dx[", func(ops *tensor.Ops) {
			ops.SoftCapBackward = func(dx, dy, y tensor.Tensor, limit float32) {
				twice, b, _ := tensor.New(ref.New(), tensor.F64, y.Shape...)
				defer b.Free()
				good.SoftCap(twice, y, limit)
				good.SoftCapBackward(dx, dy, twice, limit)
			}
		}},
		{"DX of ignored rows not set", "CrossEntropy", "DX[", func(ops *tensor.Ops) {
			ops.CrossEntropy = func(a tensor.CrossEntropy) {
				good.CrossEntropy(a)
				for t, y := range a.Targets.Int32() {
					if y < 0 && !a.DX.IsZero() {
						good.Scale(a.DX.Slice(t, 1), float32(math.NaN()))
					}
				}
			}
		}},
		{"loss set in place of added", "CrossEntropy", "Loss[", func(ops *tensor.Ops) {
			ops.CrossEntropy = func(a tensor.CrossEntropy) { good.Zero(a.Loss); good.CrossEntropy(a) }
		}},
		{"DW set in place of added", "CrossEntropy", "DW[", func(ops *tensor.Ops) {
			ops.CrossEntropy = func(a tensor.CrossEntropy) {
				if !a.DW.IsZero() {
					good.Zero(a.DW)
				}
				good.CrossEntropy(a)
			}
		}},
		{"Scale forgotten", "CrossEntropy", "DX[", func(ops *tensor.Ops) {
			ops.CrossEntropy = func(a tensor.CrossEntropy) {
				if !a.Scale.IsZero() {
					one, b, _ := tensor.New(ref.New(), tensor.F64, 1)
					defer b.Free()
					one.Float64()[0] = 1
					a.Scale = one
				}
				good.CrossEntropy(a)
			}
		}},
		{"no cap", "CrossEntropy", "SoftCap", func(ops *tensor.Ops) {
			ops.CrossEntropy = func(a tensor.CrossEntropy) { a.SoftCap = 0; good.CrossEntropy(a) }
		}},
		{"the cap's slope forgotten", "CrossEntropy", "DX[", func(ops *tensor.Ops) {
			ops.CrossEntropy = func(a tensor.CrossEntropy) {
				if a.SoftCap == 0 || a.DX.IsZero() {
					good.CrossEntropy(a)
					return
				}
				withoutSlope(a.X, a.W, a.SoftCap, func(z, one, dz tensor.Tensor) {
					b := a
					b.X, b.W, b.DX, b.DW, b.SoftCap = z, one, dz, tensor.Tensor{}, 0
					good.CrossEntropy(b)
					good.Matmul(tensor.Matmul{C: a.DX, A: dz, B: a.W})
					if !a.DW.IsZero() {
						good.Matmul(tensor.Matmul{C: a.DW, A: dz, B: a.X, TransA: true, Beta: 1})
					}
				})
			}
		}},
		{"no cap", "LogProb", "SoftCap", func(ops *tensor.Ops) {
			ops.LogProb = func(a tensor.LogProb) { a.SoftCap = 0; good.LogProb(a) }
		}},
		{"the cap after the temperature", "LogProb", "SoftCap", func(ops *tensor.Ops) {
			ops.LogProb = func(a tensor.LogProb) { a.SoftCap *= a.Temperature; good.LogProb(a) }
		}},
		{"no cap", "LogProbBackward", "SoftCap", func(ops *tensor.Ops) {
			ops.LogProbBackward = func(a tensor.LogProbBackward) { a.SoftCap = 0; good.LogProbBackward(a) }
		}},
		{"the cap's slope forgotten", "LogProbBackward", "SoftCap", func(ops *tensor.Ops) {
			ops.LogProbBackward = func(a tensor.LogProbBackward) {
				if a.SoftCap == 0 {
					good.LogProbBackward(a)
					return
				}
				withoutSlope(a.X, a.W, a.SoftCap, func(z, one, dz tensor.Tensor) {
					b := a
					b.X, b.W, b.DX, b.DW, b.SoftCap = z, one, dz, tensor.Tensor{}, 0
					good.LogProbBackward(b)
					if !a.DX.IsZero() {
						good.Matmul(tensor.Matmul{C: a.DX, A: dz, B: a.W})
					}
					if !a.DW.IsZero() {
						good.Matmul(tensor.Matmul{C: a.DW, A: dz, B: a.X, TransA: true, Beta: 1})
					}
				})
			}
		}},
		{"log-probabilities at temperature 1", "LogProb", "[", func(ops *tensor.Ops) {
			ops.LogProb = func(a tensor.LogProb) { a.Temperature = 1; good.LogProb(a) }
		}},
		{"entropies of ignored rows not set", "LogProb", "Entropies[", func(ops *tensor.Ops) {
			ops.LogProb = func(a tensor.LogProb) {
				good.LogProb(a)
				for t, y := range a.Targets.Int32() {
					if y < 0 && !a.Entropies.IsZero() {
						a.Entropies.Float64()[t] = math.NaN()
					}
				}
			}
		}},
		{"the sign of the entropy's gradient", "LogProbBackward", "[", func(ops *tensor.Ops) {
			ops.LogProbBackward = func(a tensor.LogProbBackward) {
				if !a.DEntropies.IsZero() {
					dh, b, _ := tensor.New(ref.New(), tensor.F64, a.DEntropies.Shape...)
					defer b.Free()
					good.Copy(dh, a.DEntropies)
					good.Scale(dh, -1)
					a.DEntropies = dh
				}
				good.LogProbBackward(a)
			}
		}},
		{"rows computed whose derivatives are 0", "LogProbBackward", "DX[", func(ops *tensor.Ops) {
			ops.LogProbBackward = func(a tensor.LogProbBackward) {
				good.LogProbBackward(a)
				for t := range a.Targets.Len() {
					if x := a.X.Slice(t, 1); !a.DX.IsZero() && slices.ContainsFunc(x.Float64(), math.IsNaN) {
						good.Copy(a.DX.Slice(t, 1), x) // 0 times NaN
					}
				}
			}
		}},
		{"set in place of added", "SumSquares", "out[", func(ops *tensor.Ops) {
			ops.SumSquares = func(out, x tensor.Tensor) { good.Zero(out.Slice(0, 1)); good.SumSquares(out, x) }
		}},
		{"no 1e-6 beside the norm", "ClipFactor", "Step[", func(ops *tensor.Ops) {
			ops.ClipFactor = func(a tensor.ClipFactor) {
				good.ClipFactor(a)
				step := a.Step.Float64()
				if a.MaxNorm > 0 {
					step[tensor.StepClip] = min(1, a.MaxNorm/step[tensor.StepGradNorm])
				}
			}
		}},
		{"losses not checked", "ClipFactor", "Step[", func(ops *tensor.Ops) {
			ops.ClipFactor = func(a tensor.ClipFactor) { a.Check = tensor.Tensor{}; good.ClipFactor(a) }
		}},
		{"a skipped step counted", "ClipFactor", "Step[", func(ops *tensor.Ops) {
			ops.ClipFactor = func(a tensor.ClipFactor) {
				before := a.Step.Float64()[tensor.StepUpdates]
				if good.ClipFactor(a); a.Beta1 != 0 {
					a.Step.Float64()[tensor.StepUpdates] = before + 1
				}
			}
		}},
		{"bias of the update before", "ClipFactor", "Step[", func(ops *tensor.Ops) {
			ops.ClipFactor = func(a tensor.ClipFactor) {
				before := a.Step.Float64()[tensor.StepUpdates]
				if good.ClipFactor(a); a.Beta1 != 0 {
					a.Step.Float64()[tensor.StepBias1] = 1 - math.Pow(a.Beta1, before)
				}
			}
		}},
		{"Skip never taken back", "ClipFactor", "Step[", func(ops *tensor.Ops) {
			ops.ClipFactor = func(a tensor.ClipFactor) {
				before := a.Step.Float64()[tensor.StepSkip]
				good.ClipFactor(a)
				a.Step.Float64()[tensor.StepSkip] = max(before, a.Step.Float64()[tensor.StepSkip])
			}
		}},
		{"weight decay inside the gradient", "AdamW", "[", func(ops *tensor.Ops) {
			ops.AdamW = func(a tensor.AdamW) {
				g, b, _ := tensor.New(ref.New(), tensor.F64, a.Grad.Shape...)
				defer b.Free()
				for i := range g.Len() {
					g.Float64()[i] = a.Grad.Float64()[i] + float64(a.WeightDecay)*a.Param.Float64()[i]
				}
				a.Grad, a.WeightDecay = g, 0
				good.AdamW(a)
			}
		}},
		{"clip factor forgotten", "AdamW", "[", func(ops *tensor.Ops) {
			ops.AdamW = func(a tensor.AdamW) {
				step, b, _ := tensor.New(ref.New(), tensor.F64, tensor.StepSize)
				defer b.Free()
				good.Copy(step, a.Step)
				step.Float64()[tensor.StepClip] = 1
				a.Step = step
				good.AdamW(a)
			}
		}},
		{"skip ignored", "AdamW", "should stay", func(ops *tensor.Ops) {
			ops.AdamW = func(a tensor.AdamW) {
				step, b, _ := tensor.New(ref.New(), tensor.F64, tensor.StepSize)
				defer b.Free()
				good.Copy(step, a.Step)
				step.Float64()[tensor.StepSkip] = 0
				a.Step = step
				good.AdamW(a)
			}
		}},
		{"the highest id of equal logits", "Sample", "IDs[", func(ops *tensor.Ops) {
			ops.Sample = func(a tensor.Sample) {
				good.Sample(a)
				for i, row := range a.Rows {
					z := a.Logits.Slice(i, 1).Float64()
					for v := range z {
						if row.Temperature == 0 && z[v] == z[a.IDs.Int32()[i]] {
							a.IDs.Int32()[i] = int32(v)
						}
					}
				}
			}
		}},
		{"log-probabilities never tempered", "SampleSettings", "log-probability", func(ops *tensor.Ops) {
			ops.Sample = func(a tensor.Sample) {
				rows := append([]tensor.SampleRow(nil), a.Rows...)
				for i := range rows {
					rows[i].TemperedLogProb = false
				}
				a.Rows = rows
				good.Sample(a)
			}
		}},
		{"tempered log-probabilities rounded otherwise at temperature 1", "SampleSettings", "tempered", func(ops *tensor.Ops) {
			ops.Sample = func(a tensor.Sample) {
				good.Sample(a)
				for i, row := range a.Rows {
					if row.TemperedLogProb {
						a.LogProbs.Float64()[i] *= 1 + 1e-15
					}
				}
			}
		}},
		{"log-probabilities after the temperature", "SampleSettings", "log-probability", func(ops *tensor.Ops) {
			ops.Sample = func(a tensor.Sample) {
				good.Sample(a)
				for i := range a.Rows {
					a.LogProbs.Float64()[i] /= float64(a.Rows[i].Temperature)
				}
			}
		}},
		{"TopP before Temperature", "SampleSettings", "Temperature before TopP", settings(func(z []float64, row *tensor.SampleRow) {
			if row.TopP > 0 && row.TopK == 0 && row.Temperature != 1 {
				keepOnly(z, distribution(z, tensor.SampleRow{Temperature: 1, TopP: row.TopP}))
				row.TopP = 0
			}
		})},
		{"TopP before TopK", "SampleSettings", "TopK before TopP", settings(func(z []float64, row *tensor.SampleRow) {
			if row.TopP > 0 && row.Temperature == 1 {
				keepOnly(z, distribution(z, tensor.SampleRow{Temperature: 1, TopP: row.TopP, Banned: row.Banned}))
				row.TopP = 0
			}
		})},
		{"Banned after TopK", "SampleSettings", "Banned before TopK", settings(func(z []float64, row *tensor.SampleRow) {
			keepOnly(z, distribution(z, tensor.SampleRow{Temperature: 1, TopK: row.TopK}))
			row.TopK = 0
		})},
		{"the uniform number of the first row for all", "SampleSettings", "was drawn", func(ops *tensor.Ops) {
			ops.Sample = func(a tensor.Sample) {
				rows := append([]tensor.SampleRow(nil), a.Rows...)
				for i := range rows {
					rows[i].Uniform = rows[0].Uniform
				}
				a.Rows = rows
				good.Sample(a)
			}
		}},
		{"a row's draw hangs on its neighbours", "SampleRows", "alone", func(ops *tensor.Ops) {
			ops.Sample = func(a tensor.Sample) {
				rows := append([]tensor.SampleRow(nil), a.Rows...)
				for i := range rows {
					rows[i].Uniform = math.Mod(rows[i].Uniform+0.61*float64(i), 1)
				}
				a.Rows = rows
				good.Sample(a)
			}
		}},
	}
	tried := map[string]bool{"Memory": true, "Order": true, "Zero": true} // see the tests below
	mistakes = append(append(append(mistakes, attentionMistakes...), expertMistakes...), f8Mistakes...)
	for _, m := range mistakes {
		tried[m.section] = true
		t.Run(m.section+"/"+m.name, func(t *testing.T) {
			ops := ref.New().Ops()
			m.make(ops)
			message := firstFailure(&broken{ref.New(), ops}, m.section)
			if message == "" {
				t.Error("the suite passes")
			} else if !strings.Contains(message, m.want) {
				t.Errorf("the suite says %q, want %q in it", message, m.want)
			}
		})
	}
	for _, section := range sections {
		if !tried[section.name] {
			t.Errorf("no mistake is tried on section %s", section.name)
		}
	}
}

// withoutSlope calls f with the capped logits, an identity matrix to project them with
// once more, and a tensor for the gradient of these as if they were no function of others.
func withoutSlope(x, w tensor.Tensor, limit float32, f func(z, one, dz tensor.Tensor)) {
	ops, n, vocab := ref.New().Ops(), x.Rows(), w.Rows()
	z, b, _ := tensor.New(ref.New(), tensor.F64, n, vocab)
	defer b.Free()
	dz, b2, _ := tensor.New(ref.New(), tensor.F64, n, vocab)
	defer b2.Free()
	one, b3, _ := tensor.New(ref.New(), tensor.F64, vocab, vocab)
	defer b3.Free()
	for i := range vocab {
		one.Float64()[i*vocab+i] = 1
	}
	ops.Matmul(tensor.Matmul{C: z, A: x, B: w, TransB: true})
	ops.SoftCap(z, z, limit)
	f(z, one, dz)
}

// settings alters the logits and the settings of each row before a correct Sample
// that reports log-probabilities of the logits as they came.
func settings(alter func(z []float64, row *tensor.SampleRow)) func(*tensor.Ops) {
	return func(ops *tensor.Ops) {
		ops.Sample = func(a tensor.Sample) {
			logits, b, _ := tensor.New(ref.New(), tensor.F64, a.Logits.Shape...)
			defer b.Free()
			good.Copy(logits, a.Logits)
			rows := append([]tensor.SampleRow(nil), a.Rows...)
			for i := range rows {
				alter(logits.Slice(i, 1).Float64(), &rows[i])
			}
			original := a.Logits
			a.Logits, a.Rows = logits, rows
			good.Sample(a)
			for i, id := range a.IDs.Int32() {
				z := tempered(original.Slice(i, 1).Float64(), a.Rows[i])
				a.LogProbs.Float64()[i] = z[id] - logSumExp(z)
			}
		}
	}
}

// keepOnly excludes the tokens that have no weight.
func keepOnly(z, weights []float64) {
	for v, w := range weights {
		if w == 0 {
			z[v] = math.Inf(-1)
		}
	}
}

// cleanse replaces NaN by 0.
func cleanse(t tensor.Tensor) {
	if t.Cols() == 0 {
		return
	}
	for i := range t.Rows() {
		row := t.Float64()[i*t.Stride:][:t.Cols()]
		for j, v := range row {
			if math.IsNaN(v) {
				row[j] = 0
			}
		}
	}
}

// dirty hands out memory that is not zeroed.
type dirty struct{ *ref.Device }

func (d *dirty) Alloc(n int) (*tensor.Buffer, error) {
	b, err := d.Device.Alloc(n)
	if err == nil {
		b.Device = d
		d.Write(b.Tensor(0, tensor.U8, n), filler(n))
	}
	return b, err
}

func TestSuiteFindsDirtyMemory(t *testing.T) {
	if message := firstFailure(&dirty{ref.New()}, "Memory"); !strings.Contains(message, "not zeroed") {
		t.Errorf("the suite says %q", message)
	}
}

func TestSuiteFindsReordering(t *testing.T) {
	ops := ref.New().Ops()
	var late func()
	ops.Scale = func(x tensor.Tensor, f float32) { // runs one operation late
		if late != nil {
			late()
		}
		late = func() { ref.New().Ops().Scale(x, f) }
	}
	if message := firstFailure(&broken{ref.New(), ops}, "Order"); !strings.Contains(message, "operations that cancel") {
		t.Errorf("the suite says %q", message)
	}
}

func TestSuiteFindsUnzeroed(t *testing.T) {
	ops := ref.New().Ops()
	ops.Zero = func(x tensor.Tensor) {
		if x.Dtype == tensor.F64 {
			ref.New().Ops().Scale(x, 0) // NaN stays
			return
		}
		ref.New().Ops().Zero(x)
	}
	if message := firstFailure(&broken{ref.New(), ops}, "Zero"); !strings.Contains(message, "x[") {
		t.Errorf("the suite says %q", message)
	}
}

// TestSuiteReportsPanics checks that a panic fails a trial and not the program.
func TestSuiteReportsPanics(t *testing.T) {
	ops := ref.New().Ops()
	ops.Matmul = func(tensor.Matmul) { panic("no such shape") }
	if message := firstFailure(&broken{ref.New(), ops}, "Matmul"); !strings.Contains(message, "panic: no such shape") {
		t.Errorf("the suite says %q", message)
	}
}
