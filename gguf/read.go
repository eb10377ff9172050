package gguf

import (
	"encoding/binary"
	"fmt"

	"ringtail/mapfile"
	"ringtail/safetensors"
)

// Read writes elements [from, from+len(dst)) of the tensor, row-major, as
// float32 into dst. Whole blocks are read fastest: with from and len(dst)
// multiples of the type's block nothing is read twice.
func (t Tensor) Read(dst []float32, from int) error {
	l := layouts[t.Type]
	if l.read == nil {
		return fmt.Errorf("tensor %s: is %v, which can't be read; types that can: F32, F16, BF16, F64, I8 to I64, Q4_0 to Q8_0, Q2_K to Q8_K", quote(t.Name), t.Type)
	}
	if n := t.Len(); from < 0 || from > n || len(dst) > n-from {
		return fmt.Errorf("tensor %s: elements %d to %d of %d", quote(t.Name), from, from+len(dst), n)
	}
	if skip := from % l.elements; skip != 0 || len(dst) < l.elements {
		n := min(l.elements-skip, len(dst))
		t.part(l, dst[:n], from-skip, skip)
		dst, from = dst[n:], from+n
	}
	whole := len(dst) / l.elements * l.elements
	at := from / l.elements * l.bytes
	l.read(dst[:whole], t.Data[at:at+whole/l.elements*l.bytes])
	if rest := dst[whole:]; len(rest) > 0 {
		t.part(l, rest, from+whole, 0)
	}
	return nil
}

// Release tells that elements [from, from+n) won't be read soon, so that their pages
// need not stay in memory. They stay readable.
func (t Tensor) Release(from, n int) {
	if l := layouts[t.Type]; from >= 0 && n >= 0 && n <= t.Len()-from {
		mapfile.Release(t.Data[from/l.elements*l.bytes : (from+n)/l.elements*l.bytes])
	}
}

// part reads dst from the block that begins at element start, skipping some.
func (t Tensor) part(l layout, dst []float32, start, skip int) {
	if len(dst) == 0 {
		return
	}
	var block [256]float32
	at := start / l.elements * l.bytes
	l.read(block[:l.elements], t.Data[at:at+l.bytes])
	copy(dst, block[skip:l.elements])
}

// Dequantize turns whole blocks of a type into float32. len(src) must be what
// len(dst) elements take.
func Dequantize(dst []float32, t Type, src []byte) error {
	l, err := blocks(t, len(dst), len(src))
	if err != nil {
		return err
	}
	if l.read == nil {
		return fmt.Errorf("%v can't be read", t)
	}
	l.read(dst, src)
	return nil
}

func blocks(t Type, elements, bytes int) (layout, error) {
	l, ok := layouts[t]
	if !ok {
		return l, fmt.Errorf("%v is not known", t)
	}
	if elements%l.elements != 0 || bytes != elements/l.elements*l.bytes {
		return l, fmt.Errorf("%d bytes are not %d elements of %s (blocks of %d elements in %d bytes)", bytes, elements, l.name, l.elements, l.bytes)
	}
	return l, nil
}

// readFloats reads a plain type of floats.
func readFloats(dtype string) func([]float32, []byte) {
	return func(dst []float32, src []byte) {
		if err := safetensors.ToFloat32(dst, dtype, src); err != nil {
			panic(err) // the type is known and the lengths agree
		}
	}
}

// half is the IEEE 754 binary16 that a block holds.
func half(b []byte) float32 { return safetensors.F16ToFloat32(binary.LittleEndian.Uint16(b)) }

func readI8(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(int8(src[i]))
	}
}

func readI16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(int16(binary.LittleEndian.Uint16(src[2*i:])))
	}
}

func readI32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(int32(binary.LittleEndian.Uint32(src[4*i:])))
	}
}

func readI64(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = float32(int64(binary.LittleEndian.Uint64(src[8*i:])))
	}
}

// The products below are converted to float32 before anything is added to them,
// which keeps the compiler from fusing both into one rounding: results are to be
// equal on every processor.

// readQ4_0: f16 d, 16 bytes; w = d·(q−8). The low halves of the bytes are the
// first 16 elements, the high ones the others.
func readQ4_0(dst []float32, src []byte) {
	for len(dst) >= 32 {
		y, b := dst[:32:32], src[:18:18]
		d := half(b)
		for j, q := range b[2:18] {
			y[j] = d * float32(int(q&15)-8)
			y[j+16] = d * float32(int(q>>4)-8)
		}
		dst, src = dst[32:], src[18:]
	}
}

// readQ4_1: f16 d, f16 m, 16 bytes; w = d·q+m.
func readQ4_1(dst []float32, src []byte) {
	for len(dst) >= 32 {
		y, b := dst[:32:32], src[:20:20]
		d, m := half(b), half(b[2:])
		for j, q := range b[4:20] {
			y[j] = float32(d*float32(q&15)) + m
			y[j+16] = float32(d*float32(q>>4)) + m
		}
		dst, src = dst[32:], src[20:]
	}
}

// readQ5_0: f16 d, 32 fifth bits, 16 bytes; w = d·(q−16).
func readQ5_0(dst []float32, src []byte) {
	for len(dst) >= 32 {
		y, b := dst[:32:32], src[:22:22]
		d, high := half(b), binary.LittleEndian.Uint32(b[2:])
		for j, q := range b[6:22] {
			y[j] = d * float32(int(uint32(q&15)|high>>j<<4&16)-16)
			y[j+16] = d * float32(int(uint32(q>>4)|high>>(j+16)<<4&16)-16)
		}
		dst, src = dst[32:], src[22:]
	}
}

// readQ5_1: f16 d, f16 m, 32 fifth bits, 16 bytes; w = d·q+m.
func readQ5_1(dst []float32, src []byte) {
	for len(dst) >= 32 {
		y, b := dst[:32:32], src[:24:24]
		d, m, high := half(b), half(b[2:]), binary.LittleEndian.Uint32(b[4:])
		for j, q := range b[8:24] {
			y[j] = float32(d*float32(uint32(q&15)|high>>j<<4&16)) + m
			y[j+16] = float32(d*float32(uint32(q>>4)|high>>(j+16)<<4&16)) + m
		}
		dst, src = dst[32:], src[24:]
	}
}

// readQ8_0: f16 d, 32 signed bytes; w = d·q.
func readQ8_0(dst []float32, src []byte) {
	for len(dst) >= 32 {
		y, b := dst[:32:32], src[:34:34]
		d := half(b)
		for j, q := range b[2:34] {
			y[j] = float32(int8(q)) * d
		}
		dst, src = dst[32:], src[34:]
	}
}
