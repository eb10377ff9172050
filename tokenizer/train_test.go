package tokenizer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// slowTrain is the definition: count all pairs anew for each merge.
func slowTrain(words map[string]int, special, size, least int) [][2]string {
	type word struct {
		tokens []string
		count  int
	}
	var list []word
	for w, n := range words {
		var tokens []string
		for i := range len(w) {
			tokens = append(tokens, string(byteRune[w[i]]))
		}
		list = append(list, word{tokens, n})
	}
	id := map[string]int{}
	alphabet := slices.Sorted(slices.Values(byteRune[:]))
	for i, r := range alphabet {
		id[string(r)] = special + i
	}
	var merges [][2]string
	for special+len(id) < size {
		count := map[[2]string]int{}
		for _, w := range list {
			for i := 1; i < len(w.tokens); i++ {
				count[[2]string{w.tokens[i-1], w.tokens[i]}] += w.count
			}
		}
		best, most := [2]string{}, 0
		for p, n := range count {
			lower := slices.Compare([]int{id[p[0]], id[p[1]]}, []int{id[best[0]], id[best[1]]}) < 0
			if n > most || n == most && lower {
				best, most = p, n
			}
		}
		if most < max(1, least) {
			break
		}
		merges = append(merges, best)
		joined := best[0] + best[1]
		if _, ok := id[joined]; !ok {
			id[joined] = special + len(id)
		}
		for k, w := range list {
			var out []string
			for i := 0; i < len(w.tokens); i++ {
				if i+1 < len(w.tokens) && w.tokens[i] == best[0] && w.tokens[i+1] == best[1] {
					out = append(out, joined)
					i++
				} else {
					out = append(out, w.tokens[i])
				}
			}
			list[k].tokens = out
		}
	}
	return merges
}

func TestTrainEqualsTheDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 12 {
		// Words of few letters, so that counts tie and letters repeat.
		words := map[string]int{}
		var texts []string
		letters := "abcdé"[:2+round%3]
		for range 40 {
			var b strings.Builder
			for range 1 + r.IntN(12) {
				b.WriteByte(letters[r.IntN(len(letters))])
			}
			n := 1 + r.IntN(3)
			words[b.String()] += n
			for range n {
				texts = append(texts, b.String())
			}
		}
		least := round % 4
		tok, err := Train(context.Background(), slices.Values(texts), TrainOptions{VocabSize: 2 + 256 + 60, MinFrequency: least, SpecialTokens: []string{"<s>", "</s>"}})
		if err != nil {
			t.Fatal(err)
		}
		want := slowTrain(words, 2, 2+256+60, least)
		_, got := splitModel(t, tok)
		if !slices.Equal(got, want) {
			t.Fatalf("round %d: merges are %q, want %q", round, got, want)
		}
	}
}

// splitModel returns vocabulary and merges of a trained tokenizer.
func splitModel(t *testing.T, tok *Tokenizer) (vocab []string, merges [][2]string) {
	t.Helper()
	err := eachMember(tok.doc.values["model"], "model", func(key string, value []byte) (err error) {
		switch key {
		case "merges":
			merges, err = readMerges(value)
		case "vocab":
			var v vocabulary
			v, err = readVocab(value)
			vocab = v.tokens
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return vocab, merges
}

func TestTrainedVocabulary(t *testing.T) {
	special := []string{"<unk>", "<|im_start|>", "<|im_end|>"}
	tok := trained(t, TrainOptions{VocabSize: 420, SpecialTokens: special, BOS: "<s>", AddBOS: true, UNK: "<unk>"})
	if tok.Size() != 420 {
		t.Errorf("the size is %d", tok.Size())
	}
	for i, s := range append(special, "<s>") {
		if id, ok := tok.ID(s); !ok || int(id) != i || !tok.IsSpecial(id) {
			t.Errorf("%s is %d, %v", s, id, ok)
		}
	}
	for b := range 256 {
		if _, ok := tok.ID(string(byteRune[b])); !ok {
			t.Errorf("byte %d has no token", b)
		}
	}
	if ids := tok.Encode("x", EncodeOptions{AddSpecial: true}); len(ids) != 2 || ids[0] != 3 {
		t.Errorf("with BOS it is %d", ids)
	}
	if n := len(tok.Encode(sample, EncodeOptions{})); n*2 > len(sample) {
		t.Errorf("the sample takes %d tokens for %d bytes", n, len(sample))
	}
}

func TestTrainIsDeterministic(t *testing.T) {
	a, b := trained(t, TrainOptions{}), trained(t, TrainOptions{})
	if !bytes.Equal(a.JSON(), b.JSON()) {
		t.Error("two runs differ")
	}
}

func TestMaxTokenLength(t *testing.T) {
	for _, most := range []int{1, 2, 3, 8} {
		tok := trained(t, TrainOptions{VocabSize: 600, MaxTokenLength: most})
		longest := 0
		for id := range int32(tok.Size()) {
			if !tok.IsSpecial(id) {
				longest = max(longest, len(tok.TokenBytes(id)))
			}
		}
		if longest != max(2, most) {
			t.Errorf("the longest token has %d bytes, at most %d are allowed", longest, most)
		}
	}
}

func TestTooLittleTextGivesFewerTokens(t *testing.T) {
	tok, err := Train(context.Background(), slices.Values([]string{"abab"}), TrainOptions{VocabSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if tok.Size() != 258 { // ab, abab
		t.Errorf("the size is %d", tok.Size())
	}
}

func TestSpecialTokensAreNotLearned(t *testing.T) {
	text := strings.Repeat("<|im_end|>", 100) + "ab"
	tok, err := Train(context.Background(), slices.Values([]string{text}), TrainOptions{VocabSize: 400, SpecialTokens: []string{"<|im_end|>"}})
	if err != nil {
		t.Fatal(err)
	}
	if tok.Size() != 258 { // the special token, 256 bytes, ab
		t.Errorf("the size is %d", tok.Size())
	}
}

func TestTrainOptionErrors(t *testing.T) {
	for name, o := range map[string]TrainOptions{
		"too small":      {VocabSize: 256, SpecialTokens: []string{"<s>"}},
		"too large":      {VocabSize: 1 << 30},
		"pattern":        {VocabSize: 300, Pattern: "odd"},
		"twice":          {VocabSize: 300, SpecialTokens: []string{"<s>", "<s>"}},
		"empty":          {VocabSize: 300, SpecialTokens: []string{""}},
		"not UTF-8":      {VocabSize: 300, SpecialTokens: []string{"\xff<"}},
		"a byte":         {VocabSize: 300, SpecialTokens: []string{"Ġ"}},
		"frequency":      {VocabSize: 300, MinFrequency: -1},
		"no BOS to add":  {VocabSize: 300, AddBOS: true},
		"nothing to see": {VocabSize: 300},
	} {
		text := "text"
		if name == "nothing to see" {
			text = ""
		}
		if _, err := Train(context.Background(), slices.Values([]string{text}), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTrainProgressAndCancel(t *testing.T) {
	var phases []string
	big := make([]string, 0, 4000)
	for i := range 4000 {
		big = append(big, fmt.Sprintf("%s %d %x\n", sample, i*7919, i*104729))
	}
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Train(ctx, slices.Values(big), TrainOptions{VocabSize: 3000, Progress: func(p TrainProgress) {
		if p.Done <= 0 || p.Total != 0 && p.Done > p.Total {
			t.Errorf("progress is %+v", p)
		}
		if len(phases) == 0 || phases[len(phases)-1] != p.Phase {
			phases = append(phases, p.Phase)
		}
		if p.Phase == "merge" {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after a cancel: %v", err)
	}
	if !slices.Equal(phases, []string{"read", "merge"}) {
		t.Errorf("phases are %q", phases)
	}
}
