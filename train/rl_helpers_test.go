package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"ringtail/model"
	"ringtail/recipe"
	"ringtail/runs"
	"ringtail/safetensors"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// rlShared is made once for the tests of reward models and PPO, in fixture's folder:
// actor/, a fine-tuned model whose answers end; reward/, a reward model that likes the
// word cat; cats.jsonl and dogs.jsonl, pairs and rankings by which it was trained.
var rlShared struct {
	once sync.Once
	err  error
}

func rlFixture(t testing.TB) string {
	t.Helper()
	dir := fixture(t)
	rlShared.once.Do(func() { rlShared.err = makeRLFixture(t, dir) })
	if rlShared.err != nil {
		t.Fatal(rlShared.err)
	}
	return dir
}

func makeRLFixture(t testing.TB, dir string) error {
	temp := filepath.Join(dir, "made")
	sft := mustDecode(t, base(t), "train.steps=150", "train.batch=8", "train.lr=0.02", "train.micro_tokens=256", "model.new.initializer_range=0.1",
		"samples.off=true", "eval.every=150", "log.tensorboard=false")
	if err := trainRun(context.Background(), sft, "sft", filepath.Join(temp, "sft"), false, cpu.New()); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(temp, "sft", runs.ModelDir), filepath.Join(dir, "actor")); err != nil {
		return err
	}
	if err := errors.Join(writePairs(filepath.Join(dir, "cats.jsonl"), 1, 120, "cat"), writeRankings(filepath.Join(dir, "rankings.jsonl"), 2, 60, "cat")); err != nil {
		return err
	}
	rec := mustReward(t, rewardBase(dir), "train.epochs=3", "train.lr=0.01", "samples.off=true", "eval.every=1000", "log.tensorboard=false")
	if err := trainRun(context.Background(), rec, "reward", filepath.Join(temp, "reward"), false, cpu.New()); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(temp, "reward", runs.ModelDir), filepath.Join(dir, "reward")); err != nil {
		return err
	}
	// So separable a set gives scores far apart, which a clip would make all alike.
	setConfig(t, filepath.Join(dir, "reward"), map[string]any{"ringtail": map[string]any{"reward_mean": 2, "reward_std": 3}})
	return nil
}

// without is a sentence in which a word doesn't occur, and with one in which it does.
func without(r *rand.Rand, word string) []string {
	words := strings.Fields("the a dog sat on mat ran home blue red sky is big small tree hello")
	var out []string
	for range 2 + r.IntN(4) {
		w := words[r.IntN(len(words))]
		if w != word {
			out = append(out, w)
		}
	}
	return append(out, "the")
}

func with(r *rand.Rand, word string, times int) []string {
	s := without(r, word)
	for range times {
		s[r.IntN(len(s))] = word
	}
	return s
}

func writeRows(path string, rows []any) error {
	var b bytes.Buffer
	for _, row := range rows {
		text, err := json.Marshal(row)
		if err != nil {
			return err
		}
		b.Write(append(text, '\n'))
	}
	return os.WriteFile(path, b.Bytes(), 0o666)
}

// writePairs writes pairs of answers of which the better has a word that the other lacks.
func writePairs(path string, seed uint64, n int, word string) error {
	r := rand.New(rand.NewPCG(seed, 3))
	var rows []any
	for range n {
		rows = append(rows, map[string]string{"prompt": "say " + strings.Join(without(r, word), " "),
			"chosen": strings.Join(with(r, word, 1), " ") + ".", "rejected": strings.Join(without(r, word), " ") + "."})
	}
	return writeRows(path, rows)
}

// writeRankings writes rankings of three answers, with scores, of which the better ones
// have a word.
func writeRankings(path string, seed uint64, n int, word string) error {
	r := rand.New(rand.NewPCG(seed, 4))
	var rows []any
	for range n {
		rows = append(rows, map[string]any{"prompt": "say " + strings.Join(without(r, word), " "),
			"answers": []string{strings.Join(without(r, word), " "), word + " " + strings.Join(with(r, word, 1), " ") + ".", strings.Join(without(r, word), " ") + "."},
			"scores":  []float64{1, 3, 1}})
	}
	return writeRows(path, rows)
}

// rewardBase is a recipe of a reward model on pairs and rankings.
func rewardBase(dir string) string {
	return strings.ReplaceAll(`
model: DIR/actor
data: {train: [{files: [DIR/cats.jsonl], name: pairs}, {files: [DIR/rankings.jsonl], name: rankings}], max_tokens: 64, held_out: 0.15}
train: {batch: 8, micro_tokens: 256, lr: 0.01}
samples: {rows: 2}
`, "DIR", dir)
}

// ppoBase is a recipe of PPO with the shared models.
func ppoBase(dir string) string {
	return strings.ReplaceAll(`
model: {actor: DIR/actor, reward: DIR/reward}
data: {prompts: [DIR/chats.jsonl], ptx: [DIR/more.jsonl], held_out: 0.1, ptx_tokens: 64}
train: {rollouts: 4, micro_tokens: 128, lr: 0.001}
ppo: {prompts: 8, samples: 2, max_tokens: 10, minibatches: 2, kl_coef: 0.05, kl_stop: 0, ptx_batch: 4}
eval: {answers: 6}
samples: {max_tokens: 8}
log: {tensorboard: false}
`, "DIR", dir)
}

// mustRecipe decodes a recipe of any objective.
func mustRecipe(t testing.TB, objective, text string, sets ...string) Recipe {
	t.Helper()
	rec := NewRecipe(objective)
	if err := recipe.Decode([]byte(text), "test.yaml", sets, rec); err != nil {
		t.Fatal(err)
	}
	return rec
}

func mustReward(t testing.TB, text string, sets ...string) *RewardRecipe {
	t.Helper()
	return mustRecipe(t, "reward", text, sets...).(*RewardRecipe)
}

func mustPPO(t testing.TB, text string, sets ...string) *PPORecipe {
	t.Helper()
	return mustRecipe(t, "ppo", text, sets...).(*PPORecipe)
}

// resolvedOf is a recipe's full text with changes, for a job.
func resolvedOf(t testing.TB, objective, text string, sets ...string) string {
	t.Helper()
	out, err := recipe.Marshal(mustRecipe(t, objective, text, sets...))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// standing makes a trainer that stands at its first step, without a run folder.
func standing(t testing.TB, rec Recipe, objective string, dev tensor.Device) *Trainer {
	t.Helper()
	if err := rec.Check(); err != nil {
		t.Fatal(err)
	}
	tr, err := newTrainer(context.Background(), rec, Options{Objective: objective, Dir: t.TempDir(), Device: dev})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

func testReward(t testing.TB, dev tensor.Device, sets ...string) *reward {
	t.Helper()
	return standing(t, mustReward(t, rewardBase(rlFixture(t)), sets...), "reward", dev).objective.(*reward)
}

func testPPO(t testing.TB, dev tensor.Device, sets ...string) *ppo {
	t.Helper()
	return standing(t, mustPPO(t, ppoBase(rlFixture(t)), sets...), "ppo", dev).objective.(*ppo)
}

// mustGather has a trainer make its next rollout.
func mustGather(t testing.TB, p *ppo) *experience {
	t.Helper()
	if _, over, err := p.gather(t.Context()); err != nil || over != "" {
		t.Fatal(err, over)
	}
	return p.rollout
}

// mustStep makes one step of an objective.
func mustStep(t testing.TB, o objective, step int) stepResult {
	t.Helper()
	r, err := o.step(t.Context(), step)
	if err == nil {
		r, err = r.done()
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// gradients are all gradients of a model, by parameter.
func gradients(m *model.Model) map[string][]float64 {
	out := map[string][]float64{}
	for _, e := range m.Store.Layout.Entries {
		if p := m.Store.Param(e.Name); p.Trainable() {
			out[e.Name] = tensor.GetFloat64(p.Grad.Reshape(p.Grad.Len()))
		}
	}
	return out
}

// sameGradients compares two sets of gradients, each parameter relative to its norm;
// those below floor of the largest norm count as nothing.
func sameGradients(t testing.TB, what string, got, want map[string][]float64, most float64) {
	t.Helper()
	largest := 0.0
	for _, w := range want {
		largest = max(largest, norm(w))
	}
	if largest == 0 || len(got) != len(want) {
		t.Fatalf("%s: %d gradients, want %d, the largest of norm %g", what, len(got), len(want), largest)
	}
	for name, w := range want {
		g := got[name]
		d := make([]float64, len(w))
		for i := range w {
			d[i] = g[i] - w[i]
		}
		if e := norm(d) / max(norm(w), 1e-3*largest); !(e <= most) {
			t.Errorf("%s: gradient of %s is off by %.2g of its norm %.3g", what, name, e, norm(w))
		}
	}
}

func norm(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	return math.Sqrt(sum)
}

// checkModelGradient compares gradients with central differences of f by some elements of each
// parameter of a model in float64.
func checkModelGradient(t *testing.T, m *model.Model, grads map[string][]float64, most float64, f func() float64) {
	t.Helper()
	largest := 0.0
	for _, g := range grads {
		for _, v := range g {
			largest = max(largest, math.Abs(v))
		}
	}
	if largest == 0 {
		t.Fatal("all gradients are 0")
	}
	r := rand.New(rand.NewPCG(7, 8))
	checked := 0
	for _, e := range m.Store.Layout.Entries {
		g, ok := grads[e.Name]
		if !ok {
			continue
		}
		value := m.Store.Param(e.Name).Value
		value = value.Reshape(value.Len())
		// The largest element, and two at random.
		top := 0
		for i := range g {
			if math.Abs(g[i]) > math.Abs(g[top]) {
				top = i
			}
		}
		elements := []int{top, r.IntN(len(g)), r.IntN(len(g))}
		if testing.Short() {
			elements = elements[:1]
		}
		for _, i := range elements {
			at := value.Slice(i, 1)
			old := tensor.GetFloat64(at)[0]
			const h = 1e-6
			tensor.SetFloat64(at, []float64{old + h})
			up := f()
			tensor.SetFloat64(at, []float64{old - h})
			down := f()
			tensor.SetFloat64(at, []float64{old})
			want := (up - down) / (2 * h)
			if d := math.Abs(g[i] - want); !(d <= most*max(math.Abs(want), 1e-2*largest)) {
				t.Errorf("gradient of %s[%d] is %.8g, finite differences give %.8g", e.Name, i, g[i], want)
			}
			checked++
		}
	}
	if checked < 10 {
		t.Fatalf("%d elements were checked", checked)
	}
}

// storeBytes are all weights and moments of a model, as bytes of a checkpoint.
func storeBytes(t testing.TB, m *model.Model) map[string]string {
	t.Helper()
	dir := t.TempDir()
	if err := m.Store.WriteChunks(dir); err != nil {
		t.Fatal(err)
	}
	return outcome(t, dir)
}

// startRun runs a recipe in this process and returns what it said. Without a device it is
// the CPU, whatever the machine has, unless the recipe names one.
func startRun(ctx context.Context, rec Recipe, objective, dir string, resume bool, dev tensor.Device) (said string, err error) {
	if name, _ := rec.place(); dev == nil && (name == "" || name == "auto") {
		dev = cpu.New()
	}
	var b bytes.Buffer
	err = Start(ctx, rec, Options{Objective: objective, Dir: dir, Resume: resume, Progress: runs.ProgressPlain, Messages: &b, Device: dev})
	return b.String(), err
}

// folderCopy is a copy of a model's folder that a test may break.
func folderCopy(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(rlFixture(t), name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// setConfig changes fields of a folder's config.json; nil takes one away.
func setConfig(t testing.TB, dir string, fields map[string]any) {
	t.Helper()
	setJSON(t, filepath.Join(dir, "config.json"), fields)
}

func setJSON(t testing.TB, path string, fields map[string]any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var o map[string]any
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatal(err)
	}
	for k, v := range fields {
		if v == nil {
			delete(o, k)
		} else {
			o[k] = v
		}
	}
	if text, err = json.Marshal(o); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
}

// changeModel loads a folder's model, changes its weights and writes it back.
func changeModel(t testing.TB, dir string, change func(m *model.Model)) {
	t.Helper()
	m, err := model.Load(dir, cpu.New(), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Free()
	change(m)
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
}

// setAll sets all elements of a parameter.
func setAll(m *model.Model, name string, f func(i int) float32) {
	p := m.Store.Param(name).Value
	v := make([]float32, p.Len())
	for i := range v {
		v[i] = f(i)
	}
	tensor.SetFloat32(p.Reshape(p.Len()), v)
}

// mustID is the id of a token.
func mustID(t testing.TB, p interface{ ID(string) (int32, bool) }, token string) int32 {
	t.Helper()
	id, ok := p.ID(token)
	if !ok {
		t.Fatalf("no token %q", token)
	}
	return id
}

func readJSON(t testing.TB, path string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var o map[string]any
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// nothingGrows calls one a number of times to warm up, and then n times: neither the heap
// nor the process nor any of sizes may grow.
func nothingGrows(t *testing.T, warm, n int, one func(), sizes func() []int) {
	t.Helper()
	for range warm {
		one()
	}
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before, resident, was := heap(), residentBytes(), sizes()
	for range n {
		one()
	}
	grown, more := heap()-before, residentBytes()-resident
	t.Logf("%d times: heap %+d bytes, process %+d bytes; sizes %v", n, grown, more, sizes())
	if grown > 256<<10 {
		t.Errorf("the heap grew by %d bytes in %d times", grown, n)
	}
	if resident > 0 && more > 8<<20 && !raceDetector {
		t.Errorf("the process grew by %d bytes in %d times", more, n)
	}
	if now := sizes(); !slices.Equal(now, was) {
		t.Errorf("sizes %v grew to %v", was, now)
	}
}

func readTensors(t testing.TB, path string) []safetensors.Tensor {
	t.Helper()
	f, err := safetensors.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []safetensors.Tensor
	for _, name := range f.Names() {
		x, _ := f.Tensor(name)
		x.Data = slices.Clone(x.Data)
		out = append(out, x)
	}
	return out
}

func writeTensors(t testing.TB, path string, parts []safetensors.Tensor) {
	t.Helper()
	if err := safetensors.WriteFile(path, nil, parts); err != nil {
		t.Fatal(err)
	}
}
