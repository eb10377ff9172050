package data

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// indexed is the path of an element of a list: messages[2].
func indexed(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// clip shortens text for an error message, at a character's border.
func clip(s string, max int) string {
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max] + "..."
}

// marshal writes a value that always has a JSON form, without HTML escapes:
// the text is trained on, and must not turn < into a code.
func marshal(v any) json.RawMessage {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("data: marshal: %v", err)) // only strings and checked raw JSON come here
	}
	return bytes.TrimSpace(b.Bytes())
}

// printable makes text from a file safe to show on a terminal: control
// characters, which could move the cursor or recolour the screen, become
// visible. Line ends and tabs stay.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return c
		case c < 0x20:
			return 0x2400 + c // Unicode's pictures of control characters
		case c == 0x7f:
			return 0x2421
		case c >= 0x80 && c < 0xa0:
			return unicode.ReplacementChar
		}
		return c
	}, s)
}
