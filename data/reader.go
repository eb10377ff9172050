package data

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
)

// Record is one raw row of a file: JSON of any type, or a text document. A row of a table is an object of its columns.
type Record struct {
	Where  Location
	JSON   []byte // owned by the receiver
	Text   string
	IsText bool
	// Cells says that the row came from CSV: its values are strings, whatever they stand for.
	Cells bool
}

// Reader reads the records of one file, one by one, without holding more than
// one of them.
type Reader struct {
	name  string
	limit int
	next  func() (Record, error)
	in    *bufio.Reader
	line  int // lines read so far
	buf   []byte

	file   io.Closer
	packed string        // how the file is compressed, "" if it isn't
	unpack *zstd.Decoder // to be closed, for zstd
	read   atomic.Int64  // raw bytes taken from the file
	size   int64
}

// ReaderOptions govern Open.
type ReaderOptions struct {
	Text        TextMode // "" means TextAuto
	MaxRowBytes int      // 0 means DefaultMaxRowBytes
}

// sniffBytes is how much of a file's beginning decides what the file is.
const sniffBytes = 1 << 20

// Open opens a file and finds out what it is.
func Open(path string, opt ReaderOptions) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open data file: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a folder: expected a file; name its files, or use a pattern such as %s", path, filepath.Join(path, "*.jsonl"))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	r, err := newReader(f, f, info.Size(), path, opt)
	if err != nil {
		f.Close()
		return nil, err
	}
	r.file = f
	return r, nil
}

// NewReader reads records from a stream. name shows in errors, and its
// extension helps to tell text from JSON. Parquet needs a src that is an
// io.ReaderAt and has a Size, as bytes.Reader.
func NewReader(src io.Reader, name string, opt ReaderOptions) (*Reader, error) {
	if at, ok := src.(interface {
		io.ReaderAt
		Size() int64
	}); ok {
		return newReader(src, at, at.Size(), name, opt)
	}
	return newReader(src, nil, 0, name, opt)
}

// newReader finds out what a file is; at is nil for a stream.
func newReader(src io.Reader, at io.ReaderAt, size int64, name string, opt ReaderOptions) (*Reader, error) {
	r := &Reader{name: name, limit: opt.MaxRowBytes, size: size}
	if r.limit <= 0 {
		r.limit = DefaultMaxRowBytes
	}
	raw := bufio.NewReaderSize(&countingReader{src, &r.read}, 64<<10)
	magic, err := raw.Peek(8)
	if err != nil && err != io.EOF {
		return nil, r.fileErr("%v", err)
	}
	plain := raw
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		gz, err := gzip.NewReader(raw)
		if err != nil {
			return nil, r.fileErr("broken gzip header: %v", err)
		}
		r.packed, plain = "gzip", bufio.NewReaderSize(gz, sniffBytes)
	case bytes.HasPrefix(magic, []byte("\x28\xb5\x2f\xfd")):
		if r.unpack, err = zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow)); err != nil {
			return nil, r.fileErr("%v", err)
		}
		r.packed, plain = "zstd", bufio.NewReaderSize(r.unpack, sniffBytes)
	case bytes.HasPrefix(magic, []byte("PAR1")) || bytes.HasPrefix(magic, []byte("PARE")):
		if at == nil {
			return nil, r.fileErr("a Parquet file can't be read from a stream: name a file")
		}
		return r.openParquet(at)
	case isArrow(magic, name) && at != nil:
		return r.openArrow(at, nil)
	}
	if r.packed != "" {
		if magic, err = plain.Peek(8); err != nil && err != io.EOF {
			return nil, r.readErr(err)
		}
		at = nil
	}
	if isArrow(magic, name) {
		return r.openArrow(nil, plain)
	}
	if what := foreignFormat(magic); what != "" {
		return nil, r.fileErr("%s: expected JSON, JSONL, CSV, Parquet, Arrow or text, plain or packed with gzip or zstd; convert it first", what)
	}
	r.in = plain
	if plain.Size() < sniffBytes {
		r.in = bufio.NewReaderSize(plain, sniffBytes)
	}
	if bom, _ := r.in.Peek(3); bytes.Equal(bom, []byte{0xef, 0xbb, 0xbf}) {
		r.in.Discard(3)
	} else if bytes.HasPrefix(bom, []byte{0xff, 0xfe}) || bytes.HasPrefix(bom, []byte{0xfe, 0xff}) {
		return nil, r.fileErr("UTF-16 text: expected UTF-8; convert it first")
	}
	head, err := r.in.Peek(sniffBytes)
	if err != nil && err != io.EOF {
		return nil, r.readErr(err)
	}
	switch r.layout(head, len(head) < sniffBytes) {
	case layoutText:
		mode := opt.Text
		if mode == "" || mode == TextAuto {
			mode = textMode(head)
		}
		r.next = map[TextMode]func() (Record, error){
			TextLines: r.nextLine, TextParagraphs: r.nextParagraph, TextFile: r.nextFile}[mode]
		if r.next == nil {
			return nil, r.fileErr("unknown text mode %q", mode)
		}
	case layoutCSV:
		if err := r.openCSV(head); err != nil {
			return nil, err
		}
	case layoutLines:
		r.next = r.nextJSONLine
	case layoutList:
		l := &listReader{Reader: r}
		r.next = l.next
	case layoutValues:
		l := &listReader{Reader: r, bare: true}
		r.next = l.next
	default:
		return nil, r.fileErr("expected a JSON list of objects, or JSON lines; it begins with %q", clip(string(bytes.TrimSpace(head[:min(len(head), 80)])), 30))
	}
	return r, nil
}

// Next returns the next record, or io.EOF. A *RowError concerns one record
// only, and reading can go on; any other error is the file's, and is final.
func (r *Reader) Next() (Record, error) { return r.next() }

// BytesRead is how much of the file, as stored, has been read. It may be called
// while another goroutine reads.
func (r *Reader) BytesRead() int64 { return r.read.Load() }

// Size is the length of the file as stored; 0 for a stream.
func (r *Reader) Size() int64 { return r.size }

// Close closes the file.
func (r *Reader) Close() error {
	if r.unpack != nil {
		r.unpack.Close()
	}
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

type countingReader struct {
	src io.Reader
	n   *atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.src.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// fileErr is an error of the file as a whole.
func (r *Reader) fileErr(format string, args ...any) error {
	return fmt.Errorf("%s: %s", r.name, fmt.Sprintf(format, args...))
}

// readErr explains an error of reading or unpacking.
func (r *Reader) readErr(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return r.fileErr("the compressed file ends too early, after line %d: it was cut off; fetch it again", r.line)
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return r.fileErr("the compressed file needs a window of more than %d MiB: compress it without --long", maxWindow>>20)
	case errors.As(err, new(*os.PathError)):
	case r.packed != "":
		return r.fileErr("the %s file is damaged, after line %d: %v; fetch it again", r.packed, r.line, err)
	}
	return r.fileErr("reading failed after line %d: %v", r.line, err)
}

// foreignFormat names a file by its first bytes if it is something that a user
// might well bring and that this reader doesn't read.
func foreignFormat(magic []byte) string {
	for _, f := range []struct{ prefix, name string }{
		{"PK\x03\x04", "a zip archive"}, {"\xfd7zXZ", "an xz file"}, {"BZh", "a bzip2 file"}, {"%PDF", "a PDF"},
		{"PAR1", "a Parquet file inside of a compressed one"}, {"\x28\xb5\x2f\xfd", "a file that is compressed twice"},
		{"\x1f\x8b", "a file that is compressed twice"}, {"\x89HDF", "an HDF5 file"}, {"SQLite ", "an SQLite database"},
	} {
		if bytes.HasPrefix(magic, []byte(f.prefix)) {
			return f.name
		}
	}
	return ""
}

// maxWindow is the largest window of zstd that is made room for: that of its option --long.
const maxWindow = 128 << 20

// extension is a file's extension in lower case, below that of a compression.
func extension(name string) string {
	name = strings.ToLower(name)
	for _, packed := range []string{".gz", ".zst", ".zstd"} {
		if rest, ok := strings.CutSuffix(name, packed); ok {
			name = rest
			break
		}
	}
	return filepath.Ext(name)
}

// layout is how records lie in a file.
type layout int

const (
	layoutUnknown layout = iota
	layoutText
	layoutCSV
	layoutLines  // a JSON value on each line
	layoutList   // one JSON list
	layoutValues // JSON values one behind the other, over several lines
)

// layout decides by the file's first bytes and, where these leave it open, by
// its name. whole says that head is all there is.
func (r *Reader) layout(head []byte, whole bool) layout {
	ext := extension(r.name)
	switch ext {
	case ".csv", ".tsv", ".tab":
		return layoutCSV
	case ".txt", ".text", ".md", ".markdown":
		return layoutText
	}
	isLines := ext == ".jsonl" || ext == ".ndjson"
	isJSON := isLines || ext == ".json"
	body := bytes.TrimLeft(head, " \t\r\n")
	if len(body) == 0 {
		return layoutLines // nothing in it: no records, whatever it is
	}
	first, rest, hasLine := bytes.Cut(body, []byte("\n"))
	first = bytes.TrimSpace(first)
	complete := (hasLine || whole) && json.Valid(first)
	switch body[0] {
	case '{':
		inside := bytes.TrimLeft(body[1:], " \t\r\n")
		switch {
		case complete:
			return layoutLines
		case isLines && len(first) > 1:
			return layoutLines // a line that is broken or longer than what was looked at
		case isJSON || len(inside) > 0 && (inside[0] == '"' || inside[0] == '}'):
			return layoutValues
		}
	case '[':
		inside := bytes.TrimLeft(body[1:], " \t\r\n")
		second := bytes.TrimLeft(rest, " \t\r\n")
		switch {
		case complete && len(second) > 0:
			return layoutLines // lists of messages, one a line
		case isJSON || len(inside) > 0 && strings.IndexByte(`{["]`, inside[0]) >= 0:
			return layoutList
		}
	}
	if isLines {
		return layoutLines
	}
	if isJSON {
		return layoutUnknown
	}
	return layoutText
}

// readLine returns the next line without its end, good until the next call.
// more is false at the end of the file. A line above the limit is passed over
// and reported.
func (r *Reader) readLine() (line []byte, more bool, err error) {
	r.buf = r.buf[:0]
	size := 0
	for {
		part, err := r.in.ReadSlice('\n')
		size += len(part)
		if len(part) > 0 && size <= r.limit+2 {
			r.buf = append(r.buf, part...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil && err != io.EOF {
			return nil, false, r.readErr(err)
		}
		if err == io.EOF && size == 0 {
			return nil, false, nil
		}
		break
	}
	r.line++
	line = bytes.TrimRight(r.buf, "\r\n")
	if size > r.limit+2 || len(line) > r.limit {
		return nil, true, r.tooLarge(Location{File: r.name, Line: r.line})
	}
	return line, true, nil
}

func (r *Reader) tooLarge(where Location) error {
	e := rowErr(ReasonTooLarge, "", "the row is larger than %d bytes", r.limit)
	e.Where = where
	return e
}

// checkUTF8 reports bytes that aren't UTF-8.
func checkUTF8(b []byte, where Location) error {
	if utf8.Valid(b) {
		return nil
	}
	at := 0
	for at < len(b) {
		c, n := utf8.DecodeRune(b[at:])
		if c == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	e := rowErr(ReasonInvalidUTF8, "", "invalid UTF-8 at byte %d of the row (0x%02x): convert the file to UTF-8", at+1, b[at])
	e.Where = where
	return e
}

// nextJSONLine reads one value a line; blank lines are passed over.
func (r *Reader) nextJSONLine() (Record, error) {
	for {
		line, more, err := r.readLine()
		if err != nil {
			return Record{}, err
		}
		if !more {
			return Record{}, io.EOF
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		where := Location{File: r.name, Line: r.line}
		if err := checkUTF8(line, where); err != nil {
			return Record{}, err
		}
		return Record{Where: where, JSON: bytes.Clone(line)}, nil
	}
}
