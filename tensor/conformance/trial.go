package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// trial is one call of an operation (or a few) on both devices.
type trial struct {
	*suite
	name     string
	skipped  bool // one of those that the suite's Every leaves out
	wider    bool // what may be Float or Wide is Wide
	layout   layout
	seed     uint64
	rng      *rand.Rand
	operands []*operand
}

// trial begins one of a section's many trials; its name also seeds its random numbers.
func (s *suite) trial(l layout, format string, args ...any) *trial {
	tr := s.always(l, format, args...)
	tr.skipped = s.every > 1 && rand.New(rand.NewPCG(tr.seed, 2)).IntN(s.every) > 0
	return tr
}

// always begins a trial that no suite leaves out.
func (s *suite) always(l layout, format string, args ...any) *trial {
	name := fmt.Sprintf(format, args...) + " " + l.String()
	hash := fnv.New64a()
	hash.Write([]byte(name))
	seed := hash.Sum64()
	return &trial{suite: s, name: name, layout: l, seed: seed, wider: seed>>40&1 == 1, rng: rand.New(rand.NewPCG(seed, 1))}
}

// operand is a tensor that exists on both devices with equal values.
type operand struct {
	name   string
	shape  []int
	result bool      // may change and is compared
	exact  bool      // compared without tolerance
	steps  float64   // see through
	bound  []float64 // see summed
	slack  []float64 // error of each element that is allowed besides
	of     *operand  // see rounds
	ignore map[int]bool
	dev    side
	ref    side
}

// side is an operand on one device.
type side struct {
	tensor tensor.Tensor
	buffer *tensor.Buffer
	origin int    // byte of the first element in the buffer
	before []byte // the buffer's content before the operation
}

// values makes an operand of the device's float type.
func (tr *trial) values(name string, v []float64, shape ...int) *operand {
	return tr.operand(name, tr.dev.Float(), tensor.F64, v, shape)
}

// typed makes an operand of the same type on both devices.
func (tr *trial) typed(name string, d tensor.Dtype, v []float64, shape ...int) *operand {
	return tr.operand(name, d, d, v, shape)
}

// ints makes an I32 vector.
func (tr *trial) ints(name string, v ...int) *operand {
	w := make([]float64, len(v))
	for i, x := range v {
		w[i] = float64(x)
	}
	return tr.typed(name, tensor.I32, w, len(w))
}

// wide makes an operand of the type of statistics.
func (tr *trial) wide(name string, v []float64, shape ...int) *operand {
	return tr.operand(name, tr.dev.Float().Wide(), tensor.F64, v, shape)
}

// wideBlank makes a result of the type of statistics.
func (tr *trial) wideBlank(name string, shape ...int) *operand {
	return tr.wide(name, nil, shape...).out()
}

// either makes an operand that may be of the device's float type or of the type of
// statistics, as the trial has it.
func (tr *trial) either(name string, v []float64, shape ...int) *operand {
	if tr.wider {
		return tr.wide(name, v, shape...)
	}
	return tr.values(name, v, shape...)
}

// gradient makes a gradient of a parameter, which holds one and is added to.
func (tr *trial) gradient(name string, shape ...int) *operand {
	return tr.either(name, tr.normal(shape...), shape...).out()
}

// random makes an operand of normally distributed numbers, none of them zero.
func (tr *trial) random(name string, shape ...int) *operand {
	return tr.values(name, tr.normal(shape...), shape...)
}

// blank makes a result that holds nothing before it is written.
func (tr *trial) blank(name string, shape ...int) *operand {
	return tr.values(name, nil, shape...).out()
}

// out marks an operand as one that the operation changes.
func (o *operand) out() *operand {
	o.result = true
	return o
}

// exactly marks an operand as a result without rounding.
func (o *operand) exactly() *operand {
	o.result, o.exact = true, true
	return o
}

// How often a 16-bit device may round on the way to a result, beside the rounding of the
// result itself; see through. Tensor cores take 16-bit operands, so what is multiplied
// again is rounded: the probabilities of attention before they meet the values, and those
// and the gradients of scores in its backward pass, where sums of many such products
// are also of either sign: of n products, each off by up to a unit of rounding u, the
// sum is off by u·√(n/3) times a typical product, 0.6·u of a typical sum, which the
// largest of very many sums exceeds sixfold.
const (
	probabilities = 2
	gradients     = 4
)

// through says that a result may be made of numbers that a 16-bit device has rounded to
// its float type: its error may be n units of that rounding larger.
func (o *operand) through(n float64) *operand {
	o.steps = n
	return o
}

// summed says that a result is made of products one of whose factors a 16-bit device may
// have rounded: the error of each element may be a unit of that rounding times the sum of its
// products' absolute values larger.
func (o *operand) summed(bound []float64) *operand {
	o.bound = bound
	return o
}

// rounds says that a result is another one, as the device has it, rounded.
func (o *operand) rounds(other *operand) *operand {
	o.of = other
	return o
}

// except leaves elements of a result out of the comparison.
func (o *operand) except(elements ...int) *operand {
	o.ignore = map[int]bool{}
	for _, i := range elements {
		o.ignore[i] = true
	}
	return o
}

func (tr *trial) normal(shape ...int) []float64 {
	n := 1
	for _, d := range shape {
		n *= d
	}
	v := make([]float64, n)
	if tr.skipped {
		return v
	}
	for i := range v {
		for math.Abs(v[i]) < 1e-3 {
			v[i] = tr.rng.NormFloat64()
		}
	}
	return v
}

func (tr *trial) operand(name string, onDev, onRef tensor.Dtype, v []float64, shape []int) *operand {
	o := &operand{name: name, shape: shape}
	if tr.skipped {
		return o
	}
	if v != nil {
		v = decode(onDev, encode(onDev, v)) // as the device can hold them
	}
	o.dev = tr.place(tr.dev, onDev, v, shape)
	o.ref = tr.place(tr.ref, onRef, v, shape)
	tr.operands = append(tr.operands, o)
	return o
}

// margin is the number of bytes around each operand that must stay as they are.
const margin = 2 * tensor.Align

func (tr *trial) place(dev tensor.Device, d tensor.Dtype, v []float64, shape []int) side {
	t := tensor.Tensor{Device: dev, Dtype: d, Shape: shape}
	t.Stride = t.Cols()
	s := side{origin: margin}
	if tr.layout == window {
		const left, right = 3, 4
		t.Stride += left + right
		s.origin += left * d.Size()
	}
	size := s.origin + max(t.Rows(), 1)*t.Stride*d.Size() + margin
	b, err := dev.Alloc(size)
	if err != nil {
		panic(fmt.Sprintf("%s: Alloc(%d): %v", tr.name, size, err))
	}
	t.Addr = b.Addr + uintptr(s.origin)
	s.tensor, s.buffer, s.before = t, b, filler(size)
	if v != nil {
		packed := encode(d, v)
		s.eachRow(s.before, func(i int, row []byte) { copy(row, packed[i*len(row):]) })
	}
	return s
}

// filler is a pattern that reads as NaN in every float type and as a negative
// number in I32, and differs from one half-word to the next.
func filler(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		if i%2 == 0 {
			b[i] = byte(0xf1 + i/2%14)
		} else {
			b[i] = 0xff
		}
	}
	return b
}

// eachRow calls f with every row's index and the part of a buffer's content that
// holds it.
func (s side) eachRow(image []byte, f func(i int, row []byte)) {
	t := s.tensor
	size := t.Dtype.Size()
	for i := range t.Rows() {
		f(i, image[s.origin+i*t.Stride*size:][:t.Cols()*size])
	}
}

// unpack gathers the elements of a tensor from the content of its buffer.
func (s side) unpack(image []byte) []byte {
	packed := make([]byte, 0, s.tensor.Len()*s.tensor.Dtype.Size())
	s.eachRow(image, func(_ int, row []byte) { packed = append(packed, row...) })
	return packed
}

func (s side) bytes() tensor.Tensor { return s.buffer.Tensor(0, tensor.U8, s.buffer.Size) }

// check runs the operation on both devices, twice on the one under test, and
// reports every way in which it breaks the package comment's rules. op gets the
// device's table and a function that gives the tensor of an operand (the absent
// tensor for nil).
func (tr *trial) check(op func(ops *tensor.Ops, at func(*operand) tensor.Tensor)) {
	if tr.skipped {
		return
	}
	defer tr.free()
	elements := 0
	for _, o := range tr.operands {
		elements += o.dev.tensor.Len()
	}
	if tr.small > 0 && elements > tr.small {
		return
	}
	onRef := func(o *operand) side { return o.ref }
	onDev := func(o *operand) side { return o.dev }
	want, ok := tr.runOn(tr.ref, onRef, op)
	if !ok {
		return
	}
	got, ok := tr.runOn(tr.dev, onDev, op)
	if !ok {
		return
	}
	again, ok := tr.runOn(tr.dev, onDev, op)
	if !ok {
		return
	}
	for i, o := range tr.operands {
		var source []float64
		if o.of != nil {
			source = decode(o.of.dev.tensor.Dtype, o.of.dev.unpack(got[slices.Index(tr.operands, o.of)]))
			source = decode(o.dev.tensor.Dtype, encode(o.dev.tensor.Dtype, source))
		}
		tr.compare(o, want[i], got[i], source)
		if !bytes.Equal(got[i], again[i]) {
			tr.failf("%s: %s differs between two runs", tr.name, o.name)
		}
	}
}

// runOn sets every operand to its first state, runs op, and returns the content
// of every buffer.
func (tr *trial) runOn(dev tensor.Device, of func(*operand) side, op func(*tensor.Ops, func(*operand) tensor.Tensor)) (images [][]byte, ok bool) {
	ok = tr.guard(tr.name+" on "+dev.Name(), func() {
		for _, o := range tr.operands {
			dev.Write(of(o).bytes(), of(o).before)
		}
		op(dev.Ops(), func(o *operand) tensor.Tensor {
			if o == nil {
				return tensor.Tensor{}
			}
			return of(o).tensor
		})
		for _, o := range tr.operands {
			image := make([]byte, len(of(o).before))
			dev.Read(image, of(o).bytes())
			images = append(images, image)
		}
	})
	if err := dev.Sync(); err != nil {
		tr.failf("%s on %s: Sync: %v", tr.name, dev.Name(), err)
		return nil, false
	}
	return images, ok
}

func (tr *trial) free() {
	for _, o := range tr.operands {
		o.dev.buffer.Free()
		o.ref.buffer.Free()
	}
}

// compare reports what is wrong with an operand; source is what it must be exactly, where
// it is a rounded form of another.
func (tr *trial) compare(o *operand, wantImage, gotImage []byte, source []float64) {
	if !o.result {
		if i := firstDifference(gotImage, o.dev.before); i >= 0 {
			tr.failf("%s: input %s was changed at byte %d", tr.name, o.name, i-o.dev.origin)
		}
		return
	}
	around, first := bytes.Clone(gotImage), o.dev.unpack(o.dev.before)
	o.dev.eachRow(around, func(i int, row []byte) { copy(row, first[i*len(row):]) })
	if i := firstDifference(around, o.dev.before); i >= 0 {
		tr.failf("%s: memory outside of result %s%v was written, %d bytes from its first element", tr.name, o.name, o.shape, i-o.dev.origin)
	}

	unpackDev := func(image []byte) []float64 {
		return decode(o.dev.tensor.Dtype, o.dev.unpack(image))
	}
	unpackRef := func(image []byte) []float64 {
		return decode(o.ref.tensor.Dtype, o.ref.unpack(image))
	}
	want, got := unpackRef(wantImage), unpackDev(gotImage)
	wantBefore, gotBefore := unpackRef(o.ref.before), unpackDev(o.dev.before)
	float := tr.dev.Float()
	absolute := arithmetic[float.Wide()] + o.steps*rounding[float]
	last := rounding[o.dev.tensor.Dtype]
	if o.exact {
		absolute, last = 0, 0
	}
	unit := max(1, rms(want))
	tolerance := func(i int) float64 {
		_, exp := math.Frexp(want[i]) // |want| is in [2^(exp-1), 2^exp)
		t := absolute*max(unit, math.Abs(want[i])) + math.Ldexp(last, exp-1)
		if o.bound != nil {
			t += rounding[float] * o.bound[i]
		}
		if o.slack != nil {
			t += o.slack[i]
		}
		return t
	}
	for i := range want {
		switch {
		case o.ignore[i]:
		case same(want[i], wantBefore[i]) && !same(got[i], gotBefore[i]):
			tr.failf("%s: %s%v[%d] should stay %g, is %g", tr.name, o.label(), o.shape, i, gotBefore[i], got[i])
			return
		case !within(got[i], want[i], tolerance(i)):
			tr.failf("%s: %s%v[%d] is %g, want %g: error %.3g, tolerance %.3g", tr.name, o.label(), o.shape, i, got[i], want[i],
				math.Abs(got[i]-want[i]), tolerance(i))
			return
		case source != nil && !same(want[i], wantBefore[i]) && !same(got[i], source[i]):
			tr.failf("%s: %s%v[%d] is %g, but %s rounded is %g", tr.name, o.label(), o.shape, i, got[i], o.of.name, source[i])
			return
		}
	}
}

// label is the name of an operand and, on a device of two float types, its type.
func (o *operand) label() string {
	if !narrow(o.dev.tensor.Device) {
		return o.name
	}
	return o.name + " " + o.dev.tensor.Dtype.String()
}

// within tells whether got is as near to want as err; NaN is near NaN only, an
// infinity near itself only.
func within(got, want, err float64) bool {
	if same(got, want) {
		return true
	}
	return math.Abs(got-want) <= err && !math.IsInf(want, 0)
}

func same(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }

// rms is the root of the mean square of the finite elements.
func rms(v []float64) float64 {
	sum, n := 0.0, 0
	for _, x := range v {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			sum += x * x
			n++
		}
	}
	return math.Sqrt(sum / float64(max(n, 1)))
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// encode gives the bytes of numbers as memory holds them, rounded to nearest.
func encode(d tensor.Dtype, v []float64) []byte {
	b := make([]byte, 0, len(v)*d.Size())
	switch d {
	case tensor.F64:
		for _, x := range v {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
		}
	case tensor.F32:
		for _, x := range v {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(x)))
		}
	case tensor.I32:
		for _, x := range v {
			b = binary.LittleEndian.AppendUint32(b, uint32(int32(x)))
		}
	case tensor.U8:
		for _, x := range v {
			b = append(b, byte(x))
		}
	default:
		b = b[:len(v)*d.Size()]
		convert(d, len(v), func(dev tensor.Device, wide, narrow tensor.Tensor) {
			tensor.SetFloat64(wide, v)
			dev.Ops().Copy(narrow, wide)
			dev.Read(b, narrow)
		})
	}
	return b
}

// decode is the reverse of encode.
func decode(d tensor.Dtype, b []byte) []float64 {
	v := make([]float64, len(b)/d.Size())
	switch d {
	case tensor.F64:
		for i := range v {
			v[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
		}
	case tensor.F32:
		for i := range v {
			v[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:])))
		}
	case tensor.I32:
		for i := range v {
			v[i] = float64(int32(binary.LittleEndian.Uint32(b[4*i:])))
		}
	case tensor.U8:
		for i := range v {
			v[i] = float64(b[i])
		}
	default:
		convert(d, len(v), func(dev tensor.Device, wide, narrow tensor.Tensor) {
			dev.Write(narrow, b)
			dev.Ops().Copy(wide, narrow)
			v = tensor.GetFloat64(wide)
		})
	}
	return v
}

// convert leaves 16-bit floats to the reference device, whose own tests compare
// its Copy with known values.
func convert(d tensor.Dtype, n int, f func(dev tensor.Device, wide, narrow tensor.Tensor)) {
	dev := ref.New()
	wide, wideBuffer, err := tensor.New(dev, tensor.F64, n)
	if err != nil {
		panic(err)
	}
	narrow, narrowBuffer, err := tensor.New(dev, d, n)
	if err != nil {
		panic(err)
	}
	f(dev, wide, narrow)
	wideBuffer.Free()
	narrowBuffer.Free()
}
