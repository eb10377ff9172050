package train

import (
	"math"
	"slices"
	"testing"
)

func TestRewardLoss(t *testing.T) {
	x := newRagged(19)
	const pairs = 12
	chosen, rejected, margins := x.normal(pairs, 2), x.normal(pairs, 2), x.normal(pairs, 0.5)
	gc, gr := make([]float64, pairs), make([]float64, pairs)
	for _, m := range [][]float64{nil, margins} {
		for _, f := range []func(gc, gr, c, r, m []float64, n int) PairStats{RewardLogSigmoidLoss[float64], RewardLogExpLoss[float64]} {
			s := f(gc, gr, chosen, rejected, m, pairs)
			loss := func() float64 { return f(nil, nil, chosen, rejected, m, pairs).Loss }
			checkGradient(t, "chosen", chosen, gc, loss)
			checkGradient(t, "rejected", rejected, gr, loss)
			want, right := 0.0, 0
			for i := range pairs {
				d := chosen[i] - rejected[i]
				if d > 0 {
					right++
				}
				if m != nil {
					d -= m[i]
				}
				want -= math.Log(1/(1+math.Exp(-d))) / pairs
			}
			wantNear(t, "loss", s.Loss, want, 1e-12)
			wantNear(t, "accuracy", s.Accuracy, float64(right)/pairs, 1e-12)
			wantNear(t, "margin", s.Margin(), MaskedMean(chosen, nil)-MaskedMean(rejected, nil), 1e-12)
		}
	}
	wantNear(t, "loss of 1.3 and 0.4", RewardLogSigmoidLoss(nil, nil, []float64{1.3}, []float64{0.4}, nil, 1).Loss, 0.341154, 1e-6)
}

func TestRewardLossExtremes(t *testing.T) {
	for _, d := range []float64{-1e30, -1e4, -90, 0, 90, 1e4, 1e30} {
		gc, gr := make([]float32, 1), make([]float32, 1)
		s := RewardLogExpLoss(gc, gr, []float32{float32(d)}, []float32{0}, nil, 1)
		wantFinite(t, "reward loss", s.Loss, float64(gc[0]), float64(gr[0]))
		if gc[0] > 0 || gc[0] < -1 || gr[0] != -gc[0] {
			t.Errorf("d = %g: gradients %g and %g", d, gc[0], gr[0])
		}
		if d <= -90 {
			wantNear(t, "loss of a wrong pair", s.Loss/-float64(float32(d)), 1, 1e-6)
		}
	}
	// Scores that are equal: loss log 2, no accuracy for a draw.
	s := RewardLogSigmoidLoss(nil, nil, []float64{4}, []float64{4}, nil, 1)
	wantNear(t, "loss of a draw", s.Loss, math.Ln2, 1e-15)
	wantNear(t, "accuracy of a draw", s.Accuracy, 0, 0)
	if s := RewardLogSigmoidLoss([]float64{}, []float64{}, []float64{}, []float64{}, nil, 0); s != (PairStats{}) {
		t.Errorf("%+v of no pairs", s)
	}
}

// TestRankingOfTwoIsAPair: rankings of two answers are the loss of pairs.
func TestRankingOfTwoIsAPair(t *testing.T) {
	x := newRagged(20)
	const pairs = 6
	scores := x.normal(2*pairs, 2)
	ranks, starts := make([]int32, 2*pairs), []int32{0}
	var chosen, rejected []float64
	for i := range pairs {
		first := int32(i % 2) // the better answer comes first or second
		ranks[2*i], ranks[2*i+1] = first, 1-first
		chosen = append(chosen, scores[2*i+int(first)])
		rejected = append(rejected, scores[2*i+1-int(first)])
		starts = append(starts, int32(2*i+2))
	}
	got := RankingLoss(nil, scores, ranks, nil, starts, pairs)
	want := RewardLogSigmoidLoss(nil, nil, chosen, rejected, nil, pairs)
	wantNear(t, "loss", got.Loss, want.Loss, 1e-12)
	wantNear(t, "accuracy", got.Accuracy, want.Accuracy, 1e-12)
	wantNear(t, "margin", got.Margin(), want.Margin(), 1e-12)
}

func TestRankingLoss(t *testing.T) {
	x := newRagged(21)
	// Four answers with a tie; one answer; none; three that tie; two.
	ranks := []int32{2, 1, 3, 2, 1, 1, 1, 1, 2, 1}
	starts := []int32{0, 4, 5, 5, 8, 10}
	scores, grad := x.normal(len(ranks), 1), make([]float64, len(ranks))
	if n := ComparableRankings(ranks, starts); n != 2 {
		t.Fatalf("%d rankings to compare, want 2", n)
	}
	s := RankingLoss(grad, scores, ranks, nil, starts, 2)
	if s.Pairs != 5+1 || s.Empty != 3 {
		t.Errorf("%d pairs, %d rankings without one, want 6 and 3", s.Pairs, s.Empty)
	}
	if !slices.Equal(grad[4:8], make([]float64, 4)) {
		t.Errorf("gradients %v of answers that aren't compared", grad[4:8])
	}
	checkGradient(t, "ranking", scores, grad, func() float64 { return RankingLoss(nil, scores, ranks, nil, starts, 2).Loss })
	// A ranking counts once, however many pairs it has: equal scores everywhere cost log 2.
	wantNear(t, "loss of draws", RankingLoss(nil, make([]float64, len(ranks)), ranks, nil, starts, 2).Loss, math.Ln2, 1e-15)
	sum := 0.0
	for _, g := range grad {
		sum += g
	}
	wantNear(t, "sum of gradients", sum, 0, 1e-15) // a shift of all scores changes nothing
	var parts RankingStats
	for b := range len(starts) - 1 {
		i, j := starts[b], starts[b+1]
		parts.Add(RankingLoss(nil, scores[i:j], ranks[i:j], nil, []int32{0, j - i}, 2))
	}
	wantNear(t, "sum of micro-batches", parts.Loss, s.Loss, 1e-15)
	if parts.Pairs != s.Pairs || parts.Empty != s.Empty {
		t.Errorf("micro-batches count %+v, the batch %+v", parts, s)
	}
}

// TestRankingLevels: by how much people liked an answer better it must lead, and a level
// that contradicts the rank asks for nothing.
func TestRankingLevels(t *testing.T) {
	// Leads of 0.5, 1.2 and 0.7 by hand; the first two are to be 1 at least:
	// d = -0.5, 0.2, 0.7; log(1 + e^-d) = 0.974077, 0.598139, 0.403186.
	scores, ranks, starts := []float64{1, 0.5, -0.2}, []int32{1, 2, 3}, []int32{0, 3}
	s := RankingLoss(nil, scores, ranks, []float64{2, 1, 1}, starts, 1)
	wantNear(t, "loss", s.Loss, (0.974077+0.598139+0.403186)/3, 1e-6)
	wantNear(t, "accuracy", s.Accuracy, 1, 0) // of leads, not of margins
	wantNear(t, "margin", s.Margin(), (0.5+1.2+0.7)/3, 1e-12)
	// The last answer had more points than the better ones: no margin there.
	wantNear(t, "contradiction", RankingLoss(nil, scores, ranks, []float64{1, 1, 5}, starts, 1).Loss, RankingLoss(nil, scores, ranks, nil, starts, 1).Loss, 0)

	x := newRagged(22)
	ranks, starts = []int32{2, 1, 3, 2, 1, 1, 1, 2, 3, 1}, []int32{0, 4, 5, 7, 10}
	scores, grad, levels := x.normal(len(ranks), 1), make([]float64, len(ranks)), x.normal(len(ranks), 2)
	with := RankingLoss(grad, scores, ranks, levels, starts, 2)
	checkGradient(t, "levels", scores, grad, func() float64 { return RankingLoss(nil, scores, ranks, levels, starts, 2).Loss })
	if without := RankingLoss(nil, scores, ranks, nil, starts, 2); with.Loss <= without.Loss || with.Accuracy != without.Accuracy || with.Margin() != without.Margin() {
		t.Errorf("%+v with margins, %+v without", with, without)
	}
	// A shift of all levels changes nothing; a pair with a margin is RewardLogSigmoidLoss's.
	for i := range levels {
		levels[i] += 3
	}
	wantNear(t, "shifted levels", RankingLoss(nil, scores, ranks, levels, starts, 2).Loss, with.Loss, 1e-12)
	pair := RankingLoss(nil, []float64{0.3, 0.9}, []int32{2, 1}, []float64{1, 1.75}, []int32{0, 2}, 1)
	wantNear(t, "a pair", pair.Loss, RewardLogSigmoidLoss(nil, nil, []float64{0.9}, []float64{0.3}, []float64{0.75}, 1).Loss, 1e-15)
}
