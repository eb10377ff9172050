package cpu

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// parker lets one thread sleep until another wakes it, by a futex, and come back
// on another core than the waker's. Both matter because the kernel, left alone,
// often puts a woken worker on its caller's core and leaves it there for tens of
// milliseconds when the other cores are busy at that very moment, be it only with
// Go's scheduler looking for work (which a wake through a channel sets off): the
// two then take turns at the pace of one.
type parker struct {
	asleep atomic.Uint32 // 1: asleep or about to be
	thread int
	avoid  int // processor that the thread's affinity leaves out, -1 for none
}

const (
	futexWaitPrivate = 128
	futexWakePrivate = 129
)

// allowed are the processors that the process could use when it started.
var allowed = func() (s unix.CPUSet) {
	if unix.SchedGetaffinity(0, &s) != nil {
		s.Zero()
	}
	return s
}()

// init is called on the thread that will sleep.
func (p *parker) init() { p.thread, p.avoid = unix.Gettid(), -1 }

// avoidCaller keeps the thread off the processor that the caller runs on, if
// the process may use another one.
func (p *parker) avoidCaller() {
	var cpu uint32
	if _, _, err := syscall.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); err != 0 || int(cpu) == p.avoid {
		return
	}
	s := allowed
	s.Clear(int(cpu))
	if s.Count() > 0 && unix.SchedSetaffinity(p.thread, &s) == nil {
		p.avoid = int(cpu)
	}
}

// prepare announces that sleep follows, unless cancel does.
func (p *parker) prepare() { p.asleep.Store(1) }

func (p *parker) cancel() { p.asleep.Store(0) }

// sleep returns after a wake since prepare.
func (p *parker) sleep() {
	for p.asleep.Load() == 1 {
		// Whatever it returns for, the word tells whether to go on sleeping.
		_, _, _ = syscall.Syscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&p.asleep)), futexWaitPrivate, 1, 0, 0, 0)
	}
}

// wake ends sleep if prepare has been called.
func (p *parker) wake() {
	if p.asleep.Load() == 1 && p.asleep.CompareAndSwap(1, 0) {
		p.avoidCaller()
		_, _, _ = syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(&p.asleep)), futexWakePrivate, 1, 0, 0, 0)
	}
}
