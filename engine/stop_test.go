package engine

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// byCharacter is what stop strings mean: text arrives character by character, and
// ends where it first ends in one of them.
func byCharacter(text string, stops []string) (kept string, stopped bool) {
	for n := 1; n <= len(text); n++ {
		for _, s := range longestFirst(stops) {
			if strings.HasSuffix(text[:n], s) {
				return text[:n-len(s)], true
			}
		}
	}
	return text, false
}

func longestFirst(stops []string) []string {
	out := slices.Clone(stops)
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) })
	return out
}

// TestStopperDoesNotHangOnTokens: however a text is cut into tokens, within
// characters too, what is kept is the same, and nothing behind a stop string is
// ever let out.
func TestStopperDoesNotHangOnTokens(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	alphabet := []rune("ab 你好é")
	word := func(n int) string {
		var b strings.Builder
		for range n {
			b.WriteRune(alphabet[r.IntN(len(alphabet))])
		}
		return b.String()
	}
	cut := 0
	for range 3000 {
		text := word(r.IntN(30))
		var stops []string
		for range r.IntN(4) {
			stops = append(stops, word(1+r.IntN(4)))
		}
		want, wantStopped := byCharacter(text, stops)
		s := &stopper{decode: &pieces{of: []string{0: ""}}, stops: stops}
		dec := s.decode.(*pieces)
		var got strings.Builder
		stopped := false
		for rest := text; rest != "" && !stopped; {
			n := 1 + r.IntN(min(len(rest), 6))
			dec.of[0], rest = rest[:n], rest[n:]
			var out string
			out, stopped = s.push(0)
			got.WriteString(out)
			if !strings.HasPrefix(want, got.String()) {
				t.Fatalf("%q with stops %q: let out %q, want %q", text, stops, got.String(), want)
			}
		}
		if !stopped {
			var out string
			out, stopped = s.flush()
			got.WriteString(out)
		} else {
			cut++
		}
		if got.String() != want || stopped != wantStopped {
			t.Fatalf("%q with stops %q: %q, stopped %v; want %q, %v", text, stops, got.String(), stopped, want, wantStopped)
		}
	}
	if cut < 500 {
		t.Errorf("only %d texts were stopped", cut)
	}
}

// TestStopperIsEager: text that can't begin a stop string is let out at once.
func TestStopperIsEager(t *testing.T) {
	s := &stopper{decode: &pieces{of: []string{"hello", " ##", "# no", "\n", "###"}}, stops: []string{"###\n", "\n###"}}
	for i, want := range []string{"hello", " ", "### no", "", "\n"} { // "\n###" ends in a stop string
		text, stopped := s.push(int32(i))
		if i == 4 {
			want = ""
		}
		if text != want || stopped != (i == 4) {
			t.Errorf("token %d: %q, %v; want %q", i, text, stopped, want)
		}
	}
}

// TestStopStrings: through the engine, over tokens that share no border with them.
func TestStopStrings(t *testing.T) {
	// A chain 0 → 1 → … → 9 → 9; its text is "he llo wor ld 你好! end end end …".
	text := []string{"he", "llo", " wor", "ld ", "\xe4\xbd", "\xa0\xe5\xa5", "\xbd!", " e", "nd", "."}
	m := chain(t, 10, successor(1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 0))
	whole := "llo world 你好! end."
	for _, c := range []struct {
		stops  []string
		want   string
		tokens int
		finish Finish
	}{
		{nil, whole + "...", 12, Length},
		{[]string{"o w"}, "ll", 2, Stop},
		{[]string{"world"}, "llo ", 3, Stop},
		{[]string{"你好"}, "llo world ", 6, Stop},
		{[]string{"好!"}, "llo world 你", 6, Stop},
		{[]string{"nd..", "d.x"}, "llo world 你好! e", 10, Stop},
		{[]string{"l"}, "", 1, Stop},
		{[]string{"....x"}, whole + "...", 12, Length}, // held back, and let out at the end
		{[]string{"he"}, whole + "...", 12, Length},    // the prompt doesn't count
	} {
		e := newEngine(t, m, Options{Slots: 2, Capacity: 64, NewText: func() TextDecoder { return &pieces{of: append(text, "")} }})
		_, a := submit(t, e, []int32{0}, Settings{MaxTokens: 12, Stop: c.stops})
		if err := e.Run(); err != nil {
			t.Fatal(err)
		}
		if a.text != c.want || a.finish != c.finish || len(a.ids) != c.tokens || a.ended != 1 {
			t.Errorf("stops %q: %q after %d tokens, %s; want %q after %d, %s", c.stops, a.text, len(a.ids), a.finish, c.want, c.tokens, c.finish)
		}
	}
	e := newEngine(t, m, Options{Slots: 1, Capacity: 64})
	if _, err := e.Submit([]int32{0}, Settings{Stop: []string{"x"}}, func(Event) {}); err == nil {
		t.Error("an engine without text took stop strings")
	}
}
