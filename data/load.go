package data

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
)

// Dataset is everything that is trained and evaluated on, encoded.
type Dataset struct {
	Stats *Stats

	store   store
	files   []string
	specs   []Source
	use     Use
	sources []string   // names; those of separate evaluation sources last
	weights []float64  // by source; all 0 where rows count alike
	train   [][]uint32 // sequences by source
	eval    [][]uint32
}

// Load reads, converts and encodes all sources for UseSFT, UsePretrain,
// UseRankings, UsePrompts or UseKTO. Rows keep the order of the files whatever the number
// of workers; the text isn't kept. The error names the file and row; it is at most
// two lines.
//
// A ranking is one sequence, its answers end to end, each with the prompt before
// it and with its end-of-turn token as the last (see Sequence.Answers and
// Batch.Groups). A prompt ends where the assistant begins to answer, and none of
// it is trained on.
func Load(ctx context.Context, sources []Source, opt Options, enc Encoder) (*Dataset, error) {
	opt, err := opt.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := opt.checkEncoding(); err != nil {
		return nil, err
	}
	b := &builder{hashes: make(map[[16]byte]bool)}
	p, err := newPipeline(sources, opt, newRowEncoder(enc, opt))
	if err != nil {
		return nil, err
	}
	if err := p.run(ctx, b.take); err != nil {
		return nil, err
	}
	return b.finish(p)
}

// ReadRows reads and converts all sources for any use, without encoding. Rows
// hold their text; use it where that is wanted (prompts, pairs, ranking pages)
// or where there is no tokenizer yet. Length limits don't apply; rows of the
// held-out split are marked.
func ReadRows(ctx context.Context, sources []Source, opt Options) ([]Row, *Stats, error) {
	opt, err := opt.withDefaults()
	if err != nil {
		return nil, nil, err
	}
	p, err := newPipeline(sources, opt, nil)
	if err != nil {
		return nil, nil, err
	}
	b := &builder{hashes: make(map[[16]byte]bool)}
	var rows []Row
	var sides []uint64
	err = p.run(ctx, func(p *pipeline, src int, o outcome) error {
		keep, err := b.judge(p, src, o)
		if keep {
			o.row.Source, o.row.HeldOut = p.sources[src].Name, p.stats.Sources[src].Eval
			rows, sides = append(rows, o.row), append(sides, o.side)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	if len(rows) == 0 {
		return nil, nil, p.emptyErr()
	}
	held, err := heldOut(b.rows, opt.Eval)
	if err != nil {
		return nil, nil, err
	}
	for i := range rows {
		rows[i].HeldOut = rows[i].HeldOut || held(sides[i])
	}
	p.stats.finish()
	return rows, p.stats, nil
}

// ErrEnough ends ScanRows without being an error.
var ErrEnough = errors.New("enough rows")

// ScanRows reads and converts all sources as ReadRows does, but hands each row to
// each instead of keeping it, until that returns an error. Rows of the held-out
// split aren't marked, for that is known only at the end.
func ScanRows(ctx context.Context, sources []Source, opt Options, each func(Row) error) (*Stats, error) {
	opt, err := opt.withDefaults()
	if err != nil {
		return nil, err
	}
	p, err := newPipeline(sources, opt, nil)
	if err != nil {
		return nil, err
	}
	b := &builder{hashes: make(map[[16]byte]bool)}
	err = p.run(ctx, func(p *pipeline, src int, o outcome) error {
		keep, err := b.judge(p, src, o)
		if keep {
			o.row.Source, o.row.HeldOut = p.sources[src].Name, p.stats.Sources[src].Eval
			err = each(o.row)
		}
		return err
	})
	if err != nil && !errors.Is(err, ErrEnough) {
		return nil, err
	}
	if err == nil && len(b.hashes) == 0 {
		return nil, p.emptyErr()
	}
	p.stats.finish()
	return p.stats, nil
}

// newPipeline checks the sources. Separate evaluation sources are read first,
// so that rows of the training files that equal theirs can be left out.
func newPipeline(sources []Source, opt Options, enc *rowEncoder) (*pipeline, error) {
	p := &pipeline{opt: opt, enc: enc, stats: &Stats{}, workers: opt.Workers}
	if p.workers <= 0 {
		p.workers = runtime.GOMAXPROCS(0)
	}
	if len(sources) == 0 {
		return nil, fmt.Errorf("no data: name at least one file")
	}
	names := map[string]bool{}
	weighted := 0
	for i, s := range append(sources[:len(sources):len(sources)], opt.Eval.Sources...) {
		var err error
		if s, err = s.withDefaults(); err != nil {
			return nil, err
		}
		if s.Files, err = expandFiles(s.Files, s.splitsOf(i >= len(sources))); err != nil {
			return nil, err
		}
		// Two sources may be called alike (train.jsonl in two folders); their
		// shuffles and statistics need names of their own.
		base := s.Name
		for n := 2; names[s.Name]; n++ {
			s.Name = fmt.Sprintf("%s-%d", base, n)
		}
		names[s.Name] = true
		if s.Weight > 0 && i < len(sources) {
			weighted++
		}
		p.sources = append(p.sources, s)
		st := newSourceStats(s.Name)
		st.Eval = i >= len(sources)
		p.stats.Sources = append(p.stats.Sources, st)
		for _, f := range s.Files {
			p.files = append(p.files, f)
			if info, err := os.Stat(f); err == nil {
				p.totalBytes += info.Size()
			}
		}
	}
	if weighted > 0 && weighted < len(sources) {
		return nil, fmt.Errorf("%d of %d data sources have a weight: give one to all or to none", weighted, len(sources))
	}
	if len(p.sources) > math.MaxUint16 || len(p.files) > math.MaxUint16 {
		return nil, fmt.Errorf("%d data files: expected at most %d; join some", len(p.files), math.MaxUint16)
	}
	p.trainSources = len(sources)
	return p, nil
}

// emptyErr says why nothing is left.
func (p *pipeline) emptyErr() error {
	total := newSourceStats("")
	for _, s := range p.stats.Sources {
		total.merge(s)
	}
	var why []string
	for _, r := range sortedKeys(total.Skipped) {
		why = append(why, fmt.Sprintf("%d %s (%s)", total.Skipped[r].Count, r, total.Skipped[r].Examples[0]))
	}
	if len(why) > 3 {
		why = append(why[:3], "...")
	}
	return fmt.Errorf("no row is left of the %d in %s: %s", total.Records, strings.Join(p.files[:min(3, len(p.files))], ", "), strings.Join(why, "; "))
}

// builder collects outcomes, in order, into a dataset.
type builder struct {
	store  store
	hashes map[[16]byte]bool // content seen; true if in a separate evaluation source
	rows   []uint64          // the side (see outcome) of each row of the training sources
	sides  []uint64          // that of each sequence, where it isn't the sequence's hash
}

// judge counts an outcome and says whether its row is used.
func (b *builder) judge(p *pipeline, src int, o outcome) (keep bool, err error) {
	st := p.stats.Sources[src]
	for _, n := range o.row.Notes {
		st.Notes[n]++
	}
	if o.ties > 0 {
		st.Notes[NoteTie] += o.ties
	}
	if o.res.full > 0 {
		st.length(o.res.full, o.row.Where)
	}
	if o.res.tooLong {
		st.TooLong++
	}
	if e := o.err; e != nil {
		fatal := e.Reason.mistake() && p.opt.BadRows != BadRowsSkip || !e.Reason.filtered() && p.opt.BadRows == BadRowsStrict
		if fatal || e.Reason == ReasonTooLong && p.opt.TooLong == TooLongError {
			return false, e
		}
		st.skip(e.Reason, e.Error())
		return false, nil
	}
	held, seen := b.hashes[o.hash]
	switch {
	case seen && held && !st.Eval:
		st.skip(ReasonHeldOut, o.row.Where.String())
		return false, nil
	case seen:
		st.Duplicates++
		if p.opt.Dedup {
			st.skip(ReasonDuplicate, o.row.Where.String())
			return false, nil
		}
	default:
		b.hashes[o.hash] = st.Eval
	}
	st.Rows++
	if !st.Eval {
		b.rows = append(b.rows, o.side)
	}
	return true, nil
}

// take adds an outcome's sequences to the store.
func (b *builder) take(p *pipeline, src int, o outcome) error {
	keep, err := b.judge(p, src, o)
	if !keep {
		return err
	}
	st := p.stats.Sources[src]
	st.CutTokens += int64(o.res.cut)
	for _, seq := range o.res.seqs {
		if len(b.store.seqs) == math.MaxUint32 {
			return fmt.Errorf("more than %d sequences: train on fewer files at once", math.MaxUint32)
		}
		b.store.add(seq, seqRef{source: uint16(src), file: uint16(o.file), hash: hash64(o.hash), verdict: seq.verdict,
			line: uint32(o.row.Where.Line), element: uint32(o.row.Where.Element)})
		if p.opt.Use.byPrompt() {
			b.sides = append(b.sides, o.side)
		}
		st.Sequences++
		st.Tokens += int64(len(seq.ids))
		st.Trained += int64(seq.trainedCount())
	}
	return nil
}

// finish parts the sequences into those trained on and those held out.
func (b *builder) finish(p *pipeline) (*Dataset, error) {
	d := &Dataset{Stats: p.stats, store: b.store, files: p.files, specs: p.sources, use: p.opt.Use}
	held, err := heldOut(b.rows, p.opt.Eval)
	if err != nil {
		return nil, err
	}
	d.train = make([][]uint32, len(p.sources))
	d.eval = make([][]uint32, len(p.sources))
	trained := 0
	for i := range d.store.seqs {
		ref := &d.store.seqs[i]
		side := ref.hash
		if len(b.sides) > 0 {
			side = b.sides[i]
		}
		if p.stats.Sources[ref.source].Eval || held(side) {
			d.eval[ref.source] = append(d.eval[ref.source], uint32(i))
			p.stats.Sources[ref.source].HeldOut++
			continue
		}
		d.train[ref.source] = append(d.train[ref.source], uint32(i))
		trained++
	}
	if trained == 0 {
		return nil, p.emptyErr()
	}
	for i, s := range p.sources {
		d.sources = append(d.sources, s.Name)
		w := s.Weight
		if i >= p.trainSources {
			w = 0
		}
		d.weights = append(d.weights, w)
		if w > 0 && len(d.train[i]) == 0 {
			return nil, fmt.Errorf("data source %q has a weight but no row to train on", s.Name)
		}
	}
	p.stats.finish()
	return d, nil
}

// Sources lists the sources' names; a Batch's Sources index them.
func (d *Dataset) Sources() []string { return append([]string(nil), d.sources...) }

// Sequences is how many sequences are trained on, and how many held out. A ranking
// is one.
func (d *Dataset) Sequences() (train, eval int) {
	for i := range d.train {
		train += len(d.train[i])
		eval += len(d.eval[i])
	}
	return train, eval
}

// MaxLength is the longest sequence's number of tokens; of rankings, the longest
// answer's with its prompt. It is the model's context that must hold them.
func (d *Dataset) MaxLength() int {
	longest := 0
	for i := range d.store.seqs {
		longest = max(longest, d.store.longestRow(uint32(i)))
	}
	return longest
}

// MaxGroup is the number of tokens of the longest ranking, all of its answers
// counted; for other uses it is MaxLength. A micro-batch must hold them.
func (d *Dataset) MaxGroup() int {
	longest := 0
	for i := range d.store.seqs {
		longest = max(longest, d.store.length(uint32(i)))
	}
	return longest
}

// Sequence is one encoded sequence, for looking at.
type Sequence struct {
	IDs     []int32
	Trained []bool
	Answers []Answer // of a ranking, best first; they make up the sequence
	Label   *bool    // of a labelled answer
	Source  string
	Where   Location
	HeldOut bool
}

// Answer is one of a ranking's answers.
type Answer struct {
	From, To int // its tokens in Sequence.IDs, the prompt's before it included
	Rank     int // from 1; equal ranks are ties
	Score    float32
	Scored   bool // says that the file has scores
}

// Sequence returns sequence i in the order of the files, held-out ones included;
// ok is false behind the last.
func (d *Dataset) Sequence(i int) (seq Sequence, ok bool) {
	if i < 0 || i >= len(d.store.seqs) {
		return seq, false
	}
	ref := d.store.seqs[i]
	seq = Sequence{
		IDs:    append([]int32(nil), d.store.ids(uint32(i))...),
		Source: d.sources[ref.source],
		Where:  Location{File: d.files[ref.file], Line: int(ref.line), Element: int(ref.element)},
	}
	seq.Trained = make([]bool, len(seq.IDs))
	for t := range seq.Trained {
		seq.Trained[t] = d.store.trained(uint32(i), t)
	}
	if ref.verdict != 0 {
		good := ref.verdict > 0
		seq.Label = &good
	}
	parts := d.store.partsOf(uint32(i))
	for k, p := range parts {
		seq.Answers = append(seq.Answers, Answer{From: int(p.start), To: d.store.partEnd(uint32(i), parts, k),
			Rank: int(p.rank), Score: p.score, Scored: p.scored})
	}
	list := d.eval[ref.source]
	for low, high := 0, len(list); low < high; {
		mid := (low + high) / 2
		switch v := int(list[mid]); {
		case v == i:
			seq.HeldOut = true
			return seq, true
		case v < i:
			low = mid + 1
		default:
			high = mid
		}
	}
	return seq, true
}
