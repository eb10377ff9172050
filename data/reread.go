package data

import "fmt"

// Row reads the row of sequence i again from its file, for showing its text:
// Datasets keep tokens only. Of a record that makes several rows it is the first.
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
		if len(rows) == 0 {
			return Row{}, fmt.Errorf("%s: no row", rec.Where)
		}
		rows[0].Source = d.sources[ref.source]
		return rows[0], nil
	}
}
