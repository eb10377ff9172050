package runs

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"ringtail/atomicfile"
)

// lines is a JSON Lines file that grows. Each line is one write, so a killed
// process leaves at most one line cut short, at the end.
type lines struct {
	f    *os.File
	path string
	size int64
}

// openLines opens the file for appending and drops a broken end.
func openLines(path string) (*lines, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	l := &lines{f: f, path: path}
	if l.size, err = scan(f, path, func([]byte, int64) error { return nil }); err == nil {
		err = f.Truncate(l.size)
	}
	if err == nil {
		err = l.endLine()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

// endLine adds the newline that an editor, or a kill at the worst moment, left
// off a last line that is whole.
func (l *lines) endLine() error {
	last := []byte{'\n'}
	if l.size > 0 {
		if _, err := l.f.ReadAt(last, l.size-1); err != nil {
			return err
		}
	}
	if last[0] == '\n' {
		return nil
	}
	return l.append([]byte{'\n'})
}

// append writes one line, which ends in a newline. On error, such as a full
// disk, what was written of it is taken back.
func (l *lines) append(line []byte) error {
	if _, err := l.f.WriteAt(line, l.size); err != nil {
		l.f.Truncate(l.size)
		return err
	}
	l.size += int64(len(line))
	return nil
}

// scan calls each with every line (without its newline) and the step in it. It
// returns where the last good line ends. Bad lines at the end are what a kill
// or a power cut leaves, and no error; a bad line before a good one is.
func scan(r io.Reader, path string, each func(line []byte, step int64) error) (int64, error) {
	var (
		in       = bufio.NewReaderSize(r, 1<<16)
		at, good int64
		n        int
		bad      error
	)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil && err != io.EOF {
			return good, err
		}
		at += int64(len(line))
		n++
		if len(line) > 0 {
			step, lineErr := stepOf(line)
			switch {
			case lineErr != nil && bad == nil:
				bad = fmt.Errorf("%s:%d: %w; remove the line to go on", path, n, lineErr)
			case lineErr == nil && bad != nil:
				return good, bad
			case lineErr == nil:
				if err := each(bytes.TrimSuffix(line, []byte{'\n'}), step); err != nil {
					return good, fmt.Errorf("%s:%d: %w", path, n, err)
				}
				good = at
			}
		}
		if err == io.EOF {
			return good, nil
		}
	}
}

// stepOf finds the step of a line.
func stepOf(line []byte) (int64, error) {
	var row struct {
		Step *int64 `json:"step"`
	}
	if err := json.Unmarshal(line, &row); err != nil {
		return 0, fmt.Errorf("not a JSON object with a step: %w", err)
	}
	if row.Step == nil {
		return 0, errors.New("has no step")
	}
	return *row.Step, nil
}

// cutAfter removes the lines of steps after last, and a broken end. The file
// is replaced whole, so that a kill here loses nothing either.
func cutAfter(path string, last int64) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var kept bytes.Buffer
	_, err = scan(f, path, func(line []byte, step int64) error {
		if step <= last {
			kept.Write(line)
			kept.WriteByte('\n')
		}
		return nil
	})
	if err != nil || int64(kept.Len()) == info.Size() {
		return err
	}
	f.Close() // Windows replaces no open file
	return atomicfile.WriteBytes(path, 0o666, kept.Bytes())
}
