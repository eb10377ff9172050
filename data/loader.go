package data

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
)

// Part is a part of a Dataset.
type Part int

// The parts.
const (
	TrainPart Part = iota
	EvalPart
)

// LoaderOptions say what a step is made of. A ranking counts as one sequence, of
// all its answers' tokens, and is never cut. A step's sequences hang on
// everything but MicroRows and MicroTokens: however it is cut into
// micro-batches, an optimizer step sees the same sequences (see Pack for the
// one case in which that has to be asked for).
type LoaderOptions struct {
	Seed uint64
	// Sequential keeps the order of the files instead of shuffling.
	Sequential bool
	// Epochs ends the stream after so many times the part's sequences; 0 never
	// ends. The last step may be smaller than the others.
	Epochs float64
	// Limit, if above 0, ends the stream after so many sequences.
	Limit int

	// Batch is the number of sequences of a step. Either Batch or BatchTokens.
	Batch int
	// BatchTokens is the number of tokens of a step. Sequences are packed into
	// bins of Pack tokens, and a step is BatchTokens/Pack bins, at least one.
	BatchTokens int
	// Pack is the size of a bin; it must hold the longest sequence. 0 chooses an
	// even part of MicroTokens (of BatchTokens, if that is 0) of about four of
	// the longest sequences, which leaves little room unfilled. Name it to make a
	// step of BatchTokens hold the same sequences under any MicroTokens.
	Pack int
	// Window is how many sequences packing looks ahead; 0 means 256.
	Window int

	// MicroRows cuts a step into micro-batches of so many sequences.
	MicroRows int
	// MicroTokens cuts it into micro-batches of exactly so many tokens, the tail
	// filled with Pad. With neither, a step is one micro-batch.
	MicroTokens int
	Pad         int32
}

// Loader yields the steps of a run. It isn't safe for concurrent use; several
// Loaders may share a Dataset.
type Loader struct {
	d       *Dataset
	opt     LoaderOptions
	mix     *mixer
	pack    packer
	limit   uint64 // draws; 0: endless
	rows    int    // sequences of the part
	longest int    // in tokens, of what a batch holds as a sequence: of a ranking, an answer
	largest int    // in tokens, of what stays together: of a ranking, all of it
	print   string

	seqs   []uint32 // of the step
	bounds []int    // where the step's bins end in seqs
	micro  [][]uint32
	state  State // its counters only
}

// State is a Loader's position. Its JSON form is small: the window of packing
// and a few counters.
type State struct {
	// Fingerprint identifies the sequences and the order of drawing them.
	Fingerprint string   `json:"fingerprint"`
	Steps       uint64   `json:"steps"`
	Drawn       uint64   `json:"drawn"`             // from all sources
	Cursors     []uint64 `json:"cursors"`           // from each source; modulo its size, its place in its pass
	Waiting     []uint32 `json:"waiting,omitempty"` // drawn, but not in a step yet
	Epoch       float64  `json:"epoch"`             // for people; Restore doesn't read it

	Sequences uint64 `json:"sequences"` // in the steps so far; a ranking is one
	Tokens    uint64 `json:"tokens"`
	Trained   uint64 `json:"trained"`
	Slots     uint64 `json:"slots"` // tokens and filler
}

// NewLoader makes a loader that stands at the first step.
func NewLoader(d *Dataset, part Part, opt LoaderOptions) (*Loader, error) {
	lists, weights := d.train, d.weights
	if part == EvalPart {
		lists, weights = d.eval, nil
	}
	if d.use == UseKTO {
		return nil, fmt.Errorf("labelled answers can be read and shown, but no objective trains on them yet")
	}
	l := &Loader{d: d, opt: opt}
	for _, list := range lists {
		l.rows += len(list)
		for _, seq := range list {
			l.longest = max(l.longest, d.store.longestRow(seq))
			l.largest = max(l.largest, d.store.length(seq))
		}
	}
	if l.rows == 0 {
		return nil, fmt.Errorf("the data has no row for this: hold some out with eval, or bring more")
	}
	if err := l.checkSizes(); err != nil {
		return nil, err
	}
	l.mix = newMixer(d.sources, lists, weights, opt.Seed, !opt.Sequential)
	l.pack = packer{size: l.opt.Pack, window: l.opt.Window}
	if opt.Epochs > 0 {
		l.limit = max(1, uint64(math.Round(opt.Epochs*float64(l.rows))))
	}
	if opt.Limit > 0 && (l.limit == 0 || uint64(opt.Limit) < l.limit) {
		l.limit = uint64(opt.Limit)
	}
	l.print = l.fingerprint()
	return l, nil
}

// checkSizes refuses options that fit neither each other nor the rows, and
// fills in what is left to choose.
func (l *Loader) checkSizes() error {
	o := &l.opt
	for _, s := range []struct {
		key   string
		value int
	}{{"batch", o.Batch}, {"batch_tokens", o.BatchTokens}, {"pack", o.Pack}, {"window", o.Window},
		{"micro_rows", o.MicroRows}, {"micro_tokens", o.MicroTokens}, {"limit", o.Limit}} {
		if s.value < 0 || s.value > math.MaxInt32 {
			return fmt.Errorf("%s is %d: expected 0 to %d", s.key, s.value, math.MaxInt32)
		}
	}
	switch {
	case !(o.Epochs >= 0 && o.Epochs < 1e9):
		return fmt.Errorf("epochs is %v: expected 0 (endless) or more", o.Epochs)
	case (o.Batch > 0) == (o.BatchTokens > 0):
		return fmt.Errorf("batch is %d and batch_tokens is %d: give one of them", o.Batch, o.BatchTokens)
	case o.MicroRows > 0 && o.MicroTokens > 0:
		return fmt.Errorf("micro-batches have both rows (%d) and tokens (%d): give one of them", o.MicroRows, o.MicroTokens)
	case o.MicroTokens > 0 && o.MicroTokens < l.largest:
		what, cure := l.largestRow()
		return fmt.Errorf("%s, a micro-batch only %d: raise micro_tokens, or %s", what, o.MicroTokens, cure)
	}
	if o.Window == 0 {
		o.Window = 256
	}
	if o.Batch > 0 {
		return nil
	}
	if o.Pack == 0 {
		budget := o.BatchTokens
		if o.MicroTokens > 0 {
			budget = min(budget, o.MicroTokens)
		}
		o.Pack = budget / max(1, budget/(4*l.largest))
	}
	switch {
	case o.Pack < l.largest || o.BatchTokens < l.largest:
		what, cure := l.largestRow()
		return fmt.Errorf("%s; packs of %d and batches of %d tokens must hold it: raise pack and batch_tokens, or %s", what, o.Pack, o.BatchTokens, cure)
	case o.Pack > o.BatchTokens:
		o.Pack = o.BatchTokens
	}
	if o.MicroTokens > 0 && o.MicroTokens < o.Pack {
		return fmt.Errorf("packs of %d tokens don't fit into micro-batches of %d: raise micro_tokens or lower pack", o.Pack, o.MicroTokens)
	}
	return nil
}

// largestRow tells, for errors, what stays together, and how to make it smaller.
func (l *Loader) largestRow() (what, cure string) {
	if len(l.d.store.ends) > 0 {
		return fmt.Sprintf("the longest ranking, whose answers are computed together, has %d tokens", l.largest), "leave long rows out with max_tokens"
	}
	return fmt.Sprintf("the longest row has %d tokens", l.largest), "cut rows with max_tokens and too_long"
}

// Next fills step with the next step's micro-batches; false means that the
// stream has ended. The buffers of step are reused.
func (l *Loader) Next(step *Step) bool {
	if !l.draw() {
		return false
	}
	micro := l.cut()
	for len(step.Micro) < len(micro) {
		if cap(step.Micro) > len(step.Micro) {
			step.Micro = step.Micro[:len(step.Micro)+1] // an earlier step's buffers
			continue
		}
		step.Micro = append(step.Micro, Batch{})
	}
	step.Micro = step.Micro[:len(micro)]
	step.Sequences, step.Groups, step.Tokens, step.Trained = 0, 0, 0, 0
	for i, seqs := range micro {
		b := &step.Micro[i]
		b.reset()
		for _, seq := range seqs {
			b.add(&l.d.store, seq)
		}
		b.fill(l.opt.MicroTokens, l.longest, l.opt.Pad)
		step.Sequences += b.Rows
		step.Groups += b.groups()
		step.Tokens += b.Tokens
		step.Trained += b.Trained
		l.state.Slots += uint64(len(b.IDs))
	}
	l.state.Tokens += uint64(step.Tokens)
	l.state.Trained += uint64(step.Trained)
	return true
}

// draw chooses the next step's sequences.
func (l *Loader) draw() bool {
	l.seqs, l.bounds = l.seqs[:0], l.bounds[:0]
	if l.opt.Batch > 0 {
		for len(l.seqs) < l.opt.Batch {
			seq, ok := l.nextSeq()
			if !ok {
				break
			}
			l.seqs = append(l.seqs, seq)
		}
	} else {
		for range max(1, l.opt.BatchTokens/l.opt.Pack) {
			l.seqs = l.pack.next(l.seqs, l.d.store.length, l.nextSeq)
			l.bounds = append(l.bounds, len(l.seqs))
		}
	}
	if len(l.seqs) == 0 {
		return false
	}
	l.state.Steps++
	l.state.Sequences += uint64(len(l.seqs))
	return true
}

func (l *Loader) nextSeq() (uint32, bool) {
	if l.limit > 0 && l.mix.count >= l.limit {
		return 0, false
	}
	return l.mix.next(), true
}

// cut parts the step's sequences into micro-batches.
func (l *Loader) cut() [][]uint32 {
	l.micro = l.micro[:0]
	switch {
	case l.opt.MicroRows > 0:
		for at := 0; at < len(l.seqs); at += l.opt.MicroRows {
			l.micro = append(l.micro, l.seqs[at:min(at+l.opt.MicroRows, len(l.seqs))])
		}
	case l.opt.MicroTokens > 0 && l.opt.Batch > 0:
		l.micro = append(l.micro, binsOf(l.seqs, l.opt.MicroTokens, l.d.store.length)...)
	case l.opt.MicroTokens > 0:
		per := l.opt.MicroTokens / l.opt.Pack
		from := 0
		for i := per - 1; from < len(l.seqs); i += per {
			to := l.bounds[min(i, len(l.bounds)-1)]
			l.micro = append(l.micro, l.seqs[from:to])
			from = to
		}
	default:
		l.micro = append(l.micro, l.seqs)
	}
	return l.micro
}

// State is the position after the last step that Next gave.
func (l *Loader) State() State {
	s := l.state
	s.Fingerprint = l.print
	s.Drawn = l.mix.count
	s.Cursors = append([]uint64(nil), l.mix.drawn...)
	s.Waiting = append([]uint32(nil), l.pack.waiting...)
	s.Epoch = l.Epoch()
	return s
}

// Restore puts the loader where State was taken: the very steps follow that
// would have followed there. It refuses a State of other data.
func (l *Loader) Restore(s State) error {
	if s.Fingerprint != l.print {
		return fmt.Errorf("the saved position is of other data: the files, the tokenizer, the seed or the data options have changed since; start a new run, or restore them")
	}
	var sum uint64
	for _, c := range s.Cursors {
		sum += c
	}
	bad := len(s.Cursors) != len(l.mix.drawn) || sum != s.Drawn
	if !bad {
		periods, t := s.Drawn/l.mix.total, s.Drawn%l.mix.total
		for i, w := range l.mix.weights {
			c := s.Cursors[i]
			bad = bad || c < periods*w || c > periods*w+w || w == 0 && c > 0 || t == 0 && c != periods*w
		}
	}
	for _, seq := range s.Waiting {
		bad = bad || int64(seq) >= int64(len(l.d.store.seqs))
	}
	if bad {
		return fmt.Errorf("the saved position in the data is damaged: its cursors don't add up; use another checkpoint")
	}
	l.state = s
	l.mix.count = s.Drawn
	copy(l.mix.drawn, s.Cursors)
	l.pack.waiting = append(l.pack.waiting[:0], s.Waiting...)
	return nil
}

// Epoch is how often the part's sequences have gone by, as a mean over sources.
func (l *Loader) Epoch() float64 {
	return float64(l.mix.count-uint64(len(l.pack.waiting))) / float64(l.rows)
}

// FillRate is the share of real tokens among the tokens and filler so far.
func (l *Loader) FillRate() float64 {
	if l.state.Slots == 0 {
		return 1
	}
	return float64(l.state.Tokens) / float64(l.state.Slots)
}

// CountSteps is how many steps the stream has from its beginning; 0 if it is
// endless. Packed steps are counted by packing lengths, without tokens.
func (l *Loader) CountSteps() int {
	switch {
	case l.limit == 0:
		return 0
	case l.opt.Batch > 0:
		return int((l.limit + uint64(l.opt.Batch) - 1) / uint64(l.opt.Batch))
	}
	dry := *l
	m := *l.mix
	m.count = 0
	m.drawn = make([]uint64, len(m.drawn))
	m.orders, m.passes = make([][]uint32, len(m.orders)), make([]uint64, len(m.passes))
	dry.mix = &m
	dry.pack.waiting, dry.seqs, dry.bounds = nil, nil, nil
	steps := 0
	for dry.draw() {
		steps++
	}
	return steps
}

// fingerprint hashes what the order of sequences hangs on.
func (l *Loader) fingerprint() string {
	h := fnv.New128a()
	number := func(n uint64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		h.Write(b[:])
	}
	number(l.opt.Seed)
	number(uint64(len(l.mix.lists)))
	if l.opt.Sequential {
		number(1)
	}
	for i, list := range l.mix.lists {
		h.Write([]byte(l.mix.names[i]))
		number(l.mix.weights[i])
		number(uint64(len(list)))
		for _, seq := range list {
			ref := &l.d.store.seqs[seq]
			number(ref.hash)
			number(uint64(ref.length))
			for _, p := range l.d.store.partsOf(seq) {
				number(uint64(math.Float32bits(p.score))) // not in the hash
			}
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}
