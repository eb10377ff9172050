package safetensors

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// ToFloat32 converts the elements of t (F32, F16, BF16 or F64) into dst, which
// must hold exactly t.Len() values. F64 rounds to nearest even.
func (t Tensor) ToFloat32(dst []float32) error {
	if err := ToFloat32(dst, t.Dtype, t.Data); err != nil {
		return fmt.Errorf("tensor %s: %w", quote(t.Name), err)
	}
	return nil
}

// ToFloat32 converts little-endian src of a dtype (F32, F16, BF16 or F64) into
// dst, which must hold as many values.
func ToFloat32(dst []float32, dtype string, src []byte) error {
	size, err := floatSize(dtype)
	if err != nil {
		return err
	}
	if len(src) != len(dst)*size {
		return fmt.Errorf("%d bytes of %s are not %d values", len(src), dtype, len(dst))
	}
	switch dtype {
	case "F32":
		if !cpu.IsBigEndian {
			copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), 4*len(dst)), src)
			break
		}
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case "BF16":
		i := 0
		for ; i+4 <= len(dst); i += 4 { // four at a time: this is what large models are loaded by
			v := binary.LittleEndian.Uint64(src[2*i:])
			d := dst[i : i+4 : i+4]
			d[0] = math.Float32frombits(uint32(v) << 16)
			d[1] = math.Float32frombits(uint32(v) &^ 0xffff)
			d[2] = math.Float32frombits(uint32(v>>32) << 16)
			d[3] = math.Float32frombits(uint32(v>>32) &^ 0xffff)
		}
		for ; i < len(dst); i++ {
			dst[i] = BF16ToFloat32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case "F16":
		for i := range dst {
			dst[i] = F16ToFloat32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case "F64":
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
		}
	}
	return nil
}

// FromFloat32 converts src to little-endian bytes of a dtype (F32, F16, BF16 or
// F64) in dst, which must have exactly the room. Rounding is to nearest even;
// what is too large for F16 becomes infinite.
func FromFloat32(dst []byte, dtype string, src []float32) error {
	size, err := floatSize(dtype)
	if err != nil {
		return err
	}
	if len(dst) != len(src)*size {
		return fmt.Errorf("%d bytes of %s are not room for %d values", len(dst), dtype, len(src))
	}
	switch dtype {
	case "F32":
		for i, v := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(v))
		}
	case "BF16":
		for i, v := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], Float32ToBF16(v))
		}
	case "F16":
		for i, v := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], Float32ToF16(v))
		}
	case "F64":
		for i, v := range src {
			binary.LittleEndian.PutUint64(dst[8*i:], math.Float64bits(float64(v)))
		}
	}
	return nil
}

func floatSize(dtype string) (int, error) {
	switch dtype {
	case "F32":
		return 4, nil
	case "F16", "BF16":
		return 2, nil
	case "F64":
		return 8, nil
	}
	return 0, fmt.Errorf("dtype %s is not one of F32, F16, BF16, F64", quote(dtype))
}

// BF16ToFloat32 widens a bfloat16: the upper half of a float32's bits.
func BF16ToFloat32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// Float32ToBF16 rounds to nearest even. A NaN stays one, and becomes quiet.
func Float32ToBF16(v float32) uint16 {
	b := math.Float32bits(v)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40 // rounding could carry a NaN into infinity
	}
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// F16ToFloat32 widens an IEEE 754 binary16; every value has an exact float32.
func F16ToFloat32(h uint16) float32 {
	// With exponent and mantissa moved into place, the value is 2^(127-15) too
	// small; the multiplication mends that, for subnormals too.
	b := math.Float32bits(math.Float32frombits(uint32(h&0x7fff)<<13) * 0x1p112)
	if b >= 0x47800000 { // 2^16, the exponent that stands for infinity and NaN
		b |= 0x7f800000
	}
	return math.Float32frombits(b | uint32(h&0x8000)<<16)
}

// Float32ToF16 rounds to nearest even, into subnormals below 2^-14 and to
// infinity from 65520 on. A NaN stays one, and becomes quiet.
func Float32ToF16(v float32) uint16 {
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
