package recipe

import (
	"bytes"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// sample uses every kind and tag.
type sample struct {
	Model  modelBlock        `yaml:"model" required:"true" help:"The model to train."`
	Data   []source          `yaml:"data" required:"true" help:"Files of conversations."`
	Train  trainBlock        `yaml:"train"`
	Lora   *loraBlock        `yaml:"lora" help:"Absent: all parameters are trained."`
	Parts  map[string]source `yaml:"parts" help:"Named parts."`
	Stops  []string          `yaml:"stops" help:"Strings that end an answer."`
	Nested [][]int           `yaml:"nested"`
	Seeds  map[string]int    `yaml:"seeds" max:"10"`
	common `yaml:",inline"`
	hidden int
	Skip   int `yaml:"-"`
}

type common struct {
	Seed  uint64 `default:"42" help:"Fixes everything."`
	Quiet bool   `default:"false"`
}

type modelBlock struct {
	Path  string `yaml:"path" required:"true" shorthand:"true" help:"Folder or name."`
	Dtype string `yaml:"dtype" default:"f32" oneof:"f32|f16|bf16"`
}

type source struct {
	Path   string  `yaml:"path" required:"true" shorthand:"true" help:"A file."`
	Weight float64 `yaml:"weight" default:"1" min:">0"`
}

type trainBlock struct {
	Steps     int           `yaml:"steps" default:"1000" min:"1" max:"1e6" help:"Optimizer steps."`
	Warmup    int           `yaml:"warmup" min:"10" help:"0: none."`
	LR        float64       `yaml:"lr" default:"2e-5" min:">0" max:"<1" help:"Peak learning rate."`
	Betas     []float64     `yaml:"betas" default:"[0.9, 0.999]" min:"0" max:"<1"`
	Clip      *float64      `yaml:"clip" default:"1" min:"0"`
	Limit     *int          `yaml:"limit" min:"5"`
	Schedule  string        `yaml:"schedule" oneof:"constant|linear|cosine|wsd|none" default:"cosine"`
	Mode      string        `yaml:"mode" oneof:"a|b"`
	SaveEvery time.Duration `yaml:"save_every" default:"30m" min:"1s"`
	Memory    Size          `yaml:"memory" default:"8GiB" min:"1MiB"`
	Small     int8
	MaxSeqLen uint16  `default:"512"`
	Ratio     float32 `default:"0.1"`
}

type loraBlock struct {
	Rank    int      `yaml:"rank" default:"16" min:"1"`
	Targets []string `yaml:"targets" default:"[q_proj, v_proj]"`
}

const minimal = "model: m\ndata: d.jsonl\n"

// defaults is what minimal decodes to.
func defaults() sample {
	one := 1.0
	return sample{
		Model: modelBlock{"m", "f32"},
		Data:  []source{{"d.jsonl", 1}},
		Train: trainBlock{Steps: 1000, LR: 2e-5, Betas: []float64{0.9, 0.999}, Clip: &one, Schedule: "cosine",
			SaveEvery: 30 * time.Minute, Memory: 8 << 30, MaxSeqLen: 512, Ratio: 0.1},
		common: common{Seed: 42}, hidden: 0,
	}
}

func TestDecodeDefaults(t *testing.T) {
	var got sample
	if err := Decode([]byte(minimal), "r.yaml", nil, &got); err != nil {
		t.Fatal(err)
	}
	if want := defaults(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDecode(t *testing.T) {
	text := `
# A recipe.
model: {path: models/tiny, dtype: bf16}
data:
  - a.jsonl
  - path: "b c.jsonl"   # with a weight
    weight: 2
train: &train
  steps: 1e4
  warmup: 0
  lr: 1e-4
  betas: [0.9, .95]
  clip: null
  limit: 7
  schedule: "wsd"
  save_every: 1d12h
  memory: 1.5GiB
  small: -0x80
  max_seq_len: 1_024
  ratio: 3
lora:
  rank: 8
parts: {zh: x.jsonl, en: {path: y.jsonl, weight: 3}}
stops: "</s>"
nested: [[1, 2], [], 3]
seeds:
  a: 1
  "b c": 2
seed: 18446744073709551615
quiet: true
`
	var got sample
	err := Decode([]byte(strings.Replace(text, "-0x80", "-128", 1)), "r.yaml", nil, &got)
	if err != nil {
		t.Fatal(err)
	}
	seven := 7
	want := sample{
		Model: modelBlock{"models/tiny", "bf16"},
		Data:  []source{{"a.jsonl", 1}, {"b c.jsonl", 2}},
		Train: trainBlock{Steps: 10000, LR: 1e-4, Betas: []float64{0.9, 0.95}, Limit: &seven, Schedule: "wsd",
			SaveEvery: 36 * time.Hour, Memory: 3 << 29, Small: -128, MaxSeqLen: 1024, Ratio: 3},
		Lora:   &loraBlock{8, []string{"q_proj", "v_proj"}},
		Parts:  map[string]source{"zh": {"x.jsonl", 1}, "en": {"y.jsonl", 3}},
		Stops:  []string{"</s>"},
		Nested: [][]int{{1, 2}, nil, {3}},
		Seeds:  map[string]int{"a": 1, "b c": 2},
		common: common{math.MaxUint64, true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestAnchorsAndMerges(t *testing.T) {
	text := minimal + `
parts:
  base: &base
    path: a.jsonl
    weight: 5
  same: *base
  other:
    <<: *base
    path: b.jsonl
`
	var got sample
	// An override of the copy leaves the original alone.
	if err := Decode([]byte(text), "r.yaml", []string{"parts.same.path=c.jsonl"}, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]source{"base": {"a.jsonl", 5}, "same": {"c.jsonl", 5}, "other": {"b.jsonl", 5}}
	if !reflect.DeepEqual(got.Parts, want) {
		t.Errorf("got %+v, want %+v", got.Parts, want)
	}
}

func TestSet(t *testing.T) {
	var got sample
	sets := []string{
		"model.dtype=bf16", // keeps the short form's path
		"data.0.weight=2", "data.1=b.jsonl", "data.2.path=c.jsonl",
		"train.lr=3e-4", "train.betas.1=0.95", "train.steps=5", "train.steps=6",
		"train.memory=16GiB", "train.save_every=90s", "train.clip=null",
		"lora.rank=4", "stops=[a, 'b']", "seeds.x=3", "seed=7", "parts.zh=z.jsonl", "parts.zh.weight=9",
		"train.mode=", "nested=[[1],[2]]",
	}
	if err := Decode([]byte(minimal), "r.yaml", sets, &got); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Model.Dtype = "bf16"
	want.Data = []source{{"d.jsonl", 2}, {"b.jsonl", 1}, {"c.jsonl", 1}}
	want.Train.LR, want.Train.Steps, want.Train.Betas = 3e-4, 6, []float64{0.9, 0.95}
	want.Train.Memory, want.Train.SaveEvery, want.Train.Clip = 16<<30, 90*time.Second, nil
	want.Lora = &loraBlock{4, []string{"q_proj", "v_proj"}}
	want.Stops, want.Seeds, want.Seed = []string{"a", "b"}, map[string]int{"x": 3}, 7
	want.Parts = map[string]source{"zh": {"z.jsonl", 9}}
	want.Nested = [][]int{{1}, {2}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestCallersDefaults(t *testing.T) {
	clip := 0.5
	got := sample{Train: trainBlock{LR: 5e-6, Betas: []float64{0.5, 0.5}, Clip: &clip, Steps: 2e6}, Lora: &loraBlock{Rank: 99},
		common: common{Quiet: true}}
	if err := Decode([]byte(minimal+"lora: {targets: [k_proj]}\ntrain: {betas: [0.1]}\n"), "r.yaml", nil, &got); err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Train.LR, want.Train.Betas, want.Train.Clip, want.Train.Steps = 5e-6, []float64{0.1}, &clip, 2e6
	want.Lora, want.Quiet = &loraBlock{99, []string{"k_proj"}}, true
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		sets []string
		want string // the whole message
	}{
		"unknown key":       {minimal + "train:\n  stepz: 3\n", nil, `r.yaml:4: train.stepz: unknown key, did you mean train.steps?`},
		"swapped letters":   {minimal + "sede: 3\n", nil, `r.yaml:3: sede: unknown key, did you mean seed?`},
		"key elsewhere":     {minimal + "lr: 3\n", nil, `r.yaml:3: lr: unknown key, did you mean train.lr?`},
		"in several places": {minimal + "weight: 3\n", nil, `r.yaml:3: weight: unknown key, the nearest known is quiet`},
		"few keys":          {"data: d\nmodel:\n  path: m\n  something: 1\n", nil, `r.yaml:4: model.something: unknown key, known here: path, dtype`},
		"hostile key":       {minimal + "\"a\\nb\\u001b\": 3\n", nil, `r.yaml:3: "a\nb\x1b": unknown key, the nearest known is data`},
		"not a number":      {minimal + "train: {lr: fast}\n", nil, `r.yaml:3: train.lr: got "fast", want a number`},
		"not an integer":    {minimal + "train:\n\n  steps: 1.5\n", nil, `r.yaml:5: train.steps: got "1.5", want an integer`},
		"quoted number":     {minimal + "train: {steps: '10'}\n", nil, `r.yaml:3: train.steps: got the string "10", want an integer (without quotes)`},
		"not a bool":        {minimal + "quiet: yes\n", nil, `r.yaml:3: quiet: got "yes", want true or false`},
		"bool for a string": {minimal + "train: {mode: true}\n", nil, `r.yaml:3: train.mode: got true, want a string (put it in quotes)`},
		"null":              {minimal + "train: {lr: }\n", nil, `r.yaml:3: train.lr: got null, want a number (leave the key out for its default)`},
		"null list":         {minimal + "stops:\n", nil, `r.yaml:3: stops: got null, want a list, or one string (leave the key out for its default)`},
		"list for a scalar": {minimal + "train: {lr: [1]}\n", nil, `r.yaml:3: train.lr: got a list, want a number`},
		"scalar for block":  {minimal + "train: fast\n", nil, `r.yaml:3: train: got "fast", want a block of keys`},
		"list for a block":  {"data: d\nmodel: [m]\n", nil, `r.yaml:2: model.path: got a list, want a string`},
		"block in strings":  {minimal + "stops: {a: 1}\n", nil, `r.yaml:3: stops: got a block of keys, want a list, or one string`},
		"list for a map":    {minimal + "seeds: [1]\n", nil, `r.yaml:3: seeds: got a list, want a block of names, each with an integer`},
		"item":              {minimal + "stops:\n  - a\n  - [b]\n", nil, `r.yaml:5: stops[1]: got a list, want a string`},
		"too small":         {minimal + "train: {steps: 0}\n", nil, `r.yaml:3: train.steps: got 0, want 1 to 1e6`},
		"too large":         {minimal + "train: {steps: 1000001}\n", nil, `r.yaml:3: train.steps: got 1000001, want 1 to 1e6`},
		"bound itself":      {minimal + "train: {lr: 0}\n", nil, `r.yaml:3: train.lr: got 0, want above 0, below 1`},
		"item too large":    {minimal + "train: {betas: [0.9, 1]}\n", nil, `r.yaml:3: train.betas[1]: got 1, want at least 0, below 1`},
		"map item":          {minimal + "seeds: {a: 11}\n", nil, `r.yaml:3: seeds.a: got 11, want at most 10`},
		"pointer":           {minimal + "train: {limit: 4}\n", nil, `r.yaml:3: train.limit: got 4, want at least 5`},
		"duration bound":    {minimal + "train: {save_every: 1ms}\n", nil, `r.yaml:3: train.save_every: got 1ms, want at least 1s`},
		"size bound":        {minimal + "train: {memory: 1kB}\n", nil, `r.yaml:3: train.memory: got 1kB, want at least 1MiB`},
		"duration":          {minimal + "train: {save_every: 90}\n", nil, `r.yaml:3: train.save_every: "90" is not a duration: want a number with ms, s, m, h or d, such as 90s or 1h30m`},
		"size":              {minimal + "train: {memory: 8Gi}\n", nil, `r.yaml:3: train.memory: "8Gi" is not a size: want a number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 8GiB`},
		"oneof":             {minimal + "model: x\n", nil, `r.yaml:3: key "model" stands twice, first in line 1`},
		"oneof near":        {minimal + "train: {schedule: cosin}\n", nil, `r.yaml:3: train.schedule: got "cosin", want constant | linear | cosine | wsd | none (did you mean cosine?)`},
		"overflow":          {minimal + "train: {small: 128}\n", nil, `r.yaml:3: train.small: 128 is out of range`},
		"negative":          {minimal + "seed: -1\n", nil, `r.yaml:3: seed: -1 is negative`},
		"not a number (2)":  {minimal + "train: {lr: .nan}\n", nil, `r.yaml:3: train.lr: .nan is out of range`},
		"missing":           {"data: d\n", nil, `r.yaml: model: is required: The model to train.`},
		"missing below":     {"data: d\nmodel:\n  dtype: f32\n", nil, `r.yaml:3: model.path: is required: Folder or name.`},
		"required, empty":   {"data: []\nmodel: m\n", nil, `r.yaml:1: data: is required and must not be empty`},
		"four problems":     {"a: 1\nb: 1\nmodel: m\n", nil, "r.yaml:1: a: unknown key, the nearest known is data\nr.yaml:2: b: unknown key, the nearest known is data\nr.yaml: data: is required: Files of conversations."},
		"five problems":     {"a: 1\nb: 1\nc: 1\nmodel: m\n", nil, "r.yaml:1: a: unknown key, the nearest known is data\nr.yaml:2: b: unknown key, the nearest known is data\nr.yaml:3: c: unknown key, the nearest known is data\nand 1 more"},
		"a list":            {"- a\n- b\n", nil, `r.yaml:1: got a list, want keys with values (key: value)`},
		"a word":            {"\n\nhello\n", nil, `r.yaml:3: got "hello", want keys with values (key: value)`},
		"two documents":     {minimal + "---\nmodel: x\n", nil, `r.yaml:4: a second document begins here; a recipe is one`},
		"tag":               {"model: !!str 5\n", nil, `r.yaml:1: YAML tags such as "!!str" are not used in recipes`},
		"unknown alias":     {"model: *m\n", nil, `r.yaml:1: alias *m has no anchor &m before it`},
		"merge of a scalar": {minimal + "train:\n  <<: 5\n", nil, `r.yaml:4: <<: got "5", want a block of keys to merge`},
		"not UTF-8":         {"model: \xff\n", nil, `r.yaml: not UTF-8`},
		"binary":            {"model: \x00\n", nil, `r.yaml: holds a zero byte: not a text file`},

		"set, no value":     {minimal, []string{"train.lr"}, `--set train.lr: want key=value, such as train.lr=1e-4`},
		"set, unknown":      {minimal, []string{"train.lrr=1"}, `--set train.lrr=1: train.lrr: unknown key, did you mean train.lr?`},
		"set, type":         {minimal, []string{"train.lr=fast"}, `--set train.lr=fast: train.lr: got "fast", want a number`},
		"set, range":        {minimal, []string{"train.lr=2"}, `--set train.lr=2: train.lr: got 2, want above 0, below 1`},
		"set, key of leaf":  {minimal, []string{"train.lr.x=2"}, `--set train.lr.x=2: train.lr is a number and has no keys of its own`},
		"set, list item":    {minimal, []string{"data.x=2"}, `--set data.x=2: data is a list: want the number of an item instead of "x"`},
		"set, beyond":       {minimal, []string{"data.2=x"}, `--set data.2=x: data has 1 items, so 2 is out of range (1 appends)`},
		"set, block's keys": {minimal, []string{"lora={rnak: 3}"}, `--set lora={rnak: 3}: lora.rnak: unknown key, did you mean lora.rank?`},
		"set, bad block":    {minimal + "train: 3\n", []string{"train.lr=0.1"}, `--set train.lr=0.1: train is set to "3", so lr cannot be set in it`},
	} {
		t.Run(name, func(t *testing.T) {
			var got sample
			err := Decode([]byte(c.text), "r.yaml", c.sets, &got)
			if err == nil {
				t.Fatalf("decoded, want %q", c.want)
			}
			if err.Error() != c.want {
				t.Errorf("got  %s\nwant %s", err, c.want)
			}
			if strings.Count(err.Error(), "\n") > 3 {
				t.Errorf("more than four lines: %s", err)
			}
		})
	}
}

// Errors whose text is the YAML library's: the line is what matters.
func TestSyntaxErrors(t *testing.T) {
	for text, place := range map[string]string{
		"model: [a, b\n":                      "r.yaml:1: ",
		"model: m\ndata: \"d\n":               "r.yaml:2: ",
		"model: m\n  data: d\n":               "r.yaml:",
		"train:\n\tlr: 1\n":                   "r.yaml:2: ",
		"a: " + strings.Repeat("[", 100):      "r.yaml:1: nested",
		strings.Repeat("- ", 100) + "a":       "r.yaml:1: nested",
		"a: " + strings.Repeat("{a: ", 50000): "r.yaml:1: nested",
		"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n": "r.yaml:6: more than",
		strings.Repeat("#", maxText+1): "r.yaml: 262145 bytes",
	} {
		var got sample
		err := Decode([]byte(text), "r.yaml", nil, &got)
		if err == nil || !strings.HasPrefix(err.Error(), place) {
			t.Errorf("%.40q: got %v, want %s...", text, err, place)
		}
		if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 300) {
			t.Errorf("%.40q: error is not one short line: %v", text, err)
		}
	}
	deep := &strings.Builder{}
	for i := range 500 {
		deep.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	var got sample
	if err := Decode([]byte(deep.String()), "r.yaml", nil, &got); err == nil || !strings.Contains(err.Error(), "nested") {
		t.Errorf("deep indentation: %v", err)
	}
}

func TestMarshalRoundTrip(t *testing.T) {
	half, limit := 0.5, 9
	full := defaults()
	full.Model.Path = "C:\\models\\my \"tiny\" one"
	full.Data = []source{{"a.jsonl", 1e-9}, {"\u6570\u636e.jsonl", 123456789}, {"- x: #", 0.1}}
	full.Train.Clip, full.Train.Limit, full.Train.LR = &half, &limit, 1e-5
	full.Train.SaveEvery, full.Train.Memory = 1500*time.Millisecond, 12345678
	full.Lora = &loraBlock{3, nil}
	full.Parts = map[string]source{"b": {"x", 1}, "a c": {"null", 2}, "": {"-", 3}}
	full.Stops = []string{"\n\n", "</s>", "", "no", "1e5", "\x00\x1b\u2028\U000e0001", "a: b", "'", "true", "~", "..."}
	full.Nested = [][]int{{1, -2}, nil, {3}}
	full.Seeds = map[string]int{"x": -5}
	for name, want := range map[string]sample{"defaults": defaults(), "full": full} {
		t.Run(name, func(t *testing.T) {
			text, err := Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			var got sample
			if err := Decode(text, "r.yaml", nil, &got); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v\n%s", got, want, text)
			}
			again, err := Marshal(&got)
			if err != nil || !bytes.Equal(again, text) {
				t.Errorf("second Marshal differs (%v):\n%s\n%s", err, text, again)
			}
		})
	}
	if _, err := Marshal(sample{Stops: []string{"\xff"}}); err == nil {
		t.Error("wrote a string that is not UTF-8")
	}
	if _, err := Marshal(sample{Train: trainBlock{LR: math.NaN()}}); err == nil {
		t.Error("wrote NaN")
	}
}

func TestMarshalText(t *testing.T) {
	v := defaults()
	v.Lora = &loraBlock{8, []string{"q_proj"}}
	v.Data = append(v.Data, source{"b c", 0.5})
	got, err := Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	want := `model:
  path: m
  dtype: f32
data:
  - path: d.jsonl
    weight: 1.0
  - path: "b c"
    weight: 0.5
train:
  steps: 1000
  warmup: 0
  lr: 2.0e-5
  betas: [0.9, 0.999]
  clip: 1.0
  limit: null
  schedule: cosine
  mode: ""
  save_every: 30m
  memory: 8GiB
  small: 0
  max_seq_len: 512
  ratio: 0.1
lora:
  rank: 8
  targets: [q_proj]
parts: {}
stops: []
nested: []
seeds: {}
seed: 42
quiet: false
`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestExplain(t *testing.T) {
	var out bytes.Buffer
	if err := Explain(&out, &sample{Train: trainBlock{LR: 1e-3}}); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	want, err := os.ReadFile("testdata/explain.txt")
	if os.Getenv("UPDATE") != "" {
		err = os.WriteFile("testdata/explain.txt", out.Bytes(), 0o644)
		want = out.Bytes()
	}
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant testdata/explain.txt (UPDATE=1 rewrites it)", got)
	}
	// It is a recipe: with the required keys given it decodes to the defaults.
	var v sample
	if err := Decode(out.Bytes(), "explained", []string{"model.path=m", "data=d.jsonl"}, &v); err != nil {
		t.Fatal(err)
	}
	expected := defaults()
	expected.Train.LR = 1e-3
	if !reflect.DeepEqual(v, expected) {
		t.Errorf("got  %+v\nwant %+v", v, expected)
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"lr", "lr", 0}, {"steps", "step", 1}, {"setps", "steps", 1},
		{"ca", "abc", 3}, {"\u4e2d\u6587", "\u4e2d", 1}, {"kitten", "sitting", 3}, {strings.Repeat("a", 100), "a", 100},
	} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
		if got := editDistance(c.b, c.a); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.b, c.a, got, c.want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "17": 17, "8GiB": 8 << 30, "8 gib": 8 << 30, "1.5KiB": 1536, "2kB": 2000, "3MB": 3e6, "1TB": 1e12,
		"0.5TiB": 1 << 39, "9223372036854775807": math.MaxInt64, "4B": 4,
	} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", text, got, err, want)
		}
		if back, err := ParseSize(want.String()); err != nil || back != want {
			t.Errorf("%d is written %s, which reads %d, %v", want, want, back, err)
		}
	}
	for _, bad := range []string{"", "GiB", "-1", "8Gi", "1.0001KiB", "1e3", "0x10", "inf", "9223372036854775808", "99999999TiB", "1..5", "8 GiB x"} {
		if v, err := ParseSize(bad); err == nil {
			t.Errorf("%q is read as %d", bad, v)
		}
	}
	var s Size
	if err := s.UnmarshalText([]byte("2KiB")); err != nil || s != 2048 {
		t.Errorf("UnmarshalText: %d, %v", s, err)
	}
}

func TestSnakeCase(t *testing.T) {
	for name, want := range map[string]string{"LR": "lr", "MaxSeqLen": "max_seq_len", "KLCoef": "kl_coef", "X": "x", "Adam8bit": "adam8bit"} {
		if got := snakeCase(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// other has a key with other words.
type other struct {
	Words struct {
		Mode string `yaml:"mode" default:"a" oneof:"a|b" also:"true=b|no=a"`
	}
}

// TestOtherWords: words of the also tag are read as what they stand for, from a recipe and
// from an override, and written as that; other words are refused with those of oneof.
func TestOtherWords(t *testing.T) {
	for text, want := range map[string]string{"true": "b", "no": "a", "a": "a", `"true"`: "b"} {
		for _, set := range []bool{false, true} {
			var got other
			recipe, sets := "words: {mode: "+text+"}\n", []string(nil)
			if set {
				recipe, sets = "{}", []string{"words.mode=" + text}
			}
			if err := Decode([]byte(recipe), "r.yaml", sets, &got); err != nil || got.Words.Mode != want {
				t.Errorf("%s is read as %q: %v", text, got.Words.Mode, err)
			}
			out, err := Marshal(&got)
			if err != nil || !strings.Contains(string(out), "mode: "+want+"\n") {
				t.Errorf("%s is written as %s: %v", text, out, err)
			}
		}
	}
	var got other
	err := Decode([]byte("words: {mode: c}\n"), "r.yaml", nil, &got)
	if err == nil || err.Error() != `r.yaml:1: words.mode: got "c", want a | b` {
		t.Error(err)
	}
}

// A wrong tag is found when the schema is made.
func TestBrokenTagsPanic(t *testing.T) {
	type loop struct{ Next []loop }
	for name, v := range map[string]any{
		"default type": &struct {
			A int `default:"x"`
		}{},
		"required default": &struct {
			A int `default:"1" required:"true"`
		}{},
		"bound": &struct {
			A int `min:"x"`
		}{},
		"bool bound": &struct {
			A bool `min:"1"`
		}{},
		"oneof": &struct {
			A int `oneof:"1|2"`
		}{},
		"also": &struct {
			A string `oneof:"a|b" also:"true=c"`
		}{},
		"also a number": &struct {
			A int `also:"true=1"`
		}{},
		"twice": &struct {
			A, a, B int `yaml:"a"`
		}{},
		"kind":    &struct{ A chan int }{},
		"map key": &struct{ A map[int]int }{},
		"loop":    &loop{},
		"flag": &struct {
			A int `required:"yes"`
		}{},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			Decode(nil, "x", nil, v)
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(minimal), "train.lr=1e-4")
	f.Add([]byte("model: {path: x, dtype: bf16}\ndata: [a, {path: b, weight: 2}]\nlora: {}\nnested: [[1], 2]\nstops: |\n  a\n  b\n"), "data.1.weight=3")
	f.Add([]byte("model: &a m\ndata: *a\nparts: {x: &b {path: p}, y: {<<: *b}}\n? x\n: y\n"), "seeds={a: 1}")
	f.Add([]byte("model: m\ndata:\n- - -\n  - !!x\n"), "=")
	f.Fuzz(func(t *testing.T, text []byte, set string) {
		var v sample
		if err := Decode(text, "r.yaml", []string{set}, &v); err != nil {
			if strings.Count(err.Error(), "\n") > 3 {
				t.Fatalf("more than four lines: %v", err)
			}
			return
		}
		// What was accepted is written and read back the same.
		out, err := Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var back sample
		if err := Decode(out, "again", nil, &back); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !reflect.DeepEqual(v, back) {
			t.Fatalf("%+v became %+v\n%s", v, back, out)
		}
	})
}
