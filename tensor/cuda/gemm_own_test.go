package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// pair is a tensor on the device and one of equal values on the reference device.
type pair struct{ dev, ref tensor.Tensor }

// pairs makes tensors for a test and frees them at its end.
type pairs struct {
	t   *testing.T
	dev *Device
	ref tensor.Device
	rng *rand.Rand
}

func newPairs(t *testing.T, d *Device) *pairs {
	return &pairs{t, d, ref.New(), rand.New(rand.NewPCG(6, 6))}
}

func (p *pairs) make(d tensor.Dtype, shape ...int) pair {
	narrow, b, err := tensor.New(p.dev, d, shape...)
	if err != nil {
		p.t.Fatal(err)
	}
	wide, c, err := tensor.New(p.ref, tensor.F64, shape...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { b.Free(); c.Free() })
	v := make([]float64, narrow.Len())
	for i := range v {
		v[i] = p.rng.NormFloat64()
	}
	tensor.SetFloat64(narrow, v)
	tensor.SetFloat64(wide, tensor.GetFloat64(narrow)) // as the device holds them
	return pair{narrow, wide}
}

func (p *pairs) ints(v ...int32) pair {
	x := p.make(tensor.F32, len(v))
	x.dev.Dtype = tensor.I32
	tensor.SetInt32(x.dev, v)
	y, b, err := tensor.New(p.ref, tensor.I32, len(v))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(b.Free)
	tensor.SetInt32(y, v)
	return pair{x.dev, y}
}

// spoil puts NaN at one element.
func (x pair) spoil(at int) {
	for _, t := range []tensor.Tensor{x.dev, x.ref} {
		v := tensor.GetFloat64(t)
		v[at] = math.NaN()
		tensor.SetFloat64(t, v)
	}
}

// compare asks that every element of a result is near the reference's.
func (p *pairs) compare(what string, x pair) {
	p.t.Helper()
	if err := p.dev.Sync(); err != nil {
		p.t.Fatalf("%s: %v", what, err)
	}
	tolerance := map[tensor.Dtype]float64{tensor.F32: 2e-5, tensor.BF16: 8e-3, tensor.F16: 1e-3}[x.dev.Dtype]
	got, want := tensor.GetFloat64(x.dev), tensor.GetFloat64(x.ref)
	for i, w := range want {
		g := got[i]
		if math.IsNaN(g) && math.IsNaN(w) {
			continue
		}
		if !(math.Abs(g-w) <= tolerance*max(1, math.Abs(w))) {
			p.t.Errorf("%s: element %d is %g, want %g", what, i, g, w)
			return
		}
	}
}

// TestProducts compares our own products with the reference where rows are whole numbers
// of 16 bytes, on both sides of what a tile, a stage and a block take, and over mixed types.
func TestProducts(t *testing.T) {
	d := open(t, Options{Float: tensor.BF16})
	t.Cleanup(d.Close) // after the buffers' own
	types := []struct{ a, b, c, bias tensor.Dtype }{
		{tensor.BF16, tensor.BF16, tensor.BF16, tensor.BF16}, {tensor.BF16, tensor.BF16, tensor.F32, tensor.F32},
		{tensor.F16, tensor.F16, tensor.F16, tensor.F16}, {tensor.F32, tensor.F32, tensor.F32, tensor.F32},
		{tensor.F32, tensor.F32, tensor.BF16, tensor.F32}, {tensor.BF16, tensor.F32, tensor.F16, tensor.F32},
	}
	shapes := [][3]int{{8, 8, 8}, {128, 128, 32}, {136, 264, 72}, {264, 72, 200}, {16, 136, 328}, {200, 16, 0},
		{1, 72, 328}, {72, 1, 328}, {8, 600, 1000}, {600, 3, 1000}, {5, 7, 129}}
	for _, y := range types {
		for _, s := range shapes {
			for variant := range 16 {
				transA, transB, accumulate, biased := variant&1 != 0, variant&2 != 0, variant&4 != 0, variant&8 != 0
				if large := s[0]*s[1] > 1<<14 || s[2] > 200; large && variant > 3 && variant < 15 || y.a != y.b && (large || variant > 3) {
					continue // less to wait for; mixed types take one kernel
				}
				p := newPairs(t, d)
				m, n, k := s[0], s[1], s[2]
				ra, ca, rb, cb := m, k, k, n
				if transA {
					ra, ca = k, m
				}
				if transB {
					rb, cb = n, k
				}
				a, b, c := p.make(y.a, ra, ca), p.make(y.b, rb, cb), p.make(y.c, m, n)
				if k > 0 && variant%3 == 0 {
					a.spoil(a.dev.Len() - 1) // of the last row and k
				}
				if !accumulate {
					c.spoil(m*n - 1) // must not be read
				}
				x, z := tensor.Matmul{C: c.dev, A: a.dev, B: b.dev}, tensor.Matmul{C: c.ref, A: a.ref, B: b.ref}
				if biased {
					bias := p.make(y.bias, n)
					x.Bias, z.Bias = bias.dev, bias.ref
				}
				x.TransA, x.TransB, z.TransA, z.TransB = transA, transB, transA, transB
				if accumulate {
					x.Beta, z.Beta = 1, 1
				}
				d.matmulOwn(x)
				p.ref.Ops().Matmul(z)
				p.compare(fmt.Sprintf("%v [m n k] %v, TransA %v, TransB %v, Beta 1 %v, Bias %v", y, s, transA, transB, accumulate, biased), c)
				if t.Failed() {
					return
				}
			}
		}
	}
}

// TestGroupedProducts: the same for groups of rows.
func TestGroupedProducts(t *testing.T) {
	d := open(t, Options{Float: tensor.BF16})
	t.Cleanup(d.Close) // after the buffers' own
	for _, sizes := range [][]int32{{0, 300, 0, 5, 127, 1, 0}, {128, 128}, {129}} {
		starts, groups := []int32{0}, len(sizes)
		for _, n := range sizes {
			starts = append(starts, starts[len(starts)-1]+n)
		}
		total := int(starts[groups])
		for _, y := range [][2]tensor.Dtype{{tensor.BF16, tensor.BF16}, {tensor.BF16, tensor.F32}, {tensor.F32, tensor.F32}, {tensor.F16, tensor.F32}} {
			for _, s := range [][2]int{{136, 72}, {24, 40}} {
				n, k := s[0], s[1]
				for variant := range 4 {
					p := newPairs(t, d)
					at := p.ints(starts...)
					transB, accumulate := variant&1 != 0, variant&2 != 0
					shape := []int{groups, k, n}
					if transB {
						shape = []int{groups, n, k}
					}
					a, b, c := p.make(y[0], total, k), p.make(y[0], shape...), p.make(y[1], total, n)
					a.spoil((total-1)*k + 3)
					d.groupedMatmul(tensor.GroupedMatmul{C: c.dev, A: a.dev, B: b.dev, TransB: transB, Starts: at.dev, Accumulate: accumulate})
					p.ref.Ops().GroupedMatmul(tensor.GroupedMatmul{C: c.ref, A: a.ref, B: b.ref, TransB: transB, Starts: at.ref, Accumulate: accumulate})
					p.compare(fmt.Sprintf("GroupedMatmul %v of %v, n %d, k %d, TransB %v, Accumulate %v", y, sizes, n, k, transB, accumulate), c)
				}
				p := newPairs(t, d)
				at := p.ints(starts...)
				a, b, c := p.make(y[0], total, n), p.make(y[0], total, k), p.make(y[1], groups, n, k)
				a.spoil((total-1)*n + 3)
				d.groupedOuter(tensor.GroupedOuter{C: c.dev, A: a.dev, B: b.dev, Starts: at.dev})
				p.ref.Ops().GroupedOuter(tensor.GroupedOuter{C: c.ref, A: a.ref, B: b.ref, Starts: at.ref})
				p.compare(fmt.Sprintf("GroupedOuter %v of %v, m %d, n %d", y, sizes, n, k), c)
				if t.Failed() {
					return
				}
			}
		}
	}
}
