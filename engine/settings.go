package engine

import (
	"fmt"
	"math"
)

// Settings say how one request is sampled. The zero value is greedy decoding.
type Settings struct {
	MaxTokens         int     // 0: to the context's end
	MinTokens         int     // no end-of-sequence token or stop id before so many
	Temperature       float32 // 0: the largest logit
	TopK              int     // 0: all
	TopP              float32 // 0 or 1: all
	MinP              float32 // 0: all
	RepetitionPenalty float32 // 0 or 1: none
	Stop              []string
	StopIDs           []int32 // end the answer like an end-of-sequence token
	IgnoreEOS         bool    // end-of-sequence tokens are never chosen
	Seed              uint64
	// TemperedLogProbs: log-probabilities of events are those at the sampling
	// temperature, as PPO needs them, still before penalty, bans and cuts.
	TemperedLogProbs bool
}

func (s Settings) penalised() bool { return s.RepetitionPenalty != 0 && s.RepetitionPenalty != 1 }

// Check refuses settings that have no meaning.
func (s Settings) Check() error {
	in := func(name string, v float32, low, high float64) error {
		if !(float64(v) >= low && float64(v) <= high) {
			return fmt.Errorf("%s %g is not between %g and %g", name, v, low, high)
		}
		return nil
	}
	for _, err := range []error{
		in("temperature", s.Temperature, 0, 100),
		in("top_p", s.TopP, 0, 1),
		in("min_p", s.MinP, 0, 1),
		in("repetition_penalty", s.RepetitionPenalty, 0, 100),
		in("top_k", float32(s.TopK), 0, math.MaxInt32),
		in("max_tokens", float32(s.MaxTokens), 0, math.MaxInt32),
		in("min_tokens", float32(s.MinTokens), 0, math.MaxInt32),
	} {
		if err != nil {
			return err
		}
	}
	for _, stop := range s.Stop {
		if stop == "" {
			return fmt.Errorf("an empty stop string")
		}
	}
	return nil
}
