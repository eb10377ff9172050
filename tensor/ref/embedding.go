package ref

import "ringtail/tensor"

// embedding sets y[t] = w[ids[t]].
func embedding(y, w, ids tensor.Tensor) {
	table := matrixOf("Embedding's w", w, w.Rows(), w.Cols())
	id := intsOf("Embedding's ids", ids, ids.Len())
	out := matrixOf("Embedding's y", y, len(id), table.cols)
	for t := range id {
		copy(out.row(t), table.row(index("token id", id[t], table.rows)))
	}
}

// embeddingBackward sets dw[ids[t]] += dy[t] for t = 0, 1, …
func embeddingBackward(dw, dy, ids tensor.Tensor) {
	table := matrixOf("EmbeddingBackward's dw", dw, dw.Rows(), dw.Cols())
	id := intsOf("EmbeddingBackward's ids", ids, ids.Len())
	grad := matrixOf("EmbeddingBackward's dy", dy, len(id), table.cols)
	for t := range id {
		row := table.row(index("token id", id[t], table.rows))
		for j, g := range grad.row(t) {
			row[j] += g
		}
	}
}
