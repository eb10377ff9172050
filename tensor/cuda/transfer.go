package cuda

import (
	"fmt"
	"os"
	"slices"
	"unsafe"

	"ringtail/tensor"
)

// Copies between host and device go through pinned memory, so that they run at the
// link's speed and the host doesn't wait for them: pieces of a ring for what is written
// or read at once, and slots of their own for what is read later.

const (
	ringBytes  = 16 << 20
	pieceBytes = 4 << 20 // of one copy at most
	mostPieces = 256     // on their way at most
	laterSlots = 64      // at most
	laterBytes = 1 << 20 // of a slot at most
)

// transfer is a device's pinned memory.
type transfer struct {
	pinned *pinned
	head   int     // where the next piece of the ring starts
	flight []piece // from the oldest on
	idle   []uintptr
	later  []*later // that are free
	slots  int      // made
	events []uintptr
}

// piece is a stretch of the ring; event tells when its copy is done.
type piece struct {
	from, to int
	event    uintptr
}

func (t *transfer) open() error {
	var err error
	if t.pinned, err = newPinned(ringBytes); err != nil {
		return err
	}
	for range mostPieces {
		event, err := t.newEvent()
		if err != nil {
			return err
		}
		t.idle = append(t.idle, event)
	}
	return nil
}

func (t *transfer) newEvent() (event uintptr, err error) {
	const disableTiming = 2
	if err = check("cuEventCreate", call(cu.eventCreate, address(&event), disableTiming)); err == nil {
		t.events = append(t.events, event)
	}
	return event, err
}

// slot takes a free slot of at least n bytes, or makes one; nil if there can be none.
func (t *transfer) slot(n int) *later {
	best := -1
	for i, l := range t.later {
		if len(l.pinned.mem) >= n && (best < 0 || len(l.pinned.mem) < len(t.later[best].pinned.mem)) {
			best = i
		}
	}
	if best >= 0 {
		l := t.later[best]
		t.later = slices.Delete(t.later, best, best+1)
		return l
	}
	if n > laterBytes || t.slots == laterSlots {
		return nil
	}
	size := os.Getpagesize()
	for size < n {
		size *= 2
	}
	mem, err := newPinned(size)
	if err != nil {
		return nil
	}
	event, err := t.newEvent()
	if err != nil {
		mem.free()
		return nil
	}
	t.slots++
	return &later{pinned: mem, event: event}
}

func (t *transfer) close() {
	for _, event := range t.events {
		call(cu.eventDestroy, event)
	}
	for _, l := range t.later {
		l.pinned.free()
	}
	if t.pinned != nil {
		t.pinned.free()
	}
	*t = transfer{}
}

// stage takes n bytes of the ring, at most pieceBytes, once the copies that used them are
// done. The caller enqueues a copy and then sent.
func (d *Device) stage(n int) (mem []byte, sent func()) {
	t := &d.transfer
	size := tensor.AlignUp(n)
	if t.head+size > ringBytes {
		t.head = 0
	}
	p := piece{from: t.head, to: t.head + size}
	for len(t.idle) == 0 || t.overlaps(p) {
		oldest := t.flight[0]
		d.fail(check("cuEventSynchronize", call(cu.eventSync, oldest.event)))
		t.flight, t.idle = t.flight[1:], append(t.idle, oldest.event)
	}
	p.event, t.idle = t.idle[0], t.idle[1:]
	t.head = p.to
	return t.pinned.mem[p.from:][:n], func() {
		d.fail(check("cuEventRecord", call(cu.eventRecord, p.event, d.stream)))
		t.flight = append(t.flight, p)
	}
}

func (t *transfer) overlaps(p piece) bool {
	for _, q := range t.flight {
		if p.from < q.to && q.from < p.to {
			return true
		}
	}
	return false
}

// Write copies host memory to the device: it returns when src may be changed, not when
// the copy is done.
func (d *Device) Write(dst tensor.Tensor, src []byte) {
	if !dst.Dense() || dst.Bytes() != len(src) {
		panic(fmt.Sprintf("cuda: %d bytes written to %v", len(src), dst))
	}
	d.toDevice(dst.Addr, src)
}

func (d *Device) toDevice(to uintptr, src []byte) {
	d.enter()
	defer d.leave()
	for len(src) > 0 {
		n := min(len(src), pieceBytes)
		mem, sent := d.stage(n)
		copy(mem, src)
		d.fail(check("cuMemcpyHtoDAsync", call(cu.memcpyHtoDAsync, to, address(&mem[0]), uintptr(n), d.stream)))
		sent()
		to, src = to+uintptr(n), src[n:]
	}
}

// Read copies device memory to the host after everything enqueued before.
func (d *Device) Read(dst []byte, src tensor.Tensor) {
	if !src.Dense() || src.Bytes() != len(dst) {
		panic(fmt.Sprintf("cuda: %v read into %d bytes", src, len(dst)))
	}
	d.enter()
	defer d.leave()
	// One piece is on its way while the one before is copied out.
	from := src.Addr
	var arrive func()
	for len(dst) > 0 {
		n := min(len(dst), pieceBytes)
		mem, sent := d.stage(n)
		d.fail(check("cuMemcpyDtoHAsync", call(cu.memcpyDtoHAsync, address(&mem[0]), from, uintptr(n), d.stream)))
		sent()
		event, to := d.transfer.flight[len(d.transfer.flight)-1].event, dst[:n]
		if arrive != nil {
			arrive()
		}
		arrive = func() {
			d.fail(check("cuEventSynchronize", call(cu.eventSync, event)))
			copy(to, mem)
		}
		from, dst = from+uintptr(n), dst[n:]
	}
	if arrive != nil {
		arrive()
	}
}

// later is a copy to the host that nobody has waited for yet, or its free slot.
type later struct {
	d      *Device
	pinned *pinned
	event  uintptr
	n      int
}

// ReadLater enqueues a copy to the host. One that is large, or one too many, is waited for.
func (d *Device) ReadLater(src tensor.Tensor) tensor.Pending {
	if !src.Dense() {
		panic(fmt.Sprintf("cuda: %v of stride %d read", src, src.Stride))
	}
	n := src.Bytes()
	d.enter()
	defer d.leave()
	l := d.transfer.slot(n)
	if l == nil {
		out := make([]byte, n)
		d.Read(out, src)
		return arrived{d, out}
	}
	l.d, l.n = d, n
	if n > 0 {
		d.fail(check("cuMemcpyDtoHAsync", call(cu.memcpyDtoHAsync, address(&l.pinned.mem[0]), src.Addr, uintptr(n), d.stream)))
	}
	d.fail(check("cuEventRecord", call(cu.eventRecord, l.event, d.stream)))
	return l
}

func (l *later) Wait() ([]byte, error) {
	d := l.d
	d.enter()
	defer d.leave()
	if !Sticky(d.err) {
		d.fail(check("cuEventSynchronize", call(cu.eventSync, l.event)))
	}
	out := append([]byte(nil), l.pinned.mem[:l.n]...)
	d.transfer.later = append(d.transfer.later, l)
	return out, d.told()
}

// arrived is a copy that was waited for at once.
type arrived struct {
	d    *Device
	data []byte
}

func (a arrived) Wait() ([]byte, error) { return a.data, a.d.told() }

// pinned is host memory of our own mapping that the driver has registered. It is never
// the Go heap.
type pinned struct{ mem []byte }

func newPinned(n int) (*pinned, error) {
	mem, err := mapPages(n)
	if err != nil {
		return nil, fmt.Errorf("pinned memory: %w", err)
	}
	if err := check("cuMemHostRegister", call(cu.memHostRegister, uintptr(unsafe.Pointer(&mem[0])), uintptr(n), 1), "%d bytes", n); err != nil {
		unmapPages(mem)
		return nil, err
	}
	return &pinned{mem}, nil
}

func (p *pinned) free() {
	call(cu.memHostUnregister, uintptr(unsafe.Pointer(&p.mem[0])))
	unmapPages(p.mem)
}
