package train

import (
	"encoding/json"

	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ringtail/data"
	"ringtail/safetensors"
	"ringtail/tensor/cpu"
)

// someExperience is a small rollout, every part of which has values of its own.
func someExperience() *experience {
	x := newExperience([]answer{
		{ids: []int32{1, 2, 3, 4}, prompt: 2, logProbs: []float32{-0.5, -1.25}, finished: true},
		{ids: []int32{7, 9}, prompt: 1, logProbs: []float32{-3}, finished: true, empty: true},
		{ids: []int32{5, 5, 5, 5, 6}, prompt: 2, logProbs: []float32{-1, -2, -0.125}},
	})
	for i := range x.logProbs {
		f := float32(i)
		x.refLogProbs[i], x.values[i], x.advantages[i], x.returns[i] = -f, f/3, 1-f, f*f
	}
	for i := range x.scores {
		x.scores[i] = float32(i) - 0.5
	}
	return x
}

func TestExperienceRoundTrip(t *testing.T) {
	dir := t.TempDir()
	if x, err := readExperience(dir); x != nil || err != nil {
		t.Errorf("of an empty folder: %v, %v", x, err)
	}
	want := someExperience()
	if err := want.write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := readExperience(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestExperienceDamaged: whatever is wrong with the file is said in a line that names it.
func TestExperienceDamaged(t *testing.T) {
	whole := t.TempDir()
	if err := someExperience().write(whole); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(whole, experienceFile))
	if err != nil {
		t.Fatal(err)
	}
	rewrite := func(change func(parts map[string]*safetensors.Tensor)) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			parts, list := map[string]*safetensors.Tensor{}, readTensors(t, filepath.Join(whole, experienceFile))
			for i := range list {
				parts[list[i].Name] = &list[i]
			}
			change(parts)
			writeTensors(t, path, slices.DeleteFunc(list, func(x safetensors.Tensor) bool { return parts[x.Name] == nil }))
		}
	}
	ints := func(name string, v ...int32) func(t *testing.T, path string) {
		return rewrite(func(parts map[string]*safetensors.Tensor) {
			parts[name].Data, parts[name].Shape = littleEndian(v), []int{len(v)}
		})
	}
	for name, damage := range map[string]func(t *testing.T, path string){
		"empty":     func(t *testing.T, path string) { mustWrite(t, path, nil) },
		"cut short": func(t *testing.T, path string) { mustWrite(t, path, text[:len(text)*2/3]) },
		"no header": func(t *testing.T, path string) { mustWrite(t, path, text[:5]) },
		"not this":  func(t *testing.T, path string) { mustWrite(t, path, []byte(strings.Repeat("x", 400))) },
		"without ids": rewrite(func(parts map[string]*safetensors.Tensor) {
			delete(parts, "ids")
		}),
		"without scores": rewrite(func(parts map[string]*safetensors.Tensor) {
			delete(parts, "scores")
		}),
		"values of another length": rewrite(func(parts map[string]*safetensors.Tensor) {
			parts["values"].Data, parts["values"].Shape = parts["values"].Data[:8], []int{2}
		}),
		"ids in float":            rewrite(func(parts map[string]*safetensors.Tensor) { parts["ids"].Dtype = "F32" }),
		"more prompts":            ints("prompts", 2, 1, 2, 1),
		"fewer flags":             ints("flags", 1, 3),
		"lengths beyond the ids":  ints("lengths", 4, 2, 6),
		"ids beyond the lengths":  ints("lengths", 4, 2, 4),
		"a negative length":       ints("lengths", -4, 2, 5),
		"a huge length":           ints("lengths", 2147483647, 2, 5),
		"a prompt without tokens": ints("prompts", 0, 1, 4), // as many answers' tokens
		"no answer has the last id": rewrite(func(parts map[string]*safetensors.Tensor) {
			parts["lengths"].Data, parts["prompts"].Data = littleEndian([]int32{3, 2, 5}), littleEndian([]int32{1, 1, 2})
		}),
		"a negative prompt":        ints("prompts", -1, 1, 2),
		"an answer without tokens": ints("prompts", 4, 1, 2),
		"unknown flags":            ints("flags", 1, 3, 8),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, experienceFile)
			damage(t, path)
			x, err := readExperience(dir)
			if err == nil {
				t.Fatalf("read as %+v", x)
			}
			inALine(t, err, path)
		})
	}
}

func mustWrite(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o666); err != nil {
		t.Fatal(err)
	}
}

// inALine wants an error of at most two lines that holds words.
func inALine(t testing.TB, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if strings.Count(err.Error(), "\n") > 1 || len(err.Error()) > 700 || strings.Contains(err.Error(), "%!") {
		t.Errorf("%q is more than a line or two", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

// TestRestoreRefuses: a checkpoint whose experience isn't one of this run, and a position that no
// run of this recipe can have.
func TestRestoreRefuses(t *testing.T) {
	p := testPPO(t, cpu.New(), "ppo.minibatches=2", "ppo.epochs=2")
	mustStep(t, p, 0)
	dir := t.TempDir()
	kept, err := p.save(dir)
	if err != nil {
		t.Fatal(err)
	}
	state, err := json.Marshal(kept)
	if err != nil {
		t.Fatal(err)
	}
	fresh := func() *ppo { return testPPO(t, cpu.New(), "ppo.minibatches=2", "ppo.epochs=2") }
	if err := fresh().restore(dir, state); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(s *ppoState){
		"all steps used":      func(s *ppoState) { s.Used = 4 },
		"more than all":       func(s *ppoState) { s.Used = 99 },
		"negative":            func(s *ppoState) { s.Used = -1 },
		"none used":           func(s *ppoState) { s.Used = 0 },
		"no rollout":          func(s *ppoState) { s.Rollouts = 0 },
		"negative rollouts":   func(s *ppoState) { s.Rollouts = -3 },
		"negative coef":       func(s *ppoState) { s.KLCoef = -1 },
		"negative updates":    func(s *ppoState) { s.ActorUpdates = -1 },
		"prompts of another":  func(s *ppoState) { s.Prompts.Fingerprint = "x" },
		"damaged position":    func(s *ppoState) { s.Prompts.Drawn++ },
		"no prompts position": func(s *ppoState) { s.Prompts = data.State{} },
	} {
		t.Run(name, func(t *testing.T) {
			s := kept.(ppoState)
			change(&s)
			text, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			inALine(t, fresh().restore(dir, text))
		})
	}
	original := p.rollout
	for name, change := range map[string]func(x *experience){
		"a token beyond the vocabulary": func(x *experience) { x.answers[3].ids[0] = 300 },
		"a negative token":              func(x *experience) { x.answers[3].ids[0] = -2 },
		"fewer answers":                 func(x *experience) { *x = *someExperience() },
		"an answer too long": func(x *experience) {
			a := &x.answers[0]
			a.ids = append(make([]int32, 200), a.ids...)
			a.prompt += 200
		},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := readExperience(dir)
			if err != nil {
				t.Fatal(err)
			}
			change(text)
			other := t.TempDir()
			p.rollout = text
			_, err = p.save(other)
			p.rollout = original
			if err != nil {
				t.Fatal(err)
			}
			inALine(t, fresh().restore(other, state), experienceFile)
		})
	}
	if err := os.Remove(filepath.Join(dir, experienceFile)); err != nil {
		t.Fatal(err)
	}
	inALine(t, fresh().restore(dir, state), experienceFile)
}
