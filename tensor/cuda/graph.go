package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// graph is a captured sequence of operations, launched as one.
type graph struct {
	d    *Device
	exec uintptr
}

// Capture records what f enqueues, without running it, as a graph. What f does must
// have run once before, so that workspaces and plans are made; f must not read, write
// or allocate.
func (d *Device) Capture(f func()) (tensor.Graph, error) {
	if err := d.Sync(); err != nil {
		return nil, err
	}
	d.enter()
	defer d.leave()
	const relaxed = 2
	if err := check("cuStreamBeginCapture", call(cu.beginCapture, d.stream, relaxed)); err != nil {
		return nil, err
	}
	space := d.memory.space
	d.graphs++
	d.capture = true
	f()
	d.capture = false
	var g uintptr
	err := check("cuStreamEndCapture", call(cu.endCapture, d.stream, address(&g)))
	if d.err != nil {
		if err = d.err; !Sticky(err) {
			d.err = nil
		}
	}
	if err == nil && space != d.memory.space {
		err = fmt.Errorf("the workspace grew while a graph was captured")
	}
	if err != nil {
		if g != 0 {
			call(cu.graphDestroy, g)
		}
		d.graphs--
		return nil, err
	}
	out := &graph{d: d}
	err = check("cuGraphInstantiate", call(cu.graphInstantiate, address(&out.exec), g, 0))
	call(cu.graphDestroy, g)
	if err != nil {
		d.graphs--
		return nil, err
	}
	return out, nil
}

// Launch enqueues everything that was captured.
func (g *graph) Launch() {
	if g.d.failed() {
		return
	}
	g.d.enter()
	defer g.d.leave()
	g.d.fail(check("cuGraphLaunch", call(cu.graphLaunch, g.exec, g.d.stream)))
}

// Free gives the graph back.
func (g *graph) Free() {
	if g.exec == 0 {
		return
	}
	g.d.enter()
	defer g.d.leave()
	call(cu.graphExecDestroy, g.exec)
	g.exec = 0
	g.d.graphs--
}
