package main

import (
	"fmt"
	"strconv"
	"strings"

	"ringtail/engine"
	"ringtail/tensor/cpu"
)

// modelFlags name a model, the same way in every command.
type modelFlags struct {
	Model    string `required:"" placeholder:"DIR|FILE|ORG/NAME" help:"Model folder, GGUF file, or ORG/NAME after ringtail pull"`
	Template string `placeholder:"NAME|FILE" help:"Chat template: a built-in name, a Jinja file or a conversation template of ColossalChat's; default: the model's"`
	Device   string `default:"auto" placeholder:"auto|cpu|cuda:N" help:"Where the model computes; auto: the first GPU, else the CPU"`
	Dtype    string `default:"auto" enum:"auto,f32,bf16" help:"Weights and activations: f32, bf16; auto: bf16 on a GPU"`
}

// sampleFlags say how text is sampled, the same way in every command.
type sampleFlags struct {
	MaxTokens         int      `default:"512" help:"Longest answer in tokens"`
	Temperature       float32  `default:"0.7" help:"0: always the likeliest token"`
	TopK              int      `default:"0" help:"Only the K likeliest tokens; 0: all"`
	TopP              float32  `default:"0.95" help:"Only the likeliest tokens that together have this probability"`
	MinP              float32  `default:"0" help:"Only tokens at least this probable, as a part of the likeliest one's"`
	RepetitionPenalty float32  `default:"1" help:"Above 1: tokens that have occurred become less likely"`
	Stop              []string `sep:"none" placeholder:"TEXT" help:"End the answer at this text (may be given several times)"`
	Seed              *uint64  `placeholder:"N" help:"Seed of the random numbers; default: another one each time"`
	Context           int      `placeholder:"N" help:"Longest prompt and answer together, in tokens; default: the model's, at most 4096"`
	Threads           int      `placeholder:"N" help:"Threads; default: all"`
}

// apply refuses values that have no meaning, before anything large is read, and
// chooses the number of threads.
func (f sampleFlags) apply() error {
	if f.Context < 0 {
		return usagef("--context %d: give a number of tokens", f.Context)
	}
	if err := f.settings(nil).Check(); err != nil {
		return usageError{err}
	}
	return setThreads(f.Threads)
}

func (f sampleFlags) settings(stops []string) engine.Settings {
	return engine.Settings{MaxTokens: f.MaxTokens, Temperature: f.Temperature, TopK: f.TopK, TopP: f.TopP, MinP: f.MinP,
		RepetitionPenalty: f.RepetitionPenalty, Stop: append(append([]string(nil), f.Stop...), stops...), Seed: seedOf(f.Seed)}
}

// memorySize is a number of bytes as people write it: 40GiB, 1.5 GB, 2000000.
type memorySize int

var memoryUnits = []struct {
	name  string
	bytes float64
}{{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40}, {"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12}, {"b", 1}, {"", 1}}

func (m *memorySize) UnmarshalText(text []byte) error {
	s := strings.ToLower(strings.TrimSpace(string(text)))
	for _, u := range memoryUnits {
		number, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if v *= u.bytes; err == nil && v >= 1 && v < 1<<62 {
			*m = memorySize(v)
			return nil
		}
		break
	}
	return fmt.Errorf("%q is no size of memory; write it as 40GiB or 40GB", text)
}

// maxThreads is more than any machine has.
const maxThreads = 1 << 14

// setThreads chooses the number of threads; 0 leaves it as it is.
func setThreads(n int) error {
	if n < 0 || n > maxThreads {
		return usagef("--threads %d is not between 1 and %d", n, maxThreads)
	}
	if n > 0 {
		cpu.SetThreads(n)
	}
	return nil
}
