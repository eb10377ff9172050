package train

import (
	"ringtail/autograd"
	"ringtail/model"
	"ringtail/tensor"
)

// balance is the loss that keeps the experts of a mixture equally busy, added to
// what a step trains on (tensor.RouterLoss). It is a property of a micro-batch's
// tokens, so that, unlike other losses, it depends on how a batch is cut.
type balance struct {
	coef  float64
	loss  tensor.Tensor // F64 [1]
	scale tensor.Tensor // 1 / tokens of the global batch
	seen  int           // tokens of the step
}

// newBalance is nil for models without experts, and with a weight of 0; a negative
// weight is the model's own.
func (b *basis) newBalance(m *model.Model, coef float64) (*balance, error) {
	if coef < 0 {
		coef = m.Config.Experts.LossCoef
	}
	if m.Config.Experts.Count == 0 || coef == 0 {
		return nil, nil
	}
	x := &balance{coef: coef}
	var err error
	if x.loss, err = b.alloc(tensor.F64, 1); err != nil {
		return nil, err
	}
	x.scale, err = b.alloc(b.dev.Float().Wide(), 1)
	return x, err
}

// record is what a training pass adds; nil without a balance.
func (x *balance) record(tape *autograd.Tape, live tensor.Tensor) *model.RouterLoss {
	if x == nil {
		return nil
	}
	return &model.RouterLoss{Coef: x.coef, Live: tape.Input("live", live), Loss: x.loss, Scale: x.scale}
}

// begin starts a step of so many tokens.
func (x *balance) begin(tokens int) {
	if x == nil {
		return
	}
	x.seen = max(tokens, 1)
	x.loss.Device.Ops().Zero(x.loss)
	tensor.SetFloat64(x.scale, []float64{1 / float64(x.seen)})
}

// report starts reading the step's loss, before its weight; what it returns adds it to
// metrics: the number of experts that a token uses where all are equally busy, more where
// some are busier.
func (x *balance) report() func(metrics map[string]float64) (map[string]float64, error) {
	if x == nil {
		return func(m map[string]float64) (map[string]float64, error) { return m, nil }
	}
	read, seen := tensor.GetFloat64Later(x.loss), x.seen
	return func(metrics map[string]float64) (map[string]float64, error) {
		loss, err := read()
		if metrics == nil {
			metrics = map[string]float64{}
		}
		metrics["router_loss"] = loss[0] / float64(seen)
		return metrics, err
	}
}
