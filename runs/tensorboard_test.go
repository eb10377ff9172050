package runs

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// records takes a TFRecord file apart, checking both checksums of each frame.
func records(t *testing.T, data []byte) [][]byte {
	t.Helper()
	unmask := func(masked uint32) uint32 {
		rot := masked - 0xa282ead8
		return rot>>17 | rot<<15
	}
	check := func(b []byte, masked uint32) {
		if crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) != unmask(masked) {
			t.Fatal("wrong checksum")
		}
	}
	var out [][]byte
	for len(data) > 0 {
		n := binary.LittleEndian.Uint64(data)
		check(data[:8], binary.LittleEndian.Uint32(data[8:]))
		body := data[12 : 12+n]
		check(body, binary.LittleEndian.Uint32(data[12+n:]))
		out = append(out, body)
		data = data[16+n:]
	}
	return out
}

// fields takes a protobuf message apart: field number -> values, integers and
// fixed-width ones as 8 bytes.
func fields(t *testing.T, m []byte) map[int][][]byte {
	t.Helper()
	out := map[int][][]byte{}
	for len(m) > 0 {
		tag, n := binary.Uvarint(m)
		m = m[n:]
		var v []byte
		switch tag & 7 {
		case 0:
			x, n := binary.Uvarint(m)
			v, m = binary.LittleEndian.AppendUint64(nil, x), m[n:]
		case 1:
			v, m = m[:8], m[8:]
		case 2:
			l, n := binary.Uvarint(m)
			v, m = m[n:n+int(l)], m[n+int(l):]
		case 5:
			v, m = m[:4], m[4:]
		default:
			t.Fatalf("wire type %d", tag&7)
		}
		out[int(tag>>3)] = append(out[int(tag>>3)], v)
	}
	return out
}

func number(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) }

// The known checksum of CRC-32C, from RFC 3720's catalogue.
func TestMaskedCRC(t *testing.T) {
	crc := uint32(0xe3069283)
	if got, want := maskedCRC([]byte("123456789")), (crc>>15|crc<<17)+0xa282ead8; got != want {
		t.Errorf("%08x, want %08x", got, want)
	}
}

func TestEvents(t *testing.T) {
	dir := t.TempDir()
	r, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Log(7, map[string]float64{"loss": 2.5, "eval/loss": math.NaN()}); err != nil {
		t.Fatal(err)
	}
	if err := r.Sample(Sample{Step: 7, Prompt: "say ```hi```", Completion: "a/b\xff"}); err != nil {
		t.Fatal(err)
	}
	r.Close()
	// A second session, in the same second, has its own file.
	if r, err = Open(dir); err != nil {
		t.Fatal(err)
	}
	if err := r.Resume(5); err != nil {
		t.Fatal(err)
	}
	if err := r.Log(6, map[string]float64{"loss": 3}); err != nil {
		t.Fatal(err)
	}
	r.Close()

	files, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("event files %q, %v, want 2", files, err)
	}
	var sessions [][][]byte
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, records(t, data))
	}
	if len(sessions[0]) != 3 || len(sessions[1]) != 3 {
		t.Fatalf("%d and %d events, want 3 and 3", len(sessions[0]), len(sessions[1]))
	}
	if v := fields(t, sessions[0][0]); string(v[3][0]) != "brain.Event:2" || math.Float64frombits(uint64(number(v[1][0]))) < 1.7e9 {
		t.Errorf("first event %v", v)
	}

	scalars := fields(t, sessions[0][1])
	if number(scalars[2][0]) != 7 {
		t.Errorf("step %d, want 7", number(scalars[2][0]))
	}
	values := fields(t, scalars[5][0])[1]
	if len(values) != 2 {
		t.Fatalf("%d values, want 2", len(values))
	}
	loss, eval := fields(t, values[0]), fields(t, values[1])
	if string(loss[1][0]) != "loss" || math.Float32frombits(binary.LittleEndian.Uint32(loss[2][0])) != 2.5 {
		t.Errorf("loss %v", loss)
	}
	if got := math.Float32frombits(binary.LittleEndian.Uint32(eval[2][0])); string(eval[1][0]) != "eval/loss" || got == got {
		t.Errorf("eval/loss %v", eval)
	}

	text := fields(t, fields(t, fields(t, sessions[0][2])[5][0])[1][0])
	if tag := string(text[1][0]); !strings.HasPrefix(tag, "samples/say ```hi``` (") {
		t.Errorf("tag %q", tag)
	}
	tensor := fields(t, text[8][0])
	want := "````\nsay ```hi```\n````\n\n```\na/b\ufffd\n```"
	if got := string(tensor[8][0]); got != want || number(tensor[1][0]) != 7 {
		t.Errorf("text %q, want %q", got, want)
	}
	if plugin := fields(t, fields(t, text[9][0])[1][0]); string(plugin[1][0]) != "text" {
		t.Errorf("plugin %q", plugin[1][0])
	}

	start := fields(t, sessions[1][1])
	if number(start[2][0]) != 6 || !bytes.Equal(start[7][0], []byte{0x08, 1}) {
		t.Errorf("session start %v, want one at step 6", start)
	}
}
