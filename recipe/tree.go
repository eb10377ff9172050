package recipe

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// node is a YAML value with its place. It replaces the library's syntax tree
// so that aliases and merges are resolved, and overrides can be put in.
type node struct {
	line   int    // in the recipe; 0 for an override or a default
	set    string // the override that it comes from
	kind   nodeKind
	text   string // of a scalar
	quoted bool   // a scalar that can only be a string
	keys   []string
	fields map[string]*node // of a map
	lines  map[string]int   // of a map's keys
	items  []*node          // of a list
}

type nodeKind int

const (
	null nodeKind = iota
	scalar
	list
	mapping
)

// Bounds on input: far above any recipe, far below what hurts.
const (
	maxText  = 256 << 10 // bytes; the parser needs many seconds for a million
	maxNodes = 100_000   // after aliases are expanded
	maxDepth = 64
)

func (n *node) put(key string, line int, value *node) {
	if n.fields == nil {
		n.fields, n.lines = map[string]*node{}, map[string]int{}
	}
	if _, ok := n.fields[key]; !ok {
		n.keys = append(n.keys, key)
	}
	n.fields[key], n.lines[key] = value, line
}

// describe says what a value is, for "got ...".
func (n *node) describe() string {
	switch n.kind {
	case null:
		return "null"
	case list:
		return "a list"
	case mapping:
		return "a block of keys"
	}
	return quote(n.text)
}

func quote(s string) string {
	const most = 60
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return fmt.Sprintf("%q", s)
}

// parse reads one YAML document whose root is a map. name is for errors.
func parse(text []byte, name string) (*node, error) {
	root, err := parseValue(text)
	if err != nil {
		return nil, locate(name, err)
	}
	switch root.kind {
	case null: // an empty file
		return &node{kind: mapping}, nil
	case mapping:
		root.line = 0 // a key missing at the top has no line
		return root, nil
	}
	return nil, locate(name, &lineError{root.line, fmt.Sprintf("got %s, want keys with values (key: value)", root.describe())})
}

// lineError is a problem at a line of the text.
type lineError struct {
	line int
	msg  string
}

func (e *lineError) Error() string { return e.msg }

func locate(name string, err error) error {
	var le *lineError
	if errors.As(err, &le) && le.line > 0 {
		return &Error{fmt.Sprintf("%s:%d: %s", name, le.line, le.msg)}
	}
	return &Error{fmt.Sprintf("%s: %v", name, err)}
}

// parseValue reads one YAML document of any kind.
func parseValue(text []byte) (root *node, err error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("%d bytes are too many for a recipe (at most %d)", len(text), maxText)
	}
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	if i := slices.Index(text, 0); i >= 0 {
		return nil, errors.New("holds a zero byte: not a text file")
	}
	// The library is known to panic on some malformed input. It holds no state
	// of ours, so a panic there is one more syntax error.
	defer func() {
		if p := recover(); p != nil {
			root, err = nil, errors.New("not valid YAML")
		}
	}()
	tokens := lexer.Tokenize(string(text))
	if err := checkDepth(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // refused below, with both lines
	if err != nil {
		return nil, syntaxError(err)
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil {
			bodies = append(bodies, doc.Body)
		}
	}
	switch len(bodies) {
	case 0:
		return &node{line: 1}, nil
	case 1:
	default:
		return nil, &lineError{lineOf(bodies[1]), "a second document begins here; a recipe is one"}
	}
	c := &converter{anchors: map[string]*node{}}
	return c.value(bodies[0], 0)
}

// checkDepth bounds nesting before the library's recursive parser meets it.
// Nesting comes from brackets, from indentation and from "- - -" in a line.
func checkDepth(tokens token.Tokens) error {
	flow, line, inLine := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, inLine = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.MappingValueType, token.TagType, token.AnchorType:
			if flow == 0 {
				inLine++
			}
		}
		if flow > maxDepth || inLine > maxDepth || (flow == 0 && t.Position.IndentLevel > maxDepth) {
			return &lineError{line, fmt.Sprintf("nested more than %d levels deep", maxDepth)}
		}
	}
	return nil
}

func syntaxError(err error) error {
	var located interface {
		GetMessage() string
		GetToken() *token.Token
	}
	if !errors.As(err, &located) {
		return err
	}
	line := 0
	if t := located.GetToken(); t != nil && t.Position != nil {
		line = t.Position.Line
	}
	return &lineError{line, "not valid YAML: " + strings.ReplaceAll(located.GetMessage(), "\n", " ")}
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

// converter turns the library's tree into ours.
type converter struct {
	anchors map[string]*node
	count   int
}

func (c *converter) spend(n, line int) error {
	if c.count += n; c.count > maxNodes {
		return &lineError{line, fmt.Sprintf("more than %d values (aliases counted as often as used)", maxNodes)}
	}
	return nil
}

func (c *converter) value(n ast.Node, depth int) (*node, error) {
	line := lineOf(n)
	if depth > maxDepth {
		return nil, &lineError{line, fmt.Sprintf("nested more than %d levels deep", maxDepth)}
	}
	if err := c.spend(1, line); err != nil {
		return nil, err
	}
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return &node{line: line}, nil
	case *ast.StringNode:
		quoted := n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
		return &node{line: line, kind: scalar, text: n.Value, quoted: quoted}, nil
	case *ast.LiteralNode:
		return &node{line: line, kind: scalar, text: n.Value.Value, quoted: true}, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return &node{line: line, kind: scalar, text: n.GetToken().Value}, nil
	case *ast.SequenceNode:
		out := &node{line: line, kind: list}
		for _, item := range n.Values {
			v, err := c.value(item, depth+1)
			if err != nil {
				return nil, err
			}
			out.items = append(out.items, v)
		}
		return out, nil
	case *ast.MappingNode:
		return c.mapping(n.Values, line, depth)
	case *ast.MappingValueNode:
		return c.mapping([]*ast.MappingValueNode{n}, line, depth)
	case *ast.AnchorNode:
		v, err := c.value(n.Value, depth+1)
		if err == nil {
			c.anchors[n.Name.GetToken().Value] = v
		}
		return v, err
	case *ast.AliasNode:
		name := n.Value.GetToken().Value
		v, ok := c.anchors[name]
		if !ok {
			return nil, &lineError{line, fmt.Sprintf("alias *%s has no anchor &%s before it", quoteKey(name), quoteKey(name))}
		}
		return c.clone(v, line, depth)
	case *ast.TagNode:
		return nil, &lineError{line, "YAML tags such as " + quote(n.Start.Value) + " are not used in recipes"}
	default:
		return nil, &lineError{line, fmt.Sprintf("%s is not used in recipes", n.Type())}
	}
}

func (c *converter) mapping(pairs []*ast.MappingValueNode, line, depth int) (*node, error) {
	out := &node{line: line, kind: mapping}
	var merged []*node
	for _, pair := range pairs {
		keyLine := lineOf(pair.Key)
		value, err := c.value(pair.Value, depth+1)
		if err != nil {
			return nil, err
		}
		if _, ok := pair.Key.(*ast.MergeKeyNode); ok {
			sources := []*node{value}
			if value.kind == list {
				sources = value.items
			}
			for _, s := range sources {
				if s.kind != mapping {
					return nil, &lineError{keyLine, "<<: got " + s.describe() + ", want a block of keys to merge"}
				}
			}
			merged = append(merged, sources...)
			continue
		}
		var key string
		switch k := pair.Key.(type) {
		case *ast.StringNode:
			key = k.Value
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
			key = k.GetToken().Value
		default:
			return nil, &lineError{keyLine, "a key must be a plain word"}
		}
		if first, twice := out.lines[key]; twice {
			return nil, &lineError{keyLine, fmt.Sprintf("key %s stands twice, first in line %d", quote(key), first)}
		}
		out.put(key, keyLine, value)
	}
	for _, m := range merged { // what stands in the block itself, or comes first, wins
		for _, key := range m.keys {
			if _, ok := out.fields[key]; !ok {
				out.put(key, m.lines[key], m.fields[key])
			}
		}
	}
	return out, nil
}

// clone copies what an alias stands for, so that an override of one place
// leaves the other alone. The copy is at the alias's line.
func (c *converter) clone(n *node, line, depth int) (*node, error) {
	if err := c.spend(1, line); err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, &lineError{line, fmt.Sprintf("nested more than %d levels deep", maxDepth)}
	}
	out := *n
	out.line = line
	out.keys, out.lines = slices.Clone(n.keys), maps.Clone(n.lines)
	out.fields, out.items = nil, nil
	for _, item := range n.items {
		v, err := c.clone(item, line, depth+1)
		if err != nil {
			return nil, err
		}
		out.items = append(out.items, v)
	}
	for _, key := range n.keys {
		v, err := c.clone(n.fields[key], line, depth+1)
		if err != nil {
			return nil, err
		}
		if out.fields == nil {
			out.fields = map[string]*node{}
		}
		out.fields[key] = v
		out.lines[key] = line
	}
	return &out, nil
}
