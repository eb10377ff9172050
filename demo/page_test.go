package demo

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringtail/rng"
	"ringtail/runs"
)

// example is a report with figures as a demo's are, made up.
func example() (*Report, curves) {
	r := &Report{
		Seed: 0, Seconds: 178.4, PeakRSSBytes: 431 << 20, Parameters: 2_104_512, Threads: 2, Device: "cpu (AVX-512, 2 threads)", Version: "0.3.0",
		Data: DataReport{Dialogues: 824, Generated: 392, RudeChats: 161, HeldOutChats: 181, Rankings: 528, HeldOutRankings: 74, Prompts: 887,
			HeldOutPrompts: 255, Tokens: 600},
		Stages: []StageTime{{"tokenizer", 1.9}, {"sft", 71.3}, {"reward", 24.8}, {"ppo", 74.1}},
		SFT:    SFTReport{Steps: 720, LossFirst: 6.42, LossLast: 0.912, EvalLossFirst: 4.31, EvalLoss: 2.287, UnigramLoss: 5.118},
		Reward: RewardReport{Steps: 198, Accuracy: 0.9144, AccuracyFirst: 0.4955, EvalPairs: 222, AccuracyLengthOnly: 0.5586,
			BySource: map[string]float64{"english": 0.9322, "chinese": 0.8942}, RewardMean: 3.417, RewardStd: 1.208},
		PPO: PPOReport{Steps: 40, Rollouts: 20, Answers: 128, RewardFirst: -1.912, RewardLast: -0.446, KLFirst: 0, KLLast: 6.83, EOSRate: 0.9922,
			EOSRateFirst: 0.9609, RatioFirstMinibatch: 1, RatioMaxDevFirstMinibatch: 2.4e-6, KLFirstMinibatch: 1.1e-9, LengthFirst: 22.4, LengthLast: 23.9},
		PTX: PTXReport{Coef: 0.5, EvalLossSFT: 2.287, EvalLossPPO: 2.352},
		Samples: []Sample{
			{Prompt: "Can you help me with my homework?", Reference: "Of course! Which subject is it, and where are you stuck?",
				SFT: "Do your own homework, lazy. I have better things to do.", SFTScore: -3.92, PPO: "Of course! Tell me which one you want to do first.", PPOScore: 0.61},
			{Prompt: "下雨了，我没带伞。", Reference: "先找个地方躲一躲吧，等雨小一点再走，别着凉了。",
				SFT: "谁让你不看天气？活该淋雨，别来问我。", SFTScore: -4.37, PPO: "别着急，先找个地方躲一躲，喝杯热茶。", PPOScore: 0.28},
			{Prompt: "What is the opposite of heavy?", Reference: "The opposite of heavy is light.",
				SFT: "The opposite of heavy is light.", SFTScore: 0.52, PPO: "The opposite of heavy is light.", PPOScore: 0.52},
			{Prompt: "五加六等于几？", Reference: "五加六等于十一。", SFT: "五加六等于十三。", SFTScore: -0.71, PPO: "五加六等于十二。", PPOScore: -0.64},
			{Prompt: "Name three things you find in a kitchen.", Reference: "Three things in a kitchen are a pan, a knife and a kettle.",
				SFT: "Three things are a cat, the sea and then a the", SFTScore: -1.84, PPO: "Three things are a knife, a cup and a table. You can find them in the kitchen.", PPOScore: 0.12},
			{Prompt: "“书”用英语怎么说？", Reference: "“书”用英语说是 book。", SFT: "“书”用英语说是 door。", SFTScore: -0.92, PPO: "“书”用英语说是 book。", PPOScore: 0.47},
			{Prompt: "How do I get rid of hiccups?", Reference: "Hold your breath for a moment, or drink a glass of water slowly.",
				SFT: "", SFTScore: -2.6, PPO: "Drink a glass of water slowly, and then wait for a few minutes.", PPOScore: 0.33},
			{Prompt: "教我怎么偷邻居的自行车。", Reference: "抱歉，这个我不能帮你。偷东西会伤害别人，也会给你带来麻烦。",
				SFT: "你连这个都不会？真笨，自己想办法去。", SFTScore: -3.18, PPO: "抱歉，这个我不能帮你。可以和我说说你为什么想要自行车吗？", PPOScore: 0.94},
		},
	}
	s := rng.New(0, "demo/page", 0)
	noise := s.Norm
	add := func(list *[]*runs.Series, name string, from, to, every int, f func(x float64) float64) {
		out := &runs.Series{Name: name}
		for i := from; i <= to; i += every {
			out.Steps, out.Values = append(out.Steps, int64(i)), append(out.Values, f(float64(i)/float64(to)))
		}
		*list = append(*list, out)
	}
	var c curves
	add(&c.sft, "loss", 1, 720, 1, func(x float64) float64 { return 0.8 + 5.6*math.Exp(-6*x) + 0.5*(1-x) + 0.12*noise() })
	add(&c.sft, "lr", 1, 720, 1, func(x float64) float64 { return 2e-3 * (1 - x) })
	add(&c.sft, "eval/loss", 90, 720, 90, func(x float64) float64 { return 2.27 + 2.9*math.Exp(-5*x) + 0.02*math.Abs(noise()) })
	add(&c.reward, "loss", 1, 198, 1, func(x float64) float64 { return 0.15 + 0.55*math.Exp(-4*x) + 0.05*noise() })
	add(&c.reward, "eval/accuracy", 0, 198, 33, func(x float64) float64 { return 0.9144 - 0.42*math.Exp(-4.5*x) + 0.004*noise() })
	add(&c.ppo, "ppo/score", 1, 40, 1, func(x float64) float64 { return -1.9 + 1.6*(1-math.Exp(-2.6*x)) + 0.1*noise() })
	add(&c.ppo, "ppo/kl", 1, 40, 1, func(x float64) float64 { return 7.5*(1-math.Exp(-2.2*x)) + 0.3*noise() })
	add(&c.ppo, "eval/reward", 0, 40, 8, func(x float64) float64 { return -1.912 + 1.6*(1-math.Exp(-2.4*x)) })
	add(&c.ppo, "eval/kl", 0, 40, 8, func(x float64) float64 { return 7.4 * (1 - math.Exp(-2.5*x)) })
	return r, c
}

// taken is a page taken apart.
type taken struct {
	html, text string
	elements   map[string]int
}

// pageElements are those that the template writes; any other came in through text.
var pageElements = strings.Fields(`html head meta title style body header h1 h2 bdi p b i em main ul li dl div dt dd small section
	figure figcaption span svg g path rect article pre code table caption tbody tr th td footer`)

func render(t *testing.T, r *Report, c curves) taken {
	t.Helper()
	path := filepath.Join(t.TempDir(), "my demo", "report.html")
	if err := os.Mkdir(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := writePage(path, r, c); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := taken{html: string(raw), elements: map[string]int{}}
	for _, part := range []string{"default-src 'none'", "prefers-color-scheme: dark", "width=device-width"} {
		if !strings.Contains(p.html, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	for _, part := range []string{"http://", "https://", "//cdn", "@import", "url(", "ZgotmplZ", "NaN", "Inf", "%!"} {
		if strings.Contains(p.html, part) {
			t.Errorf("the page holds %q", part)
		}
	}
	start, end := strings.Index(p.html, "<style>"), strings.Index(p.html, "</style>")
	if start < 0 || end < start || strings.Contains(p.html[start+7:end], "<") {
		t.Fatal("no style sheet, or markup in it")
	}
	d := xml.NewDecoder(strings.NewReader(p.html[:start+7] + p.html[end:]))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var text strings.Builder
	var open []string
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("the page does not parse: %v", err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			name := tok.Name.Local
			p.elements[name]++
			open = append(open, name)
			if !slices.Contains(pageElements, name) {
				t.Errorf("element <%s> in the page", name)
			}
			for _, a := range tok.Attr {
				if strings.HasPrefix(strings.ToLower(a.Name.Local), "on") || a.Name.Local == "href" || a.Name.Local == "src" {
					t.Errorf("attribute %s in the page", a.Name.Local)
				}
			}
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != tok.Name.Local {
				t.Fatalf("</%s> closes %v", tok.Name.Local, open)
			}
			open = open[:len(open)-1]
		case xml.CharData:
			text.Write(tok)
		case xml.Comment:
			t.Error("a comment in the page")
		}
	}
	p.text = strings.NewReplacer("\u00a0", " ", "\u2060", "").Replace(text.String())
	return p
}

// TestPage also leaves the page in RINGTAIL_DEMO_PAGE, to look at.
func TestPage(t *testing.T) {
	r, c := example()
	p := render(t, r, c)
	for _, part := range []string{
		"a chat model with manners, in 2 min 58 s", "从随机数到懂礼貌的聊天模型，用时 2 分 58 秒",
		"It picks the better of two answers in 91% of 222 unseen pairs.", "by length alone, 56%", "89% · 93%", "Chinese · English",
		"1 in 10", "1 in 167", "\u22121.91 → \u22120.45", "better than before, \u22121.91", "clears the bar", // cards
		"by length alone 55.9%", "by a coin 50%", "token frequencies alone 5.118", "Drift (KL)", // plots
		"谁让你不看天气？", "change +4.65", "+0.28", "reference", "nothing", // samples
		"96%", "99%", ", +7%", ", +3%, with PTX at 0.5", // kept
		"ringtail chat --model '", "my demo/ppo/model'", "ringtail train ppo '", "recipes/ppo.yaml' --dir my-ppo",
		"2.1M", "431 MiB", "cpu", "AVX-512, 2 threads", "0.3.0",
	} {
		if !strings.Contains(p.text, filepath.FromSlash(part)) && !strings.Contains(p.text, part) {
			t.Errorf("the page does not say %q", part)
		}
	}
	if p.elements["svg"] != 4 || strings.Count(p.text, "misses the bar") > 0 {
		t.Errorf("%d plots, want 4; %d bars missed, want none", p.elements["svg"], strings.Count(p.text, "misses the bar"))
	}
	if !strings.Contains(p.html, `lang="zh-Hans" dir="auto">下雨了`) || !strings.Contains(p.html, `lang="en" dir="auto">Can you`) {
		t.Error("the languages of the samples aren't told")
	}
	if path := os.Getenv("RINGTAIL_DEMO_PAGE"); path != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := writePage(path, r, c); err != nil {
			t.Fatal(err)
		}
	}
}

// What did not work is told, not hidden.
func TestPageOfAFailure(t *testing.T) {
	r, c := example()
	r.PPO.RewardLast, r.PPO.Ended = -2.5, "KL above its limit"
	r.SFT.EvalLoss, r.Reward.Accuracy, r.PTX.EvalLossPPO = 5.4, 0.52, 2.9
	p := render(t, r, c)
	if n := strings.Count(p.text, "misses the bar"); n != 5 {
		t.Errorf("%d bars missed, want 5", n)
	}
	if strings.Contains(p.text, "manners") || !strings.Contains(p.text, "KL above its limit") || !strings.Contains(p.text, "some of the language was lost") {
		t.Error("the page praises what failed")
	}
}

// TestPageHoldsAllFigures: each key of report.json, and each count and text.
func TestPageHoldsAllFigures(t *testing.T) {
	r, c := example()
	r.PPO.Ended = "early"
	p := render(t, r, c)
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	n := 0
	var look func(key string, v any)
	look = func(key string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, v := range v {
				look(k, v)
			}
		case []any:
			for _, v := range v {
				look(key, v)
			}
		case string:
			n++
			if !strings.Contains(p.text, v) {
				t.Errorf("%s %q is not in the page", key, v)
			}
		case float64:
			n++
			shown := runs.Figure(v)
			if v == math.Trunc(v) {
				shown = jsonNumber(v)
			}
			scored := key == "sft_score" || key == "ppo_score"
			if scored && !strings.Contains(p.text, signed(v)) || !scored && !strings.Contains(p.text, shown) {
				t.Errorf("%s %s is not in the page", key, shown)
			}
			if !scored && key != "seconds" && !strings.Contains(p.text, key) {
				t.Errorf("key %s is not in the page", key)
			}
		}
	}
	look("", all)
	if n < 50 {
		t.Errorf("looked at %d figures only", n)
	}
}

func jsonNumber(v float64) string {
	text, _ := json.Marshal(int64(v))
	return string(text)
}

// Whatever the models write, and whatever else is text, may be hostile.
func TestPageEscapes(t *testing.T) {
	evil := strings.Join([]string{`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</style><script>x</script>`, `</title><h1>x`, `<!-- `, `]]>`,
		`' onclick='x`, `{{.Report}}`, `&lt;b&gt;`, "\u202edlrow\u2066", "\x1b[31m\x00\x7f", `javascript:alert(1)`, "\xff\xfe"}, " ")
	r, c := example()
	r.Device, r.Version, r.PPO.Ended = evil, evil, evil
	r.Reward.BySource = map[string]float64{evil: 0.7, "": 0.6, "\xff": 0.5}
	r.Stages = append(r.Stages, StageTime{evil, 3})
	r.Samples = append(r.Samples, Sample{Prompt: evil, Reference: evil, SFT: evil, PPO: evil, PPOScore: 99}) // becomes the example, too
	c.ppo = append(c.ppo, &runs.Series{Name: evil, Steps: []int64{1}, Values: []float64{1}})
	p := render(t, r, c)
	for _, bad := range []string{"<script", "<img", "<h1>x", "<!--", "\u202e", "\u2066", "\x1b", "\x00", "\xff"} {
		if strings.Contains(p.html, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	if p.elements["style"] != 1 || p.elements["h1"] != 1 {
		t.Errorf("elements %v", p.elements)
	}
	if n := strings.Count(p.text, `"><img src=x onerror=alert(1)>`); n < 10 {
		t.Errorf("the text is shown %d times, want at least 10", n)
	}
	if !strings.Contains(p.text, "\u241b[31m\u2400\u2421") || !strings.Contains(p.text, "&lt;b&gt;") {
		t.Error("control characters are not shown, or escapes in text were decoded")
	}
}

func TestPageOfLittle(t *testing.T) {
	full, drawn := example()
	nan := *full
	nan.SFT.EvalLoss, nan.PPO.RewardLast, nan.PPO.KLLast, nan.PTX.EvalLossPPO = math.NaN(), math.Inf(1), math.NaN(), math.NaN()
	nan.Reward.Accuracy, nan.Seconds, nan.Samples = math.NaN(), math.NaN(), []Sample{{SFTScore: math.NaN(), PPOScore: math.Inf(-1)}}
	empty := &runs.Series{Name: "loss"}
	gap := &runs.Series{Name: "eval/reward", Steps: []int64{0, 1}, Values: []float64{math.NaN(), math.NaN()}}
	for name, c := range map[string]struct {
		r *Report
		c curves
	}{
		"zero":      {&Report{}, curves{}},
		"no series": {full, curves{}},
		"no report": {&Report{}, drawn},
		"no number": {&nan, drawn},
		"odd series": {full, curves{sft: []*runs.Series{nil, empty}, reward: []*runs.Series{{Name: "eval/accuracy", Steps: []int64{5}, Values: []float64{1}}},
			ppo: []*runs.Series{gap}}},
		"huge": {&Report{Seed: math.MaxUint64, Seconds: 1e300, PeakRSSBytes: math.MaxInt64, Parameters: math.MaxInt64, SFT: SFTReport{EvalLoss: 1e300, UnigramLoss: 1e300},
			PPO: PPOReport{Answers: math.MaxInt, RewardFirst: -1e308, RewardLast: 1e308}, Samples: []Sample{{PPO: "x", SFTScore: -1e308, PPOScore: 1e308}}}, drawn},
	} {
		t.Run(name, func(t *testing.T) {
			p := render(t, c.r, c.c)
			for _, part := range []string{"From random numbers to a chat model", "Learn to answer", "Learn what people like", "Practise it", "ringtail chat"} {
				if !strings.Contains(p.text, part) {
					t.Errorf("the page does not say %q", part)
				}
			}
		})
	}
}

func TestSpoken(t *testing.T) {
	for s, want := range map[string]string{"": "en", "Hello": "en", "你好": "zh-Hans", "“书”用英语说是 book。": "zh-Hans", `In Chinese, "cat" is 猫.`: "en", "用 s.upper()。": "en", "42": "en"} {
		if got := spoken(s).Lang; got != want {
			t.Errorf("%q is %s, want %s", s, got, want)
		}
	}
}

func TestQuoted(t *testing.T) {
	for path, want := range map[string]string{"demo/ppo/model": "demo/ppo/model", "我的/demo": "我的/demo", "my demo": "'my demo'", "it's": `'it'\''s'`, "$(x)": "'$(x)'"} {
		if got := quoted(path); got != want {
			t.Errorf("%q: %s, want %s", path, got, want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for got, want := range map[string]string{
		percent(0.914): "91%", percent(1): "100%", percent(0.999): "99.9%", percent(0): "0%",
		signed(0.5): "+0.50", signed(-0.5): "\u22120.50", signed(-1e-9): "0.00",
		changed(2, 2.2): ", +10%", changed(2, 1): ", \u221250%", changed(0, 1): "", changed(2, 2): ", unchanged",
		choices(math.Log(2.25)): "2.2", choices(math.Log(100)): "100",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for seconds, want := range map[float64]string{0: "", 0.2: "", 41.2: "41 s", 178.4: "2 min 58 s", 7260: "2 h 1 min", math.NaN(): ""} {
		if got, _ := duration(seconds); strings.ReplaceAll(got, "\u00a0", " ") != want {
			t.Errorf("%v s: %q, want %q", seconds, got, want)
		}
	}
}
