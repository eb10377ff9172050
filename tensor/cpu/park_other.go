//go:build !linux

package cpu

import "sync/atomic"

// parker lets one goroutine sleep until another wakes it.
type parker struct {
	asleep atomic.Bool
	signal chan struct{}
}

// init is called on the goroutine that will sleep, before anyone may wake it.
func (p *parker) init() { p.signal = make(chan struct{}, 1) }

// prepare announces that sleep follows, unless cancel does.
func (p *parker) prepare() { p.asleep.Store(true) }

// cancel takes prepare back. Whoever was faster has sent a signal, or is about to.
func (p *parker) cancel() {
	if !p.asleep.Swap(false) {
		<-p.signal
	}
}

// sleep returns after a wake since prepare.
func (p *parker) sleep() { <-p.signal }

// wake ends sleep if prepare has been called.
func (p *parker) wake() {
	if p.asleep.Load() && p.asleep.Swap(false) {
		p.signal <- struct{}{}
	}
}
