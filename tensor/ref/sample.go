package ref

import (
	"fmt"
	"math"
	"sort"

	"ringtail/tensor"
)

// sample draws one token a row and takes its log-probability from the logits as
// they came, or over the temperature.
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
		ids[i], logProbs[i] = int32(id), math.NaN()
		if id >= 0 {
			if t := float64(settings.Temperature); settings.TemperedLogProb && t > 0 {
				z = append([]float64(nil), z...)
				for v := range z {
					z[v] /= t
				}
			}
			logProbs[i] = z[id] - logSumExp(z)
		}
	}
}

// draw applies the settings to z, which it overwrites, in the order in which
// SampleRow names them, and returns the token drawn: −1 where none is left, all
// being banned, −∞ or NaN.
func draw(z []float64, s tensor.SampleRow) int {
	for _, id := range s.Banned {
		z[index("banned token", id, len(z))] = math.Inf(-1)
	}
	penalise(z, s.Seen, float64(s.RepetitionPenalty))
	if s.Temperature == 0 {
		return argmax(z)
	}
	for v := range z {
		z[v] /= float64(s.Temperature)
	}
	kept := keep(z, s)
	if len(kept) == 0 {
		return -1
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
		weights, total := softmax(z, kept)
		sum := 0.0
		for i, w := range weights {
			if sum += w; sum >= p*total {
				kept = kept[:i+1]
				break
			}
		}
	}
	weights, _ := softmax(z, kept)
	for i, w := range weights {
		if w < float64(s.MinP) {
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
	weights, total := softmax(z, kept)
	sum := 0.0
	for i, v := range kept {
		if sum += weights[i]; sum > u*total {
			return v
		}
	}
	return kept[len(kept)-1] // rounding, or u not below 1
}

// softmax gives the weights exp(z_v − largest) of some tokens, the largest of
// which is 1, and their sum.
func softmax(z []float64, tokens []int) (weights []float64, total float64) {
	largest := math.Inf(-1)
	for _, v := range tokens {
		largest = max(largest, z[v])
	}
	for _, v := range tokens {
		w := math.Exp(z[v] - largest)
		weights = append(weights, w)
		total += w
	}
	return weights, total
}
