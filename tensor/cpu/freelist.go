package cpu

import "sync"

// freeList keeps the jobs of an operation that are not in use, with the memory
// they hold, so that an operation allocates nothing once it has run at its
// largest shape. (A sync.Pool is emptied by the garbage collector.) Operations
// of several devices, or tests, may run at once: each takes a job of its own.
type freeList[T any] struct {
	mu   sync.Mutex
	free []*T
}

func (l *freeList[T]) take() *T {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.free)
	if n == 0 {
		return new(T)
	}
	j := l.free[n-1]
	l.free = l.free[:n-1]
	return j
}

func (l *freeList[T]) give(j *T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, j)
}
