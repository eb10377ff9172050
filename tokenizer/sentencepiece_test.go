package tokenizer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// protoMessage builds messages for tests.
type protoMessage []byte

func (m protoMessage) bytes(field int, b []byte) protoMessage {
	m = binary.AppendUvarint(m, uint64(field)<<3|wireBytes)
	return append(binary.AppendUvarint(m, uint64(len(b))), b...)
}

func (m protoMessage) number(field int, v uint64) protoMessage {
	return binary.AppendUvarint(binary.AppendUvarint(m, uint64(field)<<3|wireVarint), v)
}

func (m protoMessage) float(field int, v float32) protoMessage {
	return binary.LittleEndian.AppendUint32(binary.AppendUvarint(m, uint64(field)<<3|wireFixed32), math.Float32bits(v))
}

func (m protoMessage) piece(text string, score float32, kind uint64) protoMessage {
	return m.bytes(1, protoMessage(nil).bytes(1, []byte(text)).float(2, score).number(3, kind))
}

// smallModel is a model of the pieces <unk> <s> </s> a b ▁ ▁a ab, with more.
func smallModel(kind uint64, more func(protoMessage) protoMessage) []byte {
	m := protoMessage(nil).piece("<unk>", 0, pieceUnknown).piece("<s>", 0, pieceControl).piece("</s>", 0, pieceControl)
	for i, s := range []string{"a", "b", "▁", "▁a", "ab"} {
		m = m.piece(s, -float32(i)-1, pieceNormal)
	}
	m = m.bytes(2, protoMessage(nil).number(3, kind))
	if more != nil {
		m = more(m)
	}
	return m
}

func TestBrokenModels(t *testing.T) {
	good := smallModel(spTypeBPE, nil)
	if _, err := ParseSentencepiece(good, "x.model"); err != nil {
		t.Fatal(err)
	}
	piece := func(text string, score float32, kind uint64) func(protoMessage) protoMessage {
		return func(m protoMessage) protoMessage { return m.piece(text, score, kind) }
	}
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":       {nil, "cut off"},
		"cut":         {good[:len(good)-1], "only 1 bytes follow"},
		"length":      {protoMessage{1<<3 | wireBytes, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1}, "length 18446744073709551615"},
		"wire type":   {protoMessage{1<<3 | 3}, "wire type 3"},
		"wrong type":  {protoMessage(nil).number(1, 5), "pieces is of wire type varint, expected bytes"},
		"no pieces":   {protoMessage(nil).bytes(2, nil), "pieces: none"},
		"no unknown":  {protoMessage(nil).piece("a", 0, pieceNormal), "type UNKNOWN"},
		"two unknown": {smallModel(spTypeBPE, piece("x", 0, pieceUnknown)), "pieces[8].type: UNKNOWN"},
		"twice":       {smallModel(spTypeBPE, piece("ab", 0, pieceNormal)), `pieces[8].piece: "ab" occurs twice`},
		"empty piece": {smallModel(spTypeBPE, piece("", 0, pieceNormal)), "pieces[8].piece: is empty"},
		"not UTF-8":   {smallModel(spTypeBPE, piece("\xff", 0, pieceNormal)), "pieces[8].piece"},
		"NaN":         {smallModel(spTypeBPE, piece("x", float32(math.NaN()), pieceNormal)), "pieces[8].score"},
		"kind":        {smallModel(spTypeBPE, piece("x", 0, 7)), "pieces[8].type: 7"},
		"byte":        {smallModel(spTypeBPE, piece("<0x00>", 0, pieceByte)), "byte_fallback is false"},
		"long":        {smallModel(spTypeBPE, piece(strings.Repeat("x", maxPiece+1), 0, pieceNormal)), "has 1025 bytes"},
		"word model":  {smallModel(3, nil), "WORD (3) is unsupported"},
		"bytes": {smallModel(spTypeBPE, func(m protoMessage) protoMessage {
			return m.bytes(2, protoMessage(nil).number(35, 1))
		}), "only 0 of 256 bytes"},
		"charsmap": {smallModel(spTypeBPE, func(m protoMessage) protoMessage {
			return m.bytes(3, protoMessage(nil).bytes(2, []byte{255, 255, 255, 255, 0}))
		}), "normalizer_spec.precompiled_charsmap: a trie of 4294967295 bytes"},
		"denormalizer": {smallModel(spTypeBPE, func(m protoMessage) protoMessage {
			return m.bytes(5, protoMessage(nil).bytes(2, []byte{1}))
		}), "denormalizer_spec.precompiled_charsmap"},
	} {
		_, err := ParseSentencepiece(c.data, "x.model")
		if err == nil || !strings.HasPrefix(err.Error(), "x.model: ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: the error is %v, want %q", name, err, c.want)
		}
	}
	if _, err := ParseSentencepiece(smallModel(4, nil), "x.model"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("CHAR: %v", err)
	}
}

// modelFiles are the small models of testdata.
func modelFiles(t testing.TB) map[string][]byte {
	files, err := filepath.Glob("testdata/vectors/*.model")
	if err != nil || len(files) == 0 {
		t.Fatal("no models in testdata", err)
	}
	m := map[string][]byte{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		m[filepath.Base(f)] = data
	}
	return m
}

// TestModelAsJSON: what is written for a model is read again with the same ids,
// where no rules, no control tokens and no unused pieces are in play.
func TestModelAsJSON(t *testing.T) {
	for name, data := range modelFiles(t) {
		if strings.Contains(name, "unused") {
			continue
		}
		tok, err := ParseSentencepiece(data, name)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(tok.JSON(), name+".json")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{"ka to", "  mi  ren ", "中国 the 12", "@@x <user> y", "bar", "кот 한 1234", "a\nb"} {
			if a, b := tok.Encode(s, EncodeOptions{}), again.Encode(s, EncodeOptions{}); !slices.Equal(a, b) {
				t.Errorf("%s: %q: ids are %d, and %d as tokenizer.json", name, s, a, b)
			}
		}
		id, err := tok.AddTokens(AddedToken{Content: "<new>", Special: true})
		if err != nil {
			t.Fatal(err)
		}
		if again, err = Parse(tok.JSON(), name+".json"); err != nil {
			t.Fatal(err)
		}
		for _, x := range []*Tokenizer{tok, again} {
			if ids := x.Encode("ka<new>to", EncodeOptions{}); !slices.Contains(ids, id[0]) {
				t.Errorf("%s: the new token is not found: %d", name, ids)
			}
		}
	}
}

// TestControlPieces: alone a model reads no control pieces in a text, and shows
// none; in a folder it does both, unless told that the text is plain.
func TestControlPieces(t *testing.T) {
	data := smallModel(spTypeUnigram, nil)
	alone, err := ParseSentencepiece(data, "x.model")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"tokenizer.model": string(data), configFile: `{"tokenizer_class": "LlamaTokenizer"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	inFolder, err := LoadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tok     *Tokenizer
		options EncodeOptions
		text    string
		ids     []int32
	}{
		{alone, EncodeOptions{AddSpecial: true}, "a</s>", []int32{6, 0}},
		{inFolder, EncodeOptions{}, "a</s>", []int32{6, 2}},
		{inFolder, EncodeOptions{AddSpecial: true}, "a</s>b", []int32{1, 6, 2, 5, 4}},
		{inFolder, EncodeOptions{PlainSpecial: true}, "a</s>", []int32{6, 0}},
	} {
		if ids := c.tok.Encode(c.text, c.options); !slices.Equal(ids, c.ids) {
			t.Errorf("%q, %+v: ids are %d, want %d", c.text, c.options, ids, c.ids)
		}
	}
	ids := []int32{1, 6, 0, 2}
	for _, c := range []struct {
		tok  *Tokenizer
		skip bool
		want string
	}{{alone, true, "a ⁇ "}, {alone, false, "a ⁇ "}, {inFolder, true, "a"}, {inFolder, false, "<s> a<unk></s>"}} {
		if got := c.tok.Decode(ids, c.skip); got != c.want {
			t.Errorf("decoded to %q, want %q", got, c.want)
		}
	}
	if bos, ok := inFolder.BOS(); !ok || bos != 1 || !inFolder.IsSpecial(1) || !alone.IsSpecial(2) || alone.IsSpecial(3) {
		t.Error("control pieces are not special")
	}
	for id := range int32(alone.Size()) {
		if b, want := alone.TokenBytes(id), map[int32]string{0: " ⁇ ", 1: "", 6: " a"}[id]; id < 3 && string(b) != want || id == 6 && string(b) != want {
			t.Errorf("bytes of %d are %q", id, b)
		}
	}
}

// TestLinear encodes long texts of what is hardest for merging and for cutting: a
// text 16 times as long may take 16 times as long, with much room for noise.
func TestLinear(t *testing.T) {
	letters := func(m protoMessage) protoMessage {
		for n := 2; n <= 64; n *= 2 {
			m = m.piece(strings.Repeat("a", n), -float32(n), pieceNormal)
		}
		return m.bytes(3, protoMessage(nil).number(4, 0))
	}
	for _, kind := range []uint64{spTypeBPE, spTypeUnigram} {
		tok, err := ParseSentencepiece(smallModel(kind, letters), "x.model")
		if err != nil {
			t.Fatal(err)
		}
		took := func(s string) time.Duration {
			best := time.Duration(math.MaxInt64)
			for range 2 {
				begin := time.Now()
				tok.Encode(s, EncodeOptions{})
				best = min(best, time.Since(begin))
			}
			return best
		}
		for _, s := range []string{"a", "ab", " ", "?"} {
			short, long := took(strings.Repeat(s, 1<<14/len(s))), took(strings.Repeat(s, 1<<18/len(s)))
			if long > 16*8*short+2*time.Second {
				t.Errorf("%s, %q: 16 KiB take %v, 256 KiB take %v", spTypeNames[kind], s, short, long)
			}
		}
	}
}

// FuzzSentencepiece reads broken model files. What is read must encode and
// decode without a panic, and be read again as it was written.
func FuzzSentencepiece(f *testing.F) {
	for _, data := range modelFiles(f) {
		f.Add(data)
	}
	for _, kind := range []uint64{spTypeBPE, spTypeUnigram} {
		f.Add(smallModel(kind, nil))
		f.Add(smallModel(kind, func(m protoMessage) protoMessage {
			m = m.piece("aba", -1, pieceUnused).piece("abab", -1, pieceNormal).piece("ab ", 3, pieceUserDefined).piece("éx", -1, pieceNormal)
			return m.bytes(2, protoMessage(nil).number(24, 1)).bytes(3, protoMessage(nil).number(5, 0))
		}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := ParseSentencepiece(data, "fuzz.model")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fuzz.model: ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is %q", err)
			}
			return
		}
		exercise(t, tok)
		if _, err := Parse(tok.JSON(), "again.json"); err != nil && !errors.Is(err, ErrUnsupported) {
			t.Errorf("as tokenizer.json: %v", err)
		}
	})
}

// exercise encodes and decodes what is hard.
func exercise(t *testing.T, tok *Tokenizer) {
	for _, text := range []string{"ab x é\xff 1</s>▁b ", strings.Repeat("ab", 100), "中 \u0301ﬁ\r\n<user>@@"} {
		for _, o := range []EncodeOptions{{AddSpecial: true}, {PlainSpecial: true}} {
			ids, offsets := tok.EncodeOffsets(text, o)
			if len(ids) != len(offsets) {
				t.Fatalf("%d tokens, %d offsets", len(ids), len(offsets))
			}
			for i, id := range ids {
				if _, ok := tok.Token(id); !ok || int(id) >= tok.Size() {
					t.Errorf("%d is no token", id)
				}
				if o := offsets[i]; o[0] < 0 || o[0] > o[1] || o[1] > len(text) {
					t.Errorf("offsets %v", o)
				}
			}
			if s := tok.Decode(ids, true); !utf8.ValidString(s) {
				t.Errorf("decoded to %q", s)
			}
		}
	}
}

// TestProtobuf reads fields of each wire type.
func TestProtobuf(t *testing.T) {
	m := protoMessage(nil).number(1, 300).bytes(2, []byte("xy")).float(3, 1.5)
	m = binary.LittleEndian.AppendUint64(binary.AppendUvarint(m, 4<<3|wireFixed64), 7)
	var got []protoField
	if err := eachField(m, "m", func(f protoField) error { got = append(got, f); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 4 || got[0].value != 300 || !bytes.Equal(got[1].bytes, []byte("xy")) || got[2].float() != 1.5 || got[3].value != 7 {
		t.Errorf("fields %+v", got)
	}
	for n := 1; n < len(m); n++ {
		whole := slices.Contains([]int{3, 7, 12}, n) // between fields
		if err := eachField(m[:n], "m", func(protoField) error { return nil }); (err == nil) != whole {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
