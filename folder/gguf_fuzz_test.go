package folder

import (
	"encoding/json"
	"strings"
	"testing"

	"ringtail/gguf"
	"ringtail/tokenizer"
)

// FuzzGGUFTokenizer: metadata of any content give a tokenizer or an error in a
// line, never a panic; a tokenizer encodes and decodes.
func FuzzGGUFTokenizer(f *testing.F) {
	f.Add([]byte(`{"model":"gpt2","pre":"llama-bpe","tokens":["a","b","ab","<s>"],"types":[1,1,1,3],"merges":["a b"],"bos":3}`))
	f.Add([]byte(`{"model":"llama","tokens":["<unk>","<s>","</s>","a","▁","▁a","<0x41>"],"types":[2,3,3,1,1,1,6],"scores":[0,0,0,-2,-3,-1,0]}`))
	f.Add([]byte(`{"model":"t5","tokens":["<pad>","</s>","<unk>","a","▁a"],"types":[3,3,2,1,1],"scores":[0,0,0,-1.5,-2],"charsmap":"AAAA"}`))
	f.Add([]byte(`{"model":"gpt2","tokens":["a","a"],"merges":["a a","a"," "]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var v struct {
			Model, Pre      string
			Tokens, Merges  []string
			Types           []int32
			Scores          []float32
			BOS, EOS, UNK   *uint32
			AddBOS, AddEOS  *bool
			Prefix, Extra   *bool
			Charsmap        []byte
			Template, Whole string
			Arch            string
		}
		if json.Unmarshal(text, &v) != nil {
			return
		}
		pairs := []gguf.Pair{{Key: keyModel, Value: v.Model}, {Key: keyPre, Value: v.Pre}, {Key: keyTokens, Value: v.Tokens}, {Key: keyTemplate, Value: v.Template},
			{Key: "general.architecture", Value: v.Arch}}
		if v.Types != nil {
			pairs = append(pairs, gguf.Pair{Key: keyTypes, Value: v.Types})
		}
		if v.Scores != nil {
			pairs = append(pairs, gguf.Pair{Key: keyScores, Value: v.Scores})
		}
		if v.Merges != nil {
			pairs = append(pairs, gguf.Pair{Key: keyMerges, Value: v.Merges})
		}
		if v.Charsmap != nil {
			pairs = append(pairs, gguf.Pair{Key: keyCharsmap, Value: v.Charsmap})
		}
		if v.Whole != "" {
			pairs = append(pairs, gguf.Pair{Key: keyJSON, Value: v.Whole})
		}
		for key, id := range map[string]*uint32{keyBOS: v.BOS, keyEOS: v.EOS, keyUNK: v.UNK} {
			if id != nil {
				pairs = append(pairs, gguf.Pair{Key: key, Value: *id})
			}
		}
		for key, b := range map[string]*bool{keyAddBOS: v.AddBOS, keyAddEOS: v.AddEOS, keySpacePrefix: v.Prefix, keyExtraSpaces: v.Extra} {
			if b != nil {
				pairs = append(pairs, gguf.Pair{Key: key, Value: *b})
			}
		}
		tok, err := ggufTokenizer(gguf.NewMetadata(pairs), "x.gguf", true)
		if err != nil {
			if strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 {
				t.Errorf("not a line: %q", err)
			}
			return
		}
		for _, s := range append([]string{"", " a ab  é\x00", "<s>"}, v.Tokens[:min(len(v.Tokens), 5)]...) {
			ids := tok.Encode(s, tokenizer.EncodeOptions{AddSpecial: true})
			for _, id := range ids {
				if id < 0 || int(id) >= len(v.Tokens) {
					t.Errorf("%q gives the id %d of %d tokens", s, id, len(v.Tokens))
				}
			}
			tok.Decode(ids, false)
		}
	})
}
