package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// The optimizer's step (kernels/optimizer.cu). Kernels take tables of tensors, passed by
// value; the operations of tensor.Ops fill one entry.

// Sizes of kernels/optimizer.cu.
const (
	sumTensors  = 128
	sumChunk    = 1 << 15 // elements
	adamTensors = 48
	adamChunk   = 1 << 13 // elements
)

// sumSquaresArgs mirrors SumSquaresArgs.
type sumSquaresArgs struct {
	x         [sumTensors]uintptr
	stride    [sumTensors]uint64
	partials  uintptr
	cols      [sumTensors]uint32
	first     [sumTensors + 1]uint32
	rowChunks [sumTensors]uint32
	tensors   int32
}

// addPartialsArgs mirrors AddPartialsArgs.
type addPartialsArgs struct {
	out, partials uintptr
	n             uint64
}

func (d *Device) sumSquares(out, x tensor.Tensor) { d.sumSquaresAll(out, []tensor.Tensor{x}) }

// sumSquaresAll adds Σ x² of all xs to the first element of out. The sum is made of that
// of chunks of a fixed size, in order, so it doesn't depend on the GPU.
func (d *Device) sumSquaresAll(out tensor.Tensor, xs []tensor.Tensor) {
	if out.Dtype != tensor.F64 {
		panic(fmt.Sprintf("cuda: SumSquares adds to %v, want F64", out))
	}
	// Dense tensors are one row; one too long for 32 bits is several.
	const longest = 1 << 30
	var runs []tensor.Tensor
	chunks := 0
	for _, x := range xs {
		n := x.Len()
		if n == 0 {
			continue
		}
		if !x.Dense() {
			runs = append(runs, x)
			chunks += x.Rows() * ceilDiv(x.Cols(), sumChunk)
			continue
		}
		for from := 0; from < n; from += longest {
			part := min(longest, n-from)
			runs = append(runs, tensor.Tensor{Device: d, Dtype: x.Dtype, Shape: []int{part}, Stride: part, Addr: x.Addr + uintptr(from*x.Dtype.Size())})
			chunks += ceilDiv(part, sumChunk)
		}
	}
	if chunks == 0 {
		return
	}
	partials := d.workspace(8 * chunks)
	if partials == 0 {
		return
	}
	at := partials
	for len(runs) > 0 {
		var a sumSquaresArgs
		typ, blocks, n := runs[0].Dtype, 0, 0
		for n < min(len(runs), sumTensors) && runs[n].Dtype == typ {
			x := runs[n]
			a.x[n], a.stride[n], a.cols[n] = x.Addr, uint64(x.Stride), uint32(x.Cols())
			a.rowChunks[n] = uint32(ceilDiv(x.Cols(), sumChunk))
			blocks += x.Rows() * int(a.rowChunks[n])
			n++
			a.first[n] = uint32(blocks)
		}
		a.partials, a.tensors = at, int32(n)
		launch(d, "optimizer.sum_squares_"+suffix(typ), grid{X: blocks, Threads: 256}, &a)
		at += uintptr(8 * blocks)
		runs = runs[n:]
	}
	launch(d, "optimizer.add_partials", grid{X: 1, Threads: min(ceilDiv(chunks, 32)*32, 1024)}, &addPartialsArgs{out.Addr, partials, uint64(chunks)})
}

// clipFactorArgs mirrors ClipFactorArgs.
type clipFactorArgs struct {
	step, check uintptr
	stride      uint64
	maxNorm     float64
	beta1       float64
	beta2       float64
	rows, cols  int32
}

func (d *Device) clipFactor(a tensor.ClipFactor) {
	checkStep("ClipFactor", a.Step)
	args := clipFactorArgs{step: a.Step.Addr, maxNorm: a.MaxNorm, beta1: a.Beta1, beta2: a.Beta2}
	if !a.Check.IsZero() {
		if a.Check.Dtype != tensor.F64 {
			panic(fmt.Sprintf("cuda: ClipFactor checks %v, want F64", a.Check))
		}
		args.check, args.stride, args.rows, args.cols = a.Check.Addr, uint64(a.Check.Stride), int32(a.Check.Rows()), int32(a.Check.Cols())
	}
	launch(d, "optimizer.clip_factor", grid{X: 1, Threads: 32}, &args)
}

func checkStep(op string, step tensor.Tensor) {
	if step.Dtype != tensor.F64 || step.Len() != tensor.StepSize {
		panic(fmt.Sprintf("cuda: %s with the step block %v, want F64 [%d]", op, step, tensor.StepSize))
	}
}

// adamWArgs mirrors AdamWArgs.
type adamWArgs struct {
	param, master, grad, m, v [adamTensors]uintptr
	n, counter                [adamTensors]uint64
	step                      uintptr
	seed                      uint64
	beta1, beta2, eps         float64
	decay                     [adamTensors]float32
	first                     [adamTensors + 1]uint32
	tensors                   int32
	stochastic                int32
}

func (d *Device) adamW(a tensor.AdamW) { d.adamWAll([]tensor.AdamW{a}) }

// adamWAll updates many tensors, neighbours in as few launches as their types and
// settings allow; WeightDecay and First may differ within one.
//
// Stochastic's random bits of an element are a word of Philox: of the counter
// ((First+i)/4, Step[StepOffset]), 64 bits each, under the key Seed, word (First+i)%4. Its
// upper 16 bits are added to the float32 parameter's lower 16 before these are cut off,
// bits 8 to 15 and 0 to 7, followed by 0x80, to those of M and V.
func (d *Device) adamWAll(all []tensor.AdamW) {
	var args adamWArgs
	var of tensor.AdamW // of the open launch
	n, blocks := 0, 0
	flush := func() {
		if n > 0 {
			args.tensors = int32(n)
			launch(d, adamWKernel(of), grid{X: blocks, Threads: 256}, &args)
		}
		n, blocks, args = 0, 0, adamWArgs{}
	}
	for _, a := range all {
		checkAdamW(a)
		if a.Param.Len() == 0 {
			continue
		}
		more := ceilDiv(a.Param.Len(), adamChunk)
		if n == adamTensors || n > 0 && (!together(of, a) || blocks+more > 1<<31-1) {
			flush()
		}
		if n == 0 {
			of = a
			args.step, args.seed, args.beta1, args.beta2, args.eps = a.Step.Addr, a.Seed, a.Beta1, a.Beta2, a.Eps
			if a.Stochastic {
				args.stochastic = 1
			}
		}
		args.param[n], args.master[n], args.grad[n], args.m[n], args.v[n] = a.Param.Addr, a.Master.Addr, a.Grad.Addr, a.M.Addr, a.V.Addr
		args.n[n], args.counter[n], args.decay[n] = uint64(a.Param.Len()), a.First, float32(a.WeightDecay)
		blocks += more
		n++
		args.first[n] = uint32(blocks)
	}
	flush()
}

// together tells whether one launch can update both.
func together(a, b tensor.AdamW) bool {
	return adamWKernel(a) == adamWKernel(b) && a.Step.Addr == b.Step.Addr && a.Beta1 == b.Beta1 && a.Beta2 == b.Beta2 && a.Eps == b.Eps &&
		a.Stochastic == b.Stochastic && a.Seed == b.Seed
}

// adamWKernel names the kernel by the types of parameter, gradient and moments.
func adamWKernel(a tensor.AdamW) string {
	name := "optimizer.adamw_"
	if !a.Master.IsZero() {
		name += "master_"
	}
	return name + suffix(a.Param.Dtype) + "_" + suffix(a.Grad.Dtype) + "_" + suffix(a.M.Dtype)
}

func checkAdamW(a tensor.AdamW) {
	checkStep("AdamW", a.Step)
	n := a.Param.Len()
	for _, t := range []tensor.Tensor{a.Param, a.Grad, a.M, a.V} {
		if t.Len() != n || !t.Dense() {
			panic(fmt.Sprintf("cuda: AdamW of Param %v with a tensor %v of stride %d", a.Param, t, t.Stride))
		}
	}
	switch {
	case a.M.Dtype != a.V.Dtype:
		panic(fmt.Sprintf("cuda: AdamW with M %v and V %v, want one type", a.M, a.V))
	case !a.Master.IsZero() && (a.Master.Dtype != tensor.F32 || a.Master.Len() != n || !a.Master.Dense()):
		panic(fmt.Sprintf("cuda: AdamW with Master %v of Param %v, want F32 of as many elements", a.Master, a.Param))
	}
}
