package conformance

import (
	"bytes"

	"ringtail/tensor"
)

// testMemory checks Alloc, Write, Read and Free.
func testMemory(s *suite) {
	dtypes := []tensor.Dtype{tensor.F32, tensor.F64, tensor.BF16, tensor.F16, tensor.I32, tensor.U8}
	for _, size := range []int{1, 3, 256, 1000, 1 << 16} {
		// Twice, as memory that was used and freed must be zeroed again.
		for range 2 {
			b, err := s.dev.Alloc(size)
			if err != nil {
				s.failf("Alloc(%d): %v", size, err)
				return
			}
			if b.Addr == 0 || b.Addr%tensor.Align != 0 || b.Size < size || b.Device != s.dev {
				s.failf("Alloc(%d) gave address %#x, size %d, device %v", size, b.Addr, b.Size, b.Device)
			}
			all := b.Tensor(0, tensor.U8, size)
			got := make([]byte, size)
			s.dev.Read(got, all)
			if !bytes.Equal(got, make([]byte, size)) {
				s.failf("Alloc(%d) gave memory that is not zeroed", size)
			}
			s.dev.Write(all, filler(size))
			s.dev.Read(got, all)
			if !bytes.Equal(got, filler(size)) {
				s.failf("%d bytes read back differ from those written", size)
			}
			b.Free()
		}
	}
	for _, d := range dtypes {
		t, b, err := tensor.New(s.dev, d, 7, 5)
		if err != nil {
			s.failf("New %v: %v", d, err)
			return
		}
		src := filler(t.Bytes())
		s.dev.Write(t, src)
		// A window of rows is dense too.
		s.dev.Write(t.Slice(2, 3), make([]byte, 15*d.Size()))
		clear(src[10*d.Size() : 25*d.Size()])
		got := make([]byte, t.Bytes())
		s.dev.Read(got, t)
		if !bytes.Equal(got, src) {
			s.failf("%v tensor read back differs from what was written", d)
		}
		s.dev.Write(t.Slice(0, 0), nil)
		s.dev.Read(nil, t.Slice(7, 0))
		b.Free()
	}
	if err := s.dev.Sync(); err != nil {
		s.failf("Sync: %v", err)
	}
}

// testOrder checks that operations run in the order in which they were enqueued,
// and that Read waits for them.
func testOrder(s *suite) {
	n := 5000
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(i%7) - 3
	}
	x, bx, err := tensor.New(s.dev, s.dev.Float(), n)
	if err != nil {
		s.failf("New: %v", err)
		return
	}
	y, by, err := tensor.New(s.dev, s.dev.Float(), n)
	if err != nil {
		s.failf("New: %v", err)
		return
	}
	s.dev.Write(x, encode(s.dev.Float(), v))
	ops := s.dev.Ops()
	// x = 2·x, y = x + x, x = y/4 leaves x as it was; all of it is exact.
	for range 50 {
		ops.Scale(x, 2)
		ops.Add(y, x, x)
		ops.Copy(x, y)
		ops.Scale(x, 0.25)
	}
	image := make([]byte, x.Bytes())
	s.dev.Read(image, x)
	for i, got := range decode(s.dev.Float(), image) {
		if got != v[i] {
			s.failf("after operations that cancel, element %d is %g, was %g", i, got, v[i])
			break
		}
	}
	bx.Free()
	by.Free()
}
