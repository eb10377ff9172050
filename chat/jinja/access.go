package jinja

import "strings"

type attrNode struct {
	line  int
	value expr
	name  string
}

func (n *attrNode) eval(in *interp, sc *scope) (Value, error) {
	v, err := in.eval(n.value, sc)
	if err != nil {
		return nil, err
	}
	out, err := in.getAttr(v, n.name)
	return out, at(err, n.line)
}

type itemNode struct {
	line  int
	value expr
	index expr
}

func (n *itemNode) eval(in *interp, sc *scope) (Value, error) {
	v, err := in.eval(n.value, sc)
	if err != nil {
		return nil, err
	}
	if s, ok := n.index.(*sliceNode); ok {
		out, err := s.apply(in, sc, v)
		return out, at(err, n.line)
	}
	index, err := in.eval(n.index, sc)
	if err != nil {
		return nil, err
	}
	out, err := in.getItem(v, index)
	return out, at(err, n.line)
}

// getAttr is v.name: an attribute or method first, then an element under that key.
func (in *interp) getAttr(v Value, name string) (Value, error) {
	if u, ok := v.(*Undefined); ok {
		return nil, u.fail()
	}
	if out, ok, err := in.attribute(v, name); ok || err != nil {
		return out, err
	}
	if d, ok := v.(*Dict); ok {
		if out, ok := d.getString(name); ok {
			return out, nil
		}
	}
	return undefined("'%s' has no attribute '%s'", describeType(v), name), nil
}

// getItem is v[index]: an element first, then an attribute or method of that name.
func (in *interp) getItem(v, index Value) (Value, error) {
	if err := in.charge(1); err != nil {
		return nil, err
	}
	i, isInt := toInt(index)
	switch v := v.(type) {
	case *Undefined:
		return nil, v.fail()
	case *Dict:
		if out, ok, err := v.get(index); ok && err == nil {
			return out, nil
		}
	case *List:
		if out, ok := element(v.Items, i, isInt); ok {
			return out, nil
		}
	case *Tuple:
		if out, ok := element(v.Items, i, isInt); ok {
			return out, nil
		}
	case *rangeValue:
		if i < 0 {
			i += v.n
		}
		if isInt && i >= 0 && i < v.n {
			return Int(v.start + i*v.step), nil
		}
	case Str:
		if isInt {
			if out, ok, err := in.charAt(v, i); ok || err != nil {
				return out, err
			}
		}
	}
	if name, ok := index.(Str); ok {
		if out, ok, err := in.attribute(v, name.Text); ok || err != nil {
			return out, err
		}
		return undefined("'%s' has no attribute '%s'", describeType(v), name.Text), nil
	}
	shown, err := in.toStr(index)
	return undefined("%s has no element %s", describeType(v), shown.Text), err
}

// describeType names a value's type in the messages about missing attributes.
func describeType(v Value) string {
	if _, ok := v.(None); ok {
		return "None"
	}
	return v.typeName() + " object"
}

func element(items []Value, i int64, isInt bool) (Value, bool) {
	if i < 0 {
		i += int64(len(items))
	}
	if !isInt || i < 0 || i >= int64(len(items)) {
		return nil, false
	}
	return items[i], true
}

// charAt is the code point at index i of s.
func (in *interp) charAt(s Str, i int64) (Str, bool, error) {
	if err := in.charge(len(s.Text)/64 + 1); err != nil {
		return Str{}, false, err
	}
	n := int64(len(s.Text))
	ascii := s.isASCII()
	if !ascii {
		n = int64(s.length())
	}
	if i < 0 {
		i += n
	}
	if i < 0 || i >= n {
		return Str{}, false, nil
	}
	if ascii {
		return s.slice(int(i), int(i)+1), true, nil
	}
	from := s.offset(int(i))
	rest := s.slice(from, len(s.Text))
	return rest.slice(0, rest.offset(1)), true, nil
}

// attribute finds an attribute or method of v. Names with two leading underscores reach Python's internals, and
// methods that change a list or a dict are refused: what stands for them fails when it is used.
func (in *interp) attribute(v Value, name string) (Value, bool, error) {
	if strings.HasPrefix(name, "__") {
		return undefined("access to attribute '%s' of '%s' object is unsafe", name, v.typeName()), true, nil
	}
	switch v := v.(type) {
	case *loop:
		out, err := v.attr(in, name)
		return out, true, err
	case *macro:
		return v.attr(name), true, nil
	case *namespace:
		for i, n := range v.attrs.names {
			if n == name {
				return v.attrs.values[i], true, nil
			}
		}
	case *Tuple:
		for i, n := range v.names {
			if n == name {
				return v.Items[i], true, nil
			}
		}
		if name == "index" || name == "count" {
			return itemsMethod(v, v.Items, name), true, nil
		}
	case *List:
		switch name {
		case "index", "count":
			return itemsMethod(v, v.Items, name), true, nil
		case "copy":
			return method(name, func(in *interp, a *callArgs) (Value, error) {
				_, err := a.positional("copy", 0, 0)
				return v, err // nothing can change the original
			}), true, nil
		case "append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse":
			return unsafeMethod(v, name), true, nil
		}
	case *Dict:
		switch name {
		case "update", "pop", "popitem", "setdefault", "clear":
			return unsafeMethod(v, name), true, nil
		}
		if m, ok := dictMethods[name]; ok {
			return method(name, func(in *interp, a *callArgs) (Value, error) { return m(in, v, a) }), true, nil
		}
	case *cycler:
		return v.attr(name)
	case Str:
		if m, ok := strMethods[name]; ok {
			return method(name, func(in *interp, a *callArgs) (Value, error) {
				if err := in.chargeBytes(len(v.Text)); err != nil {
					return nil, err
				}
				return m(in, v, a)
			}), true, nil
		}
	}
	return nil, false, nil
}

func unsafeMethod(v Value, name string) Value {
	return undefined("access to attribute '%s' of '%s' object is unsafe: values can't be changed", name, v.typeName())
}

func method(name string, call func(in *interp, a *callArgs) (Value, error)) Value {
	return &function{name, call}
}

// sliceNode is start:stop:step inside [].
type sliceNode struct{ start, stop, step expr }

func (n *sliceNode) eval(*interp, *scope) (Value, error) {
	return nil, errorf("a slice can only be the whole index")
}

func (n *sliceNode) apply(in *interp, sc *scope, v Value) (Value, error) {
	var bounds [3]*int64
	for i, e := range []expr{n.start, n.stop, n.step} {
		if e == nil {
			continue
		}
		b, err := in.eval(e, sc)
		if err != nil {
			return nil, err
		}
		if _, none := b.(None); none {
			continue
		}
		k, ok := toInt(b)
		if big, isBig := b.(*Big); isBig { // far outside of any sequence
			k, ok = int64(big.v.Sign())<<40, true
		}
		if !ok {
			return nil, errorf("slice indices must be integers or none, not %s", b.typeName())
		}
		bounds[i] = &k
	}
	step := int64(1)
	if bounds[2] != nil {
		step = *bounds[2]
	}
	if step == 0 {
		return nil, errorf("slice step cannot be zero")
	}
	switch v := v.(type) {
	case *Undefined:
		return nil, v.fail()
	case *List:
		items, err := in.sliceItems(v.Items, bounds[0], bounds[1], step)
		return &List{items}, err
	case *Tuple:
		items, err := in.sliceItems(v.Items, bounds[0], bounds[1], step)
		return &Tuple{Items: items}, err
	case *rangeValue:
		from, _, count := sliceBounds(v.n, bounds[0], bounds[1], step)
		return &rangeValue{v.start + from*v.step, v.step * step, count}, nil
	case Str:
		return in.sliceStr(v, bounds[0], bounds[1], step)
	}
	return nil, errorf("'%s' object can't be sliced", v.typeName())
}

// sliceBounds resolves start:stop:step over n elements to the first index, the step and the number of elements.
func sliceBounds(n int64, start, stop *int64, step int64) (from, by, count int64) {
	low, high := int64(0), n // where an index may end up, for a positive step
	if step < 0 {
		low, high = -1, n-1
	}
	clamp := func(i *int64, missing int64) int64 {
		if i == nil {
			return missing
		}
		k := *i
		if k < 0 {
			k = max(k, -n-1) + n
		}
		return min(max(k, low), high)
	}
	if step > 0 {
		step = min(step, n+1)
		from, to := clamp(start, 0), clamp(stop, n)
		return from, step, max(0, (to-from+step-1)/step)
	}
	step = max(step, -n-1)
	from, to := clamp(start, n-1), clamp(stop, -1)
	return from, step, max(0, (from-to-step-1)/-step)
}

func (in *interp) sliceItems(items []Value, start, stop *int64, step int64) ([]Value, error) {
	from, by, count := sliceBounds(int64(len(items)), start, stop, step)
	if err := in.charge(int(count)); err != nil {
		return nil, err
	}
	if by == 1 {
		return items[from : from+count : from+count], nil
	}
	out := make([]Value, count)
	for i := range out {
		out[i] = items[from+int64(i)*by]
	}
	return out, nil
}

func (in *interp) sliceStr(s Str, start, stop *int64, step int64) (Value, error) {
	if err := in.chargeBytes(len(s.Text)); err != nil {
		return nil, err
	}
	n := int64(len(s.Text))
	ascii := s.isASCII()
	if !ascii {
		n = int64(s.length())
	}
	from, by, count := sliceBounds(n, start, stop, step)
	if count == 0 {
		return Str{}, nil
	}
	if by == 1 {
		if ascii {
			return s.slice(int(from), int(from+count)), nil
		}
		i := s.offset(int(from))
		rest := s.slice(i, len(s.Text))
		return rest.slice(0, rest.offset(int(count))), nil
	}
	offsets := make([]int, 0, n+1)
	for i := range s.Text {
		offsets = append(offsets, i)
	}
	offsets = append(offsets, len(s.Text))
	out := &builder{limit: in.limits.Output}
	for i := range count {
		k := from + i*by
		if err := in.charge(1 + len(s.marks)); err != nil {
			return nil, err
		}
		if err := out.write(s.slice(offsets[k], offsets[k+1])); err != nil {
			return nil, err
		}
	}
	return out.str(), nil
}
