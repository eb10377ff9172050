package tensor

import "math"

// The 16-bit floats: BF16 (bfloat16, the upper half of a float32) and F16
// (IEEE 754 binary16). Conversions to them round to nearest, ties to even; a
// number too large becomes infinite; NaN stays NaN and becomes quiet.

// narrow rounds numbers to 16-bit floats.
func narrow(dst []uint16, d Dtype, src []float32) {
	if d == BF16 {
		for i, v := range src {
			dst[i] = toBF16(v)
		}
		return
	}
	for i, v := range src {
		dst[i] = toF16(v)
	}
}

// widen gives the values of 16-bit floats, each of which a float32 holds.
func widen(dst []float32, d Dtype, src []uint16) {
	if d == BF16 {
		for i, h := range src {
			dst[i] = math.Float32frombits(uint32(h) << 16)
		}
		return
	}
	for i, h := range src {
		dst[i] = fromF16(h)
	}
}

func toBF16(v float32) uint16 {
	u := math.Float32bits(v)
	if v != v {
		return uint16(u>>16) | 0x40 // rounding could carry a NaN into infinity
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

func toF16(v float32) uint16 {
	u := math.Float32bits(v)
	sign, u := uint16(u>>16&0x8000), u&0x7fffffff
	switch {
	case u > 0x7f800000:
		return sign | 0x7e00
	case u >= 0x477ff000: // 65520: half-way to 2^16, and the tie goes to even, which is up
		return sign | 0x7c00
	case u < 0x38800000: // 2^-14
		// The last bit of a float32 at 0.5 is 2^-24, the step of binary16's
		// subnormals: the addition rounds as wanted.
		return sign | uint16(math.Float32bits(math.Float32frombits(u)+0.5)-0x3f000000)
	}
	u += 0xfff + u>>13&1
	return sign | uint16((u-(127-15)<<23)>>13)
}

func fromF16(h uint16) float32 {
	// With exponent and fraction moved into place the value is 2^(127−15) too
	// small; the multiplication mends that, for subnormals too.
	u := math.Float32bits(math.Float32frombits(uint32(h&0x7fff)<<13) * 0x1p112)
	if u >= 0x47800000 { // 2^16, the exponent that stands for infinity and NaN
		u |= 0x7f800000
	}
	return math.Float32frombits(u | uint32(h&0x8000)<<16)
}

// sticky is a float32 that rounds to a 16-bit float as x does. Rounded to nearest
// twice, a number just beside the middle of two 16-bit floats would become that
// middle and then the wrong one of the two; so x is cut off towards 0, and the
// last bit tells whether anything was cut off ("round to odd", Boldo & Melquiond 2008).
func sticky(x float64) float32 {
	f := float32(x)
	if float64(f) == x || f != f {
		return f
	}
	u := math.Float32bits(f)
	if math.Abs(float64(f)) > math.Abs(x) {
		u--
	}
	return math.Float32frombits(u | 1)
}
