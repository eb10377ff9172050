package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// What surrounds the experts of a mixture; their products are in grouped.go.

// perLane is the number of logits that a lane of a warp holds in the kernels of
// kernels/experts.cu, the least that they are built for.
func perLane(op string, experts, k int) string {
	switch {
	case k < 1 || k > experts || k > 32:
		panic(fmt.Sprintf("cuda: %s chooses %d of %d experts; it must be 1 to 32 of them", op, k, experts))
	case experts <= 64:
		return "_2"
	case experts <= 256:
		return "_8"
	case experts <= 512:
		return "_16"
	}
	panic(fmt.Sprintf("cuda: %s of %d experts; at most 512 are possible", op, experts))
}

// routeArgs mirrors RouteArgs of kernels/experts.cu.
type routeArgs struct {
	logits, weights, experts, slots, tokens, starts, counts uintptr
	logitsStride, weightsStride                             uint64
	rows, count, k, blocks                                  int32
	normalize                                               int32
	logitsType, weightsType                                 uint32
}

// routeTokens is the number of tokens of a block of Route's kernels.
const routeTokens = 64

func (d *Device) route(a tensor.Route) {
	rows, experts, k := a.Logits.Rows(), a.Logits.Cols(), a.Weights.Cols()
	per, blocks := perLane("Route", experts, k), ceilDiv(rows, routeTokens)
	mustBeDense("Route's Experts", a.Experts)
	mustBeDense("Route's Slots", a.Slots)
	args := routeArgs{logits: a.Logits.Addr, weights: a.Weights.Addr, experts: a.Experts.Addr, slots: a.Slots.Addr, tokens: a.Tokens.Addr,
		starts: a.Starts.Addr, counts: d.workspace((blocks + 1) * experts * 4),
		logitsStride: uint64(a.Logits.Stride), weightsStride: uint64(a.Weights.Stride),
		rows: int32(rows), count: int32(experts), k: int32(k), blocks: int32(blocks),
		normalize: flag(a.Normalize), logitsType: typeCode(a.Logits.Dtype), weightsType: typeCode(a.Weights.Dtype)}
	launch(d, "experts.route_choose"+per, grid{X: blocks, Threads: 256}, &args)
	launch(d, "experts.route_offsets", grid{X: experts, Threads: 256}, &args)
	launch(d, "experts.route_place", grid{X: max(blocks, 1), Threads: 256}, &args)
}

func mustBeDense(what string, t tensor.Tensor) {
	if !t.Dense() {
		panic(fmt.Sprintf("cuda: %s is %v with rows %d apart; it must be dense", what, t, t.Stride))
	}
}

// routeBackwardArgs mirrors RouteBackwardArgs of kernels/experts.cu.
type routeBackwardArgs struct {
	dlogits, dweights, logits, weights, experts                uintptr
	dlogitsStride, dweightsStride, logitsStride, weightsStride uint64
	rows, count, k                                             int32
	normalize, accumulate                                      int32
	dlogitsType, dweightsType, logitsType, weightsType         uint32
}

func (d *Device) routeBackward(a tensor.RouteBackward) {
	rows, experts, k := a.DLogits.Rows(), a.DLogits.Cols(), a.Weights.Cols()
	mustBeDense("RouteBackward's Experts", a.Experts)
	args := routeBackwardArgs{dlogits: a.DLogits.Addr, dweights: a.DWeights.Addr, logits: a.Logits.Addr, weights: a.Weights.Addr, experts: a.Experts.Addr,
		dlogitsStride: uint64(a.DLogits.Stride), dweightsStride: uint64(a.DWeights.Stride),
		logitsStride: uint64(a.Logits.Stride), weightsStride: uint64(a.Weights.Stride),
		rows: int32(rows), count: int32(experts), k: int32(k), normalize: flag(a.Normalize), accumulate: flag(a.Accumulate),
		dlogitsType: typeCode(a.DLogits.Dtype), dweightsType: typeCode(a.DWeights.Dtype),
		logitsType: typeCode(a.Logits.Dtype), weightsType: typeCode(a.Weights.Dtype)}
	launch(d, "experts.route_backward"+perLane("RouteBackward", experts, k), grid{X: ceilDiv(rows, 8), Threads: 256}, &args)
}

// combineArgs mirrors CombineArgs of kernels/experts.cu.
type combineArgs struct {
	y, dy, dx, dweights, x, weights, slots                              uintptr
	yStride, dyStride, dxStride, dweightsStride, xStride, weightsStride uint64
	cols, k                                                             int32
	vector                                                              int32
}

func (d *Device) combine(a tensor.Combine) {
	mustBeDense("Combine's Slots", a.Slots)
	cols := a.Y.Cols()
	args := combineArgs{y: a.Y.Addr, x: a.X.Addr, weights: a.Weights.Addr, slots: a.Slots.Addr,
		yStride: uint64(a.Y.Stride), xStride: uint64(a.X.Stride), weightsStride: uint64(a.Weights.Stride),
		cols: int32(cols), k: int32(a.Slots.Cols()), vector: flag(aligned16(a.Y, a.X))}
	launch(d, "experts.combine_"+suffix(a.Y.Dtype), grid{X: a.Y.Rows(), Threads: combineThreads(a.Y)}, &args)
}

func (d *Device) combineBackward(a tensor.CombineBackward) {
	mustBeDense("CombineBackward's Slots", a.Slots)
	args := combineArgs{dy: a.DY.Addr, dx: a.DX.Addr, dweights: a.DWeights.Addr, slots: a.Slots.Addr,
		dyStride: uint64(a.DY.Stride), dxStride: uint64(a.DX.Stride), dweightsStride: uint64(a.DWeights.Stride),
		cols: int32(a.DY.Cols()), k: int32(a.Slots.Cols())}
	aligned := aligned16(a.DY)
	if !a.DX.IsZero() {
		args.weights, args.weightsStride = a.Weights.Addr, uint64(a.Weights.Stride)
		aligned = aligned && aligned16(a.DX)
	}
	if !a.DWeights.IsZero() {
		args.x, args.xStride = a.X.Addr, uint64(a.X.Stride)
		aligned = aligned && aligned16(a.X)
	}
	args.vector = flag(aligned)
	launch(d, "experts.combine_backward_"+suffix(a.DY.Dtype), grid{X: a.DY.Rows(), Threads: combineThreads(a.DY)}, &args)
}

// combineThreads is a thread for 16 bytes of a row, whole warps, at most 256.
func combineThreads(row tensor.Tensor) int {
	return min(ceilDiv(max(row.Cols(), 1)*row.Dtype.Size(), 16*32)*32, 256)
}

// routerLayers is the number of layers that a launch of RouterLoss's kernels takes.
const routerLayers = 32

// routerLossArgs mirrors RouterLossArgs of kernels/experts.cu.
type routerLossArgs struct {
	loss, parts, totals, live, scale uintptr
	logits, dlogits                  [routerLayers]uintptr
	logitsStride, dlogitsStride      [routerLayers]uint64
	rows, count, k, layers           int32
	firstLayer, slices               int32
	coef                             float32
	scaleType, floatType             uint32
	accumulated                      int32
}

func (d *Device) routerLoss(a tensor.RouterLoss) {
	if len(a.Logits) == 0 {
		return
	}
	rows, experts, layers := a.Logits[0].Rows(), a.Logits[0].Cols(), len(a.Logits)
	per := perLane("RouterLoss", experts, a.K)
	slices := max(1, min(ceilDiv(rows, 64), 32)) // of a layer's rows; with no row, one whose sums are 0
	parts := layers * slices * 2 * experts * 8
	memory := d.workspace(parts + 2*experts*8)
	args := routerLossArgs{loss: a.Loss.Addr, parts: memory, totals: memory + uintptr(parts), live: a.Live.Addr, scale: a.Scale.Addr,
		rows: int32(rows), count: int32(experts), k: int32(a.K), layers: int32(layers), slices: int32(slices),
		coef: a.Coef, scaleType: typeCode(a.Scale.Dtype), floatType: typeCode(a.Logits[0].Dtype)}
	each := func(kernel string, blocks int) {
		for first := 0; first < layers; first += routerLayers {
			n := min(routerLayers, layers-first)
			args.firstLayer, args.accumulated = int32(first), 0
			for i := range n {
				l := a.Logits[first+i]
				args.logits[i], args.logitsStride[i], args.dlogits[i] = l.Addr, uint64(l.Stride), 0
				if first+i >= len(a.DLogits) || a.DLogits[first+i].IsZero() {
					continue
				}
				g := a.DLogits[first+i]
				args.dlogits[i], args.dlogitsStride[i] = g.Addr, uint64(g.Stride)
				args.accumulated |= flag(a.Accumulate[first+i]) << i
			}
			launch(d, kernel+per, grid{X: blocks, Y: n, Threads: 256}, &args)
		}
	}
	each("experts.router_sums", slices)
	launch(d, "experts.router_totals", grid{X: ceilDiv(2*experts, 32), Threads: 256}, &args)
	launch(d, "experts.router_loss", grid{X: 1, Threads: 256}, &args)
	if len(a.DLogits) > 0 {
		each("experts.router_gradients", ceilDiv(rows, 64))
	}
}
