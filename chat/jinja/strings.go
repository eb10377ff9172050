package jinja

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// strMethod is a method of Python's str. The call has already been charged for the length of s.
type strMethod func(in *interp, s Str, a *callArgs) (Value, error)

var strMethods map[string]strMethod

func init() {
	strMethods = map[string]strMethod{
		"strip":        stripMethod(true, true),
		"lstrip":       stripMethod(true, false),
		"rstrip":       stripMethod(false, true),
		"split":        func(in *interp, s Str, a *callArgs) (Value, error) { return splitMethod(in, s, a, false) },
		"rsplit":       func(in *interp, s Str, a *callArgs) (Value, error) { return splitMethod(in, s, a, true) },
		"splitlines":   splitLinesMethod,
		"startswith":   affixMethod(strings.HasPrefix),
		"endswith":     affixMethod(strings.HasSuffix),
		"replace":      replaceMethod,
		"join":         joinMethod,
		"find":         findMethod(false, false),
		"rfind":        findMethod(true, false),
		"index":        findMethod(false, true),
		"rindex":       findMethod(true, true),
		"count":        countMethod,
		"format":       formatMethod,
		"format_map":   formatMapMethod,
		"removeprefix": removeMethod(true),
		"removesuffix": removeMethod(false),
		"zfill":        zfillMethod,
		"ljust":        justifyMethod(-1),
		"rjust":        justifyMethod(1),
		"center":       justifyMethod(0),
		"partition":    partitionMethod(false),
		"rpartition":   partitionMethod(true),
		"expandtabs":   expandTabsMethod,

		"upper":      mapMethod(upper),
		"lower":      mapMethod(lower),
		"casefold":   mapMethod(casefold),
		"title":      mapMethod(title),
		"capitalize": mapMethod(capitalize),
		"swapcase":   mapMethod(swapcase),

		"isdigit":      allRunes(isDigit),
		"isdecimal":    allRunes(unicode.IsDigit),
		"isnumeric":    allRunes(unicode.IsNumber),
		"isalpha":      allRunes(unicode.IsLetter),
		"isalnum":      allRunes(func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }),
		"isspace":      allRunes(isSpace),
		"islower":      predicate(func(s string) bool { return hasCase(s, unicode.IsLower, isUpperOrTitle) }),
		"isupper":      predicate(func(s string) bool { return hasCase(s, unicode.IsUpper, isLowerOrTitle) }),
		"istitle":      predicate(isTitle),
		"isascii":      predicate(func(s string) bool { return String(s).isASCII() }),
		"isprintable":  predicate(func(s string) bool { return strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 }),
		"isidentifier": predicate(func(s string) bool { return s != "" && !isDigit(rune(s[0])) && identifier(s) == len(s) }),
	}
}

// isDigit is str.isdigit of one code point: decimal digits and superscripts and their like.
func isDigit(r rune) bool {
	return unicode.IsDigit(r) || r == 0xb2 || r == 0xb3 || r == 0xb9 || r == 0x2070 || r >= 0x2074 && r <= 0x2079 ||
		r >= 0x2080 && r <= 0x2089 || r >= 0x2460 && r <= 0x2468 || r >= 0x2474 && r <= 0x247c || r >= 0x2488 && r <= 0x2490
}

func isUpperOrTitle(r rune) bool { return unicode.IsUpper(r) || unicode.IsTitle(r) }
func isLowerOrTitle(r rune) bool { return unicode.IsLower(r) || unicode.IsTitle(r) }

func hasCase(s string, want, other func(rune) bool) bool {
	return strings.IndexFunc(s, want) >= 0 && strings.IndexFunc(s, other) < 0
}

func isTitle(s string) bool {
	cased, found := false, false
	for _, r := range s {
		switch {
		case isUpperOrTitle(r):
			if cased {
				return false
			}
			cased, found = true, true
		case unicode.IsLower(r):
			if !cased {
				return false
			}
		default:
			cased = false
		}
	}
	return found
}

func predicate(f func(string) bool) strMethod {
	return func(in *interp, s Str, a *callArgs) (Value, error) {
		_, err := a.positional("str method", 0, 0)
		return Bool(f(s.Text)), err
	}
}

func allRunes(f func(rune) bool) strMethod {
	return predicate(func(s string) bool {
		return s != "" && strings.IndexFunc(s, func(r rune) bool { return !f(r) }) < 0
	})
}

func mapMethod(f func(Str) Str) strMethod {
	return func(in *interp, s Str, a *callArgs) (Value, error) {
		_, err := a.positional("str method", 0, 0)
		return f(s), err
	}
}

// Full case mappings: one code point may become several.
func upperRune(r rune) string {
	if r < utf8.RuneSelf {
		return string(unicode.ToUpper(r))
	}
	return cases.Upper(language.Und).String(string(r))
}

func lowerRune(s string, i int, r rune) string {
	switch {
	case r < utf8.RuneSelf:
		return string(unicode.ToLower(r))
	case r == 'İ':
		return "i\u0307"
	case r == 'Σ' && finalSigma(s, i):
		return "ς"
	}
	return string(unicode.ToLower(r))
}

// finalSigma tells whether the sigma at byte i ends a word: a letter before it and none after.
func finalSigma(s string, i int) bool {
	before, _ := utf8.DecodeLastRuneInString(s[:i])
	after, _ := utf8.DecodeRuneInString(s[i+len("Σ"):])
	return i > 0 && unicode.IsLetter(before) && !unicode.IsLetter(after)
}

func titleRune(r rune) string {
	if r < utf8.RuneSelf {
		return string(unicode.ToUpper(r))
	}
	if t := unicode.ToTitle(r); t != r || !unicode.IsLower(r) {
		return string(t)
	}
	return cases.Title(language.Und, cases.NoLower).String(string(r))
}

func upper(s Str) Str { return s.mapRunes(func(_ int, r rune) string { return upperRune(r) }) }

func lower(s Str) Str {
	return s.mapRunes(func(i int, r rune) string { return lowerRune(s.Text, i, r) })
}

func casefold(s Str) Str {
	return s.mapRunes(func(_ int, r rune) string {
		if r < utf8.RuneSelf {
			return string(unicode.ToLower(r))
		}
		return cases.Fold().String(string(r))
	})
}

func capitalize(s Str) Str {
	return s.mapRunes(func(i int, r rune) string {
		if i == 0 {
			return titleRune(r)
		}
		return lowerRune(s.Text, i, r)
	})
}

func title(s Str) Str {
	cased := false
	return s.mapRunes(func(i int, r rune) string {
		was := cased
		cased = unicode.IsUpper(r) || unicode.IsLower(r) || unicode.IsTitle(r)
		if was {
			return lowerRune(s.Text, i, r)
		}
		return titleRune(r)
	})
}

func swapcase(s Str) Str {
	return s.mapRunes(func(i int, r rune) string {
		if unicode.IsUpper(r) {
			return lowerRune(s.Text, i, r)
		}
		if unicode.IsLower(r) {
			return upperRune(r)
		}
		return string(r)
	})
}

// strip drops the code points of chars, whitespace if chars isn't given, from the chosen ends.
func strip(s Str, chars Value, left, right bool) (Str, error) {
	drop := isSpace
	if isGiven(chars) {
		set, ok := chars.(Str)
		if !ok {
			return Str{}, errorf("strip() takes a string or none, not %s", chars.typeName())
		}
		drop = func(r rune) bool { return strings.ContainsRune(set.Text, r) }
	}
	i, j := 0, len(s.Text)
	if left {
		i = len(s.Text) - len(strings.TrimLeftFunc(s.Text, drop))
	}
	if right {
		j = len(strings.TrimRightFunc(s.Text, drop))
	}
	return s.slice(i, max(i, j)), nil
}

func stripMethod(left, right bool) strMethod {
	return func(in *interp, s Str, a *callArgs) (Value, error) {
		args, err := a.positional("strip", 0, 1)
		if err != nil {
			return nil, err
		}
		return strip(s, args[0], left, right)
	}
}

func splitMethod(in *interp, s Str, a *callArgs, fromRight bool) (Value, error) {
	args, err := a.bind("split", 0, "sep", "maxsplit")
	if err != nil {
		return nil, err
	}
	limit, err := intArg("split", "maxsplit", args[1], -1)
	if err != nil {
		return nil, err
	}
	if limit < 0 {
		limit = int64(len(s.Text)) + 1
	}
	var cuts []Mark // the separators
	if !isGiven(args[0]) {
		cuts = spaceRuns(s.Text)
	} else {
		sep, err := strArg("split", "sep", args[0], Str{})
		if err != nil {
			return nil, err
		}
		if sep.Text == "" {
			return nil, errorf("split(): empty separator")
		}
		cuts = occurrences(s.Text, sep.Text, fromRight)
	}
	whole, words := Mark{0, len(s.Text), 0}, !isGiven(args[0])
	if words { // blanks at the ends separate nothing
		whole, cuts = trimRuns(whole, cuts)
		if whole.Start >= whole.End {
			return NewList(), nil
		}
	}
	if n := int64(len(cuts)); n >= limit {
		if fromRight {
			cuts = cuts[n-limit:]
		} else {
			cuts = cuts[:limit]
		}
		if words { // the rest that isn't split keeps the blanks at its outer end
			if fromRight {
				whole.Start = 0
			} else {
				whole.End = len(s.Text)
			}
		}
	}
	if err := in.charge((len(cuts) + 1) * (1 + len(s.marks)/8)); err != nil {
		return nil, err
	}
	list := &List{}
	from := whole.Start
	for _, c := range cuts {
		list.Items = append(list.Items, s.slice(from, c.Start))
		from = c.End
	}
	list.Items = append(list.Items, s.slice(from, whole.End))
	return list, nil
}

// spaceRuns finds the maximal runs of whitespace.
func spaceRuns(s string) []Mark {
	var runs []Mark
	for i, r := range s {
		if !isSpace(r) {
			continue
		}
		end := i + utf8.RuneLen(r)
		if n := len(runs); n > 0 && runs[n-1].End == i {
			runs[n-1].End = end
		} else {
			runs = append(runs, Mark{Start: i, End: end})
		}
	}
	return runs
}

func trimRuns(whole Mark, runs []Mark) (Mark, []Mark) {
	if n := len(runs); n > 0 && runs[0].Start == whole.Start {
		whole.Start, runs = runs[0].End, runs[1:]
	}
	if n := len(runs); n > 0 && runs[n-1].End == whole.End {
		whole.End, runs = runs[n-1].Start, runs[:n-1]
	}
	return whole, runs
}

// occurrences finds the places of sep in s that don't overlap, searched from the left or from the right but listed
// from the left.
func occurrences(s, sep string, fromRight bool) []Mark {
	var found []Mark
	if !fromRight {
		for i := 0; ; {
			j := strings.Index(s[i:], sep)
			if j < 0 {
				return found
			}
			found = append(found, Mark{Start: i + j, End: i + j + len(sep)})
			i += j + len(sep)
		}
	}
	for end := len(s); ; {
		j := strings.LastIndex(s[:end], sep)
		if j < 0 {
			break
		}
		found = append(found, Mark{Start: j, End: j + len(sep)})
		end = j
	}
	for i, j := 0, len(found)-1; i < j; i, j = i+1, j-1 {
		found[i], found[j] = found[j], found[i]
	}
	return found
}

func splitLinesMethod(in *interp, s Str, a *callArgs) (Value, error) {
	args, err := a.bind("splitlines", 0, "keepends")
	if err != nil {
		return nil, err
	}
	keep := args[0] != nil && truth(args[0])
	list := &List{}
	for _, line := range splitLines(s.Text) {
		if err := in.charge(1 + len(s.marks)/8); err != nil {
			return nil, err
		}
		end := line.End
		if keep {
			end = line.Origin
		}
		list.Items = append(list.Items, s.slice(line.Start, end))
	}
	return list, nil
}

// splitLines finds the lines of s. A Mark's Origin is the end of the line with its break.
func splitLines(s string) []Mark {
	var lines []Mark
	from := 0
	for i, r := range s {
		if i < from || !isLineBreak(r) {
			continue
		}
		end := i + utf8.RuneLen(r)
		if r == '\r' && strings.HasPrefix(s[end:], "\n") {
			end++
		}
		lines = append(lines, Mark{from, i, end})
		from = end
	}
	if from < len(s) {
		lines = append(lines, Mark{from, len(s), len(s)})
	}
	return lines
}

// window resolves the optional start and end arguments, in code points, of find and its kin to a range of bytes.
func window(s Str, function string, start, end Value) (i, j int, ok bool, err error) {
	n := int64(s.length())
	resolve := func(v Value, missing int64) (int64, error) {
		if !isGiven(v) {
			return missing, nil
		}
		k, err := intArg(function, "position", v, missing)
		if k < 0 {
			k = max(k+n, 0)
		}
		return k, err
	}
	from, err := resolve(start, 0)
	if err != nil {
		return 0, 0, false, err
	}
	to, err := resolve(end, n)
	if err != nil {
		return 0, 0, false, err
	}
	to = min(to, n)
	if from > to {
		return 0, 0, false, nil
	}
	return s.offset(int(from)), s.offset(int(to)), true, nil
}

func affixMethod(has func(s, affix string) bool) strMethod {
	return func(in *interp, s Str, a *callArgs) (Value, error) {
		args, err := a.positional("startswith", 1, 3)
		if err != nil {
			return nil, err
		}
		i, j, ok, err := window(s, "startswith", args[1], args[2])
		if err != nil {
			return nil, err
		}
		candidates := []Value{args[0]}
		if t, isTuple := args[0].(*Tuple); isTuple {
			candidates = t.Items
		}
		for _, c := range candidates {
			affix, isStr := c.(Str)
			if !isStr {
				return nil, errorf("startswith() and endswith() take a string or a tuple of strings, not %s", c.typeName())
			}
			if ok && has(s.Text[i:j], affix.Text) {
				return Bool(true), nil
			}
		}
		return Bool(false), nil
	}
}

func replaceMethod(in *interp, s Str, a *callArgs) (Value, error) {
	args, err := a.bind("replace", 2, "old", "new", "count")
	if err != nil {
		return nil, err
	}
	old, err := strArg("replace", "old", args[0], Str{})
	if err != nil {
		return nil, err
	}
	by, err := strArg("replace", "new", args[1], Str{})
	if err != nil {
		return nil, err
	}
	count, err := intArg("replace", "count", args[2], -1)
	if err != nil {
		return nil, err
	}
	return in.replace(s, old, by, count)
}

// replace replaces the first count occurrences of old, all if count is negative.
func (in *interp) replace(s, old, by Str, count int64) (Str, error) {
	var cuts []Mark
	if old.Text == "" { // before every code point and at the end
		for i := range s.Text {
			cuts = append(cuts, Mark{Start: i, End: i})
		}
		cuts = append(cuts, Mark{Start: len(s.Text), End: len(s.Text)})
	} else {
		cuts = occurrences(s.Text, old.Text, false)
	}
	if count >= 0 && int64(len(cuts)) > count {
		cuts = cuts[:count]
	}
	if len(cuts) == 0 {
		return s, nil
	}
	out := &builder{limit: in.limits.Output}
	from := 0
	for _, c := range cuts {
		if err := in.charge(1 + len(s.marks)/8 + len(by.Text)/16); err != nil {
			return Str{}, err
		}
		if err := out.write(s.slice(from, c.Start)); err != nil {
			return Str{}, err
		}
		if err := out.write(by); err != nil {
			return Str{}, err
		}
		from = c.End
	}
	err := out.write(s.slice(from, len(s.Text)))
	return out.str(), err
}

func joinMethod(in *interp, s Str, a *callArgs) (Value, error) {
	args, err := a.positional("join", 1, 1)
	if err != nil {
		return nil, err
	}
	items, err := in.list(args[0])
	if err != nil {
		return nil, err
	}
	for i, item := range items {
		if _, ok := item.(Str); !ok {
			return nil, errorf("join(): item %d is %s, not str", i, item.typeName())
		}
	}
	return in.join(s, items)
}

// join concatenates the items' strings with sep between them.
func (in *interp) join(sep Str, items []Value) (Str, error) {
	out := &builder{limit: in.limits.Output}
	for i, item := range items {
		s, err := in.toStr(item)
		if err != nil {
			return Str{}, err
		}
		if err := in.chargeBytes(len(s.Text) + len(sep.Text)); err != nil {
			return Str{}, err
		}
		if i > 0 {
			if err := out.write(sep); err != nil {
				return Str{}, err
			}
		}
		if err := out.write(s); err != nil {
			return Str{}, err
		}
	}
	return out.str(), nil
}

func findMethod(last, must bool) strMethod {
	return func(in *interp, s Str, a *callArgs) (Value, error) {
		args, err := a.positional("find", 1, 3)
		if err != nil {
			return nil, err
		}
		sub, err := strArg("find", "sub", args[0], Str{})
		if err != nil {
			return nil, err
		}
		i, j, ok, err := window(s, "find", args[1], args[2])
		if err != nil {
			return nil, err
		}
		at := -1
		if ok {
			if last {
				at = strings.LastIndex(s.Text[i:j], sub.Text)
			} else {
				at = strings.Index(s.Text[i:j], sub.Text)
			}
		}
		if at < 0 {
			if must {
				return nil, errorf("index(): substring not found")
			}
			return Int(-1), nil
		}
		return Int(utf8.RuneCountInString(s.Text[:i+at])), nil
	}
}

func countMethod(in *interp, s Str, a *callArgs) (Value, error) {
	args, err := a.positional("count", 1, 3)
	if err != nil {
		return nil, err
	}
	sub, err := strArg("count", "sub", args[0], Str{})
	if err != nil {
		return nil, err
	}
	i, j, ok, err := window(s, "count", args[1], args[2])
	if err != nil || !ok {
		return Int(0), err
	}
	return Int(strings.Count(s.Text[i:j], sub.Text)), nil
}

func removeMethod(prefix bool) strMethod {
	return func(in *interp, s Str, a *callArgs) (Value, error) {
		args, err := a.positional("removeprefix", 1, 1)
		if err != nil {
			return nil, err
		}
		affix, err := strArg("removeprefix", "affix", args[0], Str{})
		if err != nil {
			return nil, err
		}
		if prefix {
			if strings.HasPrefix(s.Text, affix.Text) {
				return s.slice(len(affix.Text), len(s.Text)), nil
			}
			return s, nil
		}
		return s.slice(0, len(strings.TrimSuffix(s.Text, affix.Text))), nil
	}
}

func zfillMethod(in *interp, s Str, a *callArgs) (Value, error) {
	args, err := a.positional("zfill", 1, 1)
	if err != nil {
		return nil, err
	}
	width, err := intArg("zfill", "width", args[0], 0)
	if err != nil {
		return nil, err
	}
	zeros, err := in.repeatStr(String("0"), width-int64(s.length()))
	if err != nil {
		return nil, err
	}
	signed := 0
	if s.Text != "" && (s.Text[0] == '-' || s.Text[0] == '+') {
		signed = 1
	}
	return in.join(Str{}, []Value{s.slice(0, signed), zeros, s.slice(signed, len(s.Text))})
}

// justify pads s to width code points: on the right (side -1), on the left (1) or on both (0).
func (in *interp) justify(s Str, width int64, fill Str, side int) (Str, error) {
	pad := width - int64(s.length())
	if pad <= 0 {
		return s, nil
	}
	left := pad * int64((side+1)/2)
	if side == 0 { // an odd space goes where CPython puts it
		left = pad/2 + pad&width&1
	}
	before, err := in.repeatStr(fill, left)
	if err != nil {
		return Str{}, err
	}
	after, err := in.repeatStr(fill, pad-left)
	if err != nil {
		return Str{}, err
	}
	return in.join(Str{}, []Value{before, s, after})
}

func justifyMethod(side int) strMethod {
	return func(in *interp, s Str, a *callArgs) (Value, error) {
		args, err := a.positional("center", 1, 2)
		if err != nil {
			return nil, err
		}
		width, err := intArg("center", "width", args[0], 0)
		if err != nil {
			return nil, err
		}
		fill, err := strArg("center", "fillchar", args[1], String(" "))
		if err != nil {
			return nil, err
		}
		if fill.length() != 1 {
			return nil, errorf("center(): the fill character must be exactly one character long")
		}
		return in.justify(s, width, fill, side)
	}
}

func partitionMethod(last bool) strMethod {
	return func(in *interp, s Str, a *callArgs) (Value, error) {
		args, err := a.positional("partition", 1, 1)
		if err != nil {
			return nil, err
		}
		sep, err := strArg("partition", "sep", args[0], Str{})
		if err != nil {
			return nil, err
		}
		if sep.Text == "" {
			return nil, errorf("partition(): empty separator")
		}
		i := strings.Index(s.Text, sep.Text)
		if last {
			i = strings.LastIndex(s.Text, sep.Text)
		}
		if i < 0 {
			if last {
				return &Tuple{Items: []Value{Str{}, Str{}, s}}, nil
			}
			return &Tuple{Items: []Value{s, Str{}, Str{}}}, nil
		}
		end := i + len(sep.Text)
		return &Tuple{Items: []Value{s.slice(0, i), s.slice(i, end), s.slice(end, len(s.Text))}}, nil
	}
}

func expandTabsMethod(in *interp, s Str, a *callArgs) (Value, error) {
	args, err := a.bind("expandtabs", 0, "tabsize")
	if err != nil {
		return nil, err
	}
	size, err := intArg("expandtabs", "tabsize", args[0], 8)
	if err != nil {
		return nil, err
	}
	if size > 1000 {
		return nil, errorf("expandtabs(): tabsize %d is out of range", size)
	}
	if err := in.chargeBytes(strings.Count(s.Text, "\t") * int(max(size, 0))); err != nil {
		return nil, err
	}
	column := int64(0)
	return s.mapRunes(func(_ int, r rune) string {
		switch {
		case r == '\t' && size <= 0:
			return ""
		case r == '\t':
			n := size - column%size
			column += n
			return strings.Repeat(" ", int(n))
		case r == '\n' || r == '\r':
			column = 0
		default:
			column++
		}
		return string(r)
	}), nil
}
