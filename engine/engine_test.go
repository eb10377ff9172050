package engine

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"ringtail/autograd"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/ref"
)

// requests are prompts with settings of every kind.
func requests(n int) (prompts [][]int32, settings []Settings) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		p := make([]int32, 1+r.IntN(40))
		for j := range p {
			p[j] = int32(r.IntN(61))
		}
		s := Settings{MaxTokens: 1 + r.IntN(20), Seed: uint64(i)}
		switch i % 5 {
		case 1:
			s.Temperature = 1
		case 2:
			s.Temperature, s.TopP, s.RepetitionPenalty = 0.8, 0.9, 1.3
		case 3:
			s.Temperature, s.TopK, s.MinTokens = 1.5, 7, 5
		case 4:
			s.Temperature, s.MinP, s.IgnoreEOS = 1, 0.05, true
		}
		prompts, settings = append(prompts, p), append(settings, s)
	}
	return prompts, settings
}

func sameAnswer(got, want *answer) error {
	if !slices.Equal(got.ids, want.ids) || got.finish != want.finish {
		return fmt.Errorf("%v (%s), want %v (%s)", got.ids, got.finish, want.ids, want.finish)
	}
	for i := range got.logProbs {
		if math.Abs(got.logProbs[i]-want.logProbs[i]) > 1e-5 {
			return fmt.Errorf("log-probability %d is %g, want %g", i, got.logProbs[i], want.logProbs[i])
		}
	}
	return nil
}

// TestNeighboursDoNotMatter: a request gives the same tokens in any company, order
// of arrival, number of slots and size of chunks.
func TestNeighboursDoNotMatter(t *testing.T) {
	m := randomModel(t, cpu.New())
	prompts, settings := requests(20)
	want := make([]*answer, len(prompts))
	distinct := map[string]bool{}
	for i := range prompts {
		want[i] = alone(t, m, prompts[i], settings[i])
		distinct[fmt.Sprint(want[i].ids)] = true
	}
	if len(distinct) < 15 {
		t.Fatalf("only %d different answers of %d", len(distinct), len(prompts))
	}
	for _, opt := range []Options{{Slots: 1}, {Slots: 3, Chunk: 3}, {Slots: 8, Chunk: 9}, {Slots: 5, Chunk: 64}, {Slots: 16, Chunk: 256}, {Slots: 20, Chunk: 1000, ReusePrefix: true}} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%d slots, chunk %d, order %d", opt.Slots, opt.Chunk, seed), func(t *testing.T) {
				opt.Capacity = 128
				e := newEngine(t, m, opt)
				r := rand.New(rand.NewPCG(seed, 3))
				got := make([]*answer, len(prompts))
				for _, i := range r.Perm(len(prompts)) {
					_, got[i] = submit(t, e, prompts[i], settings[i])
					for range r.IntN(6) { // others have begun meanwhile
						if _, err := e.Step(); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := e.Run(); err != nil {
					t.Fatal(err)
				}
				for i := range got {
					if err := sameAnswer(got[i], want[i]); err != nil {
						t.Errorf("request %d: %v", i, err)
					}
				}
			})
		}
	}
}

// TestLogProbs: recorded log-probabilities are those of the packed forward pass
// that training makes, whatever sampling did to the distribution.
func TestLogProbs(t *testing.T) {
	for name, open := range testDevices() {
		t.Run(name, func(t *testing.T) {
			m := randomModel(t, open())
			prompts, settings := requests(10)
			e := newEngine(t, m, Options{Slots: 4, Capacity: 128, Chunk: 16})
			answers := make([]*answer, len(prompts))
			for i := range prompts {
				_, answers[i] = submit(t, e, prompts[i], settings[i])
			}
			if err := e.Run(); err != nil {
				t.Fatal(err)
			}
			worst := 0.0
			for i, a := range answers {
				want := logSoftmax(t, m, append(slices.Clone(prompts[i]), a.ids...))
				for k, id := range a.ids {
					worst = max(worst, math.Abs(a.logProbs[k]-want[len(prompts[i])+k-1][id]))
				}
			}
			if worst > 1e-5 {
				t.Errorf("log-probabilities differ by up to %g", worst)
			}
		})
	}
}

func TestDevicesAgree(t *testing.T) {
	a, b := randomModel(t, cpu.New()), randomModel(t, ref.New())
	prompts, settings := requests(10)
	for i := range prompts {
		if err := sameAnswer(alone(t, a, prompts[i], settings[i]), alone(t, b, prompts[i], settings[i])); err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
}

// TestGreedy: temperature 0 takes the likeliest token each time.
func TestGreedy(t *testing.T) {
	m := randomModel(t, cpu.New())
	a := alone(t, m, []int32{7, 8, 9}, Settings{MaxTokens: 30, IgnoreEOS: true})
	want := logSoftmax(t, m, append([]int32{7, 8, 9}, a.ids...))
	for k, id := range a.ids {
		row := want[k+2]
		row[5] = math.Inf(-1) // end of sequence
		if row[id] < slices.Max(row)-1e-6 {
			t.Errorf("token %d is %d with %g, the likeliest has %g", k, id, row[id], slices.Max(row))
		}
	}
}

func TestFinish(t *testing.T) {
	// 0 → 1 → 2 → 3 (end of sequence); second best after 2 is 4, which follows itself.
	table := successor(1, 2, 3, 3, 4)
	table[2][4] = 5
	m := chain(t, 3, table)
	for name, c := range map[string]struct {
		s      Settings
		want   []int32
		finish Finish
	}{
		"end of sequence":  {Settings{}, []int32{1, 2, 3}, Stop},
		"max tokens":       {Settings{MaxTokens: 2}, []int32{1, 2}, Length},
		"both at once":     {Settings{MaxTokens: 3}, []int32{1, 2, 3}, Stop},
		"ignore":           {Settings{IgnoreEOS: true, MaxTokens: 5}, []int32{1, 2, 4, 4, 4}, Length},
		"min tokens":       {Settings{MinTokens: 3, MaxTokens: 6}, []int32{1, 2, 4, 4, 4, 4}, Length},
		"min tokens, less": {Settings{MinTokens: 2}, []int32{1, 2, 3}, Stop},
		"stop id":          {Settings{StopIDs: []int32{2}}, []int32{1, 2}, Stop},
		"stop id, ignore":  {Settings{StopIDs: []int32{4}, IgnoreEOS: true}, []int32{1, 2, 4}, Stop},
		"stop id, min":     {Settings{StopIDs: []int32{1}, MinTokens: 1, MaxTokens: 2}, []int32{0, 1}, Stop},
		"context":          {Settings{IgnoreEOS: true}, append([]int32{1, 2}, slices.Repeat([]int32{4}, 17)...), Length},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, m, Options{Slots: 1, Capacity: 20})
			_, a := submit(t, e, []int32{0}, c.s)
			if err := e.Run(); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(a.ids, c.want) || a.finish != c.finish || a.ended != 1 {
				t.Errorf("%v (%s), want %v (%s)", a.ids, a.finish, c.want, c.finish)
			}
		})
	}
	t.Run("prompt fills the context but for one token", func(t *testing.T) {
		e := newEngine(t, m, Options{Slots: 1, Capacity: 20})
		_, a := submit(t, e, make([]int32, 19), Settings{})
		if err := e.Run(); err != nil || len(a.ids) != 1 || a.finish != Length {
			t.Errorf("%+v, %v", a, err)
		}
		if _, err := e.Submit(make([]int32, 20), Settings{}, a.take); !errors.Is(err, ErrContext) {
			t.Errorf("a prompt as long as the context: %v", err)
		}
	})
}

// TestRepetitionPenalty: logits of tokens that occurred, in the prompt too, are
// divided where positive, multiplied where negative.
func TestRepetitionPenalty(t *testing.T) {
	row := []float64{4, 3.9, 2.5, -1, -1.2, -9}
	m := chain(t, 5, [][]float64{row, row, row, row, row, row})
	// By 2: 4 → 2, 3.9 → 1.95, 2.5 → 1.25, −1 → −2, −1.2 → −2.4.
	e := newEngine(t, m, Options{Slots: 1, Capacity: 64})
	_, a := submit(t, e, []int32{0}, Settings{RepetitionPenalty: 2, MaxTokens: 5})
	if err := e.Run(); err != nil {
		t.Fatal(err)
	}
	if want := []int32{1, 2, 0, 0, 0}; !slices.Equal(a.ids, want) {
		t.Errorf("%v, want %v", a.ids, want)
	}
	if got, want := a.logProbs[0], logSoftmax(t, m, []int32{0})[0][1]; math.Abs(got-want) > 1e-5 {
		t.Errorf("log-probability %g is not the model's own %g", got, want)
	}
}

// TestSampling: frequencies of sampled tokens are those of the distribution, cut
// as the settings say.
func TestSampling(t *testing.T) {
	p := []float64{0.4, 0.3, 0.15, 0.1, 0.05}
	row := make([]float64, 5)
	for i := range p {
		row[i] = math.Log(p[i])
	}
	m := chain(t, -1, [][]float64{row, row, row, row, row})
	for name, c := range map[string]struct {
		s    Settings
		want []float64
	}{
		"all":         {Settings{Temperature: 1}, p},
		"temperature": {Settings{Temperature: 0.5}, []float64{.16, .09, .0225, .01, .0025}},
		"top k":       {Settings{Temperature: 1, TopK: 2}, []float64{.4, .3, 0, 0, 0}},
		"top p":       {Settings{Temperature: 1, TopP: 0.75}, []float64{.4, .3, .15, 0, 0}},
		"min p":       {Settings{Temperature: 1, MinP: 0.3}, []float64{.4, .3, .15, 0, 0}},
		"tiny":        {Settings{Temperature: 1e-30}, []float64{1, 0, 0, 0, 0}},
		"tiniest":     {Settings{Temperature: math.SmallestNonzeroFloat32}, []float64{1, 0, 0, 0, 0}},
		"hot":         {Settings{Temperature: 100}, []float64{.2, .2, .2, .2, .2}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, m, Options{Slots: 8, Capacity: 256})
			count := make([]float64, 5)
			n := 0.0
			for seed := range uint64(20) {
				c.s.MaxTokens, c.s.Seed = 200, seed
				if _, err := e.Submit([]int32{0}, c.s, func(ev Event) { count[ev.ID]++; n++ }); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.Run(); err != nil {
				t.Fatal(err)
			}
			total := 0.0
			for _, w := range c.want {
				total += w
			}
			for i, w := range c.want {
				w /= total
				if d := math.Abs(count[i]/n - w); d > 0.03 || w == 0 && count[i] > 0 {
					t.Errorf("token %d: %.3f of %v, want %.3f", i, count[i]/n, n, w)
				}
			}
		})
	}
}

// TestPrefixReuse: a chat's next turn doesn't compute the last one again, and gives
// the answers of an engine that does.
func TestPrefixReuse(t *testing.T) {
	m := randomModel(t, cpu.New())
	with := newEngine(t, m, Options{Slots: 2, Capacity: 200, Chunk: 32, ReusePrefix: true})
	r := rand.New(rand.NewPCG(8, 8))
	chats := [][]int32{{1, 2, 3}, {1, 2, 9, 9}, {30}}
	cached := 0
	for turn := range 12 {
		i := r.IntN(len(chats))
		prompt := chats[i]
		s := Settings{MaxTokens: 6, Temperature: 1, Seed: uint64(turn)}
		before := with.Stats()
		_, a := submit(t, with, prompt, s)
		if err := with.Run(); err != nil {
			t.Fatal(err)
		}
		if err := sameAnswer(a, alone(t, m, prompt, s)); err != nil {
			t.Errorf("turn %d: %v", turn, err)
		}
		after := with.Stats()
		cached += after.CachedTokens - before.CachedTokens
		if n := after.CachedTokens - before.CachedTokens; n >= len(prompt) {
			t.Errorf("%d tokens of a prompt of %d were cached: one must be computed", n, len(prompt))
		}
		chats[i] = append(append(slices.Clone(prompt), a.ids...), int32(r.IntN(61)), int32(r.IntN(61)))
	}
	if cached == 0 {
		t.Error("nothing was reused")
	}
	t.Run("exactly", func(t *testing.T) {
		e := newEngine(t, m, Options{Slots: 1, Capacity: 100, ReusePrefix: true})
		_, a := submit(t, e, []int32{1, 2, 3}, Settings{MaxTokens: 4, IgnoreEOS: true})
		if err := e.Run(); err != nil {
			t.Fatal(err)
		}
		// The last token was made but never read: 3 + 3 are in the cache.
		next := append(append([]int32{1, 2, 3}, a.ids...), 7)
		submit(t, e, next, Settings{MaxTokens: 1})
		if err := e.Run(); err != nil {
			t.Fatal(err)
		}
		if s := e.Stats(); s.CachedTokens != 6 || s.PromptTokens != 3+8 {
			t.Errorf("%+v, want 6 cached of 11", s)
		}
		e.Forget()
		submit(t, e, next, Settings{MaxTokens: 1})
		if err := e.Run(); err != nil {
			t.Fatal(err)
		}
		if s := e.Stats(); s.CachedTokens != 6 {
			t.Errorf("%+v: a forgotten prefix was used", s)
		}
	})
	t.Run("changed weights", func(t *testing.T) {
		m := randomModel(t, cpu.New())
		e := newEngine(t, m, Options{Slots: 1, Capacity: 100, ReusePrefix: true})
		s := Settings{MaxTokens: 5, IgnoreEOS: true}
		submit(t, e, []int32{1, 2, 3, 4, 5}, s)
		if err := e.Run(); err != nil {
			t.Fatal(err)
		}
		p := m.Store.Param("model.layers.0.self_attn.k_proj.weight").Value
		m.Device().Ops().Scale(p, -2)
		e.Forget()
		_, a := submit(t, e, []int32{1, 2, 3, 4, 5}, s)
		if err := e.Run(); err != nil {
			t.Fatal(err)
		}
		if err := sameAnswer(a, alone(t, m, []int32{1, 2, 3, 4, 5}, s)); err != nil {
			t.Error(err)
		}
	})
}

// TestCancel: while queued, while the prompt is read, and while tokens come; the
// others go on as if nothing had been.
func TestCancel(t *testing.T) {
	m := randomModel(t, cpu.New())
	s := Settings{MaxTokens: 12, IgnoreEOS: true}
	prompt := slices.Repeat([]int32{3, 1, 4}, 20)
	want := alone(t, m, prompt, s)
	e := newEngine(t, m, Options{Slots: 2, Capacity: 128, Chunk: 8, NewText: func() TextDecoder { return &pieces{of: slices.Repeat([]string{"x"}, 61)} }})
	step := func(n int) {
		for range n {
			if _, err := e.Step(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, kept := submit(t, e, prompt, s)
	reading, ra := submit(t, e, prompt, s)
	_, queued1 := submit(t, e, prompt, s)
	queued, qa := submit(t, e, prompt, s)
	step(3)
	if len(kept.ids) > 0 || e.Stats().Running != 2 || e.Stats().Waiting != 2 {
		t.Fatalf("%+v", e.Stats())
	}
	e.Cancel(queued)
	e.Cancel(reading)
	step(1)
	if qa.finish != Cancelled || qa.events != 1 || len(qa.ids) != 0 {
		t.Errorf("cancelled in the queue, behind another: %+v", qa)
	}
	if ra.finish != Cancelled || ra.events != 1 {
		t.Errorf("cancelled while its prompt was read: %+v", ra)
	}
	decoding, da := submit(t, e, []int32{9}, Settings{IgnoreEOS: true})
	for len(da.ids) < 3 {
		step(1)
	}
	e.Cancel(decoding)
	e.Cancel(decoding)
	step(1)
	if n := len(da.ids); da.finish != Cancelled || n != 3 || da.text != "xxx" {
		t.Errorf("cancelled after %d tokens: %+v", n, da)
	}
	if err := e.Run(); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*answer{kept, queued1} {
		if err := sameAnswer(a, want); err != nil {
			t.Error(err)
		}
	}
	e.Cancel(decoding) // long done
	if more, err := e.Step(); more || err != nil {
		t.Errorf("%v, %v", more, err)
	}
	if st := e.Stats(); st.Cancelled != 3 || st.Finished != 2 || st.Running != 0 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
}

// TestSinkSubmits: a sink may submit, cancel and look, also from the event of a
// cancelled request that never ran.
func TestSinkSubmits(t *testing.T) {
	m := randomModel(t, cpu.New())
	e := newEngine(t, m, Options{Slots: 1, Capacity: 64})
	last := &answer{}
	again := func(ev Event) {
		if ev.Finish == Running {
			return
		}
		e.Stats()
		if _, err := e.Submit([]int32{1}, Settings{MaxTokens: 2, IgnoreEOS: true}, last.take); err != nil {
			t.Error(err)
		}
	}
	r, err := e.Submit([]int32{1}, Settings{}, again)
	if err != nil {
		t.Fatal(err)
	}
	e.Cancel(r)
	if err := e.Run(); err != nil || len(last.ids) != 2 {
		t.Fatalf("%+v, %v", last, err)
	}
	if _, err := e.Submit([]int32{1}, Settings{MaxTokens: 1}, again); err != nil {
		t.Fatal(err)
	}
	if err := e.Run(); err != nil || len(last.ids) != 4 {
		t.Fatalf("%+v, %v", last, err)
	}
}

func TestStats(t *testing.T) {
	m := randomModel(t, cpu.New())
	e := newEngine(t, m, Options{Slots: 3, Capacity: 128})
	prompts, settings := requests(12)
	in, out := 0, 0
	for i := range prompts {
		in += len(prompts[i])
		if _, err := e.Submit(prompts[i], settings[i], func(ev Event) { out++ }); err != nil {
			t.Fatal(err)
		}
	}
	if s := e.Stats(); s.Waiting != 12 || s.Running != 0 {
		t.Errorf("%+v", s)
	}
	for more := true; more; {
		var err error
		if more, err = e.Step(); err != nil {
			t.Fatal(err)
		}
		if s := e.Stats(); s.Running+s.Waiting+s.Finished != 12 || s.Running > 3 {
			t.Fatalf("%+v", s)
		}
	}
	s := e.Stats()
	if s.PromptTokens != in || s.NewTokens != out || s.Finished != 12 || s.CachedTokens != 0 {
		t.Errorf("%+v, want %d prompt tokens and %d new ones", s, in, out)
	}
	if want := 2 * 2 * (3 + 1) * 128 * 16 * 4; s.CacheBytes != want { // k and v, layers, slots and one for filler, capacity, width, bytes
		t.Errorf("cache of %d bytes, want %d", s.CacheBytes, want)
	}
}

func TestSubmitRefuses(t *testing.T) {
	m := randomModel(t, cpu.New())
	e := newEngine(t, m, Options{Slots: 1, Capacity: 32})
	nan := float32(math.NaN())
	for name, c := range map[string]struct {
		ids []int32
		s   Settings
	}{
		"empty prompt": {nil, Settings{}}, "too long": {make([]int32, 32), Settings{}}, "negative id": {[]int32{-1}, Settings{}},
		"id beyond": {[]int32{61}, Settings{}}, "temperature": {[]int32{1}, Settings{Temperature: -1}}, "NaN": {[]int32{1}, Settings{Temperature: nan}},
		"top_p": {[]int32{1}, Settings{TopP: 1.1}}, "top_p NaN": {[]int32{1}, Settings{TopP: nan}}, "min_p": {[]int32{1}, Settings{MinP: -0.1}},
		"top_k": {[]int32{1}, Settings{TopK: -1}}, "max_tokens": {[]int32{1}, Settings{MaxTokens: -1}}, "min_tokens": {[]int32{1}, Settings{MinTokens: -1}},
		"penalty": {[]int32{1}, Settings{RepetitionPenalty: -1}}, "empty stop": {[]int32{1}, Settings{Stop: []string{""}}},
		"infinite": {[]int32{1}, Settings{Temperature: float32(math.Inf(1))}},
	} {
		if _, err := e.Submit(c.ids, c.s, func(Event) { t.Error("called") }); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if more, err := e.Step(); more || err != nil {
		t.Errorf("refused requests were kept: %v, %v", more, err)
	}
	if _, err := New(m, Options{Capacity: math.MaxInt}); err == nil {
		t.Error("an absurd context was taken")
	}
}

func TestNotFinite(t *testing.T) {
	m := randomModel(t, cpu.New())
	p := m.Store.Param("model.norm.weight").Value
	tensor.SetFloat64(p, slices.Repeat([]float64{math.NaN()}, p.Len()))
	e := newEngine(t, m, Options{Slots: 1, Capacity: 32})
	submit(t, e, []int32{1}, Settings{})
	if err := e.Run(); !errors.Is(err, ErrNotFinite) {
		t.Errorf("got %v", err)
	}
}

// TestSharedArena: an engine between a trainer's steps, on its arena.
func TestSharedArena(t *testing.T) {
	m := randomModel(t, cpu.New())
	arena := autograd.NewArena(m.Device())
	defer arena.Free()
	a, b := newEngine(t, m, Options{Slots: 2, Capacity: 64, Arena: arena}), newEngine(t, m, Options{Slots: 4, Capacity: 128, Arena: arena, Chunk: 64})
	s := Settings{MaxTokens: 10, IgnoreEOS: true}
	want := alone(t, m, []int32{1, 2, 3}, s)
	_, x := submit(t, a, []int32{1, 2, 3}, s)
	_, y := submit(t, b, []int32{1, 2, 3}, s)
	for more := true; more; {
		for _, e := range []*Engine{a, b} { // the arena moves as the larger programs come
			var err error
			if more, err = e.Step(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, got := range []*answer{x, y} {
		if err := sameAnswer(got, want); err != nil {
			t.Error(err)
		}
	}
}

// testNothingGrows sends many short requests and looks at the heap.
func testNothingGrows(t *testing.T, n int) {
	m := randomModel(t, cpu.New())
	e := newEngine(t, m, Options{Slots: 4, Capacity: 64, Chunk: 32, ReusePrefix: true, NewText: func() TextDecoder { return &pieces{of: slices.Repeat([]string{"x"}, 61)} }})
	send := func(n int) {
		for i := range n {
			r, err := e.Submit([]int32{int32(i % 61), 2, int32(i % 7)}, Settings{MaxTokens: 1 + i%4, Temperature: 1, RepetitionPenalty: 1.1, Seed: uint64(i), Stop: []string{"xxx"}}, func(Event) {})
			if err != nil {
				t.Fatal(err)
			}
			if i%13 == 0 {
				e.Cancel(r)
			}
			if i%3 == 0 {
				if _, err := e.Step(); err != nil {
					t.Fatal(err)
				}
			}
			if i%100 == 99 {
				if err := e.Run(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := e.Run(); err != nil {
			t.Fatal(err)
		}
	}
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	warm := max(200, n/2) // until all sizes of steps have been seen
	send(warm)
	before := heap()
	send(n)
	grown := heap() - before
	s := e.Stats()
	t.Logf("%d requests: heap %+d bytes, %d programs", n, grown, len(e.programs))
	if grown > 128<<10 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	if s.Running != 0 || s.Waiting != 0 || s.Finished+s.Cancelled != n+warm {
		t.Errorf("%+v", s)
	}
}

func TestNothingGrows(t *testing.T) { testNothingGrows(t, 300) }

// TestConcurrentUse: Submit, Cancel and Stats from other goroutines while Step
// runs. Run it with -race.
func TestConcurrentUse(t *testing.T) {
	m := randomModel(t, cpu.New())
	e := newEngine(t, m, Options{Slots: 3, Capacity: 64, Chunk: 16})
	var wg sync.WaitGroup
	var mu sync.Mutex
	ended := map[Finish]int{}
	const workers, each = 4, 25
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				r, err := e.Submit([]int32{int32(w), int32(i), 3}, Settings{MaxTokens: 1 + i%6, Temperature: 1, Seed: uint64(i)}, func(ev Event) {
					if ev.Finish != Running {
						mu.Lock()
						ended[ev.Finish]++
						mu.Unlock()
					}
				})
				if err != nil {
					t.Error(err)
				}
				if i%4 == w {
					e.Cancel(r)
				}
				if s := e.Stats(); s.Running < 0 || s.Running > 3 {
					t.Errorf("%+v", s)
				}
				runtime.Gosched()
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if err := e.Run(); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	if err := e.Run(); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range ended {
		total += n
	}
	if s := e.Stats(); total != workers*each || s.Finished+s.Cancelled != total || s.Cancelled != ended[Cancelled] {
		t.Errorf("%v ended, %+v", ended, s)
	}
}

func BenchmarkDecode(b *testing.B) {
	m := randomModel(b, cpu.New())
	e := newEngine(b, m, Options{Slots: 8, Capacity: 256})
	b.ReportAllocs()
	for b.Loop() {
		for i := range 8 {
			if _, err := e.Submit([]int32{1, int32(i)}, Settings{MaxTokens: 64, IgnoreEOS: true}, func(Event) {}); err != nil {
				b.Fatal(err)
			}
		}
		if err := e.Run(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*8*64/b.Elapsed().Seconds(), "tok/s")
}
