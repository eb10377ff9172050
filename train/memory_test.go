package train

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"ringtail/data"
	"ringtail/tensor/cpu"
)

// residentBytes is the memory of this process that is in RAM; 0 where it isn't known.
func residentBytes() int {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(fields[1])
	return pages * os.Getpagesize()
}

// TestMemoryAParameter: at most 20 bytes a trained parameter and 4 a frozen one,
// plus activations, as the store counts and as the process takes.
func TestMemoryAParameter(t *testing.T) {
	for name, freeze := range map[string]string{"all trained": "[]", "layers frozen": "[model.layers.*]"} {
		t.Run(name, func(t *testing.T) {
			rec := mustDecode(t, base(t), "model.new.hidden_size=256", "model.new.intermediate_size=1024", "model.new.num_hidden_layers=6", "model.freeze="+freeze)
			runtime.GC()
			before := residentBytes()
			tr := testTrainer(t, rec, "sft", cpu.New())
			for range 3 {
				if _, err := tr.step(nextStep(t, tr)); err != nil {
					t.Fatal(err)
				}
			}
			runtime.GC()
			grown := residentBytes() - before
			all, trained := tr.model.Store.Params()
			most := 20*trained + 4*(all-trained)
			if freeze != "[]" && trained > all/4 {
				t.Fatalf("%d of %d parameters are trained", trained, all)
			}
			t.Logf("%d parameters, %d trained: store %.1f MiB, arena %.1f MiB, process %.1f MiB more; the limit is %.1f MiB", all, trained,
				mib(tr.model.Store.Bytes()), mib(tr.arena.Size()), mib(grown), mib(most))
			if got := tr.model.Store.Bytes(); got > most {
				t.Errorf("%d bytes of weights, gradients and moments; the limit is %d", got, most)
			}
			// The Go heap's own slack isn't a model's memory.
			const slack = 16 << 20
			if before > 0 && grown > most+tr.arena.Size()+slack {
				t.Errorf("the process grew by %d bytes; the limit is %d, with %d of activations", grown, most, tr.arena.Size())
			}
			for _, e := range tr.model.Store.Layout.Entries {
				if p := tr.model.Store.Param(e.Name); p.Trainable() == (freeze != "[]" && strings.HasPrefix(e.Name, "model.layers.")) {
					t.Errorf("%s: trainable %v", e.Name, p.Trainable())
				}
			}
		})
	}
}

func mib(n int) float64 { return float64(n) / (1 << 20) }

// TestNothingGrows: once all shapes of micro-batches have been seen, steps and
// evaluations neither keep nor allocate memory.
func TestNothingGrows(t *testing.T) {
	rec := mustDecode(t, base(t), "train.steps=100000", "train.micro_tokens=128")
	tr := testTrainer(t, rec, "sft", cpu.New())
	steps := func(n int) {
		for i := range n {
			if _, err := tr.step(nextStep(t, tr)); err != nil {
				t.Fatal(err)
			}
			if i%50 == 0 {
				if _, err := tr.measure(t.Context()); err != nil {
					t.Fatal(err)
				}
				if _, err := tr.sample(t.Context(), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	steps(200)
	var a, b runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&a)
	resident := residentBytes()
	const n = 400
	steps(n)
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&b)
	grown := residentBytes() - resident
	t.Logf("%d steps: %.1f allocations and %.0f bytes a step; heap %+d bytes, process %+d bytes; %d programs", n, float64(b.Mallocs-a.Mallocs)/n,
		float64(b.TotalAlloc-a.TotalAlloc)/n, int64(b.HeapAlloc)-int64(a.HeapAlloc), grown, len(tr.passes))
	if d := int64(b.HeapAlloc) - int64(a.HeapAlloc); d > 256<<10 {
		t.Errorf("the heap grew by %d bytes in %d steps", d, n)
	}
	if resident > 0 && grown > 8<<20 {
		t.Errorf("the process grew by %d bytes in %d steps", grown, n)
	}
}

// TestAllocationsAStep bounds what a step leaves to the garbage collector.
func TestAllocationsAStep(t *testing.T) {
	rec := mustDecode(t, base(t), "train.steps=100000", "train.micro_tokens=128")
	tr := testTrainer(t, rec, "sft", cpu.New())
	one := func() {
		if _, err := tr.step(nextStep(t, tr)); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		one()
	}
	if n := testing.AllocsPerRun(100, one); n > 100 {
		t.Errorf("%.0f allocations a step", n)
	} else {
		t.Logf("%.0f allocations a step", n)
	}
}

// TestFewShapes: however many tokens a micro-batch may have, few programs serve
// all of its sizes.
func TestFewShapes(t *testing.T) {
	for _, micro := range []int{64, 2048, 10000, 1 << 17} {
		sizes := map[int]bool{}
		for n := 1; n <= micro; n++ {
			s := shapeOf(&data.Batch{Tokens: n, Rows: 1}, micro, 64, true)
			if s.tokens < n || s.tokens > n+max(64, micro/16) {
				t.Fatalf("%d tokens of at most %d take a program of %d", n, micro, s.tokens)
			}
			sizes[s.tokens] = true
		}
		if len(sizes) > 33 {
			t.Errorf("micro_tokens %d: %d sizes", micro, len(sizes))
		}
	}
}
