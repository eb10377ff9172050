package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"ringtail/tensor"
)

// batchOf packs rows of random tokens.
func batchOf(rows ...[]int32) *packed {
	p := &packed{starts: []int32{0}}
	for _, ids := range rows {
		for i, id := range ids {
			target := int32(-100)
			if i+1 < len(ids) && i%3 != 1 {
				target = ids[i+1]
				p.trained++
			}
			p.ids, p.positions, p.targets = append(p.ids, id), append(p.positions, int32(i)), append(p.targets, target)
		}
		p.starts = append(p.starts, int32(len(p.ids)))
		p.longest = max(p.longest, len(ids))
	}
	return p
}

// TestPackedEqualsAlone: a row's logits and the losses of a packed batch are those
// of each row computed alone, whatever the model's features.
func TestPackedEqualsAlone(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	var rows [][]int32
	for _, n := range []int{1, 17, 2, 40, 9} {
		row := make([]int32, n)
		for i := range row {
			row[i] = int32(r.IntN(20))
		}
		rows = append(rows, row)
	}
	for name, fields := range shapesOfModels {
		for device, open := range devices {
			t.Run(fmt.Sprintf("%s/%s", name, device), func(t *testing.T) {
				most := map[string]float64{"cpu": 2e-5, "ref": 1e-12}[device]
				m := newModel(t, open(), Options{Head: CausalLM}, fields)
				run := func(p *packed) (logits []float64, loss []float64) {
					s := newStepper(t, m, p, false, "none")
					s.prog.Forward()
					return tensor.GetFloat64(s.logits.Value()), tensor.GetFloat64(s.loss)
				}
				all, loss := run(batchOf(rows...))
				at := 0
				var sum, count float64
				for i, row := range rows {
					got, l := run(batchOf(row))
					sum, count = sum+l[0], count+l[1]
					for k, v := range got {
						if d := math.Abs(v - all[at+k]); d > most*(1+math.Abs(v)) {
							t.Fatalf("row %d: logit %d is %g alone, %g packed", i, k, v, all[at+k])
						}
					}
					at += len(got)
				}
				if at != len(all) || count != loss[1] || math.Abs(sum-loss[0]) > most*sum {
					t.Errorf("losses add up to %g over %g tokens, packed %g over %g", sum, count, loss[0], loss[1])
				}
			})
		}
	}
}
