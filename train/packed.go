package train

import (
	"fmt"
	"math"
)

// The losses of reinforcement learning and preference learning are pure
// functions over flat slices: what belongs to tokens is [T], the answers of a
// batch end to end; starts [B+1] says where each begins, and at the end T; mask
// [T] is true at the tokens that the policy chose and the loss counts (nil: at
// all of them). Other tokens are never read, so whatever stands there, NaN too,
// has no effect.
//
// Means have their divisor n from the caller: the trained tokens (or pairs) of
// the whole minibatch, known before its first micro-batch. So losses, gradients
// and statistics of micro-batches add up to those of the minibatch, however it
// is cut, which means of means would not. n = 0 gives 0.
//
// A gradient goes to the slice of that name, which is overwritten; nil asks for
// the value alone. Nothing is allocated. Slices of the wrong length panic: that
// is a mistake in the calling code, never in anyone's data.

// Float is the element type of packed slices. Whichever it is, arithmetic is in
// float64: float32 costs one rounding of each result.
type Float interface{ float32 | float64 }

func isTrained(mask []bool, i int) bool { return mask == nil || mask[i] }

// TrainedTokens counts the true elements of mask [tokens] (nil: tokens).
func TrainedTokens(mask []bool, tokens int) int {
	if mask == nil {
		return tokens
	}
	n := 0
	for _, m := range mask {
		if m {
			n++
		}
	}
	return n
}

// MaskedMean is the mean of x [T] over the trained tokens, 0 if there are none.
func MaskedMean[T Float](x []T, mask []bool) float64 {
	mustMask(mask, len(x))
	sum, n := 0.0, 0
	for i, v := range x {
		if isTrained(mask, i) {
			sum += float64(v)
			n++
		}
	}
	return sum * inverse(n)
}

// SumAnswers writes to answers [B] the sums of tokens [T] over each row's trained
// tokens, or with mean their means (a row without trained tokens: 0): the
// log-probabilities of answers, for DPO the sums, for SimPO the means.
func SumAnswers[T Float](answers, tokens []T, starts []int32, mask []bool, mean bool) {
	mustRows(starts, mask, len(answers), len(tokens))
	for b := range answers {
		sum, n := 0.0, 0
		for t := starts[b]; t < starts[b+1]; t++ {
			if isTrained(mask, int(t)) {
				sum += float64(tokens[t])
				n++
			}
		}
		if mean {
			sum *= inverse(n)
		}
		answers[b] = T(sum)
	}
}

// SpreadAnswers gives each trained token of tokens [T] its row's element of
// answers [B], with mean divided by the row's trained tokens; other tokens get 0.
// It is the gradient of SumAnswers, and it makes the advantage of an answer that
// of its tokens.
func SpreadAnswers[T Float](tokens, answers []T, starts []int32, mask []bool, mean bool) {
	mustRows(starts, mask, len(answers), len(tokens))
	for b, v := range answers {
		from, to := starts[b], starts[b+1]
		if mean {
			n := 0
			for t := from; t < to; t++ {
				if isTrained(mask, int(t)) {
					n++
				}
			}
			v = T(float64(v) * inverse(n))
		}
		for t := from; t < to; t++ {
			tokens[t] = 0
			if isTrained(mask, int(t)) {
				tokens[t] = v
			}
		}
	}
}

// inverse is 1/n, and 0 for n = 0: the mean of nothing is 0, without gradient.
func inverse(n int) float64 {
	if n <= 0 {
		return 0
	}
	return 1 / float64(n)
}

// expLimit is where boundedExp leaves the exponential: e^20 is 5e8, whose square
// (in a gradient's norm) is still far from the end of float32.
const expLimit = 20

// boundedExp is e^x and its derivative, beyond expLimit continued along the
// tangent there. A ratio of probabilities e^800 would be infinite, and cut off
// flat it would lose the gradient that brings the policy back; the tangent
// is finite and points the right way.
func boundedExp(x float64) (y, slope float64) {
	if x <= expLimit {
		y = math.Exp(x)
		return y, y
	}
	slope = math.Exp(expLimit)
	return slope * (1 + x - expLimit), slope
}

// softplus is log(1 + e^x) without overflow.
func softplus(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// sigmoid is 1/(1 + e^−x) without overflow.
func sigmoid(x float64) float64 {
	if x >= 0 {
		return 1 / (1 + math.Exp(-x))
	}
	e := math.Exp(x)
	return e / (1 + e)
}

func clamp(x, low, high float64) float64 { return math.Min(math.Max(x, low), high) }

func store[T Float](dst []T, i int, v float64) {
	if dst != nil {
		dst[i] = T(v)
	}
}

func mustLen(what string, got, want int) {
	if got != want {
		panic(fmt.Sprintf("train: %s has %d elements, want %d", what, got, want))
	}
}

// mustGrad is mustLen for a slice that may be nil.
func mustGrad[T Float](what string, s []T, want int) {
	if s != nil {
		mustLen(what, len(s), want)
	}
}

func mustMask(mask []bool, tokens int) {
	if mask != nil {
		mustLen("mask", len(mask), tokens)
	}
}

// mustRows checks that starts cuts tokens into rows, rising from 0 to tokens.
func mustRows(starts []int32, mask []bool, rows, tokens int) {
	mustLen("starts", len(starts), rows+1)
	mustMask(mask, tokens)
	if starts[0] != 0 || int(starts[rows]) != tokens {
		panic(fmt.Sprintf("train: starts go from %d to %d, want 0 to %d", starts[0], starts[rows], tokens))
	}
	for b := range rows {
		if starts[b] > starts[b+1] {
			panic(fmt.Sprintf("train: starts[%d] = %d is above starts[%d] = %d", b, starts[b], b+1, starts[b+1]))
		}
	}
}
