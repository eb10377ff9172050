package tokenizer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// makeFolder writes files into a folder.
func makeFolder(t *testing.T, files map[string]string) string {
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const gpt2Vocab = `{"a": 0, "b": 1, "Ġ": 2, "Ġa": 3, "ab": 4, "</s>": 5, "<pad>": 6, "1": 7, "2": 8, "12": 9, "é": 10, "Ã": 11, "©": 12, "Ã©": 13}`

// TestVocabFolders: ids as those of transformers' classes, and the same from the
// folder that is written.
func TestVocabFolders(t *testing.T) {
	model := string(smallModel(spTypeUnigram, nil))
	bpe := string(smallModel(spTypeBPE, nil))
	for name, c := range map[string]struct {
		files map[string]string
		text  string
		want  []int32 // with what is put around a text
		size  int
	}{
		"GPT-2": {map[string]string{"vocab.json": gpt2Vocab, "merges.txt": "#version: 0.2\nĠ a\na b\n1 2\n"}, "ab a12", []int32{4, 3, 9}, 14},
		"OPT": {map[string]string{"vocab.json": gpt2Vocab, "merges.txt": "Ġ a\r\na b\r\n", configFile: `{"tokenizer_class": "GPT2Tokenizer",
			"add_bos_token": true, "bos_token": {"content": "</s>"}, "eos_token": "</s>", "pad_token": "<pad>"}`}, "ab<pad>", []int32{5, 4, 6}, 14},
		"Qwen2": {map[string]string{"vocab.json": gpt2Vocab, "merges.txt": "1 2\nÃ ©\n", configFile: `{"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}`,
			addedFile: `{"<|im_end|>": 15, "<|x|>": 14}`, specialMapFile: `{"additional_special_tokens": ["<|x|>"]}`}, "12e\u0301<|x|>", []int32{7, 8, 13, 14}, 16},
		"BERT": {map[string]string{"vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\nab\n##a\n"}, "ABA x", []int32{2, 4, 5, 1, 3}, 6},
		"Llama": {map[string]string{"tokenizer.model": bpe, configFile: `{"tokenizer_class": "LlamaTokenizer", "pad_token": "<pad>"}`},
			"ab</s>a<pad>", []int32{1, 6, 4, 2, 6, 8}, 9},
		"Llama, not legacy": {map[string]string{"tokenizer.model": bpe, "config.json": `{"model_type": "llama"}`, configFile: `{"legacy": false, "add_bos_token": false, "add_eos_token": true}`},
			"ab</s>a", []int32{6, 4, 2, 3, 2}, 8},
		"T5": {map[string]string{"spiece.model": model, configFile: `{"tokenizer_class": "T5Tokenizer", "extra_ids": 3}`}, "a<extra_id_0>", []int32{6, 10, 2}, 11},
		"XLM-R": {map[string]string{"sentencepiece.bpe.model": model, configFile: `{"tokenizer_class": "XLMRobertaTokenizer"}`},
			"ab x<mask>", []int32{0, 7, 5, 6, 3, 9, 2}, 10},
		"added tokens": {map[string]string{"tokenizer.model": model, configFile: `{"added_tokens_decoder": {"8": {"content": "<u>", "special": false, "rstrip": true}}}`},
			"a<u> a", []int32{6, 8, 6}, 9},
	} {
		t.Run(name, func(t *testing.T) {
			tok, err := LoadFolder(makeFolder(t, c.files))
			if err != nil {
				t.Fatal(err)
			}
			out := t.TempDir()
			if err := tok.SaveFolder(out); err != nil {
				t.Fatal(err)
			}
			again, err := LoadFolder(out)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range []*Tokenizer{tok, again} {
				if ids := x.Encode(c.text, EncodeOptions{AddSpecial: true}); !slices.Equal(ids, c.want) {
					t.Errorf("ids are %d, want %d", ids, c.want)
				}
				if x.Size() != c.size {
					t.Errorf("%d tokens, want %d", x.Size(), c.size)
				}
			}
			a, b := *tok.Config(), *again.Config()
			if a.BOS != b.BOS || a.EOS != b.EOS || a.PAD != b.PAD || a.UNK != b.UNK {
				t.Errorf("names %+v, then %+v", a, b)
			}
		})
	}
}

// TestVocabOrder: of several forms the first counts.
func TestVocabOrder(t *testing.T) {
	files := map[string]string{
		tokenizerFile: file(), "tokenizer.model": string(smallModel(spTypeBPE, nil)), "a.tiktoken": "?", "vocab.json": gpt2Vocab, "merges.txt": "", "vocab.txt": "[UNK]\na\n",
	}
	var sizes []int
	for _, gone := range []string{"", tokenizerFile, "tokenizer.model", "a.tiktoken", "vocab.json"} {
		delete(files, gone)
		tok, err := LoadFolder(makeFolder(t, files))
		if err != nil {
			if !strings.Contains(err.Error(), "a.tiktoken: ") {
				t.Fatal(err)
			}
			sizes = append(sizes, -1)
			continue
		}
		sizes = append(sizes, tok.Size())
	}
	first, err := Parse([]byte(file()), "x.json")
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{first.Size(), 8, -1, 14, 3}; !slices.Equal(sizes, want) {
		t.Errorf("sizes %d, want %d", sizes, want)
	}
}

func TestBrokenVocabFolders(t *testing.T) {
	model := string(smallModel(spTypeBPE, nil))
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"nothing":   {map[string]string{"config.json": "{}"}, []string{"no tokenizer.json"}},
		"merges":    {map[string]string{"vocab.json": gpt2Vocab, "merges.txt": "a b\na b c\n"}, []string{"merges.txt: line 2: \"a b c\""}},
		"merge":     {map[string]string{"vocab.json": gpt2Vocab, "merges.txt": "a x\n"}, []string{"vocab.json: model.merges[0]", "\"x\" is not in the vocabulary"}},
		"vocab":     {map[string]string{"vocab.json": "[]", "merges.txt": ""}, []string{"vocab.json"}},
		"vocab.txt": {map[string]string{"vocab.txt": "[UNK]\na\na\n"}, []string{"vocab.txt: line 3: \"a\" is in line 2"}},
		"added": {map[string]string{"tokenizer.model": model, addedFile: `{"x": "y"}`},
			[]string{"added_tokens.json: x: is of type string"}},
		"id": {map[string]string{"tokenizer.model": model, addedFile: `{"x": 9999999}`}, []string{`added token "x": id 9999999 is out of range`}},
		"decoder": {map[string]string{"tokenizer.model": model, configFile: `{"added_tokens_decoder": {"x": {}}}`},
			[]string{"tokenizer_config.json: added_tokens_decoder"}},
		"option":    {map[string]string{"tokenizer.model": model, configFile: `{"legacy": 3}`}, []string{"tokenizer_config.json", "legacy", "number"}},
		"extra ids": {map[string]string{"tokenizer.model": model, configFile: `{"tokenizer_class": "T5Tokenizer", "extra_ids": -1}`}, []string{"extra_ids is -1"}},
	} {
		_, err := LoadFolder(makeFolder(t, c.files))
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: the error is %v, want %q", name, err, want)
			}
		}
	}
}

// TestPlainUserDefined: a user-defined piece that the folder makes a control
// token, as Gemma's <start_of_turn> is, does not come from plain text.
func TestPlainUserDefined(t *testing.T) {
	for _, kind := range []uint64{spTypeBPE, spTypeUnigram} {
		data := smallModel(kind, func(m protoMessage) protoMessage {
			return m.piece("<u>", 0, pieceUserDefined).piece("<", -9, pieceNormal).piece("ba", -9, pieceUserDefined)
		})
		tok, err := LoadFolder(makeFolder(t, map[string]string{"tokenizer.model": string(data),
			configFile: `{"added_tokens_decoder": {"8": {"content": "<u>", "special": true}}}`}))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			options EncodeOptions
			want    []int32
		}{{EncodeOptions{}, []int32{6, 8, 5, 10}}, {EncodeOptions{PlainSpecial: true}, []int32{6, 9, 0, 10}}} {
			ids, offsets := tok.EncodeOffsets("a<u>ba", c.options)
			if !slices.Equal(ids, c.want) || len(offsets) != len(ids) {
				t.Errorf("%s, %+v: ids are %d, want %d", spTypeNames[kind], c.options, ids, c.want)
			}
		}
	}
}
