package cpu

import "math"

// The 16-bit float formats: BF16 (bfloat16, the upper half of a float32) and F16
// (IEEE 754 binary16). Conversions to them round to nearest, ties to even; a
// number too large becomes Inf; NaN stays NaN.

func vecWidenBF16Generic(dst []float32, src []uint16) {
	for i, h := range src {
		dst[i] = math.Float32frombits(uint32(h) << 16)
	}
}

func vecNarrowBF16Generic(dst []uint16, src []float32) {
	for i, v := range src {
		dst[i] = toBF16(v)
	}
}

func vecWidenF16Generic(dst []float32, src []uint16) {
	for i, h := range src {
		dst[i] = fromF16(h)
	}
}

func vecNarrowF16Generic(dst []uint16, src []float32) {
	for i, v := range src {
		dst[i] = toF16(v)
	}
}

func toBF16(v float32) uint16 {
	u := math.Float32bits(v)
	if v != v {
		return uint16(u>>16) | 0x40 // quiet, lest the mantissa's upper half be 0
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

func fromF16(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch exp {
	case 0: // zero and subnormal: frac · 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(frac)*0x1p-24))
	case 31:
		if frac != 0 {
			frac |= 1 << 9 // quiet
		}
		return math.Float32frombits(sign | 255<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

func toF16(v float32) uint16 {
	u := math.Float32bits(v)
	sign, u := uint16(u>>16&0x8000), u&0x7fffffff
	switch {
	case u > 255<<23:
		return sign | 0x7e00 | uint16(u>>13&0x3ff)
	case u >= 0x477ff000: // 65520 and more round to Inf
		return sign | 0x7c00
	case u < 113<<23:
		// Subnormal: adding 2^-1 in float32 leaves the multiples of 2^-24 in the
		// low bits, rounded by the addition.
		return sign | uint16(math.Float32bits(math.Float32frombits(u)+0.5)-126<<23)
	}
	u += 0xfff + u>>13&1
	return sign | uint16(u>>13-112<<10)
}
