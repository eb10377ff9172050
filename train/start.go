package train

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ringtail/data"
	"ringtail/folder"
	"ringtail/model"
	"ringtail/recipe"
	"ringtail/runs"
	"ringtail/shard"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// Options say how a recipe is run.
type Options struct {
	Objective string // "sft" or "pretrain"
	Dir       string // the run's folder
	Resume    bool   // go on with the run in Dir
	Progress  runs.ProgressMode
	Messages  io.Writer // where progress is printed
	Version   string    // of this program, kept in run.json
	// Device computes; nil: the one that the recipe names.
	Device tensor.Device
}

// Start trains by a recipe into a run folder, or goes on with a run that was
// interrupted. Nothing is written before data, model and recipe have been read and
// found fit. When ctx ends the run is saved and ErrInterrupted returned.
func Start(ctx context.Context, rec *Recipe, opt Options) error {
	if err := rec.Check(); err != nil {
		return err
	}
	resolved, err := recipe.Marshal(rec)
	if err != nil {
		return err
	}
	t := &Trainer{rec: rec, dir: opt.Dir, pretrain: opt.Objective == "pretrain"}
	defer t.Close()
	if opt.Resume {
		if t.run, err = runs.Open(opt.Dir); err != nil {
			return err
		}
		defer t.run.Close()
		if err := sameRecipe(opt.Dir, resolved); err != nil {
			return err
		}
		if info, err := runs.ReadInfo(opt.Dir); err != nil {
			return err
		} else if info.Objective != "" && info.Objective != opt.Objective {
			return fmt.Errorf("%s is a run of train %s; go on with it by: train %s --resume", opt.Dir, info.Objective, info.Objective)
		}
	} else if _, err := os.Stat(filepath.Join(opt.Dir, runs.RecipeFile)); err == nil {
		return fmt.Errorf("%s holds a run already; go on with it by --resume, or name another folder by --dir", opt.Dir)
	}
	t.dev = opt.Device
	if t.dev == nil {
		t.dev = cpu.New()
	}
	if err := t.load(ctx); err != nil {
		return err
	}
	if err := t.prepare(); err != nil {
		return err
	}
	if !opt.Resume {
		if t.run, err = runs.Create(opt.Dir); err != nil {
			return err
		}
		defer t.run.Close()
		if err := t.run.WriteRecipe(resolved); err != nil {
			return err
		}
	}
	t.run.SetTensorBoard(rec.Log.TensorBoard)
	t.progress = runs.NewProgress(opt.Messages, opt.Progress, t.steps)
	defer t.progress.Close()
	if opt.Resume {
		if err := t.restore(); err != nil {
			return err
		}
		from := t.state.Step
		if t.state.EvalStep < 0 {
			from = -1
		}
		if err := t.run.Resume(from); err != nil {
			return err
		}
	}
	return t.conduct(ctx, opt)
}

// conduct runs the training and keeps run.json and the report up to date.
func (t *Trainer) conduct(ctx context.Context, opt Options) error {
	all, trained := t.model.Store.Params()
	info := runs.Info{Objective: opt.Objective, Model: t.rec.Model.Path, Device: fmt.Sprintf("%s (%s, %d threads)", t.dev.Name(), cpu.Level(), cpu.Threads()),
		Parameters: int64(all), Trainable: int64(trained), Steps: t.steps, Version: opt.Version, Started: time.Now().UTC().Truncate(time.Second), Status: "running"}
	if info.Model == "" {
		info.Model = "new model"
	}
	if err := t.run.WriteInfo(info); err != nil {
		return err
	}
	train, eval := t.data.Sequences()
	t.progress.Message("%s: %s parameters, %d sequences to train on, %d held out, %d steps; %s", opt.Objective, count(trained), train, eval, t.steps, t.text.Choice)
	if s := skipped(t.data.Stats.Total); s != "" {
		t.progress.Message("not used: %s", s)
	}
	if t.state.Step > 0 {
		t.progress.Message("going on after step %d", t.state.Step)
	}
	err := t.Run(ctx)
	info.Ended = time.Now().UTC().Truncate(time.Second)
	switch {
	case err == nil:
		info.Status = "done"
	case errors.Is(err, ErrInterrupted):
		info.Status = "stopped"
		info.Note = fmt.Sprintf("interrupted after step %d", t.state.Step)
	default:
		info.Status, info.Note = "failed", err.Error()
	}
	return errors.Join(err, t.run.WriteInfo(info), runs.WriteReport(opt.Dir))
}

// sameRecipe refuses to go on with a run by another recipe.
func sameRecipe(dir string, resolved []byte) error {
	file := filepath.Join(dir, runs.RecipeFile)
	was, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	old, now := bytes.Split(was, []byte("\n")), bytes.Split(resolved, []byte("\n"))
	for i := range max(len(old), len(now)) {
		var a, b []byte
		if i < len(old) {
			a = old[i]
		}
		if i < len(now) {
			b = now[i]
		}
		if !bytes.Equal(a, b) {
			return fmt.Errorf("%s:%d: the run was begun with %q, the recipe now says %q; go on with the same recipe, or begin another run",
				file, i+1, bytes.TrimSpace(a), bytes.TrimSpace(b))
		}
	}
	return nil
}

// load reads tokenizer, data and model.
func (t *Trainer) load(ctx context.Context) error {
	var err error
	if t.text, err = folder.Open(t.rec.Model.Path, t.rec.Tokenizer, t.rec.Template); err != nil {
		return err
	}
	if t.data, err = data.Load(ctx, sources(t.rec.Data.Train), t.dataOptions(), t.text.Encoder()); err != nil {
		return err
	}
	if n, _ := t.data.Sequences(); n == 0 {
		return fmt.Errorf("data.train: no row to train on %s", skippedIn(t.data.Stats.Total))
	}
	return t.loadModel()
}

func sources(list []Source) []data.Source {
	var out []data.Source
	for _, s := range list {
		out = append(out, data.Source{Name: s.Name, Files: s.Files, Format: data.Format(s.Format), Columns: s.Columns, Replace: s.Replace,
			System: s.System, Weight: s.Weight, MaxRows: s.MaxRows})
	}
	return out
}

func (t *Trainer) dataOptions() data.Options {
	d := t.rec.Data
	o := data.Options{Use: data.UseSFT, TrainOn: data.TrainOn(d.TrainOn), MaxTokens: d.MaxTokens, TooLong: data.TooLong(d.TooLong),
		BadRows: data.BadRows(d.BadRows), Dedup: d.Dedup}
	if t.pretrain {
		o.Use = data.UsePretrain
	}
	if len(d.Eval) > 0 {
		o.Eval.Sources = sources(d.Eval)
	} else {
		o.Eval.Fraction = d.HeldOut
	}
	return o
}

// loadModel reads the model or makes a new one.
func (t *Trainer) loadModel() error {
	opt := model.Options{Head: model.CausalLM, Train: true, Seed: t.rec.Seed, Frozen: t.frozen}
	for _, p := range t.rec.Model.Freeze {
		if _, err := path.Match(p, "x"); err != nil {
			return fmt.Errorf("model.freeze: %q: %w", p, err)
		}
	}
	var err error
	if t.rec.Model.New != nil {
		var c *model.Config
		if c, err = t.rec.Model.New.config(t.text.Tokenizer.Size()); err != nil {
			return fmt.Errorf("model.new: %w", err)
		}
		t.model, err = model.New(c, t.dev, opt)
	} else {
		t.model, err = model.Load(t.rec.Model.Path, t.dev, opt)
	}
	if err != nil {
		return err
	}
	for _, pattern := range t.rec.Model.Freeze {
		names := t.model.Store.Layout.Entries
		if !slices.ContainsFunc(names, func(e shard.Entry) bool { ok, _ := path.Match(pattern, e.Name); return ok }) {
			return fmt.Errorf("model.freeze: no parameter is called %q; the first are %s, %s", pattern, names[0].Name, names[1].Name)
		}
	}
	c := t.model.Config
	if n := t.text.Tokenizer.Size(); n > c.Vocab {
		return fmt.Errorf("%s: the tokenizer has %d tokens, the model's embedding only %d rows; take the model's own tokenizer", t.rec.Model.Path, n, c.Vocab)
	}
	if t.rec.Model.Dtype != "" {
		if err := c.SetDtype(t.rec.Model.Dtype); err != nil {
			return fmt.Errorf("model.dtype: %w", err)
		}
	}
	if _, trained := t.model.Store.Params(); trained == 0 {
		return errors.New("model.freeze: nothing is left to train")
	}
	if t.rec.Data.MaxTokens > c.MaxPositions {
		return fmt.Errorf("data.max_tokens %d is more than the model's context of %d (max_position_embeddings)", t.rec.Data.MaxTokens, c.MaxPositions)
	}
	bos, pad := c.BOS, c.PAD
	if id, ok := t.text.Tokenizer.BOS(); ok {
		bos = int(id)
	}
	if id, ok := t.text.Tokenizer.PAD(); ok {
		pad = int(id)
	}
	eos := slices.Clone(c.EOS)
	for _, id := range t.text.StopIDs() { // what was trained to end a turn must end it everywhere
		if !slices.Contains(eos, int(id)) {
			eos = append(eos, int(id))
		}
	}
	c.SetTokens(bos, pad, eos)
	return nil
}

// frozen tells whether a pattern of model.freeze names a parameter.
func (t *Trainer) frozen(name string) bool {
	for _, p := range t.rec.Model.Freeze {
		if ok, _ := path.Match(p, name); ok {
			return true
		}
	}
	return false
}

// config is the new model's configuration for a vocabulary.
func (n *NewModel) config(vocab int) (*model.Config, error) {
	kv, mlp := n.KVHeads, n.MLP
	if kv == 0 {
		kv = n.Heads
	}
	if mlp == 0 {
		mlp = roundUp(n.Hidden*8/3, 32)
	}
	if n.Hidden%n.Heads != 0 {
		return nil, fmt.Errorf("hidden_size %d is not a multiple of num_attention_heads %d", n.Hidden, n.Heads)
	}
	text, err := json.Marshal(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "vocab_size": vocab, "hidden_size": n.Hidden,
		"num_hidden_layers": n.Layers, "num_attention_heads": n.Heads, "num_key_value_heads": kv, "head_dim": n.Hidden / n.Heads,
		"intermediate_size": mlp, "max_position_embeddings": n.Context, "rms_norm_eps": n.NormEps, "hidden_act": "silu",
		"initializer_range": n.InitStd, "tie_word_embeddings": n.Tied, "attention_bias": false, "mlp_bias": false,
		"rope_theta": n.RopeTheta, "use_cache": true, "dtype": "float32"})
	if err != nil {
		return nil, err
	}
	return model.ParseConfig(text)
}

// count writes a number of parameters for people.
func count(n int) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2fB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0fK", float64(n)/1e3)
	}
	return fmt.Sprint(n)
}

// skipped says how many rows are not used and why, "" if all are.
func skipped(s *data.SourceStats) string {
	var parts []string
	for reason, tally := range s.Skipped {
		part := fmt.Sprintf("%d rows (%s)", tally.Count, reason)
		if len(tally.Examples) > 0 {
			part = fmt.Sprintf("%d rows (%s, first %s)", tally.Count, reason, tally.Examples[0])
		}
		parts = append(parts, part)
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// skippedIn is skipped in parentheses, where there is anything to say.
func skippedIn(s *data.SourceStats) string {
	if text := skipped(s); text != "" {
		return " (" + text + ")"
	}
	return ""
}
