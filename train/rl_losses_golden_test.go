package train

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"ringtail/golden"
)

// rlGolden is a rl_losses.json: B rows of T tokens (V logits), P pairs, G groups of
// answers. Absent fields are nil. The gradients of the pair losses are only in files that
// oracle/rl_losses.py made.
type rlGolden struct {
	Logits    [][][]float64 `json:"logits"`
	OldLogits [][][]float64 `json:"old_logits"`
	RefLogits [][][]float64 `json:"ref_logits"`
	Actions   [][]int32     `json:"actions"`
	Mask      [][]float64   `json:"mask"`
	New       [][]float64   `json:"logprob_new"`
	Old       [][]float64   `json:"logprob_old"`
	Ref       [][]float64   `json:"logprob_ref"`
	Values    [][]float64   `json:"values"`
	OldValues [][]float64   `json:"old_values"`
	Score     []float64     `json:"score"`

	KLCoef     float64 `json:"kl_coef"`
	Gamma      float64 `json:"gamma"`
	Lambda     float64 `json:"lam"`
	Clip       float64 `json:"eps_clip"`
	ValueClip  float64 `json:"value_clip"`
	RewardClip float64 `json:"reward_clip"`

	TokenRewards [][]float64   `json:"token_rewards"`
	Advantages   [][]float64   `json:"advantages"`
	Returns      [][]float64   `json:"returns"`
	Whitened     [][]float64   `json:"whitened_advantages"`
	PolicyLoss   *float64      `json:"policy_loss"`
	ValueLoss    *float64      `json:"value_loss"`
	Entropy      *float64      `json:"entropy_mean"`
	GradLogits   [][][]float64 `json:"grad_logits_policy_loss"`
	GradEntropy  [][][]float64 `json:"grad_logits_entropy_mean"`
	GradValues   [][]float64   `json:"grad_values_value_loss"`
	K1           [][]float64   `json:"kl_k1"`
	K2           [][]float64   `json:"kl_k2"`
	K3           [][]float64   `json:"kl_k3"`
	GradK2       [][]float64   `json:"grad_logprob_kl_k2"`
	GradK3       [][]float64   `json:"grad_logprob_kl_k3"`

	RMChosen   []float64 `json:"rm_chosen"`
	RMRejected []float64 `json:"rm_rejected"`
	RMLogSig   *float64  `json:"rm_logsig_loss"`
	RMLogExp   *float64  `json:"rm_logexp_loss"`
	GradRM     []float64 `json:"grad_chosen_rm_logsig_loss"`

	Chosen      []float64 `json:"dpo_chosen"`
	Rejected    []float64 `json:"dpo_rejected"`
	RefChosen   []float64 `json:"dpo_ref_chosen"`
	RefRejected []float64 `json:"dpo_ref_rejected"`
	Beta        float64   `json:"dpo_beta"`
	DPO         *float64  `json:"dpo_sigmoid_loss"`
	IPO         *float64  `json:"dpo_ipo_loss"`
	Hinge       *float64  `json:"dpo_hinge_loss"`
	SimPO       *float64  `json:"simpo_loss_beta2_gamma05"`
	GradDPO     []float64 `json:"grad_chosen_dpo_sigmoid_loss"`
	GradIPO     []float64 `json:"grad_chosen_dpo_ipo_loss"`
	GradHinge   []float64 `json:"grad_chosen_dpo_hinge_loss"`
	GradSimPO   []float64 `json:"grad_chosen_simpo_loss_beta2_gamma05"`

	GroupRewards    [][]float64 `json:"grpo_rewards"`
	GroupAdvantages [][]float64 `json:"grpo_advantages"`
}

// TestGoldenRLLosses compares every loss, and its gradient, with PyTorch's: each in
// float64 and float32, with padded rows under a mask and with the same rows packed.
func TestGoldenRLLosses(t *testing.T) {
	for _, file := range golden.Find(t, "rl_losses*.json") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var g rlGolden
		if err := json.Unmarshal(text, &g); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			for _, layout := range []string{"padded", "packed"} {
				t.Run(layout+"/float64", func(t *testing.T) { compareRLLosses[float64](t, &g, layout == "packed", 1e-9) })
				t.Run(layout+"/float32", func(t *testing.T) { compareRLLosses[float32](t, &g, layout == "packed", 1e-5) })
			}
		})
	}
}

func compareRLLosses[T Float](t *testing.T, g *rlGolden, packed bool, tolerance float64) {
	// keep says which cells of [B, T] are there: packed leaves the padding out.
	keep := func(b, i int) bool { return !packed || g.Mask[b][i] != 0 }
	flat := func(x [][]float64) []T {
		var out []T
		for b := range x {
			for i, v := range x[b] {
				if keep(b, i) {
					out = append(out, T(v))
				}
			}
		}
		return out
	}
	flatLogits := func(x [][][]float64) []T {
		var out []T
		for b := range x {
			for i := range x[b] {
				if keep(b, i) {
					out = append(out, cast[T](x[b][i])...)
				}
			}
		}
		return out
	}
	starts := []int32{0}
	var mask []bool
	var actions []int32
	for b := range g.Mask {
		for i, m := range g.Mask[b] {
			if keep(b, i) {
				mask, actions = append(mask, m != 0), append(actions, g.Actions[b][i])
			}
		}
		starts = append(starts, int32(len(mask)))
	}
	tokens, vocab := len(mask), len(g.Logits[0][0])
	n := TrainedTokens(mask, tokens)
	if packed {
		if mask = nil; n != tokens {
			t.Fatalf("%d packed tokens, %d trained", tokens, n)
		}
	}
	near := func(t *testing.T, what string, got []T, want []T) {
		t.Helper()
		if len(got) != len(want) || len(want) == 0 {
			t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
		}
		for i := range got {
			if d := math.Abs(float64(got[i] - want[i])); !(d <= tolerance*math.Max(1, math.Abs(float64(want[i])))) {
				t.Errorf("%s[%d] = %g, want %g (difference %g)", what, i, got[i], want[i], d)
			}
		}
	}
	nearLoss := func(t *testing.T, what string, got float64, want *float64) {
		t.Helper()
		if want == nil {
			t.Fatalf("the file has no %s", what)
		}
		if d := math.Abs(got - *want); !(d <= tolerance*math.Max(1, math.Abs(*want))) {
			t.Errorf("%s = %g, want %g (difference %g)", what, got, *want, d)
		}
	}
	// Each step below goes on from our own results, so that errors would add up.
	logits := flatLogits(g.Logits)
	newLP, oldLP, refLP, entropy := make([]T, tokens), make([]T, tokens), make([]T, tokens), make([]T, tokens)
	t.Run("logprobs", func(t *testing.T) {
		TokenLogProbs(newLP, entropy, logits, vocab, actions, 1)
		TokenLogProbs(oldLP, nil, flatLogits(g.OldLogits), vocab, actions, 1)
		TokenLogProbs(refLP, nil, flatLogits(g.RefLogits), vocab, actions, 1)
		near(t, "new", newLP, flat(g.New))
		near(t, "old", oldLP, flat(g.Old))
		near(t, "ref", refLP, flat(g.Ref))
	})
	t.Run("entropy", func(t *testing.T) {
		nearLoss(t, "entropy_mean", MaskedMean(entropy, mask), g.Entropy)
		if g.GradEntropy != nil {
			dh, grad := make([]T, tokens), make([]T, len(logits))
			for i := range dh {
				if isTrained(mask, i) {
					dh[i] = T(inverse(n))
				}
			}
			TokenLogProbsGrad(grad, nil, dh, logits, vocab, actions, 1)
			near(t, "gradient", grad, flatLogits(g.GradEntropy))
		}
	})
	rewards, advantages, returns := make([]T, tokens), make([]T, tokens), make([]T, tokens)
	t.Run("rewards", func(t *testing.T) {
		TokenRewards(rewards, oldLP, refLP, cast[T](g.Score), starts, mask, K1, g.KLCoef, g.RewardClip)
		near(t, "rewards", rewards, flat(g.TokenRewards))
	})
	t.Run("gae", func(t *testing.T) {
		GAE(advantages, returns, rewards, flat(g.OldValues), starts, mask, g.Gamma, g.Lambda)
		near(t, "advantages", advantages, flat(g.Advantages))
		near(t, "returns", returns, flat(g.Returns))
	})
	t.Run("whiten", func(t *testing.T) {
		Whiten(advantages, advantages, mask, Whitening{})
		near(t, "advantages", advantages, flat(g.Whitened))
	})
	t.Run("policy", func(t *testing.T) {
		grad, gradLogits := make([]T, tokens), make([]T, len(logits))
		s := PolicyLoss(grad, newLP, oldLP, advantages, mask, PolicyClip{Low: g.Clip, High: g.Clip}, n)
		nearLoss(t, "policy_loss", s.Loss, g.PolicyLoss)
		TokenLogProbsGrad(gradLogits, grad, nil, logits, vocab, actions, 1)
		near(t, "gradient", gradLogits, flatLogits(g.GradLogits))
	})
	t.Run("value", func(t *testing.T) {
		grad := make([]T, tokens)
		s := ValueLoss(grad, flat(g.Values), flat(g.OldValues), returns, mask, g.ValueClip, n)
		nearLoss(t, "value_loss", s.Loss, g.ValueLoss)
		near(t, "gradient", grad, flat(g.GradValues))
	})
	for _, c := range []struct {
		k          KLEstimator
		want, grad [][]float64
	}{{K1, g.K1, nil}, {K2, g.K2, g.GradK2}, {K3, g.K3, g.GradK3}} {
		t.Run(string(c.k), func(t *testing.T) {
			kl, grad := make([]T, tokens), make([]T, tokens)
			TokenKL(kl, grad, newLP, refLP, c.k)
			near(t, "kl", kl, flat(c.want))
			if c.grad != nil {
				near(t, "gradient", grad, flat(c.grad))
			}
		})
	}
	rejectedGradient := func(t *testing.T, chosen, rejected []T) {
		t.Helper()
		for i := range chosen {
			if chosen[i] != -rejected[i] {
				t.Errorf("gradients of pair %d are %g and %g, want opposite", i, chosen[i], rejected[i])
			}
		}
	}
	for _, c := range []struct {
		name string
		f    func(gc, gr, c, r, m []T, n int) PairStats
		want *float64
	}{{"rm_logsig", RewardLogSigmoidLoss[T], g.RMLogSig}, {"rm_logexp", RewardLogExpLoss[T], g.RMLogExp}} {
		t.Run(c.name, func(t *testing.T) {
			pairs := len(g.RMChosen)
			gc, gr := make([]T, pairs), make([]T, pairs)
			s := c.f(gc, gr, cast[T](g.RMChosen), cast[T](g.RMRejected), nil, pairs)
			nearLoss(t, c.name, s.Loss, c.want)
			rejectedGradient(t, gc, gr)
			if g.GradRM != nil {
				near(t, "gradient", gc, cast[T](g.GradRM))
			}
		})
	}
	pairs := len(g.Chosen)
	pp := PreferencePairs[T]{cast[T](g.Chosen), cast[T](g.Rejected), cast[T](g.RefChosen), cast[T](g.RefRejected)}
	for _, c := range []struct {
		name string
		f    func(gc, gr []T) PairStats
		want *float64
		grad []float64
	}{
		{"dpo", func(gc, gr []T) PairStats { return DPOLoss(gc, gr, pp, g.Beta, 0, pairs) }, g.DPO, g.GradDPO},
		{"ipo", func(gc, gr []T) PairStats { return IPOLoss(gc, gr, pp, g.Beta, pairs) }, g.IPO, g.GradIPO},
		{"hinge", func(gc, gr []T) PairStats { return HingeLoss(gc, gr, pp, g.Beta, pairs) }, g.Hinge, g.GradHinge},
		{"simpo", func(gc, gr []T) PairStats { return SimPOLoss(gc, gr, pp, 2, 0.5, pairs) }, g.SimPO, g.GradSimPO},
	} {
		t.Run(c.name, func(t *testing.T) {
			gc, gr := make([]T, pairs), make([]T, pairs)
			nearLoss(t, c.name, c.f(gc, gr).Loss, c.want)
			rejectedGradient(t, gc, gr)
			if c.grad != nil {
				near(t, "gradient", gc, cast[T](c.grad))
			}
		})
	}
	t.Run("grpo", func(t *testing.T) {
		var rewards, want []T
		groups := []int32{0}
		for i := range g.GroupRewards {
			rewards = append(rewards, cast[T](g.GroupRewards[i])...)
			want = append(want, cast[T](g.GroupAdvantages[i])...)
			groups = append(groups, int32(len(rewards)))
		}
		GRPOAdvantages(rewards, rewards, groups)
		near(t, "advantages", rewards, want)
	})
}

func cast[T Float](x []float64) []T {
	out := make([]T, len(x))
	for i, v := range x {
		out[i] = T(v)
	}
	return out
}
