package tokenizer

// Splitters for the pre-tokenization patterns that most models use, written by
// hand: they run twice as fast as the automaton (regex.go). Each is chosen by the
// exact spelling of its pattern. FuzzSplit checks them against package regexp2.

// A splitter returns the end of the match that begins at s[i], i < len(s). The
// patterns match some part of any text, so that matches leave no gaps.
type splitter func(t *runeTable, s string, i int) int

// Patterns with a splitter of their own.
const (
	// PatternGPT2 is that of GPT-2 and of the ByteLevel pre-tokenizer.
	PatternGPT2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	// PatternLlama3 is that of Llama 3 (OpenAI's cl100k_base): digits by threes.
	PatternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	// PatternQwen2 is that of Qwen 2: as Llama 3's, but every digit alone.
	PatternQwen2 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

var splitters = map[string]splitter{
	PatternGPT2:   splitGPT2,
	PatternLlama3: func(t *runeTable, s string, i int) int { return splitCL100K(t, s, i, 3) },
	PatternQwen2:  func(t *runeTable, s string, i int) int { return splitCL100K(t, s, i, 1) },
}

// run returns the end of the run of characters of class c that begins at s[i].
func run(t *runeTable, s string, i int, c class) int {
	for i < len(s) {
		d, n := t.at(s, i)
		if d != c {
			break
		}
		i += n
	}
	return i
}

// spaces returns the end of the run of white space that begins at s[i], where
// its last character begins, and where its last newline ends (0 if none).
func spaces(t *runeTable, s string, i int) (end, last, newline int) {
	end, last = i, i
	for end < len(s) {
		c, n := t.at(s, end)
		if c&classSpace == 0 {
			break
		}
		last = end
		end += n
		if c == classNewline {
			newline = end
		}
	}
	return end, last, newline
}

// trailingSpace matches \s+(?!\S)|\s+ given what spaces found: a run before
// other text leaves its last character to what follows, unless it is alone.
func trailingSpace(s string, i, end, last int) int {
	if end == len(s) || last == i {
		return end
	}
	return last
}

func splitGPT2(t *runeTable, s string, i int) int {
	if s[i] == '\'' {
		if n := contraction(s[i+1:], false); n > 0 {
			return i + 1 + n
		}
	}
	c, n := t.at(s, i)
	from := i
	if s[i] == ' ' && i+1 < len(s) {
		// The space belongs to what follows, if that isn't a space.
		if d, m := t.at(s, i+1); d&classSpace == 0 {
			c, n, from = d, m, i+1
		}
	}
	if c&classSpace == 0 {
		return run(t, s, from+n, c)
	}
	end, last, _ := spaces(t, s, i)
	return trailingSpace(s, i, end, last)
}

// splitCL100K splits by the patterns of Llama 3 and Qwen 2, with digits in
// groups of at most maxDigits.
func splitCL100K(t *runeTable, s string, i, maxDigits int) int {
	if s[i] == '\'' {
		if n := contraction(s[i+1:], true); n > 0 {
			return i + 1 + n
		}
	}
	c, n := t.at(s, i)
	if c == classLetter {
		return run(t, s, i+n, classLetter)
	}
	next, m := classNewline, 0
	if i+n < len(s) {
		next, m = t.at(s, i+n)
	}
	switch {
	case c == classNumber:
		end := i + n
		for k := 1; k < maxDigits && end < len(s); k++ {
			d, m := t.at(s, end)
			if d != classNumber {
				break
			}
			end += m
		}
		return end
	case next == classLetter && c != classNewline: // [^\r\n\p{L}\p{N}]?\p{L}+
		return run(t, s, i+n+m, classLetter)
	case c == classOther: // ` ?[^\s\p{L}\p{N}]+[\r\n]*`
		return newlines(s, run(t, s, i+n, classOther))
	case s[i] == ' ' && next == classOther:
		return newlines(s, run(t, s, i+n+m, classOther))
	}
	end, last, newline := spaces(t, s, i)
	if newline > 0 { // \s*[\r\n]+
		return newline
	}
	return trailingSpace(s, i, end, last)
}

// newlines returns the end of the run of \r and \n that begins at s[i].
func newlines(s string, i int) int {
	for i < len(s) && (s[i] == '\r' || s[i] == '\n') {
		i++
	}
	return i
}

// contraction returns the length of one of s, t, re, ve, m, ll, d at the start
// of s (what may follow an apostrophe), or 0. With fold, letters match in
// either case, and so does the long s, which Unicode folds to s.
func contraction(s string, fold bool) int {
	if len(s) == 0 {
		return 0
	}
	a, b := s[0], byte(0)
	if len(s) > 1 {
		b = s[1]
	}
	if fold {
		const longS = "\u017f"
		if a == longS[0] && b == longS[1] {
			return len(longS)
		}
		a, b = lower(a), lower(b)
	}
	switch {
	case a == 's' || a == 't' || a == 'm' || a == 'd':
		return 1
	case (a == 'r' || a == 'v') && b == 'e', a == 'l' && b == 'l':
		return 2
	}
	return 0
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
