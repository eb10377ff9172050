package cuda

import (
	"fmt"
	"math"
	"unsafe"

	"ringtail/tensor"
)

// sdpa is everything that a graph of scaled dot-product attention, and the plan made
// of it, depends on. Strides are in elements.
type sdpa struct {
	backward bool
	// deterministic asks for the backward pass that adds dQ in a fixed order, through a
	// workspace of sequences·heads·longest²·2 bytes; the other adds it by float atomics.
	deterministic           bool
	packed                  bool // sequences of any length up to longest, one after another
	dtype                   tensor.Dtype
	sequences, longest      int
	heads, kvHeads, headDim int
	window                  int // 0: none
	q, kv, o, dO, dQ, dKV   int // from one token's row to the next
	statsSequence           int // strides of the statistics, packed ones having no first
	statsHead, statsToken   int
	fullRagged              bool // see dnn
}

func (s sdpa) String() string {
	pass, rows := "forward", "dense"
	if s.backward {
		pass = "backward"
	}
	if s.packed {
		rows = "packed"
	}
	out := fmt.Sprintf("%s of %s %v attention, %d sequences of up to %d tokens, %d query and %d key/value heads of %d", pass, rows, s.dtype,
		s.sequences, s.longest, s.heads, s.kvHeads, s.headDim)
	if s.window > 0 {
		out += fmt.Sprintf(", window %d", s.window)
	}
	if s.deterministic {
		out += ", deterministic"
	}
	return out
}

// role is what the memory of a tensor of a graph holds.
type role uint8

const (
	virtual   role = iota // nothing: it exists within the kernel
	roleQ                 // [B, H, S, D]
	roleK                 // [B, KV, D, S]
	roleV                 // [B, KV, S, D]; in the backward pass [B, KV, D, S]
	roleO                 // [B, H, S, D]
	roleStats             // [B, H, S, 1] float32: maximum + ln(sum) of a row of scores
	roleDO
	roleDQ
	roleDK
	roleDV
	roleSum   // [B, H, S, 1] float32: Σ dO·O
	roleDQSum // [B, H, S, D] float32: dQ while it is added up
	roleDKFull
	roleDVFull // [B, H, S, D]: per query head, where they share keys
	roleLengths
	roleOffsetQ // of sequences, in elements, one more than there are
	roleOffsetKV
	roleOffsetO
	roleOffsetStats
	roleOffsetDO
	roleOffsetDQKV
	roleScale // what follows is a float32 on the host
	roleMinusInfinity
	roleOne
	roleWindow
	roles // count
)

// dnnType is cuDNN's cudnnDataType_t.
type dnnType int32

const (
	dnnFloat   dnnType = 0
	dnnHalf    dnnType = 2
	dnnInt32   dnnType = 4
	dnnBF16    dnnType = 9
	dnnBoolean dnnType = 11
)

// dnnTensor is a tensor of a graph.
type dnnTensor struct {
	id            int64
	role          role
	typ           dnnType
	dims, strides [4]int64
	ragged        *dnnTensor // offsets of the sequences
}

// opKind and opMode say what an operation of a graph does.
type (
	opKind uint8
	opMode int32
)

const (
	opMatmul opKind = iota
	opPointwise
	opReduce
	opReshape
)

const ( // cudnnPointwiseMode_t
	modeAdd      opMode = 0
	modeMul      opMode = 1
	modeDiv      opMode = 6
	modeSub      opMode = 9
	modeExp      opMode = 13
	modeLog      opMode = 15
	modeIdentity opMode = 21
	modeGreater  opMode = 302
	modeAtLeast  opMode = 303 // greater or equal
	modeLess     opMode = 304
	modeAnd      opMode = 400
	modeIndex    opMode = 501 // position along an axis
	modeSelect   opMode = 601 // t ? x : b
)

const ( // cudnnReduceTensorOp_t
	reduceAdd opMode = 0
	reduceMax opMode = 3
)

// dnnOp is y = op(x, b, t); of a product, y = x·b, in which m, n and k hold, for each
// sequence, how many rows, columns or inner elements count.
type dnnOp struct {
	kind       opKind
	mode       opMode
	math       dnnType
	axis       int64
	x, b, t, y *dnnTensor
	m, n, k    *dnnTensor
}

// dnnGraph is a graph of operations in order.
type dnnGraph struct {
	s       sdpa
	tensors []*dnnTensor
	ops     []dnnOp

	q, k, v, o, stats, scale *dnnTensor
	lengths, keyLengths      *dnnTensor
	offsets                  map[offsetKey]*dnnTensor
}

type offsetKey struct {
	role role
	of   role
}

// newSDPA builds the graph of a case as cuDNN's engines know it (NVIDIA/cudnn-frontend's
// composite node shows how each feature expands): the product of queries and keys,
// scale, the mask of a packed row's padding, the causal mask and the window's, softmax,
// and the product with the values; backwards as in Dao et al. 2022, algorithm 4.
func newSDPA(s sdpa) *dnnGraph {
	g := &dnnGraph{s: s, offsets: map[offsetKey]*dnnTensor{}}
	if s.packed {
		g.lengths, g.keyLengths = g.lengthsOf(), g.lengthsOf()
	}
	g.q = g.tokens(roleQ, s.heads, s.q, g.offset(roleQ, roleOffsetQ))
	g.k = g.transposed(g.tokens(roleK, s.kvHeads, s.kv, g.offset(roleK, roleOffsetKV)))
	g.v = g.tokens(roleV, s.kvHeads, s.kv, g.offset(roleV, roleOffsetKV))
	g.o = g.tokens(roleO, s.heads, s.o, g.offset(roleO, roleOffsetO))
	g.stats = g.add(roleStats, dnnFloat, [4]int{s.sequences, s.heads, s.longest, 1}, [4]int{s.statsSequence, s.statsHead, s.statsToken, 1})
	g.stats.ragged = g.offset(roleStats, roleOffsetStats)
	g.scale = g.scalar(roleScale)
	if s.backward {
		g.transposed(g.v)
		g.buildBackward()
	} else {
		g.buildForward()
	}
	return g
}

func (g *dnnGraph) buildForward() {
	x := g.virtualTensor(dnnFloat, g.scores())
	g.product(g.q, g.k, x, g.lengths, g.keyLengths, nil)
	x = g.pointwise(modeMul, x, g.scale)
	if g.s.packed {
		x = g.maskPadding(x)
	}
	x = g.maskWindow(g.maskCausal(x))

	largest := g.reduceTo(reduceMax, x, g.virtualTensor(dnnFloat, g.rowOf()))
	e := g.pointwise(modeExp, g.pointwise(modeSub, x, largest), nil)
	sum := g.reduceTo(reduceAdd, e, g.virtualTensor(dnnFloat, g.rowOf()))
	log := g.pointwise(modeLog, sum, nil)
	g.ops = append(g.ops, dnnOp{kind: opPointwise, mode: modeAdd, math: dnnFloat, x: largest, b: log, y: g.stats})
	p := g.virtualTensor(g.q.typ, g.scores())
	g.ops = append(g.ops, dnnOp{kind: opPointwise, mode: modeDiv, math: dnnFloat, x: e, b: sum, y: p})
	g.product(p, g.v, g.o, g.lengths, nil, g.keyLengths)
}

func (g *dnnGraph) buildBackward() {
	s := g.s
	S, D := s.longest, s.headDim
	offsetDO := roleOffsetO
	if s.dO != s.o {
		offsetDO = roleOffsetDO
	}
	offsetDQ, offsetDKV := roleOffsetQ, roleOffsetKV
	if s.dQ != s.q || s.dKV != s.kv {
		offsetDQ, offsetDKV = roleOffsetDQKV, roleOffsetDQKV
	}
	// A gradient shares the offsets of its tensor where the rows are as far apart.
	owner := func(same bool, of, own role) role {
		if same {
			return of
		}
		return own
	}
	dO := g.tokens(roleDO, s.heads, s.dO, g.offset(owner(offsetDO == roleOffsetO, roleO, roleDO), offsetDO))
	same := offsetDQ == roleOffsetQ
	dQ := g.tokens(roleDQ, s.heads, s.dQ, g.offset(owner(same, roleQ, roleDQ), offsetDQ))
	dK := g.tokens(roleDK, s.kvHeads, s.dKV, g.offset(owner(same, roleK, roleDK), offsetDKV))
	dV := g.tokens(roleDV, s.kvHeads, s.dKV, g.offset(owner(same, roleV, roleDV), offsetDKV))

	dP := g.virtualTensor(dnnFloat, g.scores())
	g.product(dO, g.v, dP, g.lengths, g.keyLengths, nil)
	x := g.virtualTensor(dnnFloat, g.scores())
	g.product(g.q, g.k, x, g.lengths, g.keyLengths, nil)
	dOO := g.virtualTensor(dnnFloat, [4]int{s.sequences, s.heads, S, D})
	dOO.strides = [4]int64{int64(s.heads * S * D), int64(S * D), int64(s.heads * D), 1} // cudnn-frontend's
	g.ops = append(g.ops, dnnOp{kind: opPointwise, mode: modeMul, math: dnnFloat, x: dO, b: g.o, y: dOO})
	keys := g.virtualTensor(dnnFloat, [4]int{s.sequences, s.kvHeads, S, D})
	keys.strides = [4]int64{g.k.strides[0], g.k.strides[1], g.k.strides[3], g.k.strides[2]}
	keys.ragged = g.k.ragged
	g.reshape(g.k, keys)

	x = g.pointwise(modeMul, x, g.scale)
	if s.packed {
		x = g.maskPadding(x)
	}
	x = g.pointwise(modeSub, x, g.stats)
	p := g.pointwise(modeExp, g.maskWindow(g.maskCausal(x)), nil)

	shared := s.heads != s.kvHeads
	full := func(sum *dnnTensor, r role) *dnnTensor {
		if !shared {
			return sum
		}
		t := g.virtualTensor(g.q.typ, [4]int{s.sequences, s.heads, S, D})
		if s.packed && s.fullRagged {
			// cuDNN takes the group's size times the offsets of the sum (cudnn-frontend).
			group := int64(s.heads / s.kvHeads)
			t.role = r
			t.strides, t.ragged = sum.strides, sum.ragged
			t.strides[0] *= group
			t.strides[2] *= group
		}
		return t
	}
	dVFull := full(dV, roleDVFull)
	g.product(g.turn(p), dO, dVFull, g.keyLengths, nil, g.lengths)

	row := g.reduceTo(reduceAdd, dOO, g.virtualTensor(dnnFloat, g.rowOf()))
	sum := g.add(roleSum, dnnFloat, g.rowOf(), [4]int{s.heads * S, S, 1, 1})
	if s.packed {
		sum.strides, sum.ragged = g.stats.strides, g.stats.ragged
	}
	g.ops = append(g.ops, dnnOp{kind: opPointwise, mode: modeMul, math: dnnFloat, x: row, b: g.scalar(roleOne), y: sum})
	dS := g.pointwise(modeMul, g.pointwise(modeMul, g.pointwise(modeSub, dP, sum), p), g.scale)

	if s.deterministic {
		g.product(dS, keys, dQ, g.lengths, nil, g.keyLengths)
	} else {
		added := g.add(roleDQSum, dnnFloat, [4]int{s.sequences, s.heads, S, D}, [4]int{s.heads * S * D, S * D, D, 1})
		if s.packed {
			added.strides, added.ragged = dQ.strides, dQ.ragged
		}
		g.product(dS, keys, added, g.lengths, nil, g.keyLengths)
		g.ops = append(g.ops, dnnOp{kind: opPointwise, mode: modeIdentity, math: dnnFloat, x: added, y: dQ})
	}
	dKFull := full(dK, roleDKFull)
	g.product(g.turn(dS), g.q, dKFull, g.keyLengths, nil, g.lengths)
	if shared {
		g.reduceTo(reduceAdd, dKFull, dK)
		g.reduceTo(reduceAdd, dVFull, dV)
	}
}

// maskPadding puts −∞ where the query or the key is past its sequence's end.
func (g *dnnGraph) maskPadding(x *dnnTensor) *dnnTensor {
	column := g.index(x, 3, dnnInt32)
	inColumns := g.compare(modeLess, column, g.keyLengths)
	row := g.index(x, 2, dnnInt32)
	inRows := g.compare(modeLess, row, g.lengths)
	return g.choose(x, g.compare(modeAnd, inRows, inColumns))
}

// maskCausal puts −∞ where the key comes after the query.
func (g *dnnGraph) maskCausal(x *dnnTensor) *dnnTensor {
	column := g.index(x, 3, dnnFloat)
	row := g.index(x, 2, dnnFloat)
	return g.choose(x, g.compare(modeAtLeast, row, column))
}

// maskWindow puts −∞ where the key comes window tokens or more before the query.
func (g *dnnGraph) maskWindow(x *dnnTensor) *dnnTensor {
	if g.s.window == 0 {
		return x
	}
	row := g.index(x, 2, dnnFloat)
	column := g.index(x, 3, dnnFloat)
	last := g.pointwise(modeAdd, column, g.scalar(roleWindow))
	return g.choose(x, g.compare(modeGreater, last, row))
}

func (g *dnnGraph) index(x *dnnTensor, axis int64, math dnnType) *dnnTensor {
	y := g.virtualTensor(dnnInt32, g.scores())
	g.ops = append(g.ops, dnnOp{kind: opPointwise, mode: modeIndex, math: math, axis: axis, x: x, y: y})
	return y
}

func (g *dnnGraph) compare(mode opMode, x, b *dnnTensor) *dnnTensor {
	y := g.virtualTensor(dnnBoolean, g.scores())
	g.ops = append(g.ops, dnnOp{kind: opPointwise, mode: mode, math: dnnBoolean, x: x, b: b, y: y})
	return y
}

// choose is x where the mask holds, else −∞.
func (g *dnnGraph) choose(x, mask *dnnTensor) *dnnTensor {
	y := g.virtualTensor(dnnFloat, g.scores())
	g.ops = append(g.ops, dnnOp{kind: opPointwise, mode: modeSelect, math: dnnFloat, x: x, b: g.scalar(roleMinusInfinity), t: mask, y: y})
	return y
}

// pointwise is an operation whose result is float32 and of x's shape.
func (g *dnnGraph) pointwise(mode opMode, x, b *dnnTensor) *dnnTensor {
	y := &dnnTensor{typ: dnnFloat, dims: x.dims, strides: x.strides}
	g.register(y)
	g.ops = append(g.ops, dnnOp{kind: opPointwise, mode: mode, math: dnnFloat, x: x, b: b, y: y})
	return y
}

func (g *dnnGraph) reduceTo(mode opMode, x, y *dnnTensor) *dnnTensor {
	g.ops = append(g.ops, dnnOp{kind: opReduce, mode: mode, math: dnnFloat, x: x, y: y})
	return y
}

func (g *dnnGraph) reshape(x, y *dnnTensor) {
	g.ops = append(g.ops, dnnOp{kind: opReshape, x: x, y: y})
}

// turn exchanges the rows and columns of scores, rounded to the inputs' type.
func (g *dnnGraph) turn(x *dnnTensor) *dnnTensor {
	y := g.virtualTensor(g.q.typ, g.scores())
	y.strides[2], y.strides[3] = y.strides[3], y.strides[2]
	g.reshape(x, y)
	return y
}

func (g *dnnGraph) product(a, b, c, m, n, k *dnnTensor) {
	g.ops = append(g.ops, dnnOp{kind: opMatmul, math: dnnFloat, x: a, b: b, y: c, m: m, n: n, k: k})
}

func (g *dnnGraph) scores() [4]int {
	return [4]int{g.s.sequences, g.s.heads, g.s.longest, g.s.longest}
}

func (g *dnnGraph) rowOf() [4]int { return [4]int{g.s.sequences, g.s.heads, g.s.longest, 1} }

// virtualTensor is dense.
func (g *dnnGraph) virtualTensor(typ dnnType, dims [4]int) *dnnTensor {
	return g.add(virtual, typ, dims, [4]int{dims[1] * dims[2] * dims[3], dims[2] * dims[3], dims[3], 1})
}

// tokens is [B, heads, S, D] of rows a stride apart, in which heads are adjacent.
func (g *dnnGraph) tokens(r role, heads, stride int, offset *dnnTensor) *dnnTensor {
	s := g.s
	t := g.add(r, dataType(s.dtype), [4]int{s.sequences, heads, s.longest, s.headDim}, [4]int{s.longest * stride, s.headDim, stride, 1})
	t.ragged = offset
	return t
}

func (g *dnnGraph) transposed(t *dnnTensor) *dnnTensor {
	t.dims[2], t.dims[3] = t.dims[3], t.dims[2]
	t.strides[2], t.strides[3] = t.strides[3], t.strides[2]
	return t
}

func (g *dnnGraph) scalar(r role) *dnnTensor {
	return g.add(r, dnnFloat, [4]int{1, 1, 1, 1}, [4]int{1, 1, 1, 1})
}

func (g *dnnGraph) lengthsOf() *dnnTensor {
	return g.add(roleLengths, dnnInt32, [4]int{g.s.sequences, 1, 1, 1}, [4]int{1, 1, 1, 1})
}

// offset is the tensor of a packed tensor's offsets, one for each owner, as callers of
// cudnn-frontend make them; owners may share memory. nil for dense rows.
func (g *dnnGraph) offset(of, r role) *dnnTensor {
	if !g.s.packed {
		return nil
	}
	key := offsetKey{r, of}
	if g.offsets[key] == nil {
		g.offsets[key] = g.add(r, dnnInt32, [4]int{g.s.sequences + 1, 1, 1, 1}, [4]int{1, 1, 1, 1})
	}
	return g.offsets[key]
}

func (g *dnnGraph) add(r role, typ dnnType, dims, strides [4]int) *dnnTensor {
	t := &dnnTensor{role: r, typ: typ}
	for i := range dims {
		t.dims[i], t.strides[i] = int64(dims[i]), int64(strides[i])
	}
	g.register(t)
	return t
}

func (g *dnnGraph) register(t *dnnTensor) {
	t.id = int64(len(g.tensors) + 1)
	g.tensors = append(g.tensors, t)
}

func dataType(d tensor.Dtype) dnnType {
	switch d {
	case tensor.F16:
		return dnnHalf
	case tensor.BF16:
		return dnnBF16
	}
	panic("cuda: cuDNN's attention of " + d.String())
}

// dnnPlan is a case made ready to run. refused says why cuDNN has no engine for it.
type dnnPlan struct {
	descriptors
	plan      uintptr
	workspace int
	ids       []int64 // of the tensors with memory
	roles     []role
	pointers  []uintptr
	scalars   [roles]float32 // read by cuDNN when the plan runs
	refused   error
}

// plan makes a case ready, once: it takes a second where cuDNN compiles the engine. It
// must not be met first while a graph is captured.
func (n *dnn) plan(s sdpa) *dnnPlan {
	if p := n.plans[s]; p != nil {
		return p
	}
	p := &dnnPlan{descriptors: descriptors{n: n, what: s.String()}}
	n.plans[s] = p
	p.scalars[roleMinusInfinity] = float32(math.Inf(-1))
	p.scalars[roleOne] = 1
	p.scalars[roleWindow] = float32(s.window)
	graph := p.describe(newSDPA(s))
	p.choose(graph)
	if p.err != nil {
		p.refused = p.err
		p.free()
	}
	return p
}

// describe makes the graph's descriptors and notes which tensors need memory.
func (p *dnnPlan) describe(g *dnnGraph) uintptr {
	b := &p.descriptors
	made := make([]uintptr, len(g.tensors)+1)
	var tensorOf func(t *dnnTensor) uintptr
	tensorOf = func(t *dnnTensor) uintptr {
		if made[t.id] != 0 || b.err != nil {
			return made[t.id]
		}
		var ragged uintptr
		if t.ragged != nil {
			ragged = tensorOf(t.ragged)
		}
		d := b.create(kindTensor)
		setValues(b, d, attrTensorType, int32(t.typ))
		setValues(b, d, attrTensorDims, t.dims[:]...)
		setValues(b, d, attrTensorStrides, t.strides[:]...)
		setValues(b, d, attrTensorID, t.id)
		setValues(b, d, attrTensorAlignment, int64(16))
		setValues(b, d, attrTensorVirtual, boolean(t.role == virtual))
		setValues(b, d, attrTensorByValue, boolean(t.role >= roleScale))
		if ragged != 0 {
			setValues(b, d, attrTensorRagged, ragged)
		}
		made[t.id] = b.finalize(d, fmt.Sprintf("tensor %v %v", t.dims, t.strides))
		if t.role != virtual {
			p.ids, p.roles = append(p.ids, t.id), append(p.roles, t.role)
		}
		return made[t.id]
	}
	var ops []uintptr
	for i, o := range g.ops {
		name := fmt.Sprintf("operation %d", i)
		link := func(op uintptr, a attr, t *dnnTensor) {
			if t != nil {
				setValues(b, op, a, tensorOf(t))
			}
		}
		var op uintptr
		switch o.kind {
		case opMatmul:
			m := b.create(kindMatmul)
			setValues(b, m, attrMatmulMath, int32(o.math))
			b.finalize(m, name)
			op = b.create(kindMatmulOp)
			link(op, attrMatmulOpA, o.x)
			link(op, attrMatmulOpB, o.b)
			link(op, attrMatmulOpC, o.y)
			link(op, attrMatmulOpM, o.m)
			link(op, attrMatmulOpN, o.n)
			link(op, attrMatmulOpK, o.k)
			setValues(b, op, attrMatmulOpDesc, m)
		case opPointwise:
			w := b.create(kindPointwise)
			setValues(b, w, attrPointwiseMode, int32(o.mode))
			setValues(b, w, attrPointwiseMath, int32(o.math))
			if o.mode == modeIndex {
				setValues(b, w, attrPointwiseAxis, o.axis)
			}
			b.finalize(w, name)
			op = b.create(kindPointwiseOp)
			setValues(b, op, attrPointwiseOpDesc, w)
			link(op, attrPointwiseOpX, o.x)
			link(op, attrPointwiseOpB, o.b)
			link(op, attrPointwiseOpT, o.t)
			link(op, attrPointwiseOpY, o.y)
		case opReduce:
			r := b.create(kindReduction)
			setValues(b, r, attrReductionMode, int32(o.mode))
			setValues(b, r, attrReductionMath, int32(o.math))
			b.finalize(r, name)
			op = b.create(kindReductionOp)
			setValues(b, op, attrReductionOpDesc, r)
			link(op, attrReductionOpX, o.x)
			link(op, attrReductionOpY, o.y)
		case opReshape:
			op = b.create(kindReshapeOp)
			link(op, attrReshapeOpX, o.x)
			link(op, attrReshapeOpY, o.y)
		}
		ops = append(ops, b.finalize(op, name))
	}
	p.pointers = make([]uintptr, len(p.ids))
	graph := b.create(kindGraph)
	if b.n.properties == 0 {
		setValues(b, graph, attrGraphHandle, b.n.handle)
	}
	setValues(b, graph, attrGraphOps, ops...)
	return b.finalize(graph, "operation graph")
}

func boolean(v bool) byte {
	if v {
		return booleanTrue
	}
	return booleanFalse
}

// choose takes the first engine that cuDNN proposes and that makes a plan.
func (p *dnnPlan) choose(graph uintptr) {
	b := &p.descriptors
	h := b.create(kindHeuristics)
	setValues(b, h, attrHeuristicsGraph, graph)
	setValues(b, h, attrHeuristicsMode, int32(heuristicsDefault))
	if b.n.properties != 0 {
		setValues(b, h, attrHeuristicsDevice, b.n.properties)
	}
	b.finalize(h, "heuristics")
	if b.err != nil {
		return
	}
	n, results := b.n, attrHeuristicsResults
	var count int64
	b.err = n.check("cudnnBackendGetAttribute", call(n.getAttribute, h, results.id, results.typ, 0, address(&count), 0), "%s, for %s", results.name, b.what)
	configs := make([]uintptr, max(count, 1))
	for i := range configs {
		configs[i] = b.create(kindEngineConfig)
	}
	if b.err != nil {
		return
	}
	b.err = n.check("cudnnBackendGetAttribute", call(n.getAttribute, h, results.id, results.typ, uintptr(count), address(&count), address(&configs[0])),
		"%s, for %s", results.name, b.what)
	if b.err != nil {
		return
	}
	// The first count was the most that there can be.
	configs = configs[:min(int(count), len(configs))]
	last := n.check("heuristics", statusNotSupported, "cuDNN %s has no engine for %s", n.lib.Version, b.what)
	for _, c := range configs {
		plan := b.create(kindPlan)
		if n.properties != 0 {
			setValues(b, plan, attrPlanDevice, n.properties)
		} else {
			setValues(b, plan, attrPlanHandle, n.handle)
		}
		setValues(b, plan, attrPlanConfig, c)
		if b.err != nil {
			return
		}
		if last = n.check("cudnnBackendFinalize", call(n.finalize, plan), "plan, for %s", b.what); last != nil {
			continue
		}
		var size, got int64
		b.err = n.check("cudnnBackendGetAttribute", call(n.getAttribute, plan, attrPlanWorkspace.id, attrPlanWorkspace.typ, 1, address(&got), address(&size)),
			"%s, for %s", attrPlanWorkspace.name, b.what)
		p.plan, p.workspace = plan, int(size)
		return
	}
	if b.err == nil {
		b.err = last
	}
}

// run executes the plan with the memory of each role. Scalars are read meanwhile.
func (p *dnnPlan) run(memory *[roles]uintptr, workspace uintptr) error {
	n := p.n
	for i, r := range p.roles {
		if r >= roleScale {
			p.pointers[i] = uintptr(unsafe.Pointer(&p.scalars[r])) // p is kept by n.plans and does not move
		} else if p.pointers[i] = memory[r]; memory[r] == 0 {
			panic(fmt.Sprintf("cuda: no memory for tensor %d (role %d) of the %s", p.ids[i], r, p.what))
		}
	}
	b := descriptors{n: n, what: p.what}
	defer b.free()
	pack := b.create(kindVariantPack)
	setValues(&b, pack, attrPackIDs, p.ids...)
	setValues(&b, pack, attrPackPointers, p.pointers...)
	setValues(&b, pack, attrPackWorkspace, workspace)
	b.finalize(pack, "variant pack")
	if b.err != nil {
		return b.err
	}
	return n.check("cudnnBackendExecute", call(n.execute, n.handle, p.plan, pack), "%s", p.what)
}
