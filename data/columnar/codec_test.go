package columnar

import (
	"bytes"
	"encoding/base64"
	"math"
	"strings"
	"testing"
)

// An LZ4 frame and a block that Python's pyarrow 26 (liblz4) wrote of the same text, in base64.
const (
	lz4Text  = "the rain in the plain, the rain in the plain, the rain in the plain; 0123456789 end"
	lz4Frame = "BCJNGGBAgi4AAADAdGhlIHJhaW4gaW4gDABhcGxhaW4sCwAPFwAV8AE7IDAxMjM0NTY3ODkgZW5kAAAAAA=="
	lz4Block = "wHRoZSByYWluIGluIAwAYXBsYWluLAsADxcAFfABOyAwMTIzNDU2Nzg5IGVuZA=="
)

func decode(t testing.TB, s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLZ4(t *testing.T) {
	got, err := LZ4Frame(nil, decode(t, lz4Frame), len(lz4Text))
	if err != nil || string(got) != lz4Text {
		t.Errorf("frame: %q, %v", got, err)
	}
	got, err = LZ4(nil, decode(t, lz4Block), 0, len(lz4Text))
	if err != nil || string(got) != lz4Text {
		t.Errorf("block: %q, %v", got, err)
	}
	for n := range decode(t, lz4Frame) {
		if _, err := LZ4Frame(nil, decode(t, lz4Frame)[:n], len(lz4Text)); err == nil {
			t.Errorf("a frame of %d bytes is read", n)
		}
	}
}

// Whatever the bytes are, no more is unpacked than was asked for.
func FuzzLZ4(f *testing.F) {
	f.Add(decode(f, lz4Frame), len(lz4Text))
	f.Add(decode(f, lz4Block), len(lz4Text))
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		size &= 1<<20 - 1
		if out, err := LZ4Frame(nil, b, size); err == nil && len(out) != size {
			t.Errorf("%d bytes, expected %d", len(out), size)
		}
		if out, err := LZ4(nil, b, 0, size); err == nil && len(out) > size {
			t.Errorf("%d bytes, expected at most %d", len(out), size)
		}
	})
}

func TestRow(t *testing.T) {
	r := Row{Limit: 1000}
	r.Raw("[")
	r.Text([]byte("a\"\\\n\t\r\x01é\u2028"), "c")
	for _, f := range []func(){
		func() { r.Int(math.MinInt64) }, func() { r.Uint(math.MaxUint64) },
		func() { r.Float(float64(float32(0.1)), 32) }, func() { r.Float(math.NaN(), 64) }, func() { r.Float(1e300, 64) },
		func() { r.Decimal([]byte{0xff, 0x85}, 2, "c") }, func() { r.Decimal([]byte{1}, 3, "c") }, func() { r.Bytes([]byte{0xff, 0}, "c") },
		func() { r.Timestamp(-1, 1e6) }, func() { r.Date(-1) }, func() { r.Clock(3723, 1e9) }, func() { r.Float(Half(0x3c01), 32) },
	} {
		r.Raw(",")
		f()
	}
	want := `["a\"\\\n\t\r\u0001é` + "\u2028" + `",-9223372036854775808,18446744073709551615,0.1,null,1e+300,-1.23,0.001,"/wA=",` +
		`"1969-12-31T23:59:59.999","1969-12-31","01:02:03",1.0009766`
	if string(r.Buf) != want {
		t.Errorf("got  %s\nwant %s", r.Buf, want)
	}
	r.Text([]byte{0xff}, "words")
	if r.Bad == nil || !strings.Contains(r.Bad.Error(), "words") {
		t.Errorf("bad text is %v", r.Bad)
	}
	r.Reset()
	r.Limit = 10
	r.Text([]byte("12345"), "")
	r.Text([]byte("12345"), "")
	if !r.Over || !bytes.Equal(r.Buf, []byte(`"12345"`)) {
		t.Errorf("over %v: %s", r.Over, r.Buf)
	}
}
