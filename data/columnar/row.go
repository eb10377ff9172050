// Package columnar holds what the readers of Parquet and Arrow share: the JSON that a row of columns becomes, and
// decompression whose cost a file can't choose.
package columnar

import (
	"encoding/base64"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"time"
	"unicode/utf8"
)

// Row collects the JSON form of one row. Values above the limit are counted but not kept, so that a reader can go
// through a row that is too large as through any other, and come out at the next.
type Row struct {
	Buf   []byte // the JSON so far
	Limit int    // of len(Buf), in bytes
	Over  bool   // says that the row is larger than Limit; Buf then holds its beginning only
	// Bad is the first trouble that concerns this row alone, such as text that isn't UTF-8.
	Bad *BadValue
}

// BadValue is a value that has no JSON form.
type BadValue struct{ Column, Msg string }

func (e *BadValue) Error() string { return fmt.Sprintf("column %q: %s", e.Column, e.Msg) }

// MaxPath is the longest name of a column with those of the columns around it. Names are short; the limit keeps a file
// from making many long ones out of few bytes.
const MaxPath = 8 << 10

// Reset begins a new row.
func (r *Row) Reset() { r.Buf, r.Over, r.Bad = r.Buf[:0], false, nil }

// room says whether n more bytes fit.
func (r *Row) room(n int) bool {
	if r.Over || n > r.Limit-len(r.Buf) {
		r.Over = true
		return false
	}
	return true
}

// Raw appends JSON as it stands.
func (r *Row) Raw(s string) {
	if r.room(len(s)) {
		r.Buf = append(r.Buf, s...)
	}
}

// Object appends the columns of a row, or of a group within it, as an object: key is a
// column's JSON name with the colon, value appends what it holds. A column whose value
// says that there is none is left out.
func Object[C any](r *Row, columns []C, key func(C) string, value func(C) (there bool, err error)) error {
	r.Raw("{")
	first := true
	for _, c := range columns {
		mark := len(r.Buf)
		if !first {
			r.Raw(",")
		}
		r.Raw(key(c))
		there, err := value(c)
		if err != nil {
			return err
		}
		if !there {
			if !r.Over {
				r.Buf = r.Buf[:mark]
			}
			continue
		}
		first = false
	}
	r.Raw("}")
	return nil
}

// Int appends a whole number.
func (r *Row) Int(v int64) {
	if r.room(20) {
		r.Buf = strconv.AppendInt(r.Buf, v, 10)
	}
}

// Uint appends a whole number.
func (r *Row) Uint(v uint64) {
	if r.room(20) {
		r.Buf = strconv.AppendUint(r.Buf, v, 10)
	}
}

// Float appends the shortest decimal that reads back as the same number of so many bits; what isn't finite has no JSON
// form and becomes null.
func (r *Row) Float(v float64, bits int) {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		r.Raw("null")
	case r.room(32):
		r.Buf = strconv.AppendFloat(r.Buf, v, 'g', -1, bits)
	}
}

// Bool appends true or false.
func (r *Row) Bool(v bool) { r.Raw(strconv.FormatBool(v)) }

// Text appends a string. What isn't UTF-8 is the row's trouble.
func (r *Row) Text(b []byte, column string) {
	if !utf8.Valid(b) {
		if r.Bad == nil {
			r.Bad = &BadValue{column, "invalid UTF-8 in a column of text"}
		}
		r.Raw(`""`)
		return
	}
	if !r.room(len(b) + 2) {
		return
	}
	r.Buf = append(r.Buf, '"')
	from := 0
	for i, c := range b {
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		r.Buf = append(r.Buf, b[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			r.Buf = append(r.Buf, '\\', c)
		case '\n':
			r.Buf = append(r.Buf, `\n`...)
		case '\t':
			r.Buf = append(r.Buf, `\t`...)
		case '\r':
			r.Buf = append(r.Buf, `\r`...)
		default:
			r.Buf = fmt.Appendf(r.Buf, `\u%04x`, c)
		}
		if !r.room(len(b) - i) {
			return
		}
	}
	r.Buf = append(r.Buf, b[from:]...)
	r.Buf = append(r.Buf, '"')
}

// Bytes appends bytes of unknown meaning: as text where they are UTF-8, else in base64.
func (r *Row) Bytes(b []byte, column string) {
	if utf8.Valid(b) {
		r.Text(b, column)
		return
	}
	n := base64.StdEncoding.EncodedLen(len(b))
	if !r.room(n + 2) {
		return
	}
	r.Buf = append(r.Buf, '"')
	r.Buf = base64.StdEncoding.AppendEncode(r.Buf, b)
	r.Buf = append(r.Buf, '"')
}

// Decimal appends a number given as a big-endian two's complement times 10^-scale. Arrow's decimals have at most 256
// bits; anything longer is no number and shown as bytes.
func (r *Row) Decimal(b []byte, scale int, column string) {
	if len(b) == 0 || len(b) > 32 || scale < 0 || scale > 128 {
		r.Bytes(b, column)
		return
	}
	v := new(big.Int).SetBytes(b)
	if b[0]&0x80 != 0 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	digits := new(big.Int).Abs(v).String()
	for len(digits) <= scale {
		digits = "0" + digits
	}
	if v.Sign() < 0 {
		r.Raw("-")
	}
	r.Raw(digits[:len(digits)-scale])
	if scale > 0 {
		r.Raw("." + digits[len(digits)-scale:])
	}
}

// Timestamp appends a point in time, counted in units of so many nanoseconds since 1970.
func (r *Row) Timestamp(v, unit int64) {
	perSecond := int64(time.Second) / unit
	sec, rest := v/perSecond, v%perSecond
	if rest < 0 {
		sec, rest = sec-1, rest+perSecond
	}
	r.Moment(sec, rest*unit)
}

// Moment appends a point in time, in seconds and nanoseconds since 1970.
func (r *Row) Moment(sec, nanos int64) {
	r.Raw(`"` + time.Unix(sec, nanos).UTC().Format("2006-01-02T15:04:05.999999999") + `"`)
}

// Date appends a day, counted from 1970-01-01.
func (r *Row) Date(days int64) {
	const most = 1 << 32 // far outside of the calendar, and safe to multiply
	days = max(-most, min(days, most))
	r.Raw(`"` + time.Unix(days*86400, 0).UTC().Format("2006-01-02") + `"`)
}

// Clock appends a time of day, counted in units of so many nanoseconds since midnight.
func (r *Row) Clock(v, unit int64) {
	day := int64(24*time.Hour) / unit
	v = (v%day + day) % day
	r.Raw(`"` + time.Unix(0, v*unit).UTC().Format("15:04:05.999999999") + `"`)
}

// Half widens an IEEE 754 half-precision number.
func Half(bits uint16) float64 {
	sign, exp, frac := bits>>15, int(bits>>10&0x1f), float64(bits&0x3ff)
	v := math.Ldexp(1+frac/1024, exp-15)
	switch exp {
	case 0:
		v = math.Ldexp(frac, -24)
	case 31:
		v = math.Inf(1)
		if frac != 0 {
			v = math.NaN()
		}
	}
	if sign != 0 {
		return -v
	}
	return v
}
