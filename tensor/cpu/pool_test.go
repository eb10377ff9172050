package cpu

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// setThreads sets the number of threads for the length of a test.
func setThreads(t testing.TB, n int) {
	old := Threads()
	SetThreads(n)
	t.Cleanup(func() { SetThreads(old) })
}

// countJob counts how often each task ran, without atomics: the race detector
// sees every task that is handed out twice and every end that is not waited for.
type countJob struct{ n []int }

func (j *countJob) run(ws *workspace, task int) {
	if ws == nil {
		panic("no workspace")
	}
	j.n[task]++
}

func TestParallelRunsEachTaskOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 3, 8} {
		setThreads(t, threads)
		for _, tasks := range []int{0, 1, 2, 3, 7, 100, 1000} {
			j := &countJob{make([]int, tasks)}
			for range 20 {
				parallel(tasks, j)
			}
			for i, n := range j.n {
				if n != 20 {
					t.Fatalf("%d threads, %d tasks: task %d ran %d times, want 20", threads, tasks, i, n)
				}
			}
		}
	}
}

func TestParallelAfterParking(t *testing.T) {
	setThreads(t, 3)
	j := &countJob{make([]int, 50)}
	for i := range 10 {
		parallel(len(j.n), j)
		if i%3 == 0 {
			time.Sleep(3 * spinBudget)
		}
	}
	for i, n := range j.n {
		if n != 10 {
			t.Fatalf("task %d ran %d times, want 10", i, n)
		}
	}
}

// allJob waits in each task until all tasks have started, which needs as many
// threads.
type allJob struct{ started, want atomic.Int32 }

func (j *allJob) run(*workspace, int) {
	j.started.Add(1)
	for j.started.Load() < j.want.Load() {
		runtime.Gosched()
	}
}

func TestParallelUsesAllThreads(t *testing.T) {
	setThreads(t, 4)
	for range 5 {
		j := &allJob{}
		j.want.Store(4)
		parallel(4, j)
		time.Sleep(2 * spinBudget)
	}
}

type nestedJob struct{ inner []countJob }

func (j *nestedJob) run(_ *workspace, task int) { parallel(len(j.inner[task].n), &j.inner[task]) }

func TestParallelNested(t *testing.T) {
	setThreads(t, 3)
	j := &nestedJob{make([]countJob, 20)}
	for i := range j.inner {
		j.inner[i].n = make([]int, 30)
	}
	parallel(len(j.inner), j)
	for i := range j.inner {
		for k, n := range j.inner[i].n {
			if n != 1 {
				t.Fatalf("task %d of %d ran %d times", k, i, n)
			}
		}
	}
}

func TestParallelConcurrentCallers(t *testing.T) {
	setThreads(t, 3)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			j := &countJob{make([]int, 64)}
			for range 200 {
				parallel(len(j.n), j)
			}
			for i, n := range j.n {
				if n != 200 {
					t.Errorf("task %d ran %d times, want 200", i, n)
				}
			}
		})
	}
	wg.Wait()
}

var errTask = errors.New("task failed")

type panicJob struct{ at int }

func (j *panicJob) run(_ *workspace, task int) {
	if task == j.at {
		panic(errTask)
	}
}

func TestParallelPanic(t *testing.T) {
	for _, threads := range []int{1, 2, 4} {
		setThreads(t, threads)
		for at := range 40 {
			func() {
				defer func() {
					if e := recover(); e != errTask {
						t.Fatalf("recovered %v, want %v", e, errTask)
					}
				}()
				parallel(40, &panicJob{at})
				t.Fatal("no panic")
			}()
		}
		j := &countJob{make([]int, 40)}
		parallel(40, j) // the pool still works
		for i, n := range j.n {
			if n != 1 {
				t.Fatalf("task %d ran %d times after a panic", i, n)
			}
		}
	}
}

func TestSetThreadsWhileInUse(t *testing.T) {
	setThreads(t, 2)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		j := &countJob{make([]int, 16)}
		for {
			select {
			case <-stop:
				return
			default:
				parallel(len(j.n), j)
			}
		}
	})
	for i := range 50 {
		SetThreads(1 + i%4)
		runtime.Gosched()
	}
	close(stop)
	wg.Wait()
}

func TestParallelDoesNotAllocate(t *testing.T) {
	setThreads(t, 2)
	j := &countJob{make([]int, 16)}
	parallel(len(j.n), j)
	if n := testing.AllocsPerRun(100, func() { parallel(len(j.n), j) }); n != 0 {
		t.Fatalf("%v allocations a region, want 0", n)
	}
}

func TestScratch(t *testing.T) {
	ws := &workspace{}
	a, b := ws.scratch(0, 100), ws.scratch(3, 50)
	for i := range a {
		a[i] = 1
	}
	clear(b)
	if again := ws.scratch(0, 80); len(again) != 80 || &again[0] != &a[0] {
		t.Fatal("scratch memory moved without having to grow")
	}
	for _, x := range a {
		if x != 1 {
			t.Fatal("slots overlap")
		}
	}
}

type emptyJob struct{}

func (emptyJob) run(*workspace, int) {}

func BenchmarkParallelEmpty(b *testing.B) {
	for b.Loop() {
		parallel(2, emptyJob{})
	}
}
