package cuda

import "ringtail/tensor"

// cachedAttentionArgs is cached_attention.cu's CachedAttentionArgs.
type cachedAttentionArgs struct {
	QKV, Out, K, V                            uintptr
	Slots, Positions                          uintptr
	QKVStride, OutStride, KStride, VStride    uint64
	Heads, KVHeads, HeadDim, Tokens, Capacity int32
	Window, ALiBi, Vector                     int32
	Scale, SoftCap                            float32
}

// cachedAttention writes the tokens' keys and values to the cache, then attends to it.
func (d *Device) cachedAttention(a tensor.CachedAttention) {
	checkHeads(a.AttentionShape)
	tokens, group := a.QKV.Rows(), a.Heads/a.KVHeads
	if tokens == 0 {
		return
	}
	head := a.K
	head.Shape = []int{a.K.Rows() * a.KVHeads, a.HeadDim} // rows of one head start at multiples of 16 bytes as well
	args := &cachedAttentionArgs{
		QKV: a.QKV.Addr, Out: a.O.Addr, K: a.K.Addr, V: a.V.Addr, Slots: a.Slots.Addr, Positions: a.Positions.Addr,
		QKVStride: uint64(a.QKV.Stride), OutStride: uint64(a.O.Stride), KStride: uint64(a.K.Stride), VStride: uint64(a.V.Stride),
		Heads: int32(a.Heads), KVHeads: int32(a.KVHeads), HeadDim: int32(a.HeadDim), Tokens: int32(tokens), Capacity: int32(a.K.Shape[1]),
		Window: int32(a.Window), ALiBi: flag(a.ALiBi), Vector: flag(aligned16(head)), Scale: a.Scale, SoftCap: a.SoftCap,
	}
	launch(d, "cached_attention.store_"+suffix(a.QKV.Dtype), grid{X: tokens, Threads: 256}, args)
	launch(d, "cached_attention.attend_"+suffix(a.QKV.Dtype), grid{X: tokens, Y: a.KVHeads, Threads: 128,
		Shared: 4 * group * (2*a.HeadDim + 64 + 3)}, args)
}
