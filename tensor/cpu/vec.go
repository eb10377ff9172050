package cpu

// Vector helpers: operations on one contiguous run of float32, the building
// blocks of the row operations, attention and cross-entropy. Operands of one
// call have one length (that of the first); a destination may be an operand
// itself but must not overlap one otherwise. An empty run gives 0 (vecMax: -Inf).

// vecMax is the largest element; NaN if any is NaN.
func vecMax(x []float32) float32 { return vecMaxGeneric(x) }

// vecExpSum sets dst = exp(src - shift) and returns the sum of dst.
func vecExpSum(dst, src []float32, shift float32) (sum float32) {
	return vecExpSumGeneric(dst, src, shift)
}

// vecScale sets x = x·f.
func vecScale(x []float32, f float32) { vecScaleGeneric(x, f) }

// vecAxpy sets y = y + f·x.
func vecAxpy(y, x []float32, f float32) { vecAxpyGeneric(y, x, f) }

// vecAdd sets y = a + b.
func vecAdd(y, a, b []float32) { vecAddGeneric(y, a, b) }

// vecDot is the sum of a·b.
func vecDot(a, b []float32) float32 { return vecDotGeneric(a, b) }
