package train

import "math"

// whitenEpsilon is added to the deviation, so that equal values become 0.
const whitenEpsilon = 1e-8

// Whitening says how Whiten scales. The zero value is the usual one for
// advantages.
type Whitening struct {
	// Population divides the variance by n instead of n − 1: so did the original
	// implementation of Ziegler et al. 2019; PyTorch's default is n − 1.
	Population bool
	// KeepMean gives the mean back after scaling: for rewards, whose level means
	// something (the same source).
	KeepMean bool
}

// Whiten writes to out [T], which may be x, the values x [T] shifted and scaled
// to mean 0 and deviation 1 over the trained tokens:
//
//	out[t] = (x[t] − mean)/(√var + 1e-8), with KeepMean + mean
//
// Tokens that aren't trained get 0. Call it on the whole batch, not on
// micro-batches, whose means differ. Equal values and a single one become 0 (with
// KeepMean: stay). It returns the mean and deviation of x. Advantages are constants
// of the policy's loss, so whitening needs no gradient.
func Whiten[T Float](out, x []T, mask []bool, w Whitening) (mean, deviation float64) {
	mustLen("out", len(out), len(x))
	mustMask(mask, len(x))
	n := TrainedTokens(mask, len(x))
	mean = MaskedMean(x, mask)
	squares := 0.0 // of the differences: Σx² − n·mean² would cancel
	for i, v := range x {
		if isTrained(mask, i) {
			d := float64(v) - mean
			squares += d * d
		}
	}
	if w.Population {
		deviation = math.Sqrt(squares * inverse(n))
	} else {
		deviation = math.Sqrt(squares * inverse(n-1))
	}
	shift := 0.0
	if w.KeepMean {
		shift = mean
	}
	for i, v := range x {
		if !isTrained(mask, i) {
			out[i] = 0
			continue
		}
		out[i] = T((float64(v)-mean)/(deviation+whitenEpsilon) + shift)
	}
	return mean, deviation
}
