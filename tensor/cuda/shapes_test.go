package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/ref"
)

// shapes compares operations with the reference in shapes that the conformance suite leaves out: those of models,
// and those that choose another form of a kernel.
type shapes struct {
	t        *testing.T
	dev, ref tensor.Device
	rng      *rand.Rand
	checks   []comparison
}

type comparison struct {
	name      string
	got, want tensor.Tensor
}

// both is a tensor on either device.
type both [2]tensor.Tensor

func (s *shapes) tensor(wide bool, v []float64, shape ...int) (b both) {
	t := s.dev.Float()
	if wide {
		t = t.Wide()
	}
	for i, dev := range []tensor.Device{s.dev, s.ref} {
		wide, _, err := tensor.New(dev, dev.Float().Wide(), shape...)
		if err != nil {
			s.t.Fatal(err)
		}
		tensor.SetFloat64(wide, v)
		b[i] = wide
		if i == 0 && t != wide.Dtype {
			if b[0], _, err = tensor.New(dev, t, shape...); err != nil {
				s.t.Fatal(err)
			}
			dev.Ops().Copy(b[0], wide)
		}
	}
	return b
}

// random numbers that a bfloat16 holds exactly.
func (s *shapes) random(shape ...int) both { return s.tensor(false, s.numbers(shape...), shape...) }

func (s *shapes) numbers(shape ...int) []float64 {
	n := 1
	for _, d := range shape {
		n *= d
	}
	v := make([]float64, n)
	for i := range v {
		v[i] = float64(math.Float32frombits(math.Float32bits(float32(s.rng.NormFloat64())) &^ 0xffff))
	}
	return v
}

func (s *shapes) out(name string, b both) both {
	s.checks = append(s.checks, comparison{name, b[0], b[1]})
	return b
}

// compare runs an operation on both devices and compares what out named.
func (s *shapes) compare(name string, run func(ops *tensor.Ops, i int)) {
	s.t.Helper()
	run(s.dev.Ops(), 0)
	run(s.ref.Ops(), 1)
	if err := s.dev.Sync(); err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	for _, c := range s.checks {
		tolerance := 2e-5
		if s.dev.Float() == tensor.BF16 {
			tolerance = 1.2e-2
		}
		wide, _, err := tensor.New(s.dev, tensor.F32, c.got.Shape...)
		if err != nil {
			s.t.Fatal(err)
		}
		s.dev.Ops().Copy(wide, c.got)
		got, want := tensor.GetFloat64(wide), tensor.GetFloat64(c.want)
		scale := 0.0
		for _, w := range want {
			scale += w * w / float64(len(want))
		}
		scale = math.Sqrt(scale)
		for i := range want {
			if e := math.Abs(got[i]-want[i]) / max(1, scale, math.Abs(want[i])); !(e <= tolerance) {
				s.t.Errorf("%s: %s[%d] is %g, want %g", name, c.name, i, got[i], want[i])
				break
			}
		}
	}
	s.checks = nil
}

func eachFloat(t *testing.T, run func(s *shapes)) {
	for _, float := range []tensor.Dtype{tensor.F32, tensor.BF16} {
		t.Run(float.String(), func(t *testing.T) {
			d := open(t, Options{Float: float})
			defer d.Close()
			run(&shapes{t: t, dev: d, ref: ref.New(), rng: rand.New(rand.NewPCG(1, 2))})
		})
	}
}

// Every form that normForm chooses, and its border.
func TestNormShapes(t *testing.T) {
	eachFloat(t, func(s *shapes) {
		for _, h := range []int{8, 512, 768, 1024, 1032, 4096, 4099, 8200, 16392} {
			const rows = 3
			x, delta, w, bias, dy := s.random(rows, h), s.random(rows, h), s.random(h), s.random(h), s.random(rows, h)
			y, sum := s.random(rows, h), s.random(rows, h)
			mean, rstd := s.tensor(true, s.numbers(rows), rows), s.tensor(true, s.numbers(rows), rows)
			dx, dw, db := s.random(rows, h), s.random(h), s.random(h)
			wideDW := s.tensor(true, s.numbers(h), h)
			s.out("Y", y)
			s.out("Sum", sum)
			s.out("RStd", rstd)
			s.compare(fmt.Sprintf("RMSNorm of %d", h), func(ops *tensor.Ops, i int) {
				ops.RMSNorm(tensor.RMSNorm{Y: y[i], X: x[i], W: w[i], RStd: rstd[i], Delta: delta[i], Sum: sum[i], Eps: 1e-5, WOffset: 1})
			})
			s.out("DX", dx)
			s.out("DW", wideDW)
			s.compare(fmt.Sprintf("RMSNormBackward of %d", h), func(ops *tensor.Ops, i int) {
				ops.RMSNormBackward(tensor.RMSNormBackward{DX: dx[i], DW: wideDW[i], DY: dy[i], DSum: delta[i], S: x[i], W: w[i], RStd: rstd[i], WOffset: 1})
			})
			s.out("Y", y)
			s.out("Mean", mean)
			s.out("RStd", rstd)
			s.compare(fmt.Sprintf("LayerNorm of %d", h), func(ops *tensor.Ops, i int) {
				ops.LayerNorm(tensor.LayerNorm{Y: y[i], X: x[i], W: w[i], Bias: bias[i], Mean: mean[i], RStd: rstd[i], Delta: delta[i], Sum: sum[i], Eps: 1e-5})
			})
			s.out("DX", dx)
			s.out("DW", dw)
			s.out("DBias", db)
			s.compare(fmt.Sprintf("LayerNormBackward of %d", h), func(ops *tensor.Ops, i int) {
				ops.LayerNormBackward(tensor.LayerNormBackward{DX: dx[i], DW: dw[i], DBias: db[i], DY: dy[i], DSum: delta[i], S: x[i], W: w[i],
					Mean: mean[i], RStd: rstd[i]})
			})
		}
	})
}

// Runs of equal ids shorter and longer than a piece of the sorted order, over borders of pieces,
// and ids of one, two and three passes of the sort.
func TestEmbeddingRuns(t *testing.T) {
	eachFloat(t, func(s *shapes) {
		for _, c := range []struct{ tokens, vocab, h, often int }{
			{1, 1, 8, 1}, {1000, 1, 264, 1}, {1000, 3, 40, 2}, {1000, 300, 1032, 4}, {700, 70000, 24, 1000}, {3000, 50257, 7, 2}, {64, 2, 8, 1},
		} {
			ids := make([]int32, c.tokens)
			for i := range ids {
				ids[i] = int32(s.rng.IntN(c.vocab))
				if s.rng.IntN(c.often) == 0 {
					ids[i] = int32(c.vocab - 1) // filler
				}
			}
			var id both
			for i, dev := range []tensor.Device{s.dev, s.ref} {
				var err error
				if id[i], _, err = tensor.New(dev, tensor.I32, c.tokens); err != nil {
					t.Fatal(err)
				}
				tensor.SetInt32(id[i], ids)
			}
			dy := s.random(c.tokens, c.h)
			for _, wide := range []bool{false, true} {
				dw := s.out("dw", s.tensor(wide, s.numbers(c.vocab, c.h), c.vocab, c.h))
				s.compare(fmt.Sprintf("EmbeddingBackward %+v", c), func(ops *tensor.Ops, i int) { ops.EmbeddingBackward(dw[i], dy[i], id[i]) })
			}
		}
	})
}

// Sums of many rows, and dense planes whose length is no multiple of 8.
func TestPlaneShapes(t *testing.T) {
	eachFloat(t, func(s *shapes) {
		for _, p := range [][2]int{{3000, 8}, {1000, 264}, {1000, 31}, {5, 4104}, {33, 1001}} {
			x, b := s.random(p[0], p[1]), s.random(p[0], p[1])
			y := s.out("y", s.random(p[1]))
			s.compare(fmt.Sprintf("SumRows of %v", p), func(ops *tensor.Ops, i int) { ops.SumRows(y[i], x[i]) })
			z := s.out("y", s.random(p[0], p[1]))
			s.compare(fmt.Sprintf("Add of %v", p), func(ops *tensor.Ops, i int) { ops.Add(z[i], x[i], b[i]) })
			s.out("y", z)
			s.compare(fmt.Sprintf("Copy of %v", p), func(ops *tensor.Ops, i int) { ops.Copy(z[i], b[i]) })
			s.out("x", x)
			s.compare(fmt.Sprintf("Zero of %v", p), func(ops *tensor.Ops, i int) { ops.Zero(x[i]) })
		}
	})
}
