package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// The byte alphabet of GPT-2 gives each of the 256 bytes a printable character,
// so that any text can be written as vocabulary strings: bytes that Latin-1
// prints stand for themselves, the other 68 take the characters from U+0100 on,
// in order (encoder.py of openai/gpt-2, bytes_to_unicode).

// byteAlphabetEnd is one past the highest character of the byte alphabet.
const byteAlphabetEnd = 0x100 + 68

var (
	byteRune [256]rune              // the character of a byte
	runeByte [byteAlphabetEnd]int16 // the byte of a character, -1 if it has none
)

func init() {
	for i := range runeByte {
		runeByte[i] = -1
	}
	next := rune(0x100)
	for b := range 256 {
		r := rune(b)
		printable := b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE
		if !printable {
			r = next
			next++
		}
		byteRune[b] = r
		runeByte[r] = int16(b)
	}
}

// toByteAlphabet spells the bytes of s in the byte alphabet.
func toByteAlphabet(s string) string {
	var b strings.Builder
	b.Grow(len(s) * 2)
	for i := range len(s) {
		b.WriteRune(byteRune[s[i]])
	}
	return b.String()
}

// fromByteAlphabet is the inverse of toByteAlphabet. It is false if a character
// of s is not in the alphabet.
func fromByteAlphabet(s string) (string, bool) {
	b, ok := appendFromByteAlphabet(make([]byte, 0, len(s)), s)
	return string(b), ok
}

// appendFromByteAlphabet appends the bytes that s spells to dst. If a character
// of s is not in the alphabet it is false and dst stays as it was.
func appendFromByteAlphabet(dst []byte, s string) ([]byte, bool) {
	n := len(dst)
	for _, r := range s {
		if r >= byteAlphabetEnd || runeByte[r] < 0 {
			return dst[:n], false
		}
		dst = append(dst, byte(runeByte[r]))
	}
	return dst, true
}

// lossyUTF8 appends b to out with each longest invalid part of a character
// replaced by one U+FFFD, as the WHATWG's decoder and Rust's from_utf8_lossy do
// (The Unicode Standard, section 3.9, "Substitution of Maximal Subparts"). Go's
// own conversions replace byte by byte, or whole runs.
//
// With final false it stops before a tail that more bytes could complete, and
// returns how many bytes of b it took.
func lossyUTF8(out *strings.Builder, b []byte, final bool) int {
	i := 0
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		if r != utf8.RuneError || n > 1 {
			out.Write(b[i : i+n])
			i += n
			continue
		}
		n, open := invalidPart(b[i:])
		if open && !final {
			return i
		}
		out.WriteRune(utf8.RuneError)
		i += n
	}
	return i
}

// invalidPart returns the length of the maximal subpart that b begins with,
// b not beginning with a whole character. open says that b ended before the
// character did, so that more bytes might make it valid.
func invalidPart(b []byte) (n int, open bool) {
	var size int
	lo, hi := byte(0x80), byte(0xBF) // bounds of the second byte
	switch c := b[0]; {
	case c >= 0xC2 && c <= 0xDF:
		size = 2
	case c >= 0xE0 && c <= 0xEF:
		size = 3
		if c == 0xE0 {
			lo = 0xA0 // no overlong forms
		} else if c == 0xED {
			hi = 0x9F // no surrogates
		}
	case c >= 0xF0 && c <= 0xF4:
		size = 4
		if c == 0xF0 {
			lo = 0x90
		} else if c == 0xF4 {
			hi = 0x8F // nothing above U+10FFFF
		}
	default:
		return 1, false
	}
	for n = 1; n < size; n++ {
		if n == len(b) {
			return n, true
		}
		if b[n] < lo || b[n] > hi {
			return n, false
		}
		lo, hi = 0x80, 0xBF
	}
	return n, false
}
