package demo

import (
	"bytes"
	_ "embed"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ringtail/atomicfile"
	"ringtail/runs"
)

//go:embed page.html.tmpl
var pageTemplate string

//go:embed page.css
var pageStyle string

var pageParsed = runs.PageTemplate(pageTemplate, pageStyle)

// writePage writes report.html, the report for people: one file that needs no script and no network.
// It stands in the demo's folder. Figures that are zero and series that are missing are left out.
func writePage(path string, r *Report, c curves) error {
	var b bytes.Buffer
	if err := pageParsed.Execute(&b, newPage(filepath.Dir(path), r, c)); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return atomicfile.WriteBytes(path, 0o666, b.Bytes())
}

// page is what the template shows.
type page struct {
	Headline, HeadlineZH string
	Report               *Report
	Clock                []segment
	Example              *pair // of the samples, the one that changed most for the better
	Cards                []card
	Samples              []pair
	Kept                 []kept
	Facts                []fact
	Groups               []group
	Commands             []command
	Made                 string
}

// segment is a part of the demo's time.
type segment struct {
	Name, Time, Share string
	Color             int // 1 to 3, a stage's; 0 for the rest
}

// card is a stage.
type card struct {
	Color               int
	Title, Name, NameZH string
	Time                string
	Learnt, Note        string
	Figures             []figure
	Panel               *runs.Panel
	Small               *runs.Panel // below the first
}

// figure is a key figure with the bar that it has to clear.
type figure struct {
	Value, Text string
	Bar         string // "" without
	Clears      bool
}

// text is somebody's words, with their language.
type text struct{ Text, Lang string }

// answer is a scored text. Tone is the chip's colour: 0 is bad, tones-1 is good.
type answer struct {
	text
	Score string
	Tone  int
}

type pair struct {
	Prompt, Reference text
	SFT, PPO          answer
	Change            string
}

// kept is a quantity before PPO and after it.
type kept struct {
	Name, NameZH        string
	Before, After, Unit string
	Text                string
}

type fact struct{ Name, Value, Detail string }

// group is an object of report.json.
type group struct {
	Name string
	Rows []row
}

type row struct {
	Key, Value, Meaning string
	Text                bool // the value is words
}

type command struct{ Comment, Lines string }

// tones is how many colours the style sheet has between bad and good.
const tones = 7

// mostForgotten is by how many percent PPO may raise the loss on unseen dialogues.
const mostForgotten = 10

func newPage(dir string, r *Report, c curves) *page {
	p := &page{Report: r, Clock: clock(r), Cards: []card{sftCard(r, c.sft), rewardCard(r, c.reward), ppoCard(r, c.ppo)},
		Kept: whatPPOKept(r), Facts: facts(r), Groups: groups(r), Commands: commands(dir), Made: time.Now().Format("2 January 2006, 15:04")}
	p.Headline, p.HeadlineZH = "From random numbers to a chat model", "从随机数到聊天模型"
	if r.PPO.Answers > 0 && r.PPO.RewardLast > r.PPO.RewardFirst {
		p.Headline, p.HeadlineZH = "From random numbers to a chat model with manners", "从随机数到懂礼貌的聊天模型"
	}
	if en, zh := duration(r.Seconds); en != "" {
		p.Headline, p.HeadlineZH = p.Headline+", in\u00a0"+en, p.HeadlineZH+"，用\u2060时\u00a0"+zh
	}
	p.Samples, p.Example = pairs(r.Samples)
	return p
}

// pairs prepares the samples, and finds the one whose score rose most, if one's rose visibly: an
// English one before a Chinese one, for the page is English.
func pairs(samples []Sample) (list []pair, example *pair) {
	worst := -3.0 // as red as it gets, or as bad as answers are, within bounds; a typical good answer, at 0, is green
	for _, s := range samples {
		worst = max(min(worst, finite(s.SFTScore), finite(s.PPOScore)), -10)
	}
	scored := func(words string, score float64) answer {
		tone := int(math.Round((1 - finite(score)/worst) * (tones - 1)))
		return answer{spoken(words), signed(score), min(max(tone, 0), tones-1)}
	}
	best, rise := map[string]int{}, map[string]float64{} // by language
	for i, s := range samples {
		list = append(list, pair{Prompt: spoken(s.Prompt), Reference: spoken(s.Reference), SFT: scored(s.SFT, s.SFTScore), PPO: scored(s.PPO, s.PPOScore),
			Change: signed(s.PPOScore - s.SFTScore)})
		lang := list[i].Prompt.Lang
		if d := s.PPOScore - s.SFTScore; d > max(rise[lang], 0.5) && strings.TrimSpace(s.PPO) != "" {
			best[lang], rise[lang] = i, d
		}
	}
	for _, lang := range []string{"en", "zh-Hans"} { // the page's language first
		if i, ok := best[lang]; ok {
			return list, &list[i]
		}
	}
	return list, nil
}

// spoken tells the language of a text: Chinese if its characters say about as much as its letters.
func spoken(s string) text {
	han, letters := 0, 0
	for _, r := range s {
		switch {
		case unicode.Is(unicode.Han, r):
			han++
		case unicode.IsLetter(r):
			letters++
		}
	}
	if 3*han >= letters && han > 0 {
		return text{s, "zh-Hans"}
	}
	return text{s, "en"}
}

func clock(r *Report) (out []segment) {
	rest := r.Seconds
	for _, s := range r.Stages {
		rest -= s.Seconds
	}
	add := func(name string, seconds float64, color int) {
		if en, _ := duration(seconds); en != "" && r.Seconds > 0 {
			out = append(out, segment{name, en, fmt.Sprintf("%.4f", seconds/r.Seconds*100), color})
		}
	}
	for _, s := range r.Stages {
		color := slices.Index([]string{"", "sft", "reward", "ppo"}, s.Name)
		name := map[string]string{"sft": "fine-tuning", "reward": "reward model", "ppo": "PPO"}[s.Name]
		if name == "" {
			name = s.Name
		}
		add(name, s.Seconds, max(color, 0))
	}
	add("the rest", rest, 0)
	return out
}

// took is how long a stage took, "" if that isn't known.
func (r *Report) took(stage string) string {
	for _, s := range r.Stages {
		if s.Name == stage {
			en, _ := duration(s.Seconds)
			return en
		}
	}
	return ""
}

func sftCard(r *Report, series []*runs.Series) card {
	f := r.SFT
	c := card{Color: 1, Title: "Learn to answer", Name: "Supervised fine-tuning", NameZH: "监督微调：学会回答", Time: r.took("sft"),
		Learnt: "From dialogues it learnt both languages, and to answer what is asked."}
	if d := r.Data; d.Dialogues > 0 {
		c.Learnt = fmt.Sprintf("From %s dialogues it learnt both languages, and to answer what is asked.", count(d.Dialogues))
		if d.RudeChats > 0 {
			c.Learnt += fmt.Sprintf(" %s rude answers were among them, as in the wild, and it learnt those too.", count(d.RudeChats))
		}
	}
	unseen := "dialogues it has never seen"
	if n := r.Data.HeldOutChats; n > 0 {
		unseen = count(n) + " " + unseen
	}
	if f.EvalLoss > 0 {
		choice := figure{Value: "1 in " + choices(f.EvalLoss), Text: "On " + unseen + ", the next piece of a word is as hard to guess as 1 among " + choices(f.EvalLoss) + "."}
		loss := figure{Value: decimal(f.EvalLoss, 2), Text: "The same as a loss, in nats a token. Lower is better."}
		if f.UnigramLoss > 0 {
			choice.Bar, choice.Clears = "knowing only how common tokens are, 1 in "+choices(f.UnigramLoss), f.EvalLoss < f.UnigramLoss
			loss.Bar, loss.Clears = "token frequencies alone, "+decimal(f.UnigramLoss, 2), f.EvalLoss < f.UnigramLoss
		}
		c.Figures = append(c.Figures, choice, loss)
	}
	p := runs.Plot{Title: over("Loss", f.Steps), Lines: []runs.Line{{Name: "training", Series: find(series, "loss"), Color: 1}, {Name: "unseen", Series: find(series, "eval/loss"), Color: 2}}}
	if f.UnigramLoss > 0 {
		p.Levels = []runs.Level{{Name: "token frequencies alone", Value: f.UnigramLoss}}
	}
	c.Panel = plotted(p)
	return c
}

func rewardCard(r *Report, series []*runs.Series) card {
	f := r.Reward
	c := card{Color: 2, Title: "Learn what people like", Name: "Reward model", NameZH: "奖励模型：学会分辨好坏", Time: r.took("reward"),
		Learnt: "A second model saw answers that people had ranked, and learnt to score the better ones higher."}
	if n := r.Data.Rankings; n > 0 {
		c.Learnt = fmt.Sprintf("A second model saw the ranked answers to %s prompts, and learnt to score the better ones higher.", count(n))
	}
	p := runs.Plot{Title: "Accuracy", Unit: "%", Lines: []runs.Line{{Name: over("Right picks", f.Steps), Series: times100(find(series, "eval/accuracy")), Color: 2}}}
	if f.EvalPairs > 0 {
		c.Figures = append(c.Figures, figure{Value: percent(f.Accuracy), Text: fmt.Sprintf("It picks the better of two answers in %s of %s unseen pairs.", percent(f.Accuracy), count(f.EvalPairs)),
			Bar: "by length alone, " + percent(f.AccuracyLengthOnly), Clears: f.Accuracy > f.AccuracyLengthOnly})
		p.Levels = []runs.Level{{Name: "by length alone", Value: 100 * f.AccuracyLengthOnly}, {Name: "by a coin", Value: 50}}
		if f.AccuracyLengthOnly < 0.52 { // the two lines would be one
			p.Levels = p.Levels[:1]
		}
	}
	if len(f.BySource) > 0 {
		var values, names []string
		worst := 1.0
		for _, name := range slices.Sorted(maps.Keys(f.BySource)) {
			values, names, worst = append(values, percent(f.BySource[name])), append(names, title(name)), min(worst, f.BySource[name])
		}
		c.Figures = append(c.Figures, figure{Value: strings.Join(values, " · "), Text: "The same for " + strings.Join(names, " · ") + " alone.",
			Bar: "by a coin, 50%", Clears: worst > 0.5})
	}
	c.Panel = plotted(p)
	return c
}

func ppoCard(r *Report, series []*runs.Series) card {
	f := r.PPO
	c := card{Color: 3, Title: "Practise it", Name: "PPO with PTX", NameZH: "强化学习：学会好好说话", Time: r.took("ppo"), Note: f.Ended,
		Learnt: "The first model answered, the second scored, and what scored higher became likelier."}
	if f.Rollouts > 0 {
		c.Learnt += fmt.Sprintf(" %s rounds, with good dialogues mixed in against forgetting.", count(f.Rollouts))
	}
	score := runs.Plot{Title: over("Score", f.Steps), Lines: []runs.Line{{Name: "practice", Series: find(series, "ppo/score"), Color: 3}, {Name: "unseen", Series: find(series, "eval/reward"), Color: 2}}}
	if f.Answers > 0 {
		c.Figures = append(c.Figures, figure{Value: signed(f.RewardFirst) + " → " + signed(f.RewardLast), Text: fmt.Sprintf("Mean score of %s answers to unseen prompts, before and after. 0 is a typical good answer.", count(f.Answers)),
			Bar: "better than before, " + signed(f.RewardFirst), Clears: f.RewardLast > f.RewardFirst})
		score.Levels = []runs.Level{{Name: "before", Value: f.RewardFirst}}
	}
	if r.PTX.EvalLossSFT > 0 {
		change := (finite(r.PTX.EvalLossPPO)/r.PTX.EvalLossSFT - 1) * 100
		c.Figures = append(c.Figures, figure{Value: decimal(r.PTX.EvalLossPPO, 2), Text: "Loss on unseen dialogues afterwards: the language is still there.",
			Bar: fmt.Sprintf("at most %d%% above the %s before", mostForgotten, decimal(r.PTX.EvalLossSFT, 2)), Clears: change <= mostForgotten})
		if change > mostForgotten {
			c.Figures[len(c.Figures)-1].Text = "Loss on unseen dialogues afterwards: some of the language was lost."
		}
	}
	c.Panel = plotted(score)
	c.Small = plotted(runs.Plot{Title: "Drift (KL)", FromZero: true, Lines: []runs.Line{{Name: "practice", Series: find(series, "ppo/kl"), Color: 3},
		{Name: "unseen", Series: find(series, "eval/kl"), Color: 2}}})
	return c
}

func whatPPOKept(r *Report) []kept {
	f := r.PPO
	var out []kept
	if f.Answers > 0 {
		out = append(out,
			kept{"Close to where it was", "没有走远", decimal(f.KLFirst, 1), decimal(f.KLLast, 1), "nats an answer", "KL divergence from the fine-tuned model; PPO pays for each nat."},
			kept{"Length", "回答长度", decimal(f.LengthFirst, 1), decimal(f.LengthLast, 1), "tokens", "Mean length of an answer" + changed(f.LengthFirst, f.LengthLast) + ". Was the score bought with length?"},
			kept{"Endings", "自己收尾", percent(f.EOSRateFirst), percent(f.EOSRate), "", "Answers that come to an end by themselves, before the limit."})
	}
	if r.PTX.EvalLossSFT > 0 {
		out = append(out, kept{"Language", "语言能力", decimal(r.PTX.EvalLossSFT, 2), decimal(r.PTX.EvalLossPPO, 2), "loss",
			"PTX loss on unseen dialogues" + changed(r.PTX.EvalLossSFT, r.PTX.EvalLossPPO) + fmt.Sprintf(", with PTX at %.3g.", finite(r.PTX.Coef))})
	}
	return out
}

func facts(r *Report) []fact {
	var out []fact
	add := func(there bool, name, value, detail string) {
		if there {
			out = append(out, fact{name, value, detail})
		}
	}
	all, _ := duration(r.Seconds)
	add(all != "", "Time", all, "all of it, but the chat")
	add(r.Parameters > 0, "Parameters", runs.Figure(float64(r.Parameters)), "of each model")
	add(r.PeakRSSBytes > 0, "Peak memory", runs.Figure(math.Round(float64(r.PeakRSSBytes)/(1<<20)))+" MiB", "resident")
	device, rest, _ := strings.Cut(r.Device, " (")
	if device == "cpu" {
		device = "CPU"
	}
	add(r.Device != "", "Machine", device, strings.TrimSuffix(rest, ")"))
	add(r.Threads > 0, "Threads", count(r.Threads), "")
	d := r.Data
	add(d.Dialogues > 0, "Dialogues", count(d.Dialogues), count(d.Generated)+" of them generated")
	add(d.Rankings > 0, "Rankings", count(d.Rankings), "prompts with ranked answers")
	add(d.HeldOutPrompts > 0, "Never trained on", count(d.HeldOutPrompts), "prompts, in any stage")
	add(d.Tokens > 0, "Vocabulary", count(d.Tokens), "tokens")
	add(true, "Seed", fmt.Sprint(r.Seed), "the same seed, the same bytes")
	return out
}

// groups takes the report apart: all that report.json holds, but the samples.
func groups(r *Report) []group {
	out := []group{{Name: "run"}}
	v := reflect.ValueOf(*r)
	for i := range v.NumField() {
		key := jsonKey(v.Type().Field(i))
		switch f := v.Field(i).Interface().(type) {
		case []Sample:
		case []StageTime:
			g := group{Name: key}
			for _, s := range f {
				g.Rows = append(g.Rows, row{s.Name, runs.Figure(s.Seconds), "seconds", false})
			}
			out = append(out, g)
		default:
			if v.Field(i).Kind() == reflect.Struct {
				out = append(out, group{key, rows(key+".", v.Field(i))})
			} else {
				out[0].Rows = append(out[0].Rows, leaf(key, "", v.Field(i))...)
			}
		}
	}
	return slices.DeleteFunc(out, func(g group) bool { return len(g.Rows) == 0 })
}

func rows(prefix string, v reflect.Value) (out []row) {
	for i := range v.NumField() {
		out = append(out, leaf(jsonKey(v.Type().Field(i)), prefix, v.Field(i))...)
	}
	return out
}

func jsonKey(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return key
}

// leaf is a row a value, for a map one for each of its.
func leaf(key, prefix string, v reflect.Value) []row {
	var value string
	switch x := v.Interface().(type) {
	case float64:
		value = runs.Figure(x)
	case map[string]float64:
		var out []row
		for _, k := range slices.Sorted(maps.Keys(x)) {
			out = append(out, row{key + "." + k, runs.Figure(x[k]), meanings[prefix+key], false})
		}
		return out
	default: // a count, or text
		value = fmt.Sprint(x)
	}
	return []row{{key, value, meanings[prefix+key], v.Kind() == reflect.String}}
}

// meanings explain keys of report.json that do not do so themselves.
var meanings = map[string]string{
	"seconds":                           "from the start to the end",
	"parameters":                        "of each model",
	"data.dialogues_generated":          "drills among the dialogues",
	"data.rude_chats":                   "rude answers that the fine-tuning saw",
	"data.vocabulary":                   "tokens",
	"sft.loss_first":                    "nats a token, first step",
	"sft.loss_last":                     "last step",
	"sft.eval_loss_first":               "unseen dialogues, first measurement",
	"sft.eval_loss":                     "unseen dialogues, the exported weights",
	"sft.unigram_loss":                  "token frequencies alone, same tokens",
	"reward.accuracy":                   "share of unseen pairs ordered right",
	"reward.accuracy_first":             "before training",
	"reward.accuracy_length_only":       "the better of longer and shorter wins",
	"reward.reward_mean":                "raw score that counts as 0",
	"reward.reward_std":                 "raw score that counts as 1",
	"ppo.rollouts":                      "rounds of practice",
	"ppo.answers":                       "to unseen prompts, at temperature 1",
	"ppo.reward_first":                  "mean score before PPO",
	"ppo.reward_last":                   "mean score after it",
	"ppo.kl_last":                       "nats an answer, from the fine-tuned model",
	"ppo.eos_rate":                      "share of answers that end themselves",
	"ppo.ratio_first_minibatch":         "new to old probability; 1 if sampler and trainer agree",
	"ppo.ratio_max_dev_first_minibatch": "largest deviation from 1",
	"ppo.length_first":                  "tokens an answer",
	"ppo.ended":                         "why PPO ended early",
	"ptx.coef":                          "weight of the good dialogues in PPO",
	"ptx.eval_loss_sft":                 "unseen dialogues, before PPO",
	"ptx.eval_loss_ppo":                 "after it",
}

func commands(dir string) []command {
	at := func(parts ...string) string { return quoted(filepath.Join(append([]string{dir}, parts...)...)) }
	out := []command{
		{"Talk to it (Ctrl-D leaves), and to what it was before PPO", "ringtail chat --model " + at("ppo", "model") + "\nringtail chat --model " + at("sft", "model")},
	}
	again := command{Comment: "Change the recipes as you like, and train the stages yourself"}
	for i, stage := range []string{"sft", "reward", "ppo"} {
		if i > 0 {
			again.Lines += "\n"
		}
		again.Lines += fmt.Sprintf("ringtail train %s %s --dir my-%s", stage, at("recipes", stage+".yaml"), stage)
	}
	return append(out, again)
}

// quoted writes a path as a shell takes it.
func quoted(path string) string {
	plain := func(r rune) bool {
		return unicode.IsLetter(r) || unicode.IsNumber(r) || strings.ContainsRune(`/\._-+:@,~`, r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// over says what an axis of steps is.
func over(what string, steps int) string {
	if steps < 1 {
		return what
	}
	return fmt.Sprintf("%s over %s steps", what, count(steps))
}

// plotted draws a plot, nil without points.
func plotted(p runs.Plot) *runs.Panel {
	panel := p.Panel()
	if len(panel.Curves) == 0 {
		return nil
	}
	return &panel
}

func find(series []*runs.Series, name string) *runs.Series {
	for _, s := range series {
		if s != nil && s.Name == name {
			return s
		}
	}
	return nil
}

// times100 is a series of shares in percent.
func times100(s *runs.Series) *runs.Series {
	if s == nil {
		return nil
	}
	out := &runs.Series{Name: s.Name, Steps: s.Steps}
	for _, v := range s.Values {
		out.Values = append(out.Values, 100*v)
	}
	return out
}

// duration writes seconds in two languages, "" where they are none.
func duration(seconds float64) (en, zh string) {
	s := int64(math.Round(min(finite(seconds), 1e9)))
	switch {
	case s < 1:
		return "", ""
	case s < 60:
		return fmt.Sprintf("%d\u00a0s", s), fmt.Sprintf("%d\u00a0秒", s)
	case s < 3600:
		return fmt.Sprintf("%d\u00a0min %d\u00a0s", s/60, s%60), fmt.Sprintf("%d\u00a0分\u00a0%d\u00a0秒", s/60, s%60)
	}
	return fmt.Sprintf("%d\u00a0h %d\u00a0min", s/3600, s%3600/60), fmt.Sprintf("%d\u00a0小时\u00a0%d\u00a0分", s/3600, s%3600/60)
}

// finite is v, or 0 where it is no number.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// decimal writes a number with a minus, not a hyphen.
func decimal(v float64, digits int) string {
	if math.IsNaN(v) || math.IsInf(v, 0) || math.Abs(v) >= 1e6 {
		return runs.Figure(v)
	}
	s := fmt.Sprintf("%.*f", digits, v)
	if strings.Trim(s, "-0.") == "" {
		return strings.TrimPrefix(s, "-")
	}
	return strings.Replace(s, "-", "\u2212", 1)
}

// signed writes a score.
func signed(v float64) string {
	s := decimal(v, 2)
	if v > 0 && strings.Trim(s, "0.") != "" {
		return "+" + s
	}
	return s
}

// percent writes a share. Nothing is 100% that isn't.
func percent(v float64) string {
	if r := math.Round(100 * v); v < 1 && r == 100 || v > 0 && r == 0 {
		return decimal(100*v, 1) + "%"
	}
	return decimal(100*v, 0) + "%"
}

// changed writes how a quantity changed, with a comma before it.
func changed(before, after float64) string {
	d := (after/before - 1) * 100
	if before <= 0 || math.IsNaN(d) || math.IsInf(d, 0) {
		return ""
	}
	s := decimal(d, 0)
	switch {
	case s == "0":
		return ", unchanged"
	case d > 0:
		s = "+" + s
	}
	return ", " + s + "%"
}

// choices is the number of equally likely tokens that a loss amounts to.
func choices(loss float64) string {
	n := math.Exp(loss)
	if n < 2.95 {
		return decimal(n, 1)
	}
	return decimal(n, 0)
}

func count(n int) string { return runs.Grouped(int64(max(n, 0))) }

// title writes a name that stands for itself.
func title(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 || r == utf8.RuneError {
		return s
	}
	return string(unicode.ToUpper(r)) + s[n:]
}
