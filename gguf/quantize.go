package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Quantize turns float32 into whole blocks of a type that can be written: F32,
// F16, BF16, Q8_0, Q4_0. len(dst) must be what len(src) elements take. Values
// that are not finite are refused for the quantised types, for one of them
// would spoil its whole block, and so are values whose scale F16 can't hold.
func Quantize(dst []byte, t Type, src []float32) error {
	l, err := blocks(t, len(src), len(dst))
	if err != nil {
		return err
	}
	if l.write == nil {
		return fmt.Errorf("%v can't be written; types that can: F32, F16, BF16, Q8_0, Q4_0", t)
	}
	if l.elements > 1 {
		// The scale of Q4_0 is an eighth of the largest value.
		const most = 65504 * 8
		for i, v := range src {
			if !(v >= -most && v <= most) {
				return fmt.Errorf("element %d is %g, which %v can't hold", i, v, t)
			}
		}
	}
	l.write(dst, src)
	return nil
}

func writeF32(dst []byte, src []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

func writeF16(dst []byte, src []float32) {
	for i, v := range src {
		binary.LittleEndian.PutUint16(dst[2*i:], toHalf(v))
	}
}

// writeBF16 rounds to nearest even; a NaN stays one, and becomes quiet.
func writeBF16(dst []byte, src []float32) {
	for i, v := range src {
		b := math.Float32bits(v)
		if b&0x7fffffff > 0x7f800000 {
			b |= 64 << 16 // rounding could carry a NaN into infinity
		} else {
			b += 0x7fff + b>>16&1
		}
		binary.LittleEndian.PutUint16(dst[2*i:], uint16(b>>16))
	}
}

// toHalf rounds to IEEE 754 binary16, to nearest even, into subnormals below
// 2^-14 and to infinity from 65520 on. A NaN stays one, and becomes quiet.
func toHalf(v float32) uint16 {
	b := math.Float32bits(v)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000:
		return sign | 0x7e00 | uint16(b>>13&0x3ff)
	case b >= 0x477ff000: // 65520: half-way to 2^16, and the tie goes to even, which is up
		return sign | 0x7c00
	case b < 0x38800000: // 2^-14
		// The last bit of a float32 at 0.5 is 2^-24, the step of binary16's
		// subnormals: the addition rounds as wanted.
		return sign | uint16(math.Float32bits(math.Float32frombits(b)+0.5)-0x3f000000)
	default:
		b += 0xfff + b>>13&1
		return sign | uint16((b-(127-15)<<23)>>13)
	}
}

// inverse is 1/d, or 0 where that is no number: d is then 0 in binary16 as well.
func inverse(d float32) float32 {
	if inv := 1 / d; d != 0 && !math.IsInf(float64(inv), 0) {
		return inv
	}
	return 0
}

// writeQ8_0: d = the largest magnitude / 127, q = w/d rounded half away from zero.
func writeQ8_0(dst []byte, src []float32) {
	for len(src) >= 32 {
		x, b := src[:32:32], dst[:34:34]
		most := float32(0)
		for _, v := range x {
			most = max(most, float32(math.Abs(float64(v))))
		}
		d := most / 127
		inv := inverse(d)
		binary.LittleEndian.PutUint16(b, toHalf(d))
		for j, v := range x {
			q := v * inv
			// int32(q) cuts towards zero, and the part cut off is exact.
			whole := int32(q)
			if rest := q - float32(whole); rest >= 0.5 {
				whole++
			} else if rest <= -0.5 {
				whole--
			}
			b[2+j] = byte(int8(whole))
		}
		src, dst = src[32:], dst[34:]
	}
}

// writeQ4_0: m = the value of largest magnitude, the first of equal ones,
// d = m/−8, q = min(15, ⌊w/d + 8.5⌋).
func writeQ4_0(dst []byte, src []float32) {
	for len(src) >= 32 {
		x, b := src[:32:32], dst[:18:18]
		most, m := float32(0), float32(0)
		for _, v := range x {
			if a := float32(math.Abs(float64(v))); a > most {
				most, m = a, v
			}
		}
		d := m / -8
		inv := inverse(d)
		binary.LittleEndian.PutUint16(b, toHalf(d))
		level := func(v float32) byte { return byte(min(15, int32(float32(v*inv)+8.5))) }
		for j := range 16 {
			b[2+j] = level(x[j]) | level(x[j+16])<<4
		}
		src, dst = src[32:], dst[18:]
	}
}
