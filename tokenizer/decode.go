package tokenizer

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// A decoder of tokenizer.json maps a list of token strings to another, and the
// text is that list joined. Here each is a machine that takes a token at a time,
// so that one implementation serves Decode and Stream: what a Stream gave out
// is always what Decode would give.
type decoder interface {
	start() decoding
}

// decoding is the state of a decoder within one text.
type decoding interface {
	// push takes text that belongs to the current token; end says that the
	// token ends with it. It calls out in the same manner.
	push(text string, end bool, out func(text string, end bool))
	// flush gives out what was held back. Nothing is pushed after it.
	flush(out func(text string, end bool))
}

// wholeTokens gathers the parts of a token for decoders that need it whole.
type wholeTokens struct{ parts strings.Builder }

func (w *wholeTokens) push(text string, end bool) (token string, ok bool) {
	if end && w.parts.Len() == 0 {
		return text, true
	}
	w.parts.WriteString(text)
	if !end {
		return "", false
	}
	token = w.parts.String()
	w.parts.Reset()
	return token, true
}

// byteLevelDecoder is ByteLevel: tokens in the byte alphabet are turned into
// bytes, others stay as they are, and all together are one token, read as UTF-8.
type byteLevelDecoder struct{}

func (byteLevelDecoder) start() decoding { return new(byteLevelDecoding) }

type byteLevelDecoding struct {
	whole wholeTokens
	bytes []byte // the beginning of a character, at most
	text  strings.Builder
}

func (d *byteLevelDecoding) push(text string, end bool, out func(string, bool)) {
	token, ok := d.whole.push(text, end)
	if !ok {
		return
	}
	if d.bytes, ok = appendFromByteAlphabet(d.bytes, token); !ok {
		d.bytes = append(d.bytes, token...)
	}
	d.text.Reset()
	n := lossyUTF8(&d.text, d.bytes, false)
	d.bytes = d.bytes[:copy(d.bytes, d.bytes[n:])]
	if d.text.Len() > 0 {
		out(d.text.String(), false)
	}
}

func (d *byteLevelDecoding) flush(out func(string, bool)) {
	d.text.Reset()
	lossyUTF8(&d.text, d.bytes, true)
	out(d.text.String(), true)
}

// byteFallbackDecoder is ByteFallback: neighbouring tokens <0x00> to <0xFF> are
// one token if their bytes are UTF-8, and else each is U+FFFD. Since one wrong
// byte changes all of them, they are held back until another token comes.
type byteFallbackDecoder struct{}

func (byteFallbackDecoder) start() decoding { return new(byteFallbackDecoding) }

type byteFallbackDecoding struct {
	whole wholeTokens
	bytes []byte
}

func (d *byteFallbackDecoding) push(text string, end bool, out func(string, bool)) {
	token, ok := d.whole.push(text, end)
	if !ok {
		return
	}
	if b, ok := fallbackByte(token); ok {
		d.bytes = append(d.bytes, b)
		return
	}
	d.flush(out)
	out(token, true)
}

func (d *byteFallbackDecoding) flush(out func(string, bool)) {
	switch {
	case len(d.bytes) == 0:
	case utf8.Valid(d.bytes):
		out(string(d.bytes), true)
	default:
		for range d.bytes {
			out(string(utf8.RuneError), true)
		}
	}
	d.bytes = d.bytes[:0]
}

// fallbackByte returns the byte that a token such as <0x0A> stands for.
func fallbackByte(token string) (byte, bool) {
	if len(token) != 6 || token[:3] != "<0x" || token[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(token[3:5], 16, 8)
	return byte(b), err == nil
}

// fuseDecoder is Fuse: all tokens become one.
type fuseDecoder struct{}

func (fuseDecoder) start() decoding { return fuseDecoder{} }

func (fuseDecoder) push(text string, _ bool, out func(string, bool)) { out(text, false) }

func (fuseDecoder) flush(out func(string, bool)) { out("", true) }

// replaceDecoder is Replace within each token.
type replaceDecoder struct {
	pattern pattern
	content string
}

func (d replaceDecoder) start() decoding { return &replaceDecoding{replaceDecoder: d} }

type replaceDecoding struct {
	replaceDecoder
	whole wholeTokens
}

func (d *replaceDecoding) push(text string, end bool, out func(string, bool)) {
	if token, ok := d.whole.push(text, end); ok {
		r := replaceNormalizer{pattern: d.pattern, content: d.content}
		out(r.normalize(piece{text: token}, false).text, true)
	}
}

func (d *replaceDecoding) flush(func(string, bool)) {}

// stripDecoder is Strip: it cuts up to left characters off the beginning of
// each token, and up to right off its end, as long as they are content.
type stripDecoder struct {
	content     string
	left, right int
}

func (d stripDecoder) start() decoding { return &stripDecoding{stripDecoder: d, leave: d.left} }

type stripDecoding struct {
	stripDecoder
	leave int // how many may still be cut off the beginning
	whole wholeTokens
}

func (d *stripDecoding) push(text string, end bool, out func(string, bool)) {
	if d.right > 0 {
		token, ok := d.whole.push(text, end)
		if !ok {
			return
		}
		text = d.cutRight(token)
	}
	for d.leave > 0 && strings.HasPrefix(text, d.content) {
		text = text[len(d.content):]
		d.leave--
	}
	if text != "" {
		d.leave = 0
	}
	if end {
		d.leave = d.left
	}
	out(text, end)
}

func (d *stripDecoding) cutRight(token string) string {
	for range d.right {
		rest, ok := strings.CutSuffix(token, d.content)
		if !ok {
			break
		}
		token = rest
	}
	return token
}

func (d *stripDecoding) flush(func(string, bool)) {}

// metaspaceDecoder is Metaspace: marks become spaces, save those of the first
// token, which stand for what the pre-tokenizer put before the text.
type metaspaceDecoder struct {
	mark    string
	prepend prependScheme
}

func (d metaspaceDecoder) start() decoding {
	return &metaspaceDecoding{metaspaceDecoder: d, first: true}
}

type metaspaceDecoding struct {
	metaspaceDecoder
	first bool
}

func (d *metaspaceDecoding) push(text string, end bool, out func(string, bool)) {
	space := " "
	if d.first && d.prepend != prependNever {
		space = ""
	}
	if end {
		d.first = false
	}
	out(strings.ReplaceAll(text, d.mark, space), end)
}

func (d *metaspaceDecoding) flush(func(string, bool)) {}

// bpeDecoder is BPEDecoder: the suffix that ends a word becomes a space, but
// for the last token's, which becomes nothing. So a token waits for the next.
type bpeDecoder struct{ suffix string }

func (d bpeDecoder) start() decoding { return &bpeDecoding{bpeDecoder: d} }

type bpeDecoding struct {
	bpeDecoder
	whole wholeTokens
	held  string
	some  bool // held is a token
}

func (d *bpeDecoding) push(text string, end bool, out func(string, bool)) {
	token, ok := d.whole.push(text, end)
	if !ok {
		return
	}
	d.give(" ", out)
	d.held, d.some = token, true
}

func (d *bpeDecoding) flush(out func(string, bool)) { d.give("", out) }

func (d *bpeDecoding) give(space string, out func(string, bool)) {
	if d.some {
		out(strings.ReplaceAll(d.held, d.suffix, space), true)
	}
	d.some = false
}

// wordPieceDecoder is WordPiece: a space before each token but the first, unless
// it begins with the prefix of what continues a word.
type wordPieceDecoder struct {
	prefix  string
	cleanup bool
}

func (d wordPieceDecoder) start() decoding { return &wordPieceDecoding{wordPieceDecoder: d} }

type wordPieceDecoding struct {
	wordPieceDecoder
	whole wholeTokens
	some  bool // there was a token
}

func (d *wordPieceDecoding) push(text string, end bool, out func(string, bool)) {
	token, ok := d.whole.push(text, end)
	if !ok {
		return
	}
	if d.some {
		rest, continues := strings.CutPrefix(token, d.prefix)
		if token = rest; !continues {
			token = " " + rest
		}
	}
	d.some = true
	if d.cleanup {
		token = cleanUp(token)
	}
	out(token, true)
}

func (d *wordPieceDecoding) flush(func(string, bool)) {}

// cleanUp removes the spaces that English does not have before punctuation and
// in contractions. The replacements are made one after another.
func cleanUp(s string) string {
	if !strings.Contains(s, " ") {
		return s
	}
	for _, r := range [...][2]string{
		{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"}, {" do not", " don't"},
		{" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
	} {
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

// ctcDecoder is CTC: of a token that comes several times running one is left,
// the pad token nothing, and the delimiter of words becomes a space.
type ctcDecoder struct {
	pad, delimiter string
	cleanup        bool
}

func (d ctcDecoder) start() decoding { return &ctcDecoding{ctcDecoder: d} }

type ctcDecoding struct {
	ctcDecoder
	whole wholeTokens
	last  string
	some  bool // there was a token
}

func (d *ctcDecoding) push(text string, end bool, out func(string, bool)) {
	token, ok := d.whole.push(text, end)
	if !ok || d.some && token == d.last {
		return
	}
	d.last, d.some = token, true
	token = strings.ReplaceAll(token, d.pad, "")
	if d.cleanup {
		token = strings.ReplaceAll(cleanUp(token), d.delimiter, " ")
	}
	if token != "" {
		out(token, true)
	}
}

func (d *ctcDecoding) flush(func(string, bool)) {}

// joinDecoder stands for a decoder that is null: a space between tokens.
type joinDecoder struct{}

func (joinDecoder) start() decoding { return new(joinDecoding) }

type joinDecoding struct{ some bool }

func (d *joinDecoding) push(text string, end bool, out func(string, bool)) {
	if d.some {
		text = " " + text
	}
	d.some = true
	out(text, end)
}

func (d *joinDecoding) flush(func(string, bool)) {}
