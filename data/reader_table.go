package data

import (
	"bytes"
	"errors"
	"io"

	"ringtail/data/arrow"
	"ringtail/data/parquet"
)

// tableReader reads the rows of a table whose columns are stored apart.
type tableReader struct {
	*Reader
	rows int
	// row is the next row's JSON, good until the next call.
	row func() (row []byte, tooLarge bool, err error)
	// offset is how far into the file the reading is.
	offset func() int64
}

func (t *tableReader) next() (Record, error) {
	row, tooLarge, err := t.row()
	if t.size > 0 {
		t.read.Store(min(t.offset(), t.size))
	}
	var bad *parquet.BadRow
	switch {
	case err == io.EOF:
		t.read.Store(t.size)
		return Record{}, io.EOF
	case err != nil && !errors.As(err, &bad):
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return Record{}, t.fileErr("it ends too early, after row %d: it was cut off (download or copy it again)", t.rows)
		}
		return Record{}, t.fileErr("%v", err)
	}
	t.rows++
	where := Location{File: t.name, Element: t.rows}
	if bad != nil {
		e := rowErr(ReasonInvalidUTF8, bad.Column, "%s: write the file anew from UTF-8", bad.Msg)
		e.Where = where
		return Record{}, e
	}
	if tooLarge {
		return Record{}, t.tooLarge(where)
	}
	return Record{Where: where, JSON: bytes.Clone(row)}, nil
}

func (r *Reader) openParquet(at io.ReaderAt) (*Reader, error) {
	p, err := parquet.Open(at, r.size, r.limit)
	if err != nil {
		return nil, r.tableErr(err)
	}
	r.next = (&tableReader{r, 0, p.Next, p.Offset}).next
	return r, nil
}

// openArrow opens a file, or a stream where at is nil.
func (r *Reader) openArrow(at io.ReaderAt, stream io.Reader) (*Reader, error) {
	var a *arrow.Reader
	var err error
	offset := r.read.Load
	if at != nil {
		if a, err = arrow.Open(at, r.size, r.limit); a != nil {
			offset = a.Offset
		}
	} else {
		var head [8]byte
		peek := stream.(interface {
			Peek(int) ([]byte, error)
			Discard(int) (int, error)
		})
		if b, _ := peek.Peek(8); copy(head[:], b) == 8 && string(head[:6]) == arrow.Magic {
			peek.Discard(8) // the rest is a stream, with a footer behind
		}
		a, err = arrow.NewReader(stream, r.limit)
	}
	if err != nil {
		return nil, r.tableErr(err)
	}
	r.next = (&tableReader{r, 0, a.Next, offset}).next
	return r, nil
}

func (r *Reader) tableErr(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return r.fileErr("it ends too early, before the first row: it was cut off (download or copy it again)")
	}
	return r.fileErr("%v", err)
}

// isArrow tells an Arrow file or stream by its first bytes. Streams of before 2019 begin with a length, and are known by
// their name alone.
func isArrow(magic []byte, name string) bool {
	if bytes.HasPrefix(magic, []byte(arrow.Magic)) || bytes.HasPrefix(magic, []byte(arrow.StreamMark)) {
		return true
	}
	ext := extension(name)
	return (ext == ".arrow" || ext == ".feather") && !bytes.HasPrefix(magic, []byte("FEA1"))
}
