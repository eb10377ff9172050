package demo

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"ringtail/data"
	"ringtail/folder"
	"ringtail/model"
	"ringtail/recipe"
	"ringtail/runs"
	"ringtail/train"
)

// count fills in what the corpus holds.
func (r *Report) count(c *Corpus) {
	generated := 0
	for _, d := range c.Clean {
		if d.generated {
			generated++
		}
	}
	r.Data = DataReport{Dialogues: len(c.Clean), Generated: generated, RudeChats: len(c.Chats) - len(c.Clean),
		HeldOutChats: len(c.HeldOutChats), Rankings: len(c.Rankings), HeldOutRankings: len(c.HeldOutRanks),
		Prompts: len(c.Prompts), HeldOutPrompts: len(c.HeldOutPrompts)}
}

// metrics are the series of a run, by name.
type metrics map[string]*runs.Series

// readRun reads what a run measured, and what it was.
func readRun(dir string) (metrics, []*runs.Series, runs.Info, error) {
	list, err := runs.ReadMetrics(dir)
	if err != nil {
		return nil, nil, runs.Info{}, err
	}
	m := metrics{}
	for _, s := range list {
		m[s.Name] = s
	}
	info, err := runs.ReadInfo(dir)
	return m, list, info, err
}

// first is a metric's first value, NaN without one.
func (m metrics) first(name string) float64 {
	if s := m[name]; s != nil && len(s.Values) > 0 {
		return s.Values[0]
	}
	return math.NaN()
}

// at is a metric's value at a step, its last where step is 0 or it has none there.
func (m metrics) at(name string, step int) float64 {
	s := m[name]
	if s == nil {
		return math.NaN()
	}
	for i, at := range s.Steps {
		if step > 0 && at == int64(step) {
			return s.Values[i]
		}
	}
	return s.Last()
}

// read fills in what the three runs measured. Every figure comes from their files.
func (r *Report) read(ctx context.Context, dir string, c *Corpus, drawn *curves) error {
	for _, read := range []func(string, *curves) error{r.readSFT, r.readReward, r.readPPO} {
		if err := read(dir, drawn); err != nil {
			return err
		}
	}
	if err := r.unigram(ctx, dir); err != nil {
		return err
	}
	return finiteReport(r)
}

func (r *Report) readSFT(dir string, drawn *curves) error {
	dir = filepath.Join(dir, "sft")
	m, list, info, err := readRun(dir)
	if err != nil {
		return err
	}
	drawn.sft = list
	r.Parameters, r.Device = info.Parameters, info.Device
	r.SFT = SFTReport{Steps: info.Steps, LossFirst: m.first("loss"), LossLast: m.at("loss", 0),
		EvalLossFirst: m.first("eval/loss"), EvalLoss: m.at("eval/loss", info.Exported)}
	return nil
}

func (r *Report) readReward(dir string, drawn *curves) error {
	dir = filepath.Join(dir, "reward")
	m, list, info, err := readRun(dir)
	if err != nil {
		return err
	}
	config, err := model.LoadConfig(filepath.Join(dir, runs.ModelDir))
	if err != nil {
		return err
	}
	drawn.reward = list
	at := info.Exported
	r.Reward = RewardReport{Steps: info.Steps, Accuracy: m.at("eval/accuracy", at), AccuracyFirst: m.first("eval/accuracy"),
		EvalPairs: int(m.at("eval/pairs", at)), AccuracyLengthOnly: m.at("eval/accuracy_length_only", at), BySource: map[string]float64{},
		RewardMean: config.Reward.Mean, RewardStd: config.Reward.Std}
	for name := range m {
		if source, ok := strings.CutPrefix(name, "eval/accuracy/"); ok {
			r.Reward.BySource[strings.TrimSuffix(source, " held out")] = m.at(name, at)
		}
	}
	return nil
}

func (r *Report) readPPO(dir string, drawn *curves) error {
	dir = filepath.Join(dir, "ppo")
	m, list, info, err := readRun(dir)
	if err != nil {
		return err
	}
	rec := &train.PPORecipe{}
	path := filepath.Join(dir, runs.RecipeFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := recipe.Decode(text, path, nil, rec); err != nil {
		return err
	}
	drawn.ppo = list
	at := info.Exported
	r.PPO = PPOReport{Steps: info.Steps, Rollouts: rec.Train.Rollouts, Answers: rec.Eval.Answers,
		RewardFirst: m.first("eval/reward"), RewardLast: m.at("eval/reward", at), KLFirst: m.first("eval/kl"), KLLast: m.at("eval/kl", at),
		EOSRateFirst: m.first("eval/eos_rate"), EOSRate: m.at("eval/eos_rate", at),
		RatioFirstMinibatch: m.first("ppo/ratio"), RatioMaxDevFirstMinibatch: m.first("ppo/ratio_max_dev"), KLFirstMinibatch: m.first("ppo/approx_kl"),
		LengthFirst: m.first("eval/length"), LengthLast: m.at("eval/length", at)}
	if info.Exported > 0 {
		r.PPO.Ended = info.Note
	}
	r.PTX = PTXReport{Coef: rec.PPO.PTXCoef, EvalLossSFT: m.first("eval/ptx_loss"), EvalLossPPO: m.at("eval/ptx_loss", at)}
	return r.readSamples(dir, at)
}

// readSamples pairs the answers of the fine-tuned model, which PPO begins with, with those of its result.
func (r *Report) readSamples(dir string, step int) error {
	list, err := runs.ReadSamples(dir)
	if err != nil {
		return err
	}
	last := step
	if last == 0 && len(list) > 0 {
		last = list[len(list)-1].Step
	}
	score := func(s runs.Sample) float64 {
		if s.Score == nil {
			return 0
		}
		return *s.Score
	}
	index := map[string]int{}
	r.Samples = []Sample{}
	for _, s := range list {
		switch s.Step {
		case 0:
			index[s.Prompt] = len(r.Samples)
			r.Samples = append(r.Samples, Sample{Prompt: s.Prompt, Reference: s.Reference, SFT: s.Completion, SFTScore: score(s)})
		case last:
			if i, ok := index[s.Prompt]; ok {
				r.Samples[i].PPO, r.Samples[i].PPOScore = s.Completion, score(s)
			}
		}
	}
	return nil
}

// unigram measures the cross-entropy of the training set's token frequencies on the held-out tokens: what a
// model reaches that knows which tokens are common and nothing else. Each token counts once more than it
// occurs (Laplace), lest one that the training set lacks make it infinite.
func (r *Report) unigram(ctx context.Context, dir string) error {
	text, err := folder.Open(filepath.Join(dir, "sft", runs.ModelDir), "", "")
	if err != nil {
		return err
	}
	file := func(name string) []data.Source {
		return []data.Source{{Files: []string{filepath.Join(dir, "data", name)}}}
	}
	set, err := data.Load(ctx, file("chats.jsonl"), data.Options{Use: data.UseSFT, MaxTokens: maxTokens, Eval: data.EvalSplit{Sources: file("chats-held-out.jsonl")}},
		text.Encoder())
	if err != nil {
		return err
	}
	counts := make([]float64, text.Tokenizer.Size())
	total := 0.0
	for i := range counts {
		counts[i], total = 1, total+1
	}
	var held []int32
	for i := 0; ; i++ {
		s, ok := set.Sequence(i)
		if !ok {
			break
		}
		for t := 1; t < len(s.IDs); t++ {
			switch {
			case !s.Trained[t]:
			case s.HeldOut:
				held = append(held, s.IDs[t])
			default:
				counts[s.IDs[t]]++
				total++
			}
		}
	}
	sum := 0.0
	for _, id := range held {
		sum -= math.Log(counts[id] / total)
	}
	r.SFT.UnigramLoss = sum / float64(max(len(held), 1))
	return nil
}

// maxTokens is data.max_tokens of the recipes.
const maxTokens = 192

// finiteReport refuses to write figures that are none.
func finiteReport(r *Report) error {
	for _, f := range []struct {
		name  string
		value float64
	}{{"sft.loss_last", r.SFT.LossLast}, {"sft.eval_loss", r.SFT.EvalLoss}, {"reward.accuracy", r.Reward.Accuracy},
		{"ppo.reward_first", r.PPO.RewardFirst}, {"ppo.reward_last", r.PPO.RewardLast}, {"ppo.kl_last", r.PPO.KLLast},
		{"ppo.ratio_first_minibatch", r.PPO.RatioFirstMinibatch}, {"ptx.eval_loss_ppo", r.PTX.EvalLossPPO}} {
		if math.IsNaN(f.value) || math.IsInf(f.value, 0) {
			return fmt.Errorf("the runs have no figure for %s; look at their metrics.jsonl", f.name)
		}
	}
	return nil
}
