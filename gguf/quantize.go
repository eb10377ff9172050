package gguf

import (
	"encoding/binary"
	"fmt"
	"math"

	"ringtail/safetensors"
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

// writeFloats writes a plain type of floats, rounding to nearest even.
func writeFloats(dtype string) func([]byte, []float32) {
	return func(dst []byte, src []float32) {
		if err := safetensors.FromFloat32(dst, dtype, src); err != nil {
			panic(err) // the type is known and the lengths agree
		}
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
		binary.LittleEndian.PutUint16(b, safetensors.Float32ToF16(d))
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
		binary.LittleEndian.PutUint16(b, safetensors.Float32ToF16(d))
		level := func(v float32) byte { return byte(min(15, int32(float32(v*inv)+8.5))) }
		for j := range 16 {
			b[2+j] = level(x[j]) | level(x[j+16])<<4
		}
		src, dst = src[32:], dst[18:]
	}
}
