package cuda

import (
	"fmt"

	"ringtail/tensor"
)

// The output projection and what is made of its logits (kernels/loss.cu). Rows are
// taken in chunks: a product makes the chunk's logits in the workspace, one kernel turns
// them into losses and, in place, gradients, two products take those to DX and DW.

// logitsBytes bounds the logits of a chunk. Chunks are this large because DX of a
// chunk has only rows·H/(128·256) tiles, of which a GPU wants 132 or more. Tests change it.
var logitsBytes = 576 << 20

const (
	// softmaxKept bounds what the kernel keeps of a row in shared memory: two blocks
	// on a Hopper multiprocessor, one where a block may have 99 KiB at most.
	softmaxKept = 96 << 10
	// chunkStep divides the rows of a chunk: the height of a tile.
	chunkStep = 128
)

// logitsType is the type of logits: float32 whatever the weights are. Rounded to
// bfloat16, logits of 16 to 32 are off by up to 1/16, and equal ones appear that were
// not; a vocabulary of 50257 and 16384 tokens would save 3.3 GB of traffic, 0.8 ms on
// an H200, of 6 ms that the products take. For that, SOFTMAX_ROWS(bf16_bf16, bf16, bf16)
// belongs in kernels/loss.cu; every kernel there costs the driver's compiler time.
func (d *Device) logitsType() tensor.Dtype { return tensor.F32 }

// softmaxRowsArgs mirrors SoftmaxRowsArgs of kernels/loss.cu.
type softmaxRowsArgs struct {
	logits, targets, scale      uintptr
	dLogProbs, dEntropies       uintptr
	losses, marks               uintptr
	logProbs, entropies, lse    uintptr
	stride                      uint64
	vocab, padded               int32
	kept                        uint32
	gradient                    int32
	softCap, inverseTemperature float32
}

// sumLossArgs mirrors SumLossArgs.
type sumLossArgs struct {
	loss, losses, marks uintptr
	rows                int32
}

// projection is the chunks of an operation that projects X on the vocabulary by W.
type projection struct {
	d         *Device
	x, w      tensor.Tensor
	dx, dw    tensor.Tensor // absent: not wanted
	targets   tensor.Tensor
	args      softmaxRowsArgs // of every chunk; addresses of vectors are those of row 0
	entropy   bool
	rows      int // of a chunk
	padded    int // rows of w and dw that products take: the vocabulary's, and zeros after them
	kernel    string
	gradients tensor.Dtype
	typ       tensor.Dtype
	stride    int
}

// openProjection checks shapes and lays out the workspace: a chunk's logits, then
// extra bytes, at the address that is returned (0 where there is no memory).
func (d *Device) openProjection(op string, x, w, targets, dx, dw tensor.Tensor, padded int, softCap, temperature float32, entropy bool, extra int) (*projection, uintptr) {
	n, vocab := x.Rows(), w.Rows()
	if x.Cols() != w.Cols() || targets.Len() != n || targets.Dtype != tensor.I32 || !(temperature > 0) {
		panic(fmt.Sprintf("cuda: %s of X %v, W %v, Targets %v at temperature %g", op, x, w, targets, temperature))
	}
	p := &projection{d: d, x: x, w: w, dx: dx, dw: dw, targets: targets, entropy: entropy, typ: d.logitsType(), gradients: d.Float()}
	size := p.typ.Size()
	p.padded = max(padded, vocab)
	p.stride = ceilDiv(p.padded, 16/p.gradients.Size()) * (16 / p.gradients.Size()) // also a multiple of 16 bytes of logits, as wide or wider
	p.rows = min(max(logitsBytes/(p.stride*size)/chunkStep, 1)*chunkStep, ceilDiv(n, chunkStep)*chunkStep)
	chunks := ceilDiv(n, p.rows)
	p.rows = min(ceilDiv(ceilDiv(n, chunks), chunkStep)*chunkStep, n)
	logits := tensor.AlignUp(p.rows * p.stride * size)
	space := d.workspace(logits + extra)

	p.args = softmaxRowsArgs{logits: space, targets: targets.Addr, stride: uint64(p.stride), vocab: int32(vocab), padded: int32(p.padded),
		kept: uint32(min(softmaxKept/16, vocab*size/16)), softCap: softCap, inverseTemperature: 1 / temperature}
	if !dx.IsZero() || !dw.IsZero() {
		p.args.gradient = 1
	}
	switch {
	case softCap > 0:
		p.kernel = "loss.softmax_capped_"
	case entropy:
		p.kernel = "loss.softmax_entropy_"
	default:
		p.kernel = "loss.softmax_"
	}
	p.kernel += suffix(p.typ) + "_" + suffix(p.gradients)
	if space == 0 {
		return nil, 0
	}
	return p, space + uintptr(logits)
}

// run goes through the chunks.
func (p *projection) run() {
	d, n, vocab := p.d, p.x.Rows(), p.w.Rows()
	w, dw := p.w, p.dw
	w.Shape = []int{p.padded, w.Cols()}
	if !dw.IsZero() {
		dw.Shape = w.Shape
	}
	for from := 0; from < n; from += p.rows {
		rows := min(p.rows, n-from)
		logits := tensor.Tensor{Device: d, Dtype: p.typ, Shape: []int{rows, p.padded}, Stride: p.stride, Addr: p.args.logits}
		x := p.x.Slice(from, rows)
		d.matmul(tensor.Matmul{C: logits, A: x, B: w, TransB: true})

		args := p.args
		for _, v := range []*uintptr{&args.targets, &args.dLogProbs, &args.dEntropies, &args.losses, &args.marks, &args.logProbs, &args.entropies, &args.lse} {
			if *v != 0 {
				*v += uintptr(4 * from)
			}
		}
		shared := 0
		if args.gradient != 0 {
			shared = 16 * int(args.kept)
		}
		launch(d, p.kernel, grid{X: rows, Threads: softmaxThreads(vocab), Shared: shared}, &args)

		gradients := logits
		gradients.Dtype, gradients.Stride = p.gradients, p.stride*p.typ.Size()/p.gradients.Size()
		if !p.dx.IsZero() {
			d.matmul(tensor.Matmul{C: p.dx.Slice(from, rows), A: gradients, B: w})
		}
		if !p.dw.IsZero() {
			d.matmul(tensor.Matmul{C: dw, A: gradients, TransA: true, B: x, Beta: 1})
		}
	}
}

// softmaxThreads are the threads of a block: 4 elements each for small vocabularies.
func softmaxThreads(vocab int) int { return min(max(ceilDiv(vocab, 128)*32, 32), 512) }

// crossEntropy sums the losses of rows in a fixed order, in float64.
func (d *Device) crossEntropy(a tensor.CrossEntropy) {
	n := a.X.Rows()
	if n == 0 {
		return
	}
	p, vectors := d.openProjection("CrossEntropy", a.X, a.W, a.Targets, a.DX, a.DW, a.Padded, a.SoftCap, 1, false, 8*n)
	if p == nil {
		return
	}
	p.args.losses, p.args.marks = vectors, vectors+uintptr(4*n)
	if p.args.gradient != 0 {
		if a.Scale.Dtype != tensor.F32 {
			panic(fmt.Sprintf("cuda: CrossEntropy with Scale %v, want F32", a.Scale))
		}
		p.args.scale = a.Scale.Addr
	}
	p.run()
	launch(d, "loss.sum_loss", grid{X: 1, Threads: min(ceilDiv(n, 32)*32, 1024)}, &sumLossArgs{loss: a.Loss.Addr, losses: p.args.losses, marks: p.args.marks, rows: int32(n)})
}
