package jinja

import (
	"sort"
	"strings"
)

func lengthFilter(in *interp, v Value, a *callArgs) (Value, error) {
	if err := a.none("length"); err != nil {
		return nil, err
	}
	n, err := in.length(v)
	return Int(n), err
}

func firstFilter(in *interp, v Value, a *callArgs) (Value, error) {
	if err := a.none("first"); err != nil {
		return nil, err
	}
	next, _, err := in.iterate(v)
	if err != nil {
		return nil, err
	}
	item, ok, err := next()
	if !ok && err == nil {
		item = undefined("no first item, the sequence was empty")
	}
	return item, err
}

func lastFilter(in *interp, v Value, a *callArgs) (Value, error) {
	if err := a.none("last"); err != nil {
		return nil, err
	}
	if _, lazy := v.(*iterator); lazy {
		return nil, errorf("last: '%s' object is not reversible; make it a list first", v.typeName())
	}
	if s, ok := v.(Str); ok {
		c, ok, err := in.charAt(s, -1)
		if ok || err != nil {
			return c, err
		}
	}
	items, err := in.list(v)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return undefined("no last item, the sequence was empty"), nil
	}
	return items[len(items)-1], nil
}

func joinFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("join", 0, "d", "attribute")
	if err != nil {
		return nil, err
	}
	sep := Str{}
	if args[0] != nil {
		if sep, err = in.toStr(args[0]); err != nil {
			return nil, err
		}
	}
	items, err := in.list(v)
	if err != nil {
		return nil, err
	}
	if isGiven(args[1]) {
		get, err := in.attrGetter(args[1], nil)
		if err != nil {
			return nil, err
		}
		if items, err = mapItems(items, get); err != nil {
			return nil, err
		}
	}
	return in.join(sep, items)
}

func mapItems(items []Value, f func(Value) (Value, error)) ([]Value, error) {
	out := make([]Value, len(items))
	for i, item := range items {
		var err error
		if out[i], err = f(item); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func listFilter(in *interp, v Value, a *callArgs) (Value, error) {
	if err := a.none("list"); err != nil {
		return nil, err
	}
	items, err := in.list(v)
	return &List{items}, err
}

// newIterator makes a one-shot iterator over what next yields.
func newIterator(name string, next func(in *interp) (Value, bool, error)) *iterator {
	return &iterator{name, next}
}

// lazily makes an iterator whose elements are computed, all at once, when the first is asked for.
func lazily(compute func(in *interp) ([]Value, error)) *iterator {
	var rest []Value
	started := false
	return newIterator("generator", func(in *interp) (Value, bool, error) {
		if !started {
			started = true
			items, err := compute(in)
			if err != nil {
				return nil, false, err
			}
			rest = items
		}
		if len(rest) == 0 {
			return nil, false, nil
		}
		item := rest[0]
		rest = rest[1:]
		return item, true, in.charge(1)
	})
}

func reverseFilter(in *interp, v Value, a *callArgs) (Value, error) {
	if err := a.none("reverse"); err != nil {
		return nil, err
	}
	if s, ok := v.(Str); ok {
		return in.sliceStr(s, nil, nil, -1)
	}
	items, err := in.list(v)
	if err != nil {
		return nil, err
	}
	reversed := make([]Value, len(items))
	for i, item := range items {
		reversed[len(items)-1-i] = item
	}
	if _, lazy := v.(*iterator); lazy {
		return &List{reversed}, nil
	}
	it := lazily(func(*interp) ([]Value, error) { return reversed, nil })
	it.name = "list_reverseiterator"
	return it, nil
}

// attrGetter reads a dotted attribute path: "a.b.0" is item["a"]["b"][0], with attributes as a second choice.
// missing, if not nil, replaces undefined results.
func (in *interp) attrGetter(path Value, missing Value) (func(Value) (Value, error), error) {
	var parts []Value
	switch path := path.(type) {
	case Str:
		for _, part := range strings.Split(path.Text, ".") {
			if i, ok := parseInt(part, 10); ok && isDigits(part) {
				parts = append(parts, i)
			} else {
				parts = append(parts, String(part))
			}
		}
	case Int:
		parts = []Value{path}
	case None, nil:
	default:
		return nil, errorf("an attribute must be a string or an integer, not %s", path.typeName())
	}
	return func(v Value) (Value, error) {
		for _, part := range parts {
			var err error
			if v, err = in.getItem(v, part); err != nil {
				return nil, err
			}
			if isUndefined(v) && missing != nil {
				v = missing
			}
		}
		return v, nil
	}, nil
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// ignoreCase lowers strings, for comparisons.
func ignoreCase(v Value) Value {
	if s, ok := v.(Str); ok {
		return String(lower(s).Text)
	}
	return v
}

// keyGetter is attrGetter followed by ignoreCase unless caseSensitive is true.
func (in *interp) keyGetter(attribute, caseSensitive, missing Value) (func(Value) (Value, error), error) {
	get, err := in.attrGetter(attribute, missing)
	if err != nil || caseSensitive != nil && truth(caseSensitive) {
		return get, err
	}
	return func(v Value) (Value, error) {
		v, err := get(v)
		if err != nil {
			return nil, err
		}
		return ignoreCase(v), nil
	}, nil
}

// sortBy sorts stably; the first error of less ends up as its own.
func sortBy[T any](items []T, less func(a, b T) (bool, error)) error {
	var failed error
	sort.SliceStable(items, func(i, j int) bool {
		if failed != nil {
			return false
		}
		before, err := less(items[i], items[j])
		failed = err
		return before
	})
	return failed
}

type keyed struct{ key, item Value }

// sorted sorts items by their keys.
func (in *interp) sorted(items []Value, key func(Value) (Value, error), reverse bool) ([]keyed, error) {
	pairs := make([]keyed, len(items))
	for i, item := range items {
		k, err := key(item)
		if err != nil {
			return nil, err
		}
		pairs[i] = keyed{k, item}
	}
	err := sortBy(pairs, func(a, b keyed) (bool, error) {
		if reverse { // equal elements keep their order in both directions
			return in.order("<", b.key, a.key)
		}
		return in.order("<", a.key, b.key)
	})
	return pairs, err
}

func sortFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("sort", 0, "reverse", "case_sensitive", "attribute")
	if err != nil {
		return nil, err
	}
	items, err := in.list(v)
	if err != nil {
		return nil, err
	}
	paths := []Value{args[2]}
	if s, ok := args[2].(Str); ok {
		paths = nil
		for _, path := range strings.Split(s.Text, ",") {
			paths = append(paths, String(path))
		}
	}
	gets := make([]func(Value) (Value, error), len(paths))
	for i, path := range paths {
		if gets[i], err = in.keyGetter(path, args[1], nil); err != nil {
			return nil, err
		}
	}
	pairs, err := in.sorted(items, func(item Value) (Value, error) {
		keys := make([]Value, len(gets))
		for i, get := range gets {
			var err error
			if keys[i], err = get(item); err != nil {
				return nil, err
			}
		}
		return &List{keys}, nil
	}, args[0] != nil && truth(args[0]))
	return itemsOf(pairs), err
}

func itemsOf(pairs []keyed) *List {
	list := &List{make([]Value, len(pairs))}
	for i, p := range pairs {
		list.Items[i] = p.item
	}
	return list
}

func dictsortFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("dictsort", 0, "case_sensitive", "by", "reverse")
	if err != nil {
		return nil, err
	}
	d, ok := v.(*Dict)
	if !ok {
		return nil, errorf("dictsort needs a mapping, not %s", v.typeName())
	}
	by, err := strArg("dictsort", "by", args[1], String("key"))
	if err != nil {
		return nil, err
	}
	pos := 0
	switch by.Text {
	case "key":
	case "value":
		pos = 1
	default:
		return nil, errorf("dictsort: 'by' must be key or value, not %s", quote(by.Text))
	}
	get, err := in.keyGetter(Int(pos), args[0], nil)
	if err != nil {
		return nil, err
	}
	pairs, err := in.sorted(d.items(), get, args[2] != nil && truth(args[2]))
	return itemsOf(pairs), err
}

func uniqueFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("unique", 0, "case_sensitive", "attribute")
	if err != nil {
		return nil, err
	}
	key, err := in.keyGetter(args[1], args[0], nil)
	if err != nil {
		return nil, err
	}
	next, _, err := in.iterate(v)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	return newIterator("generator", func(in *interp) (Value, bool, error) {
		for {
			item, ok, err := next()
			if !ok || err != nil {
				return nil, false, err
			}
			k, err := key(item)
			if err != nil {
				return nil, false, err
			}
			hash, err := hashKey(k, 0)
			if err != nil {
				return nil, false, err
			}
			if !seen[hash] {
				seen[hash] = true
				return item, true, nil
			}
		}
	}), nil
}

func groupbyFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("groupby", 1, "attribute", "default", "case_sensitive")
	if err != nil {
		return nil, err
	}
	missing := args[1]
	if !isGiven(missing) {
		missing = nil
	}
	key, err := in.keyGetter(args[0], args[2], missing)
	if err != nil {
		return nil, err
	}
	get, err := in.attrGetter(args[0], missing)
	if err != nil {
		return nil, err
	}
	items, err := in.list(v)
	if err != nil {
		return nil, err
	}
	pairs, err := in.sorted(items, key, false)
	if err != nil {
		return nil, err
	}
	groups := &List{}
	for i := 0; i < len(pairs); {
		j := i + 1
		for j < len(pairs) {
			same, err := in.equal(pairs[i].key, pairs[j].key)
			if err != nil {
				return nil, err
			}
			if !same {
				break
			}
			j++
		}
		name, err := get(pairs[i].item)
		if err != nil {
			return nil, err
		}
		groups.Items = append(groups.Items, &Tuple{
			Items: []Value{name, itemsOf(pairs[i:j])},
			names: []string{"grouper", "list"},
		})
		i = j
	}
	return groups, nil
}

func batchFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("batch", 1, "linecount", "fill_with")
	if err != nil {
		return nil, err
	}
	size, err := intArg("batch", "linecount", args[0], 0)
	if err != nil {
		return nil, err
	}
	items, err := in.list(v)
	if err != nil {
		return nil, err
	}
	if size < 1 {
		return nil, errorf("batch: a row must have at least 1 item, not %d", size)
	}
	return lazily(func(in *interp) ([]Value, error) {
		var rows []Value
		for i := 0; i < len(items); i += int(min(size, int64(len(items)))) {
			row := append([]Value(nil), items[i:min(i+int(min(size, int64(len(items)))), len(items))]...)
			if missing := size - int64(len(row)); isGiven(args[1]) && missing > 0 {
				fill, err := in.repeatItems([]Value{args[1]}, missing)
				if err != nil {
					return nil, err
				}
				row = append(row, fill...)
			}
			rows = append(rows, &List{row})
		}
		return rows, nil
	}), nil
}

func sliceFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("slice", 1, "slices", "fill_with")
	if err != nil {
		return nil, err
	}
	count, err := intArg("slice", "slices", args[0], 0)
	if err != nil {
		return nil, err
	}
	items, err := in.list(v)
	if err != nil {
		return nil, err
	}
	if count < 1 || count > maxRange {
		return nil, errorf("slice: the number of slices must be from 1 to %d, not %d", maxRange, count)
	}
	return lazily(func(in *interp) ([]Value, error) {
		if err := in.charge(int(count)); err != nil {
			return nil, err
		}
		var slices []Value
		size, longer := len(items)/int(count), len(items)%int(count)
		from := 0
		for i := range int(count) {
			to := from + size
			if i < longer {
				to++
			}
			part := append([]Value(nil), items[from:to]...)
			if isGiven(args[1]) && i >= longer {
				part = append(part, args[1])
			}
			slices = append(slices, &List{part})
			from = to
		}
		return slices, nil
	}), nil
}

func sumFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("sum", 0, "attribute", "start")
	if err != nil {
		return nil, err
	}
	get, err := in.attrGetter(args[0], nil)
	if err != nil {
		return nil, err
	}
	total := args[1]
	if total == nil {
		total = Int(0)
	}
	if _, ok := total.(Str); ok {
		return nil, errorf("sum can't add strings; use join")
	}
	items, err := in.list(v)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		if item, err = get(item); err != nil {
			return nil, err
		}
		if total, err = in.binary("+", total, item); err != nil {
			return nil, err
		}
	}
	return total, nil
}

func extremeFilter(in *interp, v Value, a *callArgs, name, op string) (Value, error) {
	args, err := a.bind(name, 0, "case_sensitive", "attribute")
	if err != nil {
		return nil, err
	}
	key, err := in.keyGetter(args[1], args[0], nil)
	if err != nil {
		return nil, err
	}
	items, err := in.list(v)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return undefined("no %s of an empty sequence", name), nil
	}
	best := items[0]
	bestKey, err := key(best)
	if err != nil {
		return nil, err
	}
	for _, item := range items[1:] {
		k, err := key(item)
		if err != nil {
			return nil, err
		}
		better, err := in.order(op, k, bestKey)
		if err != nil {
			return nil, err
		}
		if better {
			best, bestKey = item, k
		}
	}
	return best, nil
}

func itemsFilter(in *interp, v Value, a *callArgs) (Value, error) {
	if err := a.none("items"); err != nil {
		return nil, err
	}
	return lazily(func(in *interp) ([]Value, error) {
		switch v := v.(type) {
		case *Undefined:
			return nil, nil
		case *Dict:
			return v.items(), in.charge(len(v.entries))
		}
		return nil, errorf("items needs a mapping, not %s", v.typeName())
	}), nil
}

// mapFilter applies a filter, or reads an attribute, of every element.
func mapFilter(in *interp, v Value, a *callArgs) (Value, error) {
	var f func(Value) (Value, error)
	prepare := func() error {
		if len(a.items) > 0 {
			name, err := strArg("map", "filter", a.items[0], Str{})
			if err != nil {
				return err
			}
			rest := &callArgs{a.items[1:], a.keywords}
			f = func(item Value) (Value, error) { return in.filter(name.Text, item, rest) }
			return nil
		}
		args, err := a.bind("map", 1, "attribute", "default")
		if err != nil {
			return err
		}
		missing := args[1]
		if !isGiven(missing) {
			missing = nil
		}
		f, err = in.attrGetter(args[0], missing)
		return err
	}
	return transform(in, v, prepare, func(item Value) (Value, bool, error) {
		out, err := f(item)
		return out, true, err
	})
}

// selectFilter keeps the elements that pass a test (want: true) or fail it, of the element or of an attribute of it.
func selectFilter(in *interp, v Value, a *callArgs, want, byAttr bool) (Value, error) {
	get := func(v Value) (Value, error) { return v, nil }
	check := func(v Value) (bool, error) { return truth(v), nil }
	prepare := func() (err error) {
		items := a.items
		if byAttr {
			if len(items) == 0 {
				return errorf("selectattr and rejectattr need an attribute's name")
			}
			if get, err = in.attrGetter(items[0], nil); err != nil {
				return err
			}
			items = items[1:]
		}
		if len(items) > 0 {
			name, err := strArg("select", "test", items[0], Str{})
			if err != nil {
				return err
			}
			rest := &callArgs{items[1:], a.keywords}
			check = func(v Value) (bool, error) { return in.test(name.Text, v, rest) }
		}
		return nil
	}
	return transform(in, v, prepare, func(item Value) (Value, bool, error) {
		subject, err := get(item)
		if err != nil {
			return nil, false, err
		}
		passes, err := check(subject)
		return item, passes == want, err
	})
}

// transform is a lazy pass over v: prepare runs before the first element, and not at all for an empty v; step says
// what becomes of an element and whether it stays.
func transform(in *interp, v Value, prepare func() error, step func(Value) (Value, bool, error)) (Value, error) {
	var next func() (Value, bool, error)
	return newIterator("generator", func(in *interp) (Value, bool, error) {
		if next == nil {
			if !truth(v) {
				return nil, false, nil
			}
			if err := prepare(); err != nil {
				return nil, false, err
			}
			var err error
			if next, _, err = in.iterate(v); err != nil {
				return nil, false, err
			}
		}
		for {
			item, ok, err := next()
			if !ok || err != nil {
				return nil, false, err
			}
			if err := in.enter(); err != nil {
				return nil, false, err
			}
			out, keep, err := step(item)
			in.leave()
			if err != nil {
				return nil, false, err
			}
			if keep {
				return out, true, nil
			}
		}
	}), nil
}
