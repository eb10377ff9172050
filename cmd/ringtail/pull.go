package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"ringtail/hub"
)

type pullCmd struct {
	Name    string   `arg:"" placeholder:"ORG/NAME[@REVISION]" help:"Name on the hub; a branch, tag or commit after @"`
	Dataset bool     `help:"A data set, not a model"`
	Include []string `sep:"none" placeholder:"GLOB" help:"Only files whose names match (may be given several times); default: what Ringtail needs"`
	Exclude []string `sep:"none" placeholder:"GLOB" help:"No files whose names match (may be given several times)"`
	Quiet   bool     `help:"No progress"`
}

func (c *pullCmd) Run(e *env) error {
	repo, err := hub.ParseRepo(c.Name, c.Dataset)
	if err != nil {
		return usageError{err}
	}
	client, err := hub.FromEnv()
	if err != nil {
		return err
	}
	client.Agent = "ringtail/" + version
	p := newProgress(e.stderr)
	client.Note = p.note
	if !c.Quiet {
		client.Report = p.report
	}
	ctx, stop := signal.NotifyContext(e.ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	done, err := client.Pull(ctx, repo, hub.PullOptions{Include: c.Include, Exclude: c.Exclude})
	p.end()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		fmt.Fprintf(e.stderr, "interrupted; the same command goes on from here\n")
		return errQuiet
	}
	if err != nil {
		return err
	}
	if !c.Quiet {
		c.tell(e, done)
	}
	_, err = fmt.Fprintln(e.stdout, done.Dir)
	return err
}

// tell says what came and what was left out.
func (c *pullCmd) tell(e *env, done *hub.Pulled) {
	if done.Commit == "" {
		fmt.Fprintln(e.stderr, "offline: taken from the cache as it is")
		return
	}
	switch {
	case done.Fresh == 0:
		fmt.Fprintf(e.stderr, "%s, all in the cache already, at commit %s\n", filesOf(len(done.Files)), done.Commit[:10])
	default:
		fmt.Fprintf(e.stderr, "%s, %s downloaded, at commit %s\n", filesOf(len(done.Files)), hub.Bytes(done.Fresh), done.Commit[:10])
	}
	if n := len(done.LeftOut); n > 0 {
		size := int64(0)
		var names []string
		for _, f := range done.LeftOut {
			size += max(f.Size, 0)
			if len(names) < 4 {
				names = append(names, f.Name)
			}
		}
		if n > len(names) {
			names = append(names, "...")
		}
		fmt.Fprintf(e.stderr, "left out, not needed here: %s, %s (%s); --include '*' takes all\n", filesOf(n), hub.Bytes(size), strings.Join(names, ", "))
	}
}

func filesOf(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

// progress shows how far a pull is: a line that changes on a terminal, else a line
// every ten seconds.
type progress struct {
	w        io.Writer
	terminal bool
	now      func() time.Time

	mu      sync.Mutex
	shown   bool // a line that changes stands there
	last    time.Time
	samples []sample // of the last seconds, for the rate
}

type sample struct {
	at    time.Time
	fresh int64
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{w: w, terminal: ok && term.IsTerminal(int(f.Fd())), now: time.Now}
}

const (
	rateOver  = 10 * time.Second
	lineEvery = 10 * time.Second
)

func (p *progress) report(s hub.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.samples = append(p.samples, sample{now, s.Fresh})
	for len(p.samples) > 2 && now.Sub(p.samples[0].at) > rateOver {
		p.samples = p.samples[1:]
	}
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", p.line(s))
		p.shown = true
		return
	}
	if p.last.IsZero() {
		p.last = now // the first line after a while: a short pull needs none
	}
	if now.Sub(p.last) >= lineEvery {
		p.last = now
		fmt.Fprintln(p.w, p.line(s))
	}
}

// line says it in words: how much of how much, how fast, how long still.
func (p *progress) line(s hub.Status) string {
	percent := 100
	if s.Bytes > 0 {
		percent = int(float64(s.BytesDone) / float64(s.Bytes) * 100)
	}
	text := fmt.Sprintf("%s of %s (%d%%), %d of %d files", hub.Bytes(s.BytesDone), hub.Bytes(s.Bytes), percent, s.FilesDone, s.Files)
	first, last := p.samples[0], p.samples[len(p.samples)-1]
	if span := last.at.Sub(first.at).Seconds(); span > 0 && last.fresh > first.fresh {
		rate := float64(last.fresh-first.fresh) / span
		left := time.Duration(float64(s.Bytes-s.BytesDone) / rate * float64(time.Second))
		text += fmt.Sprintf(", %s/s, %s left", hub.Bytes(int64(rate)), left.Round(time.Second))
	}
	return text
}

// note writes a line of its own.
func (p *progress) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
	fmt.Fprintln(p.w, text)
}

// end takes the line that changes away.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
