package jinja

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

// maxBits bounds integers: Python's are unlimited, and 9**9**9 would take all memory.
const maxBits = 8192

func newInt(v *big.Int) (Value, error) {
	if v.IsInt64() {
		return Int(v.Int64()), nil
	}
	if v.BitLen() > maxBits {
		return nil, errorf("an integer of more than %d bits", maxBits)
	}
	return &Big{v}, nil
}

// toBig returns an integer (or bool) as a big.Int, nil for anything else.
func toBig(v Value) *big.Int {
	switch v := v.(type) {
	case Int:
		return big.NewInt(int64(v))
	case *Big:
		return v.v
	case Bool:
		if v {
			return big.NewInt(1)
		}
		return new(big.Int)
	}
	return nil
}

// toInt returns an integer (or bool) that fits 64 bits.
func toInt(v Value) (int64, bool) {
	switch v := v.(type) {
	case Int:
		return int64(v), true
	case Bool:
		if v {
			return 1, true
		}
		return 0, true
	}
	return 0, false
}

// toFloat returns any number as a float.
func toFloat(v Value) (float64, bool) {
	switch v := v.(type) {
	case Float:
		return float64(v), true
	case *Big:
		f, _ := new(big.Float).SetInt(v.v).Float64()
		return f, true
	}
	i, ok := toInt(v)
	return float64(i), ok
}

// arithmetic applies + - * / // % ** to two numbers; ok is false if either isn't one.
func arithmetic(op string, a, b Value) (v Value, ok bool, err error) {
	if x, isInt := toInt(a); isInt {
		if y, isInt := toInt(b); isInt {
			if v := smallInts(op, x, y); v != nil {
				return v, true, nil
			}
		}
	}
	if x, y := toBig(a), toBig(b); x != nil && y != nil {
		v, err := bigInts(op, x, y)
		return v, true, err
	}
	x, okX := toFloat(a)
	y, okY := toFloat(b)
	if !okX || !okY {
		return nil, false, nil
	}
	for i, v := range []Value{a, b} {
		if _, isBig := v.(*Big); isBig && math.IsInf([]float64{x, y}[i], 0) {
			return nil, true, errorf("an integer is too large for a float")
		}
	}
	v, err = floats(op, x, y)
	return v, true, err
}

// smallInts covers what can't overflow or fail; nil sends the caller to bigInts.
func smallInts(op string, x, y int64) Value {
	const safe = 1 << 31
	switch op {
	case "+", "-", "*":
		if x >= safe || x <= -safe || y >= safe || y <= -safe {
			return nil
		}
		switch op {
		case "+":
			return Int(x + y)
		case "-":
			return Int(x - y)
		}
		return Int(x * y)
	case "//", "%":
		if y == 0 || x == math.MinInt64 {
			return nil
		}
		q, r := x/y, x%y
		if r != 0 && (r < 0) != (y < 0) { // Python rounds towards minus infinity
			q--
			r += y
		}
		if op == "//" {
			return Int(q)
		}
		return Int(r)
	}
	return nil
}

func bigInts(op string, x, y *big.Int) (Value, error) {
	out := new(big.Int)
	switch op {
	case "+":
		return newInt(out.Add(x, y))
	case "-":
		return newInt(out.Sub(x, y))
	case "*":
		return newInt(out.Mul(x, y))
	case "/":
		if y.Sign() == 0 {
			return nil, errorf("division by zero")
		}
		f, _ := new(big.Rat).SetFrac(x, y).Float64()
		if math.IsInf(f, 0) {
			return nil, errorf("integer division result too large for a float")
		}
		return Float(f), nil
	case "//", "%":
		if y.Sign() == 0 {
			return nil, errorf("integer division or modulo by zero")
		}
		q, r := new(big.Int).QuoRem(x, y, out)
		if r.Sign() != 0 && (r.Sign() < 0) != (y.Sign() < 0) {
			q.Sub(q, big.NewInt(1))
			r.Add(r, y)
		}
		if op == "//" {
			return newInt(q)
		}
		return newInt(r)
	}
	if y.Sign() < 0 {
		fx, _ := new(big.Float).SetInt(x).Float64()
		fy, _ := new(big.Float).SetInt(y).Float64()
		return floats("**", fx, fy)
	}
	if x.BitLen() > 1 && (!y.IsInt64() || y.Int64() > int64(maxBits/(x.BitLen()-1))) {
		return nil, errorf("an integer of more than %d bits", maxBits)
	}
	if x.BitLen() <= 1 { // -1, 0 and 1 stay small whatever the exponent
		if x.Sign() >= 0 && y.Sign() > 0 {
			return newInt(x)
		}
		if x.Sign() == 0 || y.Bit(0) == 0 {
			return Int(1), nil
		}
		return newInt(x)
	}
	return newInt(out.Exp(x, y, nil))
}

func floats(op string, x, y float64) (Value, error) {
	switch op {
	case "+":
		return Float(x + y), nil
	case "-":
		return Float(x - y), nil
	case "*":
		return Float(x * y), nil
	case "**":
		if x == 0 && y < 0 {
			return nil, errorf("0.0 cannot be raised to a negative power")
		}
		f := math.Pow(x, y)
		if math.IsNaN(f) && !math.IsNaN(x) && !math.IsNaN(y) {
			return nil, errorf("a negative number to a fractional power is complex")
		}
		if math.IsInf(f, 0) && !math.IsInf(x, 0) && !math.IsInf(y, 0) {
			return nil, errorf("numerical result out of range")
		}
		return Float(f), nil
	}
	if y == 0 {
		return nil, errorf("float division by zero")
	}
	switch op {
	case "/":
		return Float(x / y), nil
	case "%":
		return Float(floatMod(x, y)), nil
	}
	mod := math.Mod(x, y)
	div := (x - mod) / y
	if mod != 0 && (y < 0) != (mod < 0) {
		div--
	}
	if div == 0 {
		return Float(math.Copysign(0, x/y)), nil
	}
	floor := math.Floor(div)
	if div-floor > 0.5 {
		floor++
	}
	return Float(floor), nil
}

func floatMod(x, y float64) float64 {
	mod := math.Mod(x, y)
	if mod == 0 {
		return math.Copysign(0, y)
	}
	if (y < 0) != (mod < 0) {
		mod += y
	}
	return mod
}

func negate(v Value) (Value, bool) {
	switch v := v.(type) {
	case Float:
		return -v, true
	case Int, *Big, Bool:
		out, err := newInt(new(big.Int).Neg(toBig(v)))
		return out, err == nil
	}
	return nil, false
}

// formatFloat is Python's repr of a float: the shortest digits that read back, with an exponent below 1e-4 and from
// 1e16 on.
func formatFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.ContainsRune(s, '.') {
		s += ".0"
	}
	return s
}

// parseInt reads an integer as Python's int(text, base) does.
func parseInt(text string, base int64) (Value, bool) {
	s := strings.TrimFunc(text, isSpace)
	if len(s) > maxBits/4 || base < 0 || base == 1 || base > 36 {
		return nil, false
	}
	sign := ""
	if s != "" && (s[0] == '+' || s[0] == '-') {
		sign, s = s[:1], s[1:]
	}
	if len(s) > 2 && s[0] == '0' { // a prefix is allowed where it agrees with the base
		switch prefix := s[1] | 0x20; {
		case prefix == 'x' && (base == 16 || base == 0):
			base, s = 16, strings.TrimPrefix(s[2:], "_")
		case prefix == 'o' && (base == 8 || base == 0):
			base, s = 8, strings.TrimPrefix(s[2:], "_")
		case prefix == 'b' && (base == 2 || base == 0):
			base, s = 2, strings.TrimPrefix(s[2:], "_")
		}
	}
	if base == 0 {
		if len(s) > 1 && s[0] == '0' && strings.Trim(s, "0_") != "" {
			return nil, false
		}
		base = 10
	}
	if s == "" || s[0] == '_' || s[len(s)-1] == '_' || strings.Contains(s, "__") || s[0] == '+' || s[0] == '-' {
		return nil, false
	}
	v, ok := new(big.Int).SetString(sign+strings.ReplaceAll(s, "_", ""), int(base))
	if !ok {
		return nil, false
	}
	out, err := newInt(v)
	return out, err == nil
}

// parseFloat reads a float as Python's float(text) does.
func parseFloat(text string) (float64, bool) {
	s := strings.TrimFunc(text, isSpace)
	if strings.ContainsAny(s, "xXpP") || strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") {
		return 0, false
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	if err != nil && !math.IsInf(f, 0) {
		return 0, false
	}
	return f, true
}

// roundHalfEven rounds f to digits decimal places as Python's round does.
func roundHalfEven(f float64, digits int64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) || digits > 320 {
		return f
	}
	if digits >= 0 {
		out, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', int(digits), 64), 64)
		return out
	}
	if digits < -308 {
		return math.Copysign(0, f)
	}
	scale := math.Pow(10, float64(-digits))
	return math.RoundToEven(f/scale) * scale
}

// roundInt rounds an integer to a multiple of 10**-digits (digits below 0), ties to even.
func roundInt(v *big.Int, digits int64) (Value, error) {
	if digits < -maxBits {
		return Int(0), nil
	}
	unit := new(big.Int).Exp(big.NewInt(10), big.NewInt(-digits), nil)
	q, r := new(big.Int).DivMod(v, unit, new(big.Int))
	if c := r.Lsh(r, 1).Cmp(unit); c > 0 || c == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(1))
	}
	return newInt(q.Mul(q, unit))
}

// floatToInt is Python's int(f): truncation.
func floatToInt(f float64) (Value, bool) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, false
	}
	i, _ := big.NewFloat(f).Int(nil)
	v, err := newInt(i)
	return v, err == nil
}
