package data

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
)

// pipeline reads files in order, converts and encodes their records on all
// cores, and hands the outcomes over in the order of the files.
type pipeline struct {
	sources      []Source
	trainSources int // sources behind these are for evaluation only
	files        []string
	opt          Options
	enc          *rowEncoder // nil: rows stay text
	stats        *Stats
	workers      int
	totalBytes   int64
}

// outcome is what one row became: a row, its sequences, or an error.
type outcome struct {
	row  Row
	res  result
	hash [16]byte
	side uint64 // decides on which side of the held-out split the row lies
	file int
	ties int
	err  *RowError
}

// chunk is a piece of work: some records of one file.
type chunk struct {
	source, file int
	conv         *Converter
	records      []record
	count        int  // of records
	first        bool // of its file

	outcomes []outcome
	fatal    error // the file's error, behind the records
	bytes    int64 // read of all files when the chunk was filled
	done     chan struct{}
}

// record is a Record, or why there is none.
type record struct {
	Record
	err *RowError
}

const (
	chunkRecords = 64
	chunkBytes   = 1 << 20
)

// run drives the whole; take is called from this goroutine only.
func (p *pipeline) run(ctx context.Context, take func(p *pipeline, source int, o outcome) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()

	work := make(chan *chunk)
	order := make(chan *chunk, 2*p.workers) // bounds what is read ahead
	for range p.workers {
		group.Go(func() {
			for c := range work {
				p.process(c)
				close(c.done)
			}
		})
	}
	group.Go(func() {
		defer close(work)
		defer close(order)
		p.read(ctx, func(c *chunk) bool {
			c.done = make(chan struct{})
			for _, ch := range []chan *chunk{order, work} {
				select {
				case ch <- c:
				case <-ctx.Done():
					return false
				}
			}
			return true
		})
	})

	rows := 0
	for c := range order {
		select {
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		st := p.stats.Sources[c.source]
		if c.first {
			st.Files = append(st.Files, FileStats{Path: p.files[c.file], Format: c.conv.Format})
		}
		st.Files[len(st.Files)-1].Records += c.count
		st.Records += c.count
		rows += c.count
		for _, o := range c.outcomes {
			if err := take(p, c.source, o); err != nil {
				return err
			}
		}
		if c.fatal != nil {
			return c.fatal
		}
		if p.opt.Progress != nil {
			p.opt.Progress(rows, c.bytes, p.totalBytes)
		}
	}
	return ctx.Err()
}

// read fills chunks from all files, evaluation sources first. emit returns
// false to stop.
func (p *pipeline) read(ctx context.Context, emit func(*chunk) bool) {
	file := 0
	first := make([]int, len(p.sources))
	for i, s := range p.sources {
		first[i] = file
		file += len(s.Files)
	}
	var before int64
	for k := range p.sources {
		src := (k + p.trainSources) % len(p.sources)
		left := p.sources[src].MaxRows
		if left == 0 {
			left = -1
		}
		for i := range p.sources[src].Files {
			if left == 0 {
				break
			}
			size, ok := p.readFile(ctx, src, first[src]+i, before, &left, emit)
			if !ok {
				return
			}
			before += size
		}
	}
}

// readFile fills chunks from one file. The first records, from which the format
// is detected, go into the first chunk.
func (p *pipeline) readFile(ctx context.Context, src, file int, before int64, left *int, emit func(*chunk) bool) (size int64, ok bool) {
	s := p.sources[src]
	fail := func(err error) (int64, bool) {
		emit(&chunk{source: src, file: file, first: true, conv: &Converter{}, fatal: err})
		return 0, false
	}
	r, err := Open(p.files[file], ReaderOptions{Text: s.Text, MaxRowBytes: p.opt.MaxRowBytes})
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	var conv *Converter
	var seen int
	for end := false; !end; {
		c := &chunk{source: src, file: file, conv: conv, first: conv == nil}
		for bytes := 0; len(c.records) < chunkRecords && bytes < chunkBytes && *left != 0; {
			if ctx.Err() != nil {
				return 0, false
			}
			rec, err := r.Next()
			if err == io.EOF {
				end = true
				break
			}
			var rowError *RowError
			if err != nil && !errors.As(err, &rowError) {
				c.fatal = err
				end = true
				break
			}
			c.records = append(c.records, record{rec, rowError})
			bytes += len(rec.JSON) + len(rec.Text)
			*left--
		}
		end = end || *left == 0
		c.count = len(c.records)
		seen += c.count
		c.bytes = before + r.BytesRead()
		if conv == nil {
			format, err := p.formatOf(c.records, s)
			if err != nil {
				if c.fatal != nil {
					err = c.fatal
				}
				return fail(err)
			}
			conv = NewConverter(format, s)
			c.conv = conv
		}
		if end && seen == 0 && c.fatal == nil {
			return fail(r.fileErr("the file holds no rows"))
		}
		if !emit(c) || c.fatal != nil {
			return 0, false
		}
	}
	return r.Size(), true
}

// formatOf is the format that the user named, or the one detected.
func (p *pipeline) formatOf(records []record, s Source) (Format, error) {
	if s.Format != FormatAuto || len(records) == 0 {
		return s.Format, nil
	}
	var sample []Record
	for _, r := range records[:min(len(records), detectRows)] {
		if r.err == nil {
			sample = append(sample, r.Record)
		}
	}
	if format, ok := Detect(sample, s.Columns); ok {
		return format, nil
	}
	for _, r := range records {
		if r.err != nil {
			continue
		}
		o, err := parseObject(r.JSON, nil)
		if err == nil {
			err = rowErr(ReasonUnknown, "", "no known row format has the fields %s: name the format, or map columns", clip(strings.Join(o.keys(), ", "), 200))
		}
		err.Where = r.Where
		return "", err
	}
	return "", records[0].err
}

// process converts, fits and encodes a chunk's records.
func (p *pipeline) process(c *chunk) {
	for _, rec := range c.records {
		bad := func(err error) {
			e := err.(*RowError) // Convert and As return no other
			c.outcomes = append(c.outcomes, outcome{file: c.file, row: Row{Where: e.Where}, err: e})
		}
		if rec.err != nil {
			bad(rec.err)
			continue
		}
		rows, err := c.conv.Convert(rec.Record)
		if err != nil {
			bad(err)
			continue
		}
		for _, row := range rows {
			fitting, ties, err := row.As(p.opt.Use)
			if err != nil {
				bad(err)
				continue
			}
			side, together := p.sharedSide(row, fitting)
			for i, r := range fitting {
				o := outcome{row: r, file: c.file, hash: rowHash(r)}
				if o.side = hash64(o.hash); together {
					o.side = side
				}
				if i == 0 {
					o.ties = ties
				}
				if p.enc != nil {
					if o.res, o.err = p.enc.encode(r); o.err != nil {
						o.err.Where = r.Where
					}
					// The text has served.
					o.row = Row{Where: r.Where, Notes: r.Notes}
				}
				c.outcomes = append(c.outcomes, o)
			}
		}
	}
	c.records = nil
}

// sharedSide is the side of what a row became, where that isn't each one's own:
// what came of one row lies together, and so do the answers to one prompt.
func (p *pipeline) sharedSide(row Row, fitting []Row) (side uint64, together bool) {
	switch {
	case p.opt.Use.byPrompt():
		return hash64(promptHash(fitting[0])), true
	case len(fitting) > 1:
		return hash64(rowHash(row)), true
	}
	return 0, false
}
