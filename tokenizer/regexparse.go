package tokenizer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// The syntax of regular expressions is Oniguruma's, which the tokenizers library
// takes (doc/RE of kkos/oniguruma, ONIG_SYNTAX_ONIGURUMA): ^ and $ stand for the
// ends of a line, (?m) makes the dot match newlines, and {n,m}+ is not
// possessive. Left out is what can't be matched in linear time: references to
// groups, atomic groups around more than loops over one character, looking
// behind at more than one character, \X, \K and \G. How a loop ends whose body
// matches nothing follows Oniguruma but for such loops within one another.

type nodeKind uint8

const (
	nodeEmpty  nodeKind = iota
	nodeSet             // one character
	nodeCat             // all of subs, one after another
	nodeAlt             // one of subs, the first that leads to a match
	nodeRepeat          // subs[0], from least to most times
	nodeAhead           // subs[0] matches here, or with not it doesn't
	nodeBehind          // the character before is in set, or with not it isn't
)

type node struct {
	kind        nodeKind
	set         runeSet
	subs        []*node
	least, most int  // most is -1 where there is no bound
	lazy        bool // as few times as possible
	not         bool
}

const (
	maxRegex        = 1 << 16 // bytes of an expression
	maxRegexNesting = 200
	maxRepeat       = 1000 // of {n,m}
)

var (
	anyRune    = runeSet{{0, unicode.MaxRune}}
	newline    = runeSet{{'\n', '\n'}}
	spaceSet   = func() runeSet { return tableSet(unicode.White_Space) }
	hexDigits  = runeSet{{'0', '9'}, {'A', 'F'}, {'a', 'f'}}
	notNewline = newline.negate()
)

func setNode(s runeSet) *node     { return &node{kind: nodeSet, set: s} }
func catNode(subs ...*node) *node { return &node{kind: nodeCat, subs: subs} }
func altNode(subs ...*node) *node { return &node{kind: nodeAlt, subs: subs} }
func aheadNode(sub *node, not bool) *node {
	return &node{kind: nodeAhead, subs: []*node{sub}, not: not}
}
func behindNode(s runeSet, not bool) *node {
	return &node{kind: nodeBehind, set: s, not: not}
}

// The ends of the text, and of a line.
func textStart() *node { return behindNode(anyRune, true) }
func textEnd() *node   { return aheadNode(setNode(anyRune), true) }
func lineStart() *node {
	// A newline that ends the text begins no line.
	return altNode(textStart(), catNode(behindNode(newline, false), aheadNode(setNode(anyRune), false)))
}
func lineEnd() *node { return altNode(textEnd(), aheadNode(setNode(newline), false)) }

func wordBoundary(not bool) *node {
	w := bareWord()
	change := func(before, after bool) *node { return catNode(behindNode(w, !before), aheadNode(setNode(w), !after)) }
	if not {
		return altNode(change(true, true), change(false, false))
	}
	return altNode(change(true, false), change(false, true))
}

// regexParser reads an expression from left to right.
type regexParser struct {
	expr  string
	at    int
	depth int
}

// regexFlags hold within a group.
type regexFlags struct {
	fold     bool // i: upper and lower case are the same
	dotAll   bool // m: the dot matches newlines
	extended bool // x: white space and comments don't count
}

// regexError is a construct that can't be read.
type regexError string

func (e regexError) Error() string { return string(e) }

func parseRegex(expr string) (*node, error) {
	if len(expr) > maxRegex {
		return nil, regexError(fmt.Sprintf("%d bytes are too many, at most %d are read", len(expr), maxRegex))
	}
	if !utf8.ValidString(expr) {
		return nil, regexError("it is not UTF-8")
	}
	p := &regexParser{expr: expr}
	n, err := p.alternatives(&regexFlags{})
	if err == nil && p.at < len(expr) {
		err = regexError("unmatched )")
	}
	return n, err
}

func (p *regexParser) more() bool            { return p.at < len(p.expr) }
func (p *regexParser) looking(s string) bool { return strings.HasPrefix(p.expr[p.at:], s) }

func (p *regexParser) accept(s string) bool {
	if p.looking(s) {
		p.at += len(s)
		return true
	}
	return false
}

// next takes one character.
func (p *regexParser) next() rune {
	r, n := utf8.DecodeRuneInString(p.expr[p.at:])
	p.at += n
	return r
}

// alternatives reads up to the end of the group or of the expression.
func (p *regexParser) alternatives(f *regexFlags) (*node, error) {
	if p.depth++; p.depth > maxRegexNesting {
		return nil, regexError("groups nest too deep")
	}
	defer func() { p.depth-- }()
	var alts []*node
	for {
		n, err := p.sequence(f)
		if err != nil {
			return nil, err
		}
		alts = append(alts, n)
		if !p.accept("|") {
			break
		}
	}
	if len(alts) == 1 {
		return alts[0], nil
	}
	return simplifyAlt(alts), nil
}

// simplifyAlt makes one set of alternatives that are all single characters.
func simplifyAlt(alts []*node) *node {
	var all runeSet
	for _, a := range alts {
		if a = single(a); a == nil {
			return altNode(alts...)
		}
		all = all.union(a.set)
	}
	return setNode(all)
}

// single returns the set that n is, or nil.
func single(n *node) *node {
	for n.kind == nodeCat && len(n.subs) == 1 {
		n = n.subs[0]
	}
	if n.kind == nodeSet {
		return n
	}
	return nil
}

func (p *regexParser) sequence(f *regexFlags) (*node, error) {
	var list []*node
	for p.more() && !p.looking("|") && !p.looking(")") {
		if f.extended {
			if c := p.expr[p.at]; c == ' ' || c >= '\t' && c <= '\r' {
				p.at++
				continue
			} else if c == '#' {
				if i := strings.IndexByte(p.expr[p.at:], '\n'); i >= 0 {
					p.at += i + 1
				} else {
					p.at = len(p.expr)
				}
				continue
			}
		}
		n, err := p.atom(f)
		if err != nil {
			return nil, err
		}
		if n == nil {
			continue // a comment
		}
		if n, err = p.quantified(n); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return catNode(list...), nil
}

// quantified reads the quantifiers that follow n.
func (p *regexParser) quantified(n *node) (*node, error) {
	for level := 0; ; level++ {
		least, most, interval, ok, err := p.quantifier()
		if err != nil || !ok {
			return n, err
		}
		if level == maxRegexNesting {
			return nil, regexError("too many quantifiers")
		}
		if n.kind == nodeAhead || n.kind == nodeBehind {
			return nil, regexError("a quantifier of an assertion")
		}
		r := &node{kind: nodeRepeat, subs: []*node{n}, least: least, most: most}
		switch {
		case p.looking("?") && !(interval && least == most):
			p.at++
			r.lazy = true
		case !interval && p.accept("+"):
			if r = possessive(r); r == nil {
				return nil, regexError("a possessive quantifier of more than one character")
			}
		}
		n = r
	}
}

func (p *regexParser) quantifier() (least, most int, interval, ok bool, err error) {
	switch {
	case p.accept("*"):
		return 0, -1, false, true, nil
	case p.accept("+"):
		return 1, -1, false, true, nil
	case p.accept("?"):
		return 0, 1, false, true, nil
	case !p.looking("{"):
		return 0, 0, false, false, nil
	}
	body, _, closed := strings.Cut(p.expr[p.at+1:], "}")
	low, high, pair := strings.Cut(body, ",")
	number := func(s string) (int, bool) {
		v, err := strconv.Atoi(s)
		return v, err == nil && v >= 0 && s[0] != '+' && s[0] != '-'
	}
	least, okLow := number(low)
	most, okHigh := number(high)
	switch {
	case !closed, !pair && !okLow, low != "" && !okLow, high != "" && !okHigh, low == "" && high == "":
		return 0, 0, false, false, nil // braces that stand for themselves
	case !pair:
		most = least
	case high == "":
		most = -1
	}
	if least > maxRepeat || most > maxRepeat || most >= 0 && least > most {
		return 0, 0, false, false, regexError(fmt.Sprintf("the repetition {%s}", clip(body)))
	}
	p.at += len(body) + 2
	return least, most, true, true, nil
}

// possessive returns what matches as r does but gives nothing back, or nil where
// that can't be said by looking ahead. It can where the body matches in one way
// only: a loop that took as much as there was is one that nothing more follows.
func possessive(r *node) *node {
	body := r.subs[0]
	if !deterministic(body) {
		return nil
	}
	stop := aheadNode(body, true)
	if r.most < 0 {
		return catNode(r, stop)
	}
	n := &node{kind: nodeEmpty}
	for i := r.least; i < r.most; i++ {
		n = altNode(catNode(body, n), stop)
	}
	return catNode(&node{kind: nodeRepeat, subs: r.subs, least: r.least, most: r.least}, n)
}

// deterministic says whether n matches a text in at most one way, and not the
// empty one.
func deterministic(n *node) bool {
	switch n.kind {
	case nodeSet:
		return true
	case nodeCat:
		for _, s := range n.subs {
			if !deterministic(s) {
				return false
			}
		}
		return len(n.subs) > 0
	case nodeRepeat:
		return n.least == n.most && n.least > 0 && deterministic(n.subs[0])
	}
	return false
}

// atomicNode returns what matches as n does but stays with the first way it finds,
// or nil where that can't be said by looking ahead.
func atomicNode(n *node) *node {
	switch n.kind {
	case nodeEmpty, nodeSet, nodeAhead, nodeBehind:
		return n
	case nodeRepeat:
		if n.lazy {
			return atomicNode(&node{kind: nodeRepeat, subs: n.subs, least: n.least, most: n.least})
		}
		if n.least == n.most && deterministic(n.subs[0]) {
			return n
		}
		return possessive(n)
	case nodeCat:
		// Only the last part may have a choice to give up.
		for i, s := range n.subs {
			if i < len(n.subs)-1 && !deterministic(s) && s.kind != nodeAhead && s.kind != nodeBehind {
				return nil
			}
		}
		if len(n.subs) == 0 {
			return n
		}
		last := atomicNode(n.subs[len(n.subs)-1])
		if last == nil {
			return nil
		}
		return catNode(append(slices.Clone(n.subs[:len(n.subs)-1]), last)...)
	case nodeAlt:
		var alts []*node
		var not []*node // none of the alternatives before
		for _, s := range n.subs {
			a := atomicNode(s)
			if a == nil {
				return nil
			}
			alts = append(alts, catNode(append(slices.Clone(not), a)...))
			not = append(not, aheadNode(s, true))
		}
		return altNode(alts...)
	}
	return nil
}

// atom reads what a quantifier applies to. It returns nil for a comment.
func (p *regexParser) atom(f *regexFlags) (*node, error) {
	switch c := p.next(); c {
	case '(':
		return p.group(f)
	case '[':
		s, err := p.class(f)
		return setNode(s), err
	case '.':
		if f.dotAll {
			return setNode(anyRune), nil
		}
		return setNode(notNewline), nil
	case '^':
		return lineStart(), nil
	case '$':
		return lineEnd(), nil
	case '*', '+', '?':
		return nil, regexError(fmt.Sprintf("nothing to repeat before %c", c))
	case '\\':
		return p.escape(f)
	default:
		return literal(c, f)
	}
}

// literal is one character, with (?i) in either case.
func literal(c rune, f *regexFlags) (*node, error) {
	s := runeSet{{c, c}}
	if !f.fold {
		return setNode(s), nil
	}
	if foldsToMany().has(c) {
		return nil, regexError(fmt.Sprintf("(?i) of %c, which has several characters in the other case", c))
	}
	return setNode(s.fold()), nil
}

// foldsToMany are the characters whose full case folding is longer: Oniguruma
// matches "ss" where (?i) has a sharp s. (It also matches a sharp s where (?i)
// has "ss", which is not done here.)
var foldsToMany = sync.OnceValue(func() runeSet {
	return parseRuneSet(`DF 130 149 1F0 390 3B0 587 1E96-1E9A 1E9E 1F50 1F52 1F54 1F56 1F80-1FAF 1FB2-1FB4 1FB6-1FB7 1FBC 1FC2-1FC4 1FC6-1FC7
		1FCC 1FD2-1FD3 1FD6-1FD7 1FE2-1FE4 1FE6-1FE7 1FF2-1FF4 1FF6-1FF7 1FFC FB00-FB06 FB13-FB17`)
})

// group reads what follows an opening parenthesis.
func (p *regexParser) group(f *regexFlags) (*node, error) {
	inner := *f
	wrap := func(n *node) (*node, error) { return n, nil }
	switch {
	case !p.accept("?"):
	case p.accept("#"):
		i := strings.IndexByte(p.expr[p.at:], ')')
		if i < 0 {
			return nil, regexError("a comment without end")
		}
		p.at += i + 1
		return nil, nil
	case p.accept(":"):
	case p.accept("="):
		wrap = func(n *node) (*node, error) { return aheadNode(n, false), nil }
	case p.accept("!"):
		wrap = func(n *node) (*node, error) { return aheadNode(n, true), nil }
	case p.accept("<="):
		wrap = func(n *node) (*node, error) { return behind(n, false) }
	case p.accept("<!"):
		wrap = func(n *node) (*node, error) { return behind(n, true) }
	case p.accept(">"):
		wrap = func(n *node) (*node, error) {
			if n = atomicNode(n); n == nil {
				return nil, regexError("an atomic group of more than loops over one character")
			}
			return n, nil
		}
	case p.accept("<"):
		name, _, ok := strings.Cut(p.expr[p.at:], ">")
		if !ok || name == "" {
			return nil, regexError("a group's name without end")
		}
		p.at += len(name) + 1
	default:
		return p.flagGroup(f)
	}
	n, err := p.alternatives(&inner)
	if err != nil {
		return nil, err
	}
	if !p.accept(")") {
		return nil, regexError("unmatched (")
	}
	return wrap(n)
}

// flagGroup reads (?flags:...) and (?flags), which holds for the rest of the
// group that it stands in, alternatives included.
func (p *regexParser) flagGroup(f *regexFlags) (*node, error) {
	inner := *f
	on := true
	for p.more() {
		switch c := p.next(); c {
		case '-':
			on = false
		case 'i':
			inner.fold = on
		case 'm':
			inner.dotAll = on
		case 'x':
			inner.extended = on
		case ':', ')':
			n, err := p.alternatives(&inner)
			if err == nil && c == ':' && !p.accept(")") {
				err = regexError("unmatched (")
			}
			return n, err
		default:
			return nil, regexError(fmt.Sprintf("the group (?%c", c))
		}
	}
	return nil, regexError("unmatched (")
}

// behind makes an assertion about the character before of (?<=n) or (?<!n).
func behind(n *node, not bool) (*node, error) {
	set, atStart, ok := behindSet(n)
	if !ok {
		return nil, regexError("looking behind at more than one character")
	}
	switch {
	case !atStart:
		return behindNode(set, not), nil
	case not: // neither
		return catNode(behindNode(set, true), behindNode(anyRune, false)), nil
	}
	return altNode(behindNode(set, false), textStart()), nil
}

// behindSet returns the characters that n stands for, and whether it also stands
// for the start of the text.
func behindSet(n *node) (set runeSet, atStart, ok bool) {
	switch n.kind {
	case nodeSet:
		return n.set, false, true
	case nodeCat:
		switch {
		case len(n.subs) == 1:
			return behindSet(n.subs[0])
		case len(n.subs) == 2 && n.subs[0].kind == nodeBehind && n.subs[1].kind == nodeAhead: // of lineStart
			return n.subs[0].set, false, true
		}
	case nodeAlt:
		for _, s := range n.subs {
			one, start, ok := behindSet(s)
			if !ok {
				return nil, false, false
			}
			set, atStart = set.union(one), atStart || start
		}
		return set, atStart, true
	case nodeBehind:
		if n.not && len(n.set) == 1 && n.set[0] == anyRune[0] {
			return nil, true, true
		}
	}
	return nil, false, false
}

// escape reads what follows a backslash outside of brackets.
func (p *regexParser) escape(f *regexFlags) (*node, error) {
	if !p.more() {
		return nil, regexError("it ends in a backslash")
	}
	switch {
	case p.accept("A"):
		return textStart(), nil
	case p.accept("z"):
		return textEnd(), nil
	case p.accept("Z"):
		return altNode(textEnd(), aheadNode(catNode(setNode(newline), textEnd()), false)), nil
	case p.accept("b"):
		return wordBoundary(false), nil
	case p.accept("B"):
		return wordBoundary(true), nil
	case p.accept("R"):
		pair := catNode(setNode(runeSet{{'\r', '\r'}}), setNode(newline))
		return altNode(pair, catNode(aheadNode(pair, true), setNode(runeSet{{'\n', '\r'}, {0x85, 0x85}, {0x2028, 0x2029}}))), nil
	case p.accept("w"), p.accept("p{Word}"):
		return setNode(bareWord()), nil
	case p.accept("W"), p.accept("P{Word}"), p.accept("p{^Word}"):
		return setNode(bareWord().negate()), nil
	case p.accept("N"):
		return setNode(notNewline), nil
	case p.accept("O"):
		return setNode(anyRune), nil
	}
	s, c, err := p.escaped()
	if err != nil {
		return nil, err
	}
	if s == nil {
		return literal(c, f)
	}
	return setNode(s), nil
}

// escaped reads an escape that means the same in brackets: a set, or else one
// character.
func (p *regexParser) escaped() (runeSet, rune, error) {
	c := p.next()
	switch c {
	case 't':
		return nil, '\t', nil
	case 'n':
		return nil, '\n', nil
	case 'r':
		return nil, '\r', nil
	case 'f':
		return nil, '\f', nil
	case 'v':
		return nil, '\v', nil
	case 'a':
		return nil, '\a', nil
	case 'e':
		return nil, 0x1B, nil
	case 'x':
		if p.accept("{") {
			digits, _, _ := strings.Cut(p.expr[p.at:], "}")
			r, err := hexRune(digits, 8)
			p.at += min(len(digits)+1, len(p.expr)-p.at)
			return nil, r, err
		}
		n := 0
		for n < 2 && p.at+n < len(p.expr) && hexDigits.has(rune(p.expr[p.at+n])) {
			n++
		}
		if n == 0 {
			return nil, 0, nil // as Oniguruma has it
		}
		r, err := hexRune(p.expr[p.at:p.at+n], 2)
		p.at += n
		return nil, r, err
	case 'u':
		r, err := hexRune(p.expr[p.at:min(p.at+4, len(p.expr))], 4)
		if err == nil && p.at+4 > len(p.expr) {
			err = regexError(`\u without four digits`)
		}
		p.at = min(p.at+4, len(p.expr))
		return nil, r, err
	case 'd':
		return category("Nd"), 0, nil
	case 'D':
		return category("Nd").negate(), 0, nil
	case 's':
		return spaceSet(), 0, nil
	case 'S':
		return spaceSet().negate(), 0, nil
	case 'w':
		return word(), 0, nil
	case 'W':
		return word().negate(), 0, nil
	case 'h':
		return hexDigits, 0, nil
	case 'H':
		return hexDigits.negate(), 0, nil
	case 'p', 'P':
		s, err := p.property(c == 'P')
		return s, 0, err
	}
	if c == '0' { // octal
		n := 0
		for n < 2 && p.at+n < len(p.expr) && p.expr[p.at+n] >= '0' && p.expr[p.at+n] <= '7' {
			n++
		}
		v, _ := strconv.ParseUint("0"+p.expr[p.at:p.at+n], 8, 16)
		p.at += n
		return nil, rune(v), nil
	}
	if c < utf8.RuneSelf && (unicode.IsLetter(c) || unicode.IsDigit(c)) {
		return nil, 0, regexError(fmt.Sprintf(`the escape \%c`, c))
	}
	return nil, c, nil
}

func hexRune(digits string, most int) (rune, error) {
	v, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || len(digits) > most || v > unicode.MaxRune {
		return 0, regexError(fmt.Sprintf("%q is not the number of a character", clip(digits)))
	}
	return rune(v), nil
}

// property reads {NAME} or {^NAME}.
func (p *regexParser) property(not bool) (runeSet, error) {
	if !p.accept("{") {
		return nil, regexError(`\p without {`)
	}
	name, _, ok := strings.Cut(p.expr[p.at:], "}")
	if !ok {
		return nil, regexError(`\p{ without }`)
	}
	p.at += len(name) + 1
	if rest, ok := strings.CutPrefix(name, "^"); ok {
		name, not = rest, !not
	}
	find, ok := properties()[propertyName(name)]
	if !ok {
		return nil, regexError(fmt.Sprintf("the property %q", clip(name)))
	}
	s := find()
	if not {
		s = s.negate()
	}
	return nonNil(s), nil
}

// class reads what follows an opening bracket: ranges, sets, further brackets,
// and && between what is to be intersected.
func (p *regexParser) class(f *regexFlags) (runeSet, error) {
	if p.depth++; p.depth > maxRegexNesting {
		return nil, regexError("brackets nest too deep")
	}
	defer func() { p.depth-- }()
	not := p.accept("^")
	var ranges []runeRange
	result, intersect := anyRune, false
	done := func() runeSet {
		s := newRuneSet(ranges)
		if f.fold {
			s = s.fold()
		}
		return s
	}
	for first := true; ; first = false {
		if !p.more() {
			return nil, regexError("unmatched [")
		}
		switch {
		case p.looking("]") && !first:
			p.at++
			s := done()
			if intersect {
				s = result.intersect(s)
			}
			if not {
				s = s.negate()
			}
			return s, nil
		case p.accept("&&"):
			result, intersect, ranges = result.intersect(done()), true, nil
			continue
		}
		s, lo, err := p.classAtom(f)
		if err != nil {
			return nil, err
		}
		if s != nil {
			ranges = append(ranges, s...)
			continue
		}
		hi := lo
		if p.looking("-") && !p.looking("-]") && !p.looking("-&&") {
			at := p.at
			p.at++
			s, r, err := p.classAtom(f)
			switch {
			case err != nil:
				return nil, err
			case s != nil: // the - stands for itself
				p.at = at
			case r < lo:
				return nil, regexError("a range whose end is before its beginning")
			default:
				hi = r
			}
		}
		ranges = append(ranges, runeRange{lo, hi})
	}
}

// classAtom reads one element within brackets: a set, or else one character.
func (p *regexParser) classAtom(f *regexFlags) (runeSet, rune, error) {
	switch {
	case p.looking("[:") && posixClass(p.expr[p.at+2:]) > 0:
		name := p.expr[p.at+2 : p.at+2+posixClass(p.expr[p.at+2:])]
		p.at += len(name) + 4
		rest, not := strings.CutPrefix(name, "^")
		find, ok := properties()[rest]
		if !ok || propertyName(rest) != rest {
			return nil, 0, regexError(fmt.Sprintf("the class [:%s:]", clip(name)))
		}
		s := find()
		if rest == "punct" { // here it has symbols too
			s = s.union(category("S"))
		}
		if not {
			s = s.negate()
		}
		return nonNil(s), 0, nil
	case p.accept("["):
		s, err := p.class(f)
		return nonNil(s), 0, err
	case p.accept(`\`):
		if !p.more() {
			return nil, 0, regexError("it ends in a backslash")
		}
		if p.accept("b") {
			return nil, '\b', nil
		}
		return p.escaped()
	}
	if !p.more() {
		return nil, 0, regexError("unmatched [")
	}
	return nil, p.next(), nil
}

// posixClass returns the length of the name that s begins with if :] follows it,
// or else 0.
func posixClass(s string) int {
	name, _, ok := strings.Cut(s, ":]")
	if !ok || strings.Trim(strings.TrimPrefix(name, "^"), "abcdefghijklmnopqrstuvwxyz") != "" {
		return 0
	}
	return len(name)
}

// nonNil keeps an empty set apart from no set.
func nonNil(s runeSet) runeSet {
	if s == nil {
		return runeSet{}
	}
	return s
}
