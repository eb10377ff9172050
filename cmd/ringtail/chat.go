package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/term"

	"ringtail/chat"
	"ringtail/engine"
)

type chatCmd struct {
	modelFlags
	sampleFlags
	System string `placeholder:"TEXT" help:"System message"`
}

const chatHelp = `/help          these lines
/new           forget the conversation
/retry         answer the last question again
/system TEXT   set the system message and begin anew
/history       show the conversation
/set KEY VALUE temperature, top_p, top_k, min_p, repetition_penalty, max_tokens, seed
/bye           leave (so does Ctrl-D)
"""            begins and ends a message of several lines
Ctrl-C stops the answer, not the chat.
`

// conversation is a chat in the terminal.
type conversation struct {
	e        *env
	a        *assistant
	settings engine.Settings
	system   string
	history  []chat.Message
	turn     uint64
	left     int // messages left out of the context, of which the user was told
}

func (c *chatCmd) Run(e *env) error {
	if err := c.apply(); err != nil {
		return err
	}
	a, err := c.open(e, c.Context, true)
	if err != nil {
		return err
	}
	defer a.close()
	t := &conversation{e: e, a: a, settings: c.settings(a.stops), system: c.System}
	params, _ := a.model.Store.Params()
	fmt.Fprintf(e.stderr, "%s: %.1fM parameters, context %d tokens, %s. /help for help.\n", c.Model, float64(params)/1e6, a.engine.Capacity(), a.text.Choice)
	return t.loop()
}

// loop reads and answers messages until the input ends.
func (t *conversation) loop() error {
	in := bufio.NewReader(t.e.stdin)
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt)
	defer signal.Stop(interrupt)
	terminal := false
	if f, ok := t.e.stdin.(*os.File); ok {
		terminal = term.IsTerminal(int(f.Fd()))
	}
	for {
		if terminal {
			fmt.Fprint(t.e.stdout, "> ")
		}
		message, err := readMessage(in)
		if message == "" && err != nil {
			if errors.Is(err, io.EOF) {
				if terminal {
					fmt.Fprintln(t.e.stdout)
				}
				return nil
			}
			return err
		}
		message = strings.TrimSpace(message)
		switch {
		case message == "":
			continue
		case message == "/bye" || message == "/exit" || message == "/quit":
			return nil
		case strings.HasPrefix(message, "/"):
			if err := t.command(message, interrupt); err != nil {
				return err
			}
			continue
		}
		t.history = append(t.history, chat.Message{Role: "user", Content: message})
		if err := t.answer(interrupt); err != nil {
			return err
		}
	}
}

// readMessage reads a line, or the lines between two """.
func readMessage(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), `"""`)
	if !ok {
		return line, err
	}
	var b strings.Builder
	for {
		if text, ok := strings.CutSuffix(strings.TrimRight(rest, "\r\n"), `"""`); ok {
			b.WriteString(text)
			return b.String(), nil
		}
		b.WriteString(rest)
		if !strings.HasSuffix(rest, "\n") {
			b.WriteByte('\n')
		}
		if err != nil {
			return b.String(), nil
		}
		rest, err = in.ReadString('\n')
	}
}

// answer answers the conversation's last message, streaming.
func (t *conversation) answer(interrupt <-chan os.Signal) error {
	ids, err := t.fit()
	if err != nil {
		t.history = t.history[:len(t.history)-1]
		fmt.Fprintln(t.e.stderr, err)
		return nil
	}
	s := t.settings
	s.Seed += t.turn
	t.turn++
	var text strings.Builder
	var finish engine.Finish
	r, err := t.a.engine.Submit(ids, s, func(ev engine.Event) {
		finish = ev.Finish
		text.WriteString(ev.Text)
		fmt.Fprint(t.e.stdout, visible(ev.Text))
	})
	if err != nil {
		t.history = t.history[:len(t.history)-1]
		fmt.Fprintln(t.e.stderr, err)
		return nil
	}
	for len(interrupt) > 0 {
		<-interrupt
	}
	for more := true; more; {
		select {
		case <-interrupt:
			t.a.engine.Cancel(r)
		case <-t.e.ctx.Done():
			t.a.engine.Cancel(r)
		default:
		}
		if more, err = t.a.engine.Step(); err != nil {
			return err
		}
	}
	fmt.Fprintln(t.e.stdout)
	switch finish {
	case engine.Length:
		fmt.Fprintln(t.e.stderr, "(cut off: the longest answer or the context is reached)")
	case engine.Cancelled:
		fmt.Fprintln(t.e.stderr, "(stopped)")
	}
	t.history = append(t.history, chat.Message{Role: "assistant", Content: text.String()})
	return t.e.ctx.Err()
}

// fit encodes the conversation. Where it has grown longer than the context, its
// oldest turns are left out, and the user is told.
func (t *conversation) fit() ([]int32, error) {
	room := min(t.settings.MaxTokens, t.a.engine.Capacity()/4)
	messages := t.history
	for {
		all := messages
		if t.system != "" {
			all = append([]chat.Message{{Role: "system", Content: t.system}}, messages...)
		}
		ids, err := t.a.text.EncodePrompt(all)
		if err != nil {
			return nil, err
		}
		if len(ids)+room <= t.a.engine.Capacity() {
			if n := len(t.history) - len(messages); n > t.left {
				t.left = n
				fmt.Fprintf(t.e.stderr, "(the oldest %d messages no longer fit into the context of %d tokens)\n", n, t.a.engine.Capacity())
			}
			return ids, nil
		}
		if len(messages) <= 2 {
			return nil, fmt.Errorf("the message has %d tokens; the context holds %d, of which %d are kept for the answer", len(ids), t.a.engine.Capacity(), room)
		}
		messages = messages[2:]
	}
}

// command carries out a line that begins with a slash.
func (t *conversation) command(line string, interrupt <-chan os.Signal) error {
	name, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch name {
	case "/help", "/?":
		fmt.Fprint(t.e.stdout, chatHelp)
	case "/new", "/clear":
		t.history, t.left = nil, 0
	case "/system":
		t.system, t.history, t.left = rest, nil, 0
	case "/history":
		if t.system != "" {
			fmt.Fprintf(t.e.stdout, "system: %s\n", visible(t.system))
		}
		for _, m := range t.history {
			fmt.Fprintf(t.e.stdout, "%s: %s\n", m.Role, visible(m.Content))
		}
	case "/retry":
		if len(t.history) < 2 {
			fmt.Fprintln(t.e.stderr, "nothing to answer again")
			return nil
		}
		t.history = t.history[:len(t.history)-1]
		return t.answer(interrupt)
	case "/set":
		if err := set(&t.settings, rest); err != nil {
			fmt.Fprintln(t.e.stderr, err)
		}
	default:
		fmt.Fprintf(t.e.stderr, "no command %s; /help lists them\n", name)
	}
	return nil
}

// set changes a setting: "temperature 0.5".
func set(s *engine.Settings, line string) error {
	key, value, _ := strings.Cut(line, " ")
	value = strings.TrimSpace(value)
	old := *s
	var dst any
	switch key {
	case "temperature":
		dst = &s.Temperature
	case "top_p":
		dst = &s.TopP
	case "top_k":
		dst = &s.TopK
	case "min_p":
		dst = &s.MinP
	case "repetition_penalty":
		dst = &s.RepetitionPenalty
	case "max_tokens":
		dst = &s.MaxTokens
	case "seed":
		dst = &s.Seed
	default:
		return fmt.Errorf("no setting %q; /help lists them", key)
	}
	if _, err := fmt.Sscan(value, dst); err != nil {
		*s = old
		return fmt.Errorf("%s: %q is not a number", key, value)
	}
	if err := s.Check(); err != nil {
		*s = old
		return err
	}
	return nil
}

// visible keeps a model's control characters from steering the terminal.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}
