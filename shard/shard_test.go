package shard

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ringtail/optim"
	"ringtail/tensor"
	"ringtail/tensor/ref"
)

var specs = []Spec{
	{Name: "embed", Shape: []int{10, 6}, Decay: true},
	{Name: "norm", Shape: []int{6}},
	{Name: "q", Shape: []int{4, 6}, Decay: true, Group: "qkv"},
	{Name: "k", Shape: []int{3, 6}, Decay: true, Group: "qkv"},
	{Name: "v", Shape: []int{3, 6}, Decay: true, Group: "qkv"},
	{Name: "o", Shape: []int{6, 4}, Decay: true},
	{Name: "base", Shape: []int{5, 5}, Frozen: true},
	{Name: "head", Shape: []int{10, 6}, Decay: true},
}

func plan(t *testing.T, specs []Spec, chunk int) *Layout {
	t.Helper()
	l, err := Plan(specs, chunk)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestPlan: for any chunk size tensors keep their order, start aligned (groups
// back to back), never overlap or cross a chunk's end, and frozen ones lie apart.
func TestPlan(t *testing.T) {
	for _, chunk := range []int{1, 256, 300, 512, 1000, 1 << 20} {
		testPlan(t, specs, chunk)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		testPlan(t, randomSpecs(r), 1+r.IntN(3000))
	}
}

// randomSpecs has tensors of 0 to 999 elements, frozen ones and groups among them.
func randomSpecs(r *rand.Rand) []Spec {
	var out []Spec
	for group := range 1 + r.IntN(20) {
		s := Spec{Frozen: r.IntN(4) == 0}
		n := 1
		if r.IntN(3) == 0 {
			n = 1 + r.IntN(3)
			s.Group = fmt.Sprint("group ", group)
		}
		for range n {
			s.Name, s.Shape, s.Decay = fmt.Sprint("tensor ", len(out)), []int{r.IntN(100), r.IntN(10)}, r.IntN(2) == 0
			out = append(out, s)
		}
	}
	return out
}

func testPlan(t *testing.T, specs []Spec, chunk int) {
	t.Helper()
	l := plan(t, specs, chunk)
	end := map[int]int{}
	for i, e := range l.Entries {
		if e.Name != specs[i].Name {
			t.Fatalf("entry %d is %s", i, e.Name)
		}
		joined := i > 0 && e.Group != "" && specs[i-1].Group == e.Group
		switch {
		case joined && (e.Chunk != l.Entries[i-1].Chunk || e.Offset != l.Entries[i-1].Offset+l.Entries[i-1].Len()):
			t.Errorf("chunk %d: %s does not follow %s", chunk, e.Name, specs[i-1].Name)
		case !joined && e.Offset%tensor.Align != 0: // also where elements have one byte
			t.Errorf("chunk %d: %s starts at element %d", chunk, e.Name, e.Offset)
		}
		if e.Offset < end[e.Chunk] || e.Offset+e.Len() > l.Chunks[e.Chunk].Len {
			t.Errorf("chunk %d: %s at [%d,%d) of a chunk of %d", chunk, e.Name, e.Offset, e.Offset+e.Len(), l.Chunks[e.Chunk].Len)
		}
		end[e.Chunk] = e.Offset + e.Len()
		if l.Chunks[e.Chunk].Frozen != e.Frozen {
			t.Errorf("chunk %d: %s is in a chunk of the other kind", chunk, e.Name)
		}
		if !slices.ContainsFunc(l.runs(e.Chunk), func(r run) bool {
			return r.from <= e.Offset && e.Offset+e.Len() <= r.to && r.decay == e.Decay
		}) && e.Len() > 0 {
			t.Errorf("chunk %d: no run of %v holds %s", chunk, l.runs(e.Chunk), e.Name)
		}
	}
	for c, cl := range l.Chunks {
		at := 0
		for _, r := range l.runs(c) {
			if r.from != at {
				t.Errorf("run of chunk %d starts at %d, want %d", c, r.from, at)
			}
			at = r.to
		}
		if at != cl.Len {
			t.Errorf("runs of chunk %d end at %d of %d", c, at, cl.Len)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	for want, bad := range map[string][]Spec{
		"listed twice":        {{Name: "a", Shape: []int{2}}, {Name: "a", Shape: []int{2}}},
		"freeze both or none": {{Name: "q", Shape: []int{2, 2}, Group: "g"}, {Name: "k", Shape: []int{2, 2}, Group: "g", Frozen: true}},
	} {
		if _, err := Plan(bad, 10); err == nil || !strings.Contains(err.Error(), strings.Fields(want)[0]) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

func newStore(t *testing.T, chunk int, fill bool) *Store {
	t.Helper()
	s, err := NewStore(ref.New(), plan(t, specs, chunk), Options{Train: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Free)
	if fill {
		r := rand.New(rand.NewPCG(3, 4))
		for _, c := range s.chunks {
			for _, x := range []tensor.Tensor{c.value, c.grad, c.m, c.v} {
				if x.IsZero() {
					continue
				}
				v := make([]float64, x.Len())
				for i := range v {
					v[i] = r.Float64()
				}
				tensor.SetFloat64(x, v)
			}
		}
	}
	return s
}

func TestMerged(t *testing.T) {
	s := newStore(t, 100, true)
	p, err := s.Merged("qkv", nil, "q", "k", "v")
	if err != nil {
		t.Fatal(err)
	}
	var want []float64
	for _, n := range []string{"q", "k", "v"} {
		want = append(want, tensor.GetFloat64(s.Param(n).Value)...)
	}
	if !slices.Equal(p.Shape, []int{10, 6}) || !slices.Equal(tensor.GetFloat64(p.Value), want) {
		t.Errorf("merged %v is not its parts", p.Shape)
	}
	if p.Grad.IsZero() || p.Grad.Addr != s.Param("q").Grad.Addr {
		t.Error("the merged gradient is not a view of the parts'")
	}
	for _, bad := range [][]string{{"q", "v"}, {"o", "head"}, {"q", "none"}, {}} {
		if _, err := s.Merged("x", nil, bad...); err == nil {
			t.Errorf("merging %v succeeded", bad)
		}
	}
	if b := s.Param("base"); b.Trainable() {
		t.Error("a frozen tensor has a gradient")
	}
}

// TestUpdateDoesNotDependOnChunks: the same steps in any division.
func TestUpdateDoesNotDependOnChunks(t *testing.T) {
	var want map[string][]float64
	for _, chunk := range []int{1, 600, 1 << 20} {
		s := newStore(t, chunk, false)
		for i, e := range s.Layout.Entries {
			v := make([]float64, e.Len())
			g := make([]float64, e.Len())
			for j := range v {
				v[j], g[j] = float64(i+j%7)/10, float64(j%5)-float64(i)
			}
			tensor.SetFloat64(s.Param(e.Name).Value, v)
			if p := s.Param(e.Name); p.Trainable() {
				tensor.SetFloat64(p.Grad, g)
			}
		}
		step, b, err := tensor.New(s.dev, tensor.F64, tensor.StepSize)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Free)
		block := make([]float64, tensor.StepSize)
		o := optim.DefaultAdamW()
		block[tensor.StepLR] = 0.1
		block[tensor.StepBias1], block[tensor.StepBias2] = o.Bias(0)
		tensor.SetFloat64(step, block)
		s.GradSumSquares(step.Slice(tensor.StepSumSquares, 1))
		s.dev.Ops().ClipFactor(tensor.ClipFactor{Step: step, MaxNorm: 1})
		s.Update(step, o)
		got := map[string][]float64{"norm of gradients": {tensor.GetFloat64(step)[tensor.StepGradNorm]}}
		for _, e := range s.Layout.Entries {
			got[e.Name] = tensor.GetFloat64(s.Param(e.Name).Value)
		}
		if want == nil {
			want = got
			// norms don't decay: the step is lr against the gradient's sign
			if n := got["norm"][0]; n < 0.1 || n > 0.2 {
				t.Errorf("norm weight %g after one step from 0.1 with lr 0.1", n)
			}
			continue
		}
		for name, v := range want {
			for i := range v {
				if d := v[i] - got[name][i]; d > 1e-12 || d < -1e-12 {
					t.Fatalf("chunks of %d: %s[%d] is %g, want %g", chunk, name, i, got[name][i], v[i])
				}
			}
		}
	}
}

func TestCheckpoint(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, 100, true)
	if err := s.WriteChunks(dir); err != nil {
		t.Fatal(err)
	}
	r := newStore(t, 100, false)
	if err := r.ReadChunks(dir); err != nil {
		t.Fatal(err)
	}
	for i, c := range s.chunks {
		if s.Layout.Chunks[i].Frozen {
			continue
		}
		d := r.chunks[i]
		for _, p := range [][2]tensor.Tensor{{c.value, d.value}, {c.m, d.m}, {c.v, d.v}} {
			if !slices.Equal(tensor.GetFloat64(p[0]), tensor.GetFloat64(p[1])) {
				t.Fatalf("chunk %d differs after reading it back", i)
			}
		}
	}
	t.Run("other layout", func(t *testing.T) {
		o := newStore(t, 1<<20, true)
		keep := tensor.GetFloat64(o.chunks[0].value)
		if err := o.ReadChunks(dir); err == nil || !strings.Contains(err.Error(), "manifest.json") {
			t.Errorf("got %v", err)
		}
		if !slices.Equal(keep, tensor.GetFloat64(o.chunks[0].value)) {
			t.Error("a refused checkpoint changed the weights")
		}
	})
	t.Run("truncated", func(t *testing.T) {
		files, _ := filepath.Glob(filepath.Join(dir, "chunk-*.safetensors"))
		b, err := os.ReadFile(files[len(files)-1])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files[len(files)-1], b[:len(b)-9], 0o666); err != nil {
			t.Fatal(err)
		}
		o := newStore(t, 100, true)
		keep := tensor.GetFloat64(o.chunks[0].value)
		if err := o.ReadChunks(dir); err == nil || !strings.Contains(err.Error(), filepath.Base(files[len(files)-1])) {
			t.Errorf("got %v", err)
		}
		if !slices.Equal(keep, tensor.GetFloat64(o.chunks[0].value)) {
			t.Error("a broken checkpoint changed the weights")
		}
	})
	t.Run("absent", func(t *testing.T) {
		if err := r.ReadChunks(t.TempDir()); err == nil || !strings.Contains(err.Error(), "complete checkpoint") {
			t.Errorf("got %v", err)
		}
	})
}

// TestManifest: a manifest that doesn't describe this store is refused, saying
// what differs.
func TestManifest(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, 100, true)
	if err := s.WriteChunks(dir); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(m *manifest){
		"format 2":                 func(m *manifest) { m.Format = 2 },
		"weights are BF16":         func(m *manifest) { m.Dtype = "BF16" },
		"in 0 chunks":              func(m *manifest) { m.Chunks = nil },
		"0 tensors":                func(m *manifest) { m.Tensors = nil },
		"tensor other":             func(m *manifest) { m.Tensors[1].Name = "other" },
		"tensor embed [6 10]":      func(m *manifest) { m.Tensors[0].Shape = []int{6, 10} },
		"tensor embed [10 6]":      func(m *manifest) { m.Tensors[0].Offset = -1 },
		"chunk 0 is {File:../etc/": func(m *manifest) { m.Chunks[0].File = "../etc/passwd" },
		"chunk 1 is":               func(m *manifest) { m.Chunks[1].Frozen = !m.Chunks[1].Frozen },
	} {
		m := s.manifest()
		change(&m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, manifestFile), b, 0o666); err != nil {
			t.Fatal(err)
		}
		err = s.ReadChunks(dir)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), manifestFile) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// FuzzManifest: no text of a manifest makes ReadChunks panic, or take what isn't
// this store's.
func FuzzManifest(f *testing.F) {
	l, err := Plan(specs, 100)
	if err != nil {
		f.Fatal(err)
	}
	s, err := NewStore(ref.New(), l, Options{Train: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.Free)
	dir := f.TempDir()
	if err := s.WriteChunks(dir); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, manifestFile)
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":1,"dtype":"F64","chunks":[{"file":"/dev/zero","len":-1}],"tensors":[{"shape":[1e99]}]}`))
	f.Add([]byte(`null`))
	var want manifest
	if err := json.Unmarshal(good, &want); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		if s.ReadChunks(dir) != nil {
			return
		}
		var got manifest
		if err := json.Unmarshal(b, &got); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s was read as this store's", b)
		}
	})
}

func TestBytesAParameter(t *testing.T) {
	big := []Spec{{Name: "a", Shape: []int{1000, 64}}, {Name: "b", Shape: []int{1000, 64}, Frozen: true}}
	s, err := NewStore(ref.New(), plan(t, big, DefaultChunk), Options{Train: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Free()
	// The reference device computes in float64: twice the bytes of float32.
	if got, most := s.Bytes(), 2*(16*64000+4*64000); got > most {
		t.Errorf("%d bytes, want at most %d", got, most)
	}
}
