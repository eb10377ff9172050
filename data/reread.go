package data

import "fmt"

// Row reads the row of sequence i again from its file, for showing its text:
// Datasets keep tokens only. It is the row as it stands there, before As: that of a
// prompt has the file's answer, if there is one.
func (d *Dataset) Row(i int) (Row, error) {
	if i < 0 || i >= len(d.store.seqs) {
		return Row{}, fmt.Errorf("no sequence %d among %d", i, len(d.store.seqs))
	}
	ref := d.store.seqs[i]
	path, src := d.files[ref.file], d.specs[ref.source]
	format := src.Format
	for _, f := range d.Stats.Sources[ref.source].Files {
		if f.Path == path {
			format = f.Format
		}
	}
	r, err := Open(path, ReaderOptions{Text: src.Text})
	if err != nil {
		return Row{}, err
	}
	defer r.Close()
	for {
		rec, err := r.Next()
		if err != nil {
			return Row{}, fmt.Errorf("%s: line %d is no longer there: %w", path, ref.line, err)
		}
		if rec.Where.Line != int(ref.line) || rec.Where.Element != int(ref.element) {
			continue
		}
		rows, err := NewConverter(format, src).Convert(rec)
		if err != nil {
			return Row{}, err
		}
		for _, row := range rows { // a record can make several
			fitting, _, err := row.As(d.use)
			if err == nil && hash64(rowHash(fitting[0])) == ref.hash {
				row.Source = d.sources[ref.source]
				return row, nil
			}
		}
		return Row{}, fmt.Errorf("%s: the row isn't the one that was read before: the file has changed", rec.Where)
	}
}
