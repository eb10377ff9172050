package demo

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

func load(t *testing.T) *Corpus {
	t.Helper()
	c, err := LoadCorpus()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCorpusIsWhatTheDemoNeeds: enough of it, both languages, at most half generated.
func TestCorpusIsWhatTheDemoNeeds(t *testing.T) {
	c := load(t)
	t.Logf("%d dialogues by hand, %d generated; chats %d (clean %d), held out %d; rankings %d, held out %d; prompts %d, held out %d",
		c.handwritten, c.generated, len(c.Chats), len(c.Clean), len(c.HeldOutChats), len(c.Rankings), len(c.HeldOutRanks), len(c.Prompts), len(c.HeldOutPrompts))
	if n := c.handwritten + c.generated; n < 300 || c.generated > n/2 {
		t.Errorf("%d dialogues, %d of them generated", n, c.generated)
	}
	languages, categories := map[bool]int{}, map[string]int{}
	for _, d := range append(append([]dialogue(nil), c.Clean...), c.HeldOutChats...) {
		languages[chinese(d.prompt())]++
		categories[d.Category]++
	}
	if languages[true] < 150 || languages[false] < 150 || len(categories) < 12 {
		t.Errorf("languages %v, categories %v", languages, categories)
	}
	if len(c.HeldOutPrompts) < 64 {
		t.Errorf("%d prompts are held out", len(c.HeldOutPrompts))
	}
}

// TestNothingHeldOutIsTrainedOn, in any stage.
func TestNothingHeldOutIsTrainedOn(t *testing.T) {
	c := load(t)
	trained := map[string]bool{}
	for _, d := range c.Chats {
		for _, m := range d.Messages {
			if m.Role == "user" {
				trained[m.Content] = true
			}
		}
	}
	for _, d := range c.Clean {
		trained[d.prompt()] = true
	}
	for _, r := range c.Rankings {
		trained[r.Prompt] = true
	}
	for _, p := range c.Prompts {
		trained[p] = true
	}
	for _, p := range c.HeldOutPrompts {
		if trained[p] {
			t.Errorf("%q is held out, and trained on", p)
		}
	}
	answers := map[string]bool{}
	for _, r := range c.Rankings {
		for _, a := range r.Answers {
			answers[a] = true
		}
	}
	for _, r := range c.HeldOutRanks {
		for i, a := range r.Answers {
			if answers[a] && r.Why[i] != "good" { // a kind answer may serve two questions
				t.Errorf("%q, an answer to the held-out %q, stands in the training rankings", a, r.Prompt)
			}
		}
	}
}

// TestRankings: ranks and kinds fit, all pairs are decided by more than length.
func TestRankings(t *testing.T) {
	c := load(t)
	for name, list := range map[string][]ranking{"trained": c.Rankings, "held out": c.HeldOutRanks} {
		pairs, longer := 0, 0.0
		for _, r := range list {
			if len(r.Answers) < 2 || len(r.Ranks) != len(r.Answers) || len(r.Why) != len(r.Answers) || strings.TrimSpace(r.Prompt) == "" {
				t.Fatalf("%+v", r)
			}
			for i, a := range r.Answers {
				if (r.Why[i] == "good") != (r.Ranks[i] == 1) || strings.TrimSpace(a) == "" {
					t.Errorf("%q: rank %d is %s: %q", r.Prompt, r.Ranks[i], r.Why[i], a)
				}
				for j, b := range r.Answers {
					if r.Ranks[i] < r.Ranks[j] {
						pairs++
						x, y := utf8.RuneCountInString(a), utf8.RuneCountInString(b)
						if x > y {
							longer++
						} else if x == y {
							longer += 0.5
						}
					}
				}
			}
		}
		share := longer / float64(pairs)
		t.Logf("%s: %d rankings, %d pairs, the better answer longer in %.2f", name, len(list), pairs, share)
		if pairs < 100 || max(share, 1-share) > 0.6 {
			t.Errorf("%s: %d pairs, the better answer longer in %.2f of them", name, pairs, share)
		}
	}
}

// TestCorpusIsFixed: two assemblies give the same bytes.
func TestCorpusIsFixed(t *testing.T) {
	var text [2]bytes.Buffer
	for i := range text {
		c := load(t)
		for _, err := range []error{writeJSONL(&text[i], c.Chats), writeJSONL(&text[i], c.Rankings), writeJSONL(&text[i], c.Prompts)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if !bytes.Equal(text[0].Bytes(), text[1].Bytes()) {
		t.Error("the corpus differs from one assembly to the next")
	}
}
