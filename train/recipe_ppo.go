package train

import (
	"fmt"
	"math"

	"ringtail/device"
	"ringtail/optim"
	"ringtail/tensor"
)

// PPORecipe is what a YAML recipe of `train ppo` says.
type PPORecipe struct {
	Model      PPOModels  `yaml:"model" help:"The four models of PPO"`
	Template   string     `yaml:"template" help:"Chat template: a built-in name, a Jinja file or a conversation template of ColossalChat's; absent: the actor's"`
	Data       PPOData    `yaml:"data"`
	Device     string     `yaml:"device" default:"auto" help:"auto, cpu, cuda or cuda:N"`
	Seed       uint64     `yaml:"seed" default:"0" help:"Fixes the order of data and what is sampled"`
	Train      PPOTrain   `yaml:"train"`
	PPO        PPO        `yaml:"ppo"`
	Optimizer  Optimizer  `yaml:"optimizer"`
	Eval       PPOEval    `yaml:"eval"`
	Samples    Samples    `yaml:"samples"`
	Checkpoint Checkpoint `yaml:"checkpoint"`
	Log        Log        `yaml:"log"`
}

// PPOModels are the folders of the four models.
type PPOModels struct {
	Actor     string   `yaml:"actor" required:"true" help:"The policy to start from: the fine-tuned model"`
	Reference string   `yaml:"reference" help:"The frozen policy that the actor is held near; absent: the actor's start"`
	Reward    string   `yaml:"reward" required:"true" help:"The reward model, as train reward writes it, with the actor's tokenizer"`
	Critic    string   `yaml:"critic" help:"The value model to start from; absent: the reward model. A model without a scalar head gets a new one"`
	Dtype     string   `yaml:"dtype" oneof:"|float32|bfloat16|float16" help:"Type of the weights in the result; absent: as the actor's"`
	Freeze    []string `yaml:"freeze" help:"Parameters of the actor that are not trained, as patterns of their names"`
}

// PPOData says what is asked, and what the language is kept by.
type PPOData struct {
	Prompts   []Source `yaml:"prompts" required:"true" help:"Sources of prompts; of chats with answers the turns before the last answer"`
	Eval      []Source `yaml:"eval" help:"Prompts to evaluate on, instead of held_out"`
	PTX       []Source `yaml:"ptx" help:"Sources of chats or text whose cross-entropy is trained beside the policy, where ppo.ptx_coef is above 0"`
	PTXEval   []Source `yaml:"ptx_eval" help:"Rows whose cross-entropy is measured instead of that of held-out ptx rows"`
	HeldOut   float64  `yaml:"held_out" default:"0.05" min:"0" max:"<1" help:"Part of the prompts, and of the ptx rows, kept for evaluation"`
	MaxTokens int      `yaml:"max_tokens" default:"0" min:"0" help:"Longest prompt in tokens; 0: what the context leaves beside ppo.max_tokens"`
	PTXTokens int      `yaml:"ptx_tokens" default:"512" min:"2" help:"Longest ptx row in tokens"`
	TooLong   string   `yaml:"too_long" default:"drop" oneof:"error|drop" help:"What happens to longer prompts: a cut prompt asks something else"`
	BadRows   string   `yaml:"bad_rows" default:"error" oneof:"error|skip|strict" help:"What happens to broken rows"`
	Dedup     bool     `yaml:"dedup" default:"false" help:"Drop prompts that equal an earlier one"`
	Shuffle   bool     `yaml:"shuffle" default:"true" help:"Another order in each epoch"`
}

// PPOTrain is the course of training. A step is one optimizer step of actor and critic.
type PPOTrain struct {
	Epochs      float64 `yaml:"epochs" default:"1" min:">0" help:"Passes over the prompts, where rollouts is 0"`
	Rollouts    int     `yaml:"rollouts" default:"0" min:"0" help:"Times that answers are gathered and learnt from; 0: as epochs says"`
	MicroTokens int     `yaml:"micro_tokens" default:"2048" min:"16" help:"Tokens that are computed at once; memory grows with it, results don't change"`
	LR          float64 `yaml:"lr" default:"3e-6" min:">0" help:"Peak learning rate of the actor"`
	CriticLR    float64 `yaml:"critic_lr" default:"0" min:"0" help:"Peak learning rate of the critic; 0: the actor's"`
	Schedule    string  `yaml:"schedule" default:"cosine" oneof:"constant|linear|cosine|wsd" help:"Course of both learning rates after the warm-up"`
	Warmup      float64 `yaml:"warmup" default:"0.03" min:"0" help:"Warm-up: a part of the steps below 1, else a number of steps"`
	MinLR       float64 `yaml:"min_lr" default:"0.1" min:"0" max:"1" help:"Last learning rate as a part of the peak"`
	Decay       float64 `yaml:"decay" default:"0.2" min:"0" max:"1" help:"Part of the steps in which wsd falls"`
	Clip        float64 `yaml:"clip" default:"1" min:"0" help:"Largest norm of the gradients, of either model; 0: no clipping"`
	MaxSkips    int     `yaml:"max_skips" default:"10" min:"1" help:"Consecutive steps with non-finite loss or gradients that end the run"`
	Dtype       string  `yaml:"dtype" default:"auto" oneof:"auto|f32|bf16" help:"Weights and activations; auto: bf16 on a GPU, f32 on the CPU"`
	Gradients   string  `yaml:"gradients" default:"auto" oneof:"auto|f32|bf16" help:"Gradients of weights; auto: f32"`
	Repeatable  bool    `yaml:"deterministic" default:"true" help:"On a GPU, only what gives the same bytes on every run; false is faster"`
	Recompute   string  `yaml:"recompute" default:"none" oneof:"none|selective|full" also:"false=none|true=full" help:"What is computed again in the backward pass instead of kept: selective, norms and the like: some 30 % less memory for one or two percent more time; full, layers: nearly none, a third more work"`
}

// PPO is the algorithm's own block.
type PPO struct {
	Prompts     int     `yaml:"prompts" default:"128" min:"1" help:"Prompts of a rollout"`
	Samples     int     `yaml:"samples" default:"1" min:"1" help:"Answers to each prompt"`
	MaxTokens   int     `yaml:"max_tokens" default:"256" min:"1" help:"Longest answer in tokens"`
	Temperature float64 `yaml:"temperature" default:"1" min:">0" max:"10" help:"Of sampling; log-probabilities in the losses are taken at it too. No token is cut off (no top_k, no top_p)"`
	Slots       int     `yaml:"slots" default:"32" min:"1" help:"Answers that are sampled at once; memory grows with it"`

	Minibatches int `yaml:"minibatches" default:"4" min:"1" help:"Parts of a rollout, each of which makes one step"`
	Epochs      int `yaml:"epochs" default:"1" min:"1" help:"Times that a rollout is gone through"`

	KLCoef      float64 `yaml:"kl_coef" default:"0.05" min:"0" help:"Coefficient of the KL penalty in the rewards of tokens"`
	KLEstimator string  `yaml:"kl_estimator" default:"k1" oneof:"k1|k2|k3" help:"Estimate of the KL divergence from one token, for the penalty"`
	KLTarget    float64 `yaml:"kl_target" default:"0" min:"0" help:"KL in nats an answer that kl_coef is steered to; 0: kl_coef stays"`
	KLHorizon   float64 `yaml:"kl_horizon" default:"10000" min:"1" help:"Answers over which kl_coef follows kl_target"`
	KLLossCoef  float64 `yaml:"kl_loss_coef" default:"0" min:"0" help:"Coefficient of a KL loss (k3) beside the policy's, 0: none"`
	KLStop      float64 `yaml:"kl_stop" default:"10" min:"0" help:"KL in nats an answer beyond which the run ends, with the best weights within it as its result; 0: never"`
	TargetKL    float64 `yaml:"target_kl" default:"0" min:"0" help:"KL in nats a token between a rollout's policy and the present one at which the rest of the rollout is passed over; 0: never"`

	Clip       float64 `yaml:"clip" default:"0.2" min:">0" help:"Ratios of probabilities are clipped to 1 - clip ..."`
	ClipHigh   float64 `yaml:"clip_high" default:"0" min:"0" help:"... and to 1 + clip_high; 0: 1 + clip"`
	DualClip   float64 `yaml:"dual_clip" default:"0" min:"0" help:"Bound of the loss of tokens with negative advantage, in advantages; usual 3; 0: none"`
	ValueClip  float64 `yaml:"value_clip" default:"0.2" min:"0" help:"How far a value may move from the rollout's before its loss is that of the clipped one; 0: no clip"`
	RewardClip float64 `yaml:"reward_clip" default:"5" min:"0" help:"Bound of the normalised score; 0: none"`

	Gamma            float64 `yaml:"gamma" default:"1" min:"0" max:"1" help:"Discount from token to token"`
	Lambda           float64 `yaml:"lambda" default:"0.95" min:"0" max:"1" help:"Lambda of generalised advantage estimation"`
	WhitenAdvantages bool    `yaml:"whiten_advantages" default:"true" help:"Shift and scale the advantages of a rollout's tokens to mean 0 and deviation 1"`
	WhitenRewards    bool    `yaml:"whiten_rewards" default:"false" help:"Scale the rewards of a rollout's tokens to deviation 1"`

	MissingEOSPenalty float64 `yaml:"missing_eos_penalty" default:"1" min:"0" help:"Taken off the score of an answer that didn't end by itself"`
	MinTokens         int     `yaml:"min_tokens" default:"0" min:"0" help:"Answers with fewer tokens, their end included, pay short_penalty"`
	ShortPenalty      float64 `yaml:"short_penalty" default:"1" min:"0" help:"Taken off the score of an answer shorter than min_tokens"`

	EntropyCoef  float64 `yaml:"entropy_coef" default:"0" min:"0" help:"Coefficient of the entropy bonus"`
	CriticWarmup int     `yaml:"critic_warmup" default:"0" min:"0" help:"First rollouts that train the critic alone"`
	EMA          float64 `yaml:"ema" default:"0" min:"0" max:"<1" help:"Decay of a running mean of the actor's weights that becomes model/, usual 0.992; 0: none"`

	PTXCoef  float64 `yaml:"ptx_coef" default:"0" min:"0" help:"Coefficient of the cross-entropy of data.ptx, which keeps the language from being forgotten"`
	PTXBatch int     `yaml:"ptx_batch" default:"16" min:"1" help:"Rows of data.ptx in each step"`
}

// PPOEval says when and how the actor is evaluated on held-out prompts.
type PPOEval struct {
	Every       int     `yaml:"every" default:"0" min:"0" help:"Steps between evaluations; 0: ten times in the run"`
	Answers     int     `yaml:"answers" default:"64" min:"1" help:"Answers that are sampled to held-out prompts and scored"`
	Temperature float64 `yaml:"temperature" default:"1" min:">0" max:"10" help:"Of sampling them"`
}

func (r *PPORecipe) objective(dev tensor.Device, _ string) objective {
	return &ppo{basis: basis{dev: dev}, rec: r}
}

func (r *PPORecipe) place() (string, device.Options) {
	return r.Device, device.Options{Dtype: r.Train.Dtype, Fast: !r.Train.Repeatable}
}

func (r *PPORecipe) course() course {
	return course{eval: Eval{Every: r.Eval.Every}, checkpoint: r.Checkpoint, log: r.Log, maxSkips: r.Train.MaxSkips, lr: r.Train.LR,
		keepBest: r.PPO.KLStop > 0}
}

// Check refuses combinations that no single key shows to be wrong.
func (r *PPORecipe) Check() error {
	p := r.PPO
	switch {
	case r.Model.Actor == "":
		return fmt.Errorf("model.actor: give the folder of the fine-tuned model")
	case r.Model.Reward == "":
		return fmt.Errorf("model.reward: give the folder of the reward model")
	case p.Prompts*p.Samples < p.Minibatches:
		return fmt.Errorf("ppo: %d answers a rollout can't be parted into %d minibatches", p.Prompts*p.Samples, p.Minibatches)
	case p.PTXCoef > 0 && len(r.Data.PTX) == 0:
		return fmt.Errorf("ppo.ptx_coef is %g, but data.ptx names no source", p.PTXCoef)
	case p.DualClip > 0 && p.DualClip <= 1:
		return fmt.Errorf("ppo.dual_clip %g: it must be above 1, or 0 for none", p.DualClip)
	case p.KLTarget > 0 && p.KLCoef == 0:
		return fmt.Errorf("ppo.kl_target %g steers ppo.kl_coef by factors, and 0 would stay 0: begin with a kl_coef above it, usual 0.05", p.KLTarget)
	case p.MinTokens > p.MaxTokens:
		return fmt.Errorf("ppo.min_tokens %d is above ppo.max_tokens %d: every answer would pay short_penalty", p.MinTokens, p.MaxTokens)
	case p.Clip >= 1:
		return fmt.Errorf("ppo.clip %g: it must be below 1", p.Clip)
	}
	if err := checkDevice(r.Device, r.Train.Dtype, r.Optimizer.State); err != nil {
		return err
	}
	return checkFormats(r.Data.Prompts, r.Data.Eval, r.Data.PTX, r.Data.PTXEval)
}

// Resolve makes relative paths relative to the recipe's folder, and finds models.
func (r *PPORecipe) Resolve(dir string) error {
	relativeTemplate(dir, &r.Template)
	relativeFiles(dir, r.Data.Prompts, r.Data.Eval, r.Data.PTX, r.Data.PTXEval)
	return findModels(dir, &r.Model.Actor, &r.Model.Reference, &r.Model.Reward, &r.Model.Critic)
}

// reference is the folder of the frozen policy.
func (m *PPOModels) reference() string {
	if m.Reference == "" {
		return m.Actor
	}
	return m.Reference
}

// schedule is the course of a learning rate over so many steps.
func (t *PPOTrain) schedule(lr float64, steps int) optim.Schedule {
	return Train{LR: lr, Schedule: t.Schedule, Warmup: t.Warmup, MinLR: t.MinLR, Decay: t.Decay}.schedule(steps)
}

// stepsARollout is the number of optimizer steps that a rollout is good for.
func (p *PPO) stepsARollout() int { return p.Epochs * p.Minibatches }

// clips are the bounds of the policy's loss.
func (p *PPO) clips() PolicyClip {
	high := p.ClipHigh
	if high == 0 {
		high = p.Clip
	}
	return PolicyClip{Low: p.Clip, High: high, Dual: p.DualClip}
}

// orNone is a bound that 0 turns off.
func orNone(bound float64) float64 {
	if bound == 0 {
		return math.Inf(1)
	}
	return bound
}
