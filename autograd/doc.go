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
//	forward embedding table: ids -> embedding@512
//	forward linear gate_up: embedding@512 -> linear@0
//	forward glu: linear@0 -> glu@768
//	forward linear down: glu@768 -> linear@1024
//	forward add: embedding@512 linear@1024 -> add@1024
//	backward add: seed -> d embedding@768 d linear@768
//	recompute linear gate_up: embedding@512 -> linear@0
//	recompute glu: linear@0 -> glu@1280
//	backward linear down: glu@1280 d linear@768 -> d glu@1536
//	backward glu: linear@0 d glu@1536 -> d linear@0
//	backward linear gate_up: embedding@512 d linear@0 d embedding@768 -> d embedding@768
//	backward embedding table: ids d embedding@768 ->
//
// The sum y takes over the memory of h, which nobody reads afterwards; x is still
// needed. The gradient of the GLU's operand takes over that of the operand itself. The
// gradients of x and h are equal, as both are summands, and are one
// buffer: what is later added to that of x comes when that of h has been read.
// The two values inside the region were dropped and are made again, each once;
// h left the region and was kept, so that the last product isn't repeated.
//
// # Memory of a training step
//
// Beside weights and optimizer moments a step holds activations and gradients of weights.
// Three means take memory for time; none changes a result (but see Options.Selective).
//
// Regions (Tape.Checkpoint) keep what leaves them and nothing else: of a decoder layer one
// value [T, H]. Nearly the whole forward pass, a quarter of a step's FLOPs, is run twice.
//
// Options.Selective keeps what is costly (products, attention) and makes again, just before
// the backward pass reads it, what only takes reading and writing (Node.Remake): results of
// norms, from the sum that they normalise; of GLU and activations, from their operand;
// rotations of normalised heads; gathered rows and embeddings. A value is dropped if its
// operands are there anyway: inputs, kept for the backward pass, or dropped themselves. A
// LLaMA layer with hidden size H, Q columns of queries, keys and values, and MLP width M
// keeps 5H + Q + 3M elements a token, of which 2H + M are dropped and 4H + 3M are read or
// written once more. 7B in bfloat16 (H 4096, Q 12288, M 11008): 38 of 132 KB, for 99 KB of
// traffic and some 0.2 MFLOP beside the layer's 1200: with 4·2048 tokens 9.4 GiB less, for
// 26 GB of traffic, 8 to 10 ms on an H100.
//
// Options.Gradients puts gradients of weights in the arena (GradChunk): they lie there from
// the first instruction that adds to them on, in memory of activations that the backward
// pass has used up, so that the peak, where it begins, holds those of the last layer only.
// The first products write them, so that they are neither cleared nor read before.
//
// The same step in GiB of the arena, and with 37.7 of weights and moments in bfloat16:
//
//	gradients:            apart    in the arena
//	all kept              32.5     32.7     with the store 82.7, 70.4
//	Selective             23.1     23.5                    73.3, 61.1
//	regions                3.2     13.3                    53.4, 50.9
//
// # Checks
//
// Shapes are checked as operations are recorded. With the build tag invariants a
// program is also verified as it is compiled, by following who owns which
// memory, and on devices whose memory is the host's, memory that holds nothing
// is filled with a pattern that must never be seen (check.go).
package autograd
