// Package engine generates text with a model: requests come and go while a batch
// of them advances token by token over a cache of keys and values. It serves
// chat, generation, evaluation and PPO's rollouts alike, on the very weights that
// a trainer holds.
//
// Submit takes token ids and Settings and delivers each new token with its
// log-probability to a sink; Step advances everything by one token. The scheduler
// never looks at a clock: the same requests, submitted between the same steps,
// give the same tokens. Each request draws from its own counter-based stream, so
// that its tokens depend on its neighbours by rounding alone: a device's kernels
// may add in another order for another number of tokens in the step.
package engine

import (
	"errors"
	"fmt"
	"sync"

	"ringtail/autograd"
	"ringtail/model"
	"ringtail/rng"
	"ringtail/tensor"
)

// Options size an engine.
type Options struct {
	// Slots is how many requests advance together. Default 8.
	Slots int
	// Capacity is the context in tokens: prompt and answer. Default: the model's
	// own, at most 4096.
	Capacity int
	// Chunk bounds the tokens of one step; longer prompts are read in several. Default 256.
	Chunk int
	// EOS are the tokens that end an answer. Default: the model's.
	EOS []int32
	// ReusePrefix keeps the cache of finished requests for prompts that begin as
	// they did, as a chat's next turn does. Not for weights that change: call Forget then.
	ReusePrefix bool
	// Arena is the memory for activations, shared with whatever else runs on the
	// device between steps; nil: the engine's own.
	Arena *autograd.Arena
	// NewText makes an incremental decoder of token ids; needed for stop strings and Event.Text.
	NewText func() TextDecoder
}

// TextDecoder turns a stream of ids into text, never emitting part of a character.
type TextDecoder interface {
	Push(id int32) string
	Flush() string
}

// Finish says why a request ended.
type Finish string

// The reasons: an end-of-sequence token, stop id or stop string; MaxTokens or the context's end; Cancel;
// logits without a finite number.
const (
	Running   Finish = ""
	Stop      Finish = "stop"
	Length    Finish = "length"
	Cancelled Finish = "cancelled"
	Failed    Finish = "error"
)

// Event is what a sink receives: one for each token, the last with Finish set.
// The event of a Cancel has no token (ID −1).
type Event struct {
	ID      int32
	LogProb float32 // of the token under the model, before temperature (see Settings.TemperedLogProbs) and cuts
	Text    string  // text that became certain with this token
	Finish  Finish
}

// Stats counts what an engine did.
type Stats struct {
	Running, Waiting                      int
	PromptTokens, CachedTokens, NewTokens int // CachedTokens: of prompts, not computed again
	Steps, Finished, Cancelled            int
	CacheBytes                            int
}

// ErrContext tells that a prompt doesn't fit.
var ErrContext = errors.New("prompt longer than the context")

// ErrNotFinite tells that a model computes no probabilities, only NaN.
var ErrNotFinite = errors.New("the model's logits hold no finite number")

// Engine advances requests. Submit, Cancel and Stats may be called from any
// goroutine; Step from one at a time.
type Engine struct {
	m    *model.Model
	dev  tensor.Device
	opt  Options
	kv   *model.Cache
	seqs []*sequence // by slot; nil or finished where free

	mu      sync.Mutex
	waiting []*Request
	stats   Stats

	arena    *autograd.Arena
	programs map[[2]int]*program
	rows     []tensor.SampleRow
	order    []int // slots by turn
	turn     int   // requests admitted so far
}

// sequence is what a slot's cache holds.
type sequence struct {
	ids    []int32 // tokens in the cache, and after them those still to be read
	cached int     // how many of ids are in the cache
	turn   int     // when its request was admitted
	req    *Request
}

// maxCapacity is beyond any model's context, and small enough that sizes of caches
// don't overflow.
const maxCapacity = 1 << 28

// New makes an engine for a model. The model may be trained between steps.
func New(m *model.Model, opt Options) (*Engine, error) {
	if opt.Slots <= 0 {
		opt.Slots = 8
	}
	if opt.Capacity <= 0 {
		opt.Capacity = min(m.Config.MaxPositions, 4096)
	}
	opt.Capacity = max(opt.Capacity, bucketStep)
	if opt.Chunk <= 0 {
		opt.Chunk = 256
	}
	opt.Chunk = max(opt.Chunk, opt.Slots)
	if opt.EOS == nil {
		for _, id := range m.Config.EOS {
			opt.EOS = append(opt.EOS, int32(id))
		}
	}
	if opt.Capacity > maxCapacity {
		return nil, fmt.Errorf("a context of %d tokens is absurd (more than %d)", opt.Capacity, maxCapacity)
	}
	kv, err := m.NewCache(opt.Slots+1, opt.Capacity) // one slot more for filler tokens
	if err != nil {
		return nil, fmt.Errorf("keys and values of %d sequences with a context of %d tokens: %w", opt.Slots, opt.Capacity, err)
	}
	e := &Engine{m: m, dev: m.Device(), opt: opt, kv: kv, seqs: make([]*sequence, opt.Slots), arena: opt.Arena,
		programs: map[[2]int]*program{}}
	if e.arena == nil {
		e.arena = autograd.NewArena(m.Device())
	}
	return e, nil
}

// Capacity is the number of tokens that a prompt and its answer may have together.
func (e *Engine) Capacity() int { return e.opt.Capacity }

// Close frees the cache. Requests still running get no more events.
func (e *Engine) Close() {
	e.kv.Free()
	if e.opt.Arena == nil {
		e.arena.Free()
	}
	for _, p := range e.programs {
		p.free()
	}
	e.programs = nil
}

// Stats is a snapshot of the counters.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.stats
	s.Waiting = len(e.waiting)
	s.CacheBytes = e.kv.Bytes()
	return s
}

// Forget drops cached prefixes: call it when weights have changed.
func (e *Engine) Forget() {
	for i, s := range e.seqs {
		if s != nil && s.req == nil {
			e.seqs[i] = nil
		}
	}
}

// Request is a submitted prompt.
type Request struct {
	prompt   []int32
	settings Settings
	sink     func(Event)
	stream   *rng.Stream
	text     *stopper
	seen     []int32
	seenSet  map[int32]bool
	banned   []int32
	made     int

	mu        sync.Mutex
	cancelled bool
}

// Submit queues a prompt. sink is called by Step, on its goroutine, for each
// token; it must not call the engine's Step.
func (e *Engine) Submit(ids []int32, s Settings, sink func(Event)) (*Request, error) {
	if len(ids) == 0 {
		return nil, errors.New("an empty prompt: give at least one token")
	}
	if len(ids) >= e.opt.Capacity {
		return nil, fmt.Errorf("%w: %d tokens, context %d", ErrContext, len(ids), e.opt.Capacity)
	}
	for _, id := range ids {
		if id < 0 || int(id) >= e.m.Config.Vocab {
			return nil, fmt.Errorf("prompt holds token %d; the model's vocabulary has %d", id, e.m.Config.Vocab)
		}
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	r := &Request{prompt: append([]int32(nil), ids...), settings: s, sink: sink, stream: rng.New(s.Seed, rng.Sampling, 0)}
	if e.opt.NewText != nil {
		r.text = &stopper{decode: e.opt.NewText(), stops: s.Stop}
	} else if len(s.Stop) > 0 {
		return nil, errors.New("stop strings need a tokenizer; this engine has none")
	}
	if s.penalised() {
		r.seenSet = map[int32]bool{}
		for _, id := range ids {
			r.saw(id)
		}
	}
	e.mu.Lock()
	e.waiting = append(e.waiting, r)
	e.mu.Unlock()
	return r, nil
}

// saw records a token for the repetition penalty.
func (r *Request) saw(id int32) {
	if r.seenSet != nil && !r.seenSet[id] {
		r.seenSet[id] = true
		r.seen = append(r.seen, id)
	}
}

// Cancel ends a request at the next step; its sink gets an event with Finish Cancelled.
func (e *Engine) Cancel(r *Request) {
	r.mu.Lock()
	r.cancelled = true
	r.mu.Unlock()
}

func (r *Request) isCancelled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cancelled
}

// Run steps until no request is left.
func (e *Engine) Run() error {
	for {
		more, err := e.Step()
		if err != nil || !more {
			return err
		}
	}
}

// admit gives waiting requests free slots, in their order, and drops those that
// were cancelled.
func (e *Engine) admit() {
	e.mu.Lock()
	var dropped []*Request
	waiting := e.waiting[:0]
	full := false
	for _, r := range e.waiting {
		if r.isCancelled() {
			dropped = append(dropped, r)
			e.stats.Cancelled++
			continue
		}
		slot, shared := -1, 0
		if !full {
			slot, shared = e.freeSlot(r.prompt)
		}
		if slot < 0 {
			full = true
			waiting = append(waiting, r)
			continue
		}
		e.turn++
		e.seqs[slot] = &sequence{ids: append([]int32(nil), r.prompt...), cached: shared, turn: e.turn, req: r}
		e.stats.PromptTokens += len(r.prompt)
		e.stats.CachedTokens += shared
		e.stats.Running++
	}
	clear(e.waiting[len(waiting):])
	e.waiting = waiting
	e.mu.Unlock()
	for _, r := range dropped { // a sink may call Submit
		r.sink(Event{ID: -1, Finish: Cancelled})
	}
}

// freeSlot finds a slot without a running request: the one whose cache shares
// the longest prefix with the prompt, else an empty one, else the one that was
// used longest ago.
func (e *Engine) freeSlot(prompt []int32) (slot, shared int) {
	slot = -1
	for i, s := range e.seqs {
		if s != nil && s.req != nil {
			continue
		}
		n := 0
		if s != nil && e.opt.ReusePrefix {
			for n < s.cached && n < len(prompt)-1 && s.ids[n] == prompt[n] {
				n++
			}
		}
		older := slot >= 0 && n == shared && e.seqs[slot] != nil && (s == nil || s.turn < e.seqs[slot].turn)
		if slot < 0 || n > shared || older {
			slot, shared = i, n
		}
	}
	return slot, shared
}

// finish ends a slot's request; the cache stays for prefixes.
func (e *Engine) finish(slot int, ev Event) {
	s := e.seqs[slot]
	r := s.req
	s.req = nil
	if !e.opt.ReusePrefix {
		e.seqs[slot] = nil
	}
	e.mu.Lock()
	e.stats.Running--
	if ev.Finish == Cancelled {
		e.stats.Cancelled++
	} else {
		e.stats.Finished++
	}
	e.mu.Unlock()
	r.sink(ev)
}
