package model

import (
	"fmt"
	"strings"

	"ringtail/gguf"
)

// What GGUF calls tensors and how it lays them out, for every family by one table:
// the roles of package model's own table of names (families.go) have the same name
// in all of GGUF's architectures. Sources: llama.cpp's converters and the
// constants of the Python package gguf.

// ggufArchitectures are the families that GGUF has an architecture for.
var ggufArchitectures = map[string]string{
	"llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "qwen3moe": "qwen3moe",
	"gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3", "phi3": "phi3", "gpt2": "gpt2", "gptneox": "gptneox", "bloom": "bloom",
}

// ggufRole is a tensor, or a kind of tensors of all layers, in both worlds.
type ggufRole struct {
	hf, gguf string // without suffix; %d is the layer, in hf a second one the expert
	// rotated: rows of a head lie so that the two columns that rotate together are
	// neighbours, not half a head apart (architecture llama).
	rotated func(c *Config) int // heads
	// stacked: one tensor holds all experts.
	stacked bool
	// norm: the weights are a norm's.
	norm bool
}

// ggufRoles of a family, from its names.
func ggufRoles(fam string) []ggufRole {
	n := families[fam].names
	heads, kvHeads := func(c *Config) int { return c.Heads }, func(c *Config) int { return c.KVHeads }
	if ggufArchitectures[fam] != "llama" {
		heads, kvHeads = nil, nil
	}
	var out []ggufRole
	for _, r := range []ggufRole{
		{hf: n.embed, gguf: "token_embd"}, {hf: n.position, gguf: "position_embd"}, {hf: n.embedNorm, gguf: "token_embd_norm", norm: true},
		{hf: n.norm, gguf: "output_norm", norm: true}, {hf: n.head, gguf: "output"},
		{hf: n.attnNorm, gguf: "blk.%d.attn_norm", norm: true}, {hf: n.attnPost, gguf: "blk.%d.post_attention_norm", norm: true},
		{hf: n.mlpNorm, gguf: "blk.%d.ffn_norm", norm: true}, {hf: n.mlpPost, gguf: "blk.%d.post_ffw_norm", norm: true},
		{hf: n.q, gguf: "blk.%d.attn_q", rotated: heads}, {hf: n.k, gguf: "blk.%d.attn_k", rotated: kvHeads}, {hf: n.v, gguf: "blk.%d.attn_v"},
		{hf: n.qkv, gguf: "blk.%d.attn_qkv"}, {hf: n.o, gguf: "blk.%d.attn_output"},
		{hf: n.qNorm, gguf: "blk.%d.attn_q_norm", norm: true}, {hf: n.kNorm, gguf: "blk.%d.attn_k_norm", norm: true},
		{hf: n.gate, gguf: "blk.%d.ffn_gate"}, {hf: n.up, gguf: "blk.%d.ffn_up"}, {hf: n.gateUp, gguf: "blk.%d.ffn_up"}, {hf: n.down, gguf: "blk.%d.ffn_down"},
		{hf: n.router, gguf: "blk.%d.ffn_gate_inp"}, {hf: n.expertGate, gguf: "blk.%d.ffn_gate_exps", stacked: true},
		{hf: n.expertUp, gguf: "blk.%d.ffn_up_exps", stacked: true}, {hf: n.expertDown, gguf: "blk.%d.ffn_down_exps", stacked: true},
	} {
		if r.hf != "" {
			out = append(out, r)
		}
	}
	return out
}

// ggufPlace is where GGUF keeps a tensor of a model.
type ggufPlace struct {
	name   string
	role   ggufRole
	expert int
	bias   bool
}

// ggufPlaces finds the place of tensors by their names in folders.
type ggufPlaces struct {
	c     *Config
	roles []ggufRole
}

func (c *Config) ggufPlaces() ggufPlaces { return ggufPlaces{c, ggufRoles(c.family())} }

// find takes a stored name, with its suffix, apart.
func (p ggufPlaces) find(name string) (ggufPlace, bool) {
	base, bias := strings.CutSuffix(name, ".bias")
	suffix := ".bias"
	if !bias {
		base, suffix = strings.TrimSuffix(name, ".weight"), ".weight"
	}
	for _, r := range p.roles {
		layer, expert, ok := matchName(r.hf, base)
		if !ok {
			continue
		}
		to := r.gguf
		if strings.Contains(to, "%d") {
			to = fmt.Sprintf(to, layer)
		}
		return ggufPlace{to + suffix, r, expert, bias}, true
	}
	return ggufPlace{}, false
}

// matchName compares a name with a pattern, whose %d stand for layer and expert.
func matchName(pattern, name string) (layer, expert int, ok bool) {
	numbers := [2]*int{&layer, &expert}
	for i := 0; ; i++ {
		before, after, found := strings.Cut(pattern, "%d")
		if !found {
			return layer, expert, name == pattern
		}
		rest, ok := strings.CutPrefix(name, before)
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		if !ok || i == len(numbers) || digits == 0 || digits > 6 {
			return 0, 0, false
		}
		for _, d := range rest[:digits] {
			*numbers[i] = *numbers[i]*10 + int(d-'0')
		}
		pattern, name = after, rest[digits:]
	}
}

// rotatedRow is the row of GGUF's matrix that holds row r of a folder's: within a
// head of dim rows, (half, i) became (i, half).
func rotatedRow(r, dim int) int {
	head, at := r/dim*dim, r%dim
	return head + at%(dim/2)*2 + at/(dim/2)
}

// ggufRow is rotatedRow's inverse.
func ggufRow(r, dim int) int {
	head, at := r/dim*dim, r%dim
	return head + at%2*(dim/2) + at/2
}

// ggufType is what a tensor is written as, when most are written as kind: vectors,
// positions and routers stay F32, as llama.cpp wants them; rows that are no whole
// blocks become F16; and the output projection, whose errors nothing after it
// evens out, has 8 bits where others have 4 (llama.cpp gives it 6).
func ggufType(kind gguf.Type, name string, shape []int, tied bool) gguf.Type {
	row := shape[len(shape)-1]
	elements, _ := kind.Block()
	switch {
	case len(shape) < 2, name == "position_embd.weight", strings.HasSuffix(name, "ffn_gate_inp.weight"):
		return gguf.F32
	case row%elements != 0:
		return gguf.F16
	case kind == gguf.Q4_0 && (name == "output.weight" || tied && name == "token_embd.weight"):
		return gguf.Q8_0
	}
	return kind
}
