package cuda

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"ringtail/atomicfile"
	"ringtail/tensor"
)

// Which of cuBLASLt's algorithms makes a product:
//
//  1. the one in the file given to LoadGEMMChoices (a run's gemm.json), if the library takes it;
//  2. with Options.Fast, the fastest of the first eight that the heuristic proposes, timed when
//     the product first comes and kept in the user's cache, where the product is worth it;
//  3. else the heuristic's first.
//
// An algorithm adds up in an order of its own, so that 2 may give other bytes on another run.

const (
	raceEntrants = 8
	// raceBudget ends the timing of one process, in milliseconds: a program whose shapes
	// never end (prompts of all lengths) must not time for ever.
	raceBudget = 10e3
	// raceLead is how much faster than the heuristic's first an algorithm must be.
	raceLead = 0.99
)

// raceLeast is the least work, in microseconds at the GPU's limits, that is worth timing.
// Tests change it.
var raceLeast = 20.0

// gemmChoice is the algorithm of one product.
type gemmChoice struct {
	Algorithm string  `json:"algorithm"`              // cublasLtMatmulAlgo_t, hexadecimal
	Candidate int     `json:"candidate"`              // its place among the heuristic's proposals
	Micros    float64 `json:"microseconds,omitempty"` // where it was timed
	First     float64 `json:"first_microseconds,omitempty"`
	// Apart: what goes with the product is made by kernels of its own, which took so long with it.
	Apart       bool    `json:"apart,omitempty"`
	ApartMicros float64 `json:"apart_microseconds,omitempty"`
}

// gemmChoices is a file of choices. Algorithms mean something to one version of the library only.
type gemmChoices struct {
	Library  string                `json:"library"` // version of cuBLASLt
	GPU      string                `json:"gpu"`
	Driver   string                `json:"driver"`
	Products map[string]gemmChoice `json:"products"` // by gemmKey.String
}

// String names a product in files, with all that its plan depends on:
//
//	NT 16384x3072x768 BF16 BF16 BF16, strides 768 768 3072, alignments 128 128 128, bias BF16, alignment 128
func (k gemmKey) String() string {
	s := fmt.Sprintf("%s%s %dx%dx%d %v %v %v, strides %d %d %d, alignments %d %d %d", transposed(k.transA), transposed(k.transB), k.m, k.n, k.k,
		k.typeA, k.typeB, k.typeC, k.lda, k.ldb, k.ldc, k.alignA, k.alignB, k.alignC)
	if k.accumulate {
		s += ", accumulated"
	}
	if k.bias {
		s += fmt.Sprintf(", bias %v, alignment %d", k.typeBias, k.alignBias)
	}
	if k.dBias {
		s += ", sums of A"
	}
	if k.fused != tensor.Unfused {
		s += fmt.Sprintf(", %s, stride %d, alignment %d", [...]string{"", "GELU", "GELU'"}[k.fused], k.ldPre, k.alignPre)
	}
	if k.tf32 {
		s += ", TF32"
	}
	if k.scaleA != scaleNone {
		s += ", scales " + [...]string{scaleOne: "1", scaleRows: "of rows"}[k.scaleA] + " and " + [...]string{scaleOne: "1", scaleRows: "of rows"}[k.scaleB]
	}
	if k.fastSum {
		s += ", fast sums"
	}
	return s
}

func transposed(yes bool) string {
	if yes {
		return "T"
	}
	return "N"
}

// plan makes a product ready when it first comes. nil: it failed, and d has the error.
func (d *Device) plan(k gemmKey, m tensor.Matmul) *gemmPlan {
	b := &d.blas
	if p := b.plans[k]; p != nil {
		return p
	}
	p, err := b.describe(k)
	if err == nil && !p.refused {
		err = d.choose(k, p, m)
	}
	if err != nil {
		d.fail(err)
		return nil
	}
	b.plans[k] = p
	return p
}

// choose gives a plan its algorithm.
func (d *Device) choose(k gemmKey, p *gemmPlan, m tensor.Matmul) error {
	b := &d.blas
	name := k.String()
	if c, ok := b.loaded[name]; ok && p.take(b, c) {
		return nil
	}
	race := d.opt.Fast && !d.capture && b.racing < raceBudget && k.leastMicros() >= raceLeast
	cache := d.choiceCache()
	if race {
		if c, ok := cache.get(d.choices(), name); ok && p.take(b, c) {
			return nil
		}
	}
	most := 1
	if race {
		most = raceEntrants
	}
	list, err := b.candidates(k, p, most)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		p.refused = true
		return nil
	}
	best, times := 0, []float64(nil)
	if len(list) > 1 {
		best, times = d.race(k, p, m, list)
	}
	p.candidate = list[best]
	p.chosen = gemmChoice{Algorithm: encodeAlgorithm(p.algorithm), Candidate: best}
	if times != nil {
		p.chosen.Micros, p.chosen.First = round3(times[best]), round3(times[0])
		if !m.Plain() {
			if apart := d.timeApart(k, m); apart > 0 {
				p.chosen.ApartMicros, p.chosen.Apart = round3(apart), apart < times[best]
				p.apart = p.chosen.Apart
			}
		}
		file := d.choices()
		file.Products[name] = p.chosen
		cache.put(file, name)
	}
	return nil
}

// take makes a choice of a file the plan's, if the library takes it.
func (p *gemmPlan) take(b *blas, c gemmChoice) bool {
	algorithm, ok := decodeAlgorithm(c.Algorithm)
	if !ok {
		return false
	}
	verified, ok := b.verify(p, algorithm)
	if ok {
		p.candidate, p.chosen, p.apart = verified, c, c.Apart
	}
	return ok
}

// leastMicros is about the time that a product takes at the limits of an H100: 16-bit
// operands 700 TFLOP/s, 8-bit ones 1400, TF32 350, F32 50, memory 3 TB/s.
func (k gemmKey) leastMicros() float64 {
	rate := 700e6 // FLOPs a microsecond
	switch {
	case k.scaleA != scaleNone:
		rate = 1400e6
	case k.tf32:
		rate = 350e6
	case k.typeA == tensor.F32:
		rate = 50e6
	}
	flops := 2 * float64(k.m) * float64(k.n) * float64(k.k)
	bytes := float64(k.m*k.k*k.typeA.Size()) + float64(k.k*k.n*k.typeB.Size()) + float64(k.m*k.n*k.typeC.Size())
	return max(flops/rate, bytes/3e6)
}

// race times algorithms on a product's operands and returns the fastest's place and all times
// in microseconds; 0 and nil where that can't be done. Nothing is written but what the product
// writes whole.
func (d *Device) race(k gemmKey, p *gemmPlan, m tensor.Matmul, list []candidate) (best int, micros []float64) {
	space := d.gemmSpace()
	d.enter()
	defer d.leave()
	to, free := d.scratchC(k, m)
	w := d.stopwatch()
	defer func() { w.free(); free() }()
	if space == 0 || to == 0 || w == nil {
		return 0, nil
	}
	run := func(i, n int) float64 {
		return w.time(n, func() bool { return d.multiply(k, p, list[i].algorithm, m, to, space) == 0 })
	}
	micros = make([]float64, len(list))
	for range 2 { // the first loads kernels
		for i := range list {
			micros[i] = run(i, 1)
		}
	}
	fastest := max(slices.Min(micros), 0.1)
	// In turns, so that clocks that fall with the heat are the same for all. What is far
	// behind is out.
	runs := runsOf(fastest)
	for round := range 3 {
		for i, t := range micros {
			if t > 1.5*fastest && i > 0 {
				continue
			}
			if t = run(i, runs); round == 0 || t < micros[i] {
				micros[i] = t
			}
		}
	}
	for i, t := range micros {
		if t < micros[best] && t < raceLead*micros[0] {
			best = i
		}
	}
	d.blas.raced++
	if micros[best] >= failedRun {
		return 0, nil
	}
	return best, micros
}

// timeApart is the microseconds that a product takes with what goes with it made apart; 0 where
// that can't be found out.
func (d *Device) timeApart(k gemmKey, m tensor.Matmul) float64 {
	d.enter()
	defer d.leave()
	to, free := d.scratchC(k, m)
	w := d.stopwatch()
	defer func() { w.free(); free() }()
	if to == 0 || w == nil {
		return 0
	}
	m.C.Addr = to
	if !m.DBias.IsZero() {
		size := m.DBias.Len() * m.DBias.Dtype.Size()
		sums, err := d.allocate(size)
		if err != nil {
			return 0
		}
		defer d.release(sums, size)
		m.DBias.Addr = sums
	}
	run := func() bool { m.Apart(&d.ops); return d.err == nil }
	w.time(1, run) // chooses the plain product's algorithm
	best := w.time(1, run)
	for range 3 {
		best = min(best, w.time(runsOf(best), run))
	}
	if best >= failedRun {
		return 0
	}
	return best
}

// scratchC is where a product may be written while it is timed: C, or, where that is added to,
// memory for as much, at an address as well aligned. 0: there is none.
func (d *Device) scratchC(k gemmKey, m tensor.Matmul) (to uintptr, free func()) {
	if !k.accumulate {
		return m.C.Addr, func() {}
	}
	size := 128 + ((k.m-1)*k.ldc+k.n)*k.typeC.Size()
	scratch, err := d.allocate(size)
	if err != nil {
		return 0, func() {}
	}
	return scratch + m.C.Addr%128, func() { d.release(scratch, size) }
}

// runsOf is how often a product that takes so long is run at a time.
func runsOf(micros float64) int { return min(max(int(2000/max(micros, 0.1)), 2), 30) }

// stopwatch times by two events.
type stopwatch struct {
	d          *Device
	start, end uintptr
}

// stopwatch is nil where there are no events. The context must be current, as for its methods.
func (d *Device) stopwatch() *stopwatch {
	w := &stopwatch{d: d}
	for _, e := range []*uintptr{&w.start, &w.end} {
		if call(cu.eventCreate, address(e), 0) != 0 {
			w.free()
			return nil
		}
	}
	return w
}

func (w *stopwatch) free() {
	if w == nil {
		return
	}
	for _, e := range []uintptr{w.start, w.end} {
		if e != 0 {
			call(cu.eventDestroy, e)
		}
	}
}

// failedRun is longer than any run.
const failedRun = 1e30

// time is the microseconds of one of n runs.
func (w *stopwatch) time(n int, run func() bool) float64 {
	call(cu.eventRecord, w.start, w.d.stream)
	for range n {
		if !run() {
			return failedRun
		}
	}
	call(cu.eventRecord, w.end, w.d.stream)
	if call(cu.eventSync, w.end) != 0 {
		return failedRun
	}
	ms := elapsed(w.start, w.end)
	w.d.blas.racing += ms
	return 1000 * ms / float64(n)
}

// choices is an empty file of choices of this library, GPU and driver.
func (d *Device) choices() gemmChoices {
	return gemmChoices{Library: d.blas.lib.Version, GPU: d.gpu.Name, Driver: cu.Version, Products: map[string]gemmChoice{}}
}

// GEMMChoices is the algorithm of each product so far, as JSON for LoadGEMMChoices: a run
// that goes on with them gives the same bytes as one that wasn't interrupted. Equal choices give equal bytes.
func (d *Device) GEMMChoices() []byte {
	file := d.choices()
	for name, c := range d.blas.loaded {
		file.Products[name] = c
	}
	for k, p := range d.blas.plans {
		if !p.refused {
			file.Products[k.String()] = p.chosen
		}
	}
	out, err := json.MarshalIndent(file, "", "\t")
	if err != nil {
		panic(err) // strings and numbers
	}
	return append(out, '\n')
}

// LoadGEMMChoices makes products take the algorithms of a file of GEMMChoices; others are
// chosen as without it. A file of another library or GPU is refused.
func (d *Device) LoadGEMMChoices(content []byte) error {
	var file gemmChoices
	if err := json.Unmarshal(content, &file); err != nil {
		return fmt.Errorf("algorithms of matrix products: %w", err)
	}
	here := d.choices()
	if file.Library != here.Library || file.GPU != here.GPU {
		return fmt.Errorf("algorithms of matrix products are of cuBLASLt %s on %s, and this is cuBLASLt %s on %s: go on there, or remove the file to choose anew (results then differ in rounding)",
			file.Library, file.GPU, here.Library, here.GPU)
	}
	for name, c := range file.Products {
		if _, ok := decodeAlgorithm(c.Algorithm); !ok {
			return fmt.Errorf("algorithms of matrix products: %q has algorithm %q, expected %d hexadecimal digits", name, c.Algorithm, 2*algorithmSize)
		}
	}
	d.blas.loaded = file.Products
	for k, p := range d.blas.plans {
		if _, ok := file.Products[k.String()]; ok {
			p.free(&d.blas)
			delete(d.blas.plans, k)
		}
	}
	return nil
}

func encodeAlgorithm(a [algorithmSize / 8]uint64) string {
	return hex.EncodeToString((*[algorithmSize]byte)(unsafe.Pointer(&a))[:])
}

func decodeAlgorithm(s string) (a [algorithmSize / 8]uint64, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != algorithmSize {
		return a, false
	}
	copy((*[algorithmSize]byte)(unsafe.Pointer(&a))[:], b)
	return a, true
}

func round3(x float64) float64 { return float64(int64(x*1000+0.5)) / 1000 }

// choiceCache keeps what was timed, a file for each product, so that processes that write at
// the same time lose nothing. An empty name is no cache.
type choiceCache string

// choiceCache is a folder in the user's cache; none where the system names none.
func (d *Device) choiceCache() choiceCache {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	name := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '.' {
			return r
		}
		return '-'
	}, fmt.Sprintf("%s-cublasLt%s-%s", d.gpu.Name, d.blas.lib.Version, cu.Version))
	return choiceCache(filepath.Join(dir, "ringtail", "gemm", name))
}

func (c choiceCache) path(product string) string {
	sum := sha256.Sum256([]byte(product))
	return filepath.Join(string(c), hex.EncodeToString(sum[:8])+".json")
}

// get finds a product's choice; what is absent, damaged or of another library is not found.
func (c choiceCache) get(here gemmChoices, product string) (gemmChoice, bool) {
	if c == "" {
		return gemmChoice{}, false
	}
	content, err := os.ReadFile(c.path(product))
	if err != nil {
		return gemmChoice{}, false
	}
	var file gemmChoices
	if json.Unmarshal(content, &file) != nil || file.Library != here.Library || file.GPU != here.GPU || file.Driver != here.Driver {
		return gemmChoice{}, false
	}
	choice, ok := file.Products[product]
	return choice, ok
}

// put stores if it can: a folder that can't be written to is no error.
func (c choiceCache) put(file gemmChoices, product string) {
	if c == "" || os.MkdirAll(string(c), 0o755) != nil {
		return
	}
	content, err := json.MarshalIndent(file, "", "\t")
	if err != nil {
		return
	}
	_ = atomicfile.WriteBytes(c.path(product), 0o644, append(content, '\n'))
}
