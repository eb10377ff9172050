package tokenizer

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"ringtail/golden"
)

// vector is what the tokenizers library makes of a text.
type vector struct {
	Text               string  `json:"text"`
	IDs                []int32 `json:"ids"`
	IDsNoSpecial       []int32 `json:"ids_no_special"`
	Decoded            string  `json:"decoded"`
	DecodedWithSpecial string  `json:"decoded_with_special"`
}

// TestGolden compares every NAME.json, .model and .tiktoken that has a NAME.vectors.json.
func TestGolden(t *testing.T) { compareVectors(t, golden.Find(t, "tokenizers/*.vectors.json")) }

// TestVectors does the same with the few small tokenizers that are kept here
// (oracle/tokenizer_vectors.py --small).
func TestVectors(t *testing.T) {
	files, err := filepath.Glob("testdata/vectors/*.vectors.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors in testdata", err)
	}
	compareVectors(t, files)
}

func compareVectors(t *testing.T, files []string) {
	for _, file := range files {
		name := strings.TrimSuffix(file, ".vectors.json")
		t.Run(filepath.Base(name), func(t *testing.T) {
			tok, plain, err := loadGolden(name)
			if errors.Is(err, ErrUnsupported) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var vectors []vector
			if err := json.Unmarshal(data, &vectors); err != nil {
				t.Fatal(err)
			}
			if len(vectors) == 0 {
				t.Fatal("no vectors")
			}
			for i, v := range vectors {
				if plain { // these libraries know of no special tokens in text
					v.IDsNoSpecial, v.DecodedWithSpecial = v.IDs, v.Decoded
				}
				compareVector(t, tok, i, v)
			}
		})
	}
}

// loadGolden reads NAME.json, or what stands for it. plain says that vectors
// have only ids and decoded.
func loadGolden(name string) (tok *Tokenizer, plain bool, err error) {
	for _, ext := range []string{".model", ".tiktoken"} {
		if _, err := os.Stat(name + ext); err == nil {
			tok, err := Load(name + ext)
			return tok, true, err
		}
	}
	tok, err = Load(name + ".json")
	return tok, false, err
}

func compareVector(t *testing.T, tok *Tokenizer, i int, v vector) {
	t.Helper()
	if got := tok.Encode(v.Text, EncodeOptions{AddSpecial: true}); !slices.Equal(got, v.IDs) {
		t.Errorf("vector %d: %q: ids are %d, want %d", i, v.Text, got, v.IDs)
	}
	if got := tok.Encode(v.Text, EncodeOptions{}); !slices.Equal(got, v.IDsNoSpecial) {
		t.Errorf("vector %d: %q: ids without special are %d, want %d", i, v.Text, got, v.IDsNoSpecial)
	}
	if got := tok.Decode(v.IDs, true); got != v.Decoded {
		t.Errorf("vector %d: decoded to %q, want %q", i, got, v.Decoded)
	}
	if got := tok.Decode(v.IDs, false); got != v.DecodedWithSpecial {
		t.Errorf("vector %d: decoded with special to %q, want %q", i, got, v.DecodedWithSpecial)
	}
	ids, offsets := tok.EncodeOffsets(v.Text, EncodeOptions{AddSpecial: true})
	if !slices.Equal(ids, v.IDs) {
		t.Errorf("vector %d: EncodeOffsets and Encode differ", i)
	}
	checkOffsets(t, v.Text, ids, offsets)
	s := tok.NewStream(true)
	var b strings.Builder
	for _, id := range v.IDs {
		part := s.Push(id)
		if !utf8.ValidString(part) {
			t.Errorf("vector %d: the part %q ends within a character", i, part)
		}
		b.WriteString(part)
	}
	b.WriteString(s.Flush())
	if b.String() != v.Decoded {
		t.Errorf("vector %d: streamed to %q, want %q", i, b.String(), v.Decoded)
	}
}

// checkOffsets checks what holds of any tokenizer: one span a token, within the
// text, in its order.
func checkOffsets(t *testing.T, text string, ids []int32, offsets [][2]int) {
	t.Helper()
	if len(ids) != len(offsets) {
		t.Fatalf("%q: %d offsets for %d tokens", text, len(offsets), len(ids))
	}
	last := [2]int{}
	for i, o := range offsets {
		if o[0] < last[0] || o[1] < last[1] || o[0] > o[1] || o[1] > len(text) {
			t.Fatalf("%q: token %d has the offsets %v after %v", text, i, o, last)
		}
		last = o
	}
}
