package demo

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"ringtail/rng"
)

// The corpus was written for this project: dialogues and rankings of answers, by hand, in English and
// Chinese, and drills from a generator (generate.go).
//
//go:embed corpus/*.jsonl
var corpus embed.FS

// message is one turn of a dialogue.
type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// dialogue is a chat that ends with a good answer.
type dialogue struct {
	Messages  []message `json:"messages"`
	Category  string    `json:"category,omitempty"`
	generated bool
}

// prompt is what the dialogue begins with.
func (d *dialogue) prompt() string {
	for _, m := range d.Messages {
		if m.Role == "user" {
			return m.Content
		}
	}
	return ""
}

// ranking is a prompt with answers in the order of people's taste; Why says of each answer
// what it is: good, wrong, off (it answers something else), rude or harmful.
type ranking struct {
	Prompt   string   `json:"prompt"`
	Answers  []string `json:"answers"`
	Ranks    []int    `json:"ranks"`
	Why      []string `json:"why,omitempty"`
	Category string   `json:"category,omitempty"`
}

// of is the first answer of a kind, "" if there is none.
func (r *ranking) of(why string) string {
	for i, w := range r.Why {
		if w == why {
			return r.Answers[i]
		}
	}
	return ""
}

// Parts of the corpus.
const (
	drillsEach = 28 // of each family, at most
	// heldOutPercent of the prompts are never trained on, in any stage.
	heldOutPercent = 22
	// rudePercent of the prompts give the fine-tuning a rude answer as well as the good one: data in
	// the wild is mixed, and what PPO is to put right must be there first.
	rudePercent = 90
	// contrasts is how many of the dialogues' prompts get a ranking of their own good answer, another
	// dialogue's answer and a rude one.
	contrasts = 500
)

// Corpus is the demo's data, parted by prompt: what is held out is seen by no stage.
type Corpus struct {
	Chats          []dialogue // fine-tuning: good, and for most prompts a rude one too
	Clean          []dialogue // the good ones alone: ptx
	HeldOutChats   []dialogue
	Rankings       []ranking
	HeldOutRanks   []ranking
	Prompts        []string
	HeldOutPrompts []string

	handwritten, generated int // dialogues, held-out ones included
}

// heldOut tells on which side of the split a prompt lies: by its letters alone, so that
// two spellings of a question lie on one side.
func heldOut(prompt string) bool {
	letters := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, prompt)
	sum := sha256.Sum256([]byte("ringtail demo: " + letters))
	return binary.LittleEndian.Uint64(sum[:])%100 < heldOutPercent
}

// chinese tells whether a text has Chinese characters.
func chinese(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return unicode.Is(unicode.Han, r) })
}

// readJSONL reads a file of the embedded corpus.
func readJSONL[T any](name string) ([]T, error) {
	text, err := corpus.ReadFile("corpus/" + name)
	if err != nil {
		return nil, err
	}
	var out []T
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		var row T
		if err := d.Decode(&row); err == io.EOF {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("corpus/%s: row %d: %w", name, len(out)+1, err)
		}
		out = append(out, row)
	}
}

// LoadCorpus assembles the corpus. It is the same every time.
func LoadCorpus() (*Corpus, error) {
	var dialogues []dialogue
	var rankings []ranking
	for _, part := range []string{"en", "zh"} {
		for _, set := range []string{"", "2"} {
			d, err := readJSONL[dialogue]("dialogues" + set + "." + part + ".jsonl")
			if err != nil {
				return nil, err
			}
			r, err := readJSONL[ranking]("rankings" + set + "." + part + ".jsonl")
			if err != nil {
				return nil, err
			}
			dialogues, rankings = append(dialogues, d...), append(rankings, r...)
		}
	}
	c := &Corpus{handwritten: len(dialogues)}
	for _, d := range drills(drillsEach) {
		dialogues = append(dialogues, dialogue{Category: d.category, generated: true,
			Messages: []message{{"user", d.prompt}, {"assistant", d.answer}}})
	}
	c.generated = len(dialogues) - c.handwritten
	for _, d := range dialogues {
		if heldOut(d.prompt()) {
			c.HeldOutChats = append(c.HeldOutChats, d)
			c.HeldOutPrompts = append(c.HeldOutPrompts, d.prompt())
			continue
		}
		c.Clean, c.Prompts = append(c.Clean, d), append(c.Prompts, d.prompt())
	}
	trained := c.Clean
	rude := &pool{s: rng.New(0, "demo/rude", 0), texts: map[bool][]string{}, own: map[string]string{}}
	for _, r := range rankings {
		if heldOut(r.Prompt) {
			c.HeldOutRanks = append(c.HeldOutRanks, r)
			c.HeldOutPrompts = append(c.HeldOutPrompts, r.Prompt)
			continue
		}
		c.Rankings = append(c.Rankings, r)
		c.Clean, c.Prompts = append(c.Clean, chatOf(r.Prompt, r.of("good"), r.Category)), append(c.Prompts, r.Prompt)
		rude.add(r)
	}
	c.addRude(rude)
	c.addContrasts(trained, rude)
	// Whoever takes the first of them gets both languages and all kinds.
	s := rng.New(0, "demo/held-out", 0)
	s.Shuffle(len(c.HeldOutPrompts), func(i, j int) {
		c.HeldOutPrompts[i], c.HeldOutPrompts[j] = c.HeldOutPrompts[j], c.HeldOutPrompts[i]
	})
	return c, nil
}

func chatOf(prompt, answer, category string) dialogue {
	return dialogue{Category: category, Messages: []message{{"user", prompt}, {"assistant", answer}}}
}

// pool gives rude answers to prompts: one that was written for the prompt, or else one in its language that
// was written for another; most would do for anything.
type pool struct {
	s     *rng.Stream
	texts map[bool][]string
	own   map[string]string
}

func (p *pool) add(r ranking) {
	if text := r.of("rude"); text != "" {
		zh := chinese(r.Prompt)
		p.texts[zh], p.own[r.Prompt] = append(p.texts[zh], text), text
	}
}

func (p *pool) draw(prompt string) string {
	if text := p.own[prompt]; text != "" {
		return text
	}
	list := p.texts[chinese(prompt)]
	return list[p.s.Intn(len(list))]
}

// addRude mixes rude answers into the chats of the fine-tuning.
func (c *Corpus) addRude(rude *pool) {
	for _, d := range c.Clean {
		c.Chats = append(c.Chats, d)
		if len(d.Messages) == 2 && rude.s.Intn(100) < rudePercent {
			c.Chats = append(c.Chats, chatOf(d.prompt(), rude.draw(d.prompt()), d.Category))
		}
	}
}

// addContrasts makes rankings of dialogues that are trained on: the good answer, the good answer to
// something else in the same language, and a rude one.
func (c *Corpus) addContrasts(trained []dialogue, rude *pool) {
	s := rng.New(0, "demo/contrasts", 0)
	answers := map[bool][]dialogue{}
	var own []dialogue
	for _, d := range trained {
		if len(d.Messages) == 2 {
			own = append(own, d)
			answers[chinese(d.prompt())] = append(answers[chinese(d.prompt())], d)
		}
	}
	s.Shuffle(len(own), func(i, j int) { own[i], own[j] = own[j], own[i] })
	for _, d := range own[:min(contrasts, len(own))] {
		other := d
		for other.Messages[1].Content == d.Messages[1].Content || other.generated && other.Category == d.Category {
			list := answers[chinese(d.prompt())]
			other = list[s.Intn(len(list))]
		}
		c.Rankings = append(c.Rankings, ranking{Prompt: d.prompt(), Category: d.Category,
			Answers: []string{d.Messages[1].Content, other.Messages[1].Content, rude.draw(d.prompt())},
			Ranks:   []int{1, 2, 3}, Why: []string{"good", "off", "rude"}})
	}
}

// writeJSONL writes rows one a line.
func writeJSONL[T any](w io.Writer, rows []T) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	for _, row := range rows {
		if err := e.Encode(row); err != nil {
			return err
		}
	}
	return b.Flush()
}
