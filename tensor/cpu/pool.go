package cpu

import (
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The pool of worker threads.
//
// A training step is hundreds of short parallel regions, and waking a sleeping
// thread costs more than many of them last. So workers are goroutines bound to
// operating system threads that spin for a while after a region before they
// park: entering a region then costs a few hundred nanoseconds.
//
// Tasks are handed out one by one from a counter, and a region waits only for
// the workers that have joined it. One that is parked, or that the operating
// system has taken off its core for another process, delays nothing; the
// caller does its share of the tasks.
//
// Because any worker may take any task in any order, a task must never depend
// on which worker runs it or on what ran before, and tasks must write disjoint
// memory: then results are the same for every number of threads.

// A job is the body of a parallel region. Implementations are pointers to
// structs that are kept and used again, so that a region allocates nothing.
type job interface {
	// run does one task on the worker that owns ws.
	run(ws *workspace, task int)
}

// A workspace is the private memory of one worker, for the length of one task.
type workspace struct {
	b    packed // panels of B (gemm.go)
	a    floats // a sliver of A, for sgemmSerial
	edge floats // a tile of C at the edge of the matrix
	user []floats
	next *workspace // list of spare workspaces
}

// scratch returns n float32 of the worker's memory, aligned to a vector, with
// arbitrary content. Different slots (small numbers) are different memory; they
// stay valid until the end of the task and are not touched by sgemmSerial.
func (ws *workspace) scratch(slot, n int) []float32 {
	for len(ws.user) <= slot {
		ws.user = append(ws.user, nil)
	}
	return ws.user[slot].grow(n)
}

// floats is memory that only grows. It starts at a multiple of 64 bytes.
type floats []float32

func (f *floats) grow(n int) []float32 {
	if cap(*f) < n {
		*f = alignedFloats(n + n/4)
	}
	return (*f)[:n]
}

// spinBudget is how long a worker spins for the next region before it parks,
// and a caller for the last tasks of its own before it yields: several times
// what lies between two operations of a step, and little enough not to burn a
// core while the program waits for input. While a region is in progress a worker
// that finds no task left spins for up to tailBudget: the next region usually
// follows at once, and a thread that sleeps and wakes is one that the system may
// put on the caller's core.
const (
	spinBudget = time.Millisecond
	tailBudget = 20 * time.Millisecond
)

// State of a region: joined workers in the low bits, then whether it is open
// to be joined; the number of regions so far above.
const (
	poolJoined = 1<<16 - 1
	poolOpen   = 1 << 16
	poolEpoch  = 1 << 17
)

type pool struct {
	mu      sync.Mutex // held by the caller of the region in progress
	workers []*poolWorker
	ws      *workspace // the caller's
	threads atomic.Int32

	// Written by the caller before it opens the region.
	job    job
	tasks  int64
	failed any // first value that a task panicked with
	failMu sync.Mutex

	_     [64]byte
	state atomic.Uint64
	_     [56]byte
	taken atomic.Int64 // next task to hand out
	_     [56]byte

	spareMu sync.Mutex
	spare   *workspace
}

type poolWorker struct {
	ws   *workspace
	quit atomic.Bool
	_    [64]byte
	parker
	_ [64]byte
}

var thePool = newPool()

func newPool() *pool {
	p := &pool{ws: &workspace{}}
	n := runtime.GOMAXPROCS(0)
	if v, err := strconv.Atoi(os.Getenv("RINGTAIL_THREADS")); err == nil && v > 0 {
		n = v
	}
	p.threads.Store(int32(min(n, maxThreads)))
	return p
}

const maxThreads = 1024

// Threads is the number of threads that operations use, the caller's included.
func Threads() int { return int(thePool.threads.Load()) }

// SetThreads sets the number of threads that operations use, at least 1. The
// default is RINGTAIL_THREADS in the environment or else GOMAXPROCS. Results do
// not depend on it.
func SetThreads(n int) {
	p := thePool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.threads.Store(int32(min(max(n, 1), maxThreads)))
	for len(p.workers) > Threads()-1 {
		last := len(p.workers) - 1
		w := p.workers[last]
		p.workers[last] = nil
		p.workers = p.workers[:last]
		w.quit.Store(true)
		w.wake()
	}
}

// parallel runs j's tasks 0 … tasks−1 on the pool and returns when all are
// done. A panic in a task comes out of parallel. While another region is in
// progress (parallel called from within a task, or by two goroutines at once)
// the tasks run one after another on the calling goroutine with a workspace of
// their own.
func parallel(tasks int, j job) { thePool.run(tasks, j) }

func (p *pool) run(tasks int, j job) {
	if tasks <= 0 {
		return
	}
	if !p.mu.TryLock() {
		p.runSpare(tasks, j)
		return
	}
	n := min(int(p.threads.Load()), tasks)
	if n == 1 {
		defer p.mu.Unlock()
		for t := range tasks {
			j.run(p.ws, t)
		}
		return
	}
	for len(p.workers) < n-1 {
		w := &poolWorker{ws: &workspace{}}
		p.workers = append(p.workers, w)
		ready := make(chan struct{})
		go p.work(w, p.state.Load(), ready)
		<-ready
	}
	p.job, p.tasks, p.failed = j, int64(tasks), nil
	p.taken.Store(0)
	p.state.Add(poolEpoch | poolOpen)
	for _, w := range p.workers[:n-1] {
		w.wake()
	}
	p.drain(p.ws)
	// Closed, nobody can join any more; those who have are waited for.
	var spin spinner
	for s := p.state.Add(^uint64(poolOpen - 1)); s&poolJoined != 0; s = p.state.Load() {
		if !spin.once() {
			runtime.Gosched()
		}
	}
	p.job = nil
	err := p.failed
	p.failed = nil
	p.mu.Unlock()
	if err != nil {
		panic(err)
	}
}

func (p *pool) runSpare(tasks int, j job) {
	p.spareMu.Lock()
	ws := p.spare
	if ws != nil {
		p.spare, ws.next = ws.next, nil
	}
	p.spareMu.Unlock()
	if ws == nil {
		ws = &workspace{}
	}
	defer func() {
		p.spareMu.Lock()
		ws.next, p.spare = p.spare, ws
		p.spareMu.Unlock()
	}()
	for t := range tasks {
		j.run(ws, t)
	}
}

// drain takes tasks until none is left. After a panic nobody takes any more.
func (p *pool) drain(ws *workspace) {
	defer func() {
		if e := recover(); e != nil {
			p.taken.Store(p.tasks)
			p.failMu.Lock()
			if p.failed == nil {
				p.failed = e
			}
			p.failMu.Unlock()
		}
	}()
	j, tasks := p.job, p.tasks
	for t := p.taken.Add(1) - 1; t < tasks; t = p.taken.Add(1) - 1 {
		j.run(ws, int(t))
	}
}

// work is the life of a worker that has seen every region up to state seen.
func (p *pool) work(w *poolWorker, seen uint64, ready chan struct{}) {
	// Never unlocked: the thread, with its affinity, ends with the worker.
	runtime.LockOSThread()
	w.init()
	close(ready)
	seen &^= poolEpoch - 1
	for {
		var spin spinner
		s := p.state.Load()
		for s&^(poolEpoch-1) == seen {
			if w.quit.Load() {
				w.ws.b.free()
				return
			}
			open := s&poolOpen != 0
			if !spin.once() && !(open && spin.within(tailBudget)) {
				w.park(p, seen)
				spin = spinner{}
			}
			if s = p.state.Load(); open && s&poolOpen == 0 {
				spin = spinner{} // the region ended just now
			}
		}
		seen = s &^ (poolEpoch - 1)
		for s&poolOpen != 0 && s&^(poolEpoch-1) == seen {
			if p.state.CompareAndSwap(s, s+1) {
				p.drain(w.ws)
				p.state.Add(^uint64(0))
				break
			}
			s = p.state.Load()
		}
	}
}

// park sleeps until the next wake, unless a region later than seen has begun.
func (w *poolWorker) park(p *pool, seen uint64) {
	w.prepare()
	if p.state.Load()&^(poolEpoch-1) != seen || w.quit.Load() {
		w.cancel()
		return
	}
	w.sleep()
}

// spinner counts out the spin budget without looking at the clock every time.
type spinner struct {
	n     int
	start time.Time
}

// once relaxes the core for a moment and tells whether the budget still lasts.
// It is a real call with a stack check, which lets the garbage collector stop a
// spinning thread.
//
//go:noinline
func (s *spinner) once() bool {
	relax()
	s.n++
	if s.n%256 != 0 {
		return true
	}
	if s.start.IsZero() {
		s.start = time.Now()
		return true
	}
	return s.within(spinBudget)
}

// within tells whether d has not yet passed since once began to look at the clock.
func (s *spinner) within(d time.Duration) bool { return time.Since(s.start) < d }
