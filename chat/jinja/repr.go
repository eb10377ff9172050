package jinja

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// toStr is Python's str(v): what a value prints as.
func (in *interp) toStr(v Value) (Str, error) {
	switch v := v.(type) {
	case Str:
		return v, nil
	case *Undefined:
		return Str{}, nil
	}
	out := &builder{limit: in.limits.Output}
	if err := in.repr(out, v); err != nil {
		return Str{}, err
	}
	return out.str(), in.chargeBytes(len(out.text))
}

// repr writes Python's repr(v).
func (in *interp) repr(out *builder, v Value) error {
	if err := in.enter(); err != nil {
		return err
	}
	defer in.leave()
	switch v := v.(type) {
	case None:
		return out.writeText("None")
	case Bool:
		if v {
			return out.writeText("True")
		}
		return out.writeText("False")
	case Int:
		return out.writeText(strconv.FormatInt(int64(v), 10))
	case *Big:
		return out.writeText(v.v.String())
	case Float:
		return out.writeText(formatFloat(float64(v)))
	case Str:
		if err := in.chargeBytes(len(v.Text)); err != nil {
			return err
		}
		if v.safe {
			if err := out.writeText("Markup("); err != nil {
				return err
			}
		}
		if err := out.write(v.derived(quote(v.Text))); err != nil || !v.safe {
			return err
		}
		return out.writeText(")")
	case *Undefined:
		return out.writeText("Undefined")
	case *List:
		return in.reprItems(out, "[", v.Items, "]")
	case *Tuple:
		if len(v.Items) == 1 {
			return in.reprItems(out, "(", v.Items, ",)")
		}
		return in.reprItems(out, "(", v.Items, ")")
	case *view:
		return in.reprItems(out, v.name+"([", v.items, "])")
	case *Dict:
		return in.reprPairs(out, "{", v.keys(), v.values(), "}")
	case *namespace:
		names := make([]Value, len(v.attrs.names))
		for i, name := range v.attrs.names {
			names[i] = String(name)
		}
		return in.reprPairs(out, "<Namespace {", names, v.attrs.values, "}>")
	case *rangeValue:
		text := fmt.Sprintf("range(%d, %d", v.start, v.start+v.n*v.step)
		if v.step != 1 {
			text += fmt.Sprintf(", %d", v.step)
		}
		return out.writeText(text + ")")
	case *macro:
		return out.writeText("<Macro " + quote(v.name) + ">")
	}
	return out.writeText("<" + v.typeName() + " object>")
}

func (in *interp) reprItems(out *builder, open string, items []Value, end string) error {
	if err := out.writeText(open); err != nil {
		return err
	}
	for i, item := range items {
		if i > 0 {
			if err := out.writeText(", "); err != nil {
				return err
			}
		}
		if err := in.repr(out, item); err != nil {
			return err
		}
	}
	return out.writeText(end)
}

func (in *interp) reprPairs(out *builder, open string, keys, values []Value, end string) error {
	if err := out.writeText(open); err != nil {
		return err
	}
	for i := range keys {
		if i > 0 {
			if err := out.writeText(", "); err != nil {
				return err
			}
		}
		if err := in.repr(out, keys[i]); err != nil {
			return err
		}
		if err := out.writeText(": "); err != nil {
			return err
		}
		if err := in.repr(out, values[i]); err != nil {
			return err
		}
	}
	return out.writeText(end)
}

// quote is Python's repr of a str: single quotes unless only double quotes avoid escaping.
func quote(s string) string {
	q := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = '"'
	}
	out := make([]byte, 0, len(s)+2)
	out = append(out, q)
	for _, r := range s {
		switch {
		case r == rune(q) || r == '\\':
			out = append(out, '\\', byte(r))
		case r == '\n':
			out = append(out, `\n`...)
		case r == '\r':
			out = append(out, `\r`...)
		case r == '\t':
			out = append(out, `\t`...)
		case r < 0x20 || r == 0x7f:
			out = fmt.Appendf(out, `\x%02x`, r)
		case r < 0x7f || unicode.IsPrint(r):
			out = append(out, string(r)...)
		case r < 0x100:
			out = fmt.Appendf(out, `\x%02x`, r)
		case r < 0x10000:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = fmt.Appendf(out, `\U%08x`, r)
		}
	}
	return string(append(out, q))
}
