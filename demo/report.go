package demo

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"ringtail/runs"
)

// Report is report.json: what the three stages did, in numbers and samples.
type Report struct {
	Seed         uint64       `json:"seed"`
	Seconds      float64      `json:"seconds"` // from the start of the demo to its end, the chat left out
	PeakRSSBytes int64        `json:"peak_rss_bytes"`
	Parameters   int64        `json:"parameters"` // of each model
	Threads      int          `json:"threads"`
	Device       string       `json:"device"`
	Version      string       `json:"version,omitempty"`
	Data         DataReport   `json:"data"`
	Stages       []StageTime  `json:"stages"`
	SFT          SFTReport    `json:"sft"`
	Reward       RewardReport `json:"reward"`
	PPO          PPOReport    `json:"ppo"`
	PTX          PTXReport    `json:"ptx"`
	Samples      []Sample     `json:"samples"`
}

// DataReport counts the corpus.
type DataReport struct {
	Dialogues       int `json:"dialogues"`           // good ones that are trained on, the best answers of rankings included
	Generated       int `json:"dialogues_generated"` // of them from the generator
	RudeChats       int `json:"rude_chats"`          // rude answers that the fine-tuning sees too
	HeldOutChats    int `json:"held_out_dialogues"`
	Rankings        int `json:"rankings"`
	HeldOutRankings int `json:"held_out_rankings"`
	Prompts         int `json:"prompts"`
	HeldOutPrompts  int `json:"held_out_prompts"`
	Tokens          int `json:"vocabulary"`
}

// StageTime is how long a stage took.
type StageTime struct {
	Name    string  `json:"name"` // "tokenizer", "sft", "reward", "ppo"
	Seconds float64 `json:"seconds"`
}

// SFTReport is the fine-tuning: cross-entropies in nats a token.
type SFTReport struct {
	Steps         int     `json:"steps"`
	LossFirst     float64 `json:"loss_first"`
	LossLast      float64 `json:"loss_last"`
	EvalLossFirst float64 `json:"eval_loss_first"`
	EvalLoss      float64 `json:"eval_loss"`
	// UnigramLoss is the cross-entropy of the training set's token frequencies on the same held-out tokens.
	UnigramLoss float64 `json:"unigram_loss"`
}

// RewardReport is the reward model on held-out pairs.
type RewardReport struct {
	Steps         int     `json:"steps"`
	Accuracy      float64 `json:"accuracy"`
	AccuracyFirst float64 `json:"accuracy_first"` // before training: chance
	EvalPairs     int     `json:"eval_pairs"`
	// AccuracyLengthOnly is what choosing by length alone reaches, by the better of both rules.
	AccuracyLengthOnly float64            `json:"accuracy_length_only"`
	BySource           map[string]float64 `json:"accuracy_by_language"`
	RewardMean         float64            `json:"reward_mean"` // of the normalisation, raw
	RewardStd          float64            `json:"reward_std"`
}

// PPOReport is reinforcement learning. Rewards are mean normalised scores of Answers
// answers sampled at temperature 1 to held-out prompts.
type PPOReport struct {
	Steps                     int     `json:"steps"`
	Rollouts                  int     `json:"rollouts"`
	Answers                   int     `json:"answers"`
	RewardFirst               float64 `json:"reward_first"`
	RewardLast                float64 `json:"reward_last"`
	KLFirst                   float64 `json:"kl_first"`
	KLLast                    float64 `json:"kl_last"` // nats an answer, from the fine-tuned model
	EOSRate                   float64 `json:"eos_rate"`
	EOSRateFirst              float64 `json:"eos_rate_first"`
	RatioFirstMinibatch       float64 `json:"ratio_first_minibatch"`
	RatioMaxDevFirstMinibatch float64 `json:"ratio_max_dev_first_minibatch"`
	KLFirstMinibatch          float64 `json:"kl_first_minibatch"`
	LengthFirst               float64 `json:"length_first"` // mean tokens of those answers
	LengthLast                float64 `json:"length_last"`
	Ended                     string  `json:"ended,omitempty"` // why the run ended early, if it did
}

// PTXReport is the cross-entropy on the held-out part of the corpus, before and after PPO.
type PTXReport struct {
	Coef        float64 `json:"coef"`
	EvalLossSFT float64 `json:"eval_loss_sft"`
	EvalLossPPO float64 `json:"eval_loss_ppo"`
}

// Sample is a held-out prompt with the answers after fine-tuning and after PPO, each with the reward
// model's score.
type Sample struct {
	Prompt    string  `json:"prompt"`
	Reference string  `json:"reference,omitempty"` // the corpus's good answer
	SFT       string  `json:"sft"`
	SFTScore  float64 `json:"sft_score"`
	PPO       string  `json:"ppo"`
	PPOScore  float64 `json:"ppo_score"`
}

// curves are what the page draws, of each stage.
type curves struct {
	sft, reward, ppo []*runs.Series
}

// Print writes what a person should see at the end.
func (r *Report) Print(w io.Writer, dir string) {
	fmt.Fprintf(w, "\nDone in %.0f s, with at most %d MiB of memory.\n\n", r.Seconds, r.PeakRSSBytes>>20)
	fmt.Fprintf(w, "1. Fine-tuning: loss on held-out answers %.2f → %.2f nats a token (token frequencies alone: %.2f).\n",
		r.SFT.EvalLossFirst, r.SFT.EvalLoss, r.SFT.UnigramLoss)
	fmt.Fprintf(w, "2. Reward model: right in %.0f%% of %d held-out pairs (by length alone: %.0f%%).\n",
		100*r.Reward.Accuracy, r.Reward.EvalPairs, 100*r.Reward.AccuracyLengthOnly)
	fmt.Fprintf(w, "3. PPO: mean score of %d answers to held-out prompts %+.2f → %+.2f; %.1f nats an answer from the fine-tuned model,\n   length %.0f → %.0f tokens, %.0f%% end by themselves; loss on the corpus %.3f → %.3f (PTX).\n",
		r.PPO.Answers, r.PPO.RewardFirst, r.PPO.RewardLast, r.PPO.KLLast, r.PPO.LengthFirst, r.PPO.LengthLast, 100*r.PPO.EOSRate,
		r.PTX.EvalLossSFT, r.PTX.EvalLossPPO)
	for _, s := range r.Samples[:min(3, len(r.Samples))] {
		fmt.Fprintf(w, "\n> %s\n  after fine-tuning (%+.1f): %s\n  after PPO (%+.1f): %s\n", s.Prompt, s.SFTScore, oneLine(s.SFT), s.PPOScore, oneLine(s.PPO))
	}
	fmt.Fprintf(w, "\nReport: %s   Model: %s\n", filepath.Join(dir, "report.html"), filepath.Join(dir, "ppo", runs.ModelDir))
}

// oneLine writes an answer as one line, without control characters.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }), " / ")
}
