package data

import (
	"fmt"
	"io"
	"strings"
)

// The marks around trained text where there are no colours, and the colours.
const (
	markOpen, markClose   = "⟦", "⟧"
	colourOn, colourReset = "\x1b[32m", "\x1b[0m"
	dimOn                 = "\x1b[2m"
)

// ShowOptions govern Show.
type ShowOptions struct {
	// Colour paints trained text green and the rest dim, with ANSI codes;
	// without it, trained text stands between ⟦ and ⟧.
	Colour bool
}

// Show writes a sequence's text, telling what is trained on from what isn't; of a
// ranking, each answer's by itself.
// decode turns tokens into text, special tokens included; it is called once for
// each run of tokens of one kind. Control characters in the text are made
// visible.
func Show(w io.Writer, seq Sequence, decode func(ids []int32) (string, error), opt ShowOptions) error {
	var b strings.Builder
	trained := 0
	for i, t := range seq.Trained {
		if t && i > 0 {
			trained++
		}
	}
	held := ""
	if seq.HeldOut {
		held = ", held out"
	}
	if seq.Label != nil {
		held += map[bool]string{true: ", labelled good", false: ", labelled bad"}[*seq.Label]
	}
	fmt.Fprintf(&b, "%s (%s): %d tokens, %d trained%s\n", printable(seq.Where.String()), seq.Source, len(seq.IDs), trained, held)
	answers := seq.Answers
	if len(answers) == 0 {
		answers = []Answer{{To: len(seq.IDs)}}
	}
	for _, a := range answers {
		if a.Rank > 0 {
			fmt.Fprintf(&b, "rank %d", a.Rank)
			if a.Scored {
				fmt.Fprintf(&b, ", score %g", a.Score)
			}
			fmt.Fprintf(&b, ": %d tokens\n", a.To-a.From)
		}
		for at := a.From; at < a.To; {
			end := at + 1
			for end < a.To && seq.Trained[end] == seq.Trained[at] {
				end++
			}
			text, err := decode(seq.IDs[at:end])
			if err != nil {
				return fmt.Errorf("%s: decode tokens %d to %d: %w", seq.Where, at, end-1, err)
			}
			writeRun(&b, printable(text), seq.Trained[at], opt.Colour)
			at = end
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeRun writes a run's text. Colours are set anew on each line, for pagers
// forget them at a line's end.
func writeRun(b *strings.Builder, text string, trained, colour bool) {
	if !colour {
		if trained {
			text = markOpen + text + markClose
		}
		b.WriteString(text)
		return
	}
	on := dimOn
	if trained {
		on = colourOn
	}
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			b.WriteByte('\n')
		}
		if line != "" {
			b.WriteString(on + line + colourReset)
		}
	}
}
