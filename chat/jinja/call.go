package jinja

type keywordNode struct {
	name  string
	value expr
}

// argsNode are the arguments of a call, filter or test as written.
type argsNode struct {
	items        []expr
	keywords     []keywordNode
	rest         expr // *rest
	restKeywords expr // **restKeywords
}

type keyword struct {
	name  string
	value Value
}

// callArgs are evaluated arguments.
type callArgs struct {
	items    []Value
	keywords []keyword
}

func (n *argsNode) eval(in *interp, sc *scope) (*callArgs, error) {
	a := &callArgs{}
	var err error
	if a.items, err = in.evalAll(n.items, sc); err != nil {
		return nil, err
	}
	for _, k := range n.keywords {
		v, err := in.eval(k.value, sc)
		if err != nil {
			return nil, err
		}
		if _, repeated := a.keyword(k.name); repeated {
			return nil, errorf("keyword argument '%s' is repeated", k.name)
		}
		a.keywords = append(a.keywords, keyword{k.name, v})
	}
	if n.rest != nil {
		v, err := in.eval(n.rest, sc)
		if err != nil {
			return nil, err
		}
		more, err := in.list(v)
		if err != nil {
			return nil, err
		}
		a.items = append(a.items, more...)
	}
	if n.restKeywords != nil {
		if err := a.addDict(in, sc, n.restKeywords); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *callArgs) addDict(in *interp, sc *scope, e expr) error {
	v, err := in.eval(e, sc)
	if err != nil {
		return err
	}
	d, ok := v.(*Dict)
	if !ok {
		return errorf("the argument after ** must be a mapping, not %s", v.typeName())
	}
	for _, e := range d.entries {
		name, ok := e.key.(Str)
		if !ok {
			return errorf("keywords must be strings, not %s", e.key.typeName())
		}
		if _, repeated := a.keyword(name.Text); repeated {
			return errorf("keyword argument '%s' is repeated", name.Text)
		}
		a.keywords = append(a.keywords, keyword{name.Text, e.value})
	}
	return nil
}

func (a *callArgs) keyword(name string) (Value, bool) {
	for _, k := range a.keywords {
		if k.name == name {
			return k.value, true
		}
	}
	return nil, false
}

// bind matches arguments with named parameters, of which the first few are required; a missing one is nil.
func (a *callArgs) bind(function string, required int, names ...string) ([]Value, error) {
	if len(a.items) > len(names) {
		return nil, errorf("%s() takes at most %d argument(s), got %d", function, len(names), len(a.items))
	}
	out := make([]Value, len(names))
	copy(out, a.items)
next:
	for _, k := range a.keywords {
		for i, name := range names {
			if name == k.name {
				if out[i] != nil {
					return nil, errorf("%s() got two values for '%s'", function, name)
				}
				out[i] = k.value
				continue next
			}
		}
		return nil, errorf("%s() takes no argument '%s'", function, k.name)
	}
	for i := range required {
		if out[i] == nil {
			return nil, errorf("%s() is missing the argument '%s'", function, names[i])
		}
	}
	return out, nil
}

// positional is bind for functions whose parameters Python doesn't name.
func (a *callArgs) positional(function string, least, most int) ([]Value, error) {
	if len(a.keywords) > 0 {
		return nil, errorf("%s() takes no keyword arguments", function)
	}
	if len(a.items) < least || len(a.items) > most {
		return nil, errorf("%s() takes %d to %d arguments, got %d", function, least, most, len(a.items))
	}
	out := make([]Value, most)
	copy(out, a.items)
	return out, nil
}

// isGiven tells an argument from a missing one; None counts as missing, as it does for Python's optional ones.
func isGiven(v Value) bool {
	if v == nil {
		return false
	}
	_, none := v.(None)
	return !none
}

func intArg(function, name string, v Value, missing int64) (int64, error) {
	if v == nil {
		return missing, nil
	}
	i, ok := toInt(v)
	if !ok {
		return 0, errorf("%s(): '%s' must be an integer, not %s", function, name, v.typeName())
	}
	return i, nil
}

func strArg(function, name string, v Value, missing Str) (Str, error) {
	if v == nil {
		return missing, nil
	}
	s, ok := v.(Str)
	if !ok {
		return Str{}, errorf("%s(): '%s' must be a string, not %s", function, name, v.typeName())
	}
	return s, nil
}

type callNode struct {
	line int
	fn   expr
	args argsNode
}

func (n *callNode) prepare(in *interp, sc *scope) (Value, *callArgs, error) {
	fn, err := in.eval(n.fn, sc)
	if err != nil {
		return nil, nil, err
	}
	a, err := n.args.eval(in, sc)
	return fn, a, at(err, n.line)
}

func (n *callNode) eval(in *interp, sc *scope) (Value, error) {
	fn, a, err := n.prepare(in, sc)
	if err != nil {
		return nil, err
	}
	v, err := in.call(fn, a)
	return v, at(err, n.line)
}

func (in *interp) call(fn Value, a *callArgs) (Value, error) {
	switch fn := fn.(type) {
	case *function:
		return fn.call(in, a)
	case *macro:
		return fn.call(in, a)
	case *loop:
		return fn.call(in, a)
	case *Undefined:
		return nil, fn.fail()
	}
	return nil, errorf("'%s' object is not callable", fn.typeName())
}

type filterNode struct {
	line  int
	name  string
	value expr
	args  argsNode
}

func (n *filterNode) eval(in *interp, sc *scope) (Value, error) {
	v, err := in.eval(n.value, sc)
	if err != nil {
		return nil, err
	}
	a, err := n.args.eval(in, sc)
	if err != nil {
		return nil, at(err, n.line)
	}
	out, err := in.filter(n.name, v, a)
	return out, at(err, n.line)
}

func (in *interp) filter(name string, v Value, a *callArgs) (Value, error) {
	f, ok := filters[name]
	if !ok {
		return nil, errorf("no filter named '%s'", name)
	}
	return f(in, v, a)
}

type testNode struct {
	line  int
	name  string
	value expr
	args  argsNode
}

func (n *testNode) eval(in *interp, sc *scope) (Value, error) {
	v, err := in.eval(n.value, sc)
	if err != nil {
		return nil, err
	}
	a, err := n.args.eval(in, sc)
	if err != nil {
		return nil, at(err, n.line)
	}
	out, err := in.test(n.name, v, a)
	return Bool(out), at(err, n.line)
}

func (in *interp) test(name string, v Value, a *callArgs) (bool, error) {
	t, ok := tests[name]
	if !ok {
		return false, errorf("no test named '%s'", name)
	}
	return t(in, v, a)
}
