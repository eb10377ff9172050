package runs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// TensorBoard event files: TFRecord frames around Event messages.
//
//	frame  = u64 length | u32 masked CRC32-C of the length | data | u32 masked CRC32-C of the data
//	masked = (crc >> 15 | crc << 17) + 0xa282ead8
//
// Sources: tensorflow/core/lib/io/record_writer.h (framing) and the message
// definitions event.proto, summary.proto, tensor.proto in tensorboard/compat/proto.
// The few fields needed are encoded by hand.

// events writes one event file.
type events struct {
	f *os.File
}

// createEvents begins a new event file; a resumed run adds a file. Given
// purge >= 0, TensorBoard forgets what earlier files say of that step and
// later ones.
func createEvents(dir string, purge int64) (*events, error) {
	host := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r) {
			return r
		}
		return '_'
	}, hostname())
	var f *os.File
	for at := time.Now().Unix(); ; at++ { // two sessions in one second must not share a file
		var err error
		path := filepath.Join(dir, fmt.Sprintf("events.out.tfevents.%010d.%s", at, host))
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	e := &events{f}
	first := e.event(0)
	first.str(3, "brain.Event:2") // file_version
	err := e.write(first)
	if err == nil && purge >= 0 {
		var session, start message
		session.varint(1, 1) // status: START
		start = e.event(purge)
		start.bytes(7, session) // session_log
		err = e.write(start)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return e, nil
}

// event begins an Event: wall_time and step.
func (e *events) event(step int64) message {
	var m message
	m.double(1, float64(time.Now().UnixMicro())/1e6)
	m.varint(2, uint64(step))
	return m
}

// scalars writes one event with a scalar a metric, its tag the metric's name.
func (e *events) scalars(step int, values map[string]float64) error {
	var summary message
	for _, key := range keyOrder(values) {
		var value message
		value.str(1, key)                    // tag
		value.float(2, float32(values[key])) // simple_value
		summary.bytes(1, value)              // value
	}
	m := e.event(int64(step))
	m.bytes(5, summary)
	return e.write(m)
}

// text writes a sample for the text plugin, as Markdown with the answer in a
// fence that it cannot close.
func (e *events) text(s Sample) error {
	content := fence(s.Prompt) + "\n\n" + fence(s.Completion)
	if s.Score != nil {
		content += fmt.Sprintf("\n\nscore %g", *s.Score)
	}
	var plugin, metadata, dim, shape, tensor, value, summary message
	plugin.str(1, "text")     // plugin_name
	metadata.bytes(1, plugin) // plugin_data
	metadata.varint(4, 2)     // data_class: DATA_CLASS_TENSOR
	dim.varint(1, 1)          // size
	shape.bytes(2, dim)
	tensor.varint(1, 7) // dtype: DT_STRING
	tensor.bytes(2, shape)
	tensor.str(8, content) // string_val
	value.str(1, "samples/"+sampleTag(s.Prompt))
	value.bytes(8, tensor)
	value.bytes(9, metadata)
	summary.bytes(1, value)
	m := e.event(int64(s.Step))
	m.bytes(5, summary)
	return e.write(m)
}

// sampleTag names a prompt by its beginning and, since beginnings repeat, a
// checksum.
func sampleTag(prompt string) string {
	words := strings.Join(strings.Fields(prompt), " ")
	if runes := []rune(words); len(runes) > 40 {
		words = string(runes[:40])
	}
	return fmt.Sprintf("%s (%08x)", strings.ToValidUTF8(strings.ReplaceAll(words, "/", " "), ""), crc32.ChecksumIEEE([]byte(prompt)))
}

// fence puts text into a Markdown code fence longer than any in it.
func fence(text string) string {
	ticks := "```"
	for strings.Contains(text, ticks) {
		ticks += "`"
	}
	return ticks + "\n" + strings.ToValidUTF8(text, "\ufffd") + "\n" + ticks
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func maskedCRC(b []byte) uint32 {
	crc := crc32.Checksum(b, castagnoli)
	return (crc>>15 | crc<<17) + 0xa282ead8
}

// frame puts a record into TFRecord framing.
func frame(data []byte) []byte {
	out := binary.LittleEndian.AppendUint64(make([]byte, 0, len(data)+16), uint64(len(data)))
	out = binary.LittleEndian.AppendUint32(out, maskedCRC(out))
	out = append(out, data...)
	return binary.LittleEndian.AppendUint32(out, maskedCRC(data))
}

func (e *events) write(m message) error {
	_, err := e.f.Write(frame(m))
	return err
}

// message is a Protocol Buffers message being encoded
// (https://protobuf.dev/programming-guides/encoding/).
type message []byte

// tag begins a field; wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
func (m *message) tag(field, wire int) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|uint64(wire))
}

func (m *message) varint(field int, v uint64) {
	m.tag(field, 0)
	*m = binary.AppendUvarint(*m, v)
}

func (m *message) double(field int, v float64) {
	m.tag(field, 1)
	*m = binary.LittleEndian.AppendUint64(*m, math.Float64bits(v))
}

func (m *message) float(field int, v float32) {
	m.tag(field, 5)
	*m = binary.LittleEndian.AppendUint32(*m, math.Float32bits(v))
}

func (m *message) bytes(field int, v []byte) {
	m.tag(field, 2)
	*m = binary.AppendUvarint(*m, uint64(len(v)))
	*m = append(*m, v...)
}

func (m *message) str(field int, v string) { m.bytes(field, []byte(v)) }
