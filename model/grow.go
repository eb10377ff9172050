package model

import "sync"

// GrowVocab writes the model at path into dir, which must exist, with a vocabulary of
// at least so many tokens: the embedding, and the output projection where it is
// another, get rows that are the mean of the others, so that a token begins as an average
// one (Hewitt 2021, "Initializing new word embeddings for pretrained language models").
// A model whose embedding has the rows already, as many do to be a round number, keeps
// them. edit, if not nil, may change the configuration, its special tokens say.
// Tokenizer files are the caller's.
func GrowVocab(path, dir string, vocab int, edit func(*Config)) error {
	c, src, err := Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	if vocab > c.Vocab {
		src = growVocab(c, src, vocab)
	}
	if edit != nil {
		edit(c)
	}
	return writeFolder(path, c, src, dir)
}

// growVocab sets the configuration's vocabulary, and gives the source's tables of
// tokens as many rows.
func growVocab(c *Config, src Source, vocab int) Source {
	n := c.fam().names
	g := grown{Source: src, old: c.Vocab, vocab: vocab, tables: map[string]bool{}}
	for _, name := range []string{n.embed, n.head} {
		for _, s := range n.spellings(name + ".weight") {
			g.tables[s] = true
		}
	}
	c.Vocab = vocab
	return g
}

// grown is a source whose tables of tokens have more rows.
type grown struct {
	Source
	old, vocab int
	tables     map[string]bool
}

// Find finds a tensor by name.
func (g grown) Find(name string) (Stored, bool) {
	t, ok := g.Source.Find(name)
	if !ok || !g.tables[name] || len(t.Shape) != 2 || t.Shape[0] != g.old {
		return t, ok
	}
	cols, read := t.Shape[1], t.Read
	t.Shape, t.Bytes = []int{g.vocab, cols}, nil
	mean := sync.OnceValues(func() ([]float32, error) { return meanRow(read, g.old, cols) })
	t.Read = func(dst []float32, from int) error {
		end := g.old * cols
		if n := min(len(dst), end-from); n > 0 || len(dst) == 0 {
			if err := read(dst[:n], from); err != nil {
				return err
			}
			dst, from = dst[n:], from+n
		}
		if len(dst) == 0 {
			return nil
		}
		row, err := mean()
		if err != nil {
			return err
		}
		for i := range dst {
			dst[i] = row[(from+i)%cols]
		}
		return nil
	}
	return t, true
}

// meanRow is the mean of the rows of a stored matrix.
func meanRow(read func(dst []float32, from int) error, rows, cols int) ([]float32, error) {
	sum := make([]float64, cols)
	piece := make([]float32, min(rows*cols, 1<<20))
	for at := 0; at < rows*cols; at += len(piece) {
		part := piece[:min(len(piece), rows*cols-at)]
		if err := read(part, at); err != nil {
			return nil, err
		}
		for i, v := range part {
			sum[(at+i)%cols] += float64(v)
		}
	}
	mean := make([]float32, cols)
	for i := range mean {
		mean[i] = float32(sum[i] / float64(rows))
	}
	return mean, nil
}
