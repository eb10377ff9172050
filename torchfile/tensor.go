package torchfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"

	"ringtail/safetensors"
)

// storage is a run of bytes that tensors view. A legacy file has the bytes after
// the pickle, so that they are known, and views checked, only then.
type storage struct {
	key   string
	dtype string
	bytes []byte
	// start and length, in elements, of a view of a storage in a legacy file.
	base   *storage
	start  uint64
	length uint64
}

// tensor is a view of a storage: element (i, j, …) is the storage's element
// offset + i·strides[0] + j·strides[1] + ….
type tensor struct {
	dtype  string
	shape  []int
	stride []int
	offset int
	from   *storage
	bytes  []byte // of the storage, once settled
}

// maxDims is the most dimensions that PyTorch gives a tensor.
const maxDims = 64

// rebuildTensor is (storage, offset, sizes, strides[, requires_grad, hooks[, metadata]]).
func rebuildTensor(args []any) (any, error) {
	if len(args) < 4 {
		return nil, fmt.Errorf("%d arguments, expected at least 4", len(args))
	}
	if len(args) > 6 {
		if err := plain(args[6]); err != nil {
			return nil, err
		}
	}
	return view(args, "")
}

// rebuildTensorV3 is (storage, offset, sizes, strides, requires_grad, hooks, dtype[, metadata]).
func rebuildTensorV3(args []any) (any, error) {
	if len(args) < 7 {
		return nil, fmt.Errorf("%d arguments, expected at least 7", len(args))
	}
	g, ok := args[6].(global)
	dtype := dtypes[g.name]
	if !ok || g.module != "torch" || dtype == "" {
		return nil, fmt.Errorf("dtype is %s", kindOf(args[6]))
	}
	if len(args) > 7 {
		if err := plain(args[7]); err != nil {
			return nil, err
		}
	}
	return view(args, dtype)
}

// plain refuses views that negate or conjugate their storage.
func plain(metadata any) error {
	d, ok := metadata.(*dict)
	if !ok {
		return nil
	}
	for _, key := range []string{"neg", "conj"} {
		if d.get(key) == true {
			return fmt.Errorf("a lazily negated or conjugated view (%s); save tensor.resolve_%s()", key, key)
		}
	}
	return nil
}

func view(args []any, dtype string) (any, error) {
	s, ok := args[0].(*storage)
	if !ok {
		return nil, fmt.Errorf("made from %s, expected a storage", kindOf(args[0]))
	}
	offset, ok := args[1].(int64)
	if !ok || offset < 0 {
		return nil, fmt.Errorf("storage offset is %s", kindOf(args[1]))
	}
	shape, err := sizes(args[2])
	if err != nil {
		return nil, fmt.Errorf("shape: %w", err)
	}
	stride, err := sizes(args[3])
	if err != nil {
		return nil, fmt.Errorf("strides: %w", err)
	}
	if len(shape) != len(stride) {
		return nil, fmt.Errorf("shape %v, but strides %v", shape, stride)
	}
	if dtype == "" {
		dtype = s.dtype
	}
	t := &tensor{dtype: dtype, shape: shape, stride: stride, offset: int(offset), from: s}
	if int64(t.offset) != offset {
		return nil, fmt.Errorf("storage offset %d is too large", offset)
	}
	n := uint64(1)
	for _, d := range shape {
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > maxElements {
			return nil, fmt.Errorf("shape %v has too many elements", shape)
		}
		n = lo
	}
	return t, nil
}

// sizes reads a tuple of numbers that are not negative.
func sizes(v any) ([]int, error) {
	items, ok := v.(tuple)
	if !ok {
		return nil, fmt.Errorf("%s, expected a tuple", kindOf(v))
	}
	if len(items) > maxDims {
		return nil, fmt.Errorf("%d dimensions; PyTorch has up to %d", len(items), maxDims)
	}
	out := make([]int, len(items))
	for i, item := range items {
		n, ok := item.(int64)
		if !ok || n < 0 || int64(int(n)) != n {
			return nil, fmt.Errorf("%s, expected a size", kindOf(item))
		}
		out[i] = int(n)
	}
	return out, nil
}

// settle finds the tensor's bytes and checks that every element lies in them.
func (t *tensor) settle() error {
	s := t.from
	b := s.bytes
	if s.base != nil {
		size := uint64(dtypeSize[s.dtype])
		hi1, start := bits.Mul64(s.start, size)
		hi2, length := bits.Mul64(s.length, size)
		b = s.base.bytes
		if hi1 != 0 || hi2 != 0 || start > uint64(len(b)) || length > uint64(len(b))-start {
			return fmt.Errorf("storage %s: a view of %d elements from %d, but the storage has %d bytes", quote(s.key), s.length, s.start, len(b))
		}
		b = b[start : start+length]
	}
	size := uint64(dtypeSize[t.dtype])
	if t.len() > 0 {
		last := uint64(t.offset)
		for i, d := range t.shape {
			hi, step := bits.Mul64(uint64(d-1), uint64(t.stride[i]))
			sum, carry := bits.Add64(last, step, 0)
			if hi != 0 || carry != 0 {
				return fmt.Errorf("shape %v and strides %v lead beyond 64 bits", t.shape, t.stride)
			}
			last = sum
		}
		if have := uint64(len(b)) / size; last >= have {
			return fmt.Errorf("shape %v, strides %v and offset %d lead to element %d of storage %s, which has %d", t.shape, t.stride, t.offset, last, quote(s.key), have)
		}
	}
	t.bytes = b
	return nil
}

func (t *tensor) len() int {
	n := 1
	for _, d := range t.shape {
		n *= d
	}
	return n
}

// run is the length of the longest stretch of elements that lie in row-major order.
func (t *tensor) run() int {
	n := 1
	for i := len(t.shape) - 1; i >= 0; i-- {
		if t.shape[i] != 1 && t.stride[i] != n {
			break
		}
		n *= t.shape[i]
	}
	return n
}

// read converts elements from, from+1, … into dst; the caller has checked them.
func (t *tensor) read(dst []float32, from int) {
	run := t.run()
	if run <= 1 {
		t.gather(dst, from)
		return
	}
	for len(dst) > 0 {
		in := from % run
		n := min(len(dst), run-in)
		t.convert(dst[:n], t.place(from/run*run)+in)
		dst, from = dst[n:], from+n
	}
}

// place is the index in the storage of element i.
func (t *tensor) place(i int) int {
	at := t.offset
	for d := len(t.shape) - 1; d >= 0; d-- {
		at += i % t.shape[d] * t.stride[d]
		i /= t.shape[d]
	}
	return at
}

// gather reads elements that lie apart: along the last dimension in steps of its stride.
func (t *tensor) gather(dst []float32, from int) {
	last := len(t.shape) - 1
	width, step := 1, 0
	if last >= 0 {
		width, step = t.shape[last], t.stride[last]
	}
	for len(dst) > 0 {
		in := from % width
		n := min(len(dst), width-in)
		at := t.place(from)
		for i := range dst[:n] {
			t.convert(dst[i:i+1], at)
			at += step
		}
		dst, from = dst[n:], from+n
	}
}

// convert reads len(dst) elements that lie one after another, from the storage's element at.
func (t *tensor) convert(dst []float32, at int) {
	size := dtypeSize[t.dtype]
	src := t.bytes[at*size : (at+len(dst))*size]
	switch t.dtype {
	case "F32", "F16", "BF16", "F64":
		if err := safetensors.ToFloat32(dst, t.dtype, src); err != nil {
			panic(err) // the dtype is known and the lengths agree
		}
	case "I64":
		for i := range dst {
			dst[i] = float32(int64(binary.LittleEndian.Uint64(src[8*i:])))
		}
	case "U64":
		for i := range dst {
			dst[i] = float32(binary.LittleEndian.Uint64(src[8*i:]))
		}
	case "I32":
		for i := range dst {
			dst[i] = float32(int32(binary.LittleEndian.Uint32(src[4*i:])))
		}
	case "U32":
		for i := range dst {
			dst[i] = float32(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case "I16":
		for i := range dst {
			dst[i] = float32(int16(binary.LittleEndian.Uint16(src[2*i:])))
		}
	case "U16":
		for i := range dst {
			dst[i] = float32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case "I8":
		for i := range dst {
			dst[i] = float32(int8(src[i]))
		}
	case "U8":
		for i := range dst {
			dst[i] = float32(src[i])
		}
	case "BOOL":
		for i := range dst {
			dst[i] = 0
			if src[i] != 0 {
				dst[i] = 1
			}
		}
	}
}

// storageID is what torch.save puts in a storage's place:
// ("storage", class, key, location, elements[, view]).
func storageID(id tuple) (key string, class global, elements uint64, err error) {
	if len(id) < 5 || text(id[0]) != "storage" {
		if len(id) > 0 && text(id[0]) == "module" {
			return "", global{}, 0, errors.New("holds a whole Python object, which would run code; save model.state_dict() instead")
		}
		return "", global{}, 0, errors.New("broken: a reference that is no storage")
	}
	class, ok := id[1].(global)
	if !ok {
		return "", class, 0, fmt.Errorf("broken: a storage whose class is %s", kindOf(id[1]))
	}
	n, ok := id[4].(int64)
	if !ok || n < 0 {
		return "", class, 0, fmt.Errorf("broken: a storage whose length is %s", kindOf(id[4]))
	}
	return text(id[2]), class, uint64(n), nil
}

// text is a string or, as Python 2's text may come, bytes.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case raw:
		return string(v)
	}
	return ""
}

// dtypeOf is what a class of storages holds.
func dtypeOf(class global) (string, error) {
	dtype, ok := storageDtypes[class.name]
	if !ok || class.module != "torch" && class.module != "torch.storage" {
		return "", fmt.Errorf("broken: %v is no class of storages", class)
	}
	return dtype, nil
}

// byteLen is elements·size, checked.
func byteLen(elements uint64, dtype string) (uint64, error) {
	hi, n := bits.Mul64(elements, uint64(dtypeSize[dtype]))
	if hi != 0 || n > math.MaxInt {
		return 0, fmt.Errorf("broken: a storage of %d elements", elements)
	}
	return n, nil
}
