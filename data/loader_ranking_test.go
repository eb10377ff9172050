package data

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
)

// rankingSet makes rankings of two to four answers of different lengths, with ranks
// or scores, ties among them. The longest has at most 50 tokens.
func rankingSet(t testing.TB, n int) *Dataset {
	t.Helper()
	var sources []Source
	for s, rows := range []int{n, n / 2} {
		var b strings.Builder
		for i := range rows {
			var answers, values []string
			k := 2 + i%3
			for a := range k {
				answers = append(answers, fmt.Sprintf(`"%d%s"`, a, strings.Repeat("x", (i+3*a)%5)))
				values = append(values, fmt.Sprint((a*(i%5)+i)%4))
			}
			values[0], values[1] = "7", "9" // so that not all are tied
			field := []string{"ranks", "scores"}[i/3%2]
			fmt.Fprintf(&b, "{\"prompt\":\"%d\",\"answers\":[%s],\"%s\":[%s]}\n", i, strings.Join(answers, ","), field, strings.Join(values, ","))
		}
		sources = append(sources, Source{Name: fmt.Sprint("s", s), Files: []string{write(t, "a.jsonl", b.String())}})
	}
	return load(t, Options{Use: UseRankings}, sources...)
}

// setGroups lists a set's rankings as groupsOf lists those of a step.
func setGroups(d *Dataset) []string {
	var out []string
	for i := 0; ; i++ {
		seq, ok := d.Sequence(i)
		if !ok {
			return out
		}
		var b strings.Builder
		for _, a := range seq.Answers {
			answer := a.From + slices.Index(seq.Trained[a.From:a.To], true)
			fmt.Fprintf(&b, "%s: %v + %v rank %d score %g; ", seq.Source, seq.IDs[a.From:answer], seq.IDs[answer:a.To], a.Rank, a.Score)
		}
		out = append(out, b.String())
	}
}

// groupsOf lists a step's rankings and checks its batches.
func groupsOf(t testing.TB, d *Dataset, step *Step, budget int) []string {
	t.Helper()
	seqsOf(t, step, budget)
	var out []string
	for _, b := range step.Micro {
		if len(b.Ranks) != b.Rows || len(b.Scores) != b.Rows || len(b.Lengths) != b.Rows || b.Groups[0] != 0 || int(b.Groups[len(b.Groups)-1]) != b.Rows {
			t.Fatalf("misshapen groups in %+v", b)
		}
		for i := b.Rows; i+1 < len(b.Starts); i++ {
			if n := int(b.Starts[i+1] - b.Starts[i]); n > d.MaxLength() {
				t.Fatalf("a filler sequence of %d tokens, the longest answer has %d", n, d.MaxLength())
			}
		}
		for g := range len(b.Groups) - 1 {
			var s strings.Builder
			for r := b.Groups[g]; r < b.Groups[g+1]; r++ {
				end := b.Starts[r+1]
				answer := end - b.Lengths[r]
				fmt.Fprintf(&s, "%s: %v + %v rank %d score %g; ", d.Sources()[b.Sources[r]], b.IDs[b.Starts[r]:answer], b.IDs[answer:end], b.Ranks[r], b.Scores[r])
			}
			out = append(out, s.String())
		}
	}
	if step.Groups != len(out) {
		t.Fatalf("step says %d rankings, found %d", step.Groups, len(out))
	}
	return out
}

// Over whole epochs each ranking comes whole, as often as there are epochs.
func TestRankingsStayWhole(t *testing.T) {
	d := rankingSet(t, 80)
	if n := d.MaxGroup(); n > 50 || n < 2*d.MaxLength() {
		t.Fatalf("the longest ranking has %d tokens, its longest answer %d", n, d.MaxLength())
	}
	want := setGroups(d)
	sort.Strings(want)
	for _, opt := range optionsUnderTest {
		for _, epochs := range []int{1, 2} {
			opt.Epochs = float64(epochs)
			l := newTestLoader(t, d, opt)
			var got []string
			steps := 0
			for step := (Step{}); l.Next(&step); steps++ {
				groups := groupsOf(t, d, &step, opt.MicroTokens)
				if opt.Batch > 0 && len(groups) != opt.Batch && len(got)+len(groups) != epochs*len(want) {
					t.Fatalf("%+v: a step of %d rankings", opt, len(groups))
				}
				if opt.MicroRows > 0 && len(step.Micro[0].Groups) > opt.MicroRows+1 {
					t.Fatalf("%+v: a micro-batch of %d rankings", opt, len(step.Micro[0].Groups)-1)
				}
				got = append(got, groups...)
			}
			sort.Strings(got)
			all := slices.Repeat(want, epochs)
			sort.Strings(all)
			if !reflect.DeepEqual(got, all) {
				t.Fatalf("%+v: %d rankings came, want each of %d %d times", opt, len(got), len(want), epochs)
			}
			if n := newTestLoader(t, d, opt).CountSteps(); n != steps || l.State().Sequences != uint64(len(all)) {
				t.Errorf("%+v: CountSteps is %d, there were %d; state %+v", opt, n, steps, l.State())
			}
		}
	}
}

// However a step is cut, it holds the same rankings.
func TestMicroBatchesDontChangeTheRankings(t *testing.T) {
	d := rankingSet(t, 60)
	for _, base := range []LoaderOptions{{Batch: 16, Epochs: 2, Seed: 9}, {BatchTokens: 640, Pack: 64, Epochs: 2, Seed: 9}} {
		var want [][]string
		for _, cut := range []LoaderOptions{{}, {MicroRows: 1}, {MicroRows: 5}, {MicroTokens: 64}, {MicroTokens: 640}, {MicroTokens: 150}} {
			opt := base
			opt.MicroRows, opt.MicroTokens = cut.MicroRows, cut.MicroTokens
			l := newTestLoader(t, d, opt)
			i := 0
			for step := (Step{}); l.Next(&step); i++ {
				got := groupsOf(t, d, &step, opt.MicroTokens)
				sort.Strings(got)
				if cut == (LoaderOptions{}) {
					want = append(want, got)
				} else if i >= len(want) || !reflect.DeepEqual(got, want[i]) {
					t.Fatalf("%+v: step %d has other rankings", opt, i)
				}
			}
			if i != len(want) {
				t.Fatalf("%+v: %d steps, want %d", opt, i, len(want))
			}
		}
	}
}

// A micro-batch must hold a whole ranking, and no more than that.
func TestRankingsNeedRoom(t *testing.T) {
	d := rankingSet(t, 12)
	longest := d.MaxGroup()
	for _, c := range []struct {
		opt  LoaderOptions
		want string
	}{
		{LoaderOptions{Batch: 4, MicroTokens: longest}, ""},
		{LoaderOptions{Batch: 4, MicroTokens: longest - 1}, "raise micro_tokens"},
		{LoaderOptions{BatchTokens: longest}, ""},
		{LoaderOptions{BatchTokens: longest - 1}, "raise pack and batch_tokens"},
		{LoaderOptions{BatchTokens: 4 * longest, Pack: longest - 1}, "raise pack"},
		{LoaderOptions{BatchTokens: 4 * longest, Pack: longest}, ""},
	} {
		_, err := NewLoader(d, TrainPart, c.opt)
		if c.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", c.opt, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "computed together") ||
			!strings.Contains(err.Error(), fmt.Sprintf("%d tokens", longest)) {
			t.Errorf("%+v: got %v, want %q", c.opt, err, c.want)
		}
	}
}

// A position in rankings isn't one in others of the same lengths.
func TestRestoreKnowsRankings(t *testing.T) {
	one := func(row string) *Loader {
		d := load(t, Options{Use: UseRankings}, Source{Name: "s", Files: []string{write(t, "a.jsonl", row)}})
		return newTestLoader(t, d, LoaderOptions{Batch: 1})
	}
	state := one(`{"prompt":"q","answers":["a","bb"],"scores":[2,1]}`).State()
	for row, same := range map[string]bool{
		`{"question":"q","responses":["bb","a"],"scores":[1,2]}`: true,
		`{"prompt":"q","answers":["a","bb"],"scores":[3,1]}`:     false,
		`{"prompt":"q","answers":["a","bb"],"scores":[1,2]}`:     false,
		`{"prompt":"q","answers":["a","cc"],"scores":[2,1]}`:     false,
	} {
		if err := one(row).Restore(state); (err == nil) != same {
			t.Errorf("%s: %v", row, err)
		}
	}
}

// The buffers of a step that held rankings serve for other data.
func TestStepsAreReused(t *testing.T) {
	var step Step
	newTestLoader(t, rankingSet(t, 20), LoaderOptions{Batch: 8, MicroRows: 2}).Next(&step)
	newTestLoader(t, testSet(t, nil, 20), LoaderOptions{Batch: 8, MicroRows: 2}).Next(&step)
	seqsOf(t, &step, 0)
	for _, b := range step.Micro {
		if step.Groups != 0 || len(b.Groups)+len(b.Ranks)+len(b.Scores)+len(b.Lengths) != 0 {
			t.Fatalf("chats have rankings: %+v", b)
		}
	}
}
