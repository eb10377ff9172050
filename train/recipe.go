package train

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ringtail/data"
	"ringtail/device"
	"ringtail/hub"
	"ringtail/model"
	"ringtail/optim"
	"ringtail/tensor"
)

// A Recipe is what a YAML recipe of one kind of training says. Package recipe
// reads it; the tags of its fields are its schema, its defaults and its documentation.
type Recipe interface {
	// Check refuses combinations that no single key shows to be wrong.
	Check() error
	// Resolve makes relative paths relative to the recipe's folder, and finds models.
	Resolve(dir string) error

	objective(dev tensor.Device, name string) objective
	course() course
	// place is the device's name and how it computes.
	place() (name string, opt device.Options)
}

// Objectives are the names of all kinds of training.
func Objectives() []string { return []string{"pretrain", "sft", "reward", "ppo"} }

// NewRecipe is an empty recipe for an objective, to be decoded into; it panics for
// a name that isn't one of Objectives.
func NewRecipe(objective string) Recipe {
	switch objective {
	case "pretrain", "sft":
		return &LanguageRecipe{}
	case "reward":
		return &RewardRecipe{}
	case "ppo":
		return &PPORecipe{}
	}
	panic("train: no objective " + objective)
}

// Model says what is trained.
type Model struct {
	Path   string    `yaml:"path" shorthand:"true" help:"A Hugging Face model folder to start from, or ORG/NAME after ringtail pull"`
	New    *NewModel `yaml:"new" help:"Or: a new LLaMA with random weights"`
	Dtype  string    `yaml:"dtype" oneof:"|float32|bfloat16|float16" help:"Type of the weights in the result; absent: as the start's, float32 for a new model"`
	Freeze []string  `yaml:"freeze" help:"Parameters that are not trained, as patterns of their names: model.embed_tokens.*"`
	Tokens []string  `yaml:"add_tokens" help:"Control tokens added to the tokenizer, such as a chat template's markers; the embedding grows by rows that are the mean of the others"`
	Pad    string    `yaml:"pad_token" help:"Token that fills up rows elsewhere, added where it is new"`
}

// NewModel is the shape of a model trained from scratch, in config.json's terms.
type NewModel struct {
	Hidden    int     `yaml:"hidden_size" required:"true" min:"2" max:"262144" help:"Width of the residual stream"`
	Layers    int     `yaml:"num_hidden_layers" required:"true" min:"1" max:"8192" help:"Number of layers"`
	Heads     int     `yaml:"num_attention_heads" required:"true" min:"1" max:"16384" help:"Query heads"`
	KVHeads   int     `yaml:"num_key_value_heads" default:"0" min:"0" max:"16384" help:"Key and value heads; 0: as many as query heads"`
	MLP       int     `yaml:"intermediate_size" default:"0" min:"0" max:"2097152" help:"Width of the MLP; 0: 8/3 of hidden_size, rounded up to a multiple of 32"`
	Context   int     `yaml:"max_position_embeddings" default:"1024" min:"2" max:"16777216" help:"Longest sequence"`
	RopeTheta float64 `yaml:"rope_theta" default:"10000" min:">0" help:"Base of the rotary frequencies"`
	Tied      bool    `yaml:"tie_word_embeddings" default:"true" help:"The output projection is the embedding"`
	NormEps   float64 `yaml:"rms_norm_eps" default:"1e-5" min:">0" max:"<1" help:"Added under the root in norms"`
	InitStd   float64 `yaml:"initializer_range" default:"0.02" min:">0" max:"1" help:"Deviation of initial weights"`
}

// Data says what is trained and evaluated on.
type Data struct {
	Train     []Source `yaml:"train" required:"true" help:"Sources to train on"`
	Eval      []Source `yaml:"eval" help:"Sources to evaluate on, instead of held_out"`
	HeldOut   float64  `yaml:"held_out" default:"0.02" min:"0" max:"<1" help:"Part of the training rows kept for evaluation"`
	MaxTokens int      `yaml:"max_tokens" default:"512" min:"2" help:"Longest row in tokens"`
	TooLong   string   `yaml:"too_long" default:"drop" oneof:"error|drop|split|truncate" help:"What happens to longer rows (text is always cut in windows)"`
	BadRows   string   `yaml:"bad_rows" default:"error" oneof:"error|skip|strict" help:"What happens to broken rows"`
	TrainOn   string   `yaml:"train_on" oneof:"|assistant|last|all" help:"Tokens that count in the loss; absent: what the assistant says, in pretraining all"`
	Dedup     bool     `yaml:"dedup" default:"false" help:"Drop rows that equal an earlier one"`
	Shuffle   bool     `yaml:"shuffle" default:"true" help:"Another order in each epoch"`
}

// Source is one part of the data.
type Source struct {
	Files   []string          `yaml:"files" shorthand:"true" required:"true" help:"Files, folders or patterns: JSON, JSONL, CSV, Parquet, Arrow, text; plain, gzip or zstd"`
	Name    string            `yaml:"name" help:"Name in statistics; absent: the first file's"`
	Format  string            `yaml:"format" help:"Row format; absent: detected"`
	Columns map[string]string `yaml:"columns" help:"Names of fields where the file has others: {prompt: question}"`
	Replace map[string]string `yaml:"replace" help:"Text to replace in rows: {\"{{name}}\": Ringtail}"`
	System  string            `yaml:"system" help:"System message for rows that have none"`
	Weight  float64           `yaml:"weight" default:"0" min:"0" help:"Share in a mixture; 0 everywhere: by size"`
	Split   string            `yaml:"split" help:"Split of data set folders: train, test; absent: train, in eval validation or test"`
	MaxRows int               `yaml:"max_rows" default:"0" min:"0" help:"Take only the first so many rows; 0: all"`
}

// Train is the course of training.
type Train struct {
	Epochs      float64 `yaml:"epochs" default:"1" min:">0" help:"Passes over the data, where steps is 0"`
	Steps       int     `yaml:"steps" default:"0" min:"0" help:"Optimizer steps; 0: as epochs says"`
	Batch       int     `yaml:"batch" default:"16" min:"0" help:"Rows of a step: sequences, in train reward rankings; 0: batch_tokens counts"`
	BatchTokens int     `yaml:"batch_tokens" default:"0" min:"0" help:"Tokens of a step, where batch is 0"`
	MicroTokens int     `yaml:"micro_tokens" default:"2048" min:"16" help:"Tokens that are computed at once; memory grows with it, results don't change"`
	LR          float64 `yaml:"lr" default:"2e-5" min:">0" help:"Peak learning rate"`
	Schedule    string  `yaml:"schedule" default:"cosine" oneof:"constant|linear|cosine|wsd" help:"Course of the learning rate after the warm-up"`
	Warmup      float64 `yaml:"warmup" default:"0.03" min:"0" help:"Warm-up: a part of the steps below 1, else a number of steps"`
	MinLR       float64 `yaml:"min_lr" default:"0.1" min:"0" max:"1" help:"Last learning rate as a part of lr"`
	Decay       float64 `yaml:"decay" default:"0.2" min:"0" max:"1" help:"Part of the steps in which wsd falls"`
	Clip        float64 `yaml:"clip" default:"1" min:"0" help:"Largest norm of the gradients; 0: no clipping"`
	MaxSkips    int     `yaml:"max_skips" default:"10" min:"1" help:"Consecutive steps with non-finite loss or gradients that end the run"`
	Dtype       string  `yaml:"dtype" default:"auto" oneof:"auto|f32|bf16" help:"Weights and activations; auto: bf16 on a GPU, f32 on the CPU"`
	Gradients   string  `yaml:"gradients" default:"auto" oneof:"auto|f32|bf16" help:"Gradients of weights; auto: as dtype where a step is one micro-batch, else f32"`
	Repeatable  bool    `yaml:"deterministic" default:"true" help:"On a GPU, only what gives the same bytes on every run; false is faster"`
	Recompute   string  `yaml:"recompute" default:"none" oneof:"none|selective|full" also:"false=none|true=full" help:"What is computed again in the backward pass instead of kept: selective, norms and the like: some 30 % less memory for one or two percent more time; full, layers: nearly none, a third more work"`
	RouterLoss  float64 `yaml:"router_loss" default:"-1" min:"-1" help:"Weight of the loss that keeps a mixture's experts equally busy; -1: the model's router_aux_loss_coef, 0: none"`
}

// Optimizer is AdamW's settings.
type Optimizer struct {
	Beta1       float64 `yaml:"beta1" default:"0.9" min:"0" max:"<1" help:"Decay of the first moment"`
	Beta2       float64 `yaml:"beta2" default:"0.95" min:"0" max:"<1" help:"Decay of the second moment"`
	Eps         float64 `yaml:"eps" default:"1e-8" min:">0" help:"Added to the root of the second moment"`
	WeightDecay float64 `yaml:"weight_decay" default:"0.1" min:"0" help:"Decoupled weight decay, on matrices"`
	State       string  `yaml:"state" default:"f32" oneof:"f32|bf16" help:"Moments and master weights; bf16: moments in bfloat16 and no master weights, updates rounded at random"`
}

// Eval says when the held-out part is evaluated.
type Eval struct {
	Every    int `yaml:"every" default:"0" min:"0" help:"Steps between evaluations; 0: ten times in the run"`
	Patience int `yaml:"patience" default:"0" min:"0" help:"Stop after so many evaluations without a better loss; 0: never"`
}

// Samples says what is generated on the way.
type Samples struct {
	Prompts     []string `yaml:"prompts" help:"Prompts answered at each evaluation; absent: those of held-out rows"`
	Rows        int      `yaml:"rows" default:"3" min:"0" help:"Held-out rows answered where prompts is absent"`
	MaxTokens   int      `yaml:"max_tokens" default:"64" min:"1" help:"Longest answer"`
	Temperature float64  `yaml:"temperature" default:"0" min:"0" help:"0: the likeliest token"`
	Off         bool     `yaml:"off" default:"false" help:"No samples"`
}

// Checkpoint says what is kept on the way.
type Checkpoint struct {
	Every  int    `yaml:"every" default:"0" min:"0" help:"Steps between checkpoints; 0: at each evaluation"`
	Keep   int    `yaml:"keep" default:"1" min:"1" help:"Number of latest checkpoints kept, beside the best"`
	Export string `yaml:"export" default:"auto" oneof:"auto|last|best" help:"Weights that become model/: auto is best with eval.patience, else last"`
}

// Log says what is written on the way.
type Log struct {
	Every       int  `yaml:"every" default:"1" min:"1" help:"Steps between lines of metrics"`
	TensorBoard bool `yaml:"tensorboard" default:"true" help:"Write TensorBoard event files too"`
}

// options are what package data has to know for a use.
func (d *Data) options(use data.Use) data.Options {
	o := data.Options{Use: use, TrainOn: data.TrainOn(d.TrainOn), MaxTokens: d.MaxTokens, TooLong: data.TooLong(d.TooLong),
		BadRows: data.BadRows(d.BadRows), Dedup: d.Dedup}
	o.Eval = evalSplit(d.Eval, d.HeldOut)
	return o
}

// evalSplit holds rows out: those of separate sources, else a part.
func evalSplit(eval []Source, heldOut float64) data.EvalSplit {
	if len(eval) > 0 {
		return data.EvalSplit{Sources: sources(eval)}
	}
	return data.EvalSplit{Fraction: heldOut}
}

func sources(list []Source) []data.Source {
	var out []data.Source
	for _, s := range list {
		out = append(out, data.Source{Name: s.Name, Files: s.Files, Format: data.Format(s.Format), Columns: s.Columns, Replace: s.Replace,
			System: s.System, Weight: s.Weight, MaxRows: s.MaxRows, Split: s.Split})
	}
	return out
}

// loader is how steps are drawn from a set.
func (t *Train) loader(seed uint64, d Data) data.LoaderOptions {
	opt := data.LoaderOptions{Seed: seed, Sequential: !d.Shuffle, Batch: t.Batch, BatchTokens: t.BatchTokens, MicroTokens: t.MicroTokens}
	if t.Steps == 0 {
		opt.Epochs = t.Epochs
	}
	if opt.BatchTokens > 0 {
		// Not by micro_tokens: the cut must not change what a step sees.
		opt.Pack = min(d.MaxTokens, opt.BatchTokens)
	}
	return opt
}

// schedule is the learning rate's course over so many steps.
func (t Train) schedule(steps int) optim.Schedule {
	return optim.Schedule{Kind: optim.Kind(t.Schedule), LR: t.LR, Steps: steps, Warmup: optim.StepsOf(t.Warmup, steps),
		MinRatio: t.MinLR, Decay: int(t.Decay * float64(steps))}
}

// check refuses what no objective can do with these blocks.
func (t *Train) check(d *Data) error {
	switch {
	case t.Batch == 0 && t.BatchTokens == 0:
		return fmt.Errorf("train: batch and batch_tokens are both 0")
	case t.Batch > 0 && t.BatchTokens > 0:
		return fmt.Errorf("train: batch and batch_tokens exclude each other; set batch: 0 to use batch_tokens")
	case t.MicroTokens < d.MaxTokens:
		return fmt.Errorf("train.micro_tokens %d is less than data.max_tokens %d: one row would not fit", t.MicroTokens, d.MaxTokens)
	}
	return checkFormats(d.Train, d.Eval)
}

func checkFormats(lists ...[]Source) error {
	for _, s := range slices.Concat(lists...) {
		if s.Format == "" || slices.Contains(data.Formats(), data.Format(s.Format)) {
			continue
		}
		var names []string
		for _, f := range data.Formats() {
			names = append(names, string(f))
		}
		return fmt.Errorf("data: format %q is not one of %s", s.Format, strings.Join(names, ", "))
	}
	return nil
}

// relative makes paths relative to dir.
func relative(dir string, paths ...*string) {
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// findModels does so for models, which may also be names in the hub's cache (ORG/NAME) or
// folders that ColossalChat's training left. What is found is the snapshot of a
// commit, so that a run goes on with the weights that it began with.
func findModels(dir string, paths ...*string) error {
	for _, p := range paths {
		if _, err := findModel(dir, p); err != nil {
			return err
		}
	}
	return nil
}

// findModel finds one, and the folder of its tokenizer where that lies apart.
func findModel(dir string, path *string) (tokenizer string, err error) {
	if *path == "" {
		return "", nil
	}
	if err := findCached(dir, path); err != nil {
		return "", err
	}
	run, err := model.FindRun(*path)
	if err == nil {
		*path = run.Dir
	}
	return run.Tokenizer, err
}

// findCached finds a path or, where there is none, a model in the hub's cache.
func findCached(dir string, path *string) (err error) {
	*path, err = findLocal(dir, *path, hub.Resolve)
	return err
}

// findLocal makes a path relative to the recipe's folder; where nothing is there,
// elsewhere is asked, which returns the path itself if it knows no better.
func findLocal(dir, path string, elsewhere func(string) (string, error)) (string, error) {
	local := path
	relative(dir, &local)
	if _, err := os.Stat(local); errors.Is(err, fs.ErrNotExist) {
		if found, err := elsewhere(path); err != nil || found != path {
			return found, err
		}
	}
	return local, nil
}

// relativeTemplate does so where the template is a file, not a built-in name.
func relativeTemplate(dir string, template *string) {
	if strings.ContainsAny(*template, "/\\.") {
		relative(dir, template)
	}
}

// relativeFiles makes data files relative to the recipe's folder, and finds what is none of
// them but a data set in the hub's cache.
func relativeFiles(dir string, lists ...[]Source) {
	for _, list := range lists {
		for i := range list {
			for j := range list[i].Files {
				name := &list[i].Files[j]
				*name, _ = findLocal(dir, *name, func(s string) (string, error) { return hub.ResolveData(s), nil })
			}
		}
	}
}
