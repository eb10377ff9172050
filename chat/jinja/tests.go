package jinja

import (
	"strings"
	"unicode"
)

// testFunc is a test, the right side of "is".
type testFunc func(in *interp, v Value, a *callArgs) (bool, error)

var tests map[string]testFunc

func init() {
	tests = map[string]testFunc{
		"defined":   func(in *interp, v Value, a *callArgs) (bool, error) { return !isUndefined(v), a.none("defined") },
		"undefined": func(in *interp, v Value, a *callArgs) (bool, error) { return isUndefined(v), a.none("undefined") },
		"none":      typeTest("none", func(v Value) bool { _, ok := v.(None); return ok }),
		"boolean":   typeTest("boolean", func(v Value) bool { _, ok := v.(Bool); return ok }),
		"true":      typeTest("true", func(v Value) bool { return v == Value(Bool(true)) }),
		"false":     typeTest("false", func(v Value) bool { return v == Value(Bool(false)) }),
		"string":    typeTest("string", func(v Value) bool { _, ok := v.(Str); return ok }),
		"mapping":   typeTest("mapping", func(v Value) bool { _, ok := v.(*Dict); return ok }),
		"number":    typeTest("number", func(v Value) bool { _, ok := toFloat(v); return ok }),
		"float":     typeTest("float", func(v Value) bool { _, ok := v.(Float); return ok }),
		"integer": typeTest("integer", func(v Value) bool {
			_, isBool := v.(Bool)
			return !isBool && toBig(v) != nil
		}),
		"sequence": typeTest("sequence", func(v Value) bool {
			switch v.(type) {
			case Str, *List, *Tuple, *Dict, *rangeValue, *Undefined:
				return true
			}
			return false
		}),
		"iterable": typeTest("iterable", func(v Value) bool {
			switch v.(type) {
			case Str, *List, *Tuple, *Dict, *rangeValue, *view, *iterator, *Undefined, *loop:
				return true
			}
			return false
		}),
		"callable": typeTest("callable", func(v Value) bool {
			switch v.(type) {
			case *function, *macro, *loop, *Undefined:
				return true
			}
			return false
		}),
		"escaped": typeTest("escaped", func(v Value) bool { s, ok := v.(Str); return ok && s.safe }),
		"odd":     remainderTest("odd", func(in *interp, r Value) (bool, error) { return in.equal(r, Int(1)) }),
		"even":    remainderTest("even", func(in *interp, r Value) (bool, error) { return in.equal(r, Int(0)) }),
		"lower":   caseTest("lower", func(s string) bool { return hasCase(s, unicode.IsLower, isUpperOrTitle) }),
		"upper":   caseTest("upper", func(s string) bool { return hasCase(s, unicode.IsUpper, isLowerOrTitle) }),
		"divisibleby": func(in *interp, v Value, a *callArgs) (bool, error) {
			args, err := a.bind("divisibleby", 1, "num")
			if err != nil {
				return false, err
			}
			r, err := in.binary("%", v, args[0])
			if err != nil {
				return false, err
			}
			return in.equal(r, Int(0))
		},
		"sameas": func(in *interp, v Value, a *callArgs) (bool, error) {
			args, err := a.bind("sameas", 1, "other")
			if err != nil {
				return false, err
			}
			return in.same(v, args[0])
		},
		"in": compareTest("in"),
		"filter": func(in *interp, v Value, a *callArgs) (bool, error) {
			name, _ := v.(Str)
			_, ok := filters[name.Text]
			return ok, nil
		},
		"test": func(in *interp, v Value, a *callArgs) (bool, error) {
			name, _ := v.(Str)
			_, ok := tests[name.Text]
			return ok, nil
		},
	}
	for op, names := range map[string]string{
		"==": "== eq equalto", "!=": "!= ne", ">": "> gt greaterthan", ">=": ">= ge", "<": "< lt lessthan", "<=": "<= le",
	} {
		for _, name := range strings.Fields(names) {
			tests[name] = compareTest(op)
		}
	}
}

func isUndefined(v Value) bool {
	_, ok := v.(*Undefined)
	return ok
}

// none fails if there are arguments.
func (a *callArgs) none(function string) error {
	_, err := a.bind(function, 0)
	return err
}

func typeTest(name string, is func(v Value) bool) testFunc {
	return func(in *interp, v Value, a *callArgs) (bool, error) { return is(v), a.none(name) }
}

func remainderTest(name string, is func(in *interp, r Value) (bool, error)) testFunc {
	return func(in *interp, v Value, a *callArgs) (bool, error) {
		if err := a.none(name); err != nil {
			return false, err
		}
		r, err := in.binary("%", v, Int(2))
		if err != nil {
			return false, err
		}
		return is(in, r)
	}
}

func caseTest(name string, is func(s string) bool) testFunc {
	return func(in *interp, v Value, a *callArgs) (bool, error) {
		s, err := in.toStr(v)
		if err == nil {
			err = a.none(name)
		}
		return is(s.Text), err
	}
}

func compareTest(op string) testFunc {
	return func(in *interp, v Value, a *callArgs) (bool, error) {
		args, err := a.positional(op, 1, 1)
		if err != nil {
			return false, err
		}
		return in.compare(op, v, args[0])
	}
}

// same approximates Python's "is": identity for what has one, type and value for the rest.
func (in *interp) same(a, b Value) (bool, error) {
	switch a.(type) {
	case None, Bool, Int, *Big, Float, Str:
		if a.typeName() != b.typeName() {
			return false, nil
		}
		return in.equal(a, b)
	}
	switch b.(type) {
	case None, Bool, Int, *Big, Float, Str:
		return false, nil
	}
	return a == b, nil
}
