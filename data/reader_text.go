package data

import (
	"bytes"
	"io"
)

// textMode is TextAuto's rule: blank lines separate documents if the head of
// the file has one between lines of text; else each line is a document.
func textMode(head []byte) TextMode {
	seenText, seenBlank := false, false
	for len(head) > 0 {
		line, rest, _ := bytes.Cut(head, []byte("\n"))
		head = rest
		if len(bytes.TrimSpace(line)) == 0 {
			seenBlank = seenText
			continue
		}
		if seenBlank {
			return TextParagraphs
		}
		seenText = true
	}
	return TextLines
}

// nextLine reads a document a line.
func (r *Reader) nextLine() (Record, error) {
	for {
		line, more, err := r.readLine()
		if err != nil {
			return Record{}, err
		}
		if !more {
			return Record{}, io.EOF
		}
		if len(bytes.TrimSpace(line)) > 0 {
			return r.textRecord(line, r.line)
		}
	}
}

// nextParagraph reads a document up to a blank line.
func (r *Reader) nextParagraph() (Record, error) {
	return r.document(true)
}

// nextFile reads the whole file as one document.
func (r *Reader) nextFile() (Record, error) {
	return r.document(false)
}

// document collects lines up to a blank one, or to the end of the file.
func (r *Reader) document(stopAtBlank bool) (Record, error) {
	var doc []byte
	first := 0
	var bad error // the first trouble; the rest of the document is passed over
	for {
		line, more, err := r.readLine()
		if _, isRow := err.(*RowError); err != nil && !isRow {
			return Record{}, err
		}
		if !more {
			break
		}
		blank := err == nil && len(bytes.TrimSpace(line)) == 0
		if blank && (stopAtBlank || first == 0) {
			if first == 0 {
				continue
			}
			break
		}
		if first == 0 {
			first = r.line
		} else {
			doc = append(doc, '\n')
		}
		switch {
		case bad != nil:
			doc = doc[:0]
		case err != nil:
			bad = err
		case len(doc)+len(line) > r.limit:
			bad = r.tooLarge(Location{File: r.name, Line: first})
		default:
			doc = append(doc, line...)
		}
	}
	switch {
	case bad != nil:
		return Record{}, bad
	case first == 0:
		return Record{}, io.EOF
	}
	return r.textRecord(bytes.TrimRight(doc, " \t\n"), first)
}

func (r *Reader) textRecord(text []byte, line int) (Record, error) {
	where := Location{File: r.name, Line: line}
	if err := checkUTF8(text, where); err != nil {
		return Record{}, err
	}
	return Record{Where: where, Text: string(text), IsText: true}, nil
}
