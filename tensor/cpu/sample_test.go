package cpu

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"ringtail/tensor"
)

// sampleOne draws from one row of logits.
func sampleOne(t testing.TB, logits []float32, rule tensor.SampleRow) (id int, logProb float64) {
	d := New()
	ids, probs := placeInts(t, d, []int32{-7}), place(t, d, nil, 1)
	d.Ops().Sample(tensor.Sample{IDs: ids, LogProbs: probs, Logits: place(t, d, logits, 1, len(logits)), Rows: []tensor.SampleRow{rule}})
	return int(ids.Int32()[0]), float64(probs.Float32()[0])
}

// ranked lists the ids of finite or +Inf logits from the largest on, equal ones by id.
func ranked(z []float64) []int {
	var order []int
	for i, x := range z {
		if x > math.Inf(-1) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(z[b], z[a]) })
	return order
}

// checkDraw checks what must hold of any draw, by sorting.
func checkDraw(t *testing.T, logits []float32, s tensor.SampleRow, id int, logProb float64) {
	t.Helper()
	z := make([]float64, len(logits))
	odd := false // a logit that leaves no probabilities
	sum, largest := 0.0, math.Inf(-1)
	for i, x := range logits {
		z[i] = float64(x)
		odd = odd || x != x || math.IsInf(float64(x), 1)
		largest = max(largest, z[i])
	}
	temperature := 1.0 // of the log-probability
	if s.TemperedLogProb && s.Temperature > 0 {
		temperature = float64(s.Temperature)
	}
	for _, x := range z {
		sum += math.Exp((x - largest) / temperature)
	}

	if r := s.RepetitionPenalty; r != 0 && r != 1 {
		for _, v := range s.Seen {
			if x := logits[v]; x > 0 {
				z[v] = float64(x / r)
			} else {
				z[v] = float64(x * r)
			}
		}
	}
	for _, v := range s.Banned {
		z[v] = math.Inf(-1)
	}
	order := ranked(z)
	if len(order) == 0 {
		if id != -1 || logProb == logProb {
			t.Fatalf("nothing to draw from gave id %d, log-probability %v", id, logProb)
		}
		return
	}
	rank := slices.Index(order, id)
	if rank < 0 {
		t.Fatalf("drew id %d, which is excluded", id)
	}
	if odd {
		if logProb == logProb {
			t.Fatalf("log-probability %v beside NaN or Inf", logProb)
		}
		return
	}
	if want := (float64(logits[id])-largest)/temperature - math.Log(sum); math.Abs(logProb-want) > 1e-5*max(1, math.Abs(want)) {
		t.Fatalf("log-probability of %d is %v, want %v", id, logProb, want)
	}
	if s.Temperature == 0 {
		if id != order[0] {
			t.Fatalf("greedy drew %d, the largest is %d", id, order[0])
		}
		return
	}
	weight := func(v int) float64 { return math.Exp((z[v] - z[order[0]]) / float64(s.Temperature)) }
	// Tokens whose logits differ by rounding after the division may change places.
	near := func(a, b int) bool { return math.Abs(weight(a)-weight(b)) <= 1e-5*weight(a) }
	kept := order
	if s.TopK > 0 && s.TopK < len(order) {
		kept = order[:s.TopK]
		if rank >= s.TopK && !near(id, kept[len(kept)-1]) {
			t.Fatalf("drew rank %d with TopK %d", rank, s.TopK)
		}
	}
	if p := float64(s.TopP); p > 0 && p < 1 {
		total, before := 0.0, 0.0
		for _, v := range kept {
			total += weight(v)
		}
		for _, v := range kept {
			if v == id || near(v, id) {
				break
			}
			before += weight(v)
		}
		if before >= p*total*(1+1e-4) {
			t.Fatalf("drew rank %d after %v of the probability, TopP %v", rank, before/total, p)
		}
	}
	if weight(id) < float64(min(s.MinP, 1))*(1-1e-4) {
		t.Fatalf("drew a token of %v times the largest probability, MinP %v", weight(id), s.MinP)
	}
}

func TestSampleInvariants(t *testing.T) {
	atEveryLevel(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(5, 6))
		for i := range 3000 {
			v := 1 + r.IntN([]int{3, 40, 3000}[i%3])
			logits := make([]float32, v)
			spread := math.Exp(r.NormFloat64() * 1.5)
			for j := range logits {
				logits[j] = float32(r.NormFloat64() * spread)
				switch {
				case i%5 == 0:
					logits[j] = float32(r.IntN(3)) // many equal
				case i%7 == 0 && r.IntN(3) == 0:
					logits[j] = float32(math.Inf(-1))
				}
			}
			s := tensor.SampleRow{Temperature: float32(r.IntN(4)) * 0.6, Uniform: r.Float64(), TemperedLogProb: r.IntN(2) == 0}
			if r.IntN(2) == 0 {
				s.TopK = 1 + r.IntN(v+3)
			}
			if r.IntN(2) == 0 {
				s.TopP = r.Float32()
			}
			if r.IntN(2) == 0 {
				s.MinP = r.Float32() * r.Float32()
			}
			if r.IntN(2) == 0 {
				s.RepetitionPenalty = 0.5 + r.Float32()
				for range 3 {
					s.Seen = append(s.Seen, int32(r.IntN(v)))
				}
			}
			for range r.IntN(3) {
				s.Banned = append(s.Banned, int32(r.IntN(v)))
			}
			id, p := sampleOne(t, logits, s)
			checkDraw(t, logits, s, id, p)
		}
	})
}

// The kept set is exactly what sorting gives: every token of it is drawn by some
// Uniform, none outside. Probabilities are apart enough not to depend on rounding.
func TestSampleKeepsWhatSortingKeeps(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	const v = 20000
	perm := r.Perm(v)
	logits := make([]float32, v)
	for i, p := range perm {
		logits[i] = float32(-0.5 * math.Log(1+float64(p))) // weights 1/√(1+rank)
	}
	for _, s := range []tensor.SampleRow{
		{Temperature: 1, TopK: 50}, {Temperature: 1, TopK: 9000}, {Temperature: 0.5, TopP: 0.5},
		{Temperature: 1, TopP: 0.05}, {Temperature: 1, MinP: 0.1}, {Temperature: 1, TopK: 100, TopP: 0.3}, {Temperature: 1, TopP: 0.3, MinP: 0.05},
	} {
		kept := v
		if s.TopK > 0 {
			kept = s.TopK
		}
		w := func(rank int) float64 { return math.Pow(1+float64(rank), -0.5/float64(s.Temperature)) }
		if s.TopP > 0 {
			total, sum := 0.0, 0.0
			for i := range kept {
				total += w(i)
			}
			for i := range kept {
				if sum += w(i); sum >= float64(s.TopP)*total {
					kept = i + 1
					break
				}
			}
		}
		if s.MinP > 0 {
			for i := range kept {
				if w(i) < float64(s.MinP)*(1-1e-6) {
					kept = i
					break
				}
			}
		}
		largest := 0
		for range 300 {
			s.Uniform = r.Float64()
			id, _ := sampleOne(t, logits, s)
			if perm[id] >= kept+kept/1000+1 {
				t.Fatalf("%+v: drew rank %d of %d kept", s, perm[id], kept)
			}
			largest = max(largest, perm[id])
		}
		if largest < kept/2 {
			t.Errorf("%+v: of %d kept none past rank %d was drawn", s, kept, largest)
		}
	}
}

// A draw follows the probabilities: Uniform is spread evenly, so that a token's
// count is its share to within one.
func TestSampleDistribution(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	const v, n = 2500, 2000
	logits := make([]float32, v)
	for i := range logits {
		logits[i] = float32(r.NormFloat64() * 2)
	}
	d := New()
	rows := make([]tensor.SampleRow, n)
	all := make([]float32, 0, n*v)
	for i := range rows {
		rows[i] = tensor.SampleRow{Temperature: 1, Uniform: (float64(i) + 0.5) / n}
		all = append(all, logits...)
	}
	ids := placeInts(t, d, make([]int32, n))
	d.Ops().Sample(tensor.Sample{IDs: ids, LogProbs: place(t, d, nil, n), Logits: place(t, d, all, n, v), Rows: rows})
	total, count := 0.0, make([]int, v)
	for _, x := range logits {
		total += math.Exp(float64(x))
	}
	for _, id := range ids.Int32() {
		count[id]++
	}
	for i, x := range logits {
		if want := n * math.Exp(float64(x)) / total; math.Abs(float64(count[i])-want) > 1.01 {
			t.Fatalf("token %d was drawn %d times, want %.2f", i, count[i], want)
		}
	}
}

func TestSampleBrokenLogits(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, s := range []tensor.SampleRow{{}, {Temperature: 1, Uniform: 0.7}, {Temperature: 1, TopK: 2, TopP: 0.5, MinP: 0.1}, {Temperature: 1e-40}, {Temperature: 1e38},
		{Temperature: 0.5, TemperedLogProb: true}, {Temperature: 1e-40, TemperedLogProb: true}, {Temperature: 1e38, TemperedLogProb: true}} {
		for _, c := range []struct {
			logits []float32
			ids    []int // allowed
			broken bool
		}{
			{[]float32{nan, nan, nan}, []int{-1}, true},
			{[]float32{-inf, -inf}, []int{-1}, true},
			{[]float32{nan, -inf}, []int{-1}, true},
			{[]float32{nan, 1, nan}, []int{1}, true},
			{[]float32{3, inf, inf}, []int{1}, true},
			{[]float32{-inf, 2, -inf}, []int{1}, false},
			{[]float32{-3.4e38, 3.4e38, -inf}, []int{1}, false},
		} {
			id, p := sampleOne(t, c.logits, s)
			if !slices.Contains(c.ids, id) || (p != p) != c.broken {
				t.Errorf("%v, %+v: id %d, log-probability %v", c.logits, s, id, p)
			}
		}
	}
}

// At temperatures 0 and 1 a tempered log-probability is the plain one to the last
// bit. The logits are so large that another order of float64 operations would show.
func TestSampleTemperedAtOne(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	logits := make([]float32, 50)
	for i := range 3000 {
		for j := range logits {
			logits[j] = float32(1<<23 + r.IntN(12))
		}
		s := tensor.SampleRow{Temperature: float32(i % 2), Uniform: r.Float64()}
		id, plain := sampleOne(t, logits, s)
		s.TemperedLogProb = true
		if again, tempered := sampleOne(t, logits, s); again != id || tempered != plain {
			t.Fatalf("temperature %g: %d with %v, tempered %d with %v", s.Temperature, id, plain, again, tempered)
		}
	}
}

func FuzzSample(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 192, 127}, float32(1), float32(0.5), float32(0), float32(1.1), uint16(2), 0.3, uint8(1))
	f.Add(make([]byte, 80), float32(0), float32(0), float32(0), float32(0), uint16(0), 0.0, uint8(0))
	f.Add([]byte{0, 0, 128, 255, 0, 0, 128, 127}, float32(0.1), float32(0.999), float32(1), float32(3), uint16(1), 0.999, uint8(3))
	f.Fuzz(func(t *testing.T, raw []byte, temperature, topP, minP, penalty float32, topK uint16, uniform float64, named uint8) {
		n := min(len(raw)/4, 3000)
		if n == 0 || !(temperature >= 0 && temperature < 1e30) || temperature > 0 && temperature < 1e-3 || !(uniform >= 0 && uniform < 1) ||
			!(topP >= 0 && minP >= 0) || !(penalty >= 0 && penalty < 1e6) || penalty > 0 && penalty < 1e-6 {
			t.Skip()
		}
		logits := make([]float32, n)
		for i := range logits {
			logits[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
			if x := math.Abs(float64(logits[i])); x > 1e4 && x < math.Inf(1) {
				logits[i] = 0 // far apart, logits are compared by rounding alone
			}
		}
		s := tensor.SampleRow{Temperature: temperature, TopP: topP, MinP: minP, RepetitionPenalty: penalty, TopK: int(topK), Uniform: uniform,
			TemperedLogProb: named&1 == 1}
		for i := range int(named % 5) {
			s.Seen = append(s.Seen, int32(i*7%n))
			s.Banned = append(s.Banned, int32(i*3%n))
		}
		id, p := sampleOne(t, logits, s)
		checkDraw(t, logits, s, id, p)
	})
}

// BenchmarkSample draws from a vocabulary of 128k tokens.
func BenchmarkSample(b *testing.B) {
	const v = 128 << 10
	r := rand.New(rand.NewPCG(2, 3))
	d := New()
	for _, spread := range []float64{0.01, 3} { // nearly uniform, and as a trained model's
		z := make([]float32, v)
		for i := range z {
			z[i] = float32(r.NormFloat64() * spread)
		}
		logits, ids, probs := place(b, d, z, 1, v), placeInts(b, d, []int32{0}), place(b, d, nil, 1)
		for _, c := range []struct {
			name string
			rule tensor.SampleRow
		}{
			{"greedy", tensor.SampleRow{}},
			{"temperature", tensor.SampleRow{Temperature: 1, Uniform: 0.5}},
			{"top-k 50", tensor.SampleRow{Temperature: 1, TopK: 50, Uniform: 0.5}},
			{"top-p 0.9", tensor.SampleRow{Temperature: 1, TopP: 0.9, Uniform: 0.5}},
			{"min-p 0.05", tensor.SampleRow{Temperature: 1, MinP: 0.05, Uniform: 0.5}},
		} {
			b.Run(fmt.Sprintf("%s/spread %g", c.name, spread), func(b *testing.B) {
				b.SetBytes(4 * v)
				a := tensor.Sample{IDs: ids, LogProbs: probs, Logits: logits, Rows: []tensor.SampleRow{c.rule}}
				for b.Loop() {
					d.Ops().Sample(a)
				}
			})
		}
	}
}
