package jinja

import "errors"

// stmt is a statement or a piece of text.
type stmt interface {
	exec(in *interp, sc *scope) error
}

// errBreak and errContinue travel up to the loop they end.
var (
	errBreak    = errors.New("break")
	errContinue = errors.New("continue")
)

func execAll(in *interp, sc *scope, body []stmt) error {
	for _, s := range body {
		if err := s.exec(in, sc); err != nil {
			return err
		}
	}
	return nil
}

type textNode struct{ text Str }

func (n *textNode) exec(in *interp, sc *scope) error {
	if err := in.chargeBytes(len(n.text.Text)); err != nil {
		return err
	}
	return in.out.write(n.text)
}

type printNode struct {
	line  int
	value expr
}

func (n *printNode) exec(in *interp, sc *scope) error {
	v, err := in.eval(n.value, sc)
	if err != nil {
		return at(err, n.line)
	}
	s, err := in.toStr(v)
	if err == nil {
		err = in.chargeBytes(len(s.Text))
	}
	if err == nil {
		err = in.out.write(s)
	}
	return at(err, n.line)
}

// seqNode is the list of a print tag.
type seqNode struct{ body []stmt }

func (n *seqNode) exec(in *interp, sc *scope) error { return execAll(in, sc, n.body) }

type jumpNode struct{ signal error }

func (n *jumpNode) exec(*interp, *scope) error { return n.signal }

type branch struct {
	line int
	test expr
	body []stmt
}

type ifNode struct {
	branches []branch
	orElse   []stmt
}

func (n *ifNode) exec(in *interp, sc *scope) error {
	if err := in.enter(); err != nil {
		return err
	}
	defer in.leave()
	for _, b := range n.branches {
		v, err := in.eval(b.test, sc)
		if err != nil {
			return at(err, b.line)
		}
		if truth(v) {
			return execAll(in, sc, b.body)
		}
	}
	return execAll(in, sc, n.orElse)
}

// target is what a value can be assigned to.
type target interface {
	assign(in *interp, sc *scope, v Value) error
}

type nameTarget struct{ name string }

func (t *nameTarget) assign(in *interp, sc *scope, v Value) error {
	sc.set(t.name, v)
	return nil
}

// attrTarget is an attribute of a namespace. The parser also passes it around as an expression until it is known to
// be a target.
type attrTarget struct{ name, attr string }

func (t *attrTarget) assign(in *interp, sc *scope, v Value) error {
	obj, _ := sc.lookup(t.name)
	ns, ok := obj.(*namespace)
	if !ok {
		return errorf("can't set '%s.%s': '%s' is no namespace", t.name, t.attr, t.name)
	}
	ns.attrs.set(t.attr, v)
	return nil
}

func (t *attrTarget) eval(*interp, *scope) (Value, error) {
	return nil, errorf("'%s.%s' is an assignment target", t.name, t.attr)
}

type tupleTarget struct{ items []target }

// assigns tells whether a target sets the variable of that name.
func assigns(t target, name string) bool {
	switch t := t.(type) {
	case *nameTarget:
		return t.name == name
	case *tupleTarget:
		for _, item := range t.items {
			if assigns(item, name) {
				return true
			}
		}
	}
	return false
}

func (t *tupleTarget) assign(in *interp, sc *scope, v Value) error {
	values, err := in.list(v)
	if err != nil {
		return errorf("can't unpack: %s", err.(*Error).Msg)
	}
	if len(values) != len(t.items) {
		return errorf("can't unpack %d values into %d names", len(values), len(t.items))
	}
	for i, item := range t.items {
		if err := item.assign(in, sc, values[i]); err != nil {
			return err
		}
	}
	return nil
}

type setNode struct {
	line   int
	target target
	value  expr
}

func (n *setNode) exec(in *interp, sc *scope) error {
	v, err := in.eval(n.value, sc)
	if err == nil {
		err = n.target.assign(in, sc, v)
	}
	return at(err, n.line)
}

// slotNode stands for the text of a block inside the filters applied to it.
type slotNode struct{}

// slotName can't be written in a template.
const slotName = "<block>"

func (slotNode) eval(in *interp, sc *scope) (Value, error) {
	v, _ := sc.lookup(slotName)
	return v, nil
}

// captureBlock runs a block and passes its text through filter.
func (in *interp) captureBlock(sc *scope, body []stmt, filter expr) (Value, error) {
	text, err := in.capture(func() error { return execAll(in, &scope{parent: sc}, body) })
	if err != nil {
		return nil, err
	}
	inner := &scope{parent: sc}
	inner.set(slotName, text)
	return in.eval(filter, inner)
}

type setBlockNode struct {
	line   int
	target target
	filter expr
	body   []stmt
}

func (*setBlockNode) slot() expr { return slotNode{} }

func (n *setBlockNode) exec(in *interp, sc *scope) error {
	v, err := in.captureBlock(sc, n.body, n.filter)
	if err == nil {
		err = n.target.assign(in, sc, v)
	}
	return at(err, n.line)
}

type filterBlockNode struct {
	line   int
	filter expr
	body   []stmt
}

func (*filterBlockNode) slot() expr { return slotNode{} }

func (n *filterBlockNode) exec(in *interp, sc *scope) error {
	v, err := in.captureBlock(sc, n.body, n.filter)
	if err != nil {
		return at(err, n.line)
	}
	s, ok := v.(Str)
	if !ok {
		return at(errorf("the filters of a filter block must give a string, not %s", v.typeName()), n.line)
	}
	return at(in.out.write(s), n.line)
}

type withNode struct {
	line    int
	targets []target
	values  []expr
	body    []stmt
}

func (n *withNode) exec(in *interp, sc *scope) error {
	inner := &scope{parent: sc}
	for i, value := range n.values {
		v, err := in.eval(value, sc) // not inner: the names don't see each other
		if err == nil {
			err = n.targets[i].assign(in, inner, v)
		}
		if err != nil {
			return at(err, n.line)
		}
	}
	return execAll(in, inner, n.body)
}

// generationNode marks what it prints as said by the assistant.
type generationNode struct {
	line int
	body []stmt
}

func (n *generationNode) exec(in *interp, sc *scope) error {
	s, err := in.capture(func() error { return execAll(in, &scope{parent: sc}, n.body) })
	if err != nil {
		return at(err, n.line)
	}
	if s.Text == "" {
		return nil
	}
	marked := Str{Text: s.Text, marks: []Mark{{0, len(s.Text), Generation}}}
	for _, m := range s.marks {
		if m.Origin != Generation { // a block inside of this one
			marked.marks = append(marked.marks, m)
		}
	}
	return at(in.out.write(marked), n.line)
}
