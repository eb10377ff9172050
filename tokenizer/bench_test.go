package tokenizer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// benchTexts returns texts to measure with: the plain text among the real data
// beside the golden folder, and one letter without end.
func benchTexts(b *testing.B) map[string]string {
	texts := map[string]string{
		"one letter": strings.Repeat("a", 1<<20),
		"spaces":     strings.Repeat(" ", 1<<20),
		"sample":     strings.Repeat(sample, 200),
	}
	data, err := os.ReadFile(filepath.Join("..", "..", "shared", "data", "text", "wiki_demo.txt"))
	if err == nil {
		texts["wiki"] = string(data)
	}
	return texts
}

func BenchmarkEncode(b *testing.B) {
	for name, tok := range map[string]*Tokenizer{
		"gpt2": trained(b, TrainOptions{Pattern: "gpt2"}), "llama3": trained(b, TrainOptions{}), "sentencepiece": spm(b),
	} {
		for kind, text := range benchTexts(b) {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.SetBytes(int64(len(text)))
				b.ReportAllocs()
				var ids []int32
				for b.Loop() {
					ids = tok.AppendEncode(ids[:0], text, EncodeOptions{})
				}
			})
		}
	}
}

func BenchmarkEncodeOffsets(b *testing.B) {
	tok := trained(b, TrainOptions{})
	text := strings.Repeat(sample, 200)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.EncodeOffsets(text, EncodeOptions{})
	}
}

func BenchmarkDecode(b *testing.B) {
	tok := trained(b, TrainOptions{})
	text := strings.Repeat(sample, 200)
	ids := tok.Encode(text, EncodeOptions{})
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		tok.Decode(ids, true)
	}
}

// BenchmarkParse reads a vocabulary of the size of Llama 3's.
func BenchmarkParse(b *testing.B) {
	tr := newTrainer(nil, TrainOptions{VocabSize: 128256})
	for a := int32(0); len(tr.tokens) < 128256; a++ {
		for c := range int32(1000) {
			if len(tr.tokens) < 128256 && a < int32(len(tr.tokens)) {
				if n := len(tr.tokens); int(tr.add(tr.tokens[a]+tr.tokens[c%256], 2)) == n {
					tr.merges = append(tr.merges, [2]int32{a, c % 256})
				}
			}
		}
	}
	o := TrainOptions{Pattern: "llama3"}
	data := o.json(tr)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Parse(data, "bench.json"); err != nil {
			b.Fatal(err)
		}
	}
}
