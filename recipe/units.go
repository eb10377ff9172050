package recipe

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written like 8GiB or 500MB.
type Size int64

// units of ParseSize, the largest first so that String finds the best.
var units = []struct {
	name  string
	bytes float64
}{
	{"TiB", 1 << 40}, {"TB", 1e12},
	{"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6},
	{"KiB", 1 << 10}, {"kB", 1e3},
	{"B", 1},
}

// ParseSize reads a number of bytes with a unit: B, kB, MB, GB, TB (powers of
// 1000), KiB, MiB, GiB, TiB (powers of 1024), in either case, or no unit for
// bytes. Fractions are allowed where the result is whole: 1.5GiB.
func ParseSize(text string) (Size, error) {
	bad := func() (Size, error) {
		return 0, fmt.Errorf("%s is not a size: want a number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 8GiB", quote(text))
	}
	number := strings.TrimSpace(text)
	factor := 1.0
	for _, u := range units {
		if len(number) > len(u.name) && strings.EqualFold(number[len(number)-len(u.name):], u.name) {
			number, factor = strings.TrimSpace(number[:len(number)-len(u.name)]), u.bytes
			break
		}
	}
	if strings.Trim(number, "0123456789.") != "" || number == "" {
		return bad() // keeps out signs, exponents, hexadecimal, infinities
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && n <= math.MaxInt64/int64(factor) {
		return Size(n * int64(factor)), nil // exact, beyond float64's 2^53 too
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return bad()
	}
	f *= factor
	if f >= 1<<63 {
		return 0, fmt.Errorf("size %s is too large", quote(text))
	}
	if f != math.Trunc(f) {
		return 0, fmt.Errorf("size %s is not a whole number of bytes", quote(text))
	}
	return Size(f), nil
}

// String writes the size with the largest unit that leaves a whole number; it
// reads back the same.
func (s Size) String() string {
	for _, u := range units {
		if n := int64(u.bytes); s != 0 && int64(s)%n == 0 && n > 1 {
			return strconv.FormatInt(int64(s)/n, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// UnmarshalText is ParseSize, for command-line flags.
func (s *Size) UnmarshalText(text []byte) error {
	v, err := ParseSize(string(text))
	if err == nil {
		*s = v
	}
	return err
}

// MarshalText is String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// parseDuration adds days to time.ParseDuration: "1d", "1d12h".
func parseDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("%s is not a duration: want a number with ms, s, m, h or d, such as 90s or 1h30m", quote(text))
	rest := text
	var days time.Duration
	if number, after, found := strings.Cut(text, "d"); found {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/int64(24*time.Hour) || strings.HasPrefix(after, "-") {
			return 0, bad
		}
		days, rest = time.Duration(n)*24*time.Hour, after
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || (days > 0 && d > math.MaxInt64-days) {
		return 0, bad
	}
	return days + d, nil
}
