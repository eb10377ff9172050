package runs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Sample is an answer of the model at some step, a line of samples.jsonl. The
// same prompt at several steps shows how the model changes.
type Sample struct {
	Step       int      `json:"step"`
	Prompt     string   `json:"prompt"` // what a reader is to see: the last user message, or the text to continue
	Completion string   `json:"completion"`
	Reference  string   `json:"reference,omitempty"` // the answer of the data, if there is one
	Score      *float64 `json:"score,omitempty"`     // reward or grade, if there is one
	Finish     string   `json:"finish,omitempty"`    // "stop" or "length"
}

func encodeSample(s Sample) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the file is data; the report escapes for itself
	if err := e.Encode(s); err != nil {
		return nil, fmt.Errorf("%s: step %d: %w", SamplesFile, s.Step, err)
	}
	return b.Bytes(), nil
}

// ReadSamples reads samples.jsonl of a run folder. It may be called while the
// run goes on. A folder without the file has no samples.
func ReadSamples(dir string) ([]Sample, error) {
	path := filepath.Join(dir, SamplesFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Sample
	_, err = scan(f, path, func(line []byte, _ int64) error {
		var s Sample
		if err := json.Unmarshal(line, &s); err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	return all, err
}
