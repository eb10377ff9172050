package runs

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// page is a report taken apart.
type page struct {
	elements map[string]int
	attrs    []string // every attribute value
	text     string
}

// allowed are the elements that the template writes; any other came in
// through text.
var allowed = strings.Fields(`html head meta title style body header h1 h2 bdi p b i em main dl div dt dd small section
	figure figcaption span svg g path rect article pre code table thead tbody tr th td footer`)

func parsePage(t *testing.T, html string) page {
	t.Helper()
	p := page{elements: map[string]int{}}
	// The style sheet holds '>' in selectors, which is no markup.
	start, end := strings.Index(html, "<style>"), strings.Index(html, "</style>")
	if start < 0 || end < start || strings.Contains(html[start+7:end], "<") {
		t.Fatal("no style sheet, or markup in it")
	}
	d := xml.NewDecoder(strings.NewReader(html[:start+7] + html[end:]))
	d.Strict = false
	d.AutoClose = xml.HTMLAutoClose
	d.Entity = xml.HTMLEntity
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
			if !slices.Contains(allowed, name) {
				t.Errorf("element <%s> in the page", name)
			}
			open = append(open, name)
			for _, a := range tok.Attr {
				p.attrs = append(p.attrs, a.Value)
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
	p.text = text.String()
	return p
}

func report1(t *testing.T, dir string) (string, page) {
	t.Helper()
	if err := WriteReport(dir); err != nil {
		t.Fatal(err)
	}
	html := read(t, filepath.Join(dir, ReportFile))
	for _, part := range []string{"default-src 'none'", "prefers-color-scheme: dark", "width=device-width"} {
		if !strings.Contains(html, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	for _, part := range []string{"http://", "https://", "//cdn", "@import", "url(", "ZgotmplZ", "NaN", "Inf"} {
		if strings.Contains(html, part) {
			t.Errorf("the page holds %q", part)
		}
	}
	return html, parsePage(t, html)
}

func TestReport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "my-\u8fd0\u884c")
	r, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	score := 0.75
	for i := 1; i <= 300; i++ {
		v := map[string]float64{"time_s": float64(i), "tokens": float64(i) * 1e4, "loss": 3 + 1/float64(i), "lr": 1e-4, "grad_norm": 1 + float64(i%7)/10,
			"tok_per_s": 5000, "mem_gib": 2.5, "ppo/clip_fraction": 0.1, "time/generate": 1, "time/update": 2, "custom": float64(i)}
		if i == 17 {
			v["grad_norm"] = 1e6
			v["loss"] = math.NaN()
		}
		if i%50 == 0 {
			v["eval/loss"] = 4 - float64(min(i, 200))/100 + float64(max(0, i-200))/100
			for k := range 8 {
				v[fmt.Sprintf("eval/accuracy/s%d", k)] = 0.5
			}
			s := Sample{Step: i, Prompt: "\u4f60\u597d", Completion: fmt.Sprintf("answer at %d", i), Score: &score, Reference: "the reference"}
			if err := r.Sample(s); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Log(i, v); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.WriteRecipe([]byte("train:\n  steps: 300\n")); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteInfo(Info{Objective: "sft", Model: "base-model", Device: "cpu (some chip)", Parameters: 1_500_000, Trainable: 500_000, Steps: 1000, Status: "stopped", Note: "by Ctrl-C"}); err != nil {
		t.Fatal(err)
	}
	_, p := report1(t, dir)
	for _, part := range []string{
		"my-\u8fd0\u884c", "Supervised fine-tuning", "base-model", "stopped", "by Ctrl-C", // head
		"Best evaluation loss2 at step 200", "Steps300 of 1,000", "Training time5m00s", "Tokens3M", "Parameters1.5M 500k trained",
		"Device\u200bcpu some chip", "Peak memory2.500 GiB", // facts
		"Learning rate", "Gradient norm", "1 off the scale", "Clip fraction", "Seconds a step", "Custom", "PPO", // panels
		"\u4f60\u597d", "answer at 50", "answer at 300", "score 0.75", "the reference", // samples
		"steps: 300", "eval/accuracy/s7", // recipe, table
		"step 17", "not finite",
	} {
		part = strings.ReplaceAll(part, "\u200b", "")
		if !strings.Contains(p.text, part) {
			t.Errorf("the page does not say %q", part)
		}
	}
	// loss, 5 of training with custom, 2 of accuracy (8 series), ppo, time.
	if got, want := p.elements["svg"], 1+5+2+1+1; got != want {
		t.Errorf("%d plots, want %d", got, want)
	}
}

// The model's output, its prompts, and everything else that is text may be
// hostile.
func TestReportEscapes(t *testing.T) {
	evil := []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</style><script>x</script>`, `</title><h1>x`, `<!-- `, `]]>`, `' onclick='x`,
		`{{.Style}}`, `&lt;b&gt;`, "\u202edlrow\u2066", "\x1b[31m\x00\x7f", `javascript:alert(1)`, "\xff\xfe",
	}
	all := strings.Join(evil, " ")
	dir := filepath.Join(t.TempDir(), `run <i>&"'`)
	r, err := Create(dir)
	if err != nil {
		t.Skipf("this system cannot have such a folder: %v", err)
	}
	defer r.Close()
	for i := 1; i <= 3; i++ {
		if err := r.Log(i, map[string]float64{"loss": 1, all: 2, "eval/accuracy/" + all: 3, all + "/x": 4}); err != nil {
			t.Fatal(err)
		}
		if err := r.Sample(Sample{Step: i, Prompt: all, Completion: all, Reference: all, Finish: all}); err != nil {
			t.Fatal(err)
		}
	}
	r.WriteRecipe([]byte(all))
	r.WriteInfo(Info{Objective: all, Model: all, Device: all, Status: all, Note: all})
	html, p := report1(t, dir)
	for _, bad := range []string{"<script", "<img", "<h1>x", "<!--", "\u202e", "\u2066", "\x1b", "\x00", "\xff"} {
		if strings.Contains(html, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
	if p.elements["style"] != 1 || p.elements["h1"] != 1 {
		t.Errorf("elements %v", p.elements)
	}
	// It is shown, not swallowed: in the prompt, three answers, the reference.
	if n := strings.Count(p.text, `"><img src=x onerror=alert(1)>`); n < 5 {
		t.Errorf("the text is shown %d times, want at least 5", n)
	}
	if !strings.Contains(p.text, "&lt;b&gt;") {
		t.Error("escapes in text were decoded")
	}
	if !strings.Contains(p.text, "\u241b[31m\u2400\u2421") {
		t.Error("control characters are not shown")
	}
}

func TestReportOfLittle(t *testing.T) {
	for name, c := range map[string]string{
		"nothing":     "",
		"one step":    `{"step":5,"loss":2}`,
		"no numbers":  `{"step":1,"loss":null}` + "\n" + `{"step":2,"loss":null}`,
		"zeros":       `{"step":0,"loss":0,"lr":0}` + "\n" + `{"step":1,"loss":0,"lr":0}`,
		"huge":        `{"step":1,"loss":1e308}` + "\n" + `{"step":2,"loss":-1e308}` + "\n" + `{"step":3,"loss":1e299}` + "\n" + `{"step":4,"loss":-1e299}`,
		"far apart":   `{"step":-9223372036854775808,"loss":1}` + "\n" + `{"step":9223372036854775807,"loss":2}`,
		"backwards":   `{"step":3,"loss":1}` + "\n" + `{"step":1,"loss":2}`,
		"only clocks": `{"step":3,"time_s":1e300,"tokens":-5}`,
		"odd names":   `{"step":3,"":1,"/":2,"a/":3,"//":4,"eval/accuracy/":5}`,
		"tiny":        `{"step":1,"loss":1e-300}` + "\n" + `{"step":2,"loss":2e-300}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c != "" {
				write(t, filepath.Join(dir, MetricsFile), c+"\n")
			}
			report1(t, dir)
		})
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, MetricsFile), "{\n{\"step\":1}\n")
	if err := WriteReport(dir); err == nil || !strings.Contains(err.Error(), MetricsFile+":1") {
		t.Errorf("broken metrics: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, ReportFile)); err == nil {
		t.Error("a report was written from broken metrics")
	}
}

// However long the run, the page stays small and keeps its extremes.
func TestReportOfALongRun(t *testing.T) {
	dir := t.TempDir()
	var b strings.Builder
	for i := 1; i <= 50_000; i++ {
		loss := 2 + math.Sin(float64(i)/100)
		if i == 31_234 {
			loss = 5.5
		}
		fmt.Fprintf(&b, "{\"step\":%d,\"loss\":%.4f}\n", i, loss)
	}
	write(t, filepath.Join(dir, MetricsFile), b.String())
	b.Reset()
	for i := range 30_000 {
		fmt.Fprintf(&b, "{\"step\":%d,\"prompt\":\"p%d\",\"completion\":\"%s\"}\n", i, i%1000, strings.Repeat("x", 100))
	}
	write(t, filepath.Join(dir, SamplesFile), b.String())
	html, p := report1(t, dir)
	if len(html) > 300_000 {
		t.Errorf("the page has %d bytes", len(html))
	}
	if !strings.Contains(p.text, "960 more prompts are in samples.jsonl") || !strings.Contains(p.text, "22 answers between these") {
		t.Error("what was left out is not told")
	}
	// The spike is the highest point: at the top of the box but for the margin.
	top := 1e9
	for _, d := range p.attrs {
		if !strings.HasPrefix(d, "M") || !strings.Contains(d, "L") {
			continue
		}
		for _, point := range strings.Split(d[1:], "L") {
			var x, y float64
			if _, err := fmt.Sscanf(point, "%g %g", &x, &y); err != nil {
				t.Fatalf("point %q: %v", point, err)
			}
			top = min(top, y)
		}
	}
	if top < 0 || top > 0.08*boxH {
		t.Errorf("the highest point is at %v of %d", top, boxH)
	}
}

func TestPromptRows(t *testing.T) {
	var samples []Sample
	for _, s := range []int{100, 1, 50, 20, 30, 40, 60, 70, 80, 90} {
		samples = append(samples, Sample{Step: s, Prompt: "b", Completion: fmt.Sprint(s)}, Sample{Step: s, Prompt: "a", Completion: strings.Repeat("\u4e2d", maxChars+5)})
	}
	rows, hidden := promptRows(samples)
	if len(rows) != 2 || hidden != 0 || rows[0].Prompt != "b" || rows[0].Hidden != 2 {
		t.Fatalf("%d rows, %d hidden, first %+v", len(rows), hidden, rows[0])
	}
	var steps []int
	for _, a := range rows[0].Answers {
		steps = append(steps, a.Step)
	}
	if len(steps) != maxAnswers || steps[0] != 1 || steps[len(steps)-1] != 100 || !slices.IsSorted(steps) {
		t.Errorf("steps %v", steps)
	}
	if got := []rune(rows[1].Answers[0].Text); len(got) != maxChars+1 || got[maxChars] != '\u2026' {
		t.Errorf("a long answer has %d characters", len(got))
	}
}

func FuzzReport(f *testing.F) {
	f.Add([]byte("{\"step\":1,\"loss\":2}\n{\"step\":2,\"loss\":null,\"a/b\":1e308}\n"), []byte("{\"step\":1,\"prompt\":\"<b>\",\"completion\":\"\\u0000\"}\n"), []byte("a: b"))
	f.Add([]byte("{\"step\":-9223372036854775808,\"x\":-0}\n{\"step\":1e3}\n"), []byte("{}"), []byte("<"))
	f.Fuzz(func(t *testing.T, metrics, samples, recipe []byte) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, MetricsFile), string(metrics))
		write(t, filepath.Join(dir, SamplesFile), string(samples))
		write(t, filepath.Join(dir, RecipeFile), string(recipe))
		if WriteReport(dir) == nil {
			parsePage(t, read(t, filepath.Join(dir, ReportFile)))
		}
	})
}
