// Command ringtail of the oracle does for the scripts beside it what a user's commands
// don't: it writes models with random weights, copies them, and prints logits.
//
//	ringtail new CONFIG.json DIR [scalar]   a model of that configuration, with random weights
//	ringtail copy FROM DIR                  what is at FROM, loaded and saved
//	ringtail logits FROM < IDS.json         [rows of logits] for a list of token ids
//	ringtail router FROM < IDS.json         the load-balancing loss of a mixture of experts
package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"

	"ringtail/autograd"
	"ringtail/model"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) >= 3 && args[0] == "new":
		return create(args[1], args[2], slices.Contains(args[3:], "scalar"))
	case len(args) == 3 && args[0] == "copy":
		m, err := model.Load(args[1], cpu.New(), model.Options{})
		if err != nil {
			return err
		}
		defer m.Free()
		return save(m, args[2])
	case len(args) == 2 && (args[0] == "logits" || args[0] == "router"):
		return forward(args[1], args[0] == "router")
	}
	return fmt.Errorf("usage: ringtail new CONFIG.json DIR [scalar] | copy FROM DIR | logits FROM | router FROM")
}

func save(m *model.Model, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return m.Save(dir)
}

func create(config, dir string, scalar bool) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	c, err := model.ParseConfig(text)
	if err != nil {
		return err
	}
	opt := model.Options{Head: model.CausalLM, Seed: 1}
	if scalar {
		opt.Head = model.ScalarHead
	}
	m, err := model.New(c, cpu.New(), opt)
	if err != nil {
		return err
	}
	defer m.Free()
	// Norms and biases too, which begin as ones and zeros.
	r := rand.New(rand.NewPCG(7, 7))
	for _, e := range m.Store.Layout.Entries {
		v := tensor.GetFloat64(m.Store.Param(e.Name).Value)
		for i := range v {
			if len(e.Shape) == 1 {
				v[i] += 0.2 * r.NormFloat64()
			} else {
				v[i] *= 3
			}
		}
		tensor.SetFloat64(m.Store.Param(e.Name).Value, v)
	}
	return save(m, dir)
}

func forward(from string, router bool) error {
	var ids []int32
	if err := json.NewDecoder(os.Stdin).Decode(&ids); err != nil {
		return err
	}
	dev := cpu.New()
	m, err := model.Load(from, dev, model.Options{})
	if err != nil {
		return err
	}
	defer m.Free()
	positions := make([]int32, len(ids))
	for i := range positions {
		positions[i] = int32(i)
	}
	tape := autograd.NewTape(dev)
	in := model.Inputs{Longest: len(ids)}
	for _, x := range []struct {
		name string
		to   **autograd.Var
		v    []int32
	}{{"ids", &in.IDs, ids}, {"positions", &in.Positions, positions}, {"starts", &in.Starts, []int32{0, int32(len(ids))}}} {
		t, b, err := tensor.New(dev, tensor.I32, len(x.v))
		if err != nil {
			return err
		}
		defer b.Free()
		tensor.SetInt32(t, x.v)
		*x.to = tape.Input(x.name, t)
	}
	live, b, err := tensor.New(dev, tensor.I32, 1)
	if err != nil {
		return err
	}
	defer b.Free()
	tensor.SetInt32(live, []int32{int32(len(ids))})
	loss, b2, err := tensor.New(dev, tensor.F64, 1)
	if err != nil {
		return err
	}
	defer b2.Free()
	scale, b3, err := tensor.New(dev, dev.Float().Wide(), 1)
	if err != nil {
		return err
	}
	defer b3.Free()
	if router {
		in.Router = &model.RouterLoss{Coef: 1, Live: tape.Input("live", live), Loss: loss, Scale: scale}
	}
	h, err := m.Hidden(tape, in)
	if err != nil {
		return err
	}
	out := tape.Output(m.Logits(tape, h))
	arena := autograd.NewArena(dev)
	defer arena.Free()
	p, err := tape.Compile(arena, autograd.Options{})
	if err != nil {
		return err
	}
	p.Forward()
	if router {
		return json.NewEncoder(os.Stdout).Encode(tensor.GetFloat64(loss)[0] / float64(len(ids)))
	}
	flat := tensor.GetFloat64(out.Value())
	return json.NewEncoder(os.Stdout).Encode(slices.Collect(slices.Chunk(flat, out.Cols())))
}
