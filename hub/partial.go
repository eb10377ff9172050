package hub

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// partial is a file being downloaded in parts. It has its full length from the start;
// after the content stands which bytes are there, so that another run goes on. What
// the note says is not trusted: the whole file's hash decides in the end.
//
//	size bytes      content
//	8 bytes         "ringtail"
//	u64, u64        size, length of a part
//	u64 × parts     bytes there, from each part's start
//	u32             CRC-32 of the note
type partial struct {
	f    *os.File
	size int64
	part int64

	mu      sync.Mutex
	done    []int64 // by part
	unsaved int64   // bytes since the note was written
}

const (
	partialMagic = "ringtail"
	saveEvery    = 8 << 20 // bytes
)

// newPartial takes over an open file of any content.
func newPartial(f *os.File, size, part int64) *partial {
	p := &partial{f: f, size: size, part: part}
	if !p.readNote() {
		p.part = part
		p.done = make([]int64, (size+part-1)/part)
	}
	return p
}

// readNote finds what an earlier run has done.
func (p *partial) readNote() bool {
	info, err := p.f.Stat()
	if err != nil || info.Size() <= p.size || info.Size()-p.size > 64<<20 {
		return false
	}
	note := make([]byte, info.Size()-p.size)
	if _, err := p.f.ReadAt(note, p.size); err != nil && err != io.EOF {
		return false
	}
	if len(note) < 28 || string(note[:8]) != partialMagic {
		return false
	}
	body, sum := note[:len(note)-4], binary.LittleEndian.Uint32(note[len(note)-4:])
	size, part := binary.LittleEndian.Uint64(body[8:]), binary.LittleEndian.Uint64(body[16:])
	if crc32.ChecksumIEEE(body) != sum || size != uint64(p.size) || part == 0 || part > uint64(1<<62) {
		return false
	}
	p.part = int64(part)
	n := (p.size-1)/p.part + 1
	if uint64(len(body)-24) != uint64(n)*8 {
		return false
	}
	p.done = make([]int64, n)
	for i := range p.done {
		d := binary.LittleEndian.Uint64(body[24+8*i:])
		from, to := p.bounds(i)
		if d > uint64(to-from) {
			return false
		}
		p.done[i] = int64(d)
	}
	return true
}

// save writes the note; p.mu is held.
func (p *partial) save() error {
	if p.size == 0 {
		return nil
	}
	note := make([]byte, 0, 28+8*len(p.done))
	note = append(note, partialMagic...)
	note = binary.LittleEndian.AppendUint64(note, uint64(p.size))
	note = binary.LittleEndian.AppendUint64(note, uint64(p.part))
	for _, d := range p.done {
		note = binary.LittleEndian.AppendUint64(note, uint64(d))
	}
	note = binary.LittleEndian.AppendUint32(note, crc32.ChecksumIEEE(note))
	p.unsaved = 0
	_, err := p.f.WriteAt(note, p.size)
	return err
}

// bounds are the bytes of part i.
func (p *partial) bounds(i int) (from, to int64) {
	from = int64(i) * p.part
	return from, min(from+p.part, p.size)
}

// next is where part i goes on, and its end.
func (p *partial) next(i int) (from, to int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, to = p.bounds(i)
	return from + p.done[i], to
}

// write adds bytes to part i.
func (p *partial) write(i int, b []byte) error {
	at, _ := p.next(i)
	if _, err := p.f.WriteAt(b, at); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[i] += int64(len(b))
	if p.unsaved += int64(len(b)); p.unsaved >= saveEvery {
		return p.save()
	}
	return nil
}

// have is the number of bytes that are there.
func (p *partial) have() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := int64(0)
	for _, d := range p.done {
		n += d
	}
	return n
}

// restart forgets everything, and goes on with parts of another length.
func (p *partial) restart(part int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part = part
	p.done = make([]int64, (p.size+part-1)/part)
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	return p.save()
}

// adopt takes the first n bytes, which another program downloaded in order, as done.
func (p *partial) adopt(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.done {
		from, to := p.bounds(i)
		p.done[i] = max(0, min(n-from, to-from))
	}
}

// rewind forgets what part i has.
func (p *partial) rewind(i int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[i] = 0
}

// flush writes the note, so that another run can go on.
func (p *partial) flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.save()
}

// finish takes the note off and syncs the content.
func (p *partial) finish() error {
	if err := p.f.Truncate(p.size); err != nil {
		return err
	}
	return p.f.Sync()
}
