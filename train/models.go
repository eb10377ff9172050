package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"ringtail/atomicfile"
	"ringtail/folder"
	"ringtail/model"
	"ringtail/shard"
	"ringtail/tensor"
	"ringtail/tokenizer"
)

// open reads the model or makes a new one, to be trained with a head, its numbers
// kept as numbers says.
func (r *Model) open(dev tensor.Device, text *folder.Text, opt model.Options, gradients, state string, once bool) (*model.Model, error) {
	opt.Train, opt.Frozen = true, r.frozen
	if err := numbers(&opt, dev, gradients, state, once); err != nil {
		return nil, err
	}
	for _, p := range r.Freeze {
		if _, err := path.Match(p, "x"); err != nil {
			return nil, fmt.Errorf("model.freeze: %q: %w", p, err)
		}
	}
	if r.adds() {
		opt.Vocab = text.Tokenizer.Size()
	}
	var m *model.Model
	var err error
	if r.New != nil {
		var c *model.Config
		if c, err = r.New.config(text.Tokenizer.Size()); err != nil {
			return nil, fmt.Errorf("model.new: %w", err)
		}
		m, err = model.New(c, dev, opt)
	} else {
		m, err = model.Load(r.Path, dev, opt)
	}
	if err != nil {
		return nil, err
	}
	if err := r.fit(m, text); err != nil {
		m.Free()
		return nil, err
	}
	setTokens(m.Config, text)
	return m, nil
}

// adds tells whether the recipe adds tokens.
func (r *Model) adds() bool { return len(r.Tokens) > 0 || r.Pad != "" }

// text opens the tokenizer, of the model or of from, with the tokens that the recipe
// adds, and the template: markers that are added choose it as those of the model do.
func (r *Model) text(from, template string) (*folder.Text, error) {
	if !r.adds() {
		return folder.Open(r.Path, from, template)
	}
	if from == "" {
		from = r.Path
	}
	tok, err := folder.OpenTokenizer(from)
	if err != nil {
		return nil, err
	}
	tokens := r.Tokens
	if r.Pad != "" {
		tok.Config().PAD = r.Pad
		tokens = append(slices.Clone(tokens), r.Pad)
	}
	for _, s := range tokens {
		if id, ok := tok.ID(s); ok && tok.IsSpecial(id) {
			continue // it is there
		}
		if _, err := tok.AddTokens(tokenizer.AddedToken{Content: s, Special: true}); err != nil {
			return nil, fmt.Errorf("model.add_tokens: %w", err)
		}
	}
	return folder.New(tok, template)
}

// fit checks a model against what the recipe says of it.
func (r *Model) fit(m *model.Model, text *folder.Text) error {
	for _, pattern := range r.Freeze {
		names := m.Store.Layout.Entries
		if !slices.ContainsFunc(names, func(e shard.Entry) bool { ok, _ := path.Match(pattern, e.Name); return ok }) {
			return fmt.Errorf("model.freeze: no parameter is called %q; the first are %s, %s", pattern, names[0].Name, names[1].Name)
		}
	}
	if err := fitsVocabulary(r.Path, m.Config, text); err != nil {
		return err
	}
	if r.Dtype != "" {
		if err := m.Config.SetDtype(r.Dtype); err != nil {
			return fmt.Errorf("model.dtype: %w", err)
		}
	}
	if _, trained := m.Store.Params(); trained == 0 {
		return errors.New("model.freeze: nothing is left to train")
	}
	return nil
}

// fitsVocabulary refuses a tokenizer with more tokens than a model has rows for.
func fitsVocabulary(where string, c *model.Config, text *folder.Text) error {
	if n := text.Tokenizer.Size(); n > c.Vocab {
		return fmt.Errorf("%s: the tokenizer has %d tokens, the model's embedding only %d rows; take the model's own tokenizer", where, n, c.Vocab)
	}
	return nil
}

// fitsContext refuses rows longer than a model's context.
func fitsContext(key string, tokens int, c *model.Config) error {
	if tokens > c.MaxPositions {
		return fmt.Errorf("%s %d is more than the model's context of %d (max_position_embeddings)", key, tokens, c.MaxPositions)
	}
	return nil
}

// setTokens gives a model the special tokens of its tokenizer: what was trained to
// end a turn must end it everywhere.
func setTokens(c *model.Config, text *folder.Text) {
	bos, pad := c.BOS, c.PAD
	if id, ok := text.Tokenizer.BOS(); ok {
		bos = int(id)
	}
	if id, ok := text.Tokenizer.PAD(); ok {
		pad = int(id)
	}
	eos := slices.Clone(c.EOS)
	for _, id := range text.StopIDs() {
		if !slices.Contains(eos, int(id)) {
			eos = append(eos, int(id))
		}
	}
	c.SetTokens(bos, pad, eos)
}

// frozen tells whether a pattern of model.freeze names a parameter.
func (r *Model) frozen(name string) bool {
	for _, p := range r.Freeze {
		if ok, _ := path.Match(p, name); ok {
			return true
		}
	}
	return false
}

// label is what run.json calls the model.
func (r *Model) label() string {
	if r.Path == "" {
		return "new model"
	}
	return r.Path
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

// exportModel writes a model with its tokenizer and template into a folder of the
// run, complete or not at all.
func exportModel(m *model.Model, text *folder.Text, run, name string) error {
	d, err := atomicfile.NewDir(filepath.Join(run, name))
	if err != nil {
		return err
	}
	defer d.Abort()
	if err := m.Save(d.Path()); err != nil {
		return err
	}
	if err := text.Save(d.Path()); err != nil {
		return err
	}
	return d.CommitReplace()
}
