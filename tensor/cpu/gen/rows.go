package main

import "math"

// The row kernels, each written once for every instruction set (isa.go).

func init() { generators = append(generators, rowFiles) }

// Constants of the elementary functions; ../math32.go says what they are.
const (
	log2E      = math.Log2E
	ln2High    = 0.693359375
	ln2Low     = -2.12194440054690583e-4
	expLow     = -87.33654
	expClamp   = 89 // above, the result is Inf whatever the argument
	tanhClamp  = 20 // 2x above which tanh x is 1
	sqrtHalf   = 1 / math.Sqrt2
	invSqrt2Pi = 0.39894228040143267794
	geluTanhA  = 2 * 0.79788456080286535588
	geluTanhB  = geluTanhA * 0.044715
)

var (
	expC   = []float64{0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.00836874544620514, 0.0013814540579915047}
	erfcxC = []float64{
		0.28208768367767334, 0.2823534607887268, 0.24326112866401672,
		0.20206935703754425, -0.025176551192998886, 0.2759764790534973,
		-0.48538222908973694, 0.28370124101638794, -0.05889062210917473,
	}
)

// bits is the number whose float32 has these bits, for integer constants.
func floatBits(b uint32) float64 { return float64(math.Float32frombits(b)) }

// Exp is e^x; see exp32 in ../math32.go. NaN passes.
func (e *rowEmitter) Exp(x operand) operand { return e.exp(x, e.Min(e.c(expClamp), x)) }

// ExpNeg is e^x for x <= 0.
func (e *rowEmitter) ExpNeg(x operand) operand { return e.exp(x, x) }

// exp is e^x given x and x clamped from above.
func (e *rowEmitter) exp(x, clamped operand) operand {
	done := e.scope()
	r := e.Max(e.c(expLow), clamped)
	n := e.Mul(r, e.c(log2E))
	e.round(e, n, n)
	e.fnma(e, r, n, e.c(ln2High), r)
	e.fnma(e, r, n, e.c(ln2Low), r)
	p := e.FMA(r, e.c(expC[4]), e.c(expC[3]))
	for _, c := range []float64{expC[2], expC[1], expC[0], 1, 1} {
		e.fma(e, p, p, r, e.c(c))
	}
	e.pow2(e, p, p, n)
	e.zeroBelow(e, p, p, x, e.c(expLow))
	done(p)
	return p
}

// Sigmoid is s = 1/(1+e^-x), the logistic function, and, where asked, 1-s as
// s·e^-x, which unlike the difference keeps its relative accuracy where s nears 1.
func (e *rowEmitter) Sigmoid(x operand, complement bool) (s, c operand) {
	done := e.scope()
	t := e.Mul(x, e.c(-1))
	t = e.Exp(t)
	s = e.Add(t, e.c(1))
	e.bin(e, "div", s, e.c(1), s)
	if !complement {
		done(s)
		return s, c
	}
	c = e.Min(e.c(1e38), t) // e^-x may be Inf, s then is 0
	e.bin(e, "mul", c, c, s)
	done(s, c)
	return s, c
}

// Tanh is the hyperbolic tangent; see tanh32 in ../math32.go. NaN passes.
func (e *rowEmitter) Tanh(x operand) operand {
	done := e.scope()
	r := e.Abs(x)
	e.bin(e, "add", r, r, r)
	e.bin(e, "min", r, e.c(tanhClamp), r)
	n := e.Mul(r, e.c(log2E))
	e.round(e, n, n)
	e.fnma(e, r, n, e.c(ln2High), r)
	e.fnma(e, r, n, e.c(ln2Low), r)
	p := e.FMA(r, e.c(expC[4]), e.c(expC[3]))
	for _, c := range []float64{expC[2], expC[1], expC[0]} {
		e.fma(e, p, p, r, e.c(c))
	}
	e.bin(e, "mul", p, p, r)
	e.fma(e, p, p, r, r) // e^r - 1
	s := e.tmp()
	e.mov(e, s, e.c(1))
	e.pow2(e, s, s, n)
	e.bin(e, "sub", n, s, e.c(1))
	e.fma(e, p, p, s, n) // e^2|x| - 1
	e.bin(e, "add", n, p, e.c(2))
	e.bin(e, "div", p, p, n)
	e.bin(e, "mul", s, p, e.c(-1))
	e.selNeg(e, p, x, s, p)
	done(p)
	return p
}

// NormalTail is Φ(-|x|) and e^(-x²/2); see normalTail32 in ../math32.go.
func (e *rowEmitter) NormalTail(x operand) (tail, q operand) {
	done := e.scope()
	h := e.Mul(x, e.c(-0.5))
	e.bin(e, "mul", h, h, x)
	q = e.ExpNeg(h)
	t := e.Abs(x)
	e.fma(e, t, t, e.c(0.5*sqrtHalf), e.c(1))
	e.bin(e, "div", t, e.c(1), t)
	p := e.FMA(t, e.c(erfcxC[8]/2), e.c(erfcxC[7]/2))
	for i := 6; i >= 0; i-- {
		e.fma(e, p, p, t, e.c(erfcxC[i]/2))
	}
	tail = e.Mul(p, t)
	e.bin(e, "mul", tail, tail, q)
	done(tail, q)
	return tail, q
}

// activation gives act(x) and, where the backward pass asks, act'(x).
type activation func(e *rowEmitter, x operand, slope bool) (act, d operand)

func silu(e *rowEmitter, x operand, slope bool) (act, d operand) {
	if !slope {
		act = e.Add(e.Exp(e.Mul(x, e.c(-1))), e.c(1))
		e.bin(e, "div", act, x, act)
		return act, operand{}
	}
	s, c := e.Sigmoid(x, true)
	act = e.Mul(x, s)
	e.fma(e, c, act, c, s)
	return act, c
}

func geluTanh(e *rowEmitter, x operand, slope bool) (act, d operand) {
	xx := e.Mul(x, x)
	z := e.FMA(xx, e.c(geluTanhB), e.c(geluTanhA))
	e.bin(e, "mul", z, z, x)
	s, d := e.Sigmoid(z, slope)
	act = e.Mul(x, s)
	if slope {
		e.fma(e, xx, xx, e.c(3*geluTanhB), e.c(geluTanhA)) // z'
		e.bin(e, "mul", d, d, act)
		e.fma(e, d, d, xx, s)
	}
	return act, d
}

func gelu(e *rowEmitter, x operand, slope bool) (act, d operand) {
	tail, q := e.NormalTail(x)
	d = e.Sub(e.c(1), tail)
	e.selNeg(e, d, x, tail, d) // Φ(x)
	act = e.Mul(x, d)
	if slope {
		e.bin(e, "mul", q, q, e.c(invSqrt2Pi)) // the density
		e.fma(e, d, q, x, d)
	}
	return act, d
}

func relu(e *rowEmitter, x operand, slope bool) (act, d operand) {
	act = e.Max(e.c(0), x)
	if slope {
		d = e.SelNeg(e.Sub(e.c(0), x), e.c(1), e.c(0))
		e.fma(e, d, e.Min(e.c(1), act), e.c(0), d) // NaN stays NaN
	}
	return act, d
}

func p32(names ...string) []rowParam {
	ps := make([]rowParam, len(names))
	for i, n := range names {
		ps[i] = rowParam{n, ptr32}
	}
	return ps
}

func withFloats(ps []rowParam, floats ...string) []rowParam {
	for _, n := range floats {
		ps = append(ps, rowParam{n, f32})
	}
	return ps
}

func rowKernels() []*rowKernel {
	ks := []*rowKernel{
		{name: "vecMax", params: p32("x"), result: "float32", empty: "float32(math.Inf(-1))",
			doc: "is the largest element, NaN left out; -Inf if there is none.",
			body: func(e *rowEmitter) {
				m := e.accumulators(4, math.Inf(-1))
				e.each(4, func(u int) {
					x := e.tmp()
					e.loadFill(e, x, "x", u, e.c(math.Inf(-1)))
					e.bin(e, "maxnum", m[u], m[u], x)
				})
				e.reduce(e, "max", m)
			}},
		{name: "vecExpSum", params: withFloats(p32("dst", "src"), "shift"), result: "float32",
			doc:  "sets dst = exp(src - shift) and returns the sum of dst. dst may be src.",
			body: func(e *rowEmitter) { expSum(e, true) }},
		{name: "vecSumExp", params: withFloats(p32("src"), "shift"), result: "float32",
			doc:  "is the sum of exp(src - shift).",
			body: func(e *rowEmitter) { expSum(e, false) }},
		{name: "vecScale", params: withFloats(p32("x"), "f"), doc: "sets x = x·f.",
			body: func(e *rowEmitter) {
				f := e.argument("f")
				e.each(4, func(u int) { e.Store("x", u, e.Mul(e.Load("x", u), f)) })
			}},
		{name: "vecShiftScale", params: withFloats(p32("x"), "shift", "f"), doc: "sets x = (x - shift)·f.",
			body: func(e *rowEmitter) {
				shift, f := e.argument("shift"), e.argument("f")
				e.each(4, func(u int) { e.Store("x", u, e.Mul(e.Sub(e.Load("x", u), shift), f)) })
			}},
		{name: "vecAxpy", params: withFloats(p32("y", "x"), "f"), doc: "sets y = y + f·x.",
			body: func(e *rowEmitter) {
				f := e.argument("f")
				e.each(4, func(u int) { e.Store("y", u, e.FMA(e.Load("x", u), f, e.Load("y", u))) })
			}},
		{name: "vecRamp", params: withFloats(p32("x"), "from", "slope"), doc: "sets x[i] = x[i] + (from + i)·slope.",
			body: func(e *rowEmitter) {
				at, step := e.counter("from")
				slope := e.argument("slope")
				e.each(1, func(u int) {
					x := e.Load("x", u)
					e.fma(e, x, at, slope, x)
					e.Store("x", u, x)
					step()
				})
			}},
		{name: "vecAdd", params: p32("y", "a", "b"), doc: "sets y = a + b. y may be a or b.",
			body: func(e *rowEmitter) {
				e.each(4, func(u int) { e.Store("y", u, e.Add(e.Load("a", u), e.Load("b", u))) })
			}},
		{name: "vecDot", params: p32("a", "b"), result: "float32", doc: "is the sum of a·b.",
			body: func(e *rowEmitter) {
				s := e.accumulators(4, 0)
				e.each(4, func(u int) { e.fma(e, s[u], e.Load("a", u), e.Load("b", u), s[u]) })
				e.reduce(e, "add", s)
			}},
		{name: "vecSumSquares", params: p32("x"), result: "float64", doc: "is the sum of x², squared and added in float64.",
			body: func(e *rowEmitter) {
				s := e.accumulators(4, 0)
				e.each(2, func(u int) { e.squares64(e, s[2*u], s[2*u+1], e.Load("x", u)) })
				e.reduce(e, "add64", s)
			}},
		{name: "vecAddSquares", params: p32("y", "a", "b"), result: "float32",
			doc: "sets y = a + b and returns the sum of y². y may be a or b.",
			body: func(e *rowEmitter) {
				s := e.accumulators(4, 0)
				e.each(4, func(u int) {
					y := e.Add(e.Load("a", u), e.Load("b", u))
					e.Store("y", u, y)
					e.fma(e, s[u], y, y, s[u])
				})
				e.reduce(e, "add", s)
			}},
		{name: "vecMulScale", params: withFloats(p32("y", "x", "w"), "f"), doc: "sets y = x·f·w. y may be x.",
			body: func(e *rowEmitter) {
				f := e.argument("f")
				e.each(4, func(u int) { e.Store("y", u, e.Mul(e.Mul(e.Load("x", u), f), e.Load("w", u))) })
			}},
		{name: "vecNormDot", params: p32("dy", "s", "w"), result: "float32", doc: "is the sum of dy·s·w.",
			body: func(e *rowEmitter) {
				acc := e.accumulators(4, 0)
				e.each(4, func(u int) {
					e.fma(e, acc[u], e.Mul(e.Load("dy", u), e.Load("s", u)), e.Load("w", u), acc[u])
				})
				e.reduce(e, "add", acc)
			}},
		{name: "vecNormDotWeight", params: withFloats(p32("dw", "dy", "s", "w"), "r"), result: "float32",
			doc: "adds dy·s·r to dw and returns the sum of dy·s·w.",
			body: func(e *rowEmitter) {
				r := e.argument("r")
				acc := e.accumulators(4, 0)
				e.each(4, func(u int) {
					t := e.Mul(e.Load("dy", u), e.Load("s", u))
					e.fma(e, acc[u], t, e.Load("w", u), acc[u])
					e.Store("dw", u, e.FMA(t, r, e.Load("dw", u)))
				})
				e.reduce(e, "add", acc)
			}},
		{name: "vecNormGrad", params: withFloats(p32("dx", "dy", "s", "w"), "r", "k"),
			doc: "sets dx = dy·w·r - s·k. dx may be dy or s.",
			body: func(e *rowEmitter) {
				r, k := e.argument("r"), e.argument("k")
				e.each(2, func(u int) {
					d := e.Mul(e.Mul(e.Load("dy", u), e.Load("w", u)), r)
					e.Store("dx", u, e.FNMA(e.Load("s", u), k, d))
				})
			}},
		{name: "vecNormGradAdd", params: withFloats(p32("dx", "base", "dy", "s", "w"), "r", "k"),
			doc: "sets dx = base + dy·w·r - s·k. dx may be base, dy or s.",
			body: func(e *rowEmitter) {
				r, k := e.argument("r"), e.argument("k")
				e.each(2, func(u int) {
					d := e.FMA(e.Mul(e.Load("dy", u), e.Load("w", u)), r, e.Load("base", u))
					e.Store("dx", u, e.FNMA(e.Load("s", u), k, d))
				})
			}},
		{name: "vecSum", params: p32("x"), result: "float64", doc: "is the sum of x, added in float64.",
			body: func(e *rowEmitter) {
				s := e.accumulators(4, 0)
				e.each(2, func(u int) { e.add64(e, s[2*u], s[2*u+1], e.Load("x", u)) })
				e.reduce(e, "add64", s)
			}},
		{name: "vecAddSum", params: p32("y", "a", "b"), result: "float64",
			doc: "sets y = a + b and returns the sum of y, added in float64. y may be a or b.",
			body: func(e *rowEmitter) {
				s := e.accumulators(4, 0)
				e.each(2, func(u int) {
					y := e.Add(e.Load("a", u), e.Load("b", u))
					e.Store("y", u, y)
					e.add64(e, s[2*u], s[2*u+1], y)
				})
				e.reduce(e, "add64", s)
			}},
		{name: "vecSquaresFrom", params: withFloats(p32("x"), "mean", "low"), result: "float64",
			doc: "is the sum of (x - mean - low)², squared and added in float64.",
			body: func(e *rowEmitter) {
				mean, low := e.argument("mean"), e.argument("low")
				s := e.accumulators(4, 0)
				e.each(2, func(u int) {
					d := e.Sub(e.Sub(e.Load("x", u), mean), low)
					e.keep(e, d)
					e.squares64(e, s[2*u], s[2*u+1], d)
				})
				e.reduce(e, "add64", s)
			}},
		{name: "vecLayerNorm", params: withFloats(p32("y", "x", "w"), "mean", "low", "r"),
			doc: "sets y = (x - mean - low)·r·w. y may be x.",
			body: func(e *rowEmitter) {
				mean, low, r := e.argument("mean"), e.argument("low"), e.argument("r")
				e.each(2, func(u int) {
					d := e.Sub(e.Sub(e.Load("x", u), mean), low)
					e.Store("y", u, e.Mul(e.Mul(d, r), e.Load("w", u)))
				})
			}},
		{name: "vecLayerNormBias", params: withFloats(p32("y", "x", "w", "b"), "mean", "low", "r"),
			doc: "sets y = (x - mean - low)·r·w + b. y may be x.",
			body: func(e *rowEmitter) {
				mean, low, r := e.argument("mean"), e.argument("low"), e.argument("r")
				e.each(2, func(u int) {
					d := e.Sub(e.Sub(e.Load("x", u), mean), low)
					e.Store("y", u, e.FMA(e.Mul(d, r), e.Load("w", u), e.Load("b", u)))
				})
			}},
		{name: "vecLayerDot", params: withFloats(p32("dy", "s", "w"), "mean", "r"), result: "float32",
			doc: "is the sum of dy·w·(s - mean)·r.",
			body: func(e *rowEmitter) {
				mean, r := e.argument("mean"), e.argument("r")
				acc := e.accumulators(4, 0)
				e.each(4, func(u int) {
					n := e.Mul(e.Sub(e.Load("s", u), mean), r)
					e.fma(e, acc[u], e.Mul(n, e.Load("dy", u)), e.Load("w", u), acc[u])
				})
				e.reduce(e, "add", acc)
			}},
		{name: "vecLayerDotWeight", params: withFloats(p32("dw", "dy", "s", "w"), "mean", "r"), result: "float32",
			doc: "adds dy·(s - mean)·r to dw and returns the sum of dy·w·(s - mean)·r.",
			body: func(e *rowEmitter) {
				mean, r := e.argument("mean"), e.argument("r")
				acc := e.accumulators(4, 0)
				e.each(4, func(u int) {
					n := e.Mul(e.Sub(e.Load("s", u), mean), r)
					t := e.Mul(n, e.Load("dy", u))
					e.fma(e, acc[u], t, e.Load("w", u), acc[u])
					e.Store("dw", u, e.Add(t, e.Load("dw", u)))
				})
				e.reduce(e, "add", acc)
			}},
		{name: "vecLayerGrad", params: withFloats(p32("dx", "dy", "s", "w"), "mean", "r", "mg", "mgn"),
			doc: "sets dx = (dy·w - mg - n·mgn)·r, n = (s - mean)·r. dx may be dy or s.",
			body: func(e *rowEmitter) {
				f := e.layerGrad()
				e.each(2, func(u int) {
					d, r := f(u)
					e.Store("dx", u, e.Mul(d, r))
				})
			}},
		{name: "vecLayerGradAdd", params: withFloats(p32("dx", "base", "dy", "s", "w"), "mean", "r", "mg", "mgn"),
			doc: "sets dx = base + (dy·w - mg - n·mgn)·r, n = (s - mean)·r. dx may be base, dy or s.",
			body: func(e *rowEmitter) {
				f := e.layerGrad()
				e.each(2, func(u int) {
					d, r := f(u)
					e.Store("dx", u, e.FMA(d, r, e.Load("base", u)))
				})
			}},
		{name: "vecSoftCap", params: withFloats(p32("y", "x"), "inverse", "limit"), doc: "sets y = limit·tanh(x·inverse). y may be x.",
			body: func(e *rowEmitter) {
				inverse, limit := e.argument("inverse"), e.argument("limit")
				e.each(1, func(u int) { e.Store("y", u, e.Mul(e.Tanh(e.Mul(e.Load("x", u), inverse)), limit)) })
			}},
		{name: "vecSoftCapGrad", params: withFloats(p32("dx", "dy", "y"), "limit", "square"),
			doc: "sets dx = dy·(limit - y)·(limit + y)·square. dx may be dy or y.",
			body: func(e *rowEmitter) {
				limit, square := e.argument("limit"), e.argument("square")
				e.each(2, func(u int) {
					y := e.Load("y", u)
					d := e.Mul(e.Mul(e.Sub(limit, y), e.Add(limit, y)), square)
					e.Store("dx", u, e.Mul(d, e.Load("dy", u)))
				})
			}},
		{name: "vecRotate", params: withFloats(p32("a", "b", "cos", "sin"), "sign"),
			doc: "rotates the pairs (a, b): (a·cos - b·sin·sign, b·cos + a·sin·sign).",
			body: func(e *rowEmitter) {
				sign := e.argument("sign")
				e.each(1, func(u int) {
					a, b, c := e.Load("a", u), e.Load("b", u), e.Load("cos", u)
					s := e.Mul(e.Load("sin", u), sign)
					e.Store("a", u, e.FNMA(b, s, e.Mul(a, c)))
					e.Store("b", u, e.FMA(a, s, e.Mul(b, c)))
				})
			}},
		{name: "vecAdamW", params: withFloats(p32("p", "m", "v", "grad"), "clip", "decay", "beta1", "rest1", "beta2", "rest2", "rate", "root", "eps"),
			doc: "is one step of AdamW for the gradient g = grad·clip:\np = p - decay·p; m = beta1·m + rest1·g; v = beta2·v + rest2·g²; p = p - rate·m/(√v·root + eps).",
			body: func(e *rowEmitter) {
				clip, decay, beta1, rest1 := e.argument("clip"), e.argument("decay"), e.argument("beta1"), e.argument("rest1")
				beta2, rest2, rate, root, eps := e.argument("beta2"), e.argument("rest2"), e.argument("rate"), e.argument("root"), e.argument("eps")
				e.each(1, func(u int) {
					g, m, v := e.Load("grad", u), e.Load("m", u), e.Load("v", u)
					e.bin(e, "mul", g, g, clip)
					e.bin(e, "mul", m, m, beta1)
					e.fma(e, m, g, rest1, m)
					e.Store("m", u, m)
					e.bin(e, "mul", g, g, g)
					e.bin(e, "mul", v, v, beta2)
					e.fma(e, v, g, rest2, v)
					e.Store("v", u, v)
					e.sqrt(e, v, v)
					e.fma(e, v, v, root, eps)
					e.bin(e, "mul", m, m, rate)
					e.bin(e, "div", m, m, v)
					p := g
					e.load(e, p, "p", u)
					e.fnma(e, p, p, decay, p)
					e.Store("p", u, e.Sub(p, m))
				})
			}},
	}
	for _, a := range []struct {
		name string
		f    activation
	}{{"SiLU", silu}, {"GELU", gelu}, {"GELUTanh", geluTanh}, {"ReLU", relu}} {
		ks = append(ks,
			&rowKernel{name: "vecGLU" + a.name, params: p32("y", "gate", "up"), doc: "sets y = act(gate)·up.",
				body: func(e *rowEmitter) {
					e.each(1, func(u int) {
						act, _ := a.f(e, e.Load("gate", u), false)
						e.Store("y", u, e.Mul(act, e.Load("up", u)))
					})
				}},
			&rowKernel{name: "vecGLU" + a.name + "Grad", params: p32("dgate", "dup", "dy", "gate", "up"),
				doc: "sets dgate = dy·up·act'(gate) and dup = dy·act(gate). dgate may be gate, dup up.",
				body: func(e *rowEmitter) {
					e.each(1, func(u int) {
						act, d := a.f(e, e.Load("gate", u), true)
						dy, up := e.Load("dy", u), e.Load("up", u)
						e.bin(e, "mul", d, d, up)
						e.bin(e, "mul", d, d, dy)
						e.Store("dgate", u, d)
						e.Store("dup", u, e.Mul(act, dy))
					})
				}},
			&rowKernel{name: "vec" + a.name, params: p32("y", "x"), doc: "sets y = act(x). y may be x.",
				body: func(e *rowEmitter) {
					e.each(1, func(u int) {
						act, _ := a.f(e, e.Load("x", u), false)
						e.Store("y", u, act)
					})
				}},
			&rowKernel{name: "vec" + a.name + "Grad", params: p32("dx", "dy", "x"), doc: "sets dx = dy·act'(x). dx may be dy or x.",
				body: func(e *rowEmitter) {
					e.each(1, func(u int) {
						_, d := a.f(e, e.Load("x", u), true)
						e.Store("dx", u, e.Mul(d, e.Load("dy", u)))
					})
				}})
	}
	for _, f := range []struct{ name, format string }{{"BF16", "bf16"}, {"F16", "f16"}} {
		ks = append(ks,
			&rowKernel{name: "vecWiden" + f.name, whole: true, params: []rowParam{{"dst", ptr32}, {"src", ptr16}},
				doc: "converts 16-bit floats to float32.",
				body: func(e *rowEmitter) {
					e.each(2, func(u int) {
						d := e.tmp()
						e.widen(e, f.format, d, "src", u)
						e.Store("dst", u, d)
					})
				}},
			&rowKernel{name: "vecNarrow" + f.name, whole: true, params: []rowParam{{"dst", ptr16}, {"src", ptr32}},
				doc: "converts float32 to 16-bit floats, to nearest, ties to even; too large a number becomes Inf.",
				body: func(e *rowEmitter) {
					e.each(2, func(u int) { e.narrow(e, f.format, "dst", u, e.Load("src", u)) })
				}})
	}
	return ks
}

// layerGrad makes dy·w - mg - n·mgn, with n = (s - mean)·r, and r.
func (e *rowEmitter) layerGrad() func(u int) (d, r operand) {
	mean, r, mg, mgn := e.argument("mean"), e.argument("r"), e.argument("mg"), e.argument("mgn")
	return func(u int) (operand, operand) {
		n := e.Mul(e.Sub(e.Load("s", u), mean), r)
		d := e.Sub(e.Mul(e.Load("dy", u), e.Load("w", u)), mg)
		return e.FNMA(n, mgn, d), r
	}
}

func expSum(e *rowEmitter, store bool) {
	shift := e.argument("shift")
	s := e.accumulators(1, 0)
	e.each(1, func(u int) {
		p := e.Exp(e.Sub(e.Load("src", u), shift))
		e.keep(e, p)
		if store {
			e.Store("dst", u, p)
		}
		e.bin(e, "add", s[0], s[0], p)
	})
	e.reduce(e, "add", s)
}
