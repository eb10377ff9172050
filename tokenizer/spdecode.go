package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// spDecoder turns pieces into text as sentencepiece does: marks become spaces,
// but for those that the normalizer put before the text; neighbouring byte
// pieces are read as UTF-8; control pieces are not shown.
type spDecoder struct {
	hidden     map[string]bool // control pieces
	asIs       map[string]bool // tokens whose marks stay: control tokens of a folder that are shown
	bytes      bool
	unk        string
	unkSurface string // what is shown for unk

	strip bool // a mark before the text may be the normalizer's
	all   bool // and so may be more than one
}

func newSPDecoder(m *spModel) *spDecoder {
	d := &spDecoder{
		hidden: map[string]bool{}, bytes: m.byteFallback, unk: m.unkText(), unkSurface: m.unkSurface,
		strip: m.dummy || m.squeeze, all: m.squeeze,
	}
	for _, p := range m.pieces {
		if p.kind == pieceControl {
			d.hidden[p.text] = true
		}
	}
	return d
}

func (d *spDecoder) start() decoding { return &spDecoding{spDecoder: d, begin: d.strip} }

type spDecoding struct {
	*spDecoder
	whole    wholeTokens
	held     []byte // of byte pieces, the beginning of a character at most
	begin    bool   // a mark that comes now is the normalizer's
	stripped bool   // the piece before had such a mark
	some     bool   // there was text
}

func (d *spDecoding) push(text string, end bool, out func(string, bool)) {
	token, ok := d.whole.push(text, end)
	if !ok {
		return
	}
	if d.bytes {
		if b, ok := fallbackByte(token); ok {
			d.held = append(d.held, b)
			d.giveBytes(out, false)
			return
		}
	}
	d.giveBytes(out, true)
	if d.stripped || d.some {
		d.begin = false
	}
	d.stripped = false
	switch {
	case d.asIs[token]:
		d.give(token, out)
	case d.hidden[token]:
	case token == d.unk:
		d.give(d.unkSurface, out)
	default:
		if d.begin {
			rest, cut := strings.CutPrefix(token, spaceMark)
			token, d.stripped = rest, cut && !d.all
		}
		d.give(strings.ReplaceAll(token, spaceMark, " "), out)
	}
}

func (d *spDecoding) give(text string, out func(string, bool)) {
	if text != "" {
		d.some = true
		out(text, true)
	}
}

// giveBytes gives out the characters that byte pieces have made, and U+FFFD for
// each byte that is not part of one. A character that more bytes may yet
// complete waits, unless last is set.
func (d *spDecoding) giveBytes(out func(string, bool), last bool) {
	for len(d.held) > 0 && (last || utf8.FullRune(d.held)) {
		r, n := utf8.DecodeRune(d.held)
		d.give(string(r), out)
		d.held = d.held[:copy(d.held, d.held[n:])]
	}
}

func (d *spDecoding) flush(out func(string, bool)) { d.giveBytes(out, true) }

// tokenBytes returns what a token stands for within a text.
func (d *spDecoder) tokenBytes(token string) []byte {
	if d.bytes {
		if b, ok := fallbackByte(token); ok {
			return []byte{b}
		}
	}
	switch {
	case d.hidden[token]:
		return []byte{}
	case token == d.unk && !d.asIs[token]:
		return []byte(d.unkSurface)
	}
	return []byte(strings.ReplaceAll(token, spaceMark, " "))
}
