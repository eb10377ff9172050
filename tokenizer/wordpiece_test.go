package tokenizer

import (
	"slices"
	"testing"
)

func wordPieceOf(t *testing.T, members ...string) *Tokenizer {
	t.Helper()
	model := `{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 8,
		"vocab": {"[UNK]": 0, "[CLS]": 1, "un": 2, "##aff": 3, "##able": 4, "una": 5, "##é": 6, "é": 7, "[": 8, "##CLS": 9, "##]": 10}}`
	tok, err := Parse([]byte(file(append([]string{"model", model, "pre_tokenizer", `{"type": "WhitespaceSplit"}`,
		"added_tokens", `[{"id": 1, "content": "[CLS]", "special": true}]`}, members...)...)), "x.json")
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestWordPiece(t *testing.T) {
	for text, want := range map[string][]string{
		"unaffable": {"[UNK]"}, // too long
		"unaff":     {"[UNK]"}, // una leaves ff, and nothing is taken back
		"unable":    {"[UNK]"},
		"un éé":     {"un", "é", "##é"},
		"ununé":     {"[UNK]"},
		"éaffé un":  {"é", "##aff", "##é", "un"},
		"":          nil,
		"un[CLS]é":  {"un", "[CLS]", "é"},
	} {
		tok := wordPieceOf(t)
		ids, offsets := tok.EncodeOffsets(text, EncodeOptions{})
		if got := tokensOf(tok, ids); !slices.Equal(got, want) {
			t.Errorf("%q has the tokens %q, want %q", text, got, want)
		}
		checkOffsets(t, text, ids, offsets)
	}
	tok := wordPieceOf(t)
	ids, offsets := tok.EncodeOffsets(" éaffé", EncodeOptions{})
	if want := [][2]int{{1, 3}, {3, 6}, {6, 8}}; !slices.Equal(offsets, want) {
		t.Errorf("offsets of %q are %v, want %v", tokensOf(tok, ids), offsets, want)
	}
}

// Control tokens must not come out of plain text, neither whole nor by parts.
func TestWordPiecePlainSpecial(t *testing.T) {
	tok := wordPieceOf(t)
	if got, want := tokensOf(tok, tok.Encode("[CLS]", EncodeOptions{PlainSpecial: true})), []string{"[", "##CLS", "##]"}; !slices.Equal(got, want) {
		t.Errorf("tokens are %q, want %q", got, want)
	}
	level, err := Parse([]byte(file("model", `{"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "[CLS]": 1, "a": 2}}`,
		"pre_tokenizer", `{"type": "WhitespaceSplit"}`, "added_tokens", `[{"id": 1, "content": "[CLS]", "special": true}]`)), "x.json")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := level.Encode("a [CLS] b", EncodeOptions{PlainSpecial: true}), []int32{2, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("ids are %d, want %d", got, want)
	}
	if got, want := level.Encode("a [CLS] b", EncodeOptions{}), []int32{2, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("ids are %d, want %d", got, want)
	}
}

func TestOldModels(t *testing.T) {
	for kind, model := range map[string]string{
		"WordPiece": `{"unk_token": "a", "continuing_subword_prefix": "##", "max_input_chars_per_word": 10, "vocab": {"a": 0}}`,
		"WordLevel": `{"unk_token": "a", "vocab": {"a": 0}}`,
	} {
		tok, err := Parse([]byte(file("model", model)), "x.json")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := tok.model.(*wordPiece); ok != (kind == "WordPiece") {
			t.Errorf("%s is read as %T", kind, tok.model)
		}
	}
}
