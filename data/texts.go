package data

// Texts lists everything in a row that a model reads or writes: the document, or
// the messages' contents, answers of pairs and rankings included. It is what a
// tokenizer is trained on.
func (r Row) Texts() []string {
	var out []string
	if r.Text != "" {
		out = append(out, r.Text)
	}
	for _, t := range r.Tokens {
		if t.Text != "" {
			out = append(out, t.Text)
		}
	}
	add := func(list []Message) {
		for _, m := range list {
			if m.Content != "" {
				out = append(out, m.Content)
			}
		}
	}
	add(r.Messages)
	if len(r.Ranked) == 0 {
		add(r.Chosen)
		add(r.Rejected)
	}
	for _, answer := range r.Ranked {
		add(answer)
	}
	return out
}
