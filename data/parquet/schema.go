package parquet

import (
	"fmt"
	"strings"

	"ringtail/data/columnar"
)

const (
	maxDepth   = 64    // of nested columns
	maxColumns = 16384 // leaves
)

// node is a column or a group of columns.
type node struct {
	element
	path     string // for messages
	key      string // its name as a JSON key, with the colon
	children []*node
	leaf     int // its number among the leaves, -1 for groups
	// first and last are the leaves below the node: leaves[first:last].
	first, last int
	// def is the definition level at which the node is there (for a repeated one: has an element), rep the repetition
	// level at which another element of the innermost list around it begins.
	def, rep int
	// item is a list's element, keys and values those of a map.
	item, keys, values *node
}

// buildSchema makes the tree of the flattened schema, whose first element is the root.
func buildSchema(list []element) (root *node, leaves []*node, err error) {
	at := 0
	var build func(parent *node, depth int) (*node, error)
	build = func(parent *node, depth int) (*node, error) {
		if at >= len(list) {
			return nil, fmt.Errorf("the schema ends too early")
		}
		if depth > maxDepth {
			return nil, fmt.Errorf("columns are nested more than %d deep", maxDepth)
		}
		n := &node{element: list[at], leaf: -1, first: len(leaves)}
		at++
		if parent != nil {
			n.path, n.def, n.rep = n.name, parent.def, parent.rep
			if parent.path != "" {
				n.path = parent.path + "." + n.name
			}
			if len(n.path) > columnar.MaxPath {
				return nil, fmt.Errorf("a column's name has %d bytes, expected at most %d", len(n.path), columnar.MaxPath)
			}
			switch n.repetition {
			case required:
			case optional:
				n.def++
			case repeated:
				n.def++
				n.rep++
			default:
				return nil, fmt.Errorf("column %q has the unknown repetition %d", n.path, n.repetition)
			}
		}
		n.key = jsonKey(n.name)
		if n.element.children < 0 || n.element.children > len(list)-at {
			return nil, fmt.Errorf("group %q has %d columns, the schema only %d more", n.path, n.element.children, len(list)-at)
		}
		if n.element.children == 0 {
			if n.kind < 0 {
				return nil, fmt.Errorf("group %q has no columns", n.path)
			}
			if n.kind > typeFixed {
				return nil, fmt.Errorf("column %q has the unknown type %d", n.path, n.kind)
			}
			if n.kind == typeFixed && n.length <= 0 {
				return nil, fmt.Errorf("column %q has values of %d bytes", n.path, n.length)
			}
			n.leaf = len(leaves)
			if leaves = append(leaves, n); len(leaves) > maxColumns {
				return nil, fmt.Errorf("more than %d columns", maxColumns)
			}
		}
		for range n.element.children {
			child, err := build(n, depth+1)
			if err != nil {
				return nil, err
			}
			n.children = append(n.children, child)
		}
		n.last = len(leaves)
		n.nest()
		return n, nil
	}
	if root, err = build(nil, 0); err != nil {
		return nil, nil, err
	}
	if at != len(list) {
		return nil, nil, fmt.Errorf("the schema has %d columns outside of its root", len(list)-at)
	}
	if len(leaves) == 0 {
		return nil, nil, fmt.Errorf("it has no columns")
	}
	return root, leaves, nil
}

// jsonKey writes a name as the key of an object.
func jsonKey(name string) string {
	r := columnar.Row{Limit: 16 << 20}
	r.Text([]byte(strings.ToValidUTF8(name, "\ufffd")), "")
	r.Raw(":")
	return string(r.Buf)
}

// nest finds the parts of a list or map by the rules of parquet-format's LogicalTypes.md, older writers' forms included.
func (n *node) nest() {
	if n.logical != listValue && n.logical != mapValue || len(n.children) != 1 || n.children[0].repetition != repeated {
		return
	}
	inner := n.children[0]
	switch {
	case n.logical == mapValue && len(inner.children) == 2:
		n.keys, n.values = inner.children[0], inner.children[1]
	case n.logical == listValue && len(inner.children) == 1 && inner.name != "array" && inner.name != n.name+"_tuple":
		n.item = inner.children[0]
	case n.logical == listValue:
		n.item = inner
	}
}
