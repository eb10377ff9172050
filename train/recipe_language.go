package train

import (
	"fmt"

	"ringtail/device"
	"ringtail/tensor"
)

// LanguageRecipe is what a YAML recipe of `train pretrain` and `train sft` says.
type LanguageRecipe struct {
	Model      Model      `yaml:"model" help:"What is trained: a Hugging Face folder, or a new model"`
	Tokenizer  string     `yaml:"tokenizer" help:"Folder or tokenizer.json; absent: the model folder's"`
	Template   string     `yaml:"template" help:"Chat template: a built-in name, a Jinja file or a conversation template of ColossalChat's; absent: the model's"`
	Data       Data       `yaml:"data"`
	Device     string     `yaml:"device" default:"auto" help:"auto, cpu, cuda or cuda:N"`
	Seed       uint64     `yaml:"seed" default:"0" help:"Fixes initial weights, the order of data and samples"`
	Train      Train      `yaml:"train"`
	Optimizer  Optimizer  `yaml:"optimizer"`
	Eval       Eval       `yaml:"eval"`
	Samples    Samples    `yaml:"samples"`
	Checkpoint Checkpoint `yaml:"checkpoint"`
	Log        Log        `yaml:"log"`
}

func (r *LanguageRecipe) objective(dev tensor.Device, name string) objective {
	return &language{onRows: onRows{basis: basis{dev: dev}}, rec: r, pretrain: name == "pretrain"}
}

func (r *LanguageRecipe) place() (string, device.Options) {
	return r.Device, device.Options{Dtype: r.Train.Dtype, Fast: !r.Train.Repeatable}
}

func (r *LanguageRecipe) course() course {
	return course{eval: r.Eval, checkpoint: r.Checkpoint, log: r.Log, maxSkips: r.Train.MaxSkips, lr: r.Train.LR}
}

// Check refuses combinations that no single key shows to be wrong.
func (r *LanguageRecipe) Check() error {
	switch {
	case r.Model.Path == "" && r.Model.New == nil:
		return fmt.Errorf("model: give path, a Hugging Face folder, or new, the shape of a new model")
	case r.Model.Path != "" && r.Model.New != nil:
		return fmt.Errorf("model: path and new exclude each other")
	case r.Model.New != nil && r.Tokenizer == "":
		return fmt.Errorf("tokenizer: a new model needs one; train it with: ringtail tokenizer train")
	}
	if err := checkDevice(r.Device, r.Train.Dtype, r.Optimizer.State); err != nil {
		return err
	}
	return r.Train.check(&r.Data)
}

// Resolve makes relative paths relative to the recipe's folder, and finds models.
func (r *LanguageRecipe) Resolve(dir string) error {
	relativeTemplate(dir, &r.Template)
	relativeFiles(dir, r.Data.Train, r.Data.Eval)
	tokenizer, err := findModel(dir, &r.Model.Path)
	if err != nil || r.Tokenizer == "" {
		r.Tokenizer = tokenizer
		return err
	}
	return findCached(dir, &r.Tokenizer)
}
