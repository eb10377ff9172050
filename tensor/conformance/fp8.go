package conformance

import (
	"fmt"
	"math"

	"ringtail/tensor"
)

var f8s = []tensor.Dtype{tensor.F8E4M3, tensor.F8E5M2}

// f8Sums bounds the error of a product of 8-bit floats by the sum of its terms' absolute values: tensor
// cores of Hopper add 32 terms at a time, shifted to the exponent of the largest and cut off behind
// about 14 bits (DeepSeek-AI 2024, "DeepSeek-V3", §3.3.2).
const f8Sums = 0x1p-10

func testAMax(s *suite) {
	if s.dev.Ops().AMax == nil {
		return
	}
	shapes := append([][2]int{{16, 64}, {37, 264}, {130, 2056}, {5, 0}}, planes...)
	for _, l := range layouts {
		for _, p := range shapes {
			for which := 1; which < 8; which++ {
				tr := s.trial(l, "AMax of %v, All %v, Rows %v, Columns %v", p, which&1 != 0, which&2 != 0, which&4 != 0)
				x := tr.either("X", tr.normal(p[0], p[1]), p[0], p[1])
				amaxTrial(tr, x, which, 0.5)
			}
		}
		// What is large already stays, and NaN is larger than infinity.
		tr := s.always(l, "AMax of small numbers")
		amaxTrial(tr, tr.random("X", 9, 24), 7, 100)
		tr = s.always(l, "AMax of NaN and infinity")
		v := tr.normal(9, 24)
		v[3], v[30], v[50], v[51], v[100] = math.NaN(), math.Inf(-1), math.Inf(1), math.NaN(), -1000
		amaxTrial(tr, tr.values("X", v, 9, 24), 7, 0)
	}
}

func amaxTrial(tr *trial, x *operand, which int, first float64) {
	result := func(bit int, name string, n int) *operand {
		if which&bit == 0 {
			return nil
		}
		v := make([]float64, n)
		for i := range v {
			v[i] = first
		}
		return tr.wide(name, v, n).exactly()
	}
	all, rows, columns := result(1, "All", 1), result(2, "Rows", x.shape[0]), result(4, "Columns", x.shape[1])
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.AMax(tensor.AMax{X: at(x), All: at(all), Rows: at(rows), Columns: at(columns)})
	})
}

func testQuantize(s *suite) {
	if s.dev.Ops().Quantize == nil {
		return
	}
	shapes := [][2]int{{1, 1}, {3, 7}, {16, 16}, {33, 65}, {48, 32}, {40, 24}, {128, 128}, {144, 272}, {130, 257}, {3, 1000}, {0, 5}, {5, 0}}
	for _, l := range layouts {
		for _, d := range f8s {
			for _, p := range shapes {
				for variant := range 32 {
					if p[0]*p[1] > 5000 && variant%5 > 0 {
						continue
					}
					quantizeTrial(s, l, d, p, variant&3, variant&4 != 0, variant&8 != 0, variant&16 != 0)
				}
			}
			quantizeSpecial(s, l, d)
		}
	}
}

// quantizeTrial makes Q, QT (1, 2 of kind) or both, in separate ways as to scales for kind 3.
func quantizeTrial(s *suite, l layout, d tensor.Dtype, p [2]int, kind int, ofRows, padded, guessed bool) {
	rows, cols := p[0], p[1]
	tr := s.trial(l, "Quantize of %v to %v, kind %d, scales of rows %v, padded %v, guessed %v", p, d, kind, ofRows, padded, guessed)
	v := tr.normal(rows, cols)
	most := func(n int, of func(i int) int) []float64 {
		out := make([]float64, n)
		for i, x := range v {
			out[of(i)] = max(out[of(i)], math.Abs(x))
		}
		for i := range out {
			if guessed {
				out[i] *= 0.3 // numbers beyond it stay at the largest
			}
		}
		return out
	}
	one := func(int) int { return 0 }
	for i := range v { // over the formats' range and below
		v[i] = math.Ldexp(v[i], -tr.rng.IntN(24)+tr.rng.IntN(5))
	}
	x := tr.either("X", v, rows, cols)
	wide := func(n int) int { return choose(padded, (n+15)&^15, n) }
	var q, qt, amax, amaxT, scale, scaleT, next *operand
	amax = tr.wide("AMax", most(1, one), 1)
	scale = tr.wideBlank("Scale", 1).exactly()
	if kind != 2 {
		if ofRows && (kind == 1 || kind == 3) && rows > 0 {
			amax, scale = tr.wide("AMaxRows", most(rows, func(i int) int { return i / cols }), rows), tr.wideBlank("ScaleRows", rows).exactly()
		}
		q = tr.typed("Q", d, nil, rows, wide(cols)).exactly()
	}
	if kind != 1 {
		qt = tr.typed("QT", d, nil, cols, wide(rows)).exactly()
		switch {
		case kind == 3 && ofRows && cols > 0:
			amaxT, scaleT = tr.wide("AMaxT", most(cols, func(i int) int { return i % cols }), cols), tr.wideBlank("ScaleT", cols).exactly()
		case kind == 3:
			amaxT, scaleT = tr.wide("AMaxT", []float64{0.2}, 1), tr.wideBlank("ScaleT", 1).exactly()
		}
	}
	if guessed {
		next = tr.wide("Next", []float64{0.01}, 1).exactly()
	}
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.Quantize(tensor.Quantize{X: at(x), Q: at(q), QT: at(qt), AMax: at(amax), AMaxT: at(amaxT), Scale: at(scale), ScaleT: at(scaleT), Next: at(next)})
	})
}

// quantizeSpecial goes through every number of a format, what lies between neighbours, and beyond.
func quantizeSpecial(s *suite, l layout, d tensor.Dtype) {
	codes := make([]byte, 256)
	for i := range codes {
		codes[i] = byte(i)
	}
	var v []float64
	largest := choose(d == tensor.F8E4M3, 448.0, 57344)
	numbers := decode(d, codes)
	for i, x := range numbers[:128] {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			continue
		}
		next := numbers[i+1]
		if !(next <= largest) {
			next = largest * 8 / 7
		}
		mid := (x + next) / 2
		for _, y := range []float64{x, mid, mid * (1 - 1.0/128), mid * (1 + 1.0/128)} {
			v = append(v, y, -y)
		}
	}
	v = append(v, math.Copysign(0, -1), 1e4*largest, -1e4*largest, math.NaN(), math.Inf(1), math.Inf(-1), 0x1p-40, -0x1p-40)
	for len(v)%32 != 0 {
		v = append(v, 1)
	}
	run := func(name string, amax float64) {
		tr := s.always(l, "Quantize of special values to %v, %s", d, name)
		x := tr.values("X", v, len(v)/32, 32)
		most := tr.wide("AMax", []float64{amax}, 1)
		q, qt := tr.typed("Q", d, nil, len(v)/32, 32).exactly(), tr.typed("QT", d, nil, 32, len(v)/32).exactly()
		scale := tr.wideBlank("Scale", 1).exactly()
		tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
			ops.Quantize(tensor.Quantize{X: at(x), Q: at(q), QT: at(qt), AMax: at(most), Scale: at(scale)})
		})
	}
	run("unscaled", largest)
	run("largest just not above", largest*(1-0x1p-20))
	run("largest just above", largest*(1+0x1p-20))
	for _, amax := range []float64{0, 0x1p-140, 0x1p-45, 3e38, math.Inf(1), math.NaN()} {
		run(fmt.Sprintf("AMax %g", amax), amax)
	}
}

func testMatmulF8(s *suite) {
	if s.dev.Ops().Quantize == nil {
		return
	}
	shapes := [][3]int{ // m, n, k
		{16, 16, 16}, {32, 48, 64}, {48, 16, 272}, {144, 160, 128}, {1, 1, 1}, {3, 5, 7}, {33, 65, 130}, {17, 16, 48}, {0, 5, 3}, {5, 0, 3}, {4, 8, 0},
	}
	for _, l := range layouts {
		for _, shape := range shapes {
			for variant := range 16 {
				types := (variant + variant/4) % 4 // each with every fourth
				matmulF8Trial(s, l, shape, f8s[types&1], f8s[types>>1], variant&1 != 0, variant&2 != 0, variant&4 != 0, variant&8 != 0)
			}
		}
	}
}

func matmulF8Trial(s *suite, l layout, shape [3]int, typeA, typeB tensor.Dtype, rowsA, rowsB, accumulate, fast bool) {
	m, n, k := shape[0], shape[1], shape[2]
	tr := s.trial(l, "Matmul of %v and %v [m n k] = %v, scales of rows %v %v, Beta 1 %v, FastSum %v", typeA, typeB, shape, rowsA, rowsB, accumulate, fast)
	va, vb := decode(typeA, encode(typeA, tr.normal(m, k))), decode(typeB, encode(typeB, tr.normal(n, k)))
	a, b := tr.typed("A", typeA, va, m, k), tr.typed("B", typeB, vb, n, k)
	scales := func(name string, rows bool, n int) (*operand, []float64) {
		v := make([]float64, choose(rows, n, 1))
		for i := range v {
			v[i] = math.Ldexp(1, tr.rng.IntN(5)-2)
		}
		return tr.wide(name, v, len(v)), v
	}
	scaleA, sa := scales("ScaleA", rowsA && m > 0, m)
	scaleB, sb := scales("ScaleB", rowsB && n > 0, n)
	var c *operand
	if accumulate {
		c = tr.gradient("C", m, n).through(1)
	} else {
		c = tr.either("C", nil, m, n).out()
	}
	slack := make([]float64, m*n)
	if !tr.skipped {
		for i := range slack {
			for l := range k {
				slack[i] += f8Sums * math.Abs(va[i/n*k+l]*vb[i%n*k+l]) * sa[i/n%len(sa)] * sb[i%n%len(sb)]
			}
		}
	}
	c.slack = slack
	tr.check(func(ops *tensor.Ops, at func(*operand) tensor.Tensor) {
		ops.Matmul(tensor.Matmul{C: at(c), A: at(a), B: at(b), TransB: true, ScaleA: at(scaleA), ScaleB: at(scaleB), FastSum: fast,
			Beta: choose[float32](accumulate, 1, 0)})
	})
}
