package engine

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"ringtail/autograd"
	"ringtail/golden"
	"ringtail/model"
	"ringtail/safetensors"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
	"ringtail/tensor/ref"
)

func goldenModels(t *testing.T) []string {
	t.Helper()
	list := golden.Find(t, "models/*/io.safetensors")
	for i := range list {
		list[i] = filepath.Dir(list[i])
	}
	return list
}

// ints reads an I64 tensor as rows.
func ints(t *testing.T, f *safetensors.File, name string) [][]int32 {
	x, ok := f.Tensor(name)
	if !ok {
		return nil
	}
	cols := x.Shape[len(x.Shape)-1]
	var rows [][]int32
	for at := 0; at < len(x.Data); at += 8 * cols {
		row := make([]int32, cols)
		for i := range row {
			for b := 3; b >= 0; b-- {
				row[i] = row[i]<<8 | int32(x.Data[at+8*i+b])
			}
		}
		rows = append(rows, row)
	}
	return rows
}

type greedyCase struct{ prompt, want []int32 }

func greedyCases(t *testing.T, dir string) []greedyCase {
	f, err := safetensors.Open(filepath.Join(dir, "io.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ids, mask := ints(t, f, "input_ids"), ints(t, f, "attention_mask")
	var out []greedyCase
	for r := range ids {
		name := "greedy_" + string(rune('0'+r))
		want := ints(t, f, name)
		if want == nil {
			continue
		}
		var c greedyCase
		for i, id := range ids[r] {
			if mask[r][i] != 0 {
				c.prompt = append(c.prompt, id)
			}
		}
		c.want = want[0]
		out = append(out, c)
	}
	return out
}

func testDevices() map[string]func() tensor.Device {
	return map[string]func() tensor.Device{
		"ref": func() tensor.Device { return ref.New() },
		"cpu": func() tensor.Device { return cpu.New() },
	}
}

func TestGoldenGreedy(t *testing.T) {
	for _, dir := range goldenModels(t) {
		for name, open := range testDevices() {
			t.Run(filepath.Base(dir)+"/"+name, func(t *testing.T) {
				m, err := model.Load(dir, open(), model.Options{})
				var unknown *model.UnknownArchitectureError
				if errors.As(err, &unknown) {
					t.Skipf("family %s is not known to this version", unknown.Name)
				}
				if err != nil {
					t.Fatal(err)
				}
				defer m.Free()
				cases := greedyCases(t, dir)
				if name == "cpu" { // the reference device takes seconds for this
					t.Run("uncached", func(t *testing.T) {
						for _, c := range cases {
							if got := greedyWithoutCache(t, m, c.prompt, len(c.want)); !slices.Equal(got, c.want) {
								t.Errorf("got %v, want %v", got, c.want)
							}
						}
					})
				}
				t.Run("alone", func(t *testing.T) {
					for _, c := range cases {
						if got := generate(t, m, Options{Slots: 1, Capacity: 64}, []greedyCase{c}, Settings{IgnoreEOS: true}); !slices.Equal(got[0], c.want) {
							t.Errorf("got %v, want %v", got[0], c.want)
						}
					}
				})
				t.Run("batched", func(t *testing.T) {
					for i, got := range generate(t, m, Options{Slots: 4, Capacity: 64, Chunk: 7}, cases, Settings{IgnoreEOS: true}) {
						if !slices.Equal(got, cases[i].want) {
							t.Errorf("row %d: got %v, want %v", i, got, cases[i].want)
						}
					}
				})
			})
		}
	}
}

// generate runs prompts together and returns what each made, want tokens long.
func generate(t *testing.T, m *model.Model, opt Options, cases []greedyCase, s Settings) [][]int32 {
	t.Helper()
	e, err := New(m, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	out := make([][]int32, len(cases))
	for i, c := range cases {
		s := s
		s.MaxTokens = len(c.want)
		if _, err := e.Submit(c.prompt, s, func(ev Event) { out[i] = append(out[i], ev.ID) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Run(); err != nil {
		t.Fatal(err)
	}
	return out
}

// greedyWithoutCache computes the whole sequence anew for each token.
func greedyWithoutCache(t *testing.T, m *model.Model, prompt []int32, n int) []int32 {
	dev := m.Device()
	ids := slices.Clone(prompt)
	for range n {
		var buffers []*tensor.Buffer
		put := func(v []int32) tensor.Tensor {
			x, b, err := tensor.New(dev, tensor.I32, len(v))
			if err != nil {
				t.Fatal(err)
			}
			buffers = append(buffers, b)
			tensor.SetInt32(x, v)
			return x
		}
		pos := make([]int32, len(ids))
		for i := range pos {
			pos[i] = int32(i)
		}
		tape := autograd.NewTape(dev)
		h, err := m.Hidden(tape, model.Inputs{IDs: tape.Input("ids", put(ids)), Positions: tape.Input("positions", put(pos)),
			Starts: tape.Input("starts", put([]int32{0, int32(len(ids))})), Longest: len(ids)})
		if err != nil {
			t.Fatal(err)
		}
		last := tape.Gather(h, tape.Input("rows", put([]int32{int32(len(ids) - 1)})))
		logits := tape.Output(m.Logits(tape, last))
		arena := autograd.NewArena(dev)
		p, err := tape.Compile(arena, autograd.Options{})
		if err != nil {
			t.Fatal(err)
		}
		p.Forward()
		best, at := -1e30, int32(0)
		for i, v := range tensor.GetFloat64(logits.Value()) {
			if v > best && !slices.Contains(m.Config.EOS, i) {
				best, at = v, int32(i)
			}
		}
		ids = append(ids, at)
		arena.Free()
		for _, b := range buffers {
			b.Free()
		}
	}
	return ids[len(prompt):]
}
