package jinja

import (
	"math"
	"math/big"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// filterFunc is a filter: v is what stands left of the bar.
type filterFunc func(in *interp, v Value, a *callArgs) (Value, error)

var filters map[string]filterFunc

func init() {
	filters = map[string]filterFunc{
		// Any value.
		"default": defaultFilter,
		"d":       defaultFilter,
		"string":  func(in *interp, v Value, a *callArgs) (Value, error) { return in.strFilter(v, a, same) },
		"safe": func(in *interp, v Value, a *callArgs) (Value, error) {
			return in.strFilter(v, a, func(s Str) Str { s.safe = true; return s })
		},
		"tojson": tojsonFilter,
		"attr": func(in *interp, v Value, a *callArgs) (Value, error) {
			args, err := a.bind("attr", 1, "name")
			if err != nil {
				return nil, err
			}
			name, err := strArg("attr", "name", args[0], Str{})
			if err != nil {
				return nil, err
			}
			if u, ok := v.(*Undefined); ok {
				return nil, u.fail()
			}
			out, ok, err := in.attribute(v, name.Text)
			if !ok && err == nil {
				out = undefined("'%s' has no attribute '%s'", describeType(v), name.Text)
			}
			return out, err
		},
		"pprint": func(in *interp, v Value, a *callArgs) (Value, error) {
			out := &builder{limit: in.limits.Output}
			if err := in.repr(out, v); err != nil {
				return nil, err
			}
			if slices.Contains(out.text, '{') || len(out.text) > 80 { // where pprint sorts keys and breaks lines
				return nil, errorf("filter 'pprint' is refused for mappings and for more than a line: use tojson")
			}
			return out.str(), nil
		},
		// Strings.
		"upper":       func(in *interp, v Value, a *callArgs) (Value, error) { return in.strFilter(v, a, upper) },
		"lower":       func(in *interp, v Value, a *callArgs) (Value, error) { return in.strFilter(v, a, lower) },
		"capitalize":  func(in *interp, v Value, a *callArgs) (Value, error) { return in.strFilter(v, a, capitalize) },
		"title":       func(in *interp, v Value, a *callArgs) (Value, error) { return in.strFilter(v, a, titleWords) },
		"escape":      func(in *interp, v Value, a *callArgs) (Value, error) { return in.strFilter(v, a, escapeOnce) },
		"e":           func(in *interp, v Value, a *callArgs) (Value, error) { return in.strFilter(v, a, escapeOnce) },
		"forceescape": func(in *interp, v Value, a *callArgs) (Value, error) { return in.strFilter(v, a, escapeSafe) },
		"trim":        trimFilter,
		"replace":     replaceFilter,
		"indent":      indentFilter,
		"center":      centerFilter,
		"truncate":    truncateFilter,
		"wordcount":   wordcountFilter,
		"format":      formatFilter,
		"urlencode":   urlencodeFilter,
		"xmlattr":     xmlattrFilter,
		"striptags":   func(in *interp, v Value, a *callArgs) (Value, error) { return in.strFilter(v, a, stripTags) },
		// Numbers.
		"abs":   absFilter,
		"int":   intFilter,
		"float": floatFilter,
		"round": roundFilter,
		// Sequences and mappings are in filters_sequence.go.
		"length":     lengthFilter,
		"count":      lengthFilter,
		"first":      firstFilter,
		"last":       lastFilter,
		"join":       joinFilter,
		"list":       listFilter,
		"reverse":    reverseFilter,
		"sort":       sortFilter,
		"dictsort":   dictsortFilter,
		"unique":     uniqueFilter,
		"groupby":    groupbyFilter,
		"batch":      batchFilter,
		"slice":      sliceFilter,
		"sum":        sumFilter,
		"min":        func(in *interp, v Value, a *callArgs) (Value, error) { return extremeFilter(in, v, a, "min", "<") },
		"max":        func(in *interp, v Value, a *callArgs) (Value, error) { return extremeFilter(in, v, a, "max", ">") },
		"items":      itemsFilter,
		"map":        mapFilter,
		"select":     func(in *interp, v Value, a *callArgs) (Value, error) { return selectFilter(in, v, a, true, false) },
		"reject":     func(in *interp, v Value, a *callArgs) (Value, error) { return selectFilter(in, v, a, false, false) },
		"selectattr": func(in *interp, v Value, a *callArgs) (Value, error) { return selectFilter(in, v, a, true, true) },
		"rejectattr": func(in *interp, v Value, a *callArgs) (Value, error) { return selectFilter(in, v, a, false, true) },
		"random": func(in *interp, v Value, a *callArgs) (Value, error) {
			return nil, errorf("filter 'random' is refused: a chat template must render the same text every time")
		},
	}
}

func same(s Str) Str { return s }

// strFilter applies f to the string of v, for filters without arguments.
func (in *interp) strFilter(v Value, a *callArgs, f func(Str) Str) (Value, error) {
	if err := a.none("filter"); err != nil {
		return nil, err
	}
	s, err := in.toStr(v)
	if err != nil {
		return nil, err
	}
	return f(s), in.chargeBytes(len(s.Text))
}

func defaultFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("default", 0, "default_value", "boolean")
	if err != nil {
		return nil, err
	}
	if isUndefined(v) || args[1] != nil && truth(args[1]) && !truth(v) {
		if args[0] == nil {
			return Str{}, nil
		}
		return args[0], nil
	}
	return v, nil
}

// tojsonFilter is transformers' own tojson: json.dumps without Jinja's escaping for HTML.
func tojsonFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("tojson", 0, "ensure_ascii", "indent", "separators", "sort_keys")
	if err != nil {
		return nil, err
	}
	w := &jsonWriter{in: in, out: &builder{limit: in.limits.Output}, itemSep: String(", "), keySep: String(": ")}
	w.ascii = args[0] != nil && truth(args[0])
	w.sortKeys = args[3] != nil && truth(args[3])
	if isGiven(args[1]) {
		w.pretty, w.itemSep = true, String(",")
		if n, ok := toInt(args[1]); ok {
			if w.indent, err = in.repeatStr(String(" "), n); err != nil {
				return nil, err
			}
		} else if w.indent, err = strArg("tojson", "indent", args[1], Str{}); err != nil {
			return nil, err
		}
	}
	if isGiven(args[2]) {
		pair, err := in.list(args[2])
		if err != nil {
			return nil, err
		}
		if len(pair) != 2 {
			return nil, errorf("tojson(): 'separators' must be a pair, got %d values", len(pair))
		}
		if w.itemSep, err = strArg("tojson", "separators", pair[0], Str{}); err != nil {
			return nil, err
		}
		if w.keySep, err = strArg("tojson", "separators", pair[1], Str{}); err != nil {
			return nil, err
		}
	}
	if err := w.write(v); err != nil {
		return nil, err
	}
	return w.out.str(), in.chargeBytes(len(w.out.text))
}

func trimFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("trim", 0, "chars")
	if err != nil {
		return nil, err
	}
	s, err := in.toStr(v)
	if err != nil {
		return nil, err
	}
	if err := in.chargeBytes(len(s.Text)); err != nil {
		return nil, err
	}
	return strip(s, args[0], true, true)
}

func replaceFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("replace", 2, "old", "new", "count")
	if err != nil {
		return nil, err
	}
	s, err := in.toStr(v)
	if err != nil {
		return nil, err
	}
	old, err := in.toStr(args[0])
	if err != nil {
		return nil, err
	}
	by, err := in.toStr(args[1])
	if err != nil {
		return nil, err
	}
	count := int64(-1)
	if isGiven(args[2]) {
		if count, err = intArg("replace", "count", args[2], -1); err != nil {
			return nil, err
		}
	}
	if err := in.chargeBytes(len(s.Text)); err != nil {
		return nil, err
	}
	return in.replace(s, old, by, count)
}

// indentFilter puts the indentation before every line but the first and, unless asked, the empty ones.
// textOperand is the operand of a filter that, unlike most, doesn't make text of other values.
func textOperand(filter string, v Value) (Str, error) {
	switch v := v.(type) {
	case Str:
		return v, nil
	case *Undefined:
		if filter == "truncate" { // of which Python asks nothing but its length
			return Str{}, nil
		}
		return Str{}, v.fail()
	}
	return Str{}, errorf("%s: expected a string, not %s", filter, v.typeName())
}

func indentFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("indent", 0, "width", "first", "blank")
	if err != nil {
		return nil, err
	}
	s, err := textOperand("indent", v)
	if err != nil {
		return nil, err
	}
	indent, ok := args[0].(Str)
	if !ok {
		width, err := intArg("indent", "width", args[0], 4)
		if err != nil {
			return nil, err
		}
		if indent, err = in.repeatStr(String(" "), width); err != nil {
			return nil, err
		}
	}
	first := args[1] != nil && truth(args[1])
	blank := args[2] != nil && truth(args[2])
	if s, err = in.concat(s, String("\n")); err != nil { // so that a break at the end counts as a line
		return nil, err
	}
	out := &builder{limit: in.limits.Output}
	for i, line := range splitLines(s.Text) {
		if err := in.chargeBytes(line.End - line.Start + len(indent.Text) + len(s.marks)); err != nil {
			return nil, err
		}
		if i > 0 {
			if err := out.writeText("\n"); err != nil {
				return nil, err
			}
		}
		if i == 0 && first || i > 0 && (blank || line.Start < line.End) {
			if err := out.write(indent); err != nil {
				return nil, err
			}
		}
		if err := out.write(s.slice(line.Start, line.End)); err != nil {
			return nil, err
		}
	}
	return out.str(), nil
}

func centerFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("center", 0, "width")
	if err != nil {
		return nil, err
	}
	width, err := intArg("center", "width", args[0], 80)
	if err != nil {
		return nil, err
	}
	s, err := in.toStr(v)
	if err != nil {
		return nil, err
	}
	return in.justify(s, width, String(" "), 0)
}

func truncateFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("truncate", 0, "length", "killwords", "end", "leeway")
	if err != nil {
		return nil, err
	}
	s, err := textOperand("truncate", v)
	if err != nil {
		return nil, err
	}
	length, err := intArg("truncate", "length", args[0], 255)
	if err != nil {
		return nil, err
	}
	end, err := strArg("truncate", "end", args[2], String("..."))
	if err != nil {
		return nil, err
	}
	leeway := int64(5)
	if isGiven(args[3]) {
		if leeway, err = intArg("truncate", "leeway", args[3], 5); err != nil {
			return nil, err
		}
	}
	if length < int64(end.length()) || leeway < 0 {
		return nil, errorf("truncate(): length %d must be at least %d, leeway %d at least 0", length, end.length(), leeway)
	}
	if err := in.chargeBytes(len(s.Text)); err != nil {
		return nil, err
	}
	if n := int64(s.length()); n <= length || n-length <= leeway {
		return s, nil
	}
	cut := s.slice(0, s.offset(int(length)-end.length()))
	if args[1] == nil || !truth(args[1]) {
		if i := strings.LastIndexByte(cut.Text, ' '); i >= 0 {
			cut = cut.slice(0, i)
		}
	}
	return in.concat(cut, end)
}

func wordcountFilter(in *interp, v Value, a *callArgs) (Value, error) {
	s, err := in.toStr(v)
	if err != nil {
		return nil, err
	}
	words := strings.FieldsFunc(s.Text, func(r rune) bool {
		return r != '_' && !unicode.IsLetter(r) && !unicode.IsNumber(r)
	})
	return Int(len(words)), in.chargeBytes(len(s.Text))
}

func formatFilter(in *interp, v Value, a *callArgs) (Value, error) {
	s, err := in.toStr(v)
	if err != nil {
		return nil, err
	}
	if len(a.keywords) == 0 {
		return in.percent(s, &Tuple{Items: a.items})
	}
	if len(a.items) > 0 {
		return nil, errorf("format() takes positional or keyword arguments, not both")
	}
	d := NewDict()
	for _, k := range a.keywords {
		d.Set(k.name, k.value)
	}
	return in.percent(s, d)
}

// titleWords starts every word with an upper-case letter; words start after blanks and the characters -({[<.
func titleWords(s Str) Str {
	start := true
	return s.mapRunes(func(i int, r rune) string {
		if isSpace(r) || strings.ContainsRune("-({[<", r) {
			start = true
			return string(r)
		}
		was := start
		start = false
		if was {
			return upperRune(r)
		}
		return lowerRune(s.Text, i, r)
	})
}

func escapeHTML(s Str) Str {
	return s.mapRunes(func(_ int, r rune) string {
		switch r {
		case '&':
			return "&amp;"
		case '<':
			return "&lt;"
		case '>':
			return "&gt;"
		case '"':
			return "&#34;"
		case '\'':
			return "&#39;"
		}
		return string(r)
	})
}

func escapeSafe(s Str) Str {
	out := escapeHTML(s)
	out.safe = true
	return out
}

func escapeOnce(s Str) Str {
	if s.safe {
		return s
	}
	return escapeSafe(s)
}

// stripTags drops HTML comments and tags, and collapses whitespace.
func stripTags(s Str) Str {
	text := s.Text
	for _, pair := range [][2]string{{"<!--", "-->"}, {"<", ">"}} {
		var out strings.Builder
		for {
			i := strings.Index(text, pair[0])
			if i < 0 {
				break
			}
			j := strings.Index(text[i:], pair[1])
			if j < 0 {
				break
			}
			out.WriteString(text[:i])
			text = text[i+j+len(pair[1]):]
		}
		text = out.String() + text
	}
	return s.derived(strings.Join(strings.FieldsFunc(text, isSpace), " "))
}

// urlencodeFilter percent-encodes a string, or the pairs of a mapping as a query.
func urlencodeFilter(in *interp, v Value, a *callArgs) (Value, error) {
	if err := a.none("urlencode"); err != nil {
		return nil, err
	}
	var pairs []Value
	switch x := v.(type) {
	case *Dict:
		pairs = x.items()
	case *List:
		pairs = x.Items
	case *Tuple:
		pairs = x.Items
	default:
		s, err := in.toStr(v)
		if err != nil {
			return nil, err
		}
		return s.derived(urlQuote(s.Text, "/")), in.chargeBytes(3 * len(s.Text))
	}
	parts := make([]Value, len(pairs))
	for i, p := range pairs {
		pair, err := in.list(p)
		if err != nil {
			return nil, err
		}
		if len(pair) != 2 {
			return nil, errorf("urlencode(): element %d is no pair", i)
		}
		var quoted [2]Value
		for j := range quoted {
			s, err := in.toStr(pair[j])
			if err != nil {
				return nil, err
			}
			if err := in.chargeBytes(3 * len(s.Text)); err != nil {
				return nil, err
			}
			quoted[j] = s.derived(strings.ReplaceAll(urlQuote(s.Text, ""), "%20", "+"))
		}
		if parts[i], err = in.join(String("="), quoted[:]); err != nil {
			return nil, err
		}
	}
	return in.join(String("&"), parts)
}

func urlQuote(s, keep string) string {
	const hex = "0123456789ABCDEF"
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c < utf8.RuneSelf && (unicode.IsLetter(rune(c)) || unicode.IsDigit(rune(c)) || strings.IndexByte("_.-~"+keep, c) >= 0) {
			out.WriteByte(c)
		} else {
			out.WriteString(string([]byte{'%', hex[c>>4], hex[c&15]}))
		}
	}
	return out.String()
}

func xmlattrFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("xmlattr", 0, "autospace")
	if err != nil {
		return nil, err
	}
	d, ok := v.(*Dict)
	if !ok {
		return nil, errorf("xmlattr needs a mapping, not %s", v.typeName())
	}
	out := &builder{limit: in.limits.Output}
	for _, e := range d.entries {
		if !isGiven(e.value) || isUndefined(e.value) {
			continue
		}
		key, err := in.toStr(e.key)
		if err != nil {
			return nil, err
		}
		if strings.ContainsAny(key.Text, " \t\n\r\f\v/>=") {
			return nil, errorf("xmlattr: invalid character in attribute name %s", quote(key.Text))
		}
		value, err := in.toStr(e.value)
		if err != nil {
			return nil, err
		}
		if len(out.text) > 0 || args[0] == nil || truth(args[0]) {
			if err := out.writeText(" "); err != nil {
				return nil, err
			}
		}
		if err := in.chargeBytes(5 * (len(key.Text) + len(value.Text))); err != nil {
			return nil, err
		}
		for _, part := range []Str{escapeOnce(key), String(`="`), escapeOnce(value), String(`"`)} {
			if err := out.write(part); err != nil {
				return nil, err
			}
		}
	}
	return out.str(), nil
}

func absFilter(in *interp, v Value, a *callArgs) (Value, error) {
	if err := a.none("abs"); err != nil {
		return nil, err
	}
	if f, ok := v.(Float); ok {
		return Float(math.Abs(float64(f))), nil
	}
	if i := toBig(v); i != nil {
		return newInt(new(big.Int).Abs(i))
	}
	if u, ok := v.(*Undefined); ok {
		return nil, u.fail()
	}
	return nil, errorf("bad operand type for abs: '%s'", v.typeName())
}

func intFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("int", 0, "default", "base")
	if err != nil {
		return nil, err
	}
	base, err := intArg("int", "base", args[1], 10)
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*Undefined); ok {
		return nil, u.fail()
	}
	if i := toBig(v); i != nil {
		return newInt(i)
	}
	if s, ok := v.(Str); ok {
		if i, ok := parseInt(s.Text, base); ok {
			return i, nil
		}
		if f, ok := parseFloat(s.Text); ok {
			if i, ok := floatToInt(f); ok {
				return i, nil
			}
		}
	}
	if f, ok := v.(Float); ok {
		if i, ok := floatToInt(float64(f)); ok {
			return i, nil
		}
	}
	if args[0] == nil {
		return Int(0), nil
	}
	return args[0], nil
}

func floatFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("float", 0, "default")
	if err != nil {
		return nil, err
	}
	if u, ok := v.(*Undefined); ok {
		return nil, u.fail()
	}
	if f, ok := toFloat(v); ok {
		return Float(f), nil
	}
	if s, ok := v.(Str); ok {
		if f, ok := parseFloat(s.Text); ok {
			return Float(f), nil
		}
	}
	if args[0] == nil {
		return Float(0), nil
	}
	return args[0], nil
}

func roundFilter(in *interp, v Value, a *callArgs) (Value, error) {
	args, err := a.bind("round", 0, "precision", "method")
	if err != nil {
		return nil, err
	}
	precision, err := intArg("round", "precision", args[0], 0)
	if err != nil {
		return nil, err
	}
	method, err := strArg("round", "method", args[1], String("common"))
	if err != nil {
		return nil, err
	}
	f, ok := toFloat(v)
	if u, isUndef := v.(*Undefined); isUndef {
		return nil, u.fail()
	}
	if !ok {
		return nil, errorf("round: '%s' is no number", v.typeName())
	}
	switch method.Text {
	case "common":
		if i := toBig(v); i != nil {
			if precision >= 0 {
				return newInt(i)
			}
			return roundInt(i, precision)
		}
		return Float(roundHalfEven(f, precision)), nil
	case "ceil", "floor":
		scale := math.Pow(10, float64(precision))
		if method.Text == "ceil" {
			return Float(math.Ceil(f*scale) / scale), nil
		}
		return Float(math.Floor(f*scale) / scale), nil
	}
	return nil, errorf("round: method must be common, ceil or floor, not %s", quote(method.Text))
}
