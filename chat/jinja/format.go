package jinja

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxWidth bounds widths and precisions in format strings.
const maxWidth = 10_000

// formatSpec is how one value is to be written; both Python's "%" and str.format reduce to it.
type formatSpec struct {
	fill      Str
	align     byte // '<', '>', '^', '=' or 0 for the type's own
	sign      byte // '+', ' ' or 0
	alternate bool // '#'
	width     int
	grouping  byte // ',', '_' or 0
	precision int  // -1 if not given
	verb      byte // 0 if not given
}

// percent is Python's s % v.
func (in *interp) percent(s Str, v Value) (Value, error) {
	p := &percentFormat{in: in, s: s, out: &builder{limit: in.limits.Output}, single: v}
	if t, ok := v.(*Tuple); ok {
		p.args, p.single = t.Items, nil
	}
	if err := in.chargeBytes(len(s.Text)); err != nil {
		return nil, err
	}
	if err := p.run(); err != nil {
		return nil, err
	}
	// Python takes whatever has elements, but for strings and tuples, for a mapping that may go unused.
	mapping := false
	switch v.(type) {
	case *Dict, *List, *rangeValue, *Undefined:
		mapping = true
	}
	if (p.single != nil && !p.usedSingle && !mapping) || p.next < len(p.args) {
		return nil, errorf("not all arguments converted during string formatting")
	}
	return p.out.str(), nil
}

type percentFormat struct {
	in         *interp
	s          Str
	out        *builder
	args       []Value
	next       int
	single     Value // the right operand where it is no tuple
	usedSingle bool
}

func (p *percentFormat) arg() (Value, error) {
	if p.single != nil && !p.usedSingle {
		p.usedSingle = true
		return p.single, nil
	}
	if p.next >= len(p.args) {
		return nil, errorf("not enough arguments for format string")
	}
	p.next++
	return p.args[p.next-1], nil
}

func (p *percentFormat) run() error {
	text := p.s.Text
	for i := 0; i < len(text); {
		j := strings.IndexByte(text[i:], '%')
		if j < 0 {
			return p.out.write(p.s.slice(i, len(text)))
		}
		if err := p.out.write(p.s.slice(i, i+j)); err != nil {
			return err
		}
		n, err := p.directive(text[i+j+1:])
		if err != nil {
			return err
		}
		i += j + 1 + n
	}
	return nil
}

// directive writes what the text after a '%' asks for, and returns how much of the text that took.
func (p *percentFormat) directive(text string) (int, error) {
	spec := formatSpec{fill: String(" "), align: '>', precision: -1}
	i := 0
	var v Value
	if strings.HasPrefix(text, "(") {
		end := strings.IndexByte(text, ')')
		d, ok := p.single.(*Dict)
		if end < 0 || !ok {
			return 0, errorf("a format with %%(name) needs a mapping")
		}
		if v, ok = d.getString(text[1:end]); !ok {
			return 0, errorf("format: no key '%s'", text[1:end])
		}
		i = end + 1
	}
	zero, left := false, false
	for ; i < len(text) && strings.IndexByte("#0- +", text[i]) >= 0; i++ {
		switch text[i] {
		case '#':
			spec.alternate = true
		case '0':
			zero = true
		case '-':
			left = true
		case ' ':
			if spec.sign == 0 {
				spec.sign = ' '
			}
		case '+':
			spec.sign = '+'
		}
	}
	var err error
	if spec.width, i, err = p.number(text, i); err != nil {
		return 0, err
	}
	if spec.width < 0 {
		left, spec.width = true, -spec.width
	}
	if i < len(text) && text[i] == '.' {
		if spec.precision, i, err = p.number(text, i+1); err != nil {
			return 0, err
		}
		spec.precision = max(spec.precision, 0)
	}
	for i < len(text) && strings.IndexByte("hlL", text[i]) >= 0 {
		i++
	}
	if i >= len(text) {
		return 0, errorf("incomplete format")
	}
	verb := text[i]
	if verb == '%' {
		return i + 1, p.out.writeText("%")
	}
	if v == nil {
		if v, err = p.arg(); err != nil {
			return 0, err
		}
	}
	if left {
		spec.align = '<'
	}
	number := strings.IndexByte("diuoxXeEfFgG", verb) >= 0
	if zero && !left && number {
		spec.fill, spec.align = String("0"), '='
	}
	switch {
	case verb == 's':
		s, err := p.in.toStr(v)
		if err != nil {
			return 0, err
		}
		return i + 1, p.in.formatStr(p.out, s, spec)
	case verb == 'r' || verb == 'a':
		b := &builder{limit: p.in.limits.Output}
		if err := p.in.repr(b, v); err != nil {
			return 0, err
		}
		return i + 1, p.in.formatStr(p.out, b.str(), spec)
	case verb == 'c':
		if s, ok := v.(Str); ok && s.length() == 1 {
			return i + 1, p.in.formatStr(p.out, s, spec)
		}
		r, ok := toInt(v)
		if !ok || r < 0 || r > utf8.MaxRune {
			return 0, errorf("%%c requires a character or its code")
		}
		return i + 1, p.in.formatStr(p.out, String(string(rune(r))), spec)
	case !number:
		return 0, errorf("unsupported format character '%c'", verb)
	}
	if _, ok := toFloat(v); !ok {
		if u, ok := v.(*Undefined); ok {
			return 0, u.fail()
		}
		return 0, errorf("%%%c format: a real number is required, not %s", verb, v.typeName())
	}
	switch verb {
	case 'i', 'u':
		verb = 'd'
	}
	if strings.IndexByte("doxX", verb) >= 0 {
		if f, ok := v.(Float); ok {
			whole, ok := floatToInt(float64(f))
			if !ok || verb != 'd' {
				return 0, errorf("%%%c format: an integer is required, not float", verb)
			}
			v = whole
		}
	} else {
		f, _ := toFloat(v)
		v = Float(f)
	}
	spec.verb = verb
	return i + 1, p.in.formatNumber(p.out, v, spec, true)
}

// number reads a width or precision: digits, or a * that takes an argument.
func (p *percentFormat) number(text string, i int) (n, next int, err error) {
	if i < len(text) && text[i] == '*' {
		v, err := p.arg()
		if err != nil {
			return 0, 0, err
		}
		k, ok := toInt(v)
		if !ok || k > maxWidth || k < -maxWidth {
			return 0, 0, errorf("format: * wants an integer up to %d", maxWidth)
		}
		return int(k), i + 1, nil
	}
	return readNumber(text, i)
}

func readNumber(text string, i int) (n, next int, err error) {
	from := i
	for i < len(text) && text[i] >= '0' && text[i] <= '9' {
		i++
	}
	if i == from {
		return 0, i, nil
	}
	n, err = strconv.Atoi(text[from:i])
	if err != nil || n > maxWidth {
		return 0, 0, errorf("format: %.20s exceeds the limit of %d", text[from:i], maxWidth)
	}
	return n, i, nil
}

// formatStr writes a string cut to the precision and padded to the width.
func (in *interp) formatStr(out *builder, s Str, spec formatSpec) error {
	if spec.precision >= 0 {
		s = s.slice(0, s.offset(spec.precision))
	}
	side := map[byte]int{'>': 1, '^': 0}
	where, ok := side[spec.align]
	if !ok {
		where = -1
	}
	pad := int64(spec.width - s.length())
	if pad <= 0 {
		return out.write(s)
	}
	left := map[int]int64{-1: 0, 0: pad / 2, 1: pad}[where]
	for i, n := range []int64{left, pad - left} {
		if i == 1 {
			if err := out.write(s); err != nil {
				return err
			}
		}
		fill, err := in.repeatStr(spec.fill, n)
		if err != nil {
			return err
		}
		if err := out.write(fill); err != nil {
			return err
		}
	}
	return nil
}

// formatNumber writes a number. percent tells the rules of "%" from those of str.format.
func (in *interp) formatNumber(out *builder, v Value, spec formatSpec, percent bool) error {
	negative := false
	prefix, digits := "", ""
	if f, ok := v.(Float); ok {
		x := float64(f)
		negative = math.Signbit(x) && !math.IsNaN(x)
		digits = floatDigits(math.Abs(x), spec)
	} else {
		i := toBig(v)
		negative = i.Sign() < 0
		abs := new(big.Int).Abs(i)
		base := map[byte]int{'b': 2, 'o': 8, 'x': 16, 'X': 16}[spec.verb]
		if base == 0 {
			base = 10
		} else if spec.alternate {
			prefix = "0" + string(rune(spec.verb))
		}
		digits = abs.Text(base)
		if spec.verb == 'X' {
			digits = strings.ToUpper(digits)
		}
		if percent && spec.precision > len(digits) {
			digits = strings.Repeat("0", spec.precision-len(digits)) + digits
		}
	}
	if spec.grouping != 0 {
		digits = group(digits, spec)
	}
	switch {
	case negative:
		prefix = "-" + prefix
	case spec.sign != 0:
		prefix = string(rune(spec.sign)) + prefix
	}
	spec.precision = -1
	switch spec.align {
	case 0:
		spec.align = '>'
	case '=':
		fill, err := in.repeatStr(spec.fill, int64(spec.width-len(prefix)-len(digits)))
		if err != nil {
			return err
		}
		if err := out.writeText(prefix); err != nil {
			return err
		}
		if err := out.write(fill); err != nil {
			return err
		}
		return out.writeText(digits)
	}
	return in.formatStr(out, String(prefix+digits), spec)
}

// floatDigits writes a float that isn't negative.
func floatDigits(x float64, spec formatSpec) string {
	upper := spec.verb == 'E' || spec.verb == 'F' || spec.verb == 'G'
	verb, precision := spec.verb|0x20, spec.precision
	text := ""
	switch {
	case math.IsInf(x, 0):
		text = "inf"
	case math.IsNaN(x):
		text = "nan"
	case spec.verb == 0 && precision < 0:
		text = formatFloat(x)
	case spec.verb == 0: // like g, but with at least one digit after the point
		text = generalDigits(x, max(precision, 1), false)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
	case verb == 'g' || verb == 'n':
		if precision < 0 {
			precision = 6
		}
		text = generalDigits(x, max(precision, 1), spec.alternate)
	case spec.verb == '%':
		if precision < 0 {
			precision = 6
		}
		text = strconv.FormatFloat(x*100, 'f', precision, 64) + "%"
	default:
		if precision < 0 {
			precision = 6
		}
		text = strconv.FormatFloat(x, verb, precision, 64)
		if spec.alternate && precision == 0 && verb == 'f' {
			text += "."
		}
	}
	if upper {
		text = strings.ToUpper(text)
	}
	return text
}

// generalDigits is C's %g: precision significant digits, an exponent if it is below -4 or not below the precision.
func generalDigits(x float64, precision int, keepZeros bool) string {
	if x == 0 {
		return "0"
	}
	e := strconv.FormatFloat(x, 'e', precision-1, 64)
	mark := strings.IndexByte(e, 'e')
	exponent, _ := strconv.Atoi(e[mark+1:])
	trim := func(s string) string {
		if keepZeros || !strings.Contains(s, ".") {
			return s
		}
		return strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if exponent < -4 || exponent >= precision {
		return trim(e[:mark]) + e[mark:]
	}
	return trim(strconv.FormatFloat(x, 'f', precision-1-exponent, 64))
}

// group puts separators into the integer part of digits: every 3, or every 4 for binary, octal and hexadecimal.
func group(digits string, spec formatSpec) string {
	size := 3
	if strings.IndexByte("boxX", spec.verb) >= 0 && spec.verb != 0 {
		size = 4
	}
	end := strings.IndexAny(digits, ".e%")
	if end < 0 || size == 4 {
		end = len(digits)
	}
	out := digits[end:]
	for ; end > size; end -= size {
		out = string(rune(spec.grouping)) + digits[end-size:end] + out
	}
	return digits[:end] + out
}
