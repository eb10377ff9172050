package train

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringtail/data"
	"ringtail/model"
	"ringtail/runs"
	"ringtail/safetensors"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/ref"
)

// nextRankings draws a reward trainer's next batch.
func nextRankings(t testing.TB, r *reward) *data.Step {
	t.Helper()
	if !r.loader.Next(&r.batch) {
		t.Fatal("no more data")
	}
	return &r.batch
}

// scoreAlone is the raw score of a row of tokens in a pass of its own.
func scoreAlone(t testing.TB, r *reward, ids []int32) float64 {
	t.Helper()
	b := batchOf([][]int32{ids}, []int{1})
	if _, err := r.forward(&b, false); err != nil {
		t.Fatal(err)
	}
	return float64(r.scores[0])
}

// TestRewardGradient: through the whole model, the gradient of a step on rankings, with
// margins by their scores, is that of the loss's finite differences.
func TestRewardGradient(t *testing.T) {
	r := testReward(t, ref.New(), "reward.margin=0.4", "train.micro_tokens=160", "train.batch=4")
	step := nextRankings(t, r)
	if len(step.Micro) < 2 {
		t.Fatalf("%d micro-batches", len(step.Micro))
	}
	stats, err := r.gradients(step)
	if err != nil {
		t.Fatal(err)
	}
	// The loss in float64, by the equation.
	loss := func() float64 {
		sum := 0.0
		for i := range step.Micro {
			b := &step.Micro[i]
			p, err := r.forward(b, true)
			if err != nil {
				t.Fatal(err)
			}
			tokens := tensor.GetFloat64(p.scores.Value())
			for g := range len(b.Groups) - 1 {
				pairs, part := 0, 0.0
				for x := b.Groups[g]; x < b.Groups[g+1]; x++ {
					for y := b.Groups[g]; y < b.Groups[g+1]; y++ {
						if b.Ranks[x] < b.Ranks[y] {
							lead := tokens[b.Starts[x+1]-1] - tokens[b.Starts[y+1]-1] - 0.4*float64(b.Scores[x]-b.Scores[y])
							part += math.Log1p(math.Exp(-lead))
							pairs++
						}
					}
				}
				sum += part / float64(pairs)
			}
		}
		return sum / float64(step.Groups)
	}
	wantNear(t, "loss", stats.Loss, loss(), 1e-6)
	checkModelGradient(t, r.model, gradients(r.model), 1e-4, loss)
}

// TestRewardCPUEqualsReference: gradients, and what steps report.
func TestRewardCPUEqualsReference(t *testing.T) {
	a, b := testReward(t, cpu.New()), testReward(t, ref.New())
	for i := range 4 {
		x, y := mustStep(t, a, i), mustStep(t, b, i)
		if math.Abs(x.loss-y.loss) > 1e-3*y.loss || math.Abs(x.gradNorm-y.gradNorm) > 3e-3*y.gradNorm || x.lr != y.lr || x.tokens != y.tokens {
			t.Errorf("step %d: %+v on cpu, %+v on ref", i, x, y)
		}
		if i == 0 {
			sameGradients(t, "cpu", gradients(a.model), gradients(b.model), 1e-4)
		}
	}
}

// TestRewardCutDoesNotChangeGradients: however rankings are cut into micro-batches. None is
// cut itself.
func TestRewardCutDoesNotChangeGradients(t *testing.T) {
	for name, dev := range map[string]struct {
		open func() tensor.Device
		most float64
	}{"cpu": {func() tensor.Device { return cpu.New() }, 1e-5}, "ref": {func() tensor.Device { return ref.New() }, 1e-6}} {
		if testing.Short() && name == "ref" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			var want map[string][]float64
			var wantStats RankingStats
			for i, micro := range []int{4096, 160, 250, 700} {
				r := testReward(t, dev.open(), fmt.Sprintf("train.micro_tokens=%d", micro), "train.batch=16", fmt.Sprintf("train.recompute=%v", i == 2))
				stats, err := r.gradients(nextRankings(t, r))
				if err != nil {
					t.Fatal(err)
				}
				if want == nil {
					if want, wantStats = gradients(r.model), stats; len(r.batch.Micro) != 1 {
						t.Fatalf("%d micro-batches", len(r.batch.Micro))
					}
					continue
				}
				if micro == 160 && len(r.batch.Micro) < 5 {
					t.Fatalf("%d micro-batches", len(r.batch.Micro))
				}
				what := fmt.Sprintf("%d micro-batches", len(r.batch.Micro))
				sameGradients(t, what, gradients(r.model), want, dev.most)
				wantNear(t, what+": loss", stats.Loss, wantStats.Loss, 1e-6)
				wantNear(t, what+": accuracy", stats.Accuracy, wantStats.Accuracy, 1e-9)
				if stats.Pairs != wantStats.Pairs {
					t.Errorf("%s: %d pairs, want %d", what, stats.Pairs, wantStats.Pairs)
				}
			}
		})
	}
}

// TestScoreOfLastToken: an answer's score is read at its last token, which is the one that
// ends the turn; it is the same alone and in company, and nothing that follows has a part in it.
func TestScoreOfLastToken(t *testing.T) {
	r := testReward(t, cpu.New(), "train.micro_tokens=300", "train.batch=9")
	end := mustID(t, r.text.Tokenizer, "<|im_end|>")
	step := nextRankings(t, r)
	lengths := map[int]bool{}
	for i := range step.Micro {
		b := &step.Micro[i]
		p, err := r.forward(b, false)
		if err != nil {
			t.Fatal(err)
		}
		packed, tokens := slices.Clone(r.scores), p.read()
		for k := range b.Rows {
			ids := b.IDs[b.Starts[k]:b.Starts[k+1]]
			lengths[len(ids)] = true
			if ids[len(ids)-1] != end {
				t.Fatalf("an answer ends with token %d, not with %d", ids[len(ids)-1], end)
			}
			alone := scoreAlone(t, r, ids)
			wantNear(t, "score in company", float64(packed[k]), alone, 2e-5)
			before := float64(tokens[b.Starts[k+1]-2])
			if math.Abs(before-alone) < 1e-4 {
				t.Errorf("the token before the last has the same score %g", before)
			}
			// Whatever comes next in the row, another sequence or more of this one.
			other := batchOf([][]int32{ids, {5, 6, 7, 8, 9}, ids[:3]}, []int{1, 1, 1})
			if _, err := r.forward(&other, false); err != nil {
				t.Fatal(err)
			}
			wantNear(t, "score before others", float64(r.scores[0]), alone, 2e-5)
			longer := batchOf([][]int32{append(slices.Clone(ids), 5, 6, 7)}, []int{1})
			q, err := r.forward(&longer, false)
			if err != nil {
				t.Fatal(err)
			}
			wantNear(t, "score before more tokens", float64(q.read()[len(ids)-1]), alone, 2e-5)
		}
	}
	if len(lengths) < 4 {
		t.Errorf("answers of lengths %v: not ragged", lengths)
	}
}

// TestRewardLearns: the loss falls to nothing on rankings that are separable, held-out
// accuracy goes to 1, by source as well, and the result is a folder that transformers loads.
func TestRewardLearns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	rec := mustReward(t, rewardBase(rlFixture(t)), "train.epochs=3", "reward.margin=0")
	said, err := startRun(t.Context(), rec, "reward", dir, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, "scores are normalised by 151 best answers") {
		t.Errorf("said %q", said)
	}
	loss := series(t, dir, "loss")
	wantNear(t, "first loss", loss.Values[0], math.Ln2, 0.4)
	if last := loss.Last(); last > 0.05 {
		t.Errorf("loss %.3f after %.3f", last, loss.Values[0])
	}
	for _, name := range []string{"eval/accuracy", "eval/accuracy/pairs", "eval/accuracy/rankings"} {
		s := series(t, dir, name)
		if s.Steps[0] != 0 || s.Values[0] > 0.85 || s.Last() < 0.97 {
			t.Errorf("%s goes from %.3f to %.3f", name, s.Values[0], s.Last())
		}
	}
	if s := series(t, dir, "eval/accuracy_length_only"); s.Last() < 0.5 || s.Last() > 0.9 {
		t.Errorf("length alone gives an accuracy of %.2f", s.Last())
	}
	samples, err := runs.ReadSamples(dir)
	if err != nil || len(samples) < 8 || samples[0].Score == nil || samples[0].Prompt == "" || samples[0].Finish != "rank 1" {
		t.Fatalf("%d samples, the first %+v (%v)", len(samples), samples[0], err)
	}
	if first, last := samples[0], samples[len(samples)-1]; first.Step != 0 || int(last.Step) != int(loss.Steps[len(loss.Steps)-1]) {
		t.Errorf("samples of steps %d to %d", first.Step, last.Step)
	}
	// The exported folder.
	folder := filepath.Join(dir, runs.ModelDir)
	c, err := model.LoadConfig(folder)
	if err != nil || c.Architecture != "LlamaForSequenceClassification" || !c.Scalar() {
		t.Errorf("architecture %q (%v)", c.Architecture, err)
	}
	raw := readJSON(t, filepath.Join(folder, "config.json"))
	if n, ok := raw["num_labels"].(float64); ok && n != 1 || !ok {
		t.Errorf("num_labels %v", raw["num_labels"])
	}
	files, err := safetensors.OpenFolder(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	head, ok := files.Tensor("score.weight")
	if !ok || head.Dtype != "F32" || !slices.Equal(head.Shape, []int{1, 16}) {
		t.Errorf("score.weight is %s %v", head.Dtype, head.Shape)
	}
	for _, name := range files.Names() {
		if strings.HasPrefix(name, "score.") && name != "score.weight" || strings.HasPrefix(name, "lm_head") {
			t.Errorf("the folder has a tensor %s", name)
		}
	}
}

// TestRewardNormalisation: through the exported folder the best answers of the training rows
// score 0 on average, with deviation 1.
func TestRewardNormalisation(t *testing.T) {
	fix := rlFixture(t)
	run := func(sets ...string) (dir string, c *model.Config) {
		dir = filepath.Join(t.TempDir(), "run")
		rec := mustReward(t, rewardBase(fix), append([]string{"train.steps=20", "samples.off=true", "eval.every=20"}, sets...)...)
		if err := trainRun(t.Context(), rec, "reward", dir, false, cpu.New()); err != nil {
			t.Fatal(err)
		}
		c, err := model.LoadConfig(filepath.Join(dir, runs.ModelDir))
		if err != nil {
			t.Fatal(err)
		}
		return dir, c
	}
	dir, c := run()
	if c.Reward.Std == 1 || c.Reward.Mean == 0 {
		t.Fatalf("normalisation %+v", c.Reward)
	}
	again := testReward(t, cpu.New(), "model="+filepath.Join(dir, runs.ModelDir))
	if again.model.Config.Reward != c.Reward {
		t.Errorf("read %+v, the file has %+v", again.model.Config.Reward, c.Reward)
	}
	var best []float64
	for i := 0; ; i++ {
		q, ok := again.data.Sequence(i)
		if !ok {
			break
		}
		for _, a := range q.Answers {
			if !q.HeldOut && a.Rank == 1 {
				best = append(best, c.Reward.Apply(scoreAlone(t, again, q.IDs[a.From:a.To])))
			}
		}
	}
	train, held := again.data.Sequences()
	if len(best) != train || held == 0 {
		t.Fatalf("%d best answers of %d rankings, %d held out", len(best), train, held)
	}
	mean := MaskedMean(best, nil)
	for i := range best {
		best[i] = (best[i] - mean) * (best[i] - mean)
	}
	wantNear(t, "mean of the best answers", mean, 0, 1e-4)
	wantNear(t, "deviation of the best answers", math.Sqrt(MaskedMean(best, nil)), 1, 1e-4)

	if _, c := run("reward.normalize=false"); c.Reward != (model.Normalization{Std: 1}) {
		t.Errorf("not wanted, yet normalised by %+v", c.Reward)
	}
	if _, few := run("reward.normalize_rows=12"); few.Reward == c.Reward || few.Reward.Std == 1 {
		t.Errorf("twelve rows give %+v, all of them %+v", few.Reward, c.Reward)
	}
}

// TestRewardSaysTheSameOfEverything: a model that does has no deviation to divide by.
func TestRewardSaysTheSameOfEverything(t *testing.T) {
	r := testReward(t, cpu.New())
	setAll(r.model, "score.weight", func(int) float32 { return 0 })
	if err := r.normalize(t.Context()); err != nil || r.model.Config.Reward != (model.Normalization{Std: 1}) {
		t.Errorf("%+v, %v", r.model.Config.Reward, err)
	}
	setAll(r.model, "score.weight", func(int) float32 { return float32(math.NaN()) })
	if err := r.normalize(t.Context()); err == nil || !strings.Contains(err.Error(), "train.lr") {
		t.Errorf("scores that are NaN: %v", err)
	}
}

// TestHeldOutComparisons: what evaluation says is what the scores of single answers give.
func TestHeldOutComparisons(t *testing.T) {
	r := testReward(t, cpu.New(), "train.micro_tokens=160")
	for i := range 3 {
		mustStep(t, r, i)
	}
	got, err := r.compare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want comparisons
	var rankings int
	bySource := map[string][2]int{}
	var predicted, observed [calibrationBins]float64
	for i := 0; ; i++ {
		q, ok := r.data.Sequence(i)
		if !ok {
			break
		}
		if !q.HeldOut {
			continue
		}
		rankings++
		var scores, lengths []float64
		for _, a := range q.Answers {
			ids := q.IDs[a.From:a.To]
			scores = append(scores, scoreAlone(t, r, ids))
			lengths = append(lengths, float64(len(ids)-slices.Index(q.Trained[a.From:a.To], true)))
		}
		pairs, loss := 0, 0.0
		for x, a := range q.Answers {
			for y, b := range q.Answers {
				if a.Rank >= b.Rank {
					continue
				}
				pairs++
				lead := scores[x] - scores[y]
				loss += math.Log1p(math.Exp(-lead))
				want.Margin += lead
				tally := bySource[q.Source]
				tally[1]++
				p, right := 1/(1+math.Exp(-math.Abs(lead))), 0.0
				if lead > 0 {
					right = 1
					tally[0]++
				}
				bySource[q.Source] = tally
				want.Right += right
				predicted[int((p-0.5)*10)] += p
				observed[int((p-0.5)*10)] += right
				if lengths[x] > lengths[y] {
					want.Longer++
				} else if lengths[x] == lengths[y] {
					want.Longer += 0.5
				}
			}
		}
		want.Pairs += pairs
		want.Loss += loss / float64(pairs)
	}
	n := float64(want.Pairs)
	if got.Pairs != want.Pairs || got.Pairs < 30 {
		t.Errorf("%d pairs, want %d", got.Pairs, want.Pairs)
	}
	wantNear(t, "accuracy", got.Right, want.Right/n, 1e-9)
	wantNear(t, "longer", got.Longer, want.Longer/n, 1e-9)
	wantNear(t, "margin", got.Margin, want.Margin/n, 1e-4)
	wantNear(t, "loss", got.Loss, want.Loss/float64(rankings), 1e-4)
	for i := range predicted {
		want.Error += math.Abs(predicted[i]-observed[i]) / n
	}
	wantNear(t, "calibration error", got.Error, want.Error, 1e-4)
	if len(bySource) != 2 || len(got.BySource) != 2 {
		t.Errorf("sources %v, want %v", got.BySource, bySource)
	}
	for name, tally := range bySource {
		if got.BySource[name] != tally {
			t.Errorf("%s: %v, want %v", name, got.BySource[name], tally)
		}
	}
}

// TestRewardStart: a reward model starts from the fine-tuned model's own weights, with a
// head of deviation 1/sqrt(hidden + 1), and from a reward model with its head.
func TestRewardStart(t *testing.T) {
	r := testReward(t, cpu.New())
	actor, err := model.Load(filepath.Join(rlFixture(t), "actor"), cpu.New(), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer actor.Free()
	for _, e := range actor.Store.Layout.Entries {
		if p := r.model.Store.Param(e.Name); p == nil || !slices.Equal(tensor.GetFloat32(p.Value), tensor.GetFloat32(actor.Store.Param(e.Name).Value)) {
			t.Errorf("%s isn't the fine-tuned model's", e.Name)
		}
	}
	squares := 0.0
	for seed := range uint64(60) {
		m, err := model.Load(filepath.Join(rlFixture(t), "actor"), cpu.New(), model.Options{Head: model.ScalarHead, FreshHead: true, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range tensor.GetFloat64(m.Store.Param("score.weight").Value) {
			squares += v * v / (60 * 16)
		}
		m.Free()
	}
	wantNear(t, "variance of new heads", squares*17, 1, 0.15)
	again := testReward(t, cpu.New(), "model="+filepath.Join(rlFixture(t), "reward"), "seed=3")
	head, err := model.Load(filepath.Join(rlFixture(t), "reward"), cpu.New(), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer head.Free()
	if !slices.Equal(tensor.GetFloat32(again.model.Store.Param("score.weight").Value), tensor.GetFloat32(head.Store.Param("score.weight").Value)) {
		t.Error("a reward model's head was made anew")
	}
}

// TestRewardDefaults: one epoch, and a learning rate that falls.
func TestRewardDefaults(t *testing.T) {
	rec := mustReward(t, "model: x\ndata: {train: [x.jsonl]}\n")
	if rec.Train.Epochs != 1 || rec.Train.Steps != 0 || rec.Train.Schedule != "cosine" || rec.Train.MinLR > 0.1 || !rec.Reward.Normalize {
		t.Errorf("%+v %+v", rec.Train, rec.Reward)
	}
}

// TestRewardMargin: without margins the loss is that of leads; with them the better answer
// of rows with scores must lead by more, and rows without scores stay as they are.
func TestRewardMargin(t *testing.T) {
	loss := func(source string, margin float64) float64 {
		fix := rlFixture(t)
		r := testReward(t, cpu.New(), fmt.Sprintf("reward.margin=%g", margin), fmt.Sprintf("data.train=[%s/%s.jsonl]", fix, source))
		stats, err := r.gradients(nextRankings(t, r))
		if err != nil {
			t.Fatal(err)
		}
		return stats.Loss
	}
	if a, b := loss("rankings", 0), loss("rankings", 0.5); b < a+0.3 || b > a+1 {
		t.Errorf("loss %.3f without a margin, %.3f with one of 1", a, b)
	}
	if a, b := loss("cats", 0), loss("cats", 0.5); a != b {
		t.Errorf("rows without scores: loss %.6f without a margin, %.6f with one", a, b)
	}
}

// TestRewardNothingGrows: over steps, evaluations and samples.
func TestRewardNothingGrows(t *testing.T) {
	r := testReward(t, cpu.New(), "train.steps=100000")
	step := 0
	nothingGrows(t, 100, 200, func() {
		mustStep(t, r, step)
		if step++; step%50 == 0 {
			if _, err := r.evaluate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := r.sample(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
	}, func() []int { return []int{len(r.passes), r.arena.Size(), r.bytes(), len(r.buffers)} })
}

// TestRewardSeed: one seed, one result, on any number of threads; another seed, another.
func TestRewardSeed(t *testing.T) {
	n := cpu.Threads()
	defer cpu.SetThreads(n)
	run := func(threads int, sets ...string) map[string]string {
		cpu.SetThreads(threads)
		dir := filepath.Join(t.TempDir(), "run")
		rec := mustReward(t, rewardBase(rlFixture(t)), append([]string{"train.steps=5", "train.micro_tokens=512", "train.batch=16"}, sets...)...)
		if err := trainRun(context.Background(), rec, "reward", dir, false, cpu.New()); err != nil {
			t.Fatal(err)
		}
		return outcome(t, dir)
	}
	want := run(2)
	t.Run("again", func(t *testing.T) { same(t, run(2), want) })
	t.Run("one thread", func(t *testing.T) { same(t, run(1), want) })
	t.Run("three threads", func(t *testing.T) { same(t, run(3), want) })
	t.Run("another seed", func(t *testing.T) {
		got := run(2, "seed=1")
		for _, name := range []string{"model/model.safetensors", "metrics.jsonl", "samples.jsonl"} {
			if got[name] == want[name] {
				t.Errorf("%s is the same", name)
			}
		}
	})
}

// TestRewardSkip: a step with a gradient that isn't finite changes nothing.
func TestRewardSkip(t *testing.T) {
	r := testReward(t, cpu.New())
	mustStep(t, r, 0)
	before := storeBytes(t, r.model)
	name := "model.layers.1.mlp.down_proj.weight"
	value := r.model.Store.Param(name).Value
	old := tensor.GetFloat32(value)
	setAll(r.model, name, func(i int) float32 { return float32(math.Inf(1)) })
	if out := mustStep(t, r, 1); !out.skipped || !strings.Contains(r.badTensor(), name) {
		t.Errorf("%+v; %s is blamed", out, r.badTensor())
	}
	setAll(r.model, name, func(i int) float32 { return old[i] })
	same(t, storeBytes(t, r.model), before)
	if r.learner.updates != 1 {
		t.Errorf("%d updates", r.learner.updates)
	}
	if out := mustStep(t, r, 2); out.skipped {
		t.Errorf("%+v after the weights were mended", out)
	}
}

// TestRewardBest: with export: best the result is what did best on held-out rankings, of what was
// trained: not the start, even where training only makes things worse.
func TestRewardBest(t *testing.T) {
	for name, c := range map[string]struct {
		sets  []string
		worse bool
	}{"better": {[]string{"train.lr=0.03"}, false}, "worse": {[]string{"model=" + filepath.Join(rlFixture(t), "reward"), "train.lr=0.5", "train.clip=0"}, true}} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "run")
			rec := mustReward(t, rewardBase(rlFixture(t)), append([]string{"checkpoint.export=best", "eval.every=3", "train.steps=13", "train.schedule=constant", "train.warmup=0", "samples.off=true"}, c.sets...)...)
			if err := trainRun(t.Context(), rec, "reward", dir, false, cpu.New()); err != nil {
				t.Fatal(err)
			}
			loss := series(t, dir, "eval/loss")
			best, at := math.Inf(1), 0
			for i, v := range loss.Values {
				if loss.Steps[i] > 0 && v < best {
					best, at = v, int(loss.Steps[i])
				}
			}
			if worse := loss.Values[0] < best; worse != c.worse {
				t.Fatalf("losses %v", loss.Values)
			}
			r := standing(t, rec, "reward", cpu.New()).objective.(*reward)
			if err := r.readWeights(filepath.Join(dir, runs.CheckpointsDir, fmt.Sprintf("step-%d", at))); err != nil {
				t.Fatal(err)
			}
			folderHolds(t, filepath.Join(dir, runs.ModelDir), r.model)
			info, err := runs.ReadInfo(dir)
			if want := map[bool]int{true: at}[at != 13]; err != nil || info.Exported != want {
				t.Errorf("run.json says step %d, want %d (%v)", info.Exported, want, err)
			}
		})
	}
}
