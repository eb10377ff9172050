package main

import (
	"encoding/json"
	"fmt"

	"ringtail/bench"
	"ringtail/device"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

// benchSameCmd trains on given batches, for a comparison of losses with
// bench/peers/torch_same.py, which says how.
type benchSameCmd struct {
	Init      string  `placeholder:"DIR" help:"Write --shape with weights from a seed there, and end"`
	Shape     string  `default:"125m" help:"Named shape, for --init"`
	Model     string  `placeholder:"DIR" help:"Model folder to start from"`
	Batches   string  `placeholder:"FILE" help:"Tokens, int32: --batch rows of --seq + 1 a step"`
	Batch     int     `default:"4" help:"Rows of a step"`
	Seq       int     `default:"256" help:"Tokens of a row"`
	Steps     int     `default:"300" help:"Steps"`
	LR        float64 `name:"lr" default:"3e-4" help:"Learning rate after the warm-up"`
	Warmup    int     `default:"30" help:"Steps in which it rises"`
	Device    string  `default:"cpu" placeholder:"cpu|cuda:N" help:"Device"`
	Dtype     string  `default:"auto" enum:"auto,f32,bf16,fp8" help:"Weights and activations: f32, bf16; fp8: bf16, and 8-bit floats in the layers' products"`
	Gradients string  `default:"f32" enum:"f32,bf16" help:"Gradients of weights: f32, bf16"`
	State     string  `default:"f32" enum:"f32,bf16" help:"Master weights and moments: f32; or bf16, without master weights"`
	Fast      bool    `help:"On a GPU: allow what gives other bytes on every run"`
	Threads   int     `placeholder:"N" help:"Threads; default: all"`
}

func (c *benchSameCmd) Run(e *env) error {
	if err := setThreads(c.Threads); err != nil {
		return err
	}
	if c.Init != "" {
		return bench.InitSame(cpu.New(), c.Shape, c.Init)
	}
	if c.Model == "" || c.Batches == "" || c.Batch < 1 || c.Seq < 1 || c.Steps < 1 {
		return usagef("give --init, or --model and --batches")
	}
	dtype := c.Dtype
	if dtype == "fp8" {
		dtype = "bf16"
	}
	dev, _, err := device.Open(c.Device, device.Options{Dtype: dtype, Fast: c.Fast})
	if err != nil {
		return err
	}
	defer device.Close(dev)
	opt := bench.SameOptions{Batch: c.Batch, Seq: c.Seq, Steps: c.Steps, LR: c.LR, Warmup: c.Warmup, Eight: c.Dtype == "fp8"}
	for _, x := range []struct {
		value string
		dst   *tensor.Dtype
	}{{c.Gradients, &opt.Grad}, {c.State, &opt.State}} {
		if x.value != "bf16" {
			continue
		}
		if dev.Float() != tensor.BF16 {
			return fmt.Errorf("bf16 gradients or states need bf16 weights; %s computes in %v", dev.Name(), dev.Float())
		}
		*x.dst = tensor.BF16
	}
	r, err := bench.Same(dev, c.Model, c.Batches, opt)
	if err != nil {
		return err
	}
	return json.NewEncoder(e.stdout).Encode(r)
}
