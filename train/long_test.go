//go:build long

package train

import "testing"

// TestLongInterrupts interrupts a run at every micro-batch.
func TestLongInterrupts(t *testing.T) {
	testInterrupts(t, 1, "eval.every=2", "eval.patience=2", "train.lr=0.3", "train.schedule=constant", "train.steps=12",
		"checkpoint.every=3", "train.micro_tokens=64")
}
