package train

import (
	"ringtail/autograd"
	"ringtail/tensor"
)

// captured is work on the device that is done again and again on the same memory. A
// device that records graphs runs it plainly at first (kernels are loaded, plans made,
// workspaces found), and as a graph from the second time on: one launch in place of
// hundreds. A device's arena may move as larger programs are compiled; then it is
// recorded anew.
type captured struct {
	work  func()
	arena *autograd.Arena // nil: it doesn't work in one
	at    int             // the arena's generation
	runs  int
	graph tensor.Graph
	plain bool // it can't be recorded
}

// run enqueues the work.
func (c *captured) run(dev tensor.Device) {
	recorder, ok := dev.(tensor.Capturer)
	if !ok || c.plain {
		c.work()
		return
	}
	if c.arena != nil && c.arena.Generation() != c.at {
		c.free()
		c.at, c.runs = c.arena.Generation(), 0
	}
	c.runs++
	switch {
	case c.graph != nil:
		c.graph.Launch()
		return
	case c.runs > 1:
		var err error
		if c.graph, err = recorder.Capture(c.work); err == nil {
			c.graph.Launch()
			return
		}
		c.plain, c.graph = true, nil
	}
	c.work()
}

// compiled is a program whose passes are recorded where the device can.
type compiled struct {
	prog                    *autograd.Program
	dev                     tensor.Device
	forward, backward, both captured
}

// compile makes a tape's program.
func compile(tape *autograd.Tape, arena *autograd.Arena, opt autograd.Options) (*compiled, error) {
	p, err := tape.Compile(arena, opt)
	if err != nil {
		return nil, err
	}
	return &compiled{prog: p, dev: tape.Device(), forward: captured{work: p.Forward, arena: arena}, backward: captured{work: p.Backward, arena: arena},
		both: captured{work: func() { p.Forward(); p.Backward() }, arena: arena}}, nil
}

// Forward enqueues the forward pass.
func (c *compiled) Forward() {
	c.forward.run(c.dev)
	c.prog.Launched()
}

// Backward enqueues the backward pass of the Forward before it.
func (c *compiled) Backward() { c.backward.run(c.dev) }

// ForwardBackward enqueues both.
func (c *compiled) ForwardBackward() {
	c.both.run(c.dev)
	c.prog.Launched()
}

func (c *compiled) free() {
	for _, x := range []*captured{&c.forward, &c.backward, &c.both} {
		x.free()
	}
}

func (c *captured) free() {
	if c.graph != nil {
		c.graph.Free()
		c.graph = nil
	}
}
