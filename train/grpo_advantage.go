package train

import "math"

// grpoEpsilon is added to a group's deviation. It is not tiny: rewards
// that differ in the last place only must not become advantages of 1.
const grpoEpsilon = 1e-4

// The functions below compare the rewards [A] of several answers to the same prompt
// with each other instead of with a value model. groups [G+1] says where each
// prompt's answers begin. They write advantages [A], which may be rewards, and
// return the number of groups whose answers all have the same reward and so teach
// nothing; a group of one is such a group. SpreadAnswers gives an answer's
// advantage to its tokens. Advantages are constants of the policy's loss: they need
// no gradient.

// GRPOAdvantages is group relative policy optimisation's
//
//	advantage = (reward − mean)/(deviation + 1e-4), the deviation with n − 1
//
// (Shao et al. 2024, "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in
// Open Language Models", section 4.1.2, outcome supervision; the 1e-4 is TRL's).
func GRPOAdvantages[T Float](advantages, rewards []T, groups []int32) (flat int) {
	return groupAdvantages(advantages, rewards, groups, func(n int, squares float64) float64 {
		return 1 / (math.Sqrt(squares*inverse(n-1)) + grpoEpsilon)
	})
}

// DrGRPOAdvantages is reward − mean: without the deviation, which gives prompts that
// are too easy or too hard more weight than others (Liu et al. 2025, "Understanding
// R1-Zero-Like Training: A Critical Perspective", section 3.1).
func DrGRPOAdvantages[T Float](advantages, rewards []T, groups []int32) (flat int) {
	return groupAdvantages(advantages, rewards, groups, func(int, float64) float64 { return 1 })
}

// RLOOAdvantages is REINFORCE leave-one-out's reward − mean of the others, which is
// (reward − mean)·n/(n − 1) (Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a
// Baseline for Free!"; for language models Ahmadian et al. 2024, "Back to Basics:
// Revisiting REINFORCE Style Optimization for Learning from Human Feedback in
// LLMs").
func RLOOAdvantages[T Float](advantages, rewards []T, groups []int32) (flat int) {
	return groupAdvantages(advantages, rewards, groups, func(n int, _ float64) float64 { return float64(n) * inverse(n-1) })
}

// groupAdvantages writes (reward − mean)·factor; factor has the group's size and
// its sum of squared differences.
func groupAdvantages[T Float](advantages, rewards []T, groups []int32, factor func(n int, squares float64) float64) (flat int) {
	mustRows(groups, nil, len(groups)-1, len(rewards))
	mustLen("advantages", len(advantages), len(rewards))
	for g := range len(groups) - 1 {
		from, to := groups[g], groups[g+1]
		group := rewards[from:to]
		same := true
		for _, r := range group {
			same = same && r == group[0]
		}
		if same { // exactly 0, where the mean's rounding would leave traces
			clear(advantages[from:to])
			flat++
			continue
		}
		mean := MaskedMean(group, nil)
		squares := 0.0
		for _, r := range group {
			squares += (float64(r) - mean) * (float64(r) - mean)
		}
		f := factor(len(group), squares)
		for i, r := range group {
			advantages[int(from)+i] = T((float64(r) - mean) * f)
		}
	}
	return flat
}
