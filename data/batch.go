package data

// IgnoreTarget marks a position whose next token isn't trained on.
const IgnoreTarget = -100

// Batch is a micro-batch: whole sequences, one behind the other in one flat row
// of T tokens. Attention must not cross a sequence's start.
type Batch struct {
	IDs []int32 // [T]
	// Positions count from 0 within each sequence. [T]
	Positions []int32
	// Targets[t] is IDs[t+1] where that token belongs to the same sequence and is
	// trained on, else IgnoreTarget. [T]
	Targets []int32
	// Starts is where each sequence begins, and at the end T. With a fixed token
	// budget the tail is made of filler sequences, no longer than the longest
	// real one, in which nothing is trained; they come after the first Rows. [n+1]
	Starts []int32
	// Sources is the source of each real sequence, an index into
	// Dataset.Sources. [Rows]
	Sources []int32

	// Of rankings, each answer with its prompt is a sequence, and a ranking's
	// answers follow one another, best first. These are empty for other uses.

	// Groups is the row with which each ranking begins, and at the end Rows. [G+1]
	Groups []int32
	// Ranks are the answers' ranks: 1 is best, equal ones are ties. [Rows]
	Ranks []int32
	// Scores are the answers' scores, 0 where the file has none. [Rows]
	Scores []float32
	// Lengths are the answers' numbers of tokens, the one that ends the turn
	// included; the prompt's are the rest of the sequence. [Rows]
	Lengths []int32

	Rows    int // real sequences
	Tokens  int // tokens of the real sequences
	Trained int // targets other than IgnoreTarget
}

// Step is what one optimizer step trains on. Its buffers are reused by the next
// call of Loader.Next with the same Step.
type Step struct {
	Micro []Batch
	// Sequences (real ones), Groups, Tokens and Trained are sums over Micro; a loss
	// is divided by Trained or by Groups, so that the cut into micro-batches doesn't
	// change the gradient.
	Sequences int
	Groups    int // rankings
	Tokens    int
	Trained   int
}

// reset empties a batch, keeping its buffers.
func (b *Batch) reset() {
	b.IDs, b.Positions, b.Targets = b.IDs[:0], b.Positions[:0], b.Targets[:0]
	b.Starts, b.Sources = b.Starts[:0], b.Sources[:0]
	b.Groups, b.Ranks, b.Scores, b.Lengths = b.Groups[:0], b.Ranks[:0], b.Scores[:0], b.Lengths[:0]
	b.Rows, b.Tokens, b.Trained = 0, 0, 0
}

// add appends a sequence; of a ranking, each answer as one.
func (b *Batch) add(s *store, seq uint32) {
	parts := s.partsOf(seq)
	if len(parts) == 0 {
		b.row(s, seq, 0, s.length(seq))
		return
	}
	b.Groups = append(b.Groups, int32(b.Rows))
	for k, p := range parts {
		n := b.row(s, seq, int(p.start), s.partEnd(seq, parts, k))
		b.Ranks = append(b.Ranks, p.rank)
		b.Scores = append(b.Scores, p.score)
		b.Lengths = append(b.Lengths, int32(n))
	}
}

// row appends a sequence's tokens [from, to) as a row, and says how many of them
// are trained on.
func (b *Batch) row(s *store, seq uint32, from, to int) (trained int) {
	ids := s.ids(seq)[from:to]
	b.Starts = append(b.Starts, int32(len(b.IDs)))
	b.Sources = append(b.Sources, int32(s.seqs[seq].source))
	b.IDs = append(b.IDs, ids...)
	for t := range ids {
		b.Positions = append(b.Positions, int32(t))
		target := int32(IgnoreTarget)
		if t+1 < len(ids) && s.trained(seq, from+t+1) {
			target = ids[t+1]
			trained++
		}
		b.Targets = append(b.Targets, target)
	}
	b.Rows++
	b.Tokens += len(ids)
	b.Trained += trained
	return trained
}

// groups is how many rankings the batch holds.
func (b *Batch) groups() int { return max(0, len(b.Groups)-1) }

// fill pads the tail up to budget tokens with filler sequences of at most
// longest tokens, and closes Starts and Groups.
func (b *Batch) fill(budget, longest int, pad int32) {
	for len(b.IDs) < budget {
		b.Starts = append(b.Starts, int32(len(b.IDs)))
		for t := range min(longest, budget-len(b.IDs)) {
			b.IDs = append(b.IDs, pad)
			b.Positions = append(b.Positions, int32(t))
			b.Targets = append(b.Targets, IgnoreTarget)
		}
	}
	b.Starts = append(b.Starts, int32(len(b.IDs)))
	if len(b.Groups) > 0 {
		b.Groups = append(b.Groups, int32(b.Rows))
	}
}
