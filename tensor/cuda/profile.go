package cuda

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
)

// profile times every kernel, product and copy by a pair of events. Work that is timed so
// runs plainly, not as a graph, and with gaps of a few microseconds between its parts.
type profile struct {
	spans []span
}

// span is one timed piece of work.
type span struct {
	name       string
	start, end uintptr // events
	at, took   float64 // milliseconds from the first
}

// StartProfile begins to time everything that is enqueued.
func (d *Device) StartProfile() { d.profile = &profile{} }

// timed starts the clock of a piece of work and returns what stops it; nil without a profile.
// The context must be current.
func (d *Device) timed(name string) func() {
	p := d.profile
	if p == nil {
		return nil
	}
	s := span{name: name}
	for _, e := range []*uintptr{&s.start, &s.end} {
		d.fail(check("cuEventCreate", call(cu.eventCreate, address(e), 0)))
	}
	call(cu.eventRecord, s.start, d.stream)
	return func() {
		call(cu.eventRecord, s.end, d.stream)
		p.spans = append(p.spans, s)
	}
}

// Timing is what all pieces of work of one name took together.
type Timing struct {
	Name   string  `json:"name"`
	Count  int     `json:"count"`
	Millis float64 `json:"ms"`
}

// StopProfile ends the profile and lists what took the time, the most first. With trace,
// it writes the pieces there in the Chrome trace event format.
func (d *Device) StopProfile(trace io.Writer) ([]Timing, error) {
	p := d.profile
	d.profile = nil
	if err := d.Sync(); err != nil {
		return nil, err
	}
	d.enter()
	defer d.leave()
	byName := map[string]*Timing{}
	for i := range p.spans {
		s := &p.spans[i]
		s.at, s.took = elapsed(p.spans[0].start, s.start), elapsed(s.start, s.end)
		t := byName[s.name]
		if t == nil {
			t = &Timing{Name: s.name}
			byName[s.name] = t
		}
		t.Count++
		t.Millis += s.took
	}
	for _, s := range p.spans {
		call(cu.eventDestroy, s.start)
		call(cu.eventDestroy, s.end)
	}
	var out []Timing
	for _, t := range byName {
		out = append(out, *t)
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Millis > out[j].Millis || out[i].Millis == out[j].Millis && out[i].Name < out[j].Name
	})
	if trace == nil {
		return out, nil
	}
	type event struct {
		Name  string  `json:"name"`
		Phase string  `json:"ph"`
		At    float64 `json:"ts"` // microseconds
		Took  float64 `json:"dur"`
		PID   int     `json:"pid"`
		TID   int     `json:"tid"`
	}
	events := []event{}
	for _, s := range p.spans {
		events = append(events, event{Name: s.name, Phase: "X", At: 1000 * s.at, Took: 1000 * s.took})
	}
	if err := json.NewEncoder(trace).Encode(map[string]any{"traceEvents": events, "displayTimeUnit": "ms"}); err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	return out, nil
}

// elapsed is the time between two events, in milliseconds.
func elapsed(from, to uintptr) float64 {
	var ms float32
	call(cu.eventElapsed, address(&ms), from, to)
	return float64(ms)
}
