package runs

import (
	"bytes"
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ringtail/atomicfile"
)

//go:embed report.html.tmpl
var reportTemplate string

var reportPage = PageTemplate(reportTemplate, "")

// WriteReport makes report.html of a run folder from the files beside it. It
// may be called at any time, from any process: the page is replaced whole.
func WriteReport(dir string) error {
	page, err := newReport(dir)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	var b bytes.Buffer
	if err := reportPage.Execute(&b, page); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return atomicfile.WriteBytes(filepath.Join(dir, ReportFile), 0o666, b.Bytes())
}

// report is what the template shows. All text in it is untrusted; html/template
// escapes it by context.
type report struct {
	Name     string
	Subtitle string
	Status   string // "" for done
	Note     string
	Facts    []fact
	Sections []section
	Prompts  []promptRow
	Hidden   int // prompts not shown
	Recipe   string
	Table    []tableRow
	Made     string
}

// fact is a tile of the summary.
type fact struct{ Name, Value, Detail string }

type section struct {
	Title  string
	Panels []Panel
}

// Pairs says whether two columns look better than three.
func (s section) Pairs() bool { return len(s.Panels) == 2 || len(s.Panels) == 4 }

// promptRow is a prompt with its answers side by side.
type promptRow struct {
	Prompt    string
	Reference string
	Answers   []answer
	Hidden    int // answers not shown
}

type answer struct {
	Step  int
	Text  string
	Score string
	Cut   bool // ended by the length limit
}

type tableRow struct {
	Key, First, Last, Low, LowAt, High, HighAt string
}

// Bounds on what the page shows of samples.jsonl.
const (
	maxPrompts = 40
	maxAnswers = 8
	maxChars   = 6000 // of one text
)

func newReport(dir string) (*report, error) {
	info, err := ReadInfo(dir)
	if err != nil {
		return nil, err
	}
	series, err := ReadMetrics(dir)
	if err != nil {
		return nil, err
	}
	samples, err := ReadSamples(dir)
	if err != nil {
		return nil, err
	}
	recipe, err := os.ReadFile(filepath.Join(dir, RecipeFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	name := filepath.Base(dir)
	if abs, err := filepath.Abs(dir); err == nil {
		name = filepath.Base(abs) // dir may be "."
	}
	for _, s := range series {
		s.sortSteps()
	}
	r := &report{
		Name:     name,
		Subtitle: subtitle(info),
		Note:     info.Note,
		Facts:    facts(info, series),
		Sections: sections(series),
		Recipe:   string(recipe),
		Table:    table(series),
		Made:     time.Now().Format("2 January 2006, 15:04"),
	}
	if info.Status != "done" {
		r.Status = info.Status
	}
	r.Prompts, r.Hidden = promptRows(samples)
	return r, nil
}

// sortSteps mends a file that was put together by hand; ours are in order.
func (s *Series) sortSteps() {
	if slices.IsSorted(s.Steps) {
		return
	}
	order := make([]int, len(s.Steps))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(s.Steps[a], s.Steps[b]) })
	steps, values := make([]int64, len(order)), make([]float64, len(order))
	for i, j := range order {
		steps[i], values[i] = s.Steps[j], s.Values[j]
	}
	s.Steps, s.Values = steps, values
}

func subtitle(info Info) string {
	var parts []string
	if info.Objective != "" {
		parts = append(parts, objectiveName(info.Objective))
	}
	if info.Model != "" {
		parts = append(parts, info.Model)
	}
	if !info.Started.IsZero() {
		parts = append(parts, info.Started.Local().Format("2 January 2006, 15:04"))
	}
	return strings.Join(parts, " \u00b7 ")
}

func objectiveName(s string) string {
	if name, ok := map[string]string{
		"pretrain": "Pretraining", "sft": "Supervised fine-tuning", "reward": "Reward model",
	}[s]; ok {
		return name
	}
	return strings.ToUpper(s)
}

func find(series []*Series, name string) *Series {
	for _, s := range series {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// extreme is the index of the lowest (sign 1) or highest (sign -1) value; -1
// without any.
func (s *Series) extreme(sign float64) int {
	best := -1
	for i, v := range s.Values {
		if !math.IsNaN(v) && (best < 0 || sign*v < sign*s.Values[best]) {
			best = i
		}
	}
	return best
}

func facts(info Info, series []*Series) []fact {
	var out []fact
	add := func(name, value, detail string) { out = append(out, fact{name, value, detail}) }
	if s := find(series, "loss"); s != nil {
		add("Final loss", Figure(s.Last()), "")
	}
	if s := find(series, "eval/loss"); s != nil {
		if i := s.extreme(1); i >= 0 {
			add("Best evaluation loss", Figure(s.Values[i]), "at step "+Grouped(s.Steps[i]))
		}
	}
	best := 0
	for _, s := range series {
		if source, ok := strings.CutPrefix(s.Name, "eval/accuracy/"); ok && best < 2 {
			best++
			if i := s.extreme(-1); i >= 0 {
				add("Best accuracy", Figure(s.Values[i]), source+", at step "+Grouped(s.Steps[i]))
			}
		}
	}
	if s := find(series, "ppo/reward"); s != nil {
		add("Final reward", Figure(s.Last()), "")
	}
	last := int64(0)
	for _, s := range series {
		last = max(last, s.Steps[len(s.Steps)-1])
	}
	if last > 0 {
		detail := ""
		if info.Steps > 0 && int64(info.Steps) != last {
			detail = "of " + Grouped(int64(info.Steps))
		}
		add("Steps", Grouped(last), detail)
	}
	if s := find(series, "time_s"); s != nil {
		add("Training time", shortDuration(seconds(s.Last())), "")
	}
	if s := find(series, "tokens"); s != nil {
		add("Tokens", shortNumber(s.Last()), "")
	}
	if s := find(series, "tok_per_s"); s != nil {
		if v := median(s.finite().Values); v > 0 {
			add("Tokens a second", shortNumber(v), "median")
		}
	}
	if info.Parameters > 0 {
		detail := ""
		if info.Trainable > 0 && info.Trainable != info.Parameters {
			detail = fmt.Sprintf("%s trained", shortNumber(float64(info.Trainable)))
		}
		add("Parameters", shortNumber(float64(info.Parameters)), detail)
	}
	if s := find(series, "mem_gib"); s != nil {
		if i := s.extreme(-1); i >= 0 {
			add("Peak memory", Figure(s.Values[i])+" GiB", "")
		}
	}
	if info.Device != "" {
		name, rest, _ := strings.Cut(info.Device, " (")
		add("Device", name, strings.TrimSuffix(rest, ")"))
	}
	return out
}

func seconds(v float64) time.Duration {
	if !(v > 0 && v < 1e9) {
		return 0
	}
	return time.Duration(v * float64(time.Second))
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// keyNames are the names of well-known metrics.
var keyNames = map[string]string{
	"loss":      "Training loss",
	"eval/loss": "Evaluation loss",
	"lr":        "Learning rate",
	"grad_norm": "Gradient norm",
	"tok_per_s": "Tokens a second",
	"mem_gib":   "Memory, GiB",
	"ppo/kl":    "KL divergence",
}

// keyName writes any other metric's name: eval/accuracy/zh is "accuracy zh",
// ppo/clip_fraction is "Clip fraction".
func keyName(key string) string {
	if name, ok := keyNames[key]; ok {
		return name
	}
	if _, rest, ok := strings.Cut(key, "/"); ok {
		key = rest
	}
	name := strings.NewReplacer("_", " ", "/", " ").Replace(key)
	r, n := utf8.DecodeRuneInString(name)
	if n == 0 {
		return key
	}
	return string(unicode.ToUpper(r)) + name[n:]
}

// fromZero are metrics whose axis begins at 0: their size means something
// beside their change.
func fromZero(key string) bool {
	return key == "lr" || key == "tok_per_s" || key == "mem_gib" || strings.HasPrefix(key, "time/")
}

// sections groups the metrics: loss large and first, then what every run has,
// then a section a prefix.
func sections(series []*Series) []section {
	steps := stepAxis(series)
	used := map[string]bool{"time_s": true, "tokens": true} // clocks, not curves
	var out []section
	var loss, training section // the loss's panel is title enough
	training.Title = "Training"
	var lines []Line
	for _, key := range []string{"loss", "eval/loss"} {
		if s := find(series, key); s != nil {
			used[key] = true
			lines = append(lines, Line{Name: strings.TrimSuffix(keyName(key), " loss"), Series: s})
		}
	}
	if len(lines) > 0 {
		loss.Panels = []Panel{Plot{Title: "Loss", Wide: true, Lines: lines}.draw(steps)}
		out = append(out, loss)
	}
	single := func(s *Series) Panel {
		used[s.Name] = true
		return Plot{Title: keyName(s.Name), FromZero: fromZero(s.Name), Lines: []Line{{Name: keyName(s.Name), Series: s}}}.draw(steps)
	}
	for _, key := range []string{"lr", "grad_norm", "tok_per_s", "mem_gib"} {
		if s := find(series, key); s != nil {
			training.Panels = append(training.Panels, single(s))
		}
	}
	for _, s := range series { // names without prefix
		if !used[s.Name] && !strings.Contains(s.Name, "/") {
			training.Panels = append(training.Panels, single(s))
		}
	}
	if len(training.Panels) > 0 {
		out = append(out, training)
	}
	var prefixes []string
	for _, s := range series {
		prefix, _, _ := strings.Cut(s.Name, "/")
		if !used[s.Name] && !slices.Contains(prefixes, prefix) {
			prefixes = append(prefixes, prefix)
		}
	}
	// Phases' times are of the least interest.
	slices.SortStableFunc(prefixes, func(a, b string) int { return prefixRank(a) - prefixRank(b) })
	for _, prefix := range prefixes {
		sec := section{Title: sectionTitle(prefix)}
		sec.Panels = append(sec.Panels, together(series, used, steps, prefix+"/accuracy/", "Accuracy")...)
		if prefix == "time" {
			sec.Panels = append(sec.Panels, together(series, used, steps, "time/", "Seconds a step")...)
		}
		for _, s := range series {
			if !used[s.Name] && strings.HasPrefix(s.Name, prefix+"/") {
				sec.Panels = append(sec.Panels, single(s))
			}
		}
		out = append(out, sec)
	}
	return out
}

func prefixRank(prefix string) int {
	switch prefix {
	case "eval":
		return 0
	case "time":
		return 2
	}
	return 1
}

func sectionTitle(prefix string) string {
	switch {
	case prefix == "eval":
		return "Evaluation"
	case prefix == "time":
		return "Time by phase"
	case len(prefix) <= 5: // ppo, dpo, grpo, simpo
		return strings.ToUpper(prefix)
	}
	return keyName(prefix)
}

// together plots the metrics that begin with prefix into as few panels as there
// are colors for.
func together(series []*Series, used map[string]bool, steps axis, prefix, title string) []Panel {
	var lines []Line
	for _, s := range series {
		if rest, ok := strings.CutPrefix(s.Name, prefix); ok && !used[s.Name] {
			used[s.Name] = true
			lines = append(lines, Line{Name: strings.ReplaceAll(rest, "_", " "), Series: s})
		}
	}
	var panels []Panel
	for part := range slices.Chunk(lines, colors) {
		panels = append(panels, Plot{Title: title, FromZero: fromZero(prefix), Lines: part}.draw(steps))
	}
	return panels
}

func table(series []*Series) []tableRow {
	var rows []tableRow
	for _, s := range series {
		row := tableRow{Key: s.Name, First: Figure(s.Values[0]), Last: Figure(s.Last())}
		if i := s.extreme(1); i >= 0 {
			row.Low, row.LowAt = Figure(s.Values[i]), fmt.Sprint(s.Steps[i])
		}
		if i := s.extreme(-1); i >= 0 {
			row.High, row.HighAt = Figure(s.Values[i]), fmt.Sprint(s.Steps[i])
		}
		rows = append(rows, row)
	}
	return rows
}

// promptRows sorts samples by prompt, in the order of first appearance, and
// thins out long rows, keeping the first and last steps.
func promptRows(samples []Sample) (rows []promptRow, hidden int) {
	index := map[string]int{}
	for _, s := range samples {
		i, seen := index[s.Prompt]
		if !seen {
			i = len(rows)
			index[s.Prompt] = i
			rows = append(rows, promptRow{Prompt: clip(s.Prompt), Reference: clip(s.Reference)})
		}
		a := answer{Step: s.Step, Text: clip(s.Completion), Cut: s.Finish == "length"}
		if s.Score != nil {
			a.Score = fmt.Sprintf("%.3g", *s.Score)
		}
		rows[i].Answers = append(rows[i].Answers, a)
	}
	if len(rows) > maxPrompts {
		hidden = len(rows) - maxPrompts
		rows = rows[:maxPrompts]
	}
	for i := range rows {
		all := rows[i].Answers
		slices.SortStableFunc(all, func(a, b answer) int { return cmp.Compare(a.Step, b.Step) })
		if len(all) <= maxAnswers {
			continue
		}
		var kept []answer
		for j := range maxAnswers {
			kept = append(kept, all[j*(len(all)-1)/(maxAnswers-1)])
		}
		rows[i].Answers, rows[i].Hidden = kept, len(all)-maxAnswers
	}
	return rows, hidden
}

// clip bounds one text's share of the page.
func clip(s string) string {
	n := 0
	for i := range s {
		if n++; n > maxChars {
			return s[:i] + "\u2026"
		}
	}
	return s
}
