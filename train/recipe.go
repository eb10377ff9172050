package train

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"ringtail/data"
	"ringtail/optim"
)

// Recipe is what a YAML recipe of `train pretrain` and `train sft` says. Package
// recipe reads it; the tags are its schema, its defaults and its documentation.
type Recipe struct {
	Model      Model      `yaml:"model" help:"What is trained: a Hugging Face folder, or a new model"`
	Tokenizer  string     `yaml:"tokenizer" help:"Folder or tokenizer.json; absent: the model folder's"`
	Template   string     `yaml:"template" help:"Chat template: a built-in name or a Jinja file; absent: the model's"`
	Data       Data       `yaml:"data"`
	Device     string     `yaml:"device" default:"auto" help:"auto or cpu"`
	Seed       uint64     `yaml:"seed" default:"0" help:"Fixes initial weights, the order of data and samples"`
	Train      Train      `yaml:"train"`
	Optimizer  Optimizer  `yaml:"optimizer"`
	Eval       Eval       `yaml:"eval"`
	Samples    Samples    `yaml:"samples"`
	Checkpoint Checkpoint `yaml:"checkpoint"`
	Log        Log        `yaml:"log"`
}

// Model says what is trained.
type Model struct {
	Path   string    `yaml:"path" shorthand:"true" help:"A Hugging Face model folder to start from"`
	New    *NewModel `yaml:"new" help:"Or: a new LLaMA with random weights"`
	Dtype  string    `yaml:"dtype" oneof:"|float32|bfloat16|float16" help:"Type of the weights in the result; absent: as the start's, float32 for a new model"`
	Freeze []string  `yaml:"freeze" help:"Parameters that are not trained, as patterns of their names: model.embed_tokens.*"`
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
	Files   []string          `yaml:"files" shorthand:"true" required:"true" help:"Files: JSON, JSONL or text, plain or gzipped"`
	Name    string            `yaml:"name" help:"Name in statistics; absent: the first file's"`
	Format  string            `yaml:"format" help:"Row format; absent: detected"`
	Columns map[string]string `yaml:"columns" help:"Names of fields where the file has others: {prompt: question}"`
	Replace map[string]string `yaml:"replace" help:"Text to replace in rows: {\"{{name}}\": Ringtail}"`
	System  string            `yaml:"system" help:"System message for rows that have none"`
	Weight  float64           `yaml:"weight" default:"0" min:"0" help:"Share in a mixture; 0 everywhere: by size"`
	MaxRows int               `yaml:"max_rows" default:"0" min:"0" help:"Take only the first so many rows; 0: all"`
}

// Train is the course of training.
type Train struct {
	Epochs      float64 `yaml:"epochs" default:"1" min:">0" help:"Passes over the data, where steps is 0"`
	Steps       int     `yaml:"steps" default:"0" min:"0" help:"Optimizer steps; 0: as epochs says"`
	Batch       int     `yaml:"batch" default:"16" min:"0" help:"Sequences of a step; 0: batch_tokens counts"`
	BatchTokens int     `yaml:"batch_tokens" default:"0" min:"0" help:"Tokens of a step, where batch is 0"`
	MicroTokens int     `yaml:"micro_tokens" default:"2048" min:"16" help:"Tokens that are computed at once; memory grows with it, results don't change"`
	LR          float64 `yaml:"lr" default:"2e-5" min:">0" help:"Peak learning rate"`
	Schedule    string  `yaml:"schedule" default:"cosine" oneof:"constant|linear|cosine|wsd" help:"Course of the learning rate after the warm-up"`
	Warmup      float64 `yaml:"warmup" default:"0.03" min:"0" help:"Warm-up: a part of the steps below 1, else a number of steps"`
	MinLR       float64 `yaml:"min_lr" default:"0.1" min:"0" max:"1" help:"Last learning rate as a part of lr"`
	Decay       float64 `yaml:"decay" default:"0.2" min:"0" max:"1" help:"Part of the steps in which wsd falls"`
	Clip        float64 `yaml:"clip" default:"1" min:"0" help:"Largest norm of the gradients; 0: no clipping"`
	MaxSkips    int     `yaml:"max_skips" default:"10" min:"1" help:"Consecutive steps with non-finite loss or gradients that end the run"`
	Recompute   bool    `yaml:"recompute" default:"false" help:"Activation checkpointing: less memory, a third more work"`
}

// Optimizer is AdamW's settings.
type Optimizer struct {
	Beta1       float64 `yaml:"beta1" default:"0.9" min:"0" max:"<1" help:"Decay of the first moment"`
	Beta2       float64 `yaml:"beta2" default:"0.95" min:"0" max:"<1" help:"Decay of the second moment"`
	Eps         float64 `yaml:"eps" default:"1e-8" min:">0" help:"Added to the root of the second moment"`
	WeightDecay float64 `yaml:"weight_decay" default:"0.1" min:"0" help:"Decoupled weight decay, on matrices"`
}

// Eval says when the held-out part is evaluated.
type Eval struct {
	Every    int `yaml:"every" default:"0" min:"0" help:"Steps between evaluations; 0: ten times in the run"`
	Patience int `yaml:"patience" default:"0" min:"0" help:"Stop after so many evaluations without a better loss; 0: never"`
}

// Samples says what is generated on the way.
type Samples struct {
	Prompts     []string `yaml:"prompts" help:"Prompts answered at each evaluation; absent: a few of the held-out rows"`
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

// Check refuses combinations that no single key shows to be wrong.
func (r *Recipe) Check() error {
	switch {
	case r.Model.Path == "" && r.Model.New == nil:
		return fmt.Errorf("model: give path, a Hugging Face folder, or new, the shape of a new model")
	case r.Model.Path != "" && r.Model.New != nil:
		return fmt.Errorf("model: path and new exclude each other")
	case r.Model.New != nil && r.Tokenizer == "":
		return fmt.Errorf("tokenizer: a new model needs one; train it with: ringtail tokenizer train")
	case r.Train.Batch == 0 && r.Train.BatchTokens == 0:
		return fmt.Errorf("train: batch and batch_tokens are both 0")
	case r.Train.Batch > 0 && r.Train.BatchTokens > 0:
		return fmt.Errorf("train: batch and batch_tokens exclude each other; set batch: 0 to use batch_tokens")
	case r.Device != "auto" && r.Device != "cpu":
		return fmt.Errorf("device: %q is not to be had in this version; use auto or cpu", r.Device)
	case r.Train.MicroTokens < r.Data.MaxTokens:
		return fmt.Errorf("train.micro_tokens %d is less than data.max_tokens %d: one row would not fit", r.Train.MicroTokens, r.Data.MaxTokens)
	}
	for _, s := range append(append([]Source(nil), r.Data.Train...), r.Data.Eval...) {
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

// Resolve makes relative paths relative to the recipe's folder.
func (r *Recipe) Resolve(dir string) {
	fix := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	fix(&r.Model.Path)
	fix(&r.Tokenizer)
	if strings.ContainsAny(r.Template, "/\\.") {
		fix(&r.Template)
	}
	for _, list := range [][]Source{r.Data.Train, r.Data.Eval} {
		for i := range list {
			for j := range list[i].Files {
				fix(&list[i].Files[j])
			}
		}
	}
}

// schedule is the learning rate's course over so many steps.
func (t Train) schedule(steps int) optim.Schedule {
	return optim.Schedule{Kind: optim.Kind(t.Schedule), LR: t.LR, Steps: steps, Warmup: optim.StepsOf(t.Warmup, steps),
		MinRatio: t.MinLR, Decay: int(t.Decay * float64(steps))}
}
