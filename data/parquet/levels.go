package parquet

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

var errValues = errors.New("the page has fewer values than it says")

// hybrid reads numbers of a fixed width that are partly run-length encoded, partly bit-packed (Encodings.md, RLE). It
// decodes one number at a time, so that a long run costs nothing.
type hybrid struct {
	b     []byte
	width int
	run   uint64 // numbers left of a run
	value uint32 // of the run
	// packed numbers that are left, and where the next one begins, in bits.
	packed uint64
	bit    uint64
	group  []byte
}

func (h *hybrid) next() (uint32, error) {
	for {
		switch {
		case h.run > 0:
			h.run--
			return h.value, nil
		case h.packed > 0:
			h.packed--
			v := unpack(h.group, h.bit, h.width)
			h.bit += uint64(h.width)
			return v, nil
		}
		header, n := binary.Uvarint(h.b)
		if n <= 0 {
			return 0, errValues
		}
		h.b = h.b[n:]
		if header&1 == 0 {
			size := (h.width + 7) / 8
			if size > len(h.b) {
				return 0, errValues
			}
			h.run, h.value = header>>1, 0
			for i := range size {
				h.value |= uint32(h.b[i]) << (8 * i)
			}
			h.b = h.b[size:]
			continue
		}
		groups := header >> 1
		if h.width > 0 && groups > uint64(len(h.b))/uint64(h.width) {
			// The last run may leave out what nobody reads.
			if groups = (uint64(len(h.b)) + uint64(h.width) - 1) / uint64(h.width); groups == 0 {
				return 0, errValues
			}
		}
		size := min(groups*uint64(h.width), uint64(len(h.b)))
		h.group, h.bit = h.b[:size], 0
		h.packed = min(groups*8, 1<<62)
		if h.width > 0 {
			h.packed = min(h.packed, size*8/uint64(h.width))
		}
		h.b = h.b[size:]
	}
}

// unpack reads the number of width bits, least significant first, that begins at a bit. It lies within b.
func unpack(b []byte, bit uint64, width int) uint32 {
	var v uint64
	at := bit >> 3
	for i := uint64(0); i < 5 && at+i < uint64(len(b)); i++ {
		v |= uint64(b[at+i]) << (8 * i)
	}
	return uint32(v >> (bit & 7) & (1<<width - 1))
}

// unpack64 is unpack for up to 64 bits.
func unpack64(b []byte, bit uint64, width int) uint64 {
	if width <= 32 {
		return uint64(unpack(b, bit, width))
	}
	return uint64(unpack(b, bit, 32)) | uint64(unpack(b, bit+32, width-32))<<32
}

// levelWidth is how many bits a level up to most takes.
func levelWidth(most int) int { return bits.Len(uint(most)) }
