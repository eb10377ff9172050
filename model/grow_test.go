package model

import (
	"fmt"
	"math"
	"testing"

	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// TestGrowVocab: old rows stay, new ones are their mean, in a folder and on loading;
// a vocabulary that is there already changes nothing.
func TestGrowVocab(t *testing.T) {
	for name, fields := range shapesOfModels {
		for _, head := range []Head{CausalLM, ScalarHead} {
			t.Run(fmt.Sprintf("%s/head %d", name, head), func(t *testing.T) {
				m := newModel(t, cpu.New(), Options{Head: head}, fields)
				from, to, same := t.TempDir(), t.TempDir(), t.TempDir()
				if err := m.Save(from); err != nil {
					t.Fatal(err)
				}
				old := m.Config.Vocab
				if err := GrowVocab(from, to, old+5, func(c *Config) { c.SetTokens(1, old+1, []int{2, old + 4}) }); err != nil {
					t.Fatal(err)
				}
				if err := GrowVocab(from, same, old-3, nil); err != nil {
					t.Fatal(err)
				}
				n := reload(t, to, cpu.New(), Options{})
				if c := n.Config; c.Vocab != old+5 || c.PAD != old+1 || len(c.EOS) != 2 || n.Head != head {
					t.Fatalf("%+v", c)
				}
				compare := func(n *Model, rows int) {
					t.Helper()
					for _, e := range n.Store.Layout.Entries {
						was, is := tensor.GetFloat64(m.Store.Param(e.Name).Value), tensor.GetFloat64(n.Store.Param(e.Name).Value)
						cols := e.Shape[len(e.Shape)-1]
						if len(e.Shape) == 2 && e.Shape[0] == rows && m.Store.Param(e.Name).Shape[0] == old {
							for j := range cols {
								mean := 0.0
								for i := range old {
									mean += was[i*cols+j] / float64(old)
								}
								for i := old; i < rows; i++ {
									if math.Abs(is[i*cols+j]-mean) > 1e-7 {
										t.Fatalf("%s[%d,%d] is %g, the mean %g", e.Name, i, j, is[i*cols+j], mean)
									}
								}
							}
							is = is[:len(was)]
						}
						for i := range was {
							if was[i] != is[i] {
								t.Fatalf("%s[%d] was %g, is %g", e.Name, i, was[i], is[i])
							}
						}
					}
				}
				compare(n, old+5)
				compare(reload(t, from, cpu.New(), Options{Vocab: old + 5}), old+5)
				compare(reload(t, same, cpu.New(), Options{}), old)
			})
		}
	}
}
