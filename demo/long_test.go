//go:build long

package demo

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// TestReportHolds: a real demo clears every bar that it is built for. RINGTAIL_DEMO_REPORT names a
// report.json to judge; without it a demo is run here, with the seed in RINGTAIL_DEMO_SEED.
func TestReportHolds(t *testing.T) {
	path := os.Getenv("RINGTAIL_DEMO_REPORT")
	if path == "" {
		seed, _ := strconv.ParseUint(os.Getenv("RINGTAIL_DEMO_SEED"), 10, 64)
		dir := filepath.Join(t.TempDir(), "demo")
		if _, err := Run(t.Context(), Options{Dir: dir, Seed: seed, Messages: os.Stderr}); err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(dir, ReportFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	hold := func(ok bool, what string, figures ...float64) {
		t.Helper()
		t.Logf("%-70s %.4g", what, figures)
		if !ok {
			t.Errorf("%s: %.4g", what, figures)
		}
	}
	p := r.PPO
	hold(r.PeakRSSBytes > 0 && r.PeakRSSBytes < 4<<30, "memory below 4 GiB", float64(r.PeakRSSBytes))
	hold(r.SFT.EvalLoss <= 0.6*r.SFT.EvalLossFirst, "held-out loss at most 0.6 of the first", r.SFT.EvalLoss, r.SFT.EvalLossFirst)
	hold(r.SFT.EvalLoss <= 0.7*r.SFT.UnigramLoss, "and 0.7 of the token frequencies'", r.SFT.EvalLoss, r.SFT.UnigramLoss)
	hold(r.Reward.Accuracy >= 0.85 && r.Reward.EvalPairs >= 100, "accuracy at least 0.85 on at least 100 pairs", r.Reward.Accuracy, float64(r.Reward.EvalPairs))
	hold(r.Reward.AccuracyLengthOnly <= 0.65, "by length alone at most 0.65", r.Reward.AccuracyLengthOnly)
	hold(p.Answers >= 64 && p.RewardLast-p.RewardFirst >= 1, "score up by at least 1 over at least 64 answers", p.RewardFirst, p.RewardLast, float64(p.Answers))
	hold(p.KLLast <= 10, "KL at most 10 nats an answer", p.KLLast)
	hold(p.EOSRate >= 0.9, "at least 0.9 of the answers end by themselves", p.EOSRate)
	hold(math.Abs(p.LengthLast/p.LengthFirst-1) <= 0.3, "length changed by at most 30%", p.LengthFirst, p.LengthLast)
	hold(math.Abs(p.RatioFirstMinibatch-1) <= 1e-5, "mean ratio of the first minibatch 1 within 1e-5", p.RatioFirstMinibatch)
	hold(p.RatioMaxDevFirstMinibatch <= 1e-3, "its largest deviation at most 1e-3", p.RatioMaxDevFirstMinibatch)
	hold(math.Abs(p.KLFirstMinibatch) <= 1e-5, "its KL 0 within 1e-5", p.KLFirstMinibatch)
	hold(r.PTX.Coef > 0 && r.PTX.EvalLossPPO <= 1.03*r.PTX.EvalLossSFT, "loss on the corpus at most 1.03 of that before", r.PTX.EvalLossSFT, r.PTX.EvalLossPPO)
}
