package train

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/model"
	"ringtail/runs"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// refuses runs a recipe that must be refused in a line or two which hold words, before
// anything is written where early says so.
func refuses(t *testing.T, objective string, rec Recipe, early bool, words ...string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "run")
	_, err := startRun(context.Background(), rec, objective, dir, false, nil)
	if err == nil {
		t.Fatal("no error")
	}
	inALine(t, err, words...)
	if _, err := os.Stat(dir); early && err == nil {
		t.Error("a run folder was begun")
	}
	if _, err := os.Stat(filepath.Join(dir, runs.ModelDir)); err == nil {
		t.Error("a result was written")
	}
}

// jsonl writes rows to a file of their own.
func jsonl(t testing.TB, rows ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	mustWrite(t, path, []byte(strings.Join(rows, "\n")+"\n"))
	return path
}

func TestPPORefusesModels(t *testing.T) {
	fix := rlFixture(t)
	poisoned := func(folder string) string {
		dir := folderCopy(t, folder)
		changeModel(t, dir, func(m *model.Model) {
			setAll(m, "model.layers.0.mlp.down_proj.weight", func(i int) float32 { return float32(math.NaN()) })
		})
		return dir
	}
	headless := folderCopy(t, "reward")
	if err := os.Remove(filepath.Join(headless, "tokenizer.json")); err != nil {
		t.Fatal(err)
	}
	labels := folderCopy(t, "reward")
	setConfig(t, labels, map[string]any{"num_labels": 3, "id2label": map[string]string{"0": "a", "1": "b", "2": "c"}})
	wide := folderCopy(t, "reward")
	setConfig(t, wide, map[string]any{"num_labels": 3})
	replaceTensor(t, wide, "score.weight", []int{3, 16})
	zero, negative, text, object := folderCopy(t, "reward"), folderCopy(t, "reward"), folderCopy(t, "reward"), folderCopy(t, "reward")
	setConfig(t, zero, map[string]any{"ringtail": map[string]any{"reward_mean": 0, "reward_std": 0}})
	setConfig(t, negative, map[string]any{"ringtail": map[string]any{"reward_mean": 0, "reward_std": -1}})
	setConfig(t, text, map[string]any{"ringtail": map[string]any{"reward_mean": "high"}})
	setConfig(t, object, map[string]any{"ringtail": 4})
	other := folderCopy(t, "reward") // as many tokens, one of them another
	editFile(t, filepath.Join(other, "tokenizer.json"), "<|im_start|>", "<|im_stort|>")
	larger := folderCopy(t, "reward")
	addToken(t, larger, "<|more|>", 300)
	short := folderCopy(t, "reward")
	setConfig(t, short, map[string]any{"max_position_embeddings": 12})
	narrow := folderCopy(t, "actor") // an actor with rows for tokens that nobody else knows
	widenVocabulary(t, narrow, 320)
	for name, c := range map[string]struct {
		sets  []string
		early bool
		words []string
	}{
		"no such actor":                 {[]string{"model.actor=/nowhere/actor"}, true, []string{"model.actor", "/nowhere/actor"}},
		"no such reward model":          {[]string{"model.reward=/nowhere/rm"}, true, []string{"model.reward", "/nowhere/rm"}},
		"no such critic":                {[]string{"model.critic=/nowhere/c"}, true, []string{"model.critic", "/nowhere/c"}},
		"no such reference":             {[]string{"model.reference=/nowhere/r"}, true, []string{"model.reference", "/nowhere/r"}},
		"reward model without head":     {[]string{"model.reward=" + filepath.Join(fix, "actor")}, true, []string{"model.reward", "score.weight", "train reward"}},
		"actor is a reward model":       {[]string{"model.actor=" + filepath.Join(fix, "reward")}, true, []string{"model.actor", "reward"}},
		"reference is a reward model":   {[]string{"model.reference=" + filepath.Join(fix, "reward")}, true, []string{"model.reference", "reward"}},
		"reward without tokenizer":      {[]string{"model.reward=" + headless}, true, []string{"model.reward", "tokenizer"}},
		"labels in config.json":         {[]string{"model.reward=" + labels}, true, []string{"model.reward", "num_labels", "3"}},
		"a head of three":               {[]string{"model.reward=" + wide}, true, []string{"model.reward", "num_labels", "3"}},
		"reward_std 0":                  {[]string{"model.reward=" + zero}, true, []string{"model.reward", "reward_std", "config.json"}},
		"reward_std negative":           {[]string{"model.reward=" + negative}, true, []string{"reward_std"}},
		"reward_mean is text":           {[]string{"model.reward=" + text}, true, []string{"reward_mean", "high"}},
		"ringtail is a number":          {[]string{"model.reward=" + object}, true, []string{"ringtail"}},
		"another tokenizer":             {[]string{"model.reward=" + other}, true, []string{"model.reward", other, "<|im_stort|>", "<|im_start|>", "same model"}},
		"another size of the tokenizer": {[]string{"model.reward=" + larger}, true, []string{"model.reward", larger, "301", "300"}},
		"critic of another tokenizer":   {[]string{"model.critic=" + other}, true, []string{"model.critic", "<|im_stort|>"}},
		"fewer rows than the actor":     {[]string{"model.actor=" + narrow}, true, []string{"320", "300"}},
		"a short reward model":          {[]string{"model.reward=" + short}, true, []string{"model.reward", "context of 12"}},
		"NaN in the reward model":       {[]string{"model.reward=" + poisoned("reward"), "model.critic=" + filepath.Join(fix, "reward")}, false, []string{"model.reward", "not finite"}},
		"NaN in the critic":             {[]string{"model.critic=" + poisoned("reward"), "train.max_skips=2", "checkpoint.every=1"}, false, []string{"2 steps in a row", "the critic", "down_proj"}},
		"NaN in the actor":              {[]string{"model.actor=" + poisoned("actor"), "model.reference=" + filepath.Join(fix, "actor")}, false, []string{"finite"}},
		"NaN in the reference":          {[]string{"model.reference=" + poisoned("actor"), "ppo.kl_stop=10"}, false, []string{"model.reference", "not finite"}},
	} {
		t.Run(name, func(t *testing.T) { refuses(t, "ppo", mustPPO(t, ppoBase(fix), c.sets...), c.early, c.words...) })
	}
}

func TestPPORefusesSettings(t *testing.T) {
	fix := rlFixture(t)
	for name, c := range map[string]struct {
		sets  []string
		words []string
	}{
		"ptx_coef without data":       {[]string{"ppo.ptx_coef=0.5", "data.ptx=[]"}, []string{"ppo.ptx_coef", "data.ptx"}},
		"answers beyond the context":  {[]string{"ppo.max_tokens=64"}, []string{"ppo.max_tokens", "64", "context"}},
		"prompts beyond the context":  {[]string{"data.max_tokens=60"}, []string{"data.max_tokens 60", "ppo.max_tokens 10", "64"}},
		"micro_tokens below answers":  {[]string{"train.micro_tokens=16", "ppo.max_tokens=20"}, []string{"train.micro_tokens 16", "ppo.max_tokens 20"}},
		"micro_tokens below prompts":  {[]string{"train.micro_tokens=24"}, []string{"train.micro_tokens 24", "data.max_tokens"}},
		"more minibatches":            {[]string{"ppo.minibatches=17"}, []string{"16 answers", "17 minibatches"}},
		"dual_clip":                   {[]string{"ppo.dual_clip=0.9"}, []string{"ppo.dual_clip"}},
		"clip":                        {[]string{"ppo.clip=1.5"}, []string{"ppo.clip"}},
		"kl_target without kl_coef":   {[]string{"ppo.kl_target=3", "ppo.kl_coef=0"}, []string{"ppo.kl_target", "ppo.kl_coef"}},
		"min_tokens above max_tokens": {[]string{"ppo.min_tokens=30"}, []string{"ppo.min_tokens 30", "ppo.max_tokens 10"}},
		"warm-up of the whole run":    {[]string{"ppo.critic_warmup=4"}, []string{"ppo.critic_warmup 4", "4 rollouts"}},
		"everything frozen":           {[]string{"model.freeze=['*']"}, []string{"model.freeze"}},
		"freezes nothing":             {[]string{"model.freeze=[modle.x]"}, []string{"model.freeze", "modle.x"}},
		"device":                      {[]string{"device=cuda:99"}, []string{"device", "cuda:99"}},
		"format":                      {[]string{"data.prompts=[{files: [x.jsonl], format: alpaka}]"}, []string{"alpaka"}},
		"sample prompt too long":      {[]string{"samples.prompts=['" + strings.Repeat("cat ", 90) + "']"}, []string{"samples.prompts", "64"}},
		"warm-up too long":            {[]string{"train.warmup=1000"}, []string{"warm"}},
	} {
		t.Run(name, func(t *testing.T) { refuses(t, "ppo", mustPPO(t, ppoBase(fix), c.sets...), true, c.words...) })
	}
}

func TestPPORefusesData(t *testing.T) {
	fix := rlFixture(t)
	long := fmt.Sprintf(`{"prompt": "say %s"}`, strings.Repeat("cat ", 90))
	for name, c := range map[string]struct {
		sets  []string
		words []string
	}{
		"no such file":         {[]string{"data.prompts=[/nowhere.jsonl]"}, []string{"data.prompts", "/nowhere.jsonl"}},
		"an empty file":        {[]string{"data.prompts=[" + jsonl(t, "") + "]"}, []string{"data.prompts", "rows.jsonl"}},
		"all prompts too long": {[]string{"data.prompts=[" + jsonl(t, long, long) + "]"}, []string{"data.prompts", "too_long", "54"}},
		"an error for the one": {[]string{"data.prompts=[" + jsonl(t, `{"prompt": "say cat"}`, long) + "]", "data.too_long=error"}, []string{"rows.jsonl:2", "54"}},
		"all prompts empty":    {[]string{"data.prompts=[" + jsonl(t, `{"prompt": ""}`, `{"prompt": "  "}`) + "]"}, []string{"data.prompts", "empty"}},
		"empty ptx":            {[]string{"ppo.ptx_coef=1", "data.ptx=[" + jsonl(t, "") + "]"}, []string{"data.ptx", "rows.jsonl"}},
		"ptx without answers":  {[]string{"ppo.ptx_coef=1", "data.ptx=[" + jsonl(t, `{"prompt": "say cat"}`) + "]"}, []string{"data.ptx", "answer"}},
		"all ptx rows too long": {[]string{"ppo.ptx_coef=1", "data.ptx=[" + jsonl(t, fmt.Sprintf(`{"instruction": "say", "output": "%s"}`, strings.Repeat("cat ", 90))) + "]"},
			[]string{"data.ptx", "too_long"}},
	} {
		t.Run(name, func(t *testing.T) { refuses(t, "ppo", mustPPO(t, ppoBase(fix), c.sets...), true, c.words...) })
	}
}

// TestPPODropsAndCounts: prompts that can't be used are counted, with a reason and a place.
func TestPPODropsAndCounts(t *testing.T) {
	file := jsonl(t, `{"prompt": "say cat"}`, fmt.Sprintf(`{"prompt": "say %s"}`, strings.Repeat("cat ", 90)), `{"prompt": "say dog"}`, `{"prompt": " "}`)
	rec := mustPPO(t, ppoBase(rlFixture(t)), "data.prompts=["+file+"]", "data.held_out=0", "train.rollouts=1", "samples.off=true")
	said, err := startRun(t.Context(), rec, "ppo", filepath.Join(t.TempDir(), "run"), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"2 prompts", "not used: 1 rows (empty_prompt", "1 rows (too_long", "rows.jsonl:2"} {
		if !strings.Contains(said, w) {
			t.Errorf("%q does not say %q", said, w)
		}
	}
	// micro_tokens has no say in which prompts are used.
	if p := testPPO(t, cpu.New(), "data.prompts=["+file+"]", "data.held_out=0", "train.micro_tokens=4096"); p.prompts.MaxLength() > 54 {
		t.Errorf("a prompt of %d tokens is used", p.prompts.MaxLength())
	}
}

// TestModelWithoutEnd: neither tokenizer nor template says what ends an answer.
func TestModelWithoutEnd(t *testing.T) {
	actor, rm := folderCopy(t, "actor"), folderCopy(t, "reward")
	for _, dir := range []string{actor, rm} {
		for _, name := range []string{"chat_template.jinja", "special_tokens_map.json"} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
		setJSON(t, filepath.Join(dir, "tokenizer_config.json"), map[string]any{"eos_token": nil, "chat_template": nil})
		setConfig(t, dir, map[string]any{"eos_token_id": nil})
		if err := os.Remove(filepath.Join(dir, "generation_config.json")); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	endless := filepath.Join(t.TempDir(), "endless.jinja")
	mustWrite(t, endless, []byte("{% for m in messages %}{{ m['content'] }}{% endfor %}"))
	rec := mustPPO(t, ppoBase(rlFixture(t)), "model.actor="+actor, "model.reward="+rm, "template="+endless)
	refuses(t, "ppo", rec, true, "ends an answer")
}

func TestRewardRefuses(t *testing.T) {
	fix := rlFixture(t)
	pair := `{"prompt": "say", "chosen": "cat", "rejected": "dog"}`
	train := func(rows ...string) string { return "data.train=[" + jsonl(t, rows...) + "]" }
	many := `{"prompt": "say", "answers": ["` + strings.Repeat(`cat the dog sat on mat ran home", "`, 9) + `x"], "ranks": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}`
	manyDistinct := many
	for i := range 9 {
		manyDistinct = strings.Replace(manyDistinct, "cat the", fmt.Sprintf("c%dt the", i), 1)
	}
	nan := folderCopy(t, "actor")
	changeModel(t, nan, func(m *model.Model) {
		setAll(m, "model.norm.weight", func(int) float32 { return float32(math.NaN()) })
	})
	for name, c := range map[string]struct {
		sets  []string
		early bool
		words []string
	}{
		"no such model":        {[]string{"model=/nowhere/m"}, true, []string{"/nowhere/m"}},
		"no data":              {[]string{"data.train=[/nowhere.jsonl]"}, true, []string{"/nowhere.jsonl"}},
		"an empty file":        {[]string{train("")}, true, []string{"rows.jsonl", "no rows"}},
		"chats, not pairs":     {[]string{"data.train=[" + filepath.Join(fix, "chats.jsonl") + "]", "data.bad_rows=skip"}, true, []string{"chosen"}},
		"ties only":            {[]string{train(`{"prompt": "say", "answers": ["a", "b"], "ranks": [1, 1]}`)}, true, []string{"rows.jsonl", "all_tied"}},
		"one answer":           {[]string{train(`{"prompt": "say", "answers": ["a"], "ranks": [1]}`)}, true, []string{"at least 2 answers"}},
		"identical answers":    {[]string{train(`{"prompt": "say", "chosen": "cat", "rejected": "cat"}`)}, true, []string{"identical"}},
		"identical in ranking": {[]string{train(`{"prompt": "say", "answers": ["a", "a"], "ranks": [1, 2]}`)}, true, []string{"all_tied"}},
		"empty answers":        {[]string{train(`{"prompt": "say", "chosen": "", "rejected": "cat"}`)}, true, []string{"empty_answer"}},
		"empty prompts":        {[]string{train(`{"prompt": "", "chosen": "dog", "rejected": "cat"}`)}, true, []string{"rows.jsonl", "empty"}},
		"all too long":         {[]string{train(pair), "data.max_tokens=4"}, true, []string{"too_long", "the limit is 4"}},
		"too long, an error":   {[]string{train(pair), "data.max_tokens=4", "data.too_long=error"}, true, []string{"rows.jsonl:1", "the limit is 4"}},
		"beyond the context":   {[]string{"data.max_tokens=65"}, true, []string{"data.max_tokens 65", "64"}},
		"micro_tokens":         {[]string{"train.micro_tokens=63"}, true, []string{"train.micro_tokens 63", "data.max_tokens 64"}},
		"a long ranking":       {[]string{train(manyDistinct), "data.held_out=0", "train.micro_tokens=128"}, true, []string{"ranking", "train.micro_tokens 128"}},
		"a long one, packed":   {[]string{train(manyDistinct), "data.held_out=0", "train.micro_tokens=4096", "train.batch=0", "train.batch_tokens=128"}, true, []string{"ranking", "train.batch_tokens 128"}},
		"one to evaluate on":   {[]string{train(pair, pair), "data.eval=[" + jsonl(t, manyDistinct) + "]", "train.micro_tokens=128"}, true, []string{"ranking", "train.micro_tokens 128"}},
		"all held out":         {[]string{train(pair), "data.eval=[" + jsonl(t, pair) + "]"}, true, []string{"equals_held_out"}},
		"both batches":         {[]string{"train.batch_tokens=100"}, true, []string{"batch_tokens"}},
		"NaN in the weights":   {[]string{"model=" + nan, "train.max_skips=2"}, false, []string{"2 steps in a row", "model.norm.weight"}},
	} {
		t.Run(name, func(t *testing.T) {
			refuses(t, "reward", mustReward(t, rewardBase(fix), c.sets...), c.early, c.words...)
		})
	}
}

// TestRewardDropsAndCounts: rankings that compare nothing are counted.
func TestRewardDropsAndCounts(t *testing.T) {
	fix := rlFixture(t)
	text, err := os.ReadFile(filepath.Join(fix, "cats.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	file := jsonl(t, strings.TrimSpace(string(text)), `{"prompt": "say", "chosen": "cat", "rejected": "cat"}`, `{"prompt": "say", "chosen": "cat", "rejected": ""}`,
		fmt.Sprintf(`{"prompt": "say", "chosen": "cat", "rejected": "%s"}`, strings.Repeat("dog ", 90)))
	rec := mustReward(t, rewardBase(fix), "data.train=["+file+"]", "train.steps=2", "samples.off=true")
	said, err := startRun(t.Context(), rec, "reward", filepath.Join(t.TempDir(), "run"), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"not used: ", "1 rows (empty_answer", "1 rows (identical_pair", "1 rows (too_long", "rows.jsonl:123"} {
		if !strings.Contains(said, w) {
			t.Errorf("%q does not say %q", said, w)
		}
	}
}

// editFile replaces text in a file.
func editFile(t testing.TB, path, old, now string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(text), old, now)
	if changed == string(text) {
		t.Fatalf("%s doesn't hold %q", path, old)
	}
	mustWrite(t, path, []byte(changed))
}

// addToken adds a token to a folder's tokenizer, without a row in the model.
func addToken(t testing.TB, dir, token string, id int) {
	t.Helper()
	path := filepath.Join(dir, "tokenizer.json")
	o := readJSON(t, path)
	o["added_tokens"] = append(o["added_tokens"].([]any), map[string]any{"id": id, "content": token, "single_word": false, "lstrip": false,
		"rstrip": false, "normalized": false, "special": true})
	setJSON(t, path, o)
	widenVocabulary(t, dir, id+1)
}

// widenVocabulary gives a folder's model rows for more tokens than its tokenizer has.
func widenVocabulary(t testing.TB, dir string, vocab int) {
	t.Helper()
	setConfig(t, dir, map[string]any{"vocab_size": vocab})
	replaceTensor(t, dir, "model.embed_tokens.weight", []int{vocab, 16})
}

// replaceTensor gives a tensor of a folder another shape; what was there stays, and is
// repeated where more is needed.
func replaceTensor(t testing.TB, dir, name string, shape []int) {
	t.Helper()
	path := filepath.Join(dir, "model.safetensors")
	parts := readTensors(t, path)
	for i := range parts {
		if p := &parts[i]; p.Name == name {
			n := 4
			for _, d := range shape {
				n *= d
			}
			var b []byte
			for len(b) < n {
				b = append(b, p.Data[:min(len(p.Data), n-len(b))]...)
			}
			p.Data, p.Shape = b, shape
		}
	}
	writeTensors(t, path, parts)
}

var _ = tensor.F32
var _ = cpu.New
