package cuda

import (
	"math/bits"

	"ringtail/tensor"
)

// embeddingArgs is EmbeddingArgs of kernels/embedding.cu.
type embeddingArgs struct {
	Y, W, IDs        uintptr
	YS, WS, Units    uint64
	Tokens, LogWidth uint32
}

func (d *Device) embedding(y, w, ids tensor.Tensor) {
	tokens, units := ids.Len(), w.Cols()
	if tokens == 0 || units == 0 {
		return
	}
	kernel := "embedding.embedding_" + suffix(w.Dtype)
	if eights(units, y, w) {
		kernel, units = kernel+"_x8", units/8
	}
	g, logWidth := plane(tokens, units, 1)
	launch(d, kernel, g, &embeddingArgs{Y: y.Addr, W: w.Addr, IDs: ids.Addr, YS: uint64(y.Stride), WS: uint64(w.Stride),
		Units: uint64(units), Tokens: uint32(tokens), LogWidth: logWidth})
}

// sortArgs is SortArgs of kernels/embedding.cu.
type sortArgs struct {
	IDs                     uintptr
	Keys, Order             [2]uintptr
	Tokens, Passes, Bits, _ uint32
}

// embeddingBackwardArgs is EmbeddingBackwardArgs of kernels/embedding.cu.
type embeddingBackwardArgs struct {
	DW, DY, Keys, Order, Partial uintptr
	WS, YS, Cols                 uint64
	Tokens, _                    uint32
}

// embeddingBackward sorts the tokens by id, stably, sums runs of equal ids in pieces of the
// sorted order, and adds up the runs that pieces cut.
func (d *Device) embeddingBackward(dw, dy, ids tensor.Tensor) {
	const piece = 32 // as in embedding.cu
	tokens, cols := ids.Len(), dw.Cols()
	if tokens == 0 || cols == 0 {
		return
	}
	idBits := max(bits.Len(uint(dw.Rows()-1)), 1)
	passes := ceilDiv(idBits, 8)
	array := tensor.AlignUp(4 * tokens)
	pieces := ceilDiv(tokens, piece)
	at := d.workspace(4*array + pieces*2*cols*4)
	sort := sortArgs{IDs: ids.Addr, Keys: [2]uintptr{at, at + uintptr(array)}, Order: [2]uintptr{at + uintptr(2*array), at + uintptr(3*array)},
		Tokens: uint32(tokens), Passes: uint32(passes), Bits: uint32(ceilDiv(idBits, passes))}
	launch(d, "embedding.sort_tokens", grid{X: 1, Threads: 512}, &sort)

	args := embeddingBackwardArgs{DW: dw.Addr, DY: dy.Addr, Keys: sort.Keys[passes%2], Order: sort.Order[passes%2], Partial: at + uintptr(4*array),
		WS: uint64(dw.Stride), YS: uint64(dy.Stride), Cols: uint64(cols), Tokens: uint32(tokens)}
	form, n := "", 1
	if eights(cols, dw, dy) {
		form, n = "_x8", 8
	}
	threads := min(ceilDiv(cols, 32*n), 4) * 32
	g := grid{X: pieces, Y: ceilDiv(cols, threads*n), Threads: threads}
	launch(d, "embedding.embedding_backward_"+suffix(dw.Dtype)+"_"+suffix(dy.Dtype)+form, g, &args)
	if pieces > 1 {
		launch(d, "embedding.embedding_runs_"+suffix(dw.Dtype)+form, g, &args)
	}
}
