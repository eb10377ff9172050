package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// attention asks cuDNN first and takes the program's own kernels where cuDNN is absent or
// has none for the case. Both are deterministic, but for cuDNN's fast gradients (Options.Fast).
func (d *Device) attention(a tensor.Attention) {
	checkHeads(a.AttentionShape)
	if a.QKV.Rows() == 0 || d.cudnnAttention(a) {
		return
	}
	d.ownAttention(a)
}

func (d *Device) attentionBackward(a tensor.AttentionBackward) {
	checkHeads(a.AttentionShape)
	if a.QKV.Rows() == 0 || d.cudnnAttentionBackward(a) {
		return
	}
	d.ownAttentionBackward(a)
}

func checkHeads(a tensor.AttentionShape) {
	if a.Heads <= 0 || a.KVHeads <= 0 || a.HeadDim <= 0 || a.Heads%a.KVHeads != 0 || a.Window < 0 {
		panic(fmt.Sprintf("cuda: attention of shape %+v", a))
	}
}

// flag is a kernel's argument for a bool.
func flag(b bool) int32 {
	if b {
		return 1
	}
	return 0
}
