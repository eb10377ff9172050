package cuda

import (
	"math"

	"ringtail/tensor"
)

// Attention through cuDNN. Queries, keys and values stay where they lie, interleaved in
// rows of QKV: cuDNN takes their strides, and for packed rows the offset of each
// sequence, which a small kernel makes of Starts. LSE is cuDNN's statistics: the same
// number, and by strides in the same place.

// mostWorkspace bounds cuDNN's own workspace; beyond it our own kernels are used. The
// deterministic backward pass has sequences·heads·longest²·2 bytes, and that of grouped
// queries sequences·longest·heads·headDim·4, for packed rows too.
const mostWorkspace = 4 << 30

// cudnnAttention enqueues the forward pass, or tells that cuDNN doesn't take it.
func (d *Device) cudnnAttention(a tensor.Attention) bool {
	n := &d.dnn
	if n.handle == 0 {
		return false
	}
	s, ok := d.sdpaOf(a.AttentionShape, a.QKV, a.O, a.LSE, a.Starts, a.Longest, a.Dense)
	if !ok {
		return false
	}
	if n.tokenStats && !d.opt.Fast && s.packed {
		n.refuse("statistics in cuDNN's layout need cuDNN's backward pass, which is not deterministic for packed rows")
		return false
	}
	p := d.planOf(s)
	if p == nil {
		return false
	}
	var m [roles]uintptr
	space := newLayout(p.workspace)
	ragged := space.ragged(s)
	at := d.workspace(space.bytes)
	if at == 0 {
		return true // the device keeps the error
	}
	m[roleO], m[roleStats] = a.O.Addr, a.LSE.Addr
	bindQKV(&m, a.AttentionShape, a.QKV.Addr)
	if s.packed {
		d.raggedOffsets(&m, a.Starts, s, at+uintptr(ragged))
	}
	d.runSDPA(p, &m, at, a.Scale)
	return true
}

// cudnnAttentionBackward enqueues the backward pass, or tells that cuDNN doesn't take it.
func (d *Device) cudnnAttentionBackward(a tensor.AttentionBackward) bool {
	n := &d.dnn
	if n.handle == 0 {
		return false
	}
	s, ok := d.sdpaOf(a.AttentionShape, a.QKV, a.O, a.LSE, a.Starts, a.Longest, a.Dense)
	if !ok {
		return false
	}
	if !aligned16(a.DO, a.DQKV) || a.DO.Dtype != s.dtype || a.DQKV.Dtype != s.dtype {
		n.refuse("gradients of %v, %v: types or alignment", a.DO, a.DQKV)
		return false
	}
	s.backward, s.deterministic = true, !d.opt.Fast
	s.dO, s.dQ, s.dKV = a.DO.Stride, a.DQKV.Stride, a.DQKV.Stride
	tokens := a.QKV.Rows()
	if s.packed && int64(tokens)*int64(max(s.dO, s.dQ)) > math.MaxInt32 {
		n.refuse("offsets of packed gradients past 2^31")
		return false
	}
	if s.deterministic {
		need := s.sequences * s.heads * s.longest * s.longest * 2
		if s.packed || need > mostWorkspace || d.gpu.Capability/10 != 9 {
			n.refuse("cuDNN's backward pass of the %v would not be deterministic, or take a workspace of more than 4 GiB", s)
			return false
		}
	}
	s.fullRagged = n.fullRagged && s.packed && s.heads != s.kvHeads
	p := d.planOf(s)
	if p == nil {
		return false
	}
	space := newLayout(p.workspace)
	ragged := space.ragged(s)
	sum := space.take(4 * s.heads * tokens)
	var added, addedBytes, fullK, fullV int
	if !s.deterministic {
		addedBytes = 4 * tokens * s.heads * s.headDim
		if s.packed {
			addedBytes = 4 * tokens * s.dQ
		}
		added = space.take(addedBytes)
	}
	if s.fullRagged {
		bytes := 2 * tokens * s.dKV * (s.heads / s.kvHeads)
		fullK, fullV = space.take(bytes), space.take(bytes)
	}
	at := d.workspace(space.bytes)
	if at == 0 {
		return true
	}
	var m [roles]uintptr
	m[roleO], m[roleStats], m[roleDO] = a.O.Addr, a.LSE.Addr, a.DO.Addr
	bindQKV(&m, a.AttentionShape, a.QKV.Addr)
	m[roleDQ] = a.DQKV.Addr
	m[roleDK] = m[roleDQ] + 2*uintptr(a.Heads*a.HeadDim)
	m[roleDV] = m[roleDK] + 2*uintptr(a.KVHeads*a.HeadDim)
	m[roleSum], m[roleDQSum] = at+uintptr(sum), at+uintptr(added)
	m[roleDKFull], m[roleDVFull] = at+uintptr(fullK), at+uintptr(fullV)
	if s.packed {
		d.raggedOffsets(&m, a.Starts, s, at+uintptr(ragged))
	}
	if n.zeroDQ && !s.deterministic {
		d.enter()
		d.fail(check("cuMemsetD8Async", call(cu.memsetD8Async, m[roleDQSum], 0, uintptr(addedBytes), d.stream)))
		d.leave()
	}
	d.runSDPA(p, &m, at, a.Scale)
	return true
}

// sdpaOf describes the case to cuDNN, or says that it isn't one of cuDNN's.
func (d *Device) sdpaOf(a tensor.AttentionShape, qkv, o, lse, starts tensor.Tensor, longest int, dense bool) (sdpa, bool) {
	n := &d.dnn
	s := sdpa{packed: !dense, dtype: qkv.Dtype, sequences: starts.Len() - 1, longest: longest, heads: a.Heads, kvHeads: a.KVHeads,
		headDim: a.HeadDim, window: a.Window, q: qkv.Stride, kv: qkv.Stride, o: o.Stride, statsSequence: longest, statsHead: lse.Stride, statsToken: 1}
	if a.Window >= longest {
		s.window = 0
	}
	refuse := func(format string, args ...any) (sdpa, bool) {
		n.refuse(format, args...)
		return s, false
	}
	tokens := qkv.Rows()
	switch {
	case s.dtype != tensor.BF16 && s.dtype != tensor.F16:
		return refuse("attention of %v", s.dtype)
	case a.SoftCap > 0 || a.ALiBi:
		return refuse("capped scores or ALiBi")
	case a.HeadDim%8 != 0 || a.HeadDim > 128:
		return refuse("heads of %d columns", a.HeadDim)
	case !aligned16(qkv, o) || o.Dtype != s.dtype || lse.Dtype != tensor.F32:
		return refuse("QKV %v, O %v, LSE %v: types or alignment", qkv, o, lse)
	case s.sequences < 1 || longest < 2: // of one token cuDNN 9.19 writes no statistics
		return refuse("sequences of fewer than two tokens")
	case dense && tokens != s.sequences*longest:
		return refuse("dense rows of %d tokens that are not %d sequences of %d", tokens, s.sequences, longest)
	case s.packed && d.gpu.Capability < 90:
		return refuse("packed rows before Hopper")
	case s.packed && int64(tokens)*int64(max(s.q, s.o)) > math.MaxInt32:
		return refuse("offsets of packed rows past 2^31")
	}
	if n.tokenStats {
		if lse.Stride != lse.Cols() {
			return refuse("statistics in cuDNN's layout in an LSE with a stride")
		}
		s.statsSequence, s.statsHead, s.statsToken = a.Heads*longest, longest, 1
		if s.packed {
			s.statsHead, s.statsToken = 1, a.Heads
		}
	}
	return s, true
}

// planOf is the case's plan, nil if cuDNN has none.
func (d *Device) planOf(s sdpa) *dnnPlan {
	d.enter()
	defer d.leave()
	p := d.dnn.plan(s)
	if p.refused != nil {
		d.dnn.refuse("%v", p.refused)
		return nil
	}
	if p.workspace > mostWorkspace {
		d.dnn.refuse("a workspace of %d MiB for the %v", p.workspace>>20, s)
		return nil
	}
	return p
}

func (d *Device) runSDPA(p *dnnPlan, m *[roles]uintptr, workspace uintptr, scale float32) {
	d.enter()
	defer d.leave()
	p.scalars[roleScale] = scale
	if done := d.timed(p.what); done != nil {
		defer done()
	}
	d.fail(p.run(m, workspace))
}

// bindQKV gives the addresses of the first query, key and value head.
func bindQKV(m *[roles]uintptr, a tensor.AttentionShape, qkv uintptr) {
	m[roleQ] = qkv
	m[roleK] = qkv + 2*uintptr(a.Heads*a.HeadDim)
	m[roleV] = m[roleK] + 2*uintptr(a.KVHeads*a.HeadDim)
}

// layout hands out pieces of a workspace, each from a multiple of 256 bytes on. The
// first is cuDNN's own.
type layout struct{ bytes int }

func newLayout(first int) *layout { return &layout{bytes: (first + 255) / 256 * 256} }

func (l *layout) take(n int) int {
	at := l.bytes
	l.bytes += (n + 255) / 256 * 256
	return at
}

// raggedRows are the rows of the array that raggedOffsets fills: the lengths, then
// offsets for each of these roles.
var raggedRows = [...]role{roleOffsetQ, roleOffsetO, roleOffsetStats, roleOffsetDO, roleOffsetDQKV}

func raggedPitch(s sdpa) int { return (s.sequences + 1 + 63) / 64 * 64 }

func (l *layout) ragged(s sdpa) int {
	if !s.packed {
		return 0
	}
	return l.take(4 * raggedPitch(s) * (1 + len(raggedRows)))
}

// raggedArgs mirrors RaggedArgs of kernels/ragged.cu.
type raggedArgs struct {
	Starts, To       uintptr
	Sequences, Pitch int32
	Strides          [len(raggedRows)]int32
}

// raggedOffsets makes the lengths of the sequences and their offsets in elements.
func (d *Device) raggedOffsets(m *[roles]uintptr, starts tensor.Tensor, s sdpa, at uintptr) {
	pitch := raggedPitch(s)
	args := &raggedArgs{Starts: starts.Addr, To: at, Sequences: int32(s.sequences), Pitch: int32(pitch),
		Strides: [...]int32{int32(s.q), int32(s.o), int32(s.statsToken), int32(s.dO), int32(s.dQ)}}
	m[roleLengths] = at
	for i, r := range raggedRows {
		m[r] = at + uintptr(4*pitch*(i+1))
	}
	m[roleOffsetKV] = m[roleOffsetQ]
	launch(d, "ragged.offsets", grid{X: ceilDiv(s.sequences+1, 256), Threads: 256}, args)
}
