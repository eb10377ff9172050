package runs

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// firstKeys are the keys that stand first in a line, in this order; the others
// follow by name. It is the contract of metrics.jsonl: names are added, never
// changed.
//
//	step       of the optimizer, from 1; 0 for what is measured before training
//	time_s     seconds of training so far, over all sessions
//	tokens     tokens seen so far
//	loss       mean over the trained tokens of the step's global batch
//	lr         learning rate of the step
//	grad_norm  global norm before clipping
//	tok_per_s  tokens a second, of the step
//	mem_gib    memory in use at its peak
//
// then eval/loss, eval/accuracy/SOURCE, ppo/..., time/....
var firstKeys = []string{"time_s", "tokens", "loss", "lr", "grad_norm", "tok_per_s", "mem_gib"}

// keyOrder sorts keys as they stand in a line.
func keyOrder(values map[string]float64) []string {
	var keys []string
	for _, k := range firstKeys {
		if _, ok := values[k]; ok {
			keys = append(keys, k)
		}
	}
	n := len(keys)
	for k := range values {
		if k != "step" && !slices.Contains(firstKeys, k) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys[n:])
	return keys
}

// encodeMetrics gives the line of a step. What is not finite becomes null,
// since JSON has no such numbers.
func encodeMetrics(step int, values map[string]float64) []byte {
	line := strconv.AppendInt([]byte(`{"step":`), int64(step), 10)
	for _, key := range keyOrder(values) {
		line = append(line, ',')
		line = appendJSON(line, key)
		line = append(line, ':')
		line = appendNumber(line, values[key])
	}
	return append(line, "}\n"...)
}

func appendJSON(line []byte, s string) []byte {
	text, _ := json.Marshal(s) // a string never fails
	return append(line, text...)
}

// appendNumber writes a number as short as its precision allows: most metrics
// are float32, and 0.1 says as much as 0.10000000149011612.
func appendNumber(line []byte, v float64) []byte {
	bits := 64
	if float64(float32(v)) == v {
		bits = 32
	}
	switch abs := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return append(line, "null"...)
	case v == math.Trunc(v) && abs < 1<<53: // counts
		return strconv.AppendFloat(line, v, 'f', -1, 64)
	case abs < 1e-4:
		return strconv.AppendFloat(line, v, 'e', -1, bits)
	default:
		return strconv.AppendFloat(line, v, 'g', -1, bits)
	}
}

// Series is one metric over the steps at which it was logged. A value that was
// not finite is NaN.
type Series struct {
	Name   string
	Steps  []int64
	Values []float64
}

// Last is the last value, NaN for an empty series.
func (s *Series) Last() float64 {
	if len(s.Values) == 0 {
		return math.NaN()
	}
	return s.Values[len(s.Values)-1]
}

// ReadMetrics reads metrics.jsonl of a run folder as one series a key, sorted
// as keys are in a line. It may be called
// while the run goes on. Values that are no numbers are left out. A folder
// without the file has no series.
func ReadMetrics(dir string) ([]*Series, error) {
	path := filepath.Join(dir, MetricsFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	byName := map[string]*Series{}
	names := map[string]float64{}
	_, err = scan(f, path, func(line []byte, step int64) error {
		var row map[string]any
		if err := json.Unmarshal(line, &row); err != nil {
			return err
		}
		values := map[string]float64{}
		for key, v := range row {
			switch v := v.(type) {
			case float64:
				values[key] = v
			case nil:
				values[key] = math.NaN()
			}
		}
		delete(values, "step")
		for key, v := range values {
			s := byName[key]
			if s == nil {
				s = &Series{Name: key}
				byName[key] = s
				names[key] = 0
			}
			s.Steps = append(s.Steps, step)
			s.Values = append(s.Values, v)
		}
		return nil
	})
	var all []*Series
	for _, key := range keyOrder(names) {
		all = append(all, byName[key])
	}
	return all, err
}
