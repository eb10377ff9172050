package torchfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Bounds of a pickle. torch.save takes some 200 bytes and 15 values a tensor, so
// these leave room for models of 100,000 tensors; what exceeds them is no state dict.
const (
	maxProtocol = 5
	maxPickle   = 64 << 20 // bytes
	maxValues   = 2 << 20  // values made, memo entries, stack
	maxString   = 16 << 20 // bytes
)

// machine runs one pickle. Lengths are checked against the bytes left before
// anything is allocated, and an instruction makes at most one value, of a size
// in proportion to its own bytes or to the values that it takes off the stack.
type machine struct {
	code  []byte
	pos   int
	stack []any
	marks []int // places of marks in the stack
	memo  map[uint64]any
	made  int

	// persistent finds a storage by the id that torch.save gave it; nil where none may occur.
	persistent func(id tuple) (any, error)
	tensors    *[]*tensor // that the pickle makes, to be settled after it
}

// runPickle runs the pickle at the start of code. It returns what the pickle leaves
// and the bytes that it took. Tensors that it makes are added to tensors; both
// arguments are nil where none may occur.
func runPickle(code []byte, persistent func(tuple) (any, error), tensors *[]*tensor) (result any, n int, err error) {
	m := &machine{code: code[:min(len(code), maxPickle)], memo: map[uint64]any{}, persistent: persistent, tensors: tensors}
	for {
		at := m.pos
		op, err := m.byte()
		if err == nil && op == '.' { // STOP
			if result, err = m.pop(); err == nil {
				return result, m.pos, nil
			}
		}
		if err == nil {
			err = m.step(op)
		}
		if err == nil && (len(m.stack) > maxValues || m.made > maxValues || len(m.memo) > maxValues) {
			err = fmt.Errorf("more than %d values: not a state dict", maxValues)
		}
		if err != nil {
			if errors.Is(err, errCut) && len(code) > maxPickle {
				err = fmt.Errorf("longer than %d bytes: not a state dict", maxPickle)
			}
			return nil, 0, fmt.Errorf("pickle, byte %d: %w", at, err)
		}
	}
}

var errCut = errors.New("it ends too early: the file is cut off (download or copy it again)")

// errEmpty is an instruction that finds less on the stack than it takes.
var errEmpty = errors.New("broken: an instruction takes more than the stack holds")

func (m *machine) byte() (byte, error) {
	if m.pos >= len(m.code) {
		return 0, errCut
	}
	m.pos++
	return m.code[m.pos-1], nil
}

// take is the next n bytes, a view of the code.
func (m *machine) take(n uint64) ([]byte, error) {
	if n > uint64(len(m.code)-m.pos) {
		return nil, errCut
	}
	b := m.code[m.pos : m.pos+int(n)]
	m.pos += int(n)
	return b, nil
}

// uint is a little-endian number of size bytes.
func (m *machine) uint(size uint64) (uint64, error) {
	b, err := m.take(size)
	if err != nil {
		return 0, err
	}
	var word [8]byte
	copy(word[:], b)
	return binary.LittleEndian.Uint64(word[:]), nil
}

// counted is what a length of size bytes stands before.
func (m *machine) counted(size uint64) ([]byte, error) {
	n, err := m.uint(size)
	if err != nil {
		return nil, err
	}
	if n > maxString {
		return nil, fmt.Errorf("a string of %d bytes; the longest that is read has %d", n, maxString)
	}
	return m.take(n)
}

// line is the text up to a newline, as instruction GLOBAL has it.
func (m *machine) line() (string, error) {
	rest := m.code[m.pos:min(len(m.code), m.pos+1024)]
	n := bytes.IndexByte(rest, '\n')
	if n < 0 {
		return "", errors.New("broken: a name of a global has no end")
	}
	m.pos += n + 1
	return string(rest[:n]), nil
}

func (m *machine) push(v any) {
	m.made++
	m.stack = append(m.stack, v)
}

// floor is the part of the stack that may be popped: what lies above the last mark.
func (m *machine) floor() int {
	if n := len(m.marks); n > 0 {
		return m.marks[n-1]
	}
	return 0
}

func (m *machine) pop() (any, error) {
	n := len(m.stack)
	if n <= m.floor() {
		return nil, errEmpty
	}
	v := m.stack[n-1]
	m.stack[n-1] = nil
	m.stack = m.stack[:n-1]
	return v, nil
}

func (m *machine) top() (any, error) {
	if len(m.stack) <= m.floor() {
		return nil, errEmpty
	}
	return m.stack[len(m.stack)-1], nil
}

// popMark takes what lies above the last mark, and the mark. The caller must copy
// what it keeps.
func (m *machine) popMark() ([]any, error) {
	n := len(m.marks)
	if n == 0 {
		return nil, errors.New("broken: no mark on the stack")
	}
	at := m.marks[n-1]
	m.marks = m.marks[:n-1]
	items := m.stack[at:]
	m.stack = m.stack[:at]
	return items, nil
}

// tupleOf makes a tuple of the top n values.
func (m *machine) tupleOf(n int) error {
	if len(m.stack)-m.floor() < n {
		return errEmpty
	}
	at := len(m.stack) - n
	t := append(tuple(nil), m.stack[at:]...)
	m.stack = m.stack[:at]
	m.push(t)
	return nil
}

func (m *machine) put(key uint64) error {
	v, err := m.top()
	if err == nil {
		m.memo[key] = v
	}
	return err
}

func (m *machine) get(key uint64) error {
	v, ok := m.memo[key]
	if !ok {
		return fmt.Errorf("broken: entry %d of the memo was never set", key)
	}
	m.push(v)
	return nil
}

// step runs one instruction.
func (m *machine) step(op byte) error {
	switch op {
	case 0x80: // PROTO
		v, err := m.byte()
		if err == nil && v > maxProtocol {
			err = fmt.Errorf("protocol %d; up to %d are read", v, maxProtocol)
		}
		return err
	case 0x95: // FRAME
		n, err := m.uint(8)
		if err == nil && n > uint64(len(m.code)-m.pos) {
			err = errCut
		}
		return err

	case '(': // MARK
		if len(m.marks) >= maxValues {
			return errors.New("broken: too many marks")
		}
		m.marks = append(m.marks, len(m.stack))
	case '0': // POP
		if n := len(m.marks); n > 0 && m.marks[n-1] == len(m.stack) {
			m.marks = m.marks[:n-1]
			return nil
		}
		_, err := m.pop()
		return err
	case '1': // POP_MARK
		_, err := m.popMark()
		return err
	case '2': // DUP
		v, err := m.top()
		if err != nil {
			return err
		}
		m.push(v)

	case 'N': // NONE
		m.push(nil)
	case 0x88, 0x89: // NEWTRUE, NEWFALSE
		m.push(op == 0x88)
	case 'J': // BININT
		n, err := m.uint(4)
		if err != nil {
			return err
		}
		m.push(int64(int32(n)))
	case 'K': // BININT1
		return m.pushUint(1)
	case 'M': // BININT2
		return m.pushUint(2)
	case 0x8a: // LONG1
		return m.pushLong(1)
	case 0x8b: // LONG4
		return m.pushLong(4)
	case 'G': // BINFLOAT, big-endian
		b, err := m.take(8)
		if err != nil {
			return err
		}
		m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))

	case 0x8c: // SHORT_BINUNICODE
		return m.pushString(1)
	case 'X': // BINUNICODE
		return m.pushString(4)
	case 0x8d: // BINUNICODE8
		return m.pushString(8)
	case 'U': // SHORT_BINSTRING: text of Python 2
		return m.pushString(1)
	case 'T': // BINSTRING
		return m.pushString(4)
	case 'C': // SHORT_BINBYTES
		return m.pushBytes(1)
	case 'B': // BINBYTES
		return m.pushBytes(4)
	case 0x8e, 0x96: // BINBYTES8, BYTEARRAY8
		return m.pushBytes(8)

	case ')': // EMPTY_TUPLE
		m.push(tuple(nil))
	case 't': // TUPLE
		items, err := m.popMark()
		if err != nil {
			return err
		}
		m.push(append(tuple(nil), items...))
	case 0x85: // TUPLE1
		return m.tupleOf(1)
	case 0x86: // TUPLE2
		return m.tupleOf(2)
	case 0x87: // TUPLE3
		return m.tupleOf(3)
	case ']': // EMPTY_LIST
		m.push(&list{})
	case 'l': // LIST
		items, err := m.popMark()
		if err != nil {
			return err
		}
		m.push(&list{append([]any(nil), items...)})
	case 'a': // APPEND
		v, err := m.pop()
		if err != nil {
			return err
		}
		return m.extend([]any{v})
	case 'e': // APPENDS
		items, err := m.popMark()
		if err != nil {
			return err
		}
		return m.extend(items)
	case '}': // EMPTY_DICT
		m.push(&dict{})
	case 'd': // DICT
		items, err := m.popMark()
		if err != nil {
			return err
		}
		d := &dict{}
		if err := setItems(d, items); err != nil {
			return err
		}
		m.push(d)
	case 's': // SETITEM
		v, err := m.pop()
		if err != nil {
			return err
		}
		k, err := m.pop()
		if err != nil {
			return err
		}
		return m.setItems([]any{k, v})
	case 'u': // SETITEMS
		items, err := m.popMark()
		if err != nil {
			return err
		}
		return m.setItems(items)
	case 0x8f: // EMPTY_SET
		m.push(&set{})
	case 0x90: // ADDITEMS
		if _, err := m.popMark(); err != nil {
			return err
		}
		v, err := m.top()
		if err != nil {
			return err
		}
		if _, ok := v.(*set); !ok {
			return fmt.Errorf("broken: adds to %s as if it were a set", kindOf(v))
		}
	case 0x91: // FROZENSET
		if _, err := m.popMark(); err != nil {
			return err
		}
		m.push(&set{})

	case 'q': // BINPUT
		n, err := m.uint(1)
		if err != nil {
			return err
		}
		return m.put(n)
	case 'r': // LONG_BINPUT
		n, err := m.uint(4)
		if err != nil {
			return err
		}
		return m.put(n)
	case 0x94: // MEMOIZE
		return m.put(uint64(len(m.memo)))
	case 'h': // BINGET
		n, err := m.uint(1)
		if err != nil {
			return err
		}
		return m.get(n)
	case 'j': // LONG_BINGET
		n, err := m.uint(4)
		if err != nil {
			return err
		}
		return m.get(n)

	case 'c': // GLOBAL
		module, err := m.line()
		if err != nil {
			return err
		}
		name, err := m.line()
		if err != nil {
			return err
		}
		return m.pushGlobal(module, name)
	case 0x93: // STACK_GLOBAL
		name, err := m.pop()
		if err != nil {
			return err
		}
		module, err := m.pop()
		if err != nil {
			return err
		}
		n, ok1 := name.(string)
		mod, ok2 := module.(string)
		if !ok1 || !ok2 {
			return errors.New("broken: the name of a global is no text")
		}
		return m.pushGlobal(mod, n)
	case 'R', 0x81: // REDUCE, NEWOBJ
		args, err := m.pop()
		if err != nil {
			return err
		}
		return m.call(args)
	case 0x92: // NEWOBJ_EX
		kwargs, err := m.pop()
		if err != nil {
			return err
		}
		if d, ok := kwargs.(*dict); !ok || len(d.keys) > 0 {
			return errors.New("a constructor with named arguments, which torch.save needs for no tensor")
		}
		args, err := m.pop()
		if err != nil {
			return err
		}
		return m.call(args)
	case 'b': // BUILD
		if _, err := m.pop(); err != nil {
			return err
		}
		v, err := m.top()
		if err != nil {
			return err
		}
		switch v.(type) {
		case *dict, *tensor:
			return nil // attributes of an OrderedDict (_metadata) or a parameter: of no use here
		}
		return fmt.Errorf("sets attributes of %s, which no state dict needs", kindOf(v))
	case 'Q': // BINPERSID
		v, err := m.pop()
		if err != nil {
			return err
		}
		id, ok := v.(tuple)
		if !ok || m.persistent == nil {
			return fmt.Errorf("refers to %s outside of itself, expected a storage", kindOf(v))
		}
		s, err := m.persistent(id)
		if err != nil {
			return err
		}
		m.push(s)

	default:
		return fmt.Errorf("instruction %#02x, which torch.save doesn't write", op)
	}
	return nil
}

func (m *machine) pushUint(size uint64) error {
	n, err := m.uint(size)
	if err != nil {
		return err
	}
	m.push(int64(n))
	return nil
}

// pushLong reads a two's complement number of any length.
func (m *machine) pushLong(size uint64) error {
	b, err := m.counted(size)
	if err != nil {
		return err
	}
	if len(b) > 8 {
		m.push(append(raw(nil), b...))
		return nil
	}
	var word [8]byte
	copy(word[:], b)
	if n := len(b); n > 0 && b[n-1]&0x80 != 0 { // negative: extend the sign
		for i := n; i < 8; i++ {
			word[i] = 0xff
		}
	}
	m.push(int64(binary.LittleEndian.Uint64(word[:])))
	return nil
}

func (m *machine) pushString(size uint64) error {
	b, err := m.counted(size)
	if err != nil {
		return err
	}
	m.push(string(b))
	return nil
}

func (m *machine) pushBytes(size uint64) error {
	b, err := m.counted(size)
	if err != nil {
		return err
	}
	m.push(append(raw(nil), b...))
	return nil
}

func (m *machine) extend(items []any) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	l, ok := v.(*list)
	if !ok {
		return fmt.Errorf("broken: appends to %s as if it were a list", kindOf(v))
	}
	l.items = append(l.items, items...)
	return nil
}

func (m *machine) setItems(items []any) error {
	v, err := m.top()
	if err != nil {
		return err
	}
	d, ok := v.(*dict)
	if !ok {
		return fmt.Errorf("broken: sets items of %s as if it were a dict", kindOf(v))
	}
	return setItems(d, items)
}

func setItems(d *dict, items []any) error {
	if len(items)%2 != 0 {
		return errors.New("broken: a key without a value")
	}
	for i := 0; i < len(items); i += 2 {
		d.set(items[i], items[i+1])
	}
	return nil
}
