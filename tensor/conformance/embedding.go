package conformance

import "ringtail/tensor"

// embeddings are [T, H, V]; with T above V ids repeat.
var embeddings = [][3]int{{0, 5, 3}, {1, 1, 1}, {2, 3, 50}, {3, 7, 2}, {7, 33, 5}, {33, 65, 9}, {200, 17, 11}}

func testEmbedding(s *suite) {
	for _, l := range layouts {
		for _, e := range embeddings {
			tr := s.trial(l, "Embedding [T H V] = %v", e)
			w, ids, y := tr.random("w", e[2], e[1]), tr.ids(e[0], e[2]), tr.blank("y", e[0], e[1]).exactly()
			tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.Embedding(at(y), at(w), at(ids)) })
		}
	}
}

func testEmbeddingBackward(s *suite) {
	for _, l := range layouts {
		for _, e := range embeddings {
			tr := s.trial(l, "EmbeddingBackward [T H V] = %v", e)
			dw, ids, dy := tr.gradient("dw", e[2], e[1]), tr.ids(e[0], e[2]), tr.random("dy", e[0], e[1])
			tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) { ops.EmbeddingBackward(at(dw), at(dy), at(ids)) })
		}
	}
}

// ids draws n token ids below vocab, the first and the last id among them if n
// allows.
func (tr *trial) ids(n, vocab int) *operand {
	v := make([]int, n)
	for i := range v {
		v[i] = tr.rng.IntN(vocab)
	}
	if n > 2 {
		v[0], v[1] = vocab-1, 0
	}
	return tr.ints("ids", v...)
}
