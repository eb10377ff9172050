// Command gemmcompare times Ringtail's float32 matrix product against OpenBLAS
// (bench/peers/openblas_gemm.c), once with the kernels that OpenBLAS chooses and
// once with those for Haswell. All three take turns in every round, in rotating
// order, with a pause before each: OpenBLAS's idle threads spin for some 25 ms
// and would steal the next one's cores. A round's ratio is OpenBLAS's time over
// ours, so above 1 Ringtail is faster; medians of ratios within a round stand
// changes of the machine's speed that best times do not.
//
// Where other programs keep the machine busy, a product's time is mostly theirs;
// on one thread the ratios of processor time say more.
//
// It prints one JSON object a shape and number of threads.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"ringtail/tensor/cpu"
)

func main() {
	peer := flag.String("peer", "", "the program built from bench/peers/openblas_gemm.c")
	rounds := flag.Int("rounds", 25, "rounds a shape")
	shapes := flag.String("shapes", "512,1024,2048", "shapes, by commas: N or MxNxK, with :NN, :NT, :TN or :TT")
	threads := flag.String("threads", "1,2", "numbers of threads, by commas")
	settle := flag.Duration("settle", 45*time.Millisecond, "pause before each measurement")
	least := flag.Duration("least", 20*time.Millisecond, "length of a measurement: products are repeated to fill it")
	flag.Parse()
	if err := compare(*peer, *rounds, *shapes, *threads, *settle, *least); err != nil {
		fmt.Fprintln(os.Stderr, "gemmcompare:", err)
		os.Exit(1)
	}
}

type shape struct {
	m, n, k        int
	transA, transB bool
}

func parseShape(s string) (shape, error) {
	size, layout, _ := strings.Cut(s, ":")
	if layout == "" {
		layout = "NN"
	}
	var d []int
	for _, f := range strings.Split(size, "x") {
		v, err := strconv.Atoi(f)
		if err != nil || v < 1 {
			return shape{}, fmt.Errorf("shape %q: want N or MxNxK", s)
		}
		d = append(d, v)
	}
	if len(d) == 1 {
		d = []int{d[0], d[0], d[0]}
	}
	if len(d) != 3 || len(layout) != 2 || strings.Trim(layout, "NT") != "" {
		return shape{}, fmt.Errorf("shape %q: want N or MxNxK, then :NN, :NT, :TN or :TT", s)
	}
	return shape{d[0], d[1], d[2], layout[0] == 'T', layout[1] == 'T'}, nil
}

func (s shape) layout() string {
	b := []byte("NN")
	if s.transA {
		b[0] = 'T'
	}
	if s.transB {
		b[1] = 'T'
	}
	return string(b)
}

// contender is one side of the comparison.
type contender interface {
	prepare(s shape, threads int) error
	// run tells the seconds that reps products took, and of processor time.
	run(reps int) (seconds, cpu float64, err error)
	at(i int) (float64, error)
}

// ours is Ringtail.
type ours struct {
	shape
	a, b, c []float32
}

func operand(n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(uint32(i)*2654435761>>8)/(1<<24) - 0.5
	}
	return s
}

func (o *ours) prepare(s shape, threads int) error {
	o.shape = s
	o.a, o.b, o.c = operand(s.m*s.k), operand(s.k*s.n), make([]float32, s.m*s.n)
	runtime.GC()
	cpu.SetThreads(threads)
	_, _, err := o.run(1)
	return err
}

func (o *ours) run(reps int) (float64, float64, error) {
	start, before := time.Now(), cpuTime()
	for range reps {
		cpu.Gemm(o.transA, o.transB, o.m, o.n, o.k, o.a, o.b, o.c)
	}
	return time.Since(start).Seconds(), cpuTime() - before, nil
}

func (o *ours) at(i int) (float64, error) { return float64(o.c[i]), nil }

// openBLAS is a process that runs openblas_gemm.
type openBLAS struct {
	in  io.Writer
	out *bufio.Reader
}

// start runs the peer with OPENBLAS_CORETYPE set to core, or to nothing.
func start(program, core string) (*openBLAS, error) {
	c := exec.Command(program)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "OPENBLAS_") {
			c.Env = append(c.Env, e)
		}
	}
	if core != "" {
		c.Env = append(c.Env, "OPENBLAS_CORETYPE="+core)
	}
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &openBLAS{in, bufio.NewReader(out)}, c.Start()
}

func (o *openBLAS) ask(format string, a ...any) (string, error) {
	if _, err := fmt.Fprintf(o.in, format+"\n", a...); err != nil {
		return "", fmt.Errorf("openblas_gemm: %w", err)
	}
	s, err := o.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("openblas_gemm ended: %w", err)
	}
	if s = strings.TrimSpace(s); strings.HasPrefix(s, "error") {
		return "", fmt.Errorf("openblas_gemm: %s", s)
	}
	return s, nil
}

func (o *openBLAS) prepare(s shape, threads int) error {
	bit := map[bool]int{true: 1}
	_, err := o.ask("shape %d %d %d %d %d %d", bit[s.transA], bit[s.transB], s.m, s.n, s.k, threads)
	return err
}

func (o *openBLAS) run(reps int) (seconds, cpu float64, err error) {
	s, err := o.ask("run %d", reps)
	if err == nil {
		_, err = fmt.Sscan(s, &seconds, &cpu)
	}
	return seconds, cpu, err
}

func (o *openBLAS) at(i int) (float64, error) {
	s, err := o.ask("at %d", i)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(s, 64)
}

// result is what is printed of one shape.
type result struct {
	M       int    `json:"m"`
	N       int    `json:"n"`
	K       int    `json:"k"`
	Layout  string `json:"layout"`
	Threads int    `json:"threads"`
	Rounds  int    `json:"rounds"`
	Level   string `json:"level"`
	// Median rates.
	GFLOPS        float64 `json:"gflops"`
	OwnGFLOPS     float64 `json:"openblas_own_gflops"`
	HaswellGFLOPS float64 `json:"openblas_haswell_gflops"`
	// Best rates, of ours, OpenBLAS's own and Haswell: what a loaded machine hides least.
	Best [3]float64 `json:"best_gflops"`
	// First quartile, median and third quartile of ratios within a round.
	Own     [3]float64 `json:"ratio_to_own"`
	Haswell [3]float64 `json:"ratio_to_haswell"`
	// The same in processor time, on one thread.
	CPUOwn     *[3]float64 `json:"cpu_ratio_to_own,omitempty"`
	CPUHaswell *[3]float64 `json:"cpu_ratio_to_haswell,omitempty"`
	// The ratio to the one with the better median rate.
	Ratio  float64    `json:"ratio"`
	Better string     `json:"better"`
	Load   string     `json:"load"`
	Config [2]string  `json:"openblas"`
	Ratios [2][]ratio `json:"ratios"`
}

type ratio float64

func (r ratio) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%.3f", float64(r)), nil }

func compare(peer string, rounds int, shapes, threads string, settle, least time.Duration) error {
	if peer == "" {
		return fmt.Errorf("-peer is missing; run bench/peers/gemm_compare.sh")
	}
	own, err := start(peer, "")
	if err != nil {
		return err
	}
	haswell, err := start(peer, "Haswell")
	if err != nil {
		return err
	}
	var config [2]string
	for i, o := range []*openBLAS{own, haswell} {
		if config[i], err = o.ask("config"); err != nil {
			return err
		}
	}
	sides := []contender{&ours{}, own, haswell}
	enc := json.NewEncoder(os.Stdout)
	for _, t := range strings.Split(threads, ",") {
		n, err := strconv.Atoi(t)
		if err != nil || n < 1 {
			return fmt.Errorf("number of threads %q", t)
		}
		for _, s := range strings.Split(shapes, ",") {
			sh, err := parseShape(s)
			if err != nil {
				return err
			}
			r, err := measure(sides, sh, n, rounds, settle, least)
			if err != nil {
				return fmt.Errorf("%s, %d threads: %w", s, n, err)
			}
			r.Config = config
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
	}
	return nil
}

func measure(sides []contender, s shape, threads, rounds int, settle, least time.Duration) (*result, error) {
	flops := 2 * float64(s.m) * float64(s.n) * float64(s.k)
	for _, c := range sides {
		if err := c.prepare(s, threads); err != nil {
			return nil, err
		}
	}
	if err := agree(sides, s); err != nil {
		return nil, err
	}
	reps := max(1, int(math.Ceil(least.Seconds()/(flops/100e9/float64(threads)))))
	times, cpus := make([][]float64, len(sides)), make([][]float64, len(sides))
	for round := range rounds {
		for i := range sides {
			side := (round + i) % len(sides)
			time.Sleep(settle)
			// The first product wakes threads and warms caches.
			if _, _, err := sides[side].run(1); err != nil {
				return nil, err
			}
			t, c, err := sides[side].run(reps)
			if err != nil {
				return nil, err
			}
			times[side] = append(times[side], t/float64(reps))
			cpus[side] = append(cpus[side], c/float64(reps))
		}
	}
	r := &result{M: s.m, N: s.n, K: s.k, Layout: s.layout(), Threads: threads, Rounds: rounds, Level: cpu.Level()}
	rate := func(side int) float64 { return math.Round(flops/quartiles(times[side])[1]/1e7) / 100 }
	r.GFLOPS, r.OwnGFLOPS, r.HaswellGFLOPS = rate(0), rate(1), rate(2)
	for i := range r.Best {
		r.Best[i] = math.Round(flops/slices.Min(times[i])/1e7) / 100
	}
	r.Own, r.Ratios[0] = ratios(times[1], times[0])
	r.Haswell, r.Ratios[1] = ratios(times[2], times[0])
	if threads == 1 && slices.Min(cpus[0]) > 0 {
		own, _ := ratios(cpus[1], cpus[0])
		haswell, _ := ratios(cpus[2], cpus[0])
		r.CPUOwn, r.CPUHaswell = &own, &haswell
	}
	r.Ratio, r.Better = r.Own[1], "own"
	if r.HaswellGFLOPS > r.OwnGFLOPS {
		r.Ratio, r.Better = r.Haswell[1], "Haswell"
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		r.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	return r, nil
}

// ratios are theirs over ours, round by round, and their quartiles.
func ratios(theirs, ours []float64) (q [3]float64, each []ratio) {
	x := make([]float64, len(ours))
	for i := range x {
		x[i] = theirs[i] / ours[i]
		each = append(each, ratio(x[i]))
	}
	q = quartiles(x)
	for i := range q {
		q[i] = math.Round(q[i]*1000) / 1000
	}
	return q, each
}

// agree looks at some elements of C, so that no side is fast by being wrong.
func agree(sides []contender, s shape) error {
	for _, i := range []int{0, s.n - 1, s.m * s.n / 2, s.m*s.n - 1} {
		want, err := sides[0].at(i)
		if err != nil {
			return err
		}
		for _, c := range sides[1:] {
			got, err := c.at(i)
			if err != nil {
				return err
			}
			if math.Abs(got-want) > 1e-5*math.Sqrt(float64(s.k))+1e-4*math.Abs(want) {
				return fmt.Errorf("element %d of C: ours is %v, OpenBLAS's %v", i, want, got)
			}
		}
	}
	return nil
}

// quartiles are the first quartile, the median and the third quartile.
func quartiles(x []float64) [3]float64 {
	s := append([]float64(nil), x...)
	sort.Float64s(s)
	var q [3]float64
	for i := range q {
		at := float64(i+1) / 4 * float64(len(s)-1)
		lo := int(at)
		hi := min(lo+1, len(s)-1)
		q[i] = s[lo] + (at-float64(lo))*(s[hi]-s[lo])
	}
	return q
}
