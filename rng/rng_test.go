package rng

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"testing"
)

// TestPhiloxKnownAnswers holds the vectors that the authors publish with
// Random123 (kat_vectors, philox4x32 10).
func TestPhiloxKnownAnswers(t *testing.T) {
	ones := uint32(0xffffffff)
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{ones, ones, ones, ones}, [2]uint32{ones, ones}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := Philox(c.counter, c.key); got != c.want {
			t.Errorf("Philox(%08x, %08x) = %08x, want %08x", c.counter, c.key, got, c.want)
		}
	}
}

// TestStreamIsFixed pins the first draws of a stream: a checkpoint of another
// build must go on with the same numbers.
func TestStreamIsFixed(t *testing.T) {
	s := New(1, Data, 0)
	for i, want := range []uint64{0x2d1ff51d8d5de8c6, 0xbbd989ac446a7290, 0x4caf7fb677f79f75, 0x5eda005413434c98} {
		if got := s.Uint64(); got != want {
			t.Errorf("draw %d is %#016x, want %#016x", i, got, want)
		}
	}
}

// chiSquare tells how far counts are from equal, in standard deviations of the
// statistic's distribution (normal approximation, many bins or draws).
func chiSquare(counts []int) float64 {
	n := 0
	for _, c := range counts {
		n += c
	}
	want, sum := float64(n)/float64(len(counts)), 0.0
	for _, c := range counts {
		d := float64(c) - want
		sum += d * d / want
	}
	free := float64(len(counts) - 1)
	return (sum - free) / math.Sqrt(2*free)
}

func TestUniformity(t *testing.T) {
	const n = 100000
	for _, c := range []struct {
		name string
		bins int
		draw func(s *Stream) int
	}{
		{"Uint64 low byte", 256, func(s *Stream) int { return int(s.Uint64() & 255) }},
		{"Uint64 high byte", 256, func(s *Stream) int { return int(s.Uint64() >> 56) }},
		{"Uint32 high byte", 256, func(s *Stream) int { return int(s.Uint32() >> 24) }},
		{"Uint32 low byte", 256, func(s *Stream) int { return int(s.Uint32() & 255) }},
		{"Float64", 1000, func(s *Stream) int { return int(s.Float64() * 1000) }},
		{"Float32", 1000, func(s *Stream) int { return int(s.Float32() * 1000) }},
		{"pairs of Float64", 900, func(s *Stream) int { return int(s.Float64()*30)*30 + int(s.Float64()*30) }},
		{"Intn(3)", 3, func(s *Stream) int { return s.Intn(3) }},
		{"Intn(7)", 7, func(s *Stream) int { return s.Intn(7) }},
		{"Intn(1000)", 1000, func(s *Stream) int { return s.Intn(1000) }},
		// Taking a draw modulo 3·2⁶¹ would give the lower two thirds twice.
		{"Intn(3<<61)", 3, func(s *Stream) int { return s.Intn(3<<61) >> 61 }},
		{"Perm(4)", 24, func(s *Stream) int { return rankOf(s.Perm(4)) }},
	} {
		for seed := range uint64(3) {
			s := New(seed, Data, 0)
			counts := make([]int, c.bins)
			for range n {
				counts[c.draw(s)]++
			}
			if z := chiSquare(counts); math.Abs(z) > 5 {
				t.Errorf("%s, seed %d: χ² lies %.1f standard deviations off", c.name, seed, z)
			}
		}
	}
}

// rankOf numbers the permutations of 4.
func rankOf(p []int) int {
	rank := 0
	for i := range p {
		smaller := 0
		for _, q := range p[i+1:] {
			if q < p[i] {
				smaller++
			}
		}
		rank = rank*(len(p)-i) + smaller
	}
	return rank
}

func TestRanges(t *testing.T) {
	s := New(5, Init, 0)
	for range 10000 {
		if f := s.Float64(); f < 0 || f >= 1 {
			t.Fatalf("Float64 gave %g", f)
		}
		if f := s.Float32(); f < 0 || f >= 1 {
			t.Fatalf("Float32 gave %g", f)
		}
	}
	if top := unit(math.MaxUint64); top >= 1 {
		t.Errorf("the largest draw gives %g", top)
	}
	for n := range 30 {
		p := s.Perm(n)
		sort.Ints(p)
		for i := range p {
			if p[i] != i {
				t.Fatalf("Perm(%d) is no permutation: sorted %v", n, p)
			}
		}
	}
	if s.Intn(1) != 0 {
		t.Error("Intn(1) is not 0")
	}
	defer func() {
		if recover() == nil {
			t.Error("Intn(0) does not panic")
		}
	}()
	s.Intn(0)
}

// TestNormal compares moments, and the distribution itself by Kolmogorov and
// Smirnov, with the normal's.
func TestNormal(t *testing.T) {
	const n = 100000
	for name, make := range map[string]func(s *Stream) []float64{
		"Norm": func(s *Stream) []float64 {
			v := make([]float64, n)
			for i := range v {
				v[i] = s.Norm()
			}
			return v
		},
		"FillNormal": func(s *Stream) []float64 {
			w, v := make([]float32, n), make([]float64, n)
			s.FillNormal(w, 3, 0.02)
			for i := range v {
				v[i] = (float64(w[i]) - 3) / 0.02
			}
			return v
		},
	} {
		v := make(New(11, Init, 0))
		var sum [5]float64
		pairs := 0.0
		for i, x := range v {
			for p := range sum {
				sum[p] += math.Pow(x, float64(p)) / n
			}
			pairs += x * v[(i+1)%n] / n
		}
		for p, want := range []float64{1, 0, 1, 0, 3} {
			if math.Abs(sum[p]-want) > 0.1 || p < 3 && math.Abs(sum[p]-want) > 0.02 {
				t.Errorf("%s: moment %d is %.4f, want %g", name, p, sum[p], want)
			}
		}
		if math.Abs(pairs) > 0.02 {
			t.Errorf("%s: neighbours correlate by %.4f", name, pairs)
		}
		sort.Float64s(v)
		worst := 0.0
		for i, x := range v {
			worst = max(worst, math.Abs(math.Erfc(-x/math.Sqrt2)/2-(float64(i)+0.5)/n))
		}
		if worst > 2/math.Sqrt(n) { // 1.95/√n: one in a thousand
			t.Errorf("%s: the distribution is off by %.5f", name, worst)
		}
	}
}

func TestFillUniform(t *testing.T) {
	v := make([]float32, 100003)
	New(2, Init, 0).FillUniform(v, -0.5, 1.5)
	counts := make([]int, 100)
	for _, x := range v {
		if x < -0.5 || x >= 1.5 {
			t.Fatalf("%g is outside [-0.5, 1.5)", x)
		}
		counts[int((x+0.5)*50)]++
	}
	if z := chiSquare(counts); math.Abs(z) > 5 {
		t.Errorf("χ² lies %.1f standard deviations off", z)
	}
	// Near a large number float32 has few values: the open end must stay out.
	New(2, Init, 0).FillUniform(v, 1<<24-2, 1<<24)
	for _, x := range v {
		if x >= 1<<24 {
			t.Fatal("the open end was reached")
		}
	}
}

// TestIndependence looks for correlation between streams that differ in one
// thing only.
func TestIndependence(t *testing.T) {
	const n = 4000
	streams := map[string]*Stream{}
	for _, purpose := range []string{Data, Dropout, Sampling, Init, "init/a", "init/b", ""} {
		for _, rank := range []int{0, 1, -1} {
			for _, seed := range []uint64{0, 1, 1 << 32, math.MaxUint64} {
				streams[fmt.Sprintf("%s/%d/%d", purpose, rank, seed)] = New(seed, purpose, rank)
			}
		}
	}
	first := map[uint64]string{}
	draws := map[string][]float64{}
	for name, s := range streams {
		if other, ok := first[s.At(0)]; ok {
			t.Errorf("streams %s and %s begin alike", name, other)
		}
		first[s.At(0)] = name
		for range n {
			draws[name] = append(draws[name], s.Float64()-0.5)
		}
	}
	for a := range draws {
		for b := range draws {
			if a >= b {
				continue
			}
			sum := 0.0
			va, vb := draws[a], draws[b]
			for i := range va {
				sum += va[i] * vb[i]
			}
			if z := sum * 12 / math.Sqrt(n); math.Abs(z) > 5.5 { // of 3486 pairs
				t.Errorf("streams %s and %s correlate: %.1f standard deviations", a, b, z)
			}
		}
	}
}

// TestResume saves a stream after every mixture of draws and wants the copy to go
// on as the original does.
func TestResume(t *testing.T) {
	s := New(1<<63+12345, "data/ü", 3)
	for round := range 50 {
		switch round % 5 {
		case 0:
			s.Uint32()
		case 1:
			s.Norm()
		case 2:
			s.Perm(round)
		case 3:
			s.FillNormal(make([]float32, round), 0, 1)
		case 4:
			s.Float64At(1000) // must leave no trace
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var r Stream
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		ahead := New(0, "", 0)
		*ahead = *s
		for i := range 9 {
			if got, want := r.Uint64(), ahead.Uint64(); got != want {
				t.Fatalf("after %s, draw %d is %x, want %x", b, i, got, want)
			}
		}
		v, w := make([]float32, 7), make([]float32, 7)
		r.FillNormal(v, 0, 1)
		ahead.FillNormal(w, 0, 1)
		if fmt.Sprint(v) != fmt.Sprint(w) || r.Counter() != ahead.Counter() {
			t.Fatalf("after %s, FillNormal gives %v, want %v", b, v, w)
		}
	}
	for _, bad := range []string{`{}`, `{"seed":1,"purpose":"data","rank":0}`, `{"seed":-1,"purpose":"data","rank":0,"counter":0}`, `[]`, `{"seed":1,"purpose":2,"rank":0,"counter":0}`} {
		var r Stream
		if err := json.Unmarshal([]byte(bad), &r); err == nil {
			t.Errorf("state %s was taken", bad)
		}
	}
}

func TestAt(t *testing.T) {
	s, r := New(9, Sampling, 2), New(9, Sampling, 2)
	for i := range uint64(100) {
		want := s.Uint64()
		if got := r.At(i); got != want {
			t.Fatalf("At(%d) = %x, want %x", i, got, want)
		}
		if got := r.Float64At(i); got != unit(want) {
			t.Fatalf("Float64At(%d) = %g, want %g", i, got, unit(want))
		}
	}
	if r.Counter() != 0 {
		t.Error("At moved the stream")
	}
	r.Seek(37)
	s.Seek(36)
	s.Uint64()
	if r.Uint64() != s.Uint64() {
		t.Error("Seek went elsewhere")
	}
	// Past 2³² blocks.
	far := uint64(1) << 40
	if r.At(far) == r.At(far&(1<<33-1)) || r.At(far) == r.At(0) {
		t.Error("the counter wraps at 32 bits")
	}
}

// TestFillTakesNoDrawTwice checks that what follows a fill shares no bits with it.
func TestFillTakesNoDrawTwice(t *testing.T) {
	for _, before := range []int{0, 1, 2} {
		for _, n := range []int{0, 1, 4, 5} {
			s := New(3, Init, 0)
			for range before {
				s.Uint64()
			}
			s.FillUniform(make([]float32, n), 0, 1)
			want := uint64(before+1)/2*2 + uint64(n+3)/4*2
			if s.Counter() != want {
				t.Errorf("%d draws and a fill of %d: counter %d, want %d", before, n, s.Counter(), want)
			}
		}
	}
}

// TestFillInPieces: filling a tensor piece by piece gives what filling it at once
// gives, as long as pieces hold whole blocks; so initial weights don't depend on
// how they pass through host memory.
func TestFillInPieces(t *testing.T) {
	for _, fill := range []func(s *Stream, dst []float32){
		func(s *Stream, dst []float32) { s.FillNormal(dst, 0, 1) },
		func(s *Stream, dst []float32) { s.FillUniform(dst, -1, 1) },
	} {
		whole, pieces := make([]float32, 103), make([]float32, 103)
		fill(New(5, Init, 0), whole)
		s := New(5, Init, 0)
		for at := 0; at < len(pieces); {
			n := min(4*(1+at%3), len(pieces)-at)
			fill(s, pieces[at:at+n])
			at += n
		}
		if !slices.Equal(whole, pieces) {
			t.Errorf("in pieces\n%v\nat once\n%v", pieces, whole)
		}
	}
}

func BenchmarkUint64(b *testing.B) {
	s := New(1, Data, 0)
	for b.Loop() {
		s.Uint64()
	}
}

func BenchmarkFillNormal(b *testing.B) {
	s, v := New(1, Init, 0), make([]float32, 1<<16)
	b.SetBytes(4 << 16)
	for b.Loop() {
		s.FillNormal(v, 0, 0.02)
	}
}
