package chat

import "testing"

// TestColossalChatSpace: what the model is given before an answer is a prefix of the row it was trained on, and all of
// the answer is trained; without a BOS token the space in front belongs to the answer.
func TestColossalChatSpace(t *testing.T) {
	tmpl, err := Builtin("colossalchat")
	if err != nil {
		t.Fatal(err)
	}
	question := []Message{{Role: "user", Content: "a"}}
	for bos, want := range map[string][2]string{"<s>": {"<s>Human: <s>a</s>Assistant: <s>", "b</s>"}, "": {"Human: a</s>Assistant:", " b</s>"}} {
		opts := RenderOptions{BOS: bos, EOS: "</s>"}
		r, err := tmpl.RenderSpans(append(question, Message{Role: "assistant", Content: "b"}), opts)
		if err != nil {
			t.Fatal(err)
		}
		opts.AddGenerationPrompt = true
		prompt, err := tmpl.Render(question, opts)
		if err != nil {
			t.Fatal(err)
		}
		if prompt != want[0] || r.Text != want[0]+want[1] {
			t.Errorf("BOS %q: prompt %q, row %q, want %q and then %q", bos, prompt, r.Text, want[0], want[1])
		}
		if len(r.Trained) != 1 || r.Text[r.Trained[0].Start:r.Trained[0].End] != want[1] {
			t.Errorf("BOS %q: trained %v of %q, want %q", bos, r.Trained, r.Text, want[1])
		}
	}
}
