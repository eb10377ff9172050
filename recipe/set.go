package recipe

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// applySet puts one override "a.b.c=value" into the tree. Only the path is
// judged here; the value is, with all others, when the tree is decoded.
func applySet(root *node, s *schema, set string) error {
	path, text, found := strings.Cut(set, "=")
	path = strings.TrimSpace(path)
	if !found || path == "" {
		return errors.New("want key=value, such as train.lr=1e-4")
	}
	value := &node{kind: scalar, quoted: true} // "key=" is the empty string
	if strings.TrimSpace(text) != "" {
		var err error
		if value, err = parseValue([]byte(text)); err != nil {
			return fmt.Errorf("the value %s is not valid YAML (a string with special characters needs quotes): %w", quote(text), err)
		}
	}
	value.stamp(shorten(set))
	sl := slot{node: root, schema: s}
	var last slot
	for _, key := range strings.Split(path, ".") {
		last = sl
		next, err := sl.enter(key, shorten(set))
		if err != nil {
			return err
		}
		next.key = key
		sl = next
	}
	*sl.node = *value
	if last.node.kind == mapping {
		last.node.lines[sl.key] = 0
	}
	return nil
}

// shorten makes an override fit for a line of an error.
func shorten(s string) string {
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "..."
	}
	if q := strconv.Quote(s); strings.ContainsFunc(s, unicode.IsControl) {
		return q[1 : len(q)-1]
	}
	return s
}

// stamp marks a tree as coming from an override.
func (n *node) stamp(set string) {
	n.line, n.set = 0, set
	for _, item := range n.items {
		item.stamp(set)
	}
	for _, key := range n.keys {
		n.fields[key].stamp(set)
		n.lines[key] = 0
	}
}

// slot is a place in the tree with what may stand there.
type slot struct {
	node   *node
	schema *schema
	field  *field // that the schema belongs to, for its default; or nil
	key    string
	path   string
}

// enter goes to a key of a block or map, or to an item of a list, and makes
// what is missing on the way.
func (sl slot) enter(key, set string) (slot, error) {
	s := sl.schema
	for s.kind == optional {
		s = s.elem
	}
	switch s.kind {
	case block:
		f := s.field(key)
		if f == nil {
			d := decoder{root: nil}
			n := &node{kind: mapping}
			n.put(key, 0, n)
			d.unknown(s, n, key, sl.path)
			return slot{}, errors.New(strings.TrimPrefix(d.errs[0], ": "))
		}
		if sl.node.kind == scalar && s.shorthand != nil { // keep what the short form says
			short := *sl.node
			*sl.node = node{kind: mapping, line: short.line, set: short.set}
			sl.node.put(s.shorthand.key, short.line, &short)
		}
		child, err := sl.child(key, set)
		return slot{node: child, schema: f.schema, field: f, path: join(sl.path, key)}, err
	case mapOf:
		child, err := sl.child(key, set)
		return slot{node: child, schema: s.elem, path: join(sl.path, key)}, err
	case listOf:
		return sl.item(s, key, set)
	}
	return slot{}, fmt.Errorf("%s is %s and has no keys of its own", sl.path, s.expected())
}

// child finds or makes the value of a key.
func (sl slot) child(key, set string) (*node, error) {
	switch sl.node.kind {
	case mapping:
	case null:
		*sl.node = node{kind: mapping, set: set}
	default:
		return nil, fmt.Errorf("%s is set to %s, so %s cannot be set in it", sl.path, sl.node.describe(), key)
	}
	if child, ok := sl.node.fields[key]; ok {
		return child, nil
	}
	child := &node{set: set}
	sl.node.put(key, 0, child)
	return child, nil
}

// item finds an item of a list, or appends one.
func (sl slot) item(s *schema, key, set string) (slot, error) {
	switch sl.node.kind {
	case list:
	case null:
		*sl.node = node{kind: list, set: set}
		if sl.field != nil && sl.field.def != nil && sl.field.def.kind == list {
			def, err := (&converter{}).clone(sl.field.def, 0, 0)
			if err != nil {
				return slot{}, err
			}
			sl.node.items = def.items
		}
	default: // a single value stands for a list of one
		one := *sl.node
		*sl.node = node{kind: list, line: one.line, set: one.set, items: []*node{&one}}
	}
	i, err := strconv.Atoi(key)
	if err != nil || i < 0 {
		return slot{}, fmt.Errorf("%s is a list: want the number of an item instead of %s", sl.path, quote(key))
	}
	n := len(sl.node.items)
	if i > n {
		return slot{}, fmt.Errorf("%s has %d items, so %d is out of range (%d appends)", sl.path, n, i, n)
	}
	if i == n {
		sl.node.items = append(slices.Clip(sl.node.items), &node{set: set})
	}
	return slot{node: sl.node.items[i], schema: s.elem, path: fmt.Sprintf("%s[%d]", sl.path, i)}, nil
}
