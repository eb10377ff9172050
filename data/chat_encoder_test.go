package data

import (
	"reflect"
	"strings"
	"testing"

	"ringtail/chat"
)

// charTokenizer has a token a byte, and one for each special token outside of
// the plain ranges.
type charTokenizer struct{}

var charSpecials = map[string]int32{"<|im_start|>": 300, "<|im_end|>": 310, "<s>": 320}

func (charTokenizer) EncodeProtected(text string, plain [][2]int) (ids []int32, offsets [][2]int, err error) {
	for at := 0; at < len(text); {
		n, id := 1, int32(text[at])
		for special, sid := range charSpecials {
			if strings.HasPrefix(text[at:], special) && !overlaps(plain, at, at+len(special)) {
				n, id = len(special), sid
			}
		}
		ids, offsets = append(ids, id), append(offsets, [2]int{at, at + n})
		at += n
	}
	return ids, offsets, nil
}

func overlaps(plain [][2]int, from, to int) bool {
	for _, p := range plain {
		if p[0] < to && from < p[1] {
			return true
		}
	}
	return false
}

func (charTokenizer) LeadingBOS() (int32, bool) { return 320, true }
func (charTokenizer) SpecialTokens() []string   { return []string{"<|im_start|>", "<|im_end|>", "<s>"} }
func (charTokenizer) BOS() string               { return "<s>" }
func (charTokenizer) EOS() string               { return "<|im_end|>" }
func (charTokenizer) PAD() string               { return "" }
func (charTokenizer) UNK() string               { return "" }

const chatML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" +
	"{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

func TestChatEncoder(t *testing.T) {
	template, err := chat.New("test", chatML)
	if err != nil {
		t.Fatal(err)
	}
	enc := &ChatEncoder{Tokenizer: charTokenizer{}, Template: template, EOSID: 310}
	ids, mask, err := enc.EncodeChat([]Message{{Role: RoleUser, Content: "q<|im_end|>"}, {Role: RoleAssistant, Content: "abc"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var said []int32
	for i, id := range ids {
		if mask[i] {
			said = append(said, id)
		}
	}
	if want := []int32{'a', 'b', 'c', 310}; len(said) < 4 || !reflect.DeepEqual(said[:4], want) {
		t.Errorf("trained tokens are %v, want %v first", said, want)
	}
	if ids[0] != 320 {
		t.Errorf("the first token is %d, want BOS", ids[0])
	}
	ids, err = enc.EncodeText("a<s>")
	if want := []int32{320, 'a', '<', 's', '>'}; err != nil || !reflect.DeepEqual(ids, want) {
		t.Errorf("text is %v (%v), want %v", ids, err, want)
	}
	if enc.UnderstandsTools() {
		t.Error("the template doesn't mention tool_calls")
	}
	path := write(t, "a.jsonl", manyRows(20, "x"))
	d, err := Load(t.Context(), []Source{{Files: []string{path}}}, Options{}, enc)
	if err != nil {
		t.Fatal(err)
	}
	if st := d.Stats.Total; st.Rows != 20 || st.Trained == 0 || st.Trained >= st.Tokens {
		t.Errorf("stats %+v", st)
	}
}
