package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// attentionArgs is AttentionArgs of attention.cu and attention_f32.cu.
type attentionArgs struct {
	QKV, DOut, Out, DQKV, LSE, Delta, Starts                uintptr
	QKVStride, DOutStride, OutStride, DQKVStride, LSEStride uint64
	Heads, KVHeads, HeadDim, Tokens, Sequences              int32
	Window, ALiBi, Vector                                   int32
	Scale, SoftCap                                          float32
}

// flash is a shape of attention.cu's kernels.
type flash struct {
	headDim int
	general bool
	forward tile // queries, keys at a time
	buffers int  // forward: of keys, and of values
	queries tile // backward: queries, keys at a time
	keys    tile // backward: keys, queries at a time
	split   int  // blocks that share a tile of backward's keys
	fused   fused
}

// tile is the rows that a block takes and those it takes them with at a time.
type tile struct{ rows, step int }

// fused is the shape of a backward pass in one kernel instead of two: none has no rows.
type fused struct {
	tile             // keys, queries at a time
	threads      int // of a block
	intermediate int // matrices that go through shared memory: dSᵀ, or Pᵀ too
}

// flashes are in the order of preference. Blocks have 4 warps of 16 or 32 rows, but for a pass in one kernel.
var flashes = []flash{
	{headDim: 32, forward: tile{128, 128}, buffers: 1, queries: tile{128, 64}, keys: tile{128, 64}, split: 1},
	{headDim: 64, forward: tile{64, 64}, buffers: 2, fused: fused{tile{128, 64}, 128, 1}},
	{headDim: 80, forward: tile{128, 64}, buffers: 1, queries: tile{128, 32}, keys: tile{64, 64}, split: 1},
	{headDim: 96, forward: tile{128, 64}, buffers: 1, queries: tile{128, 32}, keys: tile{64, 64}, split: 1},
	{headDim: 128, forward: tile{128, 64}, buffers: 1, queries: tile{128, 32}, keys: tile{64, 64}, split: 1},
	{headDim: 256, forward: tile{64, 64}, buffers: 1, fused: fused{tile{64, 64}, 256, 2}},
	{headDim: 256, forward: tile{64, 64}, buffers: 1, queries: tile{64, 32}, keys: tile{64, 32}, split: 2},
	{headDim: 64, general: true, forward: tile{64, 64}, buffers: 1, queries: tile{64, 32}, keys: tile{64, 64}, split: 1},
	{headDim: 128, general: true, forward: tile{64, 64}, buffers: 1, queries: tile{64, 32}, keys: tile{64, 32}, split: 1},
	{headDim: 256, general: true, forward: tile{64, 32}, buffers: 1, queries: tile{64, 32}, keys: tile{64, 32}, split: 2},
}

// flashFor is the shape for a problem whose kernels need no more shared memory than the GPU has for a
// block: 99 KiB on compute capability 8.6 and 8.9, where heads of 128 columns take the general
// kernels backward; 163 KiB on 8.0, where those of 256 take two kernels. There is none for float32 and for heads of more than 256 columns.
func (d *Device) flashFor(a tensor.AttentionShape, aligned bool, t tensor.Dtype, shared func(flash) int) (flash, bool) {
	if t == tensor.F32 {
		return flash{}, false
	}
	// The plain kernels take the largest product for the largest score.
	plain := aligned && a.SoftCap <= 0 && !a.ALiBi && a.Scale > 0
	for _, f := range flashes {
		if (f.general && a.HeadDim <= f.headDim || plain && !f.general && a.HeadDim == f.headDim) && shared(f) <= d.gpu.SharedMemory {
			return f, true
		}
	}
	return flash{}, false
}

// Bytes of shared memory of the kernels. Rows stand 16 bytes further apart than they are long.
func (f flash) bytes(rows int) int { return rows * (f.headDim + 8) * 2 }
func (f flash) forwardShared() int { return f.bytes(f.forward.rows + 2*f.buffers*f.forward.step) }
func (f flash) keysShared() int    { return f.bytes(2*f.keys.rows+4*f.keys.step) + 2*8*f.keys.step }
func (f flash) queriesShared() int { return f.bytes(2*f.queries.rows + 4*f.queries.step) }
func (f flash) fusedShared() int {
	return f.bytes(2*f.fused.rows+4*f.fused.step) + 2*8*f.fused.step + f.fused.intermediate*f.fused.rows*(f.fused.step+8)*2
}
func (f flash) backwardShared() int {
	if f.fused.rows > 0 {
		return f.fusedShared() + 128 // and static shared memory
	}
	return max(f.keysShared(), f.queriesShared())
}

func (f flash) kernel(what string, t tensor.Dtype) string {
	general := ""
	if f.general {
		general = "_general"
	}
	return fmt.Sprintf("attention.%s_%d%s_%s", what, f.headDim, general, suffix(t))
}

func (d *Device) attentionArgs(a tensor.AttentionShape, qkv, o, lse, starts tensor.Tensor, aligned bool) *attentionArgs {
	return &attentionArgs{
		QKV: qkv.Addr, Out: o.Addr, LSE: lse.Addr, Starts: starts.Addr,
		QKVStride: uint64(qkv.Stride), OutStride: uint64(o.Stride), LSEStride: uint64(lse.Stride),
		Heads: int32(a.Heads), KVHeads: int32(a.KVHeads), HeadDim: int32(a.HeadDim), Tokens: int32(qkv.Rows()), Sequences: int32(starts.Len() - 1),
		Window: int32(a.Window), ALiBi: flag(a.ALiBi), Vector: flag(aligned), Scale: a.Scale, SoftCap: a.SoftCap,
	}
}

// items is the work items of a launch over tiles of sequences (findWork in attention.cu).
func (a *attentionArgs) items(rows int) int { return int(a.Tokens)/rows + int(a.Sequences) }

// Shapes of attention_f32.cu's kernels: the side of a tile, and its bytes in shared memory.
const (
	simtSide = 64
	simtTile = 4 * simtSide * (simtSide + 1)
)

func (d *Device) ownAttention(a tensor.Attention) {
	aligned := alignedHeads(a.HeadDim, a.QKV, a.O)
	args, t := d.attentionArgs(a.AttentionShape, a.QKV, a.O, a.LSE, a.Starts, aligned), a.QKV.Dtype
	if f, ok := d.flashFor(a.AttentionShape, aligned, t, flash.forwardShared); ok {
		launch(d, f.kernel("forward", t), grid{X: args.items(f.forward.rows), Y: a.Heads, Threads: 128, Shared: f.forwardShared()}, args)
		return
	}
	launch(d, "attention_f32.forward_"+suffix(t), grid{X: args.items(simtSide), Y: a.Heads, Z: ceilDiv(a.HeadDim, simtSide), Threads: 256,
		Shared: 3*simtTile + 4*simtSide}, args)
}

func (d *Device) ownAttentionBackward(a tensor.AttentionBackward) {
	aligned := alignedHeads(a.HeadDim, a.QKV, a.O, a.DO, a.DQKV)
	args, t := d.attentionArgs(a.AttentionShape, a.QKV, a.O, a.LSE, a.Starts, aligned), a.QKV.Dtype
	args.DOut, args.DOutStride, args.DQKV, args.DQKVStride = a.DO.Addr, uint64(a.DO.Stride), a.DQKV.Addr, uint64(a.DQKV.Stride)
	rows := a.Heads * a.QKV.Rows()
	f, ok := d.flashFor(a.AttentionShape, aligned, t, flash.backwardShared)
	if ok && f.fused.rows > 0 {
		d.fusedBackward(f, a, args, t)
		return
	}
	args.Delta = d.workspace(4 * rows)
	if ok {
		launch(d, "attention.delta_"+suffix(t), grid{X: ceilDiv(rows, 16), Threads: 256}, args)
		launch(d, f.kernel("backward_keys", t), grid{X: args.items(f.keys.rows), Y: a.KVHeads, Z: f.split, Threads: 128,
			Shared: f.keysShared()}, args)
		launch(d, f.kernel("backward_queries", t), grid{X: args.items(f.queries.rows), Y: a.Heads, Threads: 128,
			Shared: f.queriesShared()}, args)
		return
	}
	launch(d, "attention_f32.delta_"+suffix(t), grid{X: ceilDiv(rows, 8), Threads: 256}, args)
	columns := ceilDiv(a.HeadDim, simtSide)
	launch(d, "attention_f32.backward_keys_"+suffix(t), grid{X: args.items(simtSide), Y: a.KVHeads, Z: columns, Threads: 256, Shared: 4 * simtTile}, args)
	launch(d, "attention_f32.backward_queries_"+suffix(t), grid{X: args.items(simtSide), Y: a.Heads, Z: columns, Threads: 256, Shared: 3 * simtTile}, args)
}

// fusedArgs is FusedArgs of attention.cu.
type fusedArgs struct {
	attentionArgs
	DQ, Turns uintptr
}

// fusedBackward is the backward pass in one kernel. It sums dQ in float32, a tile of queries in fused.step
// rows of the workspace, and counts each tile's parts so that they are added in order.
func (d *Device) fusedBackward(f flash, a tensor.AttentionBackward, args *attentionArgs, t tensor.Dtype) {
	rows, slots := a.Heads*a.QKV.Rows(), args.items(f.fused.step)
	deltas, sums := ceilDiv(4*rows, 256)*256, 4*a.Heads*slots*f.fused.step*f.headDim
	args.Delta = d.workspace(deltas + sums + 4*(a.Heads*slots+1))
	x := &fusedArgs{attentionArgs: *args, DQ: args.Delta + uintptr(deltas), Turns: args.Delta + uintptr(deltas+sums)}
	launch(d, "attention.delta_fused_"+suffix(t), grid{X: ceilDiv(rows, 16), Threads: 256}, x)
	launch(d, f.kernel("backward", t), grid{X: args.items(f.fused.rows) * a.KVHeads, Threads: f.fused.threads, Shared: f.fusedShared()}, x)
}

// alignedHeads tells whether every head of every row starts at a multiple of 16 bytes.
func alignedHeads(headDim int, ts ...tensor.Tensor) bool {
	return aligned16(ts...) && headDim*ts[0].Dtype.Size()%16 == 0
}
