package data

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sort"
	"testing"
)

func TestPermutation(t *testing.T) {
	// Each of the 6 orders of 3 should come about equally often.
	count := map[string]int{}
	for epoch := range uint64(6000) {
		perm := make([]uint32, 3)
		permutation(perm, 7, "s", epoch)
		count[fmt.Sprint(perm)]++
	}
	for order, n := range count {
		if len(count) != 6 || n < 850 || n > 1150 { // 1000 +- 5 standard deviations
			t.Errorf("order %s came %d times of 6000", order, n)
		}
	}
	a, b, c := make([]uint32, 100), make([]uint32, 100), make([]uint32, 100)
	permutation(a, 1, "s", 0)
	permutation(b, 2, "s", 0)
	permutation(c, 1, "other", 0)
	if reflect.DeepEqual(a, b) || reflect.DeepEqual(a, c) {
		t.Error("seed or name don't change the order")
	}
}

// testSet makes a dataset of sources with the given numbers of rows.
func testSet(t testing.TB, weights []float64, sizes ...int) *Dataset {
	t.Helper()
	var sources []Source
	for i, n := range sizes {
		s := Source{Name: fmt.Sprint("s", i), Files: []string{write(t, "a.jsonl", manyRows(n, fmt.Sprint("tag", i)))}}
		if weights != nil {
			s.Weight = weights[i]
		}
		sources = append(sources, s)
	}
	return load(t, Options{}, sources...)
}

// seqsOf lists a step's sequences by content, sorted, and checks its batches.
func seqsOf(t testing.TB, step *Step, budget int) []string {
	t.Helper()
	var out []string
	rows, tokens, trained := 0, 0, 0
	for _, b := range step.Micro {
		n := len(b.IDs)
		if len(b.Positions) != n || len(b.Targets) != n || int(b.Starts[len(b.Starts)-1]) != n || b.Starts[0] != 0 || len(b.Sources) != b.Rows || b.Rows == 0 {
			t.Fatalf("misshapen batch %+v", b)
		}
		if budget > 0 && n != budget {
			t.Fatalf("a batch of %d tokens, want %d", n, budget)
		}
		count := 0
		for i := 0; i+1 < len(b.Starts); i++ {
			from, to := b.Starts[i], b.Starts[i+1]
			if from >= to {
				t.Fatalf("empty sequence in %v", b.Starts)
			}
			for p := from; p < to; p++ {
				if b.Positions[p] != p-from {
					t.Fatalf("position %d of a sequence is %d", p-from, b.Positions[p])
				}
				if b.Targets[p] == IgnoreTarget {
					continue
				}
				count++
				if i >= b.Rows || p+1 == to || b.Targets[p] != b.IDs[p+1] {
					t.Fatalf("target at %d of [%d, %d) crosses a start, is wrong, or stands in the filler", p, from, to)
				}
			}
			if i < b.Rows {
				out = append(out, fmt.Sprint(b.Sources[i], b.IDs[from:to], b.Targets[from:to]))
				tokens += int(to - from)
			}
		}
		if count != b.Trained {
			t.Fatalf("%d trained targets, batch says %d", count, b.Trained)
		}
		rows += b.Rows
		trained += b.Trained
	}
	if rows != step.Sequences || tokens != step.Tokens || trained != step.Trained {
		t.Fatalf("step says %d sequences, %d tokens, %d trained; found %d, %d, %d", step.Sequences, step.Tokens, step.Trained, rows, tokens, trained)
	}
	return out
}

// optionsUnderTest are the ways to make steps, with the budget of a batch.
var optionsUnderTest = []LoaderOptions{
	{Batch: 16, Epochs: 1, Seed: 1},
	{Batch: 7, Epochs: 2.5, Seed: 2, MicroRows: 2},
	{Batch: 16, Epochs: 1, Seed: 3, MicroTokens: 100},
	{BatchTokens: 400, Epochs: 1, Seed: 4},
	{BatchTokens: 400, Epochs: 2, Seed: 5, MicroTokens: 130, Pack: 50},
	{BatchTokens: 640, Epochs: 1, Seed: 6, MicroTokens: 64, Pack: 64, Window: 3},
	{BatchTokens: 100, Pack: 60, Epochs: 1, Seed: 7, MicroRows: 1},
	{Batch: 5, Epochs: 1, Sequential: true},
}

func newTestLoader(t testing.TB, d *Dataset, opt LoaderOptions) *Loader {
	t.Helper()
	l, err := NewLoader(d, TrainPart, opt)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Over whole epochs each sequence comes exactly as often as there are epochs.
func TestNoRowIsLostOrDoubled(t *testing.T) {
	d := testSet(t, nil, 37, 150, 3)
	for _, opt := range optionsUnderTest {
		for _, epochs := range []int{1, 3} {
			opt.Epochs = float64(epochs)
			l := newTestLoader(t, d, opt)
			count := map[string]int{}
			steps := 0
			for step := (Step{}); l.Next(&step); steps++ {
				for _, s := range seqsOf(t, &step, opt.MicroTokens) {
					count[s]++
				}
			}
			if len(count) != 190 {
				t.Fatalf("%+v: %d different sequences, want 190", opt, len(count))
			}
			for s, n := range count {
				if n != epochs {
					t.Fatalf("%+v: %s came %d times, want %d", opt, s, n, epochs)
				}
			}
			if got := newTestLoader(t, d, opt).CountSteps(); got != steps {
				t.Errorf("%+v: CountSteps is %d, there were %d", opt, got, steps)
			}
			if e := l.Epoch(); e != float64(epochs) {
				t.Errorf("epoch %v at the end, want %d", e, epochs)
			}
		}
	}
}

// From any step on, a restored loader gives what the first one gave.
func TestResumeIsExact(t *testing.T) {
	for _, d := range []*Dataset{testSet(t, nil, 37, 60, 3), testSet(t, []float64{2, 1, 0.3}, 37, 60, 3), rankingSet(t, 40)} {
		for _, opt := range optionsUnderTest {
			l := newTestLoader(t, d, opt)
			var states [][]byte
			var steps []string
			for step := (Step{}); ; {
				raw, err := json.Marshal(l.State())
				if err != nil {
					t.Fatal(err)
				}
				states = append(states, raw)
				if !l.Next(&step) {
					break
				}
				steps = append(steps, fmt.Sprint(step))
			}
			end := fmt.Sprintf("%+v", l.State())
			for at := range states {
				var s State
				if err := json.Unmarshal(states[at], &s); err != nil {
					t.Fatal(err)
				}
				again := newTestLoader(t, d, opt)
				// A loader that has been used elsewhere restores as well as a new one.
				for step, skip := (Step{}), at%3; skip > 0 && again.Next(&step); skip-- {
				}
				if err := again.Restore(s); err != nil {
					t.Fatal(err)
				}
				step, i := Step{}, at
				for ; again.Next(&step); i++ {
					if i >= len(steps) || fmt.Sprint(step) != steps[i] {
						t.Fatalf("%+v, restored at %d: step %d differs", opt, at, i)
					}
				}
				if i != len(steps) {
					t.Fatalf("%+v, restored at %d: ends after %d steps, want %d", opt, at, i, len(steps))
				}
				if got := fmt.Sprintf("%+v", again.State()); got != end {
					t.Fatalf("end state %s, want %s", got, end)
				}
			}
		}
	}
}

func TestRestoreRefuses(t *testing.T) {
	d := testSet(t, nil, 37, 60)
	l := newTestLoader(t, d, optionsUnderTest[3])
	var step Step
	l.Next(&step)
	good := l.State()
	other := newTestLoader(t, testSet(t, nil, 37, 61), optionsUnderTest[3])
	if err := other.Restore(good); err == nil {
		t.Error("restored a position of other data")
	}
	seed := optionsUnderTest[3]
	seed.Seed++
	if err := newTestLoader(t, d, seed).Restore(good); err == nil {
		t.Error("restored a position of another seed")
	}
	for i, damage := range []func(*State){
		func(s *State) { s.Cursors = s.Cursors[:1] },
		func(s *State) { s.Drawn++ },
		func(s *State) { s.Cursors = []uint64{s.Drawn, 0} },
		func(s *State) { s.Waiting = []uint32{1 << 30} },
	} {
		s := good
		s.Cursors = append([]uint64(nil), s.Cursors...)
		damage(&s)
		if err := l.Restore(s); err == nil {
			t.Errorf("restored damaged state %d: %+v", i, s)
		}
	}
	if err := l.Restore(good); err != nil {
		t.Error(err)
	}
}

// However a step is cut, it holds the same sequences, and as many targets.
func TestMicroBatchesDontChangeTheStep(t *testing.T) {
	d := testSet(t, nil, 40, 90)
	for _, base := range []LoaderOptions{{Batch: 16, Epochs: 2, Seed: 9}, {BatchTokens: 640, Pack: 64, Epochs: 2, Seed: 9}} {
		var want [][]string
		for _, cut := range []LoaderOptions{{}, {MicroRows: 1}, {MicroRows: 16}, {MicroRows: 3}, {MicroTokens: 64}, {MicroTokens: 640}, {MicroTokens: 150}} {
			opt := base
			opt.MicroRows, opt.MicroTokens = cut.MicroRows, cut.MicroTokens
			l := newTestLoader(t, d, opt)
			i := 0
			for step := (Step{}); l.Next(&step); i++ {
				got := seqsOf(t, &step, opt.MicroTokens)
				sort.Strings(got)
				if cut == (LoaderOptions{}) {
					want = append(want, got)
				} else if !reflect.DeepEqual(got, want[i]) {
					t.Fatalf("%+v: step %d has other sequences", opt, i)
				}
			}
			if i != len(want) {
				t.Fatalf("%+v: %d steps, want %d", opt, i, len(want))
			}
		}
	}
}

// After any number of draws each source has given within one of its share.
func TestMixtureWeights(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		k := 1 + rng.IntN(6)
		var sizes []int
		var weights []float64
		sum := 0.0
		for range k {
			sizes = append(sizes, 1+rng.IntN(40))
			weights = append(weights, float64(1+rng.IntN(300))/100)
			sum += weights[len(weights)-1]
		}
		lists := make([][]uint32, k)
		names := make([]string, k)
		var id uint32
		owner := map[uint32]int{}
		for i, n := range sizes {
			names[i] = fmt.Sprint("s", i)
			for range n {
				lists[i] = append(lists[i], id)
				owner[id] = i
				id++
			}
		}
		m := newMixer(names, lists, weights, rng.Uint64(), true)
		drawn := make([]int, k)
		seen := map[uint32]int{}
		for step := 1; step <= 1000; step++ {
			seq := m.next()
			src := owner[seq]
			drawn[src]++
			seen[seq]++
			// Within each source, passes are whole: no sequence is ahead by two.
			if pass := (drawn[src]-1)/sizes[src] + 1; seen[seq] > pass {
				t.Fatalf("sequence %d came %d times in pass %d", seq, seen[seq], pass)
			}
			for i, w := range weights {
				if d := float64(drawn[i]) - float64(step)*w/sum; d >= 1+1e-9 || d <= -1-1e-9 {
					t.Fatalf("weights %v: after %d draws source %d has given %d", weights, step, i, drawn[i])
				}
			}
		}
	}
}

// Real lengths fill bins nearly.
func TestPackingFillsBins(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var s store
	var order []uint32
	total := 0
	for i := range 5000 {
		n := min(512, 20+int(rng.ExpFloat64()*120))
		total += n
		s.add(encoded{ids: make([]int32, n), trained: make([]bool, n)}, seqRef{})
		order = append(order, uint32(i))
	}
	p := packer{size: 512, window: 256}
	at := 0
	draw := func() (uint32, bool) {
		if at == len(order) {
			return 0, false
		}
		at++
		return order[at-1], true
	}
	bins, far := 0, 0
	for n := uint32(0); ; bins++ {
		bin := p.next(nil, s.length, draw)
		if len(bin) == 0 {
			break
		}
		size := 0
		for _, seq := range bin {
			size += s.length(seq)
			far = max(far, int(n)-int(seq))
			n++
		}
		if size > 512 {
			t.Fatalf("a bin of %d tokens", size)
		}
	}
	if fill := float64(total) / float64(bins*512); fill < 0.98 {
		t.Errorf("bins are %.3f full, want 0.98", fill)
	}
	if far > 256 {
		t.Errorf("a sequence came %d places late, the window is 256", far)
	}
}

func TestLoaderOptions(t *testing.T) {
	d := testSet(t, nil, 30)
	for i, opt := range []LoaderOptions{
		{}, {Batch: 1, BatchTokens: 1}, {Batch: -1}, {Batch: 1, MicroRows: 1, MicroTokens: 100}, {Batch: 4, MicroTokens: 5},
		{BatchTokens: 5}, {BatchTokens: 100, Pack: 5}, {BatchTokens: 100, Pack: 90, MicroTokens: 80}, {Batch: 1, Epochs: -1},
	} {
		if _, err := NewLoader(d, TrainPart, opt); err == nil {
			t.Errorf("options %d (%+v) are taken", i, opt)
		}
	}
	if _, err := NewLoader(d, EvalPart, LoaderOptions{Batch: 1}); err == nil {
		t.Error("a loader of nothing")
	}
	l := newTestLoader(t, d, LoaderOptions{Batch: 4, Limit: 10})
	n := 0
	for step := (Step{}); l.Next(&step); n += step.Sequences {
	}
	if n != 10 || l.CountSteps() != 3 {
		t.Errorf("limit 10 gives %d sequences in %d steps", n, l.CountSteps())
	}
	if got := newTestLoader(t, d, LoaderOptions{Batch: 4}).CountSteps(); got != 0 {
		t.Errorf("an endless stream has %d steps", got)
	}
}

func BenchmarkNext(b *testing.B) {
	d := testSet(b, nil, 2000)
	l := newTestLoader(b, d, LoaderOptions{BatchTokens: 4096, MicroTokens: 4096, Pack: 512})
	var step Step
	b.ReportAllocs()
	for b.Loop() {
		l.Next(&step)
		b.SetBytes(int64(4 * step.Tokens))
	}
}
