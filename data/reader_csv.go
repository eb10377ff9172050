package data

import (
	"bytes"
	"io"
	"strings"

	"ringtail/data/columnar"
)

// csvReader reads comma-separated values (RFC 4180) whose first record names the columns. Cells in double quotes may
// hold separators, line ends and doubled quotes; a quote inside of a cell that doesn't begin with one is text. Every
// record becomes a JSON object of strings.
type csvReader struct {
	*Reader
	comma  byte
	header []string

	cells []byte // of a record, one behind the other
	ends  []int  // where each ends in cells
	size  int    // of the record, what isn't kept included
	row   columnar.Row
}

// maxCSVColumns bounds the header.
const maxCSVColumns = 4096

// openCSV reads the header. head is the beginning of the file.
func (r *Reader) openCSV(head []byte) error {
	c := &csvReader{Reader: r, comma: separator(head, extension(r.name)), row: columnar.Row{Limit: r.limit}}
	r.next = c.next
	line, err := c.record()
	for err == nil && c.blank() {
		line, err = c.record()
	}
	switch {
	case err == io.EOF:
		return nil // nothing in it
	case err != nil:
		return err
	case len(c.ends) > maxCSVColumns || c.size > r.limit:
		return r.fileErr("line %d: expected the names of at most %d columns", line, maxCSVColumns)
	}
	seen := map[string]bool{}
	for i := range c.ends {
		name := strings.TrimSpace(string(c.cell(i)))
		switch {
		case !c.validUTF8(i):
			return r.fileErr("line %d: the name of column %d isn't UTF-8: convert the file to UTF-8", line, i+1)
		case seen[name] && name != "":
			return r.fileErr("line %d: two columns are called %q", line, name)
		}
		seen[name] = true
		c.header = append(c.header, name)
	}
	return nil
}

// separator finds what separates the columns: the one of , ; tab and | that the first line has most of outside of
// quotes. A .tsv has tabs.
func separator(head []byte, ext string) byte {
	if ext != ".csv" {
		return '\t'
	}
	best, most, quoted := byte(','), 0, false
	count := map[byte]int{}
	for _, b := range head {
		switch {
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '\n' && len(count) > 0:
			return best
		case strings.IndexByte(",;\t|", b) >= 0:
			if count[b]++; count[b] > most {
				best, most = b, count[b]
			}
		}
	}
	return best
}

func (c *csvReader) cell(i int) []byte {
	from := 0
	if i > 0 {
		from = c.ends[i-1]
	}
	return c.cells[from:c.ends[i]]
}

func (c *csvReader) validUTF8(i int) bool { return checkUTF8(c.cell(i), Location{}) == nil }

// blank says whether the record is an empty line.
func (c *csvReader) blank() bool { return c.size == 0 }

// record reads one record into cells and ends, and returns the line on which it begins. What is above the row limit is
// passed over: size is then above it, too.
func (c *csvReader) record() (line int, err error) {
	const (
		start  = iota // of a cell
		plain         // inside of a cell without quotes
		quoted        // inside of quotes
		closed        // behind the closing quote
	)
	c.cells, c.ends, c.size = c.cells[:0], c.ends[:0], 0
	line = c.line + 1
	keep := func(b byte) {
		if c.size <= c.limit {
			c.cells = append(c.cells, b)
		}
	}
	endCell := func() {
		if len(c.ends) <= maxCSVColumns {
			c.ends = append(c.ends, len(c.cells))
		}
	}
	state := start
	for {
		b, err := c.in.ReadByte()
		switch {
		case err == io.EOF && state == quoted:
			return line, c.fileErr("line %d: a quote that is opened here is never closed: the file was cut off, or a quote isn't doubled", line)
		case err == io.EOF && c.size == 0 && state == start:
			return line, io.EOF
		case err == io.EOF:
			c.line++
			endCell()
			return line, nil
		case err != nil:
			return line, c.readErr(err)
		}
		if b == '\r' && state != quoted {
			if next, _ := c.in.Peek(1); len(next) == 1 && next[0] == '\n' {
				continue
			}
		}
		if b == '\n' {
			c.line++
			if state != quoted {
				endCell()
				return line, nil
			}
		}
		c.size++
		switch {
		case state == quoted && b == '"':
			if next, _ := c.in.Peek(1); len(next) == 1 && next[0] == '"' {
				c.in.Discard(1)
				c.size++
				keep('"')
			} else {
				state = closed
			}
		case state == quoted:
			keep(b)
		case b == c.comma:
			endCell()
			state = start
		case state == start && b == '"':
			state = quoted
		case state == closed:
			// The record is passed over, so that the next one is read rightly.
			return line, c.afterQuote(line, b)
		default:
			keep(b)
			state = plain
		}
	}
}

// afterQuote refuses a record in which text follows a closing quote: where its cells end can't be known. What is left
// of the line is passed over.
func (c *csvReader) afterQuote(line int, found byte) error {
	at := c.line + 1
	if _, _, err := c.readLine(); err != nil {
		if _, isRow := err.(*RowError); !isRow {
			return err
		}
	}
	e := rowErr(ReasonBadCSV, "", "expected %q or the end of the line behind a closing quote (line %d), found %q; quotes inside of quotes are doubled",
		string(c.comma), at, string(found))
	e.Where = Location{File: c.name, Line: line}
	return e
}

func (c *csvReader) next() (Record, error) {
	for {
		line, err := c.record()
		if err != nil {
			return Record{}, err
		}
		if c.blank() {
			continue
		}
		where := Location{File: c.name, Line: line}
		if c.size > c.limit {
			return Record{}, c.tooLarge(where)
		}
		if len(c.ends) != len(c.header) {
			e := rowErr(ReasonBadCSV, "", "expected %d cells, as the first line names columns, found %d", len(c.header), len(c.ends))
			e.Where = where
			return Record{}, e
		}
		c.row.Reset()
		c.row.Limit = 8*c.limit + 1<<16 // the limit is the record's, not that of the names and escapes around it
		c.row.Raw("{")
		first := true
		for i, name := range c.header {
			if name == "" {
				continue // pandas' index
			}
			if !first {
				c.row.Raw(",")
			}
			first = false
			c.row.Text([]byte(name), "")
			c.row.Raw(":")
			if !c.validUTF8(i) {
				err := checkUTF8(c.cell(i), where).(*RowError)
				err.Field = name
				return Record{}, err
			}
			c.row.Text(c.cell(i), name)
		}
		c.row.Raw("}")
		if c.row.Over {
			return Record{}, c.tooLarge(where)
		}
		return Record{Where: where, JSON: bytes.Clone(c.row.Buf), Cells: true}, nil
	}
}
