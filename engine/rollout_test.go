package engine

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"ringtail/autograd"
	"ringtail/model"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// What PPO asks of an engine: log-probabilities that the trainer finds again, and
// a life as long as the run while the weights change.

// score is the log-probability of each token of each row but the first, at a
// temperature, by one packed pass as in training.
func score(t testing.TB, m *model.Model, rows [][]int32, temperature float32) [][]float64 {
	t.Helper()
	var ids, positions, targets []int32
	starts, longest := []int32{0}, 0
	for _, row := range rows {
		for i, id := range row {
			ids, positions = append(ids, id), append(positions, int32(i))
			if i > 0 {
				targets = append(targets, id)
			}
		}
		targets = append(targets, -1)
		starts, longest = append(starts, int32(len(ids))), max(longest, len(row))
	}
	put := func(v []int32) tensor.Tensor {
		x, b, err := tensor.New(m.Device(), tensor.I32, len(v))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Free)
		tensor.SetInt32(x, v)
		return x
	}
	tape := autograd.NewTape(m.Device())
	h, err := m.Hidden(tape, model.Inputs{IDs: tape.Input("ids", put(ids)), Positions: tape.Input("positions", put(positions)),
		Starts: tape.Input("starts", put(starts)), Longest: longest})
	if err != nil {
		t.Fatal(err)
	}
	logProbs, _ := m.LogProb(tape, h, tape.Input("targets", put(targets)), temperature, false)
	tape.Output(logProbs)
	arena := autograd.NewArena(m.Device())
	defer arena.Free()
	p, err := tape.Compile(arena, autograd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.Forward()
	all := tensor.GetFloat64(logProbs.Value())
	out := make([][]float64, len(rows))
	for i := range rows {
		out[i] = all[starts[i] : starts[i+1]-1]
	}
	return out
}

// TestTemperedLogProbs: log-probabilities recorded at the sampling temperature are
// those of a packed pass with LogProb at that temperature, for answers in company
// and whatever else the settings do.
func TestTemperedLogProbs(t *testing.T) {
	for name, open := range testDevices() {
		t.Run(name, func(t *testing.T) {
			const temperature = 0.7
			m := randomModel(t, open())
			prompts, settings := requests(20)
			e := newEngine(t, m, Options{Slots: 6, Capacity: 128, Chunk: 16})
			answers := make([]*answer, len(prompts))
			for i := range prompts {
				settings[i].Temperature, settings[i].TemperedLogProbs = temperature, true
				_, answers[i] = submit(t, e, prompts[i], settings[i])
			}
			if err := e.Run(); err != nil {
				t.Fatal(err)
			}
			rows := make([][]int32, len(prompts))
			for i, a := range answers {
				rows[i] = append(slices.Clone(prompts[i]), a.ids...)
			}
			worst, apart := 0.0, 0.0
			tempered, plain := score(t, m, rows, temperature), score(t, m, rows, 1)
			for i, a := range answers {
				for k, got := range a.logProbs {
					at := len(prompts[i]) + k - 1
					worst = max(worst, math.Abs(got-tempered[i][at]))
					apart = max(apart, math.Abs(got-plain[i][at]))
				}
			}
			t.Logf("largest difference %.2g", worst)
			if worst > 1e-4 {
				t.Errorf("log-probabilities differ by up to %g", worst)
			}
			if apart < 0.1 {
				t.Errorf("those at temperature 1 differ by %g only, so that this tests nothing", apart)
			}
			e2 := newEngine(t, m, Options{Slots: 6, Capacity: 128, Chunk: 16})
			for i := range prompts { // the tokens are the same without
				settings[i].TemperedLogProbs = false
				_, a := submit(t, e2, prompts[i], settings[i])
				if err := e2.Run(); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(a.ids, answers[i].ids) {
					t.Errorf("request %d: %v with tempered log-probabilities, %v without", i, answers[i].ids, a.ids)
				}
			}
		})
	}
}

// TestTemperedAtOne: at temperature 1, and 0, nothing changes, not a bit.
func TestTemperedAtOne(t *testing.T) {
	m := randomModel(t, cpu.New())
	for _, temperature := range []float32{0, 1} {
		s := Settings{MaxTokens: 30, IgnoreEOS: true, Temperature: temperature, Seed: 4}
		plain := alone(t, m, []int32{1, 2, 3}, s)
		s.TemperedLogProbs = true
		if got := alone(t, m, []int32{1, 2, 3}, s); !slices.Equal(got.ids, plain.ids) || !slices.Equal(got.logProbs, plain.logProbs) {
			t.Errorf("temperature %g: %v, want %v", temperature, got, plain)
		}
	}
}

// TestOneEngineForARun: an engine lives through a run whose weights change between
// rounds. Without ReusePrefix nothing of a round is seen in the next, Forget or
// not; and nothing grows.
func TestOneEngineForARun(t *testing.T) {
	rounds := 1000
	if testing.Short() {
		rounds = 200
	}
	m := randomModel(t, cpu.New())
	arena := autograd.NewArena(m.Device())
	defer arena.Free()
	e := newEngine(t, m, Options{Slots: 4, Capacity: 64, Chunk: 32, Arena: arena})
	weights := m.Store.Param("model.layers.0.self_attn.k_proj.weight").Value
	prompts := [][]int32{{1, 2, 3}, {1, 2, 3, 4, 5, 6}, {1, 2, 3}, {9, 8}, {1, 2, 3, 4}, {7}}
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	answers := make([]answer, len(prompts))
	distinct := map[string]bool{}
	var before int64
	var programs, size int
	for round := range rounds {
		m.Device().Ops().Scale(weights, []float32{-1.25, -0.8}[round%2])
		if round%3 == 0 {
			e.Forget()
		}
		settings := func(i int) Settings {
			return Settings{MaxTokens: 3 + i%3, Temperature: 1, IgnoreEOS: true, Seed: uint64(i), TemperedLogProbs: true}
		}
		for i, prompt := range prompts {
			answers[i] = answer{ids: answers[i].ids[:0], logProbs: answers[i].logProbs[:0]}
			if _, err := e.Submit(prompt, settings(i), answers[i].take); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Run(); err != nil {
			t.Fatal(err)
		}
		if round%100 < 2 {
			for i := range prompts {
				if err := sameAnswer(&answers[i], alone(t, m, prompts[i], settings(i))); err != nil {
					t.Errorf("round %d, request %d: %v", round, i, err)
				}
			}
			distinct[fmt.Sprint(answers[0].logProbs)] = true
		}
		if round == 10 {
			before, programs, size = heap(), len(e.programs), arena.Size()
		}
	}
	if len(distinct) < 2 {
		t.Error("the answers never changed, so that this tests nothing")
	}
	grown := heap() - before
	t.Logf("%d rounds: heap %+d bytes, %d programs", rounds, grown, len(e.programs))
	if grown > 64<<10 {
		t.Errorf("the heap grew by %d bytes in %d rounds", grown, rounds)
	}
	if len(e.programs) != programs || arena.Size() != size {
		t.Errorf("%d programs and %d bytes of activations, after ten rounds %d and %d", len(e.programs), arena.Size(), programs, size)
	}
	if s := e.Stats(); s.CachedTokens != 0 || s.Running != 0 || s.Waiting != 0 || s.Finished != rounds*len(prompts) {
		t.Errorf("%+v", s)
	}
}
