package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// logProb scores chosen tokens, chunk by chunk as cross-entropy does (crossentropy.go).
func (d *Device) logProb(a tensor.LogProb) {
	if a.X.Rows() == 0 {
		return
	}
	mustBeF32("LogProb", a.LogProbs, a.LSE, a.Entropies)
	p, _ := d.openProjection("LogProb", a.X, a.W, a.Targets, tensor.Tensor{}, tensor.Tensor{}, a.Padded, a.SoftCap, a.Temperature, !a.Entropies.IsZero(), 0)
	if p == nil {
		return
	}
	p.args.logProbs, p.args.lse, p.args.entropies = a.LogProbs.Addr, a.LSE.Addr, a.Entropies.Addr
	p.run()
}

// logProbBackward projects again. A block of its kernel has a row whole, so that LSE and
// Entropies are summed anew.
func (d *Device) logProbBackward(a tensor.LogProbBackward) {
	if a.X.Rows() == 0 || a.DX.IsZero() && a.DW.IsZero() {
		return
	}
	mustBeF32("LogProbBackward", a.DLogProbs, a.DEntropies)
	p, _ := d.openProjection("LogProbBackward", a.X, a.W, a.Targets, a.DX, a.DW, a.Padded, a.SoftCap, a.Temperature, !a.DEntropies.IsZero(), 0)
	if p == nil {
		return
	}
	p.args.dLogProbs, p.args.dEntropies = a.DLogProbs.Addr, a.DEntropies.Addr
	p.run()
}

func mustBeF32(op string, ts ...tensor.Tensor) {
	for _, t := range ts {
		if !t.IsZero() && t.Dtype != tensor.F32 {
			panic(fmt.Sprintf("cuda: %s with %v, want F32", op, t))
		}
	}
}
