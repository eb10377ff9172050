package safetensors

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// entry is one tensor of a header; begin and end count from the data's start.
type entry struct {
	name       string
	dtype      string
	shape      []int
	begin, end uint64
}

// header is a parsed and checked header.
type header struct {
	entries  []entry // in the order of their data
	metadata map[string]string
}

const metadataKey = "__metadata__"

// parseHeader reads the JSON text of a header and checks that its tensors
// cover dataLen bytes exactly. It allocates in proportion to the text.
func parseHeader(text []byte, dataLen uint64) (*header, error) {
	if len(text) == 0 || text[0] != '{' {
		return nil, errors.New("header does not begin with '{': not a safetensors file")
	}
	if !utf8.Valid(text) {
		return nil, errors.New("header is not UTF-8")
	}
	h := &header{}
	d := newDecoder(text)
	seen := map[string]bool{}
	err := d.object(func(name string) error {
		if seen[name] {
			return fmt.Errorf("tensor %s: named twice in the header", quote(name))
		}
		seen[name] = true
		if name == metadataKey {
			return h.readMetadata(d)
		}
		e, err := readEntry(d, name)
		if err != nil {
			return fmt.Errorf("tensor %s: %w", quote(name), err)
		}
		h.entries = append(h.entries, e)
		return nil
	})
	if err == nil {
		err = d.end()
	}
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if err := h.checkCover(dataLen); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *header) readMetadata(d *decoder) error {
	h.metadata = map[string]string{}
	err := d.object(func(key string) error {
		if _, twice := h.metadata[key]; twice {
			return fmt.Errorf("key %s stands twice", quote(key))
		}
		value, err := d.str()
		if err != nil {
			return fmt.Errorf("key %s: %w", quote(key), err)
		}
		h.metadata[key] = value
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", metadataKey, err)
	}
	return nil
}

func readEntry(d *decoder, name string) (entry, error) {
	e := entry{name: name}
	seen := map[string]bool{}
	var offsets []uint64
	err := d.object(func(key string) (err error) {
		if seen[key] {
			return fmt.Errorf("key %s stands twice", quote(key))
		}
		seen[key] = true
		switch key {
		case "dtype":
			e.dtype, err = d.str()
		case "shape":
			e.shape, err = readShape(d)
		case "data_offsets":
			offsets, err = d.uints()
			if err == nil && len(offsets) != 2 {
				err = fmt.Errorf("has %d numbers, want [begin, end]", len(offsets))
			}
		default:
			return d.skip() // the reference implementation ignores what it does not know
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return nil
	})
	if err != nil {
		return e, err
	}
	for _, key := range []string{"dtype", "shape", "data_offsets"} {
		if !seen[key] {
			return e, fmt.Errorf("has no %s", key)
		}
	}
	e.begin, e.end = offsets[0], offsets[1]
	if e.begin > e.end {
		return e, fmt.Errorf("data_offsets [%d, %d] run backwards", e.begin, e.end)
	}
	want, err := byteSize(e.dtype, e.shape)
	if err != nil {
		return e, err
	}
	if got := e.end - e.begin; got != want {
		return e, fmt.Errorf("data_offsets [%d, %d] hold %d bytes, but shape %v of %s takes %d",
			e.begin, e.end, got, e.shape, e.dtype, want)
	}
	return e, nil
}

func readShape(d *decoder) ([]int, error) {
	dims, err := d.uints()
	if err != nil {
		return nil, err
	}
	shape := make([]int, len(dims))
	for i, dim := range dims {
		if dim > math.MaxInt {
			return nil, fmt.Errorf("dimension %d is too large", dim)
		}
		shape[i] = int(dim)
	}
	return shape, nil
}

// checkCover sorts the entries by their data, and checks that each begins
// where the one before ends and that the last ends with the data.
func (h *header) checkCover(dataLen uint64) error {
	slices.SortFunc(h.entries, func(a, b entry) int {
		// An empty tensor stands before the one that shares its start.
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.name, b.name))
	})
	at, last := uint64(0), "the header"
	for _, e := range h.entries {
		switch {
		case e.end > dataLen:
			return fmt.Errorf("tensor %s: its data end at byte %d of %d: the file is cut off (download or copy it again)",
				quote(e.name), e.end, dataLen)
		case e.begin < at:
			return fmt.Errorf("tensor %s: its data begin at byte %d, inside those of %s, which end at %d",
				quote(e.name), e.begin, last, at)
		case e.begin > at:
			return fmt.Errorf("tensor %s: its data begin at byte %d, but those before end at %d: there is a hole",
				quote(e.name), e.begin, at)
		}
		at, last = e.end, quote(e.name)
	}
	if at != dataLen {
		return fmt.Errorf("%d bytes after the last tensor's data belong to no tensor", dataLen-at)
	}
	return nil
}

// decoder walks JSON token by token. The usual way, unmarshalling into a map,
// silently keeps the last of two equal keys.
type decoder struct{ *json.Decoder }

func newDecoder(text []byte) *decoder {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return &decoder{d}
}

func (d *decoder) token() (json.Token, error) {
	tok, err := d.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("broken JSON near byte %d: %w", d.InputOffset(), err)
	}
	return tok, nil
}

func (d *decoder) wrong(got json.Token, want string) error {
	return fmt.Errorf("found %s near byte %d, want %s", kind(got), d.InputOffset(), want)
}

func kind(tok json.Token) string {
	switch tok := tok.(type) {
	case nil:
		return "null"
	case json.Delim:
		return strconv.Quote(tok.String())
	case string:
		return "a string"
	case json.Number:
		return "the number " + quote(tok.String())
	default:
		return fmt.Sprint(tok)
	}
}

func (d *decoder) delim(want json.Delim, what string) error {
	tok, err := d.token()
	if err != nil {
		return err
	}
	if tok != want {
		return d.wrong(tok, what)
	}
	return nil
}

// object calls field after each key, which must consume the value.
func (d *decoder) object(field func(key string) error) error {
	if err := d.delim('{', "an object"); err != nil {
		return err
	}
	for d.More() {
		tok, err := d.token()
		if err != nil {
			return err
		}
		key, ok := tok.(string)
		if !ok {
			return d.wrong(tok, "a key")
		}
		if err := field(key); err != nil {
			return err
		}
	}
	return d.delim('}', "'}'")
}

func (d *decoder) str() (string, error) {
	tok, err := d.token()
	if err != nil {
		return "", err
	}
	s, ok := tok.(string)
	if !ok {
		return "", d.wrong(tok, "a string")
	}
	return s, nil
}

func (d *decoder) uints() ([]uint64, error) {
	if err := d.delim('[', "a list of numbers"); err != nil {
		return nil, err
	}
	var list []uint64
	for d.More() {
		tok, err := d.token()
		if err != nil {
			return nil, err
		}
		number, ok := tok.(json.Number)
		if !ok {
			return nil, d.wrong(tok, "a number")
		}
		n, err := strconv.ParseUint(number.String(), 10, 64)
		if err != nil {
			return nil, d.wrong(tok, "a whole number from 0 to 2^64-1")
		}
		list = append(list, n)
	}
	return list, d.delim(']', "']'")
}

// skip consumes one value of any kind.
func (d *decoder) skip() error {
	var ignored json.RawMessage
	if err := d.Decode(&ignored); err != nil {
		return fmt.Errorf("broken JSON near byte %d: %w", d.InputOffset(), err)
	}
	return nil
}

// end checks that nothing but white space follows.
func (d *decoder) end() error {
	tok, err := d.Token()
	if err == io.EOF {
		return nil
	}
	if err != nil {
		return fmt.Errorf("text after the closing brace, near byte %d", d.InputOffset())
	}
	return fmt.Errorf("%s after the closing brace", kind(tok))
}
