package conformance

import (
	"fmt"
	"math"
	"sort"

	"ringtail/tensor"
)

// testSample checks draws that leave no choice, so that ids are exact, and the
// log-probabilities, every other row's at its temperature.
func testSample(s *suite) {
	for _, l := range layouts {
		for _, n := range []int{0, 1, 2, 7} {
			for _, vocab := range []int{1, 2, 7, 33, 130, 5003} {
				settings := map[string]func(logits []float64) tensor.SampleRow{
					"greedy":    func([]float64) tensor.SampleRow { return tensor.SampleRow{} },
					"TopK 1":    func([]float64) tensor.SampleRow { return tensor.SampleRow{Temperature: 0.7, TopK: 1} },
					"tiny TopP": func([]float64) tensor.SampleRow { return tensor.SampleRow{Temperature: 1.3, TopP: 1e-6} },
					"MinP 1":    func([]float64) tensor.SampleRow { return tensor.SampleRow{Temperature: 1.3, MinP: 1} },
					"the largest banned": func(z []float64) tensor.SampleRow {
						if vocab == 1 {
							return tensor.SampleRow{}
						}
						return tensor.SampleRow{Banned: []int32{int32(ranked(z)[0])}}
					},
					"all but the smallest banned": func(z []float64) tensor.SampleRow {
						var banned []int32
						for _, v := range ranked(z)[:vocab-1] {
							banned = append(banned, int32(v))
						}
						return tensor.SampleRow{Temperature: 1, Banned: banned}
					},
					"all of the larger half seen": func(z []float64) tensor.SampleRow {
						var seen []int32
						for _, v := range ranked(z)[:vocab/2] {
							seen = append(seen, int32(v), int32(v))
						}
						return tensor.SampleRow{RepetitionPenalty: 3, Seen: seen}
					},
				}
				for name, setting := range settings {
					tr := s.trial(l, "Sample [%d %d], %s", n, vocab, name)
					v := tr.held(tr.normal(n, vocab))
					rows := make([]tensor.SampleRow, n)
					for i := range rows {
						rows[i] = setting(v[i*vocab:][:vocab])
						rows[i].Uniform, rows[i].TemperedLogProb = tr.rng.Float64(), i%2 == 1
					}
					sampleTrial(tr, v, rows, vocab)
				}
			}
		}
	}
	tr := s.always(dense, "Sample: the lowest id of equal logits, and logits of minus infinity")
	inf := math.Inf(1)
	sampleTrial(tr, []float64{
		1, 5, 5, 2, 5,
		-inf, -2, -1, -1, -inf,
		-inf, -inf, -inf, 0, -inf,
		-inf, 3, -inf, -inf, -inf,
	}, []tensor.SampleRow{{}, {}, {Temperature: 1, Uniform: 0}, {Temperature: 0.5, Uniform: math.Nextafter(1, 0)}}, 5)
	tr = s.always(dense, "Sample where no token is left: id -1, log-probability NaN")
	sampleTrial(tr, []float64{1, 2, 3, 1, 2, 3, -inf, -inf, -inf, math.NaN(), math.NaN(), math.NaN()}, []tensor.SampleRow{
		{Banned: []int32{2, 0, 1}}, {Temperature: 1, Banned: []int32{2, 0, 1}}, {Temperature: 1}, {}}, 3)
	tr = s.always(dense, "Sample never draws a NaN, whose row has no log-probabilities")
	nan := math.NaN()
	sampleTrial(tr, []float64{nan, 2, 1, nan, nan, -7}, []tensor.SampleRow{{}, {Temperature: 1, Uniform: 0.5}}, 3)
	tr = s.always(dense, "Sample of large logits")
	large := []float64{1000, 900, -1000, -2000, 3000, 3100}
	sampleTrial(tr, large, []tensor.SampleRow{{Temperature: 1, Uniform: 0.5}, {Temperature: 1, Uniform: 0.999}}, 3)
	tr = s.always(dense, "Sample of large logits, tempered log-probabilities")
	sampleTrial(tr, large, []tensor.SampleRow{{Temperature: 0.7, Banned: []int32{0}, TemperedLogProb: true},
		{Temperature: 30, TopK: 1, TemperedLogProb: true}}, 3)
	tr = s.always(dense, "Sample from a NaN and from nothing, tempered log-probabilities")
	sampleTrial(tr, []float64{nan, 2, 1, 1, 2, 3}, []tensor.SampleRow{{Temperature: 0.5, TopK: 1, TemperedLogProb: true},
		{Temperature: 0.5, Banned: []int32{0, 1, 2}, TemperedLogProb: true}}, 3)
}

func sampleTrial(tr *trial, v []float64, rows []tensor.SampleRow, vocab int) {
	logits := tr.either("Logits", v, len(rows), vocab)
	ids, logProbs := tr.typed("IDs", tensor.I32, nil, len(rows)).exactly(), tr.wideBlank("LogProbs", len(rows))
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.Sample(tensor.Sample{IDs: at(ids), LogProbs: at(logProbs), Logits: at(logits), Rows: rows})
	})
}

// testSampleSettings checks the distribution that each setting leaves, and the
// order in which settings apply, from probabilities worked out by hand; then
// random combinations of settings over larger vocabularies.
func testSampleSettings(s *suite) {
	p := []float64{0.1, 0.4, 0.2, 0.3} // of the four tokens without any setting
	logits := make([]float64, len(p))
	for i := range p {
		logits[i] = math.Log(p[i]) + 2 // a constant that changes nothing
	}
	signed := []float64{2, 1, -1, -0.5}
	e := math.Exp
	cases := []struct {
		name    string
		logits  []float64
		row     tensor.SampleRow
		weights []float64 // of the tokens; probabilities up to a factor
	}{
		{"nothing", logits, tensor.SampleRow{Temperature: 1}, p},
		{"settings at their ends", logits, tensor.SampleRow{Temperature: 1, TopK: 4, TopP: 1, MinP: 0, RepetitionPenalty: 1, Seen: []int32{1}}, p},
		{"TopK above the vocabulary", logits, tensor.SampleRow{Temperature: 1, TopK: 100}, p},
		{"Temperature 1/2", logits, tensor.SampleRow{Temperature: 0.5}, []float64{0.01, 0.16, 0.04, 0.09}},
		{"Temperature 2", logits, tensor.SampleRow{Temperature: 2}, []float64{math.Sqrt(0.1), math.Sqrt(0.4), math.Sqrt(0.2), math.Sqrt(0.3)}},
		{"TopK", logits, tensor.SampleRow{Temperature: 1, TopK: 2}, []float64{0, 0.4, 0, 0.3}},
		{"TopP keeps the token that crosses it", logits, tensor.SampleRow{Temperature: 1, TopP: 0.6}, []float64{0, 0.4, 0, 0.3}},
		{"TopP below the first token", logits, tensor.SampleRow{Temperature: 1, TopP: 0.35}, []float64{0, 1, 0, 0}},
		{"MinP", logits, tensor.SampleRow{Temperature: 1, MinP: 0.45}, []float64{0, 0.4, 0.2, 0.3}},
		{"Banned", logits, tensor.SampleRow{Temperature: 1, Banned: []int32{1, 1}}, []float64{0.1, 0, 0.2, 0.3}},
		{"Banned before TopK", logits, tensor.SampleRow{Temperature: 1, TopK: 2, Banned: []int32{1}}, []float64{0, 0, 0.2, 0.3}},
		{"Banned before TopP", logits, tensor.SampleRow{Temperature: 1, TopP: 0.45, Banned: []int32{1}}, []float64{0, 0, 0, 1}},
		{"Banned before MinP", logits, tensor.SampleRow{Temperature: 1, MinP: 0.3, Banned: []int32{1}}, []float64{0.1, 0, 0.2, 0.3}},
		// p⁴ is 1, 256, 16, 81: the first has 72%; before the temperature it has 40%.
		{"Temperature before TopP", logits, tensor.SampleRow{Temperature: 0.25, TopP: 0.6}, []float64{0, 1, 0, 0}},
		// √p is 0.32, 0.63, 0.45, 0.55, at least 0.38 in three cases; p at least 0.24 in two.
		{"Temperature before MinP", logits, tensor.SampleRow{Temperature: 2, MinP: 0.6}, []float64{0, math.Sqrt(0.4), math.Sqrt(0.2), math.Sqrt(0.3)}},
		// Of the two kept, the first has 57%.
		{"TopK before TopP", logits, tensor.SampleRow{Temperature: 1, TopK: 2, TopP: 0.5}, []float64{0, 1, 0, 0}},
		{"RepetitionPenalty", signed, tensor.SampleRow{Temperature: 1, RepetitionPenalty: 2, Seen: []int32{0, 2, 2}}, []float64{e(1), e(1), e(-2), e(-0.5)}},
		{"RepetitionPenalty below 1", signed, tensor.SampleRow{Temperature: 1, RepetitionPenalty: 0.5, Seen: []int32{1, 2}}, []float64{e(2), e(2), e(-0.5), e(-0.5)}},
		{"RepetitionPenalty before TopK", signed, tensor.SampleRow{Temperature: 1, RepetitionPenalty: 4, Seen: []int32{0}, TopK: 1}, []float64{0, 1, 0, 0}},
		{"RepetitionPenalty and Temperature", signed, tensor.SampleRow{Temperature: 0.5, RepetitionPenalty: 2, Seen: []int32{0, 3}}, []float64{e(2), e(2), e(-2), e(-2)}},
		{"RepetitionPenalty of a banned token", signed, tensor.SampleRow{Temperature: 1, RepetitionPenalty: 2, Seen: []int32{0}, Banned: []int32{0}}, []float64{0, e(1), e(-1), e(-0.5)}},
	}
	for i, c := range cases {
		c.row.TemperedLogProb = i%2 == 1
		s.guard("Sample: "+c.name, func() { s.frequencies("Sample: "+c.name, s.dev.Float().Wide(), c.logits, c.row, c.weights) })
	}
	for n, vocab := range []int{2, 9, 33, 130, 997, 5003} {
		for variant := range 8 {
			tr := s.trial(dense, "Sample from %d tokens, variant %d", vocab, variant)
			if tr.skipped {
				continue
			}
			z := tr.held(tr.normal(vocab))
			row := tensor.SampleRow{Temperature: 0.5 + float32(n)/4, TemperedLogProb: (n+variant)%2 == 1}
			if variant&1 != 0 {
				row.TopK = 1 + tr.rng.IntN(60)
			}
			if variant&2 != 0 {
				row.TopP = 0.3 + 0.6*tr.rng.Float32()
			}
			if variant&4 != 0 {
				row.MinP = 0.05 + 0.2*tr.rng.Float32()
				row.RepetitionPenalty = 1.3
				for range 5 {
					row.Seen = append(row.Seen, int32(tr.rng.IntN(vocab)))
				}
				row.Banned = []int32{int32(tr.rng.IntN(vocab))}
			}
			d := choose(variant%2 == 0, s.dev.Float(), s.dev.Float().Wide())
			tr.guard(tr.name, func() { s.frequencies(tr.name, d, z, row, distribution(z, row)) })
		}
		s.untempered(vocab)
	}
}

// untempered checks that at temperatures 0 and 1 tempered log-probabilities are the
// others, bit for bit.
func (s *suite) untempered(vocab int) {
	tr := s.always(dense, "Sample: tempered log-probabilities at temperatures 0 and 1, %d tokens", vocab)
	z := tr.held(tr.normal(vocab))
	rows := make([]tensor.SampleRow, 20)
	for i := range rows {
		rows[i] = tensor.SampleRow{Temperature: float32(i % 2), Uniform: tr.rng.Float64()}
	}
	tr.guard(tr.name, func() {
		ids, plain := s.draw(s.dev.Float(), z, rows)
		for i := range rows {
			rows[i].TemperedLogProb = true
		}
		again, tempered := s.draw(s.dev.Float(), z, rows)
		for i := range rows {
			if ids[i] != again[i] || math.Float64bits(plain[i]) != math.Float64bits(tempered[i]) {
				s.failf("%s: id %d with %v, tempered %d with %v", tr.name, ids[i], plain[i], again[i], tempered[i])
				return
			}
		}
	})
}

// frequencies draws from one distribution with a grid of uniform numbers. A draw
// that inverts the cumulative distribution, in whatever order of the tokens, gives
// each token an interval as long as its probability, and so a count within one of
// its expectation: far closer than a test of chi-square over random numbers would
// ask for. It also checks the log-probabilities, which no setting changes but the
// temperature where it is asked for.
func (s *suite) frequencies(name string, d tensor.Dtype, z []float64, row tensor.SampleRow, weights []float64) {
	n := 400
	if len(z) > 500 {
		n = 40 // to save time
	}
	rows := make([]tensor.SampleRow, n)
	for i := range rows {
		rows[i] = row
		rows[i].Uniform = (float64(i) + 0.5) / float64(n)
	}
	ids, logProbs := s.draw(d, z, rows)
	tol := arithmetic[s.dev.Float().Wide()]
	count := make([]float64, len(z))
	at := tempered(z, row)
	lse := logSumExp(at)
	for i, id := range ids {
		if id < 0 || int(id) >= len(z) {
			s.failf("%s: drew id %d of a vocabulary of %d", name, id, len(z))
			return
		}
		count[id]++
		if want := at[id] - lse; !within(logProbs[i], want, tol*max(1, math.Abs(want))) {
			s.failf("%s: log-probability of id %d is %g, want %g", name, id, logProbs[i], want)
			return
		}
	}
	total := 0.0
	for _, w := range weights {
		total += w
	}
	for v, w := range weights {
		want := float64(n) * w / total
		if w == 0 && count[v] > 0 || math.Abs(count[v]-want) > 1.01+float64(n)*tol {
			s.failf("%s: id %d was drawn %g times of %d, want %.2f", name, v, count[v], n, want)
			return
		}
	}
}

// tempered are the logits of which the log-probabilities of a row are.
func tempered(z []float64, row tensor.SampleRow) []float64 {
	if !row.TemperedLogProb || row.Temperature == 0 {
		return z
	}
	at := make([]float64, len(z))
	for v := range z {
		at[v] = z[v] / float64(row.Temperature)
	}
	return at
}

// draw samples rows that all have the logits z, of type d.
func (s *suite) draw(d tensor.Dtype, z []float64, rows []tensor.SampleRow) ([]int32, []float64) {
	tr := s.always(dense, "draw")
	var v []float64
	for range rows {
		v = append(v, z...)
	}
	logits := tr.typed("Logits", d, v, len(rows), len(z))
	ids, logProbs := tr.typed("IDs", tensor.I32, nil, len(rows)), tr.wideBlank("LogProbs", len(rows))
	defer tr.free()
	images, ok := tr.runOn(s.dev, func(o *operand) side { return o.dev }, func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.Sample(tensor.Sample{IDs: at(ids), LogProbs: at(logProbs), Logits: at(logits), Rows: rows})
	})
	if !ok {
		panic("Sample failed")
	}
	var drawn []int32
	for _, id := range decode(tensor.I32, ids.dev.unpack(images[1])) {
		drawn = append(drawn, int32(id))
	}
	return drawn, decode(s.dev.Float().Wide(), logProbs.dev.unpack(images[2]))
}

// distribution is what SampleRow's comment says, written apart from the reference
// device: the weight of every token.
func distribution(logits []float64, row tensor.SampleRow) []float64 {
	z := append([]float64(nil), logits...)
	seen := map[int32]bool{}
	for _, id := range row.Seen {
		seen[id] = true
	}
	for id := range seen {
		if r := float64(row.RepetitionPenalty); z[id] > 0 {
			z[id] /= r
		} else {
			z[id] *= r
		}
	}
	for _, id := range row.Banned {
		z[id] = math.Inf(-1)
	}
	for v := range z {
		z[v] /= float64(row.Temperature)
	}
	order := ranked(z)
	w := make([]float64, len(z))
	total := 0.0
	for rank, v := range order {
		if row.TopK == 0 || rank < row.TopK {
			w[v] = math.Exp(z[v] - z[order[0]])
			total += w[v]
		}
	}
	sum := 0.0
	for _, v := range order {
		if row.TopP > 0 && sum >= float64(row.TopP)*total || w[v] < float64(row.MinP) {
			w[v] = 0
		}
		sum += w[v]
	}
	return w
}

// testSampleRows checks that a row draws the same token in any company.
func testSampleRows(s *suite) {
	for _, vocab := range []int{7, 257} {
		tr := s.always(dense, "Sample of rows together and alone, %d tokens", vocab)
		z := tr.held(tr.normal(vocab))
		rows := make([]tensor.SampleRow, 33)
		for i := range rows {
			rows[i] = tensor.SampleRow{Temperature: []float32{0, 0.7, 1.5}[i%3], TopK: []int{0, 5}[i%2], TopP: []float32{0, 0.9, 0.5, 0}[i%4],
				MinP: []float32{0, 0.1}[i/7%2], Uniform: tr.rng.Float64()}
			if i%5 == 0 {
				rows[i].Seen, rows[i].RepetitionPenalty, rows[i].Banned = []int32{1, 2}, 1.2, []int32{0}
			}
		}
		tr.guard(tr.name, func() {
			together, _ := s.draw(s.dev.Float(), z, rows)
			for i := range rows {
				if alone, _ := s.draw(s.dev.Float(), z, rows[i:i+1]); alone[0] != together[i] {
					s.failf("%s: row %d (%s) drew %d together with others, %d alone", tr.name, i, fmt.Sprintf("%+v", rows[i]), together[i], alone[0])
				}
			}
		})
	}
}

// ranked lists the indices of z from its largest element, equal ones by index.
func ranked(z []float64) []int {
	order := make([]int, len(z))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool { return z[order[i]] > z[order[j]] })
	return order
}

func logSumExp(z []float64) float64 {
	largest := math.Inf(-1)
	for _, v := range z {
		largest = max(largest, v)
	}
	sum := 0.0
	for _, v := range z {
		sum += math.Exp(v - largest)
	}
	return largest + math.Log(sum)
}
