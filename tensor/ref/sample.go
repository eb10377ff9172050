package ref

import (
	"fmt"
	"math"
	"sort"

	"ringtail/tensor"
)

// sample draws one token a row and takes its log-probability from the logits as
// they came.
func sample(a tensor.Sample) {
	n, vocab := a.Logits.Rows(), a.Logits.Cols()
	logits := matrixOf("Sample's Logits", a.Logits, n, vocab)
	ids := intsOf("Sample's IDs", a.IDs, n)
	logProbs := vectorOf("Sample's LogProbs", a.LogProbs, n)
	if len(a.Rows) != n {
		panic(fmt.Sprintf("ref: Sample of %d rows with settings for %d", n, len(a.Rows)))
	}
	for i, settings := range a.Rows {
		z := logits.row(i)
		id := draw(append([]float64(nil), z...), settings)
		ids[i] = int32(id)
		logProbs[i] = z[id] - logSumExp(z)
	}
}

// draw applies the settings to z, which it overwrites, in the order in which
// SampleRow names them, and returns the token drawn. Where no token is left it
// returns 0.
func draw(z []float64, s tensor.SampleRow) int {
	for _, id := range s.Banned {
		z[index("banned token", id, len(z))] = math.Inf(-1)
	}
	penalise(z, s.Seen, float64(s.RepetitionPenalty))
	if s.Temperature == 0 {
		return max(argmax(z), 0)
	}
	for v := range z {
		z[v] /= float64(s.Temperature)
	}
	kept := keep(z, s)
	if len(kept) == 0 {
		return 0
	}
	return choose(z, kept, s.Uniform)
}

// penalise divides the positive and multiplies the other logits of each token
// in seen by r, once however often it was seen.
func penalise(z []float64, seen []int32, r float64) {
	if r == 0 || r == 1 {
		return
	}
	done := map[int]bool{}
	for _, id := range seen {
		v := index("seen token", id, len(z))
		if done[v] {
			continue
		}
		done[v] = true
		if z[v] > 0 {
			z[v] /= r
		} else {
			z[v] *= r
		}
	}
}

// keep is the set of tokens that TopK, TopP and MinP leave, as ids in rising
// order. Equal logits rank by id. TopP measures probabilities among the tokens
// that TopK left.
func keep(z []float64, s tensor.SampleRow) []int {
	var kept []int
	for v, x := range z {
		if x > math.Inf(-1) { // neither excluded nor NaN
			kept = append(kept, v)
		}
	}
	sort.SliceStable(kept, func(i, j int) bool { return z[kept[i]] > z[kept[j]] })
	if s.TopK > 0 && s.TopK < len(kept) {
		kept = kept[:s.TopK]
	}
	if p := float64(s.TopP); p > 0 && p < 1 {
		total, sum := weight(z, kept), 0.0
		for i, v := range kept {
			sum += math.Exp(z[v] - z[kept[0]])
			if sum >= p*total {
				kept = kept[:i+1]
				break
			}
		}
	}
	for i, v := range kept {
		if math.Exp(z[v]-z[kept[0]]) < float64(s.MinP) {
			kept = kept[:i]
			break
		}
	}
	sort.Ints(kept)
	return kept
}

// choose is the first kept token, by id, at which the cumulative probability
// exceeds u.
func choose(z []float64, kept []int, u float64) int {
	largest := math.Inf(-1)
	for _, v := range kept {
		largest = max(largest, z[v])
	}
	total := 0.0
	for _, v := range kept {
		total += math.Exp(z[v] - largest)
	}
	sum := 0.0
	for _, v := range kept {
		sum += math.Exp(z[v] - largest)
		if sum > u*total {
			return v
		}
	}
	return kept[len(kept)-1] // rounding, or u not below 1
}

// weight is Σ exp(z_v − the largest) over tokens ranked from the largest.
func weight(z []float64, ranked []int) float64 {
	sum := 0.0
	for _, v := range ranked {
		sum += math.Exp(z[v] - z[ranked[0]])
	}
	return sum
}
