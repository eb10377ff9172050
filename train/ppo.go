package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ringtail/autograd"
	"ringtail/data"
	"ringtail/engine"
	"ringtail/folder"
	"ringtail/model"
	"ringtail/runs"
	"ringtail/shard"
	"ringtail/tensor"
)

// ppo is the objective of `train ppo`: proximal policy optimisation with PTX, as
// Ouyang et al. 2022, "Training language models to follow instructions with human
// feedback", section 3.5, describe it (Schulman et al. 2017 for PPO itself).
//
// A rollout makes experience (rollout.go): the actor samples answers to a batch of
// prompts, and the reference, the reward model and the critic score them. Then
// Epochs × Minibatches steps learn from it (ppo_update.go), each of which is one
// optimizer step of actor and critic. The actor's gradient is that of the policy's loss
// and, with PTX, of the cross-entropy on a corpus, so that the language isn't forgotten.
//
// Sampling, scoring and training use the same weights in the same memory: the policy
// that acts is the one that is trained, and in the first minibatch of a rollout all ratios
// are 1 but for rounding.
type ppo struct {
	basis
	rec *PPORecipe

	text                        *folder.Text
	actor, reference            *model.Model
	reward, critic              *model.Model
	actorLearner, criticLearner *learner
	average                     *shard.Store // running mean of the actor's weights, nil without ema

	prompts *data.Dataset
	ptx     *data.Dataset // nil without
	heldOut []heldOutPrompt

	loader    *data.Loader // prompts
	ptxLoader *data.Loader
	batch     data.Step
	ptxBatch  data.Step
	longest   int // tokens of a prompt with its answer
	steps     int

	engine  *engine.Engine
	passes  ppoPasses
	loss    tensor.Tensor // F64 [3], of ptx
	scale   tensor.Tensor // ptx_coef / trained tokens of the step's ptx rows
	kl      KLController
	state   ppoState
	rollout *experience // nil between rollouts
	scratch updateScratch
	samples []samplePrompt
	notes   []string // to be told at the start of the run
}

// ppoState is what a checkpoint keeps beside weights and experience.
type ppoState struct {
	Rollouts      int        `json:"rollouts"` // begun
	Used          int        `json:"used"`     // steps made with the present one
	PassedOver    bool       `json:"passed_over,omitempty"`
	KLCoef        float64    `json:"kl_coef"`
	ActorUpdates  int        `json:"actor_updates"`
	CriticUpdates int        `json:"critic_updates"`
	Prompts       data.State `json:"prompts"`
	PTX           data.State `json:"ptx,omitzero"`
	// Metrics are the present rollout's, which each of its steps shows.
	Metrics figures `json:"metrics,omitempty"`
}

// heldOutPrompt is a prompt of the held-out part.
type heldOutPrompt struct {
	ids       []int32
	text      string
	reference string
}

func (p *ppo) common() *basis { return &p.basis }

// load reads the actor's tokenizer, the data, and the four models.
func (p *ppo) load(ctx context.Context) error {
	r := p.rec
	var err error
	if p.text, err = folder.Open(r.Model.Actor, "", r.Template); err != nil {
		return fmt.Errorf("model.actor: %w", err)
	}
	for _, m := range []struct{ key, dir string }{{"model.reference", r.Model.Reference}, {"model.reward", r.Model.Reward}, {"model.critic", r.Model.Critic}} {
		if err := p.sameTokens(m.key, m.dir); err != nil {
			return err
		}
	}
	c, err := model.LoadConfig(r.Model.Actor)
	if err != nil {
		return err
	}
	if err := p.loadData(ctx, c); err != nil {
		return err
	}
	return p.loadModels()
}

// sameTokens refuses a model whose tokenizer isn't the actor's: it would read other
// words than were written. Another template is noted.
func (p *ppo) sameTokens(key, dir string) error {
	if dir == "" {
		return nil
	}
	tok, err := folder.OpenTokenizer(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	mine := p.text.Tokenizer
	if a, b := mine.Size(), tok.Size(); a != b {
		return fmt.Errorf("%s: %s has a tokenizer of %d tokens, the actor %s one of %d; both must come from the same model", key, dir, b, p.rec.Model.Actor, a)
	}
	for id := range int32(mine.Size()) {
		a, _ := mine.Token(id)
		if b, _ := tok.Token(id); a != b {
			return fmt.Errorf("%s: token %d is %q in %s and %q in the actor %s; both must come from the same model", key, id, b, dir, a, p.rec.Model.Actor)
		}
	}
	if own := tok.Config().ChatTemplate; own != "" && own != p.text.Template.Text() {
		p.notes = append(p.notes, fmt.Sprintf("note: %s %s has another chat template than the actor: it reads what it wasn't trained on", key, dir))
	}
	return nil
}

// loadData reads prompts and the ptx corpus.
func (p *ppo) loadData(ctx context.Context, c *model.Config) error {
	d := p.rec.Data
	room := c.MaxPositions - p.rec.PPO.MaxTokens
	if room < 2 {
		return fmt.Errorf("ppo.max_tokens %d leaves no room for a prompt in the actor's context of %d", p.rec.PPO.MaxTokens, c.MaxPositions)
	}
	limit := d.MaxTokens
	if limit == 0 {
		limit = room
	}
	if limit > room {
		return fmt.Errorf("data.max_tokens %d and ppo.max_tokens %d together are more than the actor's context of %d", limit, p.rec.PPO.MaxTokens, c.MaxPositions)
	}
	var err error
	p.prompts, err = data.Load(ctx, sources(d.Prompts), data.Options{Use: data.UsePrompts, MaxTokens: limit, TooLong: data.TooLong(d.TooLong),
		BadRows: data.BadRows(d.BadRows), Dedup: d.Dedup, Eval: evalSplit(d.Eval, d.HeldOut)}, p.text.Encoder())
	if err != nil {
		return fmt.Errorf("data.prompts: %w", err)
	}
	p.longest = p.prompts.MaxLength() + p.rec.PPO.MaxTokens
	if p.longest > p.rec.Train.MicroTokens {
		return fmt.Errorf("train.micro_tokens %d doesn't hold the longest prompt of %d tokens with an answer of ppo.max_tokens %d: raise it, or leave long prompts out with data.max_tokens",
			p.rec.Train.MicroTokens, p.prompts.MaxLength(), p.rec.PPO.MaxTokens)
	}
	p.findHeldOut()
	if p.rec.PPO.PTXCoef == 0 {
		return nil
	}
	p.ptx, err = data.Load(ctx, sources(d.PTX), data.Options{Use: data.UseSFT, MaxTokens: min(d.PTXTokens, c.MaxPositions, p.rec.Train.MicroTokens),
		TooLong: data.TooLongDrop, BadRows: data.BadRows(d.BadRows), Eval: evalSplit(d.PTXEval, d.HeldOut)}, p.text.Encoder())
	if err != nil {
		return fmt.Errorf("data.ptx: %w", err)
	}
	return nil
}

// findHeldOut lists the prompts of the held-out part.
func (p *ppo) findHeldOut() {
	for i := 0; ; i++ {
		q, ok := p.prompts.Sequence(i)
		if !ok {
			return
		}
		if !q.HeldOut || len(p.heldOut) >= p.rec.Eval.Answers {
			continue
		}
		h := heldOutPrompt{ids: slices.Clone(q.IDs), text: p.text.Tokenizer.Decode(q.IDs, true)}
		if row, err := p.prompts.Row(i); err == nil {
			h.reference = row.Reference
			for j, m := range row.Messages {
				switch {
				case m.Role == data.RoleUser && j+2 >= len(row.Messages):
					h.text = m.Content
				case m.Role == data.RoleAssistant && j+1 == len(row.Messages):
					h.reference = m.Content
				}
			}
		}
		p.heldOut = append(p.heldOut, h)
	}
}

// loadModels reads the four models. The actor and the critic are trained; the
// others hold neither gradients nor moments.
func (p *ppo) loadModels() error {
	r := p.rec.Model
	reference, critic := r.reference(), r.Critic
	if critic == "" {
		critic = r.Reward
	}
	var err error
	start := Model{Path: r.Actor, Dtype: r.Dtype, Freeze: r.Freeze}
	for _, m := range []struct{ key, dir string }{{"model.actor", r.Actor}, {"model.reference", reference}} {
		if err := speaks(m.dir); err != nil {
			return fmt.Errorf("%s: %w", m.key, err)
		}
	}
	if p.actor, err = start.open(p.dev, p.text, model.Options{Head: model.CausalLM, Seed: p.rec.Seed}, p.rec.Train.Gradients, p.rec.Optimizer.State, false); err != nil {
		return fmt.Errorf("model.actor: %w", err)
	}
	for _, m := range []struct {
		key, dir string
		dst      **model.Model
		opt      model.Options
	}{
		{"model.reference", reference, &p.reference, model.Options{Head: model.CausalLM}},
		{"model.reward", r.Reward, &p.reward, model.Options{Head: model.ScalarHead}},
		{"model.critic", critic, &p.critic, model.Options{Head: model.ScalarHead, Train: true, FreshHead: r.Critic != "", Seed: p.rec.Seed}},
	} {
		if m.opt.Train {
			err = numbers(&m.opt, p.dev, p.rec.Train.Gradients, p.rec.Optimizer.State, false)
		}
		if err == nil {
			*m.dst, err = model.Load(m.dir, p.dev, m.opt)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", m.key, err)
		}
		for _, note := range (*m.dst).Notes {
			p.notes = append(p.notes, fmt.Sprintf("note: %s: %s", m.key, note))
		}
		c := (*m.dst).Config
		if c.Vocab < p.actor.Config.Vocab {
			return fmt.Errorf("%s: %s has embeddings of %d tokens, the actor %s of %d: it couldn't read all that the actor may say; both must come from the same model",
				m.key, m.dir, c.Vocab, r.Actor, p.actor.Config.Vocab)
		}
		if p.longest > c.MaxPositions {
			return fmt.Errorf("%s: %s has a context of %d tokens; the longest prompt with an answer has %d", m.key, m.dir, c.MaxPositions, p.longest)
		}
	}
	setTokens(p.critic.Config, p.text)
	return nil
}

// speaks refuses a reward model where a language model is wanted.
func speaks(dir string) error {
	c, err := model.LoadConfig(dir)
	if err == nil && c.Scalar() {
		err = fmt.Errorf("%s: %s is a reward or value model, which says nothing; give a language model", dir, c.Architecture)
	}
	return err
}

// prepare makes loaders, optimizers and the engine.
func (p *ppo) prepare() (int, error) {
	r := p.rec
	p.arena = autograd.NewArena(p.dev)
	p.passes.init()
	p.longest = longestOf(p.longest, r.Train.MicroTokens)
	var err error
	if p.loader, err = data.NewLoader(p.prompts, data.TrainPart, data.LoaderOptions{Seed: r.Seed, Sequential: !r.Data.Shuffle, Batch: r.PPO.Prompts}); err != nil {
		return 0, fmt.Errorf("data.prompts: %w", err)
	}
	train, _ := p.prompts.Sequences()
	rollouts := r.Train.Rollouts
	if rollouts == 0 {
		rollouts = max(1, int(r.Train.Epochs*float64(train)/float64(r.PPO.Prompts)+0.5))
	}
	if r.PPO.CriticWarmup >= rollouts {
		return 0, fmt.Errorf("ppo.critic_warmup %d: the run has %d rollouts, so that the actor would never learn", r.PPO.CriticWarmup, rollouts)
	}
	p.steps = rollouts * r.PPO.stepsARollout()
	if p.ptx != nil {
		p.ptxLoader, err = data.NewLoader(p.ptx, data.TrainPart, data.LoaderOptions{Seed: r.Seed, Batch: r.PPO.PTXBatch, MicroTokens: r.Train.MicroTokens})
		if err != nil {
			return 0, fmt.Errorf("data.ptx: %w", err)
		}
	}
	criticLR := r.Train.CriticLR
	if criticLR == 0 {
		criticLR = r.Train.LR
	}
	if p.actorLearner, err = newLearner(&p.basis, p.actor, r.Optimizer, r.Train.schedule(r.Train.LR, p.steps), r.Train.Clip); err != nil {
		return 0, err
	}
	if p.criticLearner, err = newLearner(&p.basis, p.critic, r.Optimizer, r.Train.schedule(criticLR, p.steps), r.Train.Clip); err != nil {
		return 0, err
	}
	if p.loss, err = p.alloc(tensor.F64, 3); err != nil {
		return 0, err
	}
	if p.scale, err = p.alloc(p.dev.Float().Wide(), 1); err != nil {
		return 0, err
	}
	if r.PPO.EMA > 0 {
		if p.average, err = p.actor.Store.Copy(); err != nil {
			return 0, fmt.Errorf("ppo.ema: %w", err)
		}
	}
	p.kl = KLController{Coef: r.PPO.KLCoef, Target: r.PPO.KLTarget, Horizon: r.PPO.KLHorizon}
	if p.samples, err = r.Samples.encodePrompts(p.text, p.actor.Config, false); err != nil {
		return 0, err
	}
	if len(p.samples) == 0 {
		for _, h := range p.heldOut[:min(r.Samples.Rows, len(p.heldOut))] {
			p.samples = append(p.samples, samplePrompt{text: h.text, reference: h.reference, ids: h.ids})
		}
	}
	return p.steps, p.newEngine()
}

// newEngine makes the engine that samples for the whole run, from the actor's own
// weights as they are trained.
func (p *ppo) newEngine() error {
	r := p.rec
	capacity := p.prompts.MaxLength() + r.PPO.MaxTokens
	for _, s := range p.samples {
		capacity = max(capacity, len(s.ids)+r.Samples.MaxTokens)
	}
	eos := p.text.StopIDs()
	for _, id := range p.actor.Config.EOS {
		if !slices.Contains(eos, int32(id)) {
			eos = append(eos, int32(id))
		}
	}
	if len(eos) == 0 && len(p.text.StopText()) == 0 {
		return fmt.Errorf("%s: neither the tokenizer nor the template says what ends an answer; every answer would run to ppo.max_tokens", r.Model.Actor)
	}
	var err error
	p.engine, err = engine.New(p.actor, engine.Options{Slots: min(r.PPO.Slots, max(r.PPO.Prompts*r.PPO.Samples, r.Eval.Answers)),
		Capacity: min(capacity, p.actor.Config.MaxPositions), Arena: p.arena, EOS: eos,
		NewText: func() engine.TextDecoder { return p.text.Tokenizer.NewStream(true) }})
	return err
}

func (p *ppo) close() {
	p.passes.free()
	p.actorLearner.free()
	p.criticLearner.free()
	if p.engine != nil {
		p.engine.Close()
	}
	p.free()
	for _, m := range []*model.Model{p.actor, p.reference, p.reward, p.critic} {
		if m != nil {
			m.Free()
		}
	}
	if p.average != nil {
		p.average.Free()
	}
}

// step gathers experience where there is none left, and makes one optimizer step
// with it.
func (p *ppo) step(ctx context.Context, step int) (stepResult, error) {
	var times map[string]float64
	if p.rollout == nil {
		var over string
		var err error
		if times, over, err = p.gather(ctx); err != nil || over != "" {
			return stepResult{ended: over}, err
		}
	}
	r, err := p.update(step)
	if err != nil {
		return r, err
	}
	maps.Copy(r.metrics, p.state.Metrics)
	maps.Copy(r.metrics, times)
	r.epoch = p.loader.Epoch()
	p.state.Used++
	if p.state.Used == p.rec.PPO.stepsARollout() {
		p.state.Used, p.state.PassedOver, p.rollout = 0, false, nil
	}
	return r, nil
}

// Folders of a checkpoint.
const (
	actorChunks   = "actor"
	criticChunks  = "critic"
	averageChunks = "average"
)

// stores are the weights that a checkpoint holds, by folder.
func (p *ppo) stores() map[string]*shard.Store {
	out := map[string]*shard.Store{actorChunks: p.actor.Store, criticChunks: p.critic.Store}
	if p.average != nil {
		out[averageChunks] = p.average
	}
	return out
}

func writeStore(dir string, s *shard.Store) error {
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	return s.WriteChunks(dir)
}

func (p *ppo) save(dir string) (any, error) {
	for name, store := range p.stores() {
		if err := writeStore(filepath.Join(dir, name), store); err != nil {
			return nil, err
		}
	}
	if p.rollout != nil {
		if err := p.rollout.write(dir); err != nil {
			return nil, err
		}
	}
	s := p.state
	s.KLCoef, s.ActorUpdates, s.CriticUpdates = p.kl.Coef, p.actorLearner.updates, p.criticLearner.updates
	s.Prompts = p.loader.State()
	if p.ptxLoader != nil {
		s.PTX = p.ptxLoader.State()
	}
	return s, nil
}

func (p *ppo) restore(dir string, state json.RawMessage) error {
	var s ppoState
	if err := json.Unmarshal(state, &s); err != nil {
		return err
	}
	if err := p.readWeights(dir); err != nil {
		return err
	}
	if err := p.loader.Restore(s.Prompts); err != nil {
		return fmt.Errorf("data.prompts: %w", err)
	}
	if p.ptxLoader != nil {
		if err := p.ptxLoader.Restore(s.PTX); err != nil {
			return fmt.Errorf("data.ptx: %w", err)
		}
	}
	var err error
	if p.rollout, err = readExperience(dir); err != nil {
		return err
	}
	r := p.rec.PPO
	switch {
	case s.Used < 0 || s.Used >= r.stepsARollout() || s.Rollouts < 0 || s.Rollouts == 0 && s.Used > 0,
		s.ActorUpdates < 0 || s.CriticUpdates < 0, !(s.KLCoef >= 0):
		return fmt.Errorf("the saved position is damaged: %d steps with rollout %d, %d and %d updates, kl_coef %g; use another checkpoint",
			s.Used, s.Rollouts, s.ActorUpdates, s.CriticUpdates, s.KLCoef)
	case (p.rollout == nil) != (s.Used == 0):
		return fmt.Errorf("%d steps were made with the rollout, but %s is there: %v; the checkpoint is damaged, use another", s.Used, experienceFile, p.rollout != nil)
	case p.rollout != nil:
		if err := p.rollout.check(r.Prompts*r.Samples, p.longest, p.actor.Config.Vocab); err != nil {
			return err
		}
	}
	p.kl.Coef = s.KLCoef
	p.actorLearner.resume(s.ActorUpdates)
	p.criticLearner.resume(s.CriticUpdates)
	p.state = s
	return nil
}

func (p *ppo) readWeights(dir string) error {
	for name, store := range p.stores() {
		if err := store.ReadChunks(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// export writes model/, the actor, or the running mean of its weights, and critic/.
func (p *ppo) export(_ context.Context, dir string) error {
	if p.average != nil {
		own := p.actor.Store
		p.actor.Store = p.average
		defer func() { p.actor.Store = own }()
	}
	return errors.Join(exportModel(p.actor, p.text, dir, runs.ModelDir), exportModel(p.critic, p.text, dir, runs.CriticDir))
}

func (p *ppo) describe(info *runs.Info) string {
	all, trained := p.actor.Store.Params()
	info.Model, info.Parameters, info.Trainable = p.rec.Model.Actor, int64(all), int64(trained)
	train, eval := p.prompts.Sequences()
	text := fmt.Sprintf("%s parameters, %d prompts, %d held out, %d answers a rollout; %s", count(trained), train, eval,
		p.rec.PPO.Prompts*p.rec.PPO.Samples, p.text.Choice)
	if s := skipped(p.prompts.Stats.Total); s != "" {
		text += "\nnot used: " + s
	}
	if p.ptx != nil {
		n, _ := p.ptx.Sequences()
		text += fmt.Sprintf("\nptx: %d rows", n)
		if s := skipped(p.ptx.Stats.Total); s != "" {
			text += "; not used: " + s
		}
	}
	return strings.Join(append([]string{text}, p.notes...), "\n")
}

// badTensor looks at the weights of both models before their gradients: broken values
// break the actor's gradient too.
func (p *ppo) badTensor() string {
	for _, find := range []func(*learner) string{(*learner).badWeights, (*learner).badGradient} {
		if bad := find(p.actorLearner); bad != "" {
			return "the actor: " + bad
		}
		if bad := find(p.criticLearner); bad != "" {
			return "the critic: " + bad
		}
	}
	return "the loss"
}

func (p *ppo) bytes() int {
	n := p.arena.Size() + p.engine.Stats().CacheBytes
	for _, m := range []*model.Model{p.actor, p.reference, p.reward, p.critic} {
		n += m.Store.Bytes()
	}
	if p.average != nil {
		n += p.average.Bytes()
	}
	return n
}
