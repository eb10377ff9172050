package cuda

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ringtail/tensor"
)

// checkProduct compares a product of random numbers with the reference.
func checkProduct(t *testing.T, d *Device, k int, accumulate bool) {
	t.Helper()
	p := newPairs(t, d)
	a, b, c := p.make(d.Float(), 24, k), p.make(d.Float(), 40, k), p.make(tensor.F32, 24, 40)
	m := tensor.Matmul{TransB: true}
	if accumulate {
		m.Beta = 1
	}
	run := func(ops *tensor.Ops, c, a, b tensor.Tensor) {
		m := m
		m.C, m.A, m.B = c, a, b
		ops.Matmul(m)
	}
	run(d.Ops(), c.dev, a.dev, b.dev)
	run(p.ref.Ops(), c.ref, a.ref, b.ref)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	got, want := tensor.GetFloat64(c.dev), tensor.GetFloat64(c.ref)
	for i := range got {
		if diff := got[i] - want[i]; diff > 1e-3 || diff < -1e-3 {
			t.Fatalf("element %d is %g, expected %g", i, got[i], want[i])
		}
	}
}

// timeAll makes every product worth timing, in a cache of the test's own.
func timeAll(t *testing.T) {
	old := raceLeast
	raceLeast = 0
	t.Cleanup(func() { raceLeast = old })
	if !onGPU() {
		emulated(t) // built in the user's cache
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
}

func TestTimedChoicesAreKept(t *testing.T) {
	timeAll(t)
	first := open(t, Options{Float: tensor.BF16, Fast: true})
	defer first.Close()
	for range 2 {
		checkProduct(t, first, 64, false)
		checkProduct(t, first, 64, true) // old content counts once
	}
	if first.blas.raced != 2 {
		t.Fatalf("%d products timed, expected 2", first.blas.raced)
	}

	second := open(t, Options{Float: tensor.BF16, Fast: true})
	defer second.Close()
	checkProduct(t, second, 64, false)
	checkProduct(t, second, 64, true)
	if second.blas.raced != 0 {
		t.Errorf("%d products timed again", second.blas.raced)
	}
	if a, b := string(first.GEMMChoices()), string(second.GEMMChoices()); a != b {
		t.Errorf("choices differ:\n%s\n%s", a, b)
	}

	// What is damaged is timed again, and written again.
	files, err := filepath.Glob(filepath.Join(string(first.choiceCache()), "*.json"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%d files in the cache, expected 2 (%v)", len(files), err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "{", strings.Replace(string(good), `"algorithm": "`, `"algorithm": "00`, 1),
		strings.Replace(string(good), `"library": "`, `"library": "1`, 1)} {
		if err := os.WriteFile(files[0], []byte(bad), 0o644); err != nil {
			t.Fatal(err)
		}
		third := open(t, Options{Float: tensor.BF16, Fast: true})
		checkProduct(t, third, 64, false)
		checkProduct(t, third, 64, true)
		if third.blas.raced != 1 {
			t.Errorf("%d products timed beside a cache of which one file is %.20q, expected 1", third.blas.raced, bad)
		}
		third.Close()
	}
}

func TestChoicesWithoutCache(t *testing.T) {
	timeAll(t)
	t.Setenv("XDG_CACHE_HOME", "/proc/no/such/folder")
	d := open(t, Options{Float: tensor.BF16, Fast: true})
	defer d.Close()
	checkProduct(t, d, 64, true)
	if d.blas.raced != 1 {
		t.Errorf("%d products timed, expected 1", d.blas.raced)
	}
}

func TestNothingIsTimedUnlessFast(t *testing.T) {
	timeAll(t)
	d := open(t, Options{Float: tensor.BF16})
	defer d.Close()
	checkProduct(t, d, 64, false)
	if d.blas.raced != 0 {
		t.Error("a product was timed")
	}
	for name, c := range decodeChoices(t, d.GEMMChoices()).Products {
		if c.Candidate != 0 || c.Micros != 0 {
			t.Errorf("%s: %+v, expected the heuristic's first", name, c)
		}
	}
}

func decodeChoices(t *testing.T, content []byte) gemmChoices {
	t.Helper()
	var c gemmChoices
	if err := json.Unmarshal(content, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLoadedChoicesAreTaken(t *testing.T) {
	d := open(t, Options{Float: tensor.BF16})
	defer d.Close()
	checkProduct(t, d, 64, false)
	checkProduct(t, d, 128, false)
	file := decodeChoices(t, d.GEMMChoices())
	if len(file.Products) != 2 {
		t.Fatalf("%d products, expected 2:\n%s", len(file.Products), d.GEMMChoices())
	}
	// Another algorithm, as the emulator names them: its fifth number counts.
	var name string
	for name = range file.Products {
		break
	}
	c := file.Products[name]
	var p *gemmPlan
	var key gemmKey
	for k, v := range d.blas.plans {
		if k.String() == name {
			key, p = k, v
		}
	}
	list, err := d.blas.candidates(key, p, raceEntrants)
	if err != nil || len(list) < 2 {
		t.Fatalf("%d candidates (%v)", len(list), err)
	}
	c.Algorithm, c.Candidate = encodeAlgorithm(list[1].algorithm), 1
	file.Products[name] = c
	changed, _ := json.Marshal(file)

	for _, e := range []*Device{d, open(t, Options{Float: tensor.BF16})} { // one that has made plans, and one that hasn't
		if err := e.LoadGEMMChoices(changed); err != nil {
			t.Fatal(err)
		}
		checkProduct(t, e, 64, false)
		checkProduct(t, e, 128, false)
		if got := decodeChoices(t, e.GEMMChoices()).Products[name]; got != c {
			t.Errorf("%s: %+v, expected %+v", name, got, c)
		}
		if got := e.blas.plans[key].algorithm; got != list[1].algorithm {
			t.Error("the plan has another algorithm")
		}
		if e != d {
			e.Close()
		}
	}

	for what, bad := range map[string]string{
		"cut off":         `{"library`,
		"another library": strings.Replace(string(changed), `"library":"`, `"library":"9`, 1),
		"another GPU":     strings.Replace(string(changed), `"gpu":"`, `"gpu":"9`, 1),
		"short algorithm": strings.Replace(string(changed), `"algorithm":"`, `"algorithm":"0`, 1),
	} {
		if err := d.LoadGEMMChoices([]byte(bad)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestGEMMChoiceOnGPU prints what timing brings for the products of training steps.
func TestGEMMChoiceOnGPU(t *testing.T) {
	if !onGPU() {
		t.Skip("set " + testGPU + " to time products on a GPU")
	}
	timeAll(t)
	d := open(t, Options{Float: tensor.BF16, Fast: true})
	defer d.Close()
	for _, s := range []stepShape{
		{"125m", 16384, 768, 3072, 2304, 3072, 50304, 12, true},
		{"1.1b", 16384, 2048, 5632, 2560, 11264, 32000, 22, false},
		{"7b", 8192, 4096, 11008, 12288, 22016, 32000, 32, false},
	} {
		printChoices(t, d, s)
	}
}

// stepShape is the products of a training step: tokens, and columns of the activations.
type stepShape struct {
	name                   string
	tokens, hidden, mlp    int
	qkv, up, vocab, layers int
	biased                 bool // with GELU, as GPT-2
}

// printChoices times the products of a step. Those of float32 gradients don't count in the sum.
func printChoices(t *testing.T, d *Device, s stepShape) {
	block := filledBlock(t, d)
	var first, best float64
	product := func(what string, typ tensor.Dtype, rows, cols, k int, m tensor.Matmul, times int) {
		var buffers []*tensor.Buffer
		matrix := func(typ tensor.Dtype, rows, cols int) tensor.Tensor {
			x, buf, err := tensor.New(d, typ, rows*cols)
			if err != nil {
				t.Fatal(err)
			}
			buffers = append(buffers, buf)
			for at := 0; at < x.Len(); at += block.Len() {
				n := min(block.Len(), x.Len()-at)
				d.Ops().Copy(x.Slice(at, n), block.Slice(0, n))
			}
			x.Shape, x.Stride = []int{rows, cols}, cols
			return x
		}
		m.C, m.A, m.B = matrix(typ, rows, cols), matrix(tensor.BF16, rows, k), matrix(tensor.BF16, k, cols)
		if m.TransA {
			m.A.Shape, m.A.Stride = []int{k, rows}, rows
		}
		if m.TransB {
			m.B.Shape, m.B.Stride = []int{cols, k}, k
		}
		vector := func(n int) tensor.Tensor {
			x := matrix(typ, 1, n)
			x.Shape = []int{n}
			return x
		}
		if s.biased && m.TransB && typ == tensor.BF16 {
			m.Bias = vector(cols)
		}
		if s.biased && m.TransA {
			m.DBias = vector(rows)
		}
		if m.Fused != tensor.Unfused {
			m.Pre = matrix(typ, rows, cols)
		}
		d.blas.racing = 0
		d.Ops().Matmul(m)
		if err := d.Sync(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		flops := 2 * float64(rows) * float64(cols) * float64(k) / 1e6
		for key, plan := range d.blas.plans {
			c := plan.chosen
			line := fmt.Sprintf("%-14s %-40s", what, key.label())
			if c.Micros > 0 {
				line += fmt.Sprintf(" %8.1f µs, %6.1f TFLOP/s; first %6.1f; candidate %d", c.Micros, flops/c.Micros, flops/c.First, c.Candidate)
			} else {
				line += fmt.Sprintf(" not timed, refused %v", plan.refused)
			}
			if c.ApartMicros > 0 {
				line += fmt.Sprintf("; apart %8.1f µs", c.ApartMicros)
			}
			fmt.Println(line)
			if m.Plain() || key.dBias || key.fused != tensor.Unfused {
				took := c.Micros
				if c.Apart {
					took = c.ApartMicros
				}
				best, first = best+float64(times)*took, first+float64(times)*c.First
			}
			plan.free(&d.blas)
			delete(d.blas.plans, key)
		}
		for _, b := range buffers {
			b.Free()
		}
	}
	dW := tensor.Matmul{TransA: true, Beta: 1}
	for _, l := range []struct {
		name    string
		out, in int
	}{{"qkv", s.qkv, s.hidden}, {"o", s.hidden, s.hidden}, {"up", s.up, s.hidden}, {"down", s.hidden, s.mlp}} {
		forward, dX := tensor.Matmul{TransB: true}, tensor.Matmul{}
		if s.biased && l.name == "up" {
			forward.Fused = tensor.GELUForward
		}
		if s.biased && l.name == "down" {
			dX.Fused = tensor.GELUBackward
		}
		product(s.name+" "+l.name, tensor.BF16, s.tokens, l.out, l.in, forward, s.layers)
		product(s.name+" dX "+l.name, tensor.BF16, s.tokens, l.in, l.out, dX, s.layers)
		product(s.name+" dW "+l.name, tensor.BF16, l.out, l.in, s.tokens, dW, s.layers)
		product(s.name+" dW "+l.name, tensor.F32, l.out, l.in, s.tokens, dW, 0)
	}
	s.biased = false
	rows := min(max(logitsBytes/(s.vocab*4)/chunkStep, 1)*chunkStep, s.tokens)
	chunks := ceilDiv(s.tokens, rows)
	product(s.name+" logits", tensor.F32, rows, s.vocab, s.hidden, tensor.Matmul{TransB: true}, chunks)
	product(s.name+" dX head", tensor.BF16, rows, s.hidden, s.vocab, tensor.Matmul{}, chunks)
	product(s.name+" dW head", tensor.BF16, s.vocab, s.hidden, rows, dW, chunks)
	product(s.name+" dW head", tensor.F32, s.vocab, s.hidden, rows, dW, 0)
	fmt.Printf("%s: a step's products take %.2f ms by the heuristic's first, %.2f ms by the fastest\n", s.name, first/1000, best/1000)
}

// filledBlock is normally distributed numbers on the device.
func filledBlock(t *testing.T, d *Device) tensor.Tensor {
	t.Helper()
	block, buf, err := tensor.New(d, tensor.F32, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(buf.Free)
	values := make([]float64, block.Len())
	random := rand.New(rand.NewPCG(1, 2))
	for i := range values {
		values[i] = random.NormFloat64()
	}
	tensor.SetFloat64(block, values)
	return block
}

// TestPrintedChoices runs on the emulator what TestGEMMChoiceOnGPU does, with small shapes.
func TestPrintedChoices(t *testing.T) {
	if onGPU() {
		t.Skip("the large shapes run")
	}
	timeAll(t)
	d := open(t, Options{Float: tensor.BF16, Fast: true})
	defer d.Close()
	printChoices(t, d, stepShape{"small", 64, 16, 32, 48, 32, 128, 2, true})
	// Twenty products, ten of which have something beside them and are timed without it too.
	if d.blas.raced != 30 {
		t.Errorf("%d products timed, expected 30", d.blas.raced)
	}
}

// TestFusedProducts compares products with something beside them with the reference, made by
// cuBLASLt at once and, where that was slower when timed, apart.
func TestFusedProducts(t *testing.T) {
	timeAll(t)
	for _, opt := range []Options{{Float: tensor.BF16}, {Float: tensor.F32}, {Float: tensor.BF16, Fast: true}} {
		d := open(t, opt)
		p := newPairs(t, d)
		const m, n, k = 48, 72, 64
		x, w, bias, dy := p.make(d.Float(), m, k), p.make(d.Float(), n, k), p.make(d.Float(), n), p.make(d.Float(), m, n)
		y, pre, dx := p.make(d.Float(), m, n), p.make(d.Float(), m, n), p.make(d.Float(), m, k)
		dw, dBias := p.make(tensor.F32, n, k), p.make(tensor.F32, n)
		narrow := p.make(d.Float(), n)
		before := p.make(d.Float(), m, k) // what GELU was of
		for _, on := range []struct {
			ops *tensor.Ops
			of  func(pair) tensor.Tensor
		}{{d.Ops(), func(p pair) tensor.Tensor { return p.dev }}, {p.ref.Ops(), func(p pair) tensor.Tensor { return p.ref }}} {
			at := on.of
			for range 2 { // gradients are added to
				on.ops.Matmul(tensor.Matmul{C: at(y), A: at(x), B: at(w), TransB: true, Bias: at(bias), Fused: tensor.GELUForward, Pre: at(pre)})
				on.ops.Matmul(tensor.Matmul{C: at(dw), A: at(dy), B: at(x), TransA: true, Beta: 1, DBias: at(dBias)})
				on.ops.Matmul(tensor.Matmul{C: at(dw), A: at(dy), B: at(x), TransA: true, Beta: 1, DBias: at(narrow)})
				on.ops.Matmul(tensor.Matmul{C: at(dx), A: at(dy), B: at(w), Fused: tensor.GELUBackward, Pre: at(before)})
			}
		}
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		fused := 0
		for k, plan := range d.blas.plans {
			if (k.dBias || k.fused != tensor.Unfused) && !plan.refused {
				fused++
			}
			if opt.Fast && plan.chosen.ApartMicros > 0 && plan.apart != (plan.chosen.ApartMicros < plan.chosen.Micros) {
				t.Errorf("%v: %+v", k, plan.chosen)
			}
		}
		if fused != 3 {
			t.Errorf("%+v: %d fused products are cuBLASLt's, expected 3: %s", opt, fused, d.GEMMChoices())
		}
		tolerance := 1e-4
		if d.Float() == tensor.BF16 {
			tolerance = 0.02
		}
		for name, c := range map[string]pair{"C": y, "Pre": pre, "dW": dw, "dBias": dBias, "narrow dBias": narrow, "dX": dx} {
			got, want := tensor.GetFloat64(c.dev), tensor.GetFloat64(c.ref)
			for i := range got {
				if math.Abs(got[i]-want[i]) > tolerance*max(8, math.Abs(want[i])) {
					t.Errorf("%+v: element %d of %s is %g, expected %g", opt, i, name, got[i], want[i])
					break
				}
			}
		}
		d.Close()
	}
}

// TestTF32 checks that operands lose digits where that is allowed, and only there.
func TestTF32(t *testing.T) {
	for _, tf32 := range []bool{false, true} {
		d := open(t, Options{Float: tensor.F32, TF32: tf32})
		p := newPairs(t, d)
		a, b, c := p.make(tensor.F32, 64, 256), p.make(tensor.F32, 32, 256), p.make(tensor.F32, 64, 32)
		d.Ops().Matmul(tensor.Matmul{C: c.dev, A: a.dev, B: b.dev, TransB: true})
		p.ref.Ops().Matmul(tensor.Matmul{C: c.ref, A: a.ref, B: b.ref, TransB: true})
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		got, want, worst := tensor.GetFloat64(c.dev), tensor.GetFloat64(c.ref), 0.0
		for i := range got {
			worst = max(worst, math.Abs(got[i]-want[i]))
		}
		// Sums of 256 products, each off by 2^-11 of its size in either factor.
		if least, most := 1e-3, 0.1; tf32 && (worst < least || worst > most) || !tf32 && worst > 1e-4 {
			t.Errorf("TF32 %v: off by %g", tf32, worst)
		}
		d.Close()
	}
}
