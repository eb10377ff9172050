// Package autograd differentiates models built from few, coarse operations.
//
// A Tape records operations without running them. Compile turns the record into
// a Program: a fixed list of instructions (forward, and for training backward
// with what must be recomputed), each value and gradient placed at a fixed
// offset of one arena by its lifetime. A program is then run as often as wanted;
// it allocates nothing, and as addresses never change while its arena stays, a
// device can capture it as a graph.
//
// Reverse accumulation is the textbook's (Griewank & Walther 2008, ch. 3);
// recomputation follows Chen et al. 2016, "Training Deep Nets with Sublinear
// Memory Cost": a value of a checkpointed region that the backward pass needs is
// made again from what was kept, once, just before it is needed.
//
// # A program
//
// An embedding and a small MLP with a residual connection, its middle
// checkpointed, for 4 tokens of 8 columns in float64:
//
//	x := tape.Embedding(ids, table)
//	tape.Checkpoint(func() {
//		h = tape.Linear(tape.GLU(tape.Linear(x, gateUp, nil), tensor.SiLU), down, nil)
//	})
//	y := tape.Output(tape.Add(x, h))
//
// With a seed for y this becomes the following (ExampleProgram_Instructions):
// phase, operation and its parameters, what it reads, what it writes and at which
// offset of the arena.
//
//	forward embedding table: ids -> embedding@1024
//	forward linear gate_up: embedding@1024 -> linear@0
//	forward glu: linear@0 -> glu@512
//	forward linear down: glu@512 -> linear@1280
//	forward add: embedding@1024 linear@1280 -> add@1280
//	backward add: seed -> d embedding@1536 d linear@1536
//	recompute linear gate_up: embedding@1024 -> linear@0
//	recompute glu: linear@0 -> glu@512
//	backward linear down: glu@512 d linear@1536 -> d glu@1792
//	backward glu: linear@0 d glu@1792 -> d linear@512
//	backward linear gate_up: embedding@1024 d linear@512 d embedding@1536 -> d embedding@1536
//	backward embedding table: ids d embedding@1536 ->
//
// The sum y takes over the memory of h, which nobody reads afterwards; x is still
// needed. The gradients of x and h are equal, as both are summands, and are one
// buffer: what is later added to that of x comes when that of h has been read.
// The two values inside the region were dropped and are made again, each once;
// h left the region and was kept, so that the last product isn't repeated.
//
// # Checks
//
// Shapes are checked as operations are recorded. With the build tag invariants a
// program is also verified as it is compiled, by following who owns which
// memory, and on devices whose memory is the host's, memory that holds nothing
// is filled with a pattern that must never be seen (check.go).
package autograd
