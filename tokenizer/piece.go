package tokenizer

// A piece is a part of the text on its way to the model. Normalizers may have
// changed it; if offsets are asked for, it remembers where its bytes came from.
type piece struct {
	text string
	// spans[i] is where in the original text text[i] came from, in bytes. nil
	// says that text is original from start on, or that offsets don't matter.
	spans []span
	start int  // where in the original text the piece begins
	first bool // no text of the original stands before the piece
}

// span is a part [start, end) of the original text in bytes. What a normalizer
// put in from nowhere has an empty span where it stands.
type span struct{ start, end int }

// sub returns the part [i, j) of p.
func (p piece) sub(i, j int) piece {
	q := piece{text: p.text[i:j], start: p.start + i, first: p.first && i == 0}
	if p.spans != nil {
		q.spans = p.spans[i:j]
		if i < j {
			q.start = q.spans[0].start
		}
	}
	return q
}

// span returns where the part [i, j) of p came from.
func (p piece) span(i, j int) span {
	switch {
	case p.spans == nil:
		return span{p.start + i, p.start + j}
	case i < j:
		return span{p.spans[i].start, p.spans[j-1].end}
	case i > 0:
		return span{p.spans[i-1].end, p.spans[i-1].end}
	}
	return span{p.start, p.start}
}

// A rewriter builds a changed piece from parts kept and parts put in. Its
// methods are called in the order of the text.
type rewriter struct {
	in    piece
	track bool // keep spans
	text  []byte
	spans []span
}

func newRewriter(p piece, track bool) *rewriter {
	w := &rewriter{in: p, track: track, text: make([]byte, 0, len(p.text)+len(p.text)/8+8)}
	if track {
		w.spans = make([]span, 0, cap(w.text))
	}
	return w
}

// keep takes the part [i, j) as it is.
func (w *rewriter) keep(i, j int) {
	w.text = append(w.text, w.in.text[i:j]...)
	if !w.track {
		return
	}
	if w.in.spans != nil {
		w.spans = append(w.spans, w.in.spans[i:j]...)
		return
	}
	for ; i < j; i++ {
		w.spans = append(w.spans, span{w.in.start + i, w.in.start + i + 1})
	}
}

// put writes s in place of the part [i, j).
func (w *rewriter) put(s string, i, j int) {
	w.text = append(w.text, s...)
	if w.track {
		from := w.in.span(i, j)
		for range len(s) {
			w.spans = append(w.spans, from)
		}
	}
}

// done returns the piece that was built.
func (w *rewriter) done() piece {
	return piece{text: string(w.text), spans: w.spans, start: w.in.start, first: w.in.first}
}
