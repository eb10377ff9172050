package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"ringtail/bench"
	"ringtail/device"
	"ringtail/tensor"
	"ringtail/tensor/cpu"
)

type benchCmd struct {
	Gemm benchGemmCmd `cmd:"" help:"Time matrix products"`
	Sft  benchSFTCmd  `cmd:"" help:"Time training steps of named model shapes"`
	Same benchSameCmd `cmd:"" hidden:"" help:"Train on given batches, for a comparison of losses"`

	Alpaca benchAlpacaCmd `cmd:"" help:"Time Alpaca's recipe on a GPU: packed updates of 128 examples of given lengths"`
}

type benchGemmCmd struct {
	Size      []string `arg:"" optional:"" default:"512,1024,2048" placeholder:"SIZE" help:"N for a square product, or MxNxK"`
	Threads   int      `placeholder:"N" help:"Threads; default: all"`
	Rounds    int      `default:"25" help:"Timed products on a CPU"`
	Device    string   `default:"cpu" placeholder:"cpu|cuda:N" help:"Device; on a GPU MxNxK is a linear layer of M tokens, N outputs and K inputs, whose three products in a training step are timed"`
	Dtype     string   `default:"auto" enum:"auto,bf16,f32,tf32,fp8" help:"Operands on a GPU: bf16, f32, tf32, fp8"`
	Sustained float64  `placeholder:"SECONDS" help:"On a GPU: also the rate under a load of so many seconds, after as many to settle"`
	Fast      bool     `default:"true" negatable:"" help:"On a GPU: the fastest of several algorithms"`
	JSON      bool     `help:"Print JSON, an object a line"`
}

// sizes reads the shapes of products.
func (c *benchGemmCmd) sizes() ([][3]int, error) {
	var out [][3]int
	for _, size := range c.Size {
		var d [3]int
		parts := strings.Split(size, "x")
		for i := range d {
			n, err := strconv.Atoi(parts[min(i, len(parts)-1)])
			if err != nil || n < 1 || len(parts) != 1 && len(parts) != 3 {
				return nil, usagef("size %q is neither N nor MxNxK", size)
			}
			d[i] = n
		}
		out = append(out, d)
	}
	return out, nil
}

func (c *benchGemmCmd) Run(e *env) error {
	if err := setThreads(c.Threads); err != nil {
		return err
	}
	sizes, err := c.sizes()
	if err != nil {
		return err
	}
	if c.Device != "cpu" {
		return c.onGPU(e, sizes)
	}
	dev, threads := cpu.New(), cpu.Threads()
	for _, d := range sizes {
		for _, transposed := range []bool{false, true} {
			r, err := bench.GEMM(dev, d[0], d[1], d[2], transposed, threads, max(c.Rounds, 1))
			if err != nil {
				return err
			}
			if err := show(e, c.JSON, r, "%5d x %5d x %5d  %-2s  %d threads  best %7.1f  median %7.1f GFLOP/s\n", r.M, r.N, r.K,
				map[bool]string{false: "NN", true: "NT"}[transposed], threads, r.GFLOPS, r.Median); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *benchGemmCmd) onGPU(e *env, sizes [][3]int) error {
	opt := device.Options{Dtype: c.Dtype, Fast: c.Fast}
	switch c.Dtype {
	case "auto":
		opt.Dtype = "bf16"
	case "tf32":
		opt.Dtype, opt.TF32 = "f32", true
	case "fp8":
		opt.Dtype = "bf16"
	}
	dev, _, err := device.Open(c.Device, opt)
	if err != nil {
		return err
	}
	defer device.Close(dev)
	dtype := c.Dtype
	if dtype == "auto" {
		dtype = "bf16"
	}
	for _, d := range sizes {
		list, err := bench.GPUGEMM(dev, dtype, d[0], d[1], d[2], c.Sustained)
		if err != nil {
			return err
		}
		for _, r := range list {
			r.Device = device.Describe(dev)
			steady := ""
			if r.Sustained > 0 {
				steady = fmt.Sprintf(", sustained %.1f", r.Sustained)
			}
			if err := show(e, c.JSON, r, "%5d x %5d x %5d  %s %s  %.1f TFLOP/s%s\n", r.M, r.N, r.K, r.Layout, r.Dtype, r.Burst, steady); err != nil {
				return err
			}
		}
	}
	return nil
}

type benchSFTCmd struct {
	Shape     []string `arg:"" optional:"" default:"15m" help:"Named shapes"`
	Batch     int      `placeholder:"N" help:"Sequences of a step; default: the shape's"`
	Seq       int      `placeholder:"N" help:"Tokens of a sequence; default: the shape's"`
	Threads   int      `placeholder:"N" help:"Threads; default: all"`
	Rounds    int      `default:"5" help:"Timed steps"`
	Recompute string   `default:"none" enum:"none,selective,full" help:"What isn't kept for the backward pass: none, selective, full"`
	Apart     bool     `help:"Gradients in memory of their own, as with several micro-batches a step"`
	Device    string   `default:"cpu" placeholder:"cpu|cuda:N" help:"Device; on a GPU weights are bfloat16 unless --dtype says f32"`
	Dtype     string   `default:"auto" enum:"auto,f32,bf16,fp8" help:"Weights and activations: f32, bf16; fp8: bf16, and 8-bit floats in the layers' products"`
	State     string   `default:"f32" enum:"f32,bf16" help:"Master weights and moments: f32; or bf16, without master weights"`
	Fast      bool     `default:"true" negatable:"" help:"On a GPU: allow what gives other bytes on every run"`
	Profile   string   `placeholder:"FILE" help:"On a GPU: write a Chrome trace of a step's kernels, and list them"`
	Seconds   float64  `default:"3" help:"On a GPU: least length of each of three windows"`
	JSON      bool     `help:"Print JSON, an object a line"`
}

func (c *benchSFTCmd) Run(e *env) error {
	if err := setThreads(c.Threads); err != nil {
		return err
	}
	if c.Device != "cpu" {
		return c.onGPU(e)
	}
	dev, threads := cpu.New(), cpu.Threads()
	for _, name := range c.Shape {
		r, err := bench.SFT(dev, name, threads, bench.SFTOptions{Batch: c.Batch, Seq: c.Seq, Rounds: c.Rounds, Recompute: c.Recompute, GradsApart: c.Apart})
		if err != nil {
			return err
		}
		if err := show(e, c.JSON, r, "%s: %.0f tokens/s (%d x %d tokens in %.3f s, %d threads, %.0f GFLOP/s, %.2f GiB)\n", r.Model, r.TokPerS,
			r.Batch, r.Seq, r.StepS, threads, r.GFLOPS, r.PeakGiB); err != nil {
			return err
		}
	}
	return nil
}

func (c *benchSFTCmd) onGPU(e *env) error {
	for _, name := range c.Shape {
		dtype, eight := c.Dtype, c.Dtype == "fp8"
		if eight {
			dtype = "bf16"
		}
		dev, _, err := device.Open(c.Device, device.Options{Dtype: dtype, Fast: c.Fast})
		if err != nil {
			return err
		}
		opt := bench.SFTOptions{Batch: c.Batch, Seq: c.Seq, Recompute: c.Recompute, GradsApart: c.Apart, Eight: eight, Mode: fmt.Sprintf("%v weights, %s state", dev.Float(), c.State)}
		if eight {
			opt.Mode = fmt.Sprintf("F8 weights, %s state", c.State)
		}
		if c.State == "bf16" {
			opt.State = tensor.BF16
		}
		if c.Profile != "" {
			f, err := os.Create(c.Profile)
			if err != nil {
				return err
			}
			defer f.Close()
			opt.Trace = f
		}
		r, err := bench.GPUSFT(dev, name, opt, c.Seconds)
		device.Close(dev)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := show(e, c.JSON, r, "%s: %.0f tokens/s, MFU %.1f %% (%d x %d tokens in %.4f s, %s, peak %.2f GiB)\n", r.Model, r.TokPerS,
			100*r.MFU, r.Batch, r.Seq, r.StepS, r.Mode, r.PeakGiB); err != nil {
			return err
		}
		for _, k := range r.Kernels {
			if !c.JSON {
				fmt.Fprintf(e.stdout, "%9.3f ms %5d x %s\n", k.Millis, k.Count, k.Name)
			}
		}
	}
	return nil
}

type benchAlpacaCmd struct {
	Shape   []string `arg:"" optional:"" default:"7b" help:"Named LLaMA shapes"`
	Lengths string   `required:"" placeholder:"FILE" help:"JSON list of examples' lengths in tokens"`
	Updates int      `default:"16" help:"Updates of the list that are used, again and again"`
	Device  string   `default:"cuda" placeholder:"cuda:N" help:"Device"`
	Fast    bool     `default:"true" negatable:"" help:"Allow what gives other bytes on every run"`
	Seconds float64  `default:"10" help:"Least time measured"`
	JSON    bool     `help:"Print JSON, an object a line"`
}

func (c *benchAlpacaCmd) Run(e *env) error {
	for _, name := range c.Shape {
		dev, _, err := device.Open(c.Device, device.Options{Fast: c.Fast})
		if err != nil {
			return err
		}
		r, err := bench.Alpaca(dev, name, c.Lengths, c.Updates, c.Seconds)
		device.Close(dev)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := show(e, c.JSON, r, "%s: %.0f real tokens/s (%d updates of %d examples, %.3f s each, %d layers keep their values, peak %.2f GiB)\n",
			r.Model, r.RealTokPerS, r.Updates, r.Batch, r.StepS, r.KeptLayers, r.PeakGiB); err != nil {
			return err
		}
	}
	return nil
}

// show prints a result as JSON or as a line for people.
func show(e *env, asJSON bool, result any, format string, args ...any) error {
	if asJSON {
		return json.NewEncoder(e.stdout).Encode(result)
	}
	_, err := fmt.Fprintf(e.stdout, format, args...)
	return err
}
