package train

import (
	"fmt"

	"ringtail/device"
	"ringtail/tensor"
)

// RewardRecipe is what a YAML recipe of `train reward` says.
type RewardRecipe struct {
	Model      RewardStart `yaml:"model" help:"What the reward model starts from: the fine-tuned model"`
	Template   string      `yaml:"template" help:"Chat template: a built-in name, a Jinja file or a conversation template of ColossalChat's; absent: the model's"`
	Data       RewardData  `yaml:"data"`
	Device     string      `yaml:"device" default:"auto" help:"auto, cpu, cuda or cuda:N"`
	Seed       uint64      `yaml:"seed" default:"0" help:"Fixes the new head and the order of data"`
	Train      Train       `yaml:"train"`
	Reward     Reward      `yaml:"reward"`
	Optimizer  Optimizer   `yaml:"optimizer"`
	Eval       Eval        `yaml:"eval"`
	Samples    Scored      `yaml:"samples"`
	Checkpoint Checkpoint  `yaml:"checkpoint"`
	Log        Log         `yaml:"log"`
}

// RewardStart says what a reward model starts from.
type RewardStart struct {
	Path   string   `yaml:"path" shorthand:"true" required:"true" help:"A Hugging Face folder: the fine-tuned model, which gets a new head, or a reward model"`
	Dtype  string   `yaml:"dtype" oneof:"|float32|bfloat16|float16" help:"Type of the weights in the result; absent: as the start's"`
	Freeze []string `yaml:"freeze" help:"Parameters that are not trained, as patterns of their names: model.embed_tokens.*"`
}

// RewardData says which comparisons are trained and evaluated on.
type RewardData struct {
	Train     []Source `yaml:"train" required:"true" help:"Sources of pairs and rankings"`
	Eval      []Source `yaml:"eval" help:"Sources to evaluate on, instead of held_out"`
	HeldOut   float64  `yaml:"held_out" default:"0.1" min:"0" max:"<1" help:"Part of the prompts whose rows are kept for evaluation"`
	MaxTokens int      `yaml:"max_tokens" default:"512" min:"2" help:"Longest prompt with an answer, in tokens"`
	TooLong   string   `yaml:"too_long" default:"drop" oneof:"error|drop" help:"What happens to rows with a longer one: a cut answer isn't the one that was judged"`
	BadRows   string   `yaml:"bad_rows" default:"error" oneof:"error|skip|strict" help:"What happens to broken rows"`
	Dedup     bool     `yaml:"dedup" default:"false" help:"Drop rows that equal an earlier one"`
	Shuffle   bool     `yaml:"shuffle" default:"true" help:"Another order in each epoch"`
}

// Reward is the reward model's own block.
type Reward struct {
	Loss   string  `yaml:"loss" default:"log_sigmoid" oneof:"log_sigmoid|log_exp" help:"-log sigmoid(d) or log(1 + exp(-d)) of the lead d: one function under two names"`
	Margin float64 `yaml:"margin" default:"0" min:"0" help:"Where rows have scores: by how much of their difference the better answer should lead"`
	// Normalize: the scale on which PPO's settings (clips, penalties, KL) mean the same for every reward model.
	Normalize     bool `yaml:"normalize" default:"true" help:"Shift and scale so that the best answers of the training rows score 0 on average, with deviation 1"`
	NormalizeRows int  `yaml:"normalize_rows" default:"2048" min:"2" help:"Rows measured for that"`
}

// Scored says which scores are shown on the way.
type Scored struct {
	Rows int  `yaml:"rows" default:"4" min:"0" help:"Held-out rows whose answers are shown with their scores, before and after"`
	Off  bool `yaml:"off" default:"false" help:"No samples"`
}

func (r *RewardRecipe) objective(dev tensor.Device, _ string) objective {
	return &reward{onRows: onRows{basis: basis{dev: dev}}, rec: r}
}

func (r *RewardRecipe) place() (string, device.Options) {
	return r.Device, device.Options{Dtype: r.Train.Dtype, Fast: !r.Train.Repeatable}
}

func (r *RewardRecipe) course() course {
	return course{eval: r.Eval, checkpoint: r.Checkpoint, log: r.Log, maxSkips: r.Train.MaxSkips, lr: r.Train.LR}
}

// rows is the data block as the other objectives have it.
func (d *RewardData) rows() Data {
	return Data{Train: d.Train, Eval: d.Eval, HeldOut: d.HeldOut, MaxTokens: d.MaxTokens, TooLong: d.TooLong, BadRows: d.BadRows,
		Dedup: d.Dedup, Shuffle: d.Shuffle}
}

// Check refuses combinations that no single key shows to be wrong.
func (r *RewardRecipe) Check() error {
	if r.Model.Path == "" {
		return fmt.Errorf("model: give path, the folder of the fine-tuned model")
	}
	if err := checkDevice(r.Device, r.Train.Dtype, r.Optimizer.State); err != nil {
		return err
	}
	rows := r.Data.rows()
	return r.Train.check(&rows)
}

// Resolve makes relative paths relative to the recipe's folder, and finds models.
func (r *RewardRecipe) Resolve(dir string) error {
	relativeTemplate(dir, &r.Template)
	relativeFiles(dir, r.Data.Train, r.Data.Eval)
	return findModels(dir, &r.Model.Path)
}
