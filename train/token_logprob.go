package train

import (
	"fmt"
	"math"
)

// TokenLogProbs computes, from logits [T, vocab] and the tokens [T] that were
// chosen there, with z = logits/temperature:
//
//	logProbs[t] = z[t,a] − log Σ_j e^z[t,j],  a = tokens[t]
//	entropies[t] = −Σ_j p[t,j]·log p[t,j],    p = softmax(z)
//
// The temperature must be the one that tokens were sampled at: the policy that
// PPO improves is the one that acted, and with another temperature the first
// ratio isn't 1 and the KL divergence explodes (Huang et al. 2024, "The N+
// Implementation Details of RLHF with PPO"). A logit of −Inf is a token that
// can't be chosen. Where tokens[t] < 0 there is nothing to score: both results are
// 0. Either result may be nil.
func TokenLogProbs[T Float](logProbs, entropies, logits []T, vocab int, tokens []int32, temperature float64) {
	mustLogits(len(logits), vocab, tokens, temperature)
	mustGrad("logProbs", logProbs, len(tokens))
	mustGrad("entropies", entropies, len(tokens))
	for t, a := range tokens {
		if a < 0 {
			store(logProbs, t, 0)
			store(entropies, t, 0)
			continue
		}
		z := logits[t*vocab : (t+1)*vocab]
		top, logSum, entropy := softmaxTerms(z, temperature)
		store(logProbs, t, (float64(z[a])-top)/temperature-logSum)
		store(entropies, t, entropy)
	}
}

// TokenLogProbsGrad is the gradient of TokenLogProbs: from dLogProbs [T] and
// dEntropies [T], the derivatives of a loss by both results (nil: 0), it makes
// its derivative by the logits, grad [T, vocab], which may be logits itself:
//
//	grad[t,j] = (dLogProbs[t]·([j=a] − p[t,j]) − dEntropies[t]·p[t,j]·(log p[t,j] + entropies[t])) / temperature
//
// A bonus of c times the mean entropy over n tokens is the loss −c·Σ entropies/n:
// dEntropies = −c/n (Schulman et al. 2017, "Proximal Policy Optimization
// Algorithms", equation 9).
func TokenLogProbsGrad[T Float](grad, dLogProbs, dEntropies, logits []T, vocab int, tokens []int32, temperature float64) {
	mustLogits(len(logits), vocab, tokens, temperature)
	mustLen("grad", len(grad), len(logits))
	mustGrad("dLogProbs", dLogProbs, len(tokens))
	mustGrad("dEntropies", dEntropies, len(tokens))
	for t, a := range tokens {
		z, g := logits[t*vocab:(t+1)*vocab], grad[t*vocab:(t+1)*vocab]
		var dl, dh float64
		if dLogProbs != nil {
			dl = float64(dLogProbs[t])
		}
		if dEntropies != nil {
			dh = float64(dEntropies[t])
		}
		if a < 0 || dl == 0 && dh == 0 {
			clear(g)
			continue
		}
		top, logSum, entropy := softmaxTerms(z, temperature)
		for j := range z {
			lp := (float64(z[j])-top)/temperature - logSum
			d := 0.0
			if p := math.Exp(lp); p != 0 { // else 0·log 0, whose limit is 0
				d = -p * (dl + dh*(lp+entropy))
			}
			if j == int(a) {
				d += dl
			}
			g[j] = T(d / temperature)
		}
	}
}

// softmaxTerms returns, of a row of logits, the largest, log Σ e^((z−top)/temperature),
// and the entropy. With the largest taken off, no exponential overflows and
// the entropy isn't a difference of large numbers.
func softmaxTerms[T Float](z []T, temperature float64) (top, logSum, entropy float64) {
	top = math.Inf(-1)
	for _, v := range z {
		top = math.Max(top, float64(v))
	}
	var sum, weighted float64
	for _, v := range z {
		x := (float64(v) - top) / temperature
		if e := math.Exp(x); e != 0 {
			sum += e
			weighted += e * x
		}
	}
	logSum = math.Log(sum)
	return top, logSum, logSum - weighted/sum
}

func mustLogits(logits, vocab int, tokens []int32, temperature float64) {
	mustLen("logits", logits, len(tokens)*vocab)
	if !(temperature > 0) {
		panic(fmt.Sprintf("train: log-probabilities at temperature %g, want above 0", temperature))
	}
	for t, a := range tokens {
		if int(a) >= vocab {
			panic(fmt.Sprintf("train: token %d is %d, beyond the %d logits", t, a, vocab))
		}
	}
}
