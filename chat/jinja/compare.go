package jinja

import (
	"math/big"
	"strings"
)

// equal is Python's a == b.
func (in *interp) equal(a, b Value) (bool, error) {
	if err := in.enter(); err != nil {
		return false, err
	}
	defer in.leave()
	switch x := a.(type) {
	case Str:
		y, ok := b.(Str)
		if !ok || len(x.Text) != len(y.Text) {
			return false, nil
		}
		return x.Text == y.Text, in.charge(len(x.Text) / 16)
	case None:
		_, ok := b.(None)
		return ok, nil
	case *Undefined:
		_, ok := b.(*Undefined)
		return ok, nil
	case *List:
		if y, ok := b.(*List); ok {
			return in.equalItems(x.Items, y.Items)
		}
		return false, nil
	case *Tuple:
		if y, ok := b.(*Tuple); ok {
			return in.equalItems(x.Items, y.Items)
		}
		return false, nil
	case *rangeValue:
		y, ok := b.(*rangeValue)
		if !ok || x.n != y.n {
			return false, nil
		}
		return x.n == 0 || x.start == y.start && (x.n == 1 || x.step == y.step), nil
	case *view:
		y, ok := b.(*view)
		if !ok || x.name != y.name || x.name == "dict_values" || len(x.items) != len(y.items) {
			return a == b, nil
		}
		for _, item := range x.items {
			found, err := in.isIn(item, y)
			if !found || err != nil {
				return false, err
			}
		}
		return true, nil
	case *Dict:
		y, ok := b.(*Dict)
		if !ok || len(x.entries) != len(y.entries) {
			return false, nil
		}
		for hash, i := range x.index {
			j, ok := y.index[hash]
			if !ok {
				return false, nil
			}
			same, err := in.equal(x.entries[i].value, y.entries[j].value)
			if !same || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	if c, ok := compareNumbers(a, b); ok {
		return c == 0, nil
	}
	if _, ok := toFloat(a); ok {
		return false, nil
	}
	return a == b, nil // the rest are pointers: identity
}

func (in *interp) equalItems(a, b []Value) (bool, error) {
	if len(a) != len(b) {
		return false, nil
	}
	for i := range a {
		same, err := in.equal(a[i], b[i])
		if !same || err != nil {
			return false, err
		}
	}
	return true, nil
}

// compareNumbers gives -1, 0 or 1, and 2 where a NaN makes every comparison false.
func compareNumbers(a, b Value) (int, bool) {
	if x, ok := toInt(a); ok {
		if y, ok := toInt(b); ok {
			return cmp(x < y, x > y), true
		}
	}
	if x, y := toBig(a), toBig(b); x != nil && y != nil {
		return x.Cmp(y), true
	}
	x, okX := toFloat(a)
	y, okY := toFloat(b)
	if !okX || !okY {
		return 0, false
	}
	if x != x || y != y {
		return 2, true
	}
	if exact, ok := compareExact(a, b, x, y); ok {
		return exact, true
	}
	return cmp(x < y, x > y), true
}

// compareExact compares an integer that a float can't hold with a float, as Python does: without rounding it first.
func compareExact(a, b Value, x, y float64) (int, bool) {
	const exactFloats = 1 << 53
	if max(x, -x) < exactFloats && max(y, -y) < exactFloats || x-x != 0 || y-y != 0 {
		return 0, false
	}
	exact := func(v Value, f float64) *big.Float {
		if i := toBig(v); i != nil {
			return new(big.Float).SetPrec(maxBits).SetInt(i)
		}
		return big.NewFloat(f)
	}
	return exact(a, x).Cmp(exact(b, y)), true
}

func cmp(less, greater bool) int {
	if less {
		return -1
	}
	if greater {
		return 1
	}
	return 0
}

// less is Python's a < b for op "<", and so on for <=, > and >=.
func (in *interp) order(op string, a, b Value) (bool, error) {
	if err := in.enter(); err != nil {
		return false, err
	}
	defer in.leave()
	holds := func(c int) bool {
		switch op {
		case "<":
			return c < 0
		case "<=":
			return c <= 0
		case ">":
			return c == 1
		}
		return c == 0 || c == 1
	}
	if c, ok := compareNumbers(a, b); ok {
		return c != 2 && holds(c), nil
	}
	switch x := a.(type) {
	case Str:
		if y, ok := b.(Str); ok {
			// UTF-8 sorts as code points do.
			return holds(strings.Compare(x.Text, y.Text)), in.charge(min(len(x.Text), len(y.Text)) / 16)
		}
	case *List:
		if y, ok := b.(*List); ok {
			return in.orderItems(op, x.Items, y.Items)
		}
	case *Tuple:
		if y, ok := b.(*Tuple); ok {
			return in.orderItems(op, x.Items, y.Items)
		}
	}
	for _, v := range []Value{a, b} {
		if u, ok := v.(*Undefined); ok {
			return false, u.fail()
		}
	}
	return false, errorf("'%s' not supported between instances of '%s' and '%s'", op, a.typeName(), b.typeName())
}

func (in *interp) orderItems(op string, a, b []Value) (bool, error) {
	for i := 0; i < len(a) && i < len(b); i++ {
		same, err := in.equal(a[i], b[i])
		if err != nil {
			return false, err
		}
		if !same {
			return in.order(op, a[i], b[i])
		}
	}
	return in.order(op, Int(len(a)), Int(len(b)))
}

// isIn is Python's item in container.
func (in *interp) isIn(item, container Value) (bool, error) {
	switch c := container.(type) {
	case Str:
		s, ok := item.(Str)
		if !ok {
			if u, ok := item.(*Undefined); ok && u != nil {
				return false, errorf("'in <string>' requires string as left operand, not Undefined (%s)", u.reason)
			}
			return false, errorf("'in <string>' requires string as left operand, not %s", item.typeName())
		}
		return strings.Contains(c.Text, s.Text), in.charge(len(c.Text) / 16)
	case *Dict:
		_, found, err := c.get(item)
		return found, err
	case *rangeValue:
		i, ok := toInt(item)
		if !ok {
			return false, nil
		}
		d := i - c.start
		return c.n > 0 && d%c.step == 0 && d/c.step >= 0 && d/c.step < c.n, nil
	}
	next, _, err := in.iterate(container)
	if err != nil {
		return false, errorf("argument of type '%s' is not iterable", container.typeName())
	}
	for {
		v, ok, err := next()
		if !ok || err != nil {
			return false, err
		}
		same, err := in.equal(item, v)
		if same || err != nil {
			return same, err
		}
	}
}

// iterate returns a function that yields the elements of v one by one, and their number, -1 where it isn't known.
func (in *interp) iterate(v Value) (next func() (Value, bool, error), length int, err error) {
	switch v := v.(type) {
	case Str:
		rest := v
		ascii := v.isASCII()
		return func() (Value, bool, error) {
			if rest.Text == "" {
				return nil, false, nil
			}
			n := 1
			if !ascii {
				n = rest.offset(1)
			}
			item := rest.slice(0, n)
			// Only the marks ahead are kept, so that a long string isn't copied for each character.
			rest.Text = rest.Text[n:]
			rest.marks = shift(rest.marks, n)
			return item, true, in.charge(1 + len(rest.marks))
		}, v.length(), nil
	case *List:
		return in.overItems(v.Items), len(v.Items), nil
	case *Tuple:
		return in.overItems(v.Items), len(v.Items), nil
	case *view:
		return in.overItems(v.items), len(v.items), nil
	case *Dict:
		return in.overItems(v.keys()), len(v.entries), nil
	case *rangeValue:
		var i int64
		return func() (Value, bool, error) {
			if i >= v.n {
				return nil, false, nil
			}
			i++
			return Int(v.start + (i-1)*v.step), true, in.charge(1)
		}, int(v.n), nil
	case *iterator:
		return func() (Value, bool, error) {
			if err := in.enter(); err != nil { // an iterator may draw on another, and that on another
				return nil, false, err
			}
			defer in.leave()
			return v.next(in)
		}, -1, nil
	case *Undefined:
		return func() (Value, bool, error) { return nil, false, nil }, 0, nil
	case *loop:
		return nil, 0, errorf("a loop can't be iterated")
	}
	return nil, 0, errorf("'%s' object is not iterable", v.typeName())
}

// shift drops n bytes from the front of the string that marks belong to.
func shift(marks []Mark, n int) []Mark {
	if len(marks) == 0 {
		return nil
	}
	out := make([]Mark, 0, len(marks))
	for _, m := range marks {
		if m.End > n {
			out = append(out, Mark{max(m.Start-n, 0), m.End - n, m.Origin})
		}
	}
	return out
}

func (in *interp) overItems(items []Value) func() (Value, bool, error) {
	i := 0
	return func() (Value, bool, error) {
		if i >= len(items) {
			return nil, false, nil
		}
		i++
		return items[i-1], true, in.charge(1)
	}
}

// list collects the elements of v.
func (in *interp) list(v Value) ([]Value, error) {
	next, length, err := in.iterate(v)
	if err != nil {
		return nil, err
	}
	var items []Value
	if length > 0 {
		if err := in.charge(length); err != nil {
			return nil, err
		}
		items = make([]Value, 0, length)
	}
	for {
		item, ok, err := next()
		if err != nil {
			return nil, err
		}
		if !ok {
			return items, nil
		}
		items = append(items, item)
	}
}

// length is Python's len(v).
func (in *interp) length(v Value) (int, error) {
	switch v := v.(type) {
	case Str:
		return v.length(), in.charge(len(v.Text) / 16)
	case *List:
		return len(v.Items), nil
	case *Tuple:
		return len(v.Items), nil
	case *Dict:
		return len(v.entries), nil
	case *view:
		return len(v.items), nil
	case *rangeValue:
		return int(v.n), nil
	case *Undefined:
		return 0, nil
	case *loop:
		return v.length(in)
	}
	return 0, errorf("object of type '%s' has no len()", v.typeName())
}
