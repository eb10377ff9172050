package cpu

import "math"

// Elementary functions in float32, plain Go. The generator (gen/rows.go) emits
// the same formulas as vectors and holds the same constants.

const (
	log2E    = 1.44269504088896340736
	ln2High  = 0.693359375 // 355/512: n·ln2High is exact for |n| <= 128
	ln2Low   = -2.12194440054690583e-4
	expLow   = -87.33654   // below, e^x is under the smallest normal float32
	expHigh  = 88.72283935 // above, e^x is over the largest float32
	expC2    = 0.4999999403953552
	expC3    = 0.1666652113199234
	expC4    = 0.04166838899254799
	expC5    = 0.00836874544620514
	expC6    = 0.0013814540579915047
	sqrtHalf = 0.70710678118654752440
	// 1/√(2π), the density of the normal distribution at 0.
	invSqrt2Pi = 0.39894228040143267794
	// The argument of the logistic function that makes GELU's tanh approximation:
	// (1+tanh(u))/2 = σ(2u), u = √(2/π)·(x + 0.044715x³).
	geluTanhA = 2 * 0.79788456080286535588
	geluTanhB = geluTanhA * 0.044715
)

// erfcxC are the coefficients, lowest first, of P in e^{z²}·erfc(z) ~ t·P(t),
// t = 1/(1 + z/2), for 0 <= z <= 9.5, by weighted least squares towards the
// minimax relative error, 6e-8.
var erfcxC = [9]float32{
	0.28208768367767334, 0.2823534607887268, 0.24326112866401672,
	0.20206935703754425, -0.025176551192998886, 0.2759764790534973,
	-0.48538222908973694, 0.28370124101638794, -0.05889062210917473,
}

// exp32 is e^x within 2 units in the last place; results below the smallest
// normal number are 0. x = n·ln2 + r with |r| <= ln2/2, ln2 split in two after
// Cody & Waite so that n·ln2 is exact enough; e^r by a polynomial of degree 6;
// 2^n is multiplied in two halves, since n = 128 has no exponent of its own.
func exp32(x float32) float32 {
	if x < expLow {
		return 0
	}
	if x > expHigh {
		return float32(math.Inf(1))
	}
	if x != x {
		return x
	}
	n := roundEven(x * log2E)
	r := x - n*ln2High
	r -= n * ln2Low
	p := float32(expC6)
	p = p*r + expC5
	p = p*r + expC4
	p = p*r + expC3
	p = p*r + expC2
	p = p*r + 1
	p = p*r + 1
	i := int32(n)
	half := i >> 1
	return p * math.Float32frombits(uint32(half+127)<<23) * math.Float32frombits(uint32(i-half+127)<<23)
}

// roundEven rounds |x| < 2^22 to the nearest whole number, ties to even, by
// pushing the fraction out of the mantissa.
func roundEven(x float32) float32 {
	const magic = 3 << 22
	return float32(x+magic) - magic
}

// sigmoid32 is s = 1/(1+e^-x) and 1-s as s·e^-x, which unlike the difference
// keeps its relative accuracy where s nears 1.
func sigmoid32(x float32) (s, complement float32) {
	e := exp32(-x)
	s = 1 / (1 + e)
	return s, min(e, 1e38) * s
}

// tanhClamp is 2x above which tanh x is 1.
const tanhClamp = 20

// tanh32 is tanh x within 3 units in the last place, however small x is: with
// t = 2|x| it is (e^t - 1)/(e^t + 1), and e^t - 1 = 2^n·(e^r - 1) + (2^n - 1), where
// r is exp32's and e^r - 1 exp32's polynomial without its 1.
func tanh32(x float32) float32 {
	if x != x {
		return x
	}
	t := min(2*float32(math.Abs(float64(x))), tanhClamp)
	n := roundEven(t * log2E)
	r := t - n*ln2High
	r -= n * ln2Low
	p := float32(expC6)
	p = p*r + expC5
	p = p*r + expC4
	p = p*r + expC3
	p = p*r + expC2
	p = p*r*r + r
	s := math.Float32frombits(uint32(int32(n)+127) << 23)
	p = s*p + (s - 1)
	return float32(math.Copysign(float64(p/(p+2)), float64(x)))
}

// normalTail32 is Φ(-|x|), the upper tail of the normal distribution, and the
// density φ(x); both keep their relative accuracy far out, which 1 - erf does not.
func normalTail32(x float32) (tail, density float32) {
	z := float32(math.Abs(float64(x))) * sqrtHalf
	q := exp32(-0.5 * x * x)
	t := 1 / (1 + 0.5*z)
	p := erfcxC[8]
	for i := 7; i >= 0; i-- {
		p = p*t + erfcxC[i]
	}
	return 0.5 * q * t * p, invSqrt2Pi * q
}
