package tokenizer

// postProcessor puts tokens before and after a text: what is left of
// TemplateProcessing, BertProcessing and RobertaProcessing for a single text.
type postProcessor struct{ before, after []int32 }

// wrap makes p the inner one of two.
func (p *postProcessor) wrap(outer postProcessor) {
	p.before = append(append([]int32(nil), outer.before...), p.before...)
	p.after = append(p.after, outer.after...)
}

// apply adds the tokens to out. They are at the ends of a text of n bytes.
func (p *postProcessor) begin(out *sink) {
	for _, id := range p.before {
		out.add(id, span{0, 0})
	}
}

func (p *postProcessor) end(out *sink, n int) {
	for _, id := range p.after {
		out.add(id, span{n, n})
	}
}
