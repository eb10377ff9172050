package optim

import (
	"fmt"
	"math"
	"strings"
)

// AdamW is the settings of Adam with decoupled weight decay (Loshchilov & Hutter
// 2019) that stay the same through a run.
type AdamW struct {
	Beta1, Beta2, Eps, WeightDecay float64
}

// DefaultAdamW has the settings that language models are commonly trained with
// (LLaMA, ColossalChat). Beta2 is below Adam's 0.999, so that the second moment
// forgets within about twenty steps.
func DefaultAdamW() AdamW { return AdamW{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.1} }

// Bias gives the corrections of both moments for update t, counted from 0, which
// is the (t+1)th: 1 − β1^(t+1) and 1 − β2^(t+1).
func (a AdamW) Bias(t int) (bias1, bias2 float64) {
	n := float64(t + 1)
	return 1 - math.Pow(a.Beta1, n), 1 - math.Pow(a.Beta2, n)
}

// Check refuses settings under which the update is not defined.
func (a AdamW) Check() error {
	switch {
	case !(a.Beta1 >= 0 && a.Beta1 < 1) || !(a.Beta2 >= 0 && a.Beta2 < 1):
		return fmt.Errorf("beta1 %g and beta2 %g; both must lie in [0, 1)", a.Beta1, a.Beta2)
	case !(a.Eps > 0) || math.IsInf(a.Eps, 0):
		return fmt.Errorf("eps %g; it must be a number above 0", a.Eps)
	case !(a.WeightDecay >= 0) || math.IsInf(a.WeightDecay, 0):
		return fmt.Errorf("weight decay %g; it must be a number of 0 or more", a.WeightDecay)
	}
	return nil
}

// Decays tells whether weight decay applies to a parameter. It does to matrices,
// the embedding and the output projection among them (as in GPT-3, nanoGPT and
// transformers' Trainer), and to neither biases nor the gains of normalisations,
// which rest near 1, not 0. These are vectors in most models, and are known by name
// where they are not (a bias for each expert, a gain for each head).
func Decays(name string, shape []int) bool {
	if len(shape) < 2 {
		return false
	}
	name = strings.ToLower(strings.TrimSuffix(name, ".weight"))
	last := name[strings.LastIndexByte(name, '.')+1:]
	switch {
	case strings.HasSuffix(last, "bias"):
		return false
	case strings.Contains(last, "norm"), last == "ln", strings.HasPrefix(last, "ln_"):
		return false
	}
	return true
}
