package columnar

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// MaxBlock is the largest block (a page of Parquet, a buffer of Arrow) that is unpacked: 1 GiB.
const MaxBlock = 1 << 30

// Snappy, Gzip, Zstd and LZ4 unpack a block whose unpacked size is known. A size that the packed bytes can't give isn't
// allocated: memory grows with what is really unpacked, or is bounded by the format's best ratio.

// Snappy unpacks a block of snappy, appending to dst[:0].
func Snappy(dst, src []byte, size int) ([]byte, error) {
	n, err := s2.DecodedLen(src)
	if err != nil {
		return nil, err
	}
	// Snappy's best is a copy of 64 bytes in 3.
	if n != size || n/22 > len(src) {
		return nil, sizeErr(size, n)
	}
	out, err := s2.Decode(dst[:cap(dst)], src)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Gzip unpacks a block of gzip.
func Gzip(dst, src []byte, size int) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(src))
	if err != nil {
		return nil, err
	}
	return readSized(dst, r, size, len(src))
}

// Zstd unpacks a block of zstd.
func Zstd(dst, src []byte, size int) ([]byte, error) {
	r := zstdReaders.Get().(*zstd.Decoder)
	defer zstdReaders.Put(r)
	if err := r.Reset(bytes.NewReader(src)); err != nil {
		return nil, err
	}
	return readSized(dst, r, size, len(src))
}

// zstdReaders keeps decoders, whose tables are dear to make. With a concurrency of 1 they have no goroutines to end.
var zstdReaders = sync.Pool{New: func() any {
	r, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow))
	if err != nil {
		panic(err) // the options are right
	}
	return r
}}

// maxZstdWindow is the largest window that is made room for: that of zstd's option --long.
const maxZstdWindow = 128 << 20

// readSized reads exactly size bytes.
func readSized(dst []byte, r io.Reader, size, packed int) ([]byte, error) {
	dst = dst[:0]
	if cap(dst) < size {
		dst = make([]byte, 0, min(size, max(1<<16, 8*packed)))
	}
	for len(dst) < size {
		if len(dst) == cap(dst) {
			dst = append(dst, 0)[:len(dst)]
		}
		n, err := r.Read(dst[len(dst):min(cap(dst), size)])
		dst = dst[:len(dst)+n]
		if err == io.EOF || n == 0 && err == nil {
			if len(dst) < size {
				return nil, sizeErr(size, len(dst))
			}
			break
		}
		if err != nil {
			return nil, err
		}
	}
	var one [1]byte
	if n, err := r.Read(one[:]); n > 0 {
		return nil, fmt.Errorf("it unpacks to more than the %d bytes that it should", size)
	} else if err != nil && err != io.EOF {
		return nil, err
	}
	return dst, nil
}

func sizeErr(expected, found int) error {
	return fmt.Errorf("expected %d bytes, it unpacks to %d", expected, found)
}

var errLZ4 = errors.New("broken LZ4 data")

// LZ4 unpacks a block of LZ4 (lz4_Block_format.md). prefix bytes of dst stay in front and may be referred to.
func LZ4(dst, src []byte, prefix, size int) ([]byte, error) {
	if size/255 > len(src) { // a length byte stands for at most 255
		return nil, sizeErr(size, len(src))
	}
	dst = dst[:prefix]
	end := prefix + size
	for at := 0; at < len(src); {
		token := src[at]
		at++
		literals, n, ok := lz4Length(src[at:], int(token>>4), size)
		at += n
		if !ok || literals > len(src)-at || literals > end-len(dst) {
			return nil, errLZ4
		}
		dst = append(dst, src[at:at+literals]...)
		if at += literals; at == len(src) {
			break // the last sequence is literals alone
		}
		if len(src)-at < 2 {
			return nil, errLZ4
		}
		offset := int(binary.LittleEndian.Uint16(src[at:]))
		at += 2
		match, n, ok := lz4Length(src[at:], int(token&15), size)
		at += n
		if match += 4; !ok || offset == 0 || offset > len(dst) || match > end-len(dst) {
			return nil, errLZ4
		}
		for from := len(dst) - offset; match > 0; { // a match may run into what it writes
			n := min(match, len(dst)-from)
			dst = append(dst, dst[from:from+n]...)
			match -= n
			from += n
		}
	}
	return dst, nil
}

// lz4Length reads a length that goes on in further bytes where its 4 bits are all set. n is the bytes taken.
func lz4Length(src []byte, length, limit int) (_, n int, ok bool) {
	if length < 15 {
		return length, 0, true
	}
	for n < len(src) && length <= limit {
		length += int(src[n])
		if n++; src[n-1] != 255 {
			return length, n, true
		}
	}
	return 0, n, false
}

// LZ4Frame unpacks frames of LZ4 (lz4_Frame_format.md), whose checksums aren't looked at.
func LZ4Frame(dst, src []byte, size int) ([]byte, error) {
	dst = dst[:0]
	for len(src) > 0 {
		if len(src) < 7 || binary.LittleEndian.Uint32(src) != 0x184d2204 || src[4]>>6 != 1 {
			return nil, errLZ4
		}
		flags, block := src[4], src[5]>>4&7
		header := 7
		if flags&8 != 0 {
			header += 8 // the content's size
		}
		if flags&1 != 0 || block < 4 {
			return nil, errLZ4 // dictionaries aren't used by Arrow
		}
		if len(src) < header {
			return nil, errLZ4
		}
		src = src[header:]
		blockSize, start := 1<<(8+2*int(block)), len(dst)
		for {
			if len(src) < 4 {
				return nil, errLZ4
			}
			n := binary.LittleEndian.Uint32(src)
			src = src[4:]
			if n == 0 {
				break
			}
			stored := n>>31 != 0
			n &= 1<<31 - 1
			if uint64(n) > uint64(len(src)) {
				return nil, errLZ4
			}
			packed := src[:n]
			src = src[n:]
			if flags&16 != 0 { // the block's checksum
				if len(src) < 4 {
					return nil, errLZ4
				}
				src = src[4:]
			}
			if stored {
				if len(packed) > size-len(dst) {
					return nil, errLZ4
				}
				dst = append(dst, packed...)
				continue
			}
			most := min(blockSize, size-len(dst), 255*len(packed)+64)
			var err error
			if flags&32 != 0 { // independent blocks
				var one []byte
				if one, err = LZ4(nil, packed, 0, most); err == nil {
					dst = append(dst, one...)
				}
			} else {
				window := dst[start:]
				var grown []byte
				if grown, err = LZ4(window, packed, len(window), most); err == nil {
					dst = append(dst[:start], grown...)
				}
			}
			if err != nil {
				return nil, err
			}
		}
		if flags&4 != 0 {
			if len(src) < 4 {
				return nil, errLZ4
			}
			src = src[4:]
		}
	}
	if len(dst) != size {
		return nil, sizeErr(size, len(dst))
	}
	return dst, nil
}
