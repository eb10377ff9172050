package train

import "math"

// PairStats are a loss over pairs of a chosen and a rejected answer and what to
// watch with it: sums over pairs divided by n, so that Add makes a minibatch of its
// micro-batches.
type PairStats struct {
	Loss     float64
	Accuracy float64 // share of pairs with the chosen answer strictly ahead; a draw is a miss
	Chosen   float64 // mean reward of chosen answers
	Rejected float64 // mean reward of rejected answers
}

// Margin is the mean lead of the chosen answers.
func (s PairStats) Margin() float64 { return s.Chosen - s.Rejected }

// Add adds the statistics of another micro-batch of the same minibatch.
func (s *PairStats) Add(o PairStats) {
	s.Loss += o.Loss
	s.Accuracy += o.Accuracy
	s.Chosen += o.Chosen
	s.Rejected += o.Rejected
}

func (s *PairStats) note(loss, chosen, rejected, scale float64) {
	s.Loss += loss * scale
	s.Chosen += chosen * scale
	s.Rejected += rejected * scale
	if chosen > rejected {
		s.Accuracy += scale
	}
}

// RewardLogSigmoidLoss trains a reward model on pairs: chosen [P] and rejected
// [P] are its scores, margins [P] (nil: 0) by how much the chosen answer should
// lead:
//
//	loss = Σ −log σ(d) / n,  d = chosen − rejected − margin
//
// (the likelihood of the Bradley-Terry model: Stiennon et al. 2020, "Learning to
// summarize from human feedback", section 3.4; with margins: Touvron et al. 2023,
// "Llama 2", equation 2). The gradient is −σ(−d)/n by chosen and its negative by
// rejected. It is computed as log(1 + e^−d), for d < 0 as −d + log(1 + e^d), so it
// is finite for all finite scores.
func RewardLogSigmoidLoss[T Float](gradChosen, gradRejected, chosen, rejected, margins []T, n int) PairStats {
	pairs := len(chosen)
	mustLen("rejected", len(rejected), pairs)
	mustGrad("margins", margins, pairs)
	mustGrad("gradChosen", gradChosen, pairs)
	mustGrad("gradRejected", gradRejected, pairs)
	scale := inverse(n)
	var s PairStats
	for i := range pairs {
		c, r := float64(chosen[i]), float64(rejected[i])
		d := c - r
		if margins != nil {
			d -= float64(margins[i])
		}
		g := -sigmoid(-d) * scale
		store(gradChosen, i, g)
		store(gradRejected, i, -g)
		s.note(softplus(-d), c, r, scale)
	}
	return s
}

// RewardLogExpLoss is ColossalChat's second loss,
// Σ log(1 + e^(rejected − chosen + margin)) / n. It is the same function as
// RewardLogSigmoidLoss, which recipes may name either way; computed as written it
// would overflow where this one doesn't.
func RewardLogExpLoss[T Float](gradChosen, gradRejected, chosen, rejected, margins []T, n int) PairStats {
	return RewardLogSigmoidLoss(gradChosen, gradRejected, chosen, rejected, margins, n)
}

// RankingStats are those of RankingLoss: means over rankings of the means over
// their pairs.
type RankingStats struct {
	PairStats
	Pairs int // pairs that were compared
	Empty int // rankings without a pair: one answer, or ties alone
}

// Add adds the statistics of another micro-batch of the same minibatch.
func (s *RankingStats) Add(o RankingStats) {
	s.PairStats.Add(o.PairStats)
	s.Pairs += o.Pairs
	s.Empty += o.Empty
}

// RankingLoss trains a reward model on rankings of several answers to a prompt.
// scores [A], ranks [A] (lower is better) and levels [A] (nil: 0) belong to answers, those
// of a ranking next to each other; starts [R+1] says where each ranking begins:
//
//	loss = Σ_rankings 1/|pairs|·Σ_{ranks[i] < ranks[j]} −log σ(d[i,j]) / n
//	d[i,j] = scores[i] − scores[j] − max(0, levels[i] − levels[j])
//
// (Ouyang et al. 2022, "Training language models to follow instructions with human
// feedback", equation 1: a ranking counts as one example whatever its length,
// since its pairs aren't independent). The levels are how good people found the
// answers: their difference is the margin by which the better one should lead
// (Touvron et al. 2023, "Llama 2", equation 2). Answers of equal rank make no pair. n
// counts the rankings that have one: ComparableRankings. The gradient is by scores.
func RankingLoss[T Float](grad, scores []T, ranks []int32, levels []T, starts []int32, n int) RankingStats {
	mustRows(starts, nil, len(starts)-1, len(scores))
	mustLen("ranks", len(ranks), len(scores))
	mustGrad("levels", levels, len(scores))
	mustGrad("grad", grad, len(scores))
	// lead is d for a better and a worse answer.
	lead := func(better, worse int) float64 {
		d := float64(scores[better]) - float64(scores[worse])
		if levels != nil {
			d -= math.Max(0, float64(levels[better])-float64(levels[worse]))
		}
		return d
	}
	var s RankingStats
	clear(grad)
	for b := range len(starts) - 1 {
		from, to := int(starts[b]), int(starts[b+1])
		pairs := rankedPairs(ranks[from:to])
		s.Pairs += pairs
		if pairs == 0 {
			s.Empty++
			continue
		}
		scale := inverse(n) / float64(pairs)
		for i := from; i < to; i++ {
			// The answer's gradient is summed here and rounded once.
			sum := 0.0
			for j := from; j < to; j++ {
				switch {
				case ranks[i] < ranks[j]:
					d := lead(i, j)
					sum -= sigmoid(-d)
					s.note(softplus(-d), float64(scores[i]), float64(scores[j]), scale)
				case ranks[i] > ranks[j]:
					sum += sigmoid(-lead(j, i))
				}
			}
			store(grad, i, sum*scale)
		}
	}
	return s
}

// ComparableRankings counts the rankings with answers of different ranks.
func ComparableRankings(ranks, starts []int32) int {
	n := 0
	for b := range len(starts) - 1 {
		if rankedPairs(ranks[starts[b]:starts[b+1]]) > 0 {
			n++
		}
	}
	return n
}

func rankedPairs(ranks []int32) int {
	n := 0
	for i, a := range ranks {
		for _, b := range ranks[:i] {
			if a != b {
				n++
			}
		}
	}
	return n
}
