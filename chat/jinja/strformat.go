package jinja

import (
	"strings"
	"unicode/utf8"
)

func formatMethod(in *interp, s Str, a *callArgs) (Value, error) {
	d := NewDict()
	for _, k := range a.keywords {
		d.Set(k.name, k.value)
	}
	return in.strFormat(s, a.items, d)
}

func formatMapMethod(in *interp, s Str, a *callArgs) (Value, error) {
	args, err := a.positional("format_map", 1, 1)
	if err != nil {
		return nil, err
	}
	d, ok := args[0].(*Dict)
	if !ok {
		return nil, errorf("format_map() needs a mapping, not %s", args[0].typeName())
	}
	return in.strFormat(s, nil, d)
}

// strFormat is Python's s.format(*args, **named).
func (in *interp) strFormat(s Str, args []Value, named *Dict) (Value, error) {
	f := &fieldFormat{in: in, args: args, named: named}
	return f.run(s, 0)
}

type fieldFormat struct {
	in     *interp
	args   []Value
	named  *Dict
	auto   int // the number of the next {}
	manual bool
}

func (f *fieldFormat) run(s Str, depth int) (Str, error) {
	if depth > 2 {
		return Str{}, errorf("format(): fields nested too deeply")
	}
	out := &builder{limit: f.in.limits.Output}
	text := s.Text
	for i := 0; i < len(text); {
		if err := f.in.charge(1); err != nil {
			return Str{}, err
		}
		j := strings.IndexAny(text[i:], "{}")
		if j < 0 {
			j = len(text) - i
		}
		if err := out.write(s.slice(i, i+j)); err != nil {
			return Str{}, err
		}
		i += j
		if i == len(text) {
			break
		}
		if i+1 < len(text) && text[i+1] == text[i] {
			if err := out.write(s.slice(i, i+1)); err != nil {
				return Str{}, err
			}
			i += 2
			continue
		}
		if text[i] == '}' {
			return Str{}, errorf("format(): single '}' in the format string")
		}
		end, err := fieldEnd(text, i)
		if err != nil {
			return Str{}, err
		}
		if err := f.field(out, s.slice(i+1, end), depth); err != nil {
			return Str{}, err
		}
		i = end + 1
	}
	return out.str(), nil
}

// fieldEnd finds the brace that closes the one at i.
func fieldEnd(text string, i int) (int, error) {
	open := 0
	for ; i < len(text); i++ {
		switch text[i] {
		case '{':
			open++
		case '}':
			if open--; open == 0 {
				return i, nil
			}
		}
	}
	return 0, errorf("format(): expected '}' before the end of the format string")
}

// field writes one replacement field: name!conversion:spec.
func (f *fieldFormat) field(out *builder, field Str, depth int) error {
	name, specText := field.Text, Str{}
	if i := strings.IndexAny(name, "!:"); i >= 0 {
		if name[i] == '!' && i+1 < len(name) {
			if c := strings.IndexByte(name[i:], ':'); c >= 0 {
				specText = field.slice(i+c+1, len(name))
				name = name[:i+c]
			}
		} else {
			specText = field.slice(i+1, len(name))
			name = name[:i]
		}
	}
	conversion := ""
	if i := strings.IndexByte(name, '!'); i >= 0 {
		name, conversion = name[:i], name[i+1:]
	}
	v, err := f.lookup(name)
	if err != nil {
		return err
	}
	switch conversion {
	case "":
	case "s":
		if v, err = f.in.toStr(v); err != nil {
			return err
		}
	case "r", "a":
		b := &builder{limit: f.in.limits.Output}
		if err := f.in.repr(b, v); err != nil {
			return err
		}
		v = b.str()
	default:
		return errorf("format(): unknown conversion '%s'", conversion)
	}
	if strings.Contains(specText.Text, "{") {
		if specText, err = f.run(specText, depth+1); err != nil {
			return err
		}
	}
	return f.in.formatValue(out, v, specText)
}

// lookup resolves a field's name: a number or a word, then .attributes and [elements].
func (f *fieldFormat) lookup(name string) (Value, error) {
	first := name
	if i := strings.IndexAny(name, ".["); i >= 0 {
		first = name[:i]
	}
	rest := name[len(first):]
	var v Value
	switch {
	case first == "":
		if f.manual {
			return nil, errorf("format(): can't mix numbered and unnumbered fields")
		}
		f.auto++
		if f.auto > len(f.args) {
			return nil, errorf("format(): no argument for field %d", f.auto-1)
		}
		v = f.args[f.auto-1]
	case isDigits(first):
		if f.auto > 0 {
			return nil, errorf("format(): can't mix numbered and unnumbered fields")
		}
		f.manual = true
		i, ok := parseInt(first, 10)
		k, small := i.(Int)
		if !ok || !small || int64(k) >= int64(len(f.args)) {
			return nil, errorf("format(): no argument for field %.20s", first)
		}
		v = f.args[k]
	default:
		var ok bool
		if v, ok = f.named.getString(first); !ok {
			return nil, errorf("format(): no argument '%s'", first)
		}
	}
	for rest != "" {
		var err error
		if rest[0] == '.' {
			n := strings.IndexAny(rest[1:], ".[")
			if n < 0 {
				n = len(rest) - 1
			}
			v, err = f.in.getAttr(v, rest[1:1+n])
			rest = rest[1+n:]
		} else {
			n := strings.IndexByte(rest, ']')
			if n < 0 || rest[0] != '[' {
				return nil, errorf("format(): field '%s' has a bracket without an end", name)
			}
			index := Value(String(rest[1:n]))
			if i, ok := parseInt(rest[1:n], 10); ok && isDigits(rest[1:n]) {
				index = i
			}
			v, err = f.in.getItem(v, index)
			rest = rest[n+1:]
		}
		if err != nil {
			return nil, err
		}
	}
	return v, nil
}

// formatValue writes v as Python's format(v, spec).
func (in *interp) formatValue(out *builder, v Value, specText Str) error {
	s, isStr := v.(Str)
	_, isBool := v.(Bool)
	_, isNumber := toFloat(v)
	if specText.Text == "" || !isNumber && !isStr {
		if specText.Text != "" {
			return errorf("format(): '%s' takes no format specification", v.typeName())
		}
		s, err := in.toStr(v)
		if err != nil {
			return err
		}
		return out.write(s)
	}
	spec, err := parseSpec(specText.Text)
	if err != nil {
		return err
	}
	bad := errorf("format(): type '%c' doesn't fit '%s'", spec.verb, v.typeName())
	if isStr {
		if spec.verb != 0 && spec.verb != 's' || spec.sign != 0 || spec.grouping != 0 || spec.align == '=' {
			return bad
		}
		return in.formatStr(out, s, spec)
	}
	if isBool && spec.verb == 0 {
		s, err := in.toStr(v)
		if err != nil {
			return err
		}
		return in.formatStr(out, s, spec)
	}
	_, isFloat := v.(Float)
	switch {
	case spec.verb == 'c' && !isFloat:
		r, ok := toInt(v)
		if !ok || r < 0 || r > utf8.MaxRune {
			return bad
		}
		return in.formatStr(out, String(string(rune(r))), spec)
	case strings.IndexByte("eEfFgG%", spec.verb) >= 0 && spec.verb != 0:
		f, _ := toFloat(v)
		v = Float(f)
	case spec.verb == 'n':
		spec.verb = 0
		if isFloat {
			spec.verb = 'g'
		}
	case spec.verb != 0 && strings.IndexByte("bdoxX", spec.verb) < 0, isFloat && spec.verb != 0:
		return bad
	case !isFloat && spec.precision >= 0:
		return errorf("format(): an integer takes no precision")
	}
	return in.formatNumber(out, v, spec, false)
}

// parseSpec reads [[fill]align][sign][#][0][width][grouping][.precision][type].
func parseSpec(text string) (formatSpec, error) {
	spec := formatSpec{fill: String(" "), precision: -1}
	bad := errorf("format(): invalid format specification '%s'", text)
	const aligns = "<>=^"
	if _, n := utf8.DecodeRuneInString(text); n < len(text) && strings.IndexByte(aligns, text[n]) >= 0 {
		spec.fill, spec.align, text = String(text[:n]), text[n], text[n+1:]
	} else if text != "" && strings.IndexByte(aligns, text[0]) >= 0 {
		spec.align, text = text[0], text[1:]
	}
	if text != "" && strings.IndexByte("+- ", text[0]) >= 0 {
		if text[0] != '-' {
			spec.sign = text[0]
		}
		text = text[1:]
	}
	if strings.HasPrefix(text, "#") {
		spec.alternate, text = true, text[1:]
	}
	if strings.HasPrefix(text, "0") {
		text = text[1:]
		if spec.align == 0 {
			spec.fill, spec.align = String("0"), '='
		}
	}
	width, i, err := readNumber(text, 0)
	if err != nil {
		return spec, err
	}
	spec.width, text = width, text[i:]
	if text != "" && (text[0] == ',' || text[0] == '_') {
		spec.grouping, text = text[0], text[1:]
	}
	if strings.HasPrefix(text, ".") {
		if spec.precision, i, err = readNumber(text, 1); err != nil {
			return spec, err
		}
		if i == 1 {
			return spec, bad
		}
		text = text[i:]
	}
	if len(text) > 1 {
		return spec, bad
	}
	if text != "" {
		spec.verb = text[0]
	}
	return spec, nil
}
