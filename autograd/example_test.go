package autograd_test

import (
	"fmt"
	"strings"

	"ringtail/autograd"
	"ringtail/tensor"
	"ringtail/tensor/ref"
)

func ExampleProgram_Instructions() {
	dev := ref.New()
	zeros := func(shape ...int) tensor.Tensor {
		x, _, err := tensor.New(dev, dev.Float(), shape...)
		if err != nil {
			panic(err)
		}
		return x
	}
	param := func(name string, shape ...int) *autograd.Param {
		return &autograd.Param{Name: name, Shape: shape, Value: zeros(shape...), Grad: zeros(shape...)}
	}
	ids, _, err := tensor.New(dev, tensor.I32, 4)
	if err != nil {
		panic(err)
	}
	table, gateUp, down := param("table", 10, 8), param("gate_up", 16, 8), param("down", 8, 8)

	tape := autograd.NewTape(dev)
	x := tape.Embedding(tape.Input("ids", ids), table)
	var h *autograd.Var
	tape.Checkpoint(func() {
		h = tape.Linear(tape.GLU(tape.Linear(x, gateUp, nil), tensor.SiLU), down, nil)
	})
	y := tape.Output(tape.Add(x, h))
	arena := autograd.NewArena(dev)
	defer arena.Free()
	p, err := tape.Compile(arena, autograd.Options{Train: true, Seeds: map[*autograd.Var]tensor.Tensor{y: zeros(4, 8)}})
	if err != nil {
		panic(err)
	}
	fmt.Println(strings.Join(p.Instructions(), "\n"))
	// Output:
	// forward embedding table: ids -> embedding@512
	// forward linear gate_up: embedding@512 -> linear@0
	// forward glu: linear@0 -> glu@768
	// forward linear down: glu@768 -> linear@1024
	// forward add: embedding@512 linear@1024 -> add@1024
	// backward add: seed -> d embedding@768 d linear@768
	// recompute linear gate_up: embedding@512 -> linear@0
	// recompute glu: linear@0 -> glu@1280
	// backward linear down: glu@1280 d linear@768 -> d glu@1536
	// backward glu: linear@0 d glu@1536 -> d linear@0
	// backward linear gate_up: embedding@512 d linear@0 d embedding@768 -> d embedding@768
	// backward embedding table: ids d embedding@768 ->
}
