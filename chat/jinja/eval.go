package jinja

// expr is an expression.
type expr interface {
	eval(in *interp, sc *scope) (Value, error)
}

// eval evaluates e, counting the step and the depth.
func (in *interp) eval(e expr, sc *scope) (Value, error) {
	if err := in.enter(); err != nil {
		return nil, err
	}
	v, err := e.eval(in, sc)
	in.leave()
	return v, err
}

type constNode struct{ value Value }

func (n *constNode) eval(*interp, *scope) (Value, error) { return n.value, nil }

type nameNode struct{ name string }

func (n *nameNode) eval(in *interp, sc *scope) (Value, error) {
	if v, ok := sc.lookup(n.name); ok {
		return v, nil
	}
	return undefined("'%s' is undefined", n.name), nil
}

func (in *interp) evalAll(items []expr, sc *scope) ([]Value, error) {
	values := make([]Value, len(items))
	for i, item := range items {
		v, err := in.eval(item, sc)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

type listNode struct{ items []expr }

func (n *listNode) eval(in *interp, sc *scope) (Value, error) {
	items, err := in.evalAll(n.items, sc)
	return &List{items}, err
}

type tupleNode struct{ items []expr }

func (n *tupleNode) eval(in *interp, sc *scope) (Value, error) {
	items, err := in.evalAll(n.items, sc)
	return &Tuple{Items: items}, err
}

type dictNode struct {
	line         int
	keys, values []expr
}

func (n *dictNode) eval(in *interp, sc *scope) (Value, error) {
	d := NewDict()
	for i := range n.keys {
		key, err := in.eval(n.keys[i], sc)
		if err != nil {
			return nil, err
		}
		value, err := in.eval(n.values[i], sc)
		if err != nil {
			return nil, err
		}
		if err := d.setValue(key, value); err != nil {
			return nil, at(err, n.line)
		}
	}
	return d, nil
}

// logicNode is a chain of "or" (until: true) or "and" (until: false): its value is the first operand with that truth,
// or the last one.
type logicNode struct {
	items []expr
	until bool
}

func (n *logicNode) eval(in *interp, sc *scope) (v Value, err error) {
	for _, item := range n.items {
		v, err = in.eval(item, sc)
		if err != nil || truth(v) == n.until {
			return v, err
		}
	}
	return v, nil
}

type notNode struct{ value expr }

func (n *notNode) eval(in *interp, sc *scope) (Value, error) {
	v, err := in.eval(n.value, sc)
	if err != nil {
		return nil, err
	}
	return Bool(!truth(v)), nil
}

type condNode struct {
	line               int
	test, then, orElse expr
}

func (n *condNode) eval(in *interp, sc *scope) (Value, error) {
	v, err := in.eval(n.test, sc)
	switch {
	case err != nil:
		return nil, at(err, n.line)
	case truth(v):
		return in.eval(n.then, sc)
	case n.orElse != nil:
		return in.eval(n.orElse, sc)
	}
	return undefined("the inline if on line %d is false and has no else", n.line), nil
}

type compareTerm struct {
	op    string
	value expr
}

// compareNode is a chain a < b < c, each operand evaluated once.
type compareNode struct {
	line  int
	first expr
	rest  []compareTerm
}

func (n *compareNode) eval(in *interp, sc *scope) (Value, error) {
	a, err := in.eval(n.first, sc)
	if err != nil {
		return nil, err
	}
	for _, term := range n.rest {
		b, err := in.eval(term.value, sc)
		if err != nil {
			return nil, err
		}
		holds, err := in.compare(term.op, a, b)
		if err != nil {
			return nil, at(err, n.line)
		}
		if !holds {
			return Bool(false), nil
		}
		a = b
	}
	return Bool(true), nil
}

func (in *interp) compare(op string, a, b Value) (bool, error) {
	switch op {
	case "==":
		return in.equal(a, b)
	case "!=":
		same, err := in.equal(a, b)
		return !same, err
	case "in":
		return in.isIn(a, b)
	case "not in":
		found, err := in.isIn(a, b)
		return !found, err
	}
	return in.order(op, a, b)
}

type concatNode struct {
	line  int
	items []expr
}

func (n *concatNode) eval(in *interp, sc *scope) (Value, error) {
	out := &builder{limit: in.limits.Output}
	for _, item := range n.items {
		v, err := in.eval(item, sc)
		if err != nil {
			return nil, err
		}
		s, err := in.toStr(v)
		if err == nil {
			err = in.chargeBytes(len(s.Text))
		}
		if err == nil {
			err = out.write(s)
		}
		if err != nil {
			return nil, at(err, n.line)
		}
	}
	return out.str(), nil
}

type signNode struct {
	line  int
	minus bool
	value expr
}

func (n *signNode) eval(in *interp, sc *scope) (Value, error) {
	v, err := in.eval(n.value, sc)
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*Undefined); ok {
		return nil, at(u.fail(), n.line)
	}
	out, ok := negate(v)
	if !ok {
		return nil, at(errorf("bad operand type for unary sign: '%s'", v.typeName()), n.line)
	}
	if !n.minus {
		out, _ = negate(out)
	}
	return out, nil
}

type binaryNode struct {
	line int
	op   string
	a, b expr
}

func (n *binaryNode) eval(in *interp, sc *scope) (Value, error) {
	a, err := in.eval(n.a, sc)
	if err != nil {
		return nil, err
	}
	b, err := in.eval(n.b, sc)
	if err != nil {
		return nil, err
	}
	v, err := in.binary(n.op, a, b)
	return v, at(err, n.line)
}

func (in *interp) binary(op string, a, b Value) (Value, error) {
	if v, ok, err := arithmetic(op, a, b); ok {
		return v, err
	}
	if op == "%" {
		if s, ok := a.(Str); ok {
			return in.percent(s, b)
		}
	}
	for _, v := range []Value{a, b} {
		if u, ok := v.(*Undefined); ok {
			return nil, u.fail()
		}
	}
	switch op {
	case "+":
		if v, ok, err := in.add(a, b); ok {
			return v, err
		}
	case "*":
		if n, ok := toInt(b); ok {
			if v, ok, err := in.repeat(a, n); ok {
				return v, err
			}
		} else if n, ok := toInt(a); ok {
			if v, ok, err := in.repeat(b, n); ok {
				return v, err
			}
		}
	}
	if _, ok := a.(Str); ok && op == "+" {
		return nil, errorf("can only concatenate str (not '%s') to str", b.typeName())
	}
	return nil, errorf("unsupported operand types for %s: '%s' and '%s'", op, a.typeName(), b.typeName())
}

// add joins two strings, lists or tuples.
func (in *interp) add(a, b Value) (Value, bool, error) {
	switch x := a.(type) {
	case Str:
		y, ok := b.(Str)
		if !ok {
			return nil, false, nil
		}
		safe := x.safe || y.safe
		if safe && !x.safe {
			x = escapeHTML(x)
		}
		if safe && !y.safe {
			y = escapeHTML(y)
		}
		s, err := in.concat(x, y)
		s.safe = safe
		return s, true, err
	case *List:
		if y, ok := b.(*List); ok {
			items, err := in.joinItems(x.Items, y.Items)
			return &List{items}, true, err
		}
	case *Tuple:
		if y, ok := b.(*Tuple); ok {
			items, err := in.joinItems(x.Items, y.Items)
			return &Tuple{Items: items}, true, err
		}
	}
	return nil, false, nil
}

func (in *interp) joinItems(a, b []Value) ([]Value, error) {
	if err := in.charge(len(a) + len(b)); err != nil {
		return nil, err
	}
	return append(append(make([]Value, 0, len(a)+len(b)), a...), b...), nil
}

// repeat is s * n for a string, list or tuple.
func (in *interp) repeat(v Value, n int64) (Value, bool, error) {
	n = max(n, 0)
	switch v := v.(type) {
	case Str:
		s, err := in.repeatStr(v, n)
		return s, true, err
	case *List:
		items, err := in.repeatItems(v.Items, n)
		return &List{items}, true, err
	case *Tuple:
		items, err := in.repeatItems(v.Items, n)
		return &Tuple{Items: items}, true, err
	}
	return nil, false, nil
}

func (in *interp) repeatStr(s Str, n int64) (Str, error) {
	if s.Text == "" || n <= 0 {
		return Str{}, nil
	}
	if n > int64(in.limits.Output/len(s.Text)) {
		return Str{}, errorf("a string repeated %d times exceeds the limit of %d bytes", n, in.limits.Output)
	}
	if err := in.charge(int(n) * (len(s.Text) + len(s.marks)) / 16); err != nil {
		return Str{}, err
	}
	out := &builder{limit: in.limits.Output}
	for range n {
		if err := out.write(s); err != nil {
			return Str{}, err
		}
	}
	return out.str(), nil
}

func (in *interp) repeatItems(items []Value, n int64) ([]Value, error) {
	if len(items) == 0 || n <= 0 {
		return nil, nil
	}
	if n > int64(in.limits.Steps) {
		return nil, errorf("a list repeated %d times is too long", n)
	}
	if err := in.charge(int(n) * len(items)); err != nil {
		return nil, err
	}
	out := make([]Value, 0, int(n)*len(items))
	for range n {
		out = append(out, items...)
	}
	return out, nil
}
