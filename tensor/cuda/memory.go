package cuda

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"ringtail/tensor"
)

// memory is what a device holds. Buffers come from the driver's stream-ordered pool,
// which keeps what is freed for the next allocation; the limit is kept here.
type memory struct {
	limit     int
	live      int // bytes of buffers and workspaces
	most      int
	part      string         // what is allocated now is for
	parts     map[string]int // live bytes of buffers by part
	pool      uintptr
	space     uintptr // the workspace
	spaceSize int
	retired   []uintptr // workspaces that a captured graph may name
	gemm      uintptr   // cuBLASLt's workspace
	uploads   uintptr   // where upload copies to
	uploadCap int
}

func (m *memory) open(d *Device) error {
	m.limit = d.opt.Memory
	if err := check("cuDeviceGetDefaultMemPool", call(cu.deviceGetPool, address(&m.pool), uintptr(d.handle))); err != nil {
		return err
	}
	const releaseThreshold = 4
	keep := ^uint64(0)
	if err := check("cuMemPoolSetAttribute", call(cu.memPoolSet, m.pool, releaseThreshold, address(&keep))); err != nil {
		return err
	}
	return nil
}

func (m *memory) close(d *Device) {
	for _, p := range append(slices.Clone(m.retired), m.space, m.gemm, m.uploads) {
		if p != 0 {
			call(cu.memFreeAsync, p, d.stream)
		}
	}
	if d.stream != 0 {
		call(cu.streamSync, d.stream)
	}
	if m.pool != 0 && m.live == 0 {
		call(cu.memPoolTrimTo, m.pool, 0)
	}
	*m = memory{}
}

// Alloc returns n bytes of zeroed device memory, from a multiple of 256 on.
func (d *Device) Alloc(n int) (*tensor.Buffer, error) {
	d.enter()
	defer d.leave()
	p, err := d.allocate(n)
	if err != nil {
		return nil, err
	}
	d.fail(check("cuMemsetD8Async", call(cu.memsetD8Async, p, 0, uintptr(n), d.stream)))
	m, part := &d.memory, d.memory.part
	if m.parts == nil {
		m.parts = map[string]int{}
	}
	m.parts[part] += n
	b := &tensor.Buffer{Device: d, Addr: p, Size: n}
	b.Free = func() {
		if b.Addr == 0 || d.context == 0 {
			return
		}
		d.enter()
		defer d.leave()
		m.parts[part] -= n
		d.release(b.Addr, n)
		b.Addr = 0
	}
	return b, nil
}

// Label names what is allocated for until restore is called; see tensor.Labeler.
func (d *Device) Label(part string) (restore func()) {
	m, before := &d.memory, d.memory.part
	m.part = part
	return func() { m.part = before }
}

// MemoryParts is the live bytes of buffers by what they were allocated for, and of
// workspaces.
func (d *Device) MemoryParts() map[string]int {
	m := &d.memory
	out := map[string]int{}
	rest := m.live
	for part, n := range m.parts {
		rest -= n
		if part == "" {
			part = "other tensors"
		}
		if n > 0 {
			out[part] += n
		}
	}
	if rest > 0 {
		out["workspaces"] = rest
	}
	return out
}

// allocate gets memory that holds anything.
func (d *Device) allocate(n int) (uintptr, error) {
	m := &d.memory
	if n < 0 {
		return 0, fmt.Errorf("%s: cannot allocate %d bytes", d.Name(), n)
	}
	n = max(n, 1)
	if m.limit > 0 && m.live+n > m.limit {
		return 0, &Error{Call: "allocation", Code: errOutOfMemory, Name: "CUDA_ERROR_OUT_OF_MEMORY", Detail: d.shortage(n)}
	}
	var p uintptr
	code := call(cu.memAllocAsync, address(&p), uintptr(n), d.stream)
	if code == errOutOfMemory {
		// What is freed but still awaited by the stream can be had after waiting for it.
		call(cu.streamSync, d.stream)
		call(cu.memPoolTrimTo, m.pool, 0)
		code = call(cu.memAllocAsync, address(&p), uintptr(n), d.stream)
	}
	if code == errOutOfMemory {
		return 0, check("cuMemAllocAsync", code, "%s", d.shortage(n))
	}
	if err := check("cuMemAllocAsync", code); err != nil {
		return 0, err
	}
	m.live += n
	m.most = max(m.most, m.live)
	return p, nil
}

func (d *Device) release(p uintptr, n int) {
	d.fail(check("cuMemFreeAsync", call(cu.memFreeAsync, p, d.stream)))
	d.memory.live -= max(n, 1)
}

// shortage says what an allocation of n bytes doesn't find room beside, the largest
// first, and what would make room.
func (d *Device) shortage(n int) string {
	m, held := &d.memory, d.MemoryParts()
	var parts []string
	for part, n := range held {
		if n >= 1<<16 { // less would read 0.0 MiB
			parts = append(parts, part)
		}
	}
	slices.SortFunc(parts, func(a, b string) int { return cmp.Or(held[b]-held[a], strings.Compare(a, b)) })
	s := fmt.Sprintf("%s wanted", gib(n))
	if m.part != "" {
		s += " for " + m.part
	}
	s += fmt.Sprintf(" on %s (%s)", d.Name(), d.gpu.Name)
	between := "; held: "
	for _, part := range parts {
		s += between + part + " " + gib(held[part])
		between = ", "
	}
	if m.limit > 0 {
		s += fmt.Sprintf("; --gpu-memory allows %s", gib(m.limit))
	}
	var free, total uint64
	if call(cu.memGetInfo, address(&free), address(&total)) == 0 {
		s += fmt.Sprintf("; the GPU has %s, %s free", gib(int(total)), gib(int(free)))
		if others := int(total) - int(free) - m.live; others > int(total)/4 {
			s += fmt.Sprintf(" (%s taken by other programs or by freed memory that the driver keeps: nvidia-smi lists them)", gib(others))
		}
	}
	return s + advice(m.part, held)
}

// relief is what makes each part of the memory smaller.
var relief = []struct{ part, how string }{
	{"activations", "lower train.micro_tokens or set train.recompute: selective or full"},
	{"KV cache", "generate fewer sequences at once or shorter ones"},
	{"master weights", "set optimizer.state: bf16"},
	{"moments", "set optimizer.state: bf16"},
}

// advice names what makes the wanted part smaller, and the others, the largest first.
func advice(wanted string, held map[string]int) string {
	var how []string
	parts := slices.Clone(relief)
	slices.SortStableFunc(parts, func(a, b struct{ part, how string }) int { return cmp.Compare(held[b.part], held[a.part]) })
	for _, first := range []bool{true, false} {
		for _, r := range parts {
			if (r.part == wanted) == first && (first || held[r.part] > 0) && !slices.Contains(how, r.how) {
				how = append(how, r.how)
			}
		}
	}
	if len(how) == 0 {
		return "; it may fit with less beside it or a smaller model"
	}
	return "; to make room, " + strings.Join(how, ", or ")
}

// gib writes bytes for people.
func gib(n int) string {
	if n < 1<<30 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
}

// MemoryUse is the bytes held now and at most so far by tensors and workspaces.
func (d *Device) MemoryUse() (now, most int) { return d.memory.live, d.memory.most }

// ResetPeak starts the most of MemoryUse anew.
func (d *Device) ResetPeak() { d.memory.most = d.memory.live }

// MemoryInfo is what the GPU has free and in all, whoever holds the rest.
func (d *Device) MemoryInfo() (free, total int) {
	d.enter()
	defer d.leave()
	var f, t uint64
	d.fail(check("cuMemGetInfo", call(cu.memGetInfo, address(&f), address(&t))))
	return int(f), int(t)
}

// workspace is scratch of one operation, from a multiple of 256 on, that holds anything.
// It is the same memory at each call: operations follow each other on one stream.
func (d *Device) workspace(bytes int) uintptr {
	m := &d.memory
	if bytes <= m.spaceSize {
		return m.space
	}
	d.enter()
	defer d.leave()
	size := max(bytes, 1<<20, m.spaceSize+m.spaceSize/2)
	p, err := d.allocate(size)
	if err != nil && size > bytes {
		size = bytes
		p, err = d.allocate(size)
	}
	if err != nil {
		d.fail(fmt.Errorf("workspace: %w", err))
		return 0
	}
	switch {
	case m.space == 0:
	case d.graphs > 0:
		m.retired = append(m.retired, m.space)
	default:
		d.release(m.space, m.spaceSize)
	}
	m.space, m.spaceSize = p, size
	return p
}

// upload copies host bytes to scratch that is good until the next upload.
func (d *Device) upload(b []byte) uintptr {
	m := &d.memory
	if len(b) > m.uploadCap {
		d.enter()
		defer d.leave()
		size := max(len(b), 64<<10, 2*m.uploadCap)
		p, err := d.allocate(size)
		if err != nil {
			d.fail(fmt.Errorf("upload: %w", err))
			return 0
		}
		if m.uploads != 0 {
			d.release(m.uploads, m.uploadCap)
		}
		m.uploads, m.uploadCap = p, size
	}
	d.toDevice(m.uploads, b)
	return m.uploads
}
