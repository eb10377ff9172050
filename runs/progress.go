package runs

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// ProgressMode is how Progress prints.
type ProgressMode int

const (
	ProgressAuto  ProgressMode = iota // a live line on a terminal, else plain lines
	ProgressPlain                     // a line now and then
	ProgressQuiet                     // nothing
	ProgressJSON                      // each step's metrics as a JSON object
)

// Progress tells a person how far training is. Its methods may be called from
// several goroutines.
type Progress struct {
	mu    sync.Mutex
	w     io.Writer
	mode  ProgressMode
	live  bool
	total int              // steps; 0: unknown
	width func() int       // of the terminal
	now   func() time.Time // for tests

	started time.Time // when this session's first step ended
	first   int       // that step
	printed time.Time // last output
	onLine  bool      // a live line is on the screen
	last    string    // the last step's text, printed by Close
}

const (
	liveEvery  = 100 * time.Millisecond
	plainEvery = 10 * time.Second
)

// NewProgress prints to w, usually standard error, for a run of total steps
// (0: unknown).
func NewProgress(w io.Writer, mode ProgressMode, total int) *Progress {
	p := &Progress{w: w, mode: mode, total: total, now: time.Now}
	if f, ok := w.(*os.File); ok && mode == ProgressAuto && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		p.live = true
		p.width = func() int {
			width, _, err := term.GetSize(int(f.Fd()))
			if err != nil || width <= 0 {
				return 80
			}
			return width
		}
	}
	return p
}

// Step reports a step that has ended, with the metrics that Run.Log gets.
func (p *Progress) Step(step int, values map[string]float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if p.started.IsZero() {
		p.started, p.first = now, step
	}
	switch p.mode {
	case ProgressQuiet:
		return
	case ProgressJSON:
		p.w.Write(encodeMetrics(step, values))
		return
	}
	every := plainEvery
	if p.live {
		every = liveEvery
	}
	evaluated := false
	for key := range values {
		evaluated = evaluated || strings.HasPrefix(key, "eval/")
	}
	// The first and last steps and evaluations are always worth a line.
	must := p.printed.IsZero() || step == p.total || evaluated && !p.live
	if !must && now.Sub(p.printed) < every {
		return
	}
	p.printed = now
	if p.live {
		p.last = p.liveText(step, values, now)
		fmt.Fprintf(p.w, "\r%s\x1b[K", p.last)
		p.onLine = true
		return
	}
	fmt.Fprintln(p.w, p.plainText(step, values, now))
}

// Message prints a line of its own, above the live line. A quiet run prints
// none; with JSON it is an object with the key "message".
func (p *Progress) Message(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	switch {
	case p.mode == ProgressQuiet:
	case p.mode == ProgressJSON:
		fmt.Fprintf(p.w, "%s\n", append(appendJSON([]byte(`{"message":`), text), '}'))
	case p.onLine:
		fmt.Fprintf(p.w, "\r\x1b[K%s\n%s", text, p.last)
	default:
		fmt.Fprintln(p.w, text)
	}
}

// Close leaves the live line on the screen and ends it.
func (p *Progress) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.onLine {
		fmt.Fprintln(p.w)
		p.onLine = false
	}
}

// parts are the figures of a step, the most important first.
func (p *Progress) parts(step int, values map[string]float64, now time.Time) []string {
	var parts []string
	add := func(key, format string, show func(float64) string) {
		if v, ok := values[key]; ok {
			parts = append(parts, fmt.Sprintf(format, show(v)))
		}
	}
	add("loss", "loss %s", func(v float64) string { return fmt.Sprintf("%.4f", v) })
	add("eval/loss", "eval %s", func(v float64) string { return fmt.Sprintf("%.4f", v) })
	add("ppo/reward", "reward %s", func(v float64) string { return fmt.Sprintf("%.3f", v) })
	add("ppo/kl", "kl %s", func(v float64) string { return fmt.Sprintf("%.3f", v) })
	add("lr", "lr %s", shortNumber)
	add("tok_per_s", "%s tok/s", shortNumber)
	if left, ok := p.left(step, now); ok {
		parts = append(parts, shortDuration(left)+" left")
	}
	return parts
}

// left estimates the time to the end from the steps of this session.
func (p *Progress) left(step int, now time.Time) (time.Duration, bool) {
	done := step - p.first
	if p.total <= 0 || done <= 0 || step >= p.total {
		return 0, false
	}
	return time.Duration(float64(now.Sub(p.started)) / float64(done) * float64(p.total-step)), true
}

func (p *Progress) plainText(step int, values map[string]float64, now time.Time) string {
	head := fmt.Sprintf("step %d", step)
	if p.total > 0 {
		head = fmt.Sprintf("step %d/%d", step, p.total)
	}
	return strings.Join(append([]string{head}, p.parts(step, values, now)...), "  ")
}

// liveText fits the line to the terminal: a line that wraps cannot be
// overwritten. Figures go from the right, then the bar.
func (p *Progress) liveText(step int, values map[string]float64, now time.Time) string {
	head := fmt.Sprintf("step %d", step)
	bar := ""
	if p.total > 0 {
		share := min(max(float64(step)/float64(p.total), 0), 1)
		head = fmt.Sprintf("step %d/%d", step, p.total)
		bar = progressBar(share, 20) + fmt.Sprintf(" %3.0f%%", math.Floor(share*100))
	}
	parts := p.parts(step, values, now)
	room := p.width() - 1
	text := func(n int, bar string) string {
		all := []string{head}
		if bar != "" {
			all = append(all, bar)
		}
		return strings.Join(append(all, parts[:n]...), "  ")
	}
	for n := len(parts); n >= 0; n-- {
		if s := text(n, bar); len([]rune(s)) <= room {
			return s
		}
		if s := text(n, ""); len([]rune(s)) <= room {
			return s
		}
	}
	return string([]rune(head)[:max(0, min(room, len(head)))])
}

func progressBar(share float64, width int) string {
	full := int(share * float64(width))
	return strings.Repeat("\u2501", full) + strings.Repeat("\u2500", width-full)
}

// shortNumber writes about three digits: 2e-05, 0.25, 12.3k, 1.5M.
func shortNumber(v float64) string {
	abs := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "not finite"
	case abs >= 999.5e9:
		return fmt.Sprintf("%.3gT", v/1e12)
	case abs >= 999.5e6:
		return fmt.Sprintf("%.3gB", v/1e9)
	case abs >= 999.5e3:
		return fmt.Sprintf("%.3gM", v/1e6)
	case abs >= 999.5:
		return fmt.Sprintf("%.3gk", v/1e3)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}

// shortDuration writes the two largest units: 45s, 3m20s, 2h05m, 3d04h.
func shortDuration(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s%86400/3600)
	}
}
