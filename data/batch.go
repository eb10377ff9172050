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

	Rows    int // real sequences
	Tokens  int // tokens of the real sequences
	Trained int // targets other than IgnoreTarget
}

// Step is what one optimizer step trains on. Its buffers are reused by the next
// call of Loader.Next with the same Step.
type Step struct {
	Micro []Batch
	// Sequences, Tokens and Trained are sums over Micro; a loss is divided by
	// Trained, so that the cut into micro-batches doesn't change the gradient.
	Sequences int
	Tokens    int
	Trained   int
}

// reset empties a batch, keeping its buffers.
func (b *Batch) reset() {
	b.IDs, b.Positions, b.Targets = b.IDs[:0], b.Positions[:0], b.Targets[:0]
	b.Starts, b.Sources = b.Starts[:0], b.Sources[:0]
	b.Rows, b.Tokens, b.Trained = 0, 0, 0
}

// add appends a sequence.
func (b *Batch) add(s *store, seq uint32) {
	ids := s.ids(seq)
	b.Starts = append(b.Starts, int32(len(b.IDs)))
	b.Sources = append(b.Sources, int32(s.seqs[seq].source))
	b.IDs = append(b.IDs, ids...)
	for t := range ids {
		b.Positions = append(b.Positions, int32(t))
		target := int32(IgnoreTarget)
		if t+1 < len(ids) && s.trained(seq, t+1) {
			target = ids[t+1]
			b.Trained++
		}
		b.Targets = append(b.Targets, target)
	}
	b.Rows++
	b.Tokens += len(ids)
}

// fill pads the tail up to budget tokens with filler sequences of at most
// longest tokens, and closes Starts.
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
}
