package tokenizer

import (
	"strings"
	"testing"
)

func TestByteAlphabet(t *testing.T) {
	seen := map[rune]bool{}
	for b := range 256 {
		r := byteRune[b]
		if seen[r] {
			t.Errorf("%q stands for two bytes", r)
		}
		seen[r] = true
		if s, ok := fromByteAlphabet(string(r)); !ok || s != string([]byte{byte(b)}) {
			t.Errorf("%q is read as %q", r, s)
		}
	}
	if got := toByteAlphabet(" \u4f60\n!"); got != "\u0120\u00e4\u00bd\u0142\u010a!" {
		t.Errorf("spelled %q", got)
	}
	if _, ok := fromByteAlphabet("a\u2581"); ok {
		t.Error("U+2581 is not in the alphabet")
	}
}

func TestLossyUTF8(t *testing.T) {
	// The examples of The Unicode Standard, section 3.9, tables 3-8 to 3-11.
	for in, want := range map[string]string{
		"a\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41": "a\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdA",
		"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41":  "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffdA",
		"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42":  "\ufffd\ufffd\ufffd\ufffd\ufffdA\ufffd\ufffdB",
		"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41":  "\ufffd\ufffd\ufffd\ufffdA",
		"\u4f60\xe4\xbd":                        "\u4f60\ufffd",
		"\U0001f600\ufffd":                      "\U0001f600\ufffd",
		"":                                      "",
	} {
		var b strings.Builder
		if n := lossyUTF8(&b, []byte(in), true); n != len(in) || b.String() != want {
			t.Errorf("%x gives %q, want %q", in, b.String(), want)
		}
		// In parts, each with what was left of the one before.
		b.Reset()
		var left []byte
		for i := range len(in) {
			left = append(left, in[i])
			left = left[lossyUTF8(&b, left, false):]
		}
		lossyUTF8(&b, left, true)
		if b.String() != want {
			t.Errorf("%x in parts gives %q, want %q", in, b.String(), want)
		}
	}
}
