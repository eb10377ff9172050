package cpu

import "ringtail/tensor"

type embeddingJob struct {
	table, tokens rows
	ids           []int32
	cols, grain   int
	backward      bool
}

var embeddingJobs freeList[embeddingJob]

func newEmbedding(table, tokens, ids tensor.Tensor) *embeddingJob {
	j := embeddingJobs.take()
	j.cols = table.Cols()
	j.table = rowsOf("the embedding table", table, table.Rows(), j.cols)
	j.ids = intsOf("the embedding's ids", ids, ids.Len())
	j.tokens = rowsOf("the tokens' embedding", tokens, len(j.ids), j.cols)
	for _, id := range j.ids {
		checkIndex("Embedding: token id", id, table.Rows())
	}
	return j
}

func (j *embeddingJob) start(tasks int) {
	if j.cols > 0 && len(j.ids) > 0 {
		parallel(tasks, j)
	}
	*j = embeddingJob{}
	embeddingJobs.give(j)
}

// embedding sets y[t] = w[ids[t]]. A task copies some tokens' rows.
func embedding(y, w, ids tensor.Tensor) {
	j := newEmbedding(w, y, ids)
	j.grain = max(1, lightGrain/max(j.cols, 1))
	j.start(tasksOf(len(j.ids), j.grain))
}

// embeddingBackward sets dw[ids[t]] += dy[t] for t = 0, 1, … A task has a strip of
// the columns to itself and goes through all tokens, so that tokens with one id
// are added in their order. How wide the strips are changes no sum.
func embeddingBackward(dw, dy, ids tensor.Tensor) {
	j := newEmbedding(dw, dy, ids)
	j.backward = true
	j.grain = (max(tasksOf(j.cols, 2*Threads()), 64) + 15) &^ 15
	if len(j.ids)*j.cols <= lightGrain {
		j.grain = max(j.cols, 1)
	}
	j.start(tasksOf(j.cols, j.grain))
}

func (j *embeddingJob) run(_ *workspace, task int) {
	from := task * j.grain
	if j.backward {
		n := min(j.grain, j.cols-from)
		for t, id := range j.ids {
			row := j.table.data[int(id)*j.table.stride+from:][:n]
			vecAdd(row, row, j.tokens.data[t*j.tokens.stride+from:])
		}
		return
	}
	for t := from; t < min(from+j.grain, len(j.ids)); t++ {
		copy(j.tokens.row(t, j.cols), j.table.row(int(j.ids[t]), j.cols))
	}
}
