package tokenizer

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// rulesOf is the charsmap of a model of testdata: a few rules, among them
// ﬁ to fi, U+00AD to nothing, and e with a combining accent to é.
func rulesOf(t testing.TB) []byte {
	m, err := parseSentencepiece(modelFiles(t)["unigram_nmt_nfkc.model"])
	if err != nil || m.rules == nil {
		t.Fatal("no rules", err)
	}
	return m.rules.blob
}

func precompiledJSON(blob []byte) string {
	return fmt.Sprintf(`{"type": "Precompiled", "precompiled_charsmap": "%s"}`, base64.StdEncoding.EncodeToString(blob))
}

func TestPrecompiled(t *testing.T) {
	n, err := readNormalizer([]byte(precompiledJSON(rulesOf(t))), "normalizer", 0)
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"":                    "",
		"plain":               "plain",
		"ﬁnd the ﬁ":           "find the fi",
		"a\u00adb":            "ab",
		"cafe\u0301":          "café",
		"e\u0301\u0301":       "é",                   // a cluster of 5 bytes: what the rule leaves of it goes too
		"e\u0301\u0301\u0301": "e\u0301\u0301\u0301", // longer: each character by itself
		"Ａ\u0301b":            "Ab",
		"Ａ\u3000Ｂ":            "A B",
		"\r\nx":               " x", // one cluster
		"\n\nx":               "  x",
		"中ﷺ":                  "中صلى الله",
		"\u0600Ａ":             "\u0600A",
		"\xffﬁ\xe4\xbd":       "\xfffi\xe4\xbd",
	} {
		if got := n.normalize(piece{text: in}, false).text; got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
		p := n.normalize(piece{text: in}, true)
		if p.text != want || p.spans != nil && len(p.spans) != len(p.text) {
			t.Errorf("%q with spans: %q, %d spans", in, p.text, len(p.spans))
		}
	}
}

func TestBrokenCharsMaps(t *testing.T) {
	good := rulesOf(t)
	for name, c := range map[string]struct {
		raw  string
		want string
	}{
		"no field":   {`{"type": "Precompiled"}`, "normalizer.precompiled_charsmap: missing"},
		"not base64": {`{"type": "Precompiled", "precompiled_charsmap": "*"}`, "illegal base64"},
		"short":      {precompiledJSON([]byte{1, 2}), "has 2 bytes"},
		"size":       {precompiledJSON(binary.LittleEndian.AppendUint32(nil, 8)), "a trie of 8 bytes is stated, but 0 bytes follow"},
		"odd size":   {precompiledJSON(append(binary.LittleEndian.AppendUint32(nil, 3), 1, 2, 3)), "multiple of 4"},
		"not UTF-8":  {precompiledJSON(append(good[:len(good):len(good)], 0xFF)), "not UTF-8"},
	} {
		_, err := readNormalizer([]byte(c.raw), "normalizer", 0)
		if err == nil || !strings.HasPrefix(err.Error(), "normalizer.precompiled_charsmap: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the error is %v, want %q", name, err, c.want)
		}
	}
}

// FuzzCharsMap looks up in broken rules, as both libraries do.
func FuzzCharsMap(f *testing.F) {
	f.Add(rulesOf(f), "ﬁ e\u0301\r\n\xff")
	f.Add(append(binary.LittleEndian.AppendUint32(nil, 8), 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 'x', 0), "ab")
	f.Fuzz(func(t *testing.T, blob []byte, text string) {
		m, err := newCharsMap(blob)
		if err != nil {
			return
		}
		sp := newSPNormalizer(&spModel{rules: m, dummy: true, squeeze: true, escape: true})
		for _, n := range []normalizer{precompiledNormalizer{m}, sp} {
			a, b := n.normalize(piece{text: text}, false), n.normalize(piece{text: text}, true)
			if a.text != b.text || b.spans != nil && len(b.spans) != len(b.text) {
				t.Errorf("%q and with spans %q, %d spans", a.text, b.text, len(b.spans))
			}
		}
	})
}
