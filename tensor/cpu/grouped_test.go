package cpu

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
)

// groupedCase is a product of groups of so many rows each.
type groupedCase struct {
	sizes  []int
	n, k   int
	transB bool
}

func (c groupedCase) starts() ([]int32, int) {
	starts, total := []int32{0}, 0
	for _, s := range c.sizes {
		total += s
		starts = append(starts, int32(total))
	}
	return starts, total
}

func (c groupedCase) on(t testing.TB, dev tensor.Device) (tensor.GroupedMatmul, tensor.GroupedOuter) {
	r := rand.New(rand.NewPCG(5, 6))
	starts, total := c.starts()
	at := placeInts(t, dev, starts)
	shape := []int{len(c.sizes), c.k, c.n}
	if c.transB {
		shape = []int{len(c.sizes), c.n, c.k}
	}
	x, w := place(t, dev, randomFloats(r, total*c.k, 1), total, c.k), place(t, dev, randomFloats(r, len(c.sizes)*c.n*c.k, 1), shape...)
	y, dw := place(t, dev, nil, total, c.n), place(t, dev, nil, shape...)
	m := tensor.GroupedMatmul{C: y, A: x, B: w, TransB: c.transB, Starts: at}
	dy := place(t, dev, randomFloats(r, total*c.n, 1), total, c.n)
	if c.transB {
		return m, tensor.GroupedOuter{C: dw, A: dy, B: x, Starts: at}
	}
	return m, tensor.GroupedOuter{C: dw, A: x, B: dy, Starts: at}
}

func even(groups, size int) []int {
	sizes := make([]int, groups)
	for i := range sizes {
		sizes[i] = size
	}
	return sizes
}

var groupedCases = []groupedCase{
	{[]int{1500, 0, 3}, 200, 130, true},
	{[]int{0, 700, 1, 1, 40, 17, 16, 0}, 130, 530, true},
	{[]int{5, 0, 900, 33}, 530, 70, false},
	{[]int{1, 0, 1, 0, 0, 1}, 400, 700, true},
	{[]int{1, 0, 1, 0, 0, 1}, 400, 700, false},
	{even(16, 20), 100, 40, true},
	{even(3, 30), 3, 50, true},
	{[]int{2, 3}, 4, 5, true},
	{[]int{0, 0}, 4, 5, true},
	{nil, 4, 5, true},
}

// Each group's product equals sgemm's of its shape to the last bit, on any number
// of threads.
func TestGroupedEqualsMatmul(t *testing.T) {
	dev := New()
	for _, c := range groupedCases {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			for _, threads := range []int{1, 2, 3, 16} {
				withThreads(threads, func() {
					m, o := c.on(t, dev)
					groupedMatmul(m)
					groupedOuter(o)
					got, gotOuter := content([]tensor.Tensor{m.C}), content([]tensor.Tensor{o.C})
					groupedMatmul(m)
					if !bytes.Equal(got, content([]tensor.Tensor{m.C})) {
						t.Fatal("differs the second time")
					}
					zero(m.C)
					zero(o.C)
					starts, _ := c.starts()
					for e := range c.sizes {
						from, size := int(starts[e]), c.sizes[e]
						page := func(t tensor.Tensor) tensor.Tensor { return t.Slice(e, 1).Reshape(t.Shape[1:]...) }
						matmul(tensor.Matmul{C: m.C.Slice(from, size), A: m.A.Slice(from, size), B: page(m.B), TransB: c.transB})
						matmul(tensor.Matmul{C: page(o.C), A: o.A.Slice(from, size), B: o.B.Slice(from, size), TransA: true, Beta: 1})
					}
					if !bytes.Equal(got, content([]tensor.Tensor{m.C})) {
						t.Errorf("GroupedMatmul on %d threads differs from Matmul", threads)
					}
					if !bytes.Equal(gotOuter, content([]tensor.Tensor{o.C})) {
						t.Errorf("GroupedOuter on %d threads differs from Matmul", threads)
					}
				})
			}
		})
	}
}

var groupedBenchmarks = []groupedCase{
	{even(8, 64), 1024, 1024, true},
	{even(8, 64), 1024, 1024, false},
	{even(8, 128), 2048, 768, true},
	{even(8, 256), 1024, 1024, true},
	{[]int{512, 0, 0, 0, 0, 0, 0, 0}, 1024, 1024, true},
	{[]int{20, 150, 1, 90, 0, 200, 11, 40}, 1024, 1024, true},
}

// BenchmarkGrouped compares with one Matmul of as many rows.
func BenchmarkGrouped(b *testing.B) {
	dev := New()
	for _, c := range groupedBenchmarks {
		m, o := c.on(b, dev)
		_, total := c.starts()
		rate := func(b *testing.B) {
			b.ReportMetric(2*float64(total*c.n*c.k)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
		}
		one := m.B.Slice(0, 1).Reshape(m.B.Shape[1:]...)
		oneOut := o.C.Slice(0, 1).Reshape(o.C.Shape[1:]...)
		for _, f := range []struct {
			name string
			run  func()
		}{
			{"grouped", func() { groupedMatmul(m) }},
			{"one", func() { matmul(tensor.Matmul{C: m.C, A: m.A, B: one, TransB: c.transB}) }},
			{"outer", func() { groupedOuter(o) }},
			{"outerOne", func() { matmul(tensor.Matmul{C: oneOut, A: o.A, B: o.B, TransA: true, Beta: 1}) }},
		} {
			b.Run(fmt.Sprintf("%v,n=%d,k=%d,transB=%v/%s", c.sizes, c.n, c.k, c.transB, f.name), func(b *testing.B) {
				f.run()
				for b.Loop() {
					f.run()
				}
				rate(b)
			})
		}
	}
}

// BenchmarkGroupedDecode is one token's product with 2 of 8 experts: the rate at
// which their weights are read, beside that of a Matmul of one row.
func BenchmarkGroupedDecode(b *testing.B) {
	dev := New()
	for _, transB := range []bool{true, false} {
		c := groupedCase{[]int{0, 1, 0, 0, 0, 1, 0, 0}, 3584, 2048, transB}
		m, _ := c.on(b, dev)
		bytes := int64(4 * c.n * c.k)
		b.Run(fmt.Sprintf("grouped,transB=%v", transB), func(b *testing.B) {
			b.SetBytes(2 * bytes)
			for b.Loop() {
				groupedMatmul(m)
			}
		})
		b.Run(fmt.Sprintf("one,transB=%v", transB), func(b *testing.B) {
			b.SetBytes(bytes)
			e := 0
			for b.Loop() {
				e = (e + 3) % 8 // no matrix is left in the cache
				matmul(tensor.Matmul{C: m.C.Slice(0, 1), A: m.A.Slice(0, 1), B: m.B.Slice(e, 1).Reshape(m.B.Shape[1:]...), TransB: transB})
			}
		})
	}
}
