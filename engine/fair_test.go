package engine

import (
	"testing"

	"ringtail/tensor/cpu"
)

// TestLongPromptIsNotStarved: short requests that keep taking a lower slot don't
// hold up the reading of a long prompt.
func TestLongPromptIsNotStarved(t *testing.T) {
	e := newEngine(t, randomModel(t, cpu.New()), Options{Slots: 2, Capacity: 64, Chunk: 8})
	short := make([]int32, 8)
	var refill func()
	submitted := 0
	refill = func() {
		submitted++
		if _, err := e.Submit(short, Settings{MaxTokens: 1, IgnoreEOS: true}, func(ev Event) { refill() }); err != nil {
			t.Error(err)
		}
	}
	refill()
	done := false
	long := make([]int32, 40)
	if _, err := e.Submit(long, Settings{MaxTokens: 1, IgnoreEOS: true}, func(Event) { done = true }); err != nil {
		t.Fatal(err)
	}
	steps := 0
	for ; !done && steps < 50; steps++ {
		if _, err := e.Step(); err != nil {
			t.Fatal(err)
		}
	}
	// The short prompt before it and five chunks of its own.
	if steps > 7 {
		t.Errorf("the long prompt was answered after %d steps (done: %v), with %d short ones", steps, done, submitted)
	}
}
