package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"ringtail/tensor"
)

// Zero and Copy, with the conversions between float types. A conversion goes
// through float32, exactly but for its last step: from F64 to a 16-bit type the
// number is first rounded to odd (see narrowOdd), so that it is rounded once.

type copyJob struct {
	dst, src       unsafe.Pointer // of the first elements; src nil: zero
	to, from       tensor.Dtype
	dstRow, srcRow int // elements between rows
	n, cols        int
}

var copyJobs freeList[copyJob]

func (j *copyJob) start() {
	if j.n > 0 {
		parallel(tasksOf(j.n, lightGrain), j)
	}
	*j = copyJob{}
	copyJobs.give(j)
}

// zero sets x = 0, whatever its type.
func zero(x tensor.Tensor) {
	n := x.Len()
	if n == 0 {
		return
	}
	j := copyJobs.take()
	j.dst, j.to, j.dstRow = x.Pointer(), x.Dtype, x.Stride
	j.n, j.cols = n, flat(n, x.Cols(), x.Dense())
	j.start()
}

// copyTensor sets dst = src, rounding to nearest, ties to even.
func copyTensor(dst, src tensor.Tensor) {
	sameShape("Copy", dst, src)
	if dst.Dtype != src.Dtype && (!isFloat(dst.Dtype) || !isFloat(src.Dtype)) {
		panic(fmt.Sprintf("cpu: Copy of %v to %v", src, dst))
	}
	n := dst.Len()
	if n == 0 {
		return
	}
	j := copyJobs.take()
	j.dst, j.to, j.dstRow = dst.Pointer(), dst.Dtype, dst.Stride
	j.src, j.from, j.srcRow = src.Pointer(), src.Dtype, src.Stride
	j.n, j.cols = n, flat(n, dst.Cols(), dst.Dense() && src.Dense())
	j.start()
}

func isFloat(d tensor.Dtype) bool {
	return d == tensor.F32 || d == tensor.F64 || d == tensor.BF16 || d == tensor.F16
}

func (j *copyJob) run(ws *workspace, task int) {
	i, end := task*lightGrain, min((task+1)*lightGrain, j.n)
	for i < end {
		row, col := i/j.cols, i%j.cols
		n := min(j.cols-col, end-i)
		dst := unsafe.Add(j.dst, (row*j.dstRow+col)*j.to.Size())
		if j.src == nil {
			clear(unsafe.Slice((*byte)(dst), n*j.to.Size()))
		} else {
			convert(ws, dst, unsafe.Add(j.src, (row*j.srcRow+col)*j.from.Size()), j.to, j.from, n)
		}
		i += n
	}
}

// convert copies n adjacent elements.
func convert(ws *workspace, dst, src unsafe.Pointer, to, from tensor.Dtype, n int) {
	if to == from {
		copy(unsafe.Slice((*byte)(dst), n*to.Size()), unsafe.Slice((*byte)(src), n*to.Size()))
		return
	}
	f := unsafe.Slice((*float32)(src), n)
	if from != tensor.F32 {
		if to == tensor.F32 {
			f = unsafe.Slice((*float32)(dst), n)
		} else {
			f = ws.scratch(0, n)
		}
		switch from {
		case tensor.BF16:
			vecWidenBF16(f, unsafe.Slice((*uint16)(src), n))
		case tensor.F16:
			vecWidenF16(f, unsafe.Slice((*uint16)(src), n))
		case tensor.F64:
			for i, v := range unsafe.Slice((*float64)(src), n) {
				if to == tensor.F32 {
					f[i] = float32(v)
				} else {
					f[i] = narrowOdd(v)
				}
			}
		}
	}
	switch to {
	case tensor.BF16:
		vecNarrowBF16(unsafe.Slice((*uint16)(dst), n), f)
	case tensor.F16:
		vecNarrowF16(unsafe.Slice((*uint16)(dst), n), f)
	case tensor.F64:
		for i := range unsafe.Slice((*float64)(dst), n) {
			unsafe.Slice((*float64)(dst), n)[i] = float64(f[i])
		}
	}
}

// narrowOdd rounds to float32 towards 0 and, where that is not exact, sets the
// last bit, which then stands for all that was cut off: rounding the result to a
// type that is shorter by two bits or more gives what rounding v itself would
// (Boldo & Melquiond 2008).
func narrowOdd(v float64) float32 {
	f := float32(v)
	if float64(f) == v || v != v {
		return f
	}
	b := math.Float32bits(f)
	if math.Abs(float64(f)) > math.Abs(v) {
		b--
	}
	return math.Float32frombits(b | 1)
}
