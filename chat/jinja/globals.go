package jinja

// maxRange bounds range(), as Jinja's sandbox does.
const maxRange = 100_000

// globals are the names every template can use. A variable of the same name hides them.
var globals map[string]Value

func init() {
	globals = map[string]Value{}
	for name, call := range map[string]func(in *interp, a *callArgs) (Value, error){
		"range":     rangeGlobal,
		"dict":      dictGlobal,
		"namespace": namespaceGlobal,
		"cycler":    cyclerGlobal,
		"joiner":    joinerGlobal,
		"raise_exception": func(in *interp, a *callArgs) (Value, error) {
			args, err := a.bind("raise_exception", 1, "message")
			if err != nil {
				return nil, err
			}
			message, err := in.toStr(args[0])
			if err != nil {
				return nil, err
			}
			return nil, &Error{Msg: message.Text, Raised: true}
		},
		"strftime_now": func(in *interp, a *callArgs) (Value, error) {
			args, err := a.bind("strftime_now", 1, "format")
			if err != nil {
				return nil, err
			}
			format, err := strArg("strftime_now", "format", args[0], Str{})
			if err != nil {
				return nil, err
			}
			return format.derived(strftime(in.now, format.Text)), in.chargeBytes(len(format.Text))
		},
	} {
		globals[name] = method(name, call)
	}
}

func rangeGlobal(in *interp, a *callArgs) (Value, error) {
	args, err := a.positional("range", 1, 3)
	if err != nil {
		return nil, err
	}
	var n [3]int64
	for i, arg := range args {
		if u, ok := arg.(*Undefined); ok {
			return nil, u.fail()
		}
		if n[i], err = intArg("range", "argument", arg, 0); err != nil {
			return nil, err
		}
	}
	start, stop, step := n[0], n[1], int64(1)
	if args[1] == nil {
		start, stop = 0, n[0]
	}
	if args[2] != nil {
		step = n[2]
	}
	if step == 0 {
		return nil, errorf("range(): the step must not be zero")
	}
	const far = 1 << 60 // so that the arithmetic below can't overflow
	if max(start, stop, step) > far || min(start, stop, step) < -far {
		return nil, errorf("range(): the arguments are too large")
	}
	var count int64
	switch {
	case step > 0 && start < stop:
		count = (stop-start-1)/step + 1
	case step < 0 && start > stop:
		count = (start-stop-1)/-step + 1
	}
	if count > maxRange {
		return nil, errorf("range(): %d numbers exceed the limit of %d", count, maxRange)
	}
	return &rangeValue{start, step, count}, nil
}

// toDict makes a dict of a mapping or of pairs, and keyword arguments, as Python's dict() does.
func (in *interp) toDict(a *callArgs) (*Dict, error) {
	args := a.items
	if len(args) > 1 {
		return nil, errorf("dict() takes at most 1 positional argument, got %d", len(args))
	}
	d := NewDict()
	if len(args) == 1 {
		if from, ok := args[0].(*Dict); ok {
			if err := in.charge(len(from.entries)); err != nil {
				return nil, err
			}
			for _, e := range from.entries {
				if err := d.setValue(e.key, e.value); err != nil {
					return nil, err
				}
			}
		} else if err := in.addPairs(d, args[0]); err != nil {
			return nil, err
		}
	}
	for _, k := range a.keywords {
		d.Set(k.name, k.value)
	}
	return d, nil
}

func (in *interp) addPairs(d *Dict, v Value) error {
	pairs, err := in.list(v)
	if err != nil {
		return err
	}
	for i, p := range pairs {
		pair, err := in.list(p)
		if err != nil {
			return err
		}
		if len(pair) != 2 {
			return errorf("dict(): element %d has %d values, expected a key and a value", i, len(pair))
		}
		if err := d.setValue(pair[0], pair[1]); err != nil {
			return err
		}
	}
	return nil
}

func dictGlobal(in *interp, a *callArgs) (Value, error) {
	return in.toDict(a)
}

func namespaceGlobal(in *interp, a *callArgs) (Value, error) {
	d, err := in.toDict(a)
	if err != nil {
		return nil, err
	}
	ns := &namespace{&scope{}}
	for _, e := range d.entries {
		if name, ok := e.key.(Str); ok {
			ns.attrs.set(name.Text, e.value)
		}
	}
	return ns, nil
}

func cyclerGlobal(in *interp, a *callArgs) (Value, error) {
	if len(a.items) == 0 || len(a.keywords) > 0 {
		return nil, errorf("cycler() needs at least one positional argument")
	}
	return &cycler{items: a.items}, nil
}

func (c *cycler) attr(name string) (Value, bool, error) {
	switch name {
	case "current":
		return c.items[c.pos], true, nil
	case "next":
		return method("next", func(*interp, *callArgs) (Value, error) {
			v := c.items[c.pos]
			c.pos = (c.pos + 1) % len(c.items)
			return v, nil
		}), true, nil
	case "reset":
		return method("reset", func(*interp, *callArgs) (Value, error) {
			c.pos = 0
			return None{}, nil
		}), true, nil
	}
	return nil, false, nil
}

// joinerGlobal makes a function that returns nothing at first and the separator from then on.
func joinerGlobal(in *interp, a *callArgs) (Value, error) {
	args, err := a.bind("joiner", 0, "sep")
	if err != nil {
		return nil, err
	}
	sep := args[0]
	if sep == nil {
		sep = String(", ")
	}
	used := false
	return method("joiner", func(*interp, *callArgs) (Value, error) {
		if !used {
			used = true
			return Str{}, nil
		}
		return sep, nil
	}), nil
}
