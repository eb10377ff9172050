package jinja

type forNode struct {
	line      int
	target    target
	iter      expr
	test      expr // nil without "if"
	recursive bool
	body      []stmt
	orElse    []stmt
}

func (n *forNode) exec(in *interp, sc *scope) error {
	v, err := in.eval(n.iter, sc)
	if err != nil {
		return at(err, n.line)
	}
	return n.run(in, sc, v, 0)
}

// run loops over v. sc is the scope around the loop, depth0 the number of recursive loops around this one.
func (n *forNode) run(in *interp, sc *scope, v Value, depth0 int) error {
	if err := in.enter(); err != nil {
		return at(err, n.line)
	}
	defer in.leave()
	next, length, err := in.iterate(v)
	if err != nil {
		return at(err, n.line)
	}
	lp := &loop{source: next, size: length, index0: -1, depth0: depth0}
	if n.test != nil {
		lp.source, lp.size = n.filtered(in, sc, next), -1
	}
	if n.recursive {
		lp.recurse = func(v Value) (Value, error) {
			return in.capture(func() error { return n.run(in, sc, v, depth0+1) })
		}
	}
	completed := false // Jinja runs "else" unless the body came to its end once; break and continue don't count
	for {
		item, ok, err := lp.advance()
		if err != nil {
			return at(err, n.line)
		}
		if !ok {
			break
		}
		if err := in.charge(1); err != nil {
			return at(err, n.line)
		}
		inner := &scope{parent: sc}
		inner.set("loop", lp)
		if err := n.target.assign(in, inner, item); err != nil {
			return at(err, n.line)
		}
		err = execAll(in, inner, n.body)
		if err == errBreak {
			break
		}
		if err != nil && err != errContinue {
			return err
		}
		completed = completed || err == nil
	}
	if !completed {
		return execAll(in, &scope{parent: sc}, n.orElse)
	}
	return nil
}

// filtered yields the elements that pass the loop's test. It is lazy, as the body may change what the test sees.
func (n *forNode) filtered(in *interp, sc *scope, next func() (Value, bool, error)) func() (Value, bool, error) {
	return func() (Value, bool, error) {
		for {
			item, ok, err := next()
			if !ok || err != nil {
				return nil, false, err
			}
			inner := &scope{parent: sc}
			if err := n.target.assign(in, inner, item); err != nil {
				return nil, false, err
			}
			v, err := in.eval(n.test, inner)
			if err != nil {
				return nil, false, err
			}
			if truth(v) {
				return item, true, nil
			}
		}
	}
}

// loop is the variable of that name inside a for loop. It reads ahead only when asked about what comes.
type loop struct {
	source  func() (Value, bool, error)
	ahead   []Value // read from source but not yet looped over
	done    bool    // source is exhausted
	size    int     // -1 while unknown
	index0  int
	depth0  int
	current Value
	before  Value
	changes []Value // arguments of the last call of changed
	recurse func(v Value) (Value, error)
}

func (l *loop) pull() (bool, error) {
	if l.done {
		return false, nil
	}
	v, ok, err := l.source()
	if err != nil || !ok {
		l.done = true
		return false, err
	}
	l.ahead = append(l.ahead, v)
	return true, nil
}

func (l *loop) advance() (Value, bool, error) {
	if len(l.ahead) == 0 {
		if ok, err := l.pull(); !ok {
			return nil, false, err
		}
	}
	l.before, l.current = l.current, l.ahead[0]
	l.ahead = l.ahead[1:]
	l.index0++
	return l.current, true, nil
}

// peek makes sure that the next element is read, if there is one.
func (l *loop) peek() (bool, error) {
	if len(l.ahead) > 0 {
		return true, nil
	}
	return l.pull()
}

func (l *loop) length(in *interp) (int, error) {
	if l.size < 0 {
		for {
			ok, err := l.pull()
			if err != nil {
				return 0, err
			}
			if !ok {
				break
			}
			if err := in.charge(1); err != nil {
				return 0, err
			}
		}
		l.size = l.index0 + 1 + len(l.ahead)
	}
	return l.size, nil
}

func (l *loop) attr(in *interp, name string) (Value, error) {
	switch name {
	case "index":
		return Int(l.index0 + 1), nil
	case "index0":
		return Int(l.index0), nil
	case "first":
		return Bool(l.index0 == 0), nil
	case "depth":
		return Int(l.depth0 + 1), nil
	case "depth0":
		return Int(l.depth0), nil
	case "last":
		more, err := l.peek()
		return Bool(!more), err
	case "length":
		n, err := l.length(in)
		return Int(n), err
	case "revindex", "revindex0":
		n, err := l.length(in)
		if name == "revindex" {
			return Int(n - l.index0), err
		}
		return Int(n - l.index0 - 1), err
	case "previtem":
		if l.index0 == 0 {
			return undefined("there is no previous item"), nil
		}
		return l.before, nil
	case "nextitem":
		more, err := l.peek()
		if err != nil {
			return nil, err
		}
		if !more {
			return undefined("there is no next item"), nil
		}
		return l.ahead[0], nil
	case "cycle":
		return method("cycle", func(in *interp, a *callArgs) (Value, error) {
			if len(a.items) == 0 {
				return nil, errorf("loop.cycle() needs arguments")
			}
			return a.items[l.index0%len(a.items)], nil
		}), nil
	case "changed":
		return method("changed", func(in *interp, a *callArgs) (Value, error) {
			same, err := in.equalItems(l.changes, a.items)
			first := l.changes == nil
			l.changes = append([]Value{}, a.items...)
			return Bool(first || !same), err
		}), nil
	}
	return undefined("'loop' has no attribute '%s'", name), nil
}

// call runs the loop on other values, for {% for ... recursive %}.
func (l *loop) call(in *interp, a *callArgs) (Value, error) {
	if l.recurse == nil {
		return nil, errorf("the loop must be marked 'recursive' to be called")
	}
	args, err := a.bind("loop", 1, "iterable")
	if err != nil {
		return nil, err
	}
	return l.recurse(args[0])
}
