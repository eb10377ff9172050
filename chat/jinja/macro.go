package jinja

type param struct {
	name  string
	value expr // the default, nil without one
}

// macroNode is the definition of a macro, or the body of a call block.
type macroNode struct {
	name   string
	line   int
	params []param
	body   []stmt
	// Which special variables the body mentions decides what a call may pass.
	usesCaller, usesArgs, usesKwargs bool
}

func (n *macroNode) exec(in *interp, sc *scope) error {
	sc.set(n.name, &macro{n, sc})
	return nil
}

// macro is a macro together with the scope that it was defined in.
type macro struct {
	*macroNode
	scope *scope
}

func (m *macro) call(in *interp, a *callArgs) (Value, error) {
	if err := in.enter(); err != nil {
		return nil, at(err, m.line)
	}
	defer in.leave()
	inner := &scope{parent: m.scope}
	keywords := a.keywords
	take := func(name string) (Value, bool) {
		for i, k := range keywords {
			if k.name == name {
				keywords = append(append([]keyword{}, keywords[:i]...), keywords[i+1:]...)
				return k.value, true
			}
		}
		return nil, false
	}
	explicitCaller := false
	for i, p := range m.params {
		explicitCaller = explicitCaller || p.name == "caller"
		v, ok := Value(nil), false
		if i < len(a.items) {
			v, ok = a.items[i], true
		} else {
			v, ok = take(p.name)
		}
		switch {
		case ok:
		case p.value != nil:
			var err error
			if v, err = in.eval(p.value, inner); err != nil {
				return nil, at(err, m.line)
			}
		default:
			v = undefined("parameter '%s' was not provided", p.name)
		}
		inner.set(p.name, v)
	}
	if m.usesCaller && !explicitCaller {
		v, ok := take("caller")
		if _, none := v.(None); !ok || none {
			v = undefined("no caller defined: macro '%s' was not invoked by a call block", m.name)
		}
		inner.set("caller", v)
	}
	if m.usesKwargs {
		d := NewDict()
		for _, k := range keywords {
			d.Set(k.name, k.value)
		}
		inner.set("kwargs", d)
	} else if len(keywords) > 0 {
		return nil, errorf("macro '%s' takes no keyword argument '%s'", m.name, keywords[0].name)
	}
	extra := a.items[min(len(m.params), len(a.items)):]
	if m.usesArgs {
		inner.set("varargs", &Tuple{Items: extra})
	} else if len(extra) > 0 {
		return nil, errorf("macro '%s' takes no more than %d argument(s)", m.name, len(m.params))
	}
	return in.capture(func() error { return execAll(in, inner, m.body) })
}

func (m *macro) attr(name string) Value {
	switch name {
	case "name":
		return String(m.name)
	case "arguments":
		names := &Tuple{}
		for _, p := range m.params {
			names.Items = append(names.Items, String(p.name))
		}
		return names
	case "catch_kwargs":
		return Bool(m.usesKwargs)
	case "catch_varargs":
		return Bool(m.usesArgs)
	case "caller":
		return Bool(m.usesCaller)
	}
	return undefined("'macro' has no attribute '%s'", name)
}

// callBlockNode is {% call(params) macro(args) %}body{% endcall %}: the call gets the body as its caller.
type callBlockNode struct {
	line int
	call *callNode
	body *macroNode
}

func (n *callBlockNode) exec(in *interp, sc *scope) error {
	fn, a, err := n.call.prepare(in, sc)
	if err != nil {
		return at(err, n.line)
	}
	a.keywords = append(a.keywords, keyword{"caller", &macro{n.body, sc}})
	v, err := in.call(fn, a)
	if err != nil {
		return at(err, n.line)
	}
	s, err := in.toStr(v)
	if err == nil {
		err = in.out.write(s)
	}
	return at(err, n.line)
}
