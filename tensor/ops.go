package tensor

import "math"

// Ops is the table of operations that a device offers. An entry only enqueues
// work: none reads device memory on the host, none returns an error (Device.Sync
// reports failures); a shape that breaks what the comments ask for is a broken
// invariant and panics. Every operation is deterministic: the same inputs give
// the same bytes, whatever the number of threads.
//
// T is the number of tokens of a packed batch (all sequences laid end to end), H
// the hidden size, V the vocabulary. Ids, positions, starts and targets are I32. A
// gradient argument named D… receives "+=" where the entry says accumulate, "="
// otherwise. Absent optional tensors are the zero Tensor.
//
// Float tensors are of one of two types, the same on devices of F32 and F64:
// Device.Float(), that of activations, their gradients and weights, and its Wide().
// Wide are statistics and what losses are made of: Mean, RStd, LSE, LogProbs,
// Entropies and their gradients, Scale, Cos and Sin, Sample's LogProbs. Of either
// type, as the caller has them, are gradients of parameters (DW, DBias, DWQ, DWK, dw
// of EmbeddingBackward, C of GroupedOuter), operands of Matmul and SumRows, Logits of
// Sample, tensors of Scale and SoftCap, those of Add (y and a of one type, y no narrower than
// b), and what the optimizer's comments name. Arithmetic is in Wide; results are
// rounded once, to nearest even, when they are stored. A result that the same
// operation goes on with (RMSNorm's Sum) may enter as it was before or after that.
type Ops struct {
	// Zero sets x to 0.
	Zero func(x Tensor)
	// Copy sets dst = src, of equal shape, any strides, converting between float types.
	Copy func(dst, src Tensor)
	// Add sets y = a + b, all of one shape; y may be a or b.
	Add func(y, a, b Tensor)
	// Scale sets x = x·f.
	Scale func(x Tensor, f float32)

	// Matmul is the general matrix product with an optional bias.
	Matmul func(m Matmul)
	// AMax and Quantize make 8-bit floats, the operands of a Matmul with scales (docs/fp8.md);
	// see their arguments. Both are nil on a device that doesn't train with them (the CPU).
	AMax     func(a AMax)
	Quantize func(a Quantize)
	// SumRows adds the sum of the rows of x [T, n] to y [n] (the gradient of a bias).
	SumRows func(y, x Tensor)

	// Embedding sets y [T, H] to the rows of w [V, H] that ids [T] name.
	Embedding func(y, w, ids Tensor)
	// EmbeddingBackward adds each row of dy [T, H] to the row of dw [V, H] that
	// its id names, in the order of the tokens.
	EmbeddingBackward func(dw, dy, ids Tensor)

	// RMSNorm and RMSNormBackward: root mean square layer normalisation
	// (Zhang & Sennrich 2019), optionally of a sum (the residual connection).
	RMSNorm         func(a RMSNorm)
	RMSNormBackward func(a RMSNormBackward)
	// LayerNorm and LayerNormBackward: layer normalisation (Ba et al. 2016),
	// optionally of a sum.
	LayerNorm         func(a LayerNorm)
	LayerNormBackward func(a LayerNormBackward)
	// HeadNorm and HeadNormBackward: RMSNorm of each query and key head.
	HeadNorm         func(a HeadNorm)
	HeadNormBackward func(a HeadNormBackward)

	// RoPE rotates heads by their positions (Su et al. 2021), in place.
	RoPE func(a RoPE)

	// Attention and AttentionBackward: causal self-attention over packed sequences.
	Attention         func(a Attention)
	AttentionBackward func(a AttentionBackward)
	// CachedAttention attends to keys and values kept in a cache.
	CachedAttention func(a CachedAttention)

	// GLU sets y [T, n] = act(x[:, :n]) · x[:, n:] for x [T, 2n]: gate first, then up
	// (Shazeer 2020).
	GLU func(y, x Tensor, act Activation)
	// GLUBackward sets dx [T, 2n] from dy [T, n] and the forward's x. dx may be x.
	GLUBackward func(dx, dy, x Tensor, act Activation)
	// Activate sets y = act(x), of one shape; y may be x.
	Activate func(y, x Tensor, act Activation)
	// ActivateBackward sets dx = dy·act'(x), of one shape; dx may be dy or x.
	ActivateBackward func(dx, dy, x Tensor, act Activation)
	// SoftCap sets y = limit·tanh(x/limit), of one shape; y may be x.
	SoftCap func(y, x Tensor, limit float32)
	// SoftCapBackward sets dx = dy·(1 − (y/limit)²) from SoftCap's result y; dx may be dy or y.
	SoftCapBackward func(dx, dy, y Tensor, limit float32)

	// Route chooses experts for tokens, RouteBackward is its gradient; see their arguments.
	Route         func(a Route)
	RouteBackward func(a RouteBackward)
	// GroupedMatmul multiplies each group of rows by a matrix of its own,
	// GroupedOuter gives the gradients of those matrices.
	GroupedMatmul func(a GroupedMatmul)
	GroupedOuter  func(a GroupedOuter)
	// Combine adds up what a token's experts made, CombineBackward is its gradient.
	Combine         func(a Combine)
	CombineBackward func(a CombineBackward)
	// RouterLoss is the loss that keeps experts equally busy, with its gradients.
	RouterLoss func(a RouterLoss)

	// CrossEntropy is the fused output projection and loss; see its argument.
	CrossEntropy func(a CrossEntropy)
	// LogProb is the output projection fused with the log-probabilities of chosen
	// tokens, LogProbBackward its gradients; see their arguments.
	LogProb         func(a LogProb)
	LogProbBackward func(a LogProbBackward)

	// SumSquares adds Σ x² to the first element of out (F64 on every device).
	SumSquares func(out, x Tensor)
	// ClipFactor decides on the step from the gradients' norm; see its argument.
	ClipFactor func(a ClipFactor)
	// AdamW updates a flat run of parameters; see its argument.
	AdamW func(a AdamW)

	// SumSquaresAll and AdamWAll do many at once; a device on which that is no faster
	// leaves them nil.
	SumSquaresAll func(out Tensor, xs []Tensor)
	AdamWAll      func(list []AdamW)

	// Sample draws one token a row of logits; see its argument.
	Sample func(a Sample)
}

// Matmul is C = A·B + Beta·C + Bias, where TransA and TransB stand for the
// transposed operand: C [m, n]; A [m, k] or, transposed, [k, m]; B [k, n] or,
// transposed, [n, k]. A linear layer y = x·Wᵀ + b with W [out, in] is
// {C: y, A: x, B: W, TransB: true, Bias: b}. Operands may have strides. Beta is
// 0 (C's old content is never read) or 1. Bias [n] is optional. The product may be
// rounded to C's type before C's old content and Bias are added, as cuBLASLt's is.
//
// DBias [m], with TransA, is increased by the sums of A's columns: beside the gradient of a
// linear layer's weights, {C: dW, A: dy, B: x, TransA: true, Beta: 1}, that of its bias, which
// may be rounded to C's type before it is added.
//
// Fused says what becomes of the product, Beta being 0, with Pre [m, n] of C's type:
//
//	GELUForward   Pre = A·B + Bias,  C = GELUTanh(Pre)
//	GELUBackward  C = (A·B)·GELUTanh'(Pre), without Bias; Pre is read
//
// On a device with Quantize, A and B may both be 8-bit floats, not transposed A and transposed B:
// C [m, n] = A·Bᵀ with A [m, k], B [n, k]. ScaleA and ScaleB (Wide, [1] or [m] and [1] or [n]) must then be
// given: row i of A stands for its numbers times ScaleA[i]. FastSum allows sums over k to be kept by the
// tensor cores alone, with about 14 bits on Hopper: for the forward pass, not for gradients.
type Matmul struct {
	C, A, B        Tensor
	TransA, TransB bool
	Beta           float32
	Bias           Tensor
	DBias          Tensor
	Fused          Fusion
	Pre            Tensor
	ScaleA, ScaleB Tensor
	FastSum        bool
}

// AMax raises All [1], Rows [T] and Columns [n] to the largest absolute value in X [T, n],
// in each of its rows and in each of its columns. They are Wide, must not be negative, and any may be absent; X is
// Float or Wide. NaN counts as more than infinity.
type AMax struct {
	X                  Tensor
	All, Rows, Columns Tensor
}

// Quantize rounds X [T, n], Float or Wide, to 8-bit floats, as Q [T, ≥n] and, transposed, QT [n, ≥T], of one type;
// either may be absent. Columns past n and T are set to 0. AMax, [1] or [T], is the largest absolute
// value of X or of each row, or a guess of it. With max the largest number of the type,
//
//	Scale = 2^e,  e = max(−60, the smallest with AMax ≤ max·2^e),   NaN where AMax is not finite
//	Q = X/Scale, rounded to nearest, ties to even; ±max beyond that, NaN where X is not finite
//
// so that Q·Scale is X but for one rounding, and the scales, powers of two, add none. Scale, as
// long as AMax, may be absent. AMaxT and ScaleT, [1] or [n], are those of QT's rows; where AMaxT is absent,
// AMax is [1] and QT's as well. Next [1], where present, is raised to the largest absolute value of X, for
// a caller who takes it as AMax of the next step. AMax, AMaxT, Scale, ScaleT and Next are Wide.
type Quantize struct {
	X             Tensor
	Q, QT         Tensor
	AMax, AMaxT   Tensor
	Scale, ScaleT Tensor
	Next          Tensor
}

// RMSNorm is, for each row, s = X + Delta (X alone where Delta is absent) and
// Y = s · RStd · (W + WOffset) with RStd = 1/√(mean(s²) + Eps).
// X, Delta, Sum, Y [T, H]; W [H]; RStd [T], written, for the backward pass.
// Sum receives s and must be given with Delta (it may be X or Delta itself, and
// these may be one). WOffset is 1 for models whose stored weights are the
// distance from 1 (Gemma), else 0.
type RMSNorm struct {
	Y, X, W, RStd Tensor
	Delta, Sum    Tensor
	Eps, WOffset  float32
}

// RMSNormBackward gives the gradients of RMSNorm at s = Sum (or X):
// DW [H] += Σ_t DY·s·RStd (left out if absent), and DX [T, H] = (+= with
// Accumulate) the gradient of s through Y, plus DSum, the gradient that reaches
// s from elsewhere (the residual stream), where present. DX is always made, and
// may be DSum.
type RMSNormBackward struct {
	DX, DW     Tensor
	DY, DSum   Tensor
	S, W, RStd Tensor
	WOffset    float32
	Accumulate bool
}

// LayerNorm is, for each row, s = X + Delta (X alone where Delta is absent) and
// Y = (s − Mean) · RStd · W + Bias with Mean = mean(s), RStd = 1/√(mean((s − Mean)²) + Eps).
// Shapes as RMSNorm's; Mean and RStd [T] are written, for the backward pass; Bias
// [H] is optional. The variance is summed from differences from the mean, not as
// mean(s²) − Mean².
type LayerNorm struct {
	Y, X, W, Bias Tensor
	Mean, RStd    Tensor
	Delta, Sum    Tensor
	Eps           float32
}

// LayerNormBackward gives the gradients of LayerNorm at s = Sum (or X), with
// n = (s − Mean)·RStd and g = DY·W:
//
//	DW += Σ_t DY·n,  DBias += Σ_t DY                      (either left out if absent)
//	DX = (+= with Accumulate) RStd·(g − mean(g) − n·mean(g·n)) + DSum
//
// DSum is optional; DX is always made, and may be DSum.
type LayerNormBackward struct {
	DX, DW, DBias    Tensor
	DY, DSum         Tensor
	S, W, Mean, RStd Tensor
	Accumulate       bool
}

// HeadNorm normalises the query and key heads of attention's rows ("QK norm",
// Henry et al. 2020, as RMSNorm in Qwen3 and Gemma 3). X and Y
// [T, (Heads+2·KVHeads)·HeadDim] are laid out as AttentionShape says. Each query
// head x becomes x·r·(WQ + WOffset), each key head x·r·(WK + WOffset), with
// r = 1/√(mean(x²) + Eps); values are copied. WQ, WK [HeadDim]; RStd
// [T, Heads+KVHeads] receives r. Y may be X only where no backward pass follows.
type HeadNorm struct {
	Y, X, WQ, WK, RStd      Tensor
	Heads, KVHeads, HeadDim int
	Eps, WOffset            float32
}

// HeadNormBackward gives the gradients of HeadNorm: DX from DY (DX may be DY),
// DWQ and DWK [HeadDim] accumulated, left out if absent.
type HeadNormBackward struct {
	DX, DWQ, DWK, DY        Tensor
	X, WQ, WK, RStd         Tensor
	Heads, KVHeads, HeadDim int
	WOffset                 float32
}

// RoPE rotates, in X [T, …], the Heads heads of HeadDim columns each that start
// at column 0: with half = columns of Cos, the pair (x[i], x[i+half]), i < half,
// becomes (x[i]·c − x[i+half]·s, x[i+half]·c + x[i]·s), c and s being row
// Positions[t] of Cos and Sin [positions, half]. Columns of a head past 2·half
// stay. Inverse rotates back (the backward pass).
type RoPE struct {
	X              Tensor
	Cos, Sin       Tensor
	Positions      Tensor // I32 [T]
	Heads, HeadDim int
	Inverse        bool
}

// AttentionShape is what attention operations share. A token's row of QKV holds
// Heads query heads, then KVHeads key heads, then KVHeads value heads, of
// HeadDim columns each; query head h uses key/value head h / (Heads/KVHeads).
// A token attends to itself and to those before it in its sequence, with a
// Window > 0 only to the last Window of them, itself included. The score of query
// token i and key token j is, before the softmax,
//
//	s = Scale·q·k                       then, with SoftCap > 0 (Gemma 2), s = SoftCap·tanh(s/SoftCap),
//	s += ALiBiSlope(head, Heads)·(j−i)  with ALiBi (Press et al. 2022)
type AttentionShape struct {
	Heads, KVHeads, HeadDim int
	Scale                   float32
	Window                  int
	SoftCap                 float32
	ALiBi                   bool
}

// ALiBiSlope is the slope of a head's linear bias: of n heads, for n a power of
// two, 2^(−8(h+1)/n); else those of the largest power of two m below n, then
// every other one of 2m's (the paper's released code, and BLOOM).
func ALiBiSlope(head, heads int) float64 {
	m := 1
	for 2*m <= heads {
		m *= 2
	}
	if head < m {
		return math.Exp2(-8 * float64(head+1) / float64(m))
	}
	return math.Exp2(-4 * float64(2*(head-m)+1) / float64(m))
}

// Attention sets O [T, Heads·HeadDim] and LSE [Heads, T], the logarithm of the sum of
// the exponentials of each score row, from QKV [T, (Heads+2·KVHeads)·HeadDim].
// Starts I32 [n+1] holds the first token of each sequence and, last, T;
// sequences may be empty. Longest bounds their length. Dense promises that every
// sequence has Longest tokens, T = n·Longest.
type Attention struct {
	AttentionShape
	O, LSE, QKV Tensor
	Starts      Tensor
	Longest     int
	Dense       bool
}

// AttentionBackward sets DQKV from DO and the forward's O, LSE and QKV.
type AttentionBackward struct {
	AttentionShape
	DQKV, DO    Tensor
	O, LSE, QKV Tensor
	Starts      Tensor
	Longest     int
	Dense       bool
}

// CachedAttention is attention for generation. Token t of QKV, already rotated,
// belongs to sequence slot Slots[t] at position Positions[t]. Its key and value are first
// written to row Positions[t] of K[slot] and V[slot] ([slots, capacity,
// KVHeads·HeadDim] each); then its query attends to rows 0…Positions[t] of the
// slot (the last Window of them). Tokens of one slot are adjacent and in order.
type CachedAttention struct {
	AttentionShape
	O, QKV           Tensor
	K, V             Tensor
	Slots, Positions Tensor // I32 [T]
}

// Activation is a function of a gated or plain MLP.
type Activation uint8

// The activations: SiLU x·σ(x), GELU by the error function, its tanh approximation, ReLU.
const (
	SiLU Activation = iota
	GELU
	GELUTanh
	ReLU
)

// CrossEntropy projects X [T, H] on the vocabulary with W [V, H] and takes the
// cross-entropy of each row whose target is not negative:
//
//	Loss[0] += Σ_t −log softmax(X_t·Wᵀ)[Targets[t]]     (F64)
//	Loss[1] += number of such rows
//	Loss[2] += number of them whose largest logit is the target's
//
// With DX present it also sets DX = d(Scale[0]·Loss)/dX (0 for rows without a
// target); with DW present it adds d(Scale[0]·Loss)/dW to DW (either may be
// present alone). The gradients are made while the logits of a block of rows are
// at hand, so logits never exist in full and are computed once. Scale [1] is a
// device scalar (one over the tokens of the global batch). With SoftCap > 0 the
// logits are SoftCap·tanh(X_t·Wᵀ/SoftCap).
//
// Padded, where it is more than V, says that W is followed by rows of zeros up to so
// many, and DW by memory to which zeros may be added: matrix units are several times
// slower with a vocabulary like GPT-2's 50257 than with a round number.
type CrossEntropy struct {
	Loss    Tensor // F64 [3]
	X, W    Tensor
	Targets Tensor // I32 [T]
	DX, DW  Tensor
	Scale   Tensor // Float [1]
	SoftCap float32
	Padded  int
}

// LogProb projects X [T, H] on the vocabulary with W [V, H] and scores the tokens
// that were chosen: with z = X_t·Wᵀ/Temperature, p = softmax(z) and a = Targets[t]
//
//	LSE[t] = log Σ_j e^z_j
//	LogProbs[t] = z_a − LSE[t]
//	Entropies[t] = −Σ_j p_j·log p_j
//
// and all three are 0 where a is negative. Entropies may be absent. Temperature is
// above 0: that at which the tokens were sampled. Logits never exist in full. LSE
// and Entropies are kept for the backward pass. With SoftCap > 0,
// z = SoftCap·tanh(X_t·Wᵀ/SoftCap)/Temperature. Padded as in CrossEntropy.
type LogProb struct {
	LogProbs, Entropies, LSE Tensor // [T]
	X, W                     Tensor
	Targets                  Tensor // I32 [T]
	Temperature, SoftCap     float32
	Padded                   int
}

// LogProbBackward gives the gradients of LogProb from those of its results,
// DLogProbs and DEntropies [T], either of which may be absent (0):
//
//	dz_j = (DLogProbs[t]·([j = a] − p_j) − DEntropies[t]·p_j·(log p_j + Entropies[t])) / Temperature
//	DX_t = dz·W,  DW += dzᵀ·X
//
// DX [T, H] is 0 for rows without a target; DX or DW may be absent. Rows without
// a target, or whose derivatives are both 0, cost nothing. The logits of a block of
// rows are computed again. LSE and Entropies (which DEntropies needs) are the
// forward's, for a device that sees a row of logits in pieces; one that has it whole
// does better to sum anew, since p = e^(z−LSE) loses the digits that a large LSE lacks.
type LogProbBackward struct {
	DX, DW                Tensor
	DLogProbs, DEntropies Tensor // [T]
	X, W                  Tensor
	Targets               Tensor // I32 [T]
	LSE, Entropies        Tensor // [T]
	Temperature, SoftCap  float32
	Padded                int
}

// Route chooses K of E experts for each token (Shazeer et al. 2017; Jiang et al.
// 2024, "Mixtral of Experts") and sorts tokens by expert. With p = softmax(Logits[t]),
// Experts[t] are the K of the largest logits, largest first (the lowest id among equals),
// and Weights[t] their probabilities, with Normalize divided by their sum. The
// T·K pairs of a token and a chosen expert are sorted by expert, pairs of one
// expert by token: row r of the sorted pairs is of token Tokens[r], expert e has the rows
// Starts[e] … Starts[e+1]−1, and the k-th choice of token t is row Slots[t, k].
type Route struct {
	Logits    Tensor // [T, E]
	Weights   Tensor // [T, K]
	Experts   Tensor // I32 [T, K]
	Slots     Tensor // I32 [T, K]
	Tokens    Tensor // I32 [T·K]
	Starts    Tensor // I32 [E+1]
	Normalize bool
}

// RouteBackward sets DLogits [T, E] from DWeights [T, K]; which experts were
// chosen has no gradient. With i, j among the chosen:
//
//	not Normalize: dl_j = p_j·(dw_j·[j chosen] − Σ_i p_i·dw_i)     for all j
//	Normalize:     dl_j = w_j·(dw_j − Σ_i w_i·dw_i) for chosen j, else 0
type RouteBackward struct {
	DLogits, DWeights, Logits, Weights Tensor
	Experts                            Tensor
	Normalize                          bool
	Accumulate                         bool
}

// GroupedMatmul sets, for each group e, rows Starts[e] … Starts[e+1]−1 of C [R, n]
// to those rows of A [R, k] times B[e], a [k, n] matrix or, with TransB, the transpose of an
// [n, k] one. B has three dimensions, Starts I32 [E+1] goes from 0 to R. The
// starts are on the device: the shape of a program doesn't depend on them.
type GroupedMatmul struct {
	C, A, B    Tensor
	TransB     bool
	Starts     Tensor
	Accumulate bool // C += …
}

// GroupedOuter adds Aᵀ·B over the rows of each group e of A [R, m] and B [R, n] to C[e] [m, n].
type GroupedOuter struct {
	C, A, B Tensor
	Starts  Tensor
}

// Combine sets Y[t] [T, H] = Σ_k Weights[t, k]·X[Slots[t, k]], X [T·K, H], in the order of k.
type Combine struct {
	Y, X, Weights Tensor
	Slots         Tensor // I32 [T, K]
}

// CombineBackward sets DX[Slots[t, k]] = Weights[t, k]·DY[t] and DWeights[t, k] =
// DY[t]·X[Slots[t, k]] (either left out if absent). Every row of DX is one of Slots.
type CombineBackward struct {
	DX, DWeights Tensor
	DY           Tensor
	X, Weights   Tensor
	Slots        Tensor
}

// RouterLoss is the load-balancing loss of all routers of a model together
// (Fedus et al. 2022, §2.2, as transformers computes it): with N the number of
// rows of all Logits [T, E] together, of each only the first Live[0] (the others
// are a packed batch's filler), p = softmax, and the K most probable chosen
// (as Route chooses),
//
//	F_e = choices of e / N,  P_e = Σ p_e / N,  Loss[0] += Live[0] · E·Σ_e F_e·P_e
//
// (F64): weighted by tokens, so that batches cut differently give comparable sums. With DLogits
// present, DLogits[i] = (+= with Accumulate[i]) Scale[0]·Coef·d(Loss)/d(Logits[i]), F
// being constant, 0 for filler rows; a zero DLogits[i] is left out.
type RouterLoss struct {
	Loss            Tensor // F64 [1]
	Logits, DLogits []Tensor
	Accumulate      []bool
	Live            Tensor // I32 [1]
	K               int
	Scale           Tensor // Float [1]
	Coef            float32
}

// What changes from step to step lies in one small device tensor, the step
// block, of F64 [StepSize]; kernels read it there, so that a captured graph
// needs no new arguments.
const (
	StepLR         = iota // learning rate of this step
	StepBias1             // 1 − β1^t
	StepBias2             // 1 − β2^t
	StepSumSquares        // Σ g² of all gradients, made by SumSquares
	StepGradNorm          // its root, set by ClipFactor
	StepClip              // factor on gradients, set by ClipFactor
	StepSkip              // 1: the step must change nothing (non-finite gradients), set by ClipFactor
	StepSkipped           // number of steps skipped so far, set by ClipFactor
	StepOffset            // counts the steps made, for random numbers
	StepUpdates           // number of steps that weren't skipped, set by ClipFactor
	StepSize       = 16
)

// ClipFactor reads Step[StepSumSquares] and sets Step[StepGradNorm] to its root,
// Step[StepClip] to min(1, MaxNorm/(norm + 1e-6)) (1 if MaxNorm ≤ 0), and, where the norm is
// not finite or one of the F64 values of Check is not, Step[StepSkip] to 1 (else 0), counting in
// Step[StepSkipped]. The form is torch.nn.utils.clip_grad_norm_'s.
//
// Unless both are 0, Beta1 and Beta2 set Step[StepBias1] and Step[StepBias2] to 1 − β^t,
// where t = Step[StepUpdates] + 1; a step that isn't skipped then counts there. So the host
// needn't have learnt whether the step before was skipped.
type ClipFactor struct {
	Step         Tensor
	Check        Tensor // optional F64: losses
	MaxNorm      float64
	Beta1, Beta2 float64
}

// AdamW (Loshchilov & Hutter 2019) over flat tensors of one length, with g =
// Grad·Step[StepClip] and P = Master, or Param where there is no Master:
//
//	P −= lr·WeightDecay·P
//	M = β1·M + (1−β1)·g;  V = β2·V + (1−β2)·g²
//	P −= lr · (M/bias1) / (√(V/bias2) + Eps)
//
// and Param = Master, rounded, where there is one. lr, bias1, bias2 come from Step.
// Nothing changes where Step[StepSkip] is set. Param is Float, or, without Master, Wide (weights that
// are quantised from there); Master is Wide; Grad, M and V are Float or Wide, M and V of one type.
//
// With Stochastic, Param, M and V are rounded up or down at random, so that what is
// expected is the exact value (Gupta et al. 2015): without it updates smaller than
// half a unit of a bfloat16 weight are lost. The random numbers are those of Philox
// 4x32-10 under the key Seed, at the counter of the element, First + its index, and
// of the step, Step[StepOffset]; the same on every device.
type AdamW struct {
	Param, Master    Tensor
	Grad, M, V       Tensor
	Step             Tensor
	Beta1, Beta2     float64
	Eps, WeightDecay float64
	Stochastic       bool
	Seed, First      uint64
}

// Sample draws IDs [n] I32 from Logits [n, V] and sets LogProbs [n] to the
// natural logarithm of softmax(Logits)[id], before any of the settings are
// applied, or of softmax(Logits/Temperature)[id] where TemperedLogProb asks for
// that. Rows[i] holds the settings of row i.
type Sample struct {
	IDs, LogProbs, Logits Tensor
	Rows                  []SampleRow
}

// SampleRow says how one row is sampled. In this order: Banned tokens are
// excluded; RepetitionPenalty r divides the positive and multiplies the negative
// logits of the tokens in Seen (Keskar et al. 2019; 0 or 1: none); Temperature 0 takes the largest logit (the lowest
// id among equals), else logits are divided by it; TopK > 0 keeps the k largest;
// TopP in (0,1) keeps the smallest set, largest first, whose probability reaches
// TopP; MinP keeps those with at least MinP times the largest probability. The draw uses Uniform in [0,1),
// made by the caller's counter-based generator, so that a row's token does not
// depend on its neighbours. TemperedLogProb takes the log-probability at
// Temperature, still before penalty, bans and cuts; at temperatures 0 and 1 it
// changes nothing, not a bit.
type SampleRow struct {
	Temperature, TopP, MinP, RepetitionPenalty float32
	TopK                                       int
	Uniform                                    float64
	Seen, Banned                               []int32
	TemperedLogProb                            bool
}
