package cpu

import "math"

// The plain Go versions of the vector kernels: what runs where no SIMD level
// fits, and what the SIMD kernels are tested against. They compute what the
// generated kernels compute, by the same formulas, in float32. Sums are kept in
// eight lanes, like a vector's, for accuracy and because it breaks the chain of
// dependent additions.

func vecMaxGeneric(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m {
			m = v
		}
	}
	return m
}

func vecExpSumGeneric(dst, src []float32, shift float32) float32 {
	var s [8]float32
	for i, v := range src {
		e := exp32(v - shift)
		dst[i] = e
		s[i&7] += e
	}
	return sumLanes(&s)
}

func vecSumExpGeneric(src []float32, shift float32) float32 {
	var s [8]float32
	for i, v := range src {
		s[i&7] += exp32(v - shift)
	}
	return sumLanes(&s)
}

func vecScaleGeneric(x []float32, f float32) {
	for i := range x {
		x[i] *= f
	}
}

func vecShiftScaleGeneric(x []float32, shift, f float32) {
	for i, v := range x {
		x[i] = (v - shift) * f
	}
}

func vecAxpyGeneric(y, x []float32, f float32) {
	x = x[:len(y)]
	for i := range y {
		y[i] += f * x[i]
	}
}

func vecRampGeneric(x []float32, from, slope float32) {
	for i := range x {
		x[i] += (from + float32(i)) * slope
	}
}

func vecAddGeneric(y, a, b []float32) {
	a, b = a[:len(y)], b[:len(y)]
	for i := range y {
		y[i] = a[i] + b[i]
	}
}

func vecDotGeneric(a, b []float32) float32 {
	var s [8]float32
	b = b[:len(a)]
	i := 0
	for ; i+8 <= len(a); i += 8 {
		x, y := a[i:i+8:i+8], b[i:i+8:i+8]
		s[0] += x[0] * y[0]
		s[1] += x[1] * y[1]
		s[2] += x[2] * y[2]
		s[3] += x[3] * y[3]
		s[4] += x[4] * y[4]
		s[5] += x[5] * y[5]
		s[6] += x[6] * y[6]
		s[7] += x[7] * y[7]
	}
	for ; i < len(a); i++ {
		s[i&7] += a[i] * b[i]
	}
	return sumLanes(&s)
}

func sumLanes(s *[8]float32) float32 {
	return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

func vecSumSquaresGeneric(x []float32) float64 {
	var s [4]float64
	for i, v := range x {
		s[i&3] += float64(v) * float64(v)
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}

func vecAddSquaresGeneric(y, a, b []float32) float32 {
	var s [8]float32
	for i := range y {
		v := a[i] + b[i]
		y[i] = v
		s[i&7] += v * v
	}
	return sumLanes(&s)
}

func vecMulScaleGeneric(y, x, w []float32, f float32) {
	x, w = x[:len(y)], w[:len(y)]
	for i := range y {
		y[i] = x[i] * f * w[i]
	}
}

func vecNormDotGeneric(dy, s, w []float32) float32 {
	var acc [8]float32
	for i := range dy {
		acc[i&7] += dy[i] * s[i] * w[i]
	}
	return sumLanes(&acc)
}

func vecNormDotWeightGeneric(dw, dy, s, w []float32, r float32) float32 {
	var acc [8]float32
	for i := range dw {
		t := dy[i] * s[i]
		acc[i&7] += t * w[i]
		dw[i] += t * r
	}
	return sumLanes(&acc)
}

func vecNormGradGeneric(dx, dy, s, w []float32, r, k float32) {
	for i := range dx {
		dx[i] = dy[i]*w[i]*r - s[i]*k
	}
}

func vecNormGradAddGeneric(dx, base, dy, s, w []float32, r, k float32) {
	for i := range dx {
		dx[i] = base[i] + dy[i]*w[i]*r - s[i]*k
	}
}

func vecSumGeneric(x []float32) float64 {
	var s [4]float64
	for i, v := range x {
		s[i&3] += float64(v)
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}

func vecAddSumGeneric(y, a, b []float32) float64 {
	var s [4]float64
	for i := range y {
		v := a[i] + b[i]
		y[i] = v
		s[i&3] += float64(v)
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}

func vecSquaresFromGeneric(x []float32, mean, low float32) float64 {
	var s [4]float64
	for i, v := range x {
		d := float64(v - mean - low)
		s[i&3] += d * d
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}

func vecLayerNormGeneric(y, x, w []float32, mean, low, r float32) {
	for i := range y {
		y[i] = (x[i] - mean - low) * r * w[i]
	}
}

func vecLayerNormBiasGeneric(y, x, w, b []float32, mean, low, r float32) {
	for i := range y {
		y[i] = (x[i]-mean-low)*r*w[i] + b[i]
	}
}

func vecLayerDotGeneric(dy, s, w []float32, mean, r float32) float32 {
	var acc [8]float32
	for i := range dy {
		acc[i&7] += (s[i] - mean) * r * dy[i] * w[i]
	}
	return sumLanes(&acc)
}

func vecLayerDotWeightGeneric(dw, dy, s, w []float32, mean, r float32) float32 {
	var acc [8]float32
	for i := range dw {
		t := (s[i] - mean) * r * dy[i]
		acc[i&7] += t * w[i]
		dw[i] += t
	}
	return sumLanes(&acc)
}

func vecLayerGradGeneric(dx, dy, s, w []float32, mean, r, mg, mgn float32) {
	for i := range dx {
		dx[i] = (dy[i]*w[i] - mg - (s[i]-mean)*r*mgn) * r
	}
}

func vecLayerGradAddGeneric(dx, base, dy, s, w []float32, mean, r, mg, mgn float32) {
	for i := range dx {
		dx[i] = base[i] + (dy[i]*w[i]-mg-(s[i]-mean)*r*mgn)*r
	}
}

func vecRotateGeneric(a, b, cos, sin []float32, sign float32) {
	for i, x := range a {
		y, c, s := b[i], cos[i], sin[i]*sign
		a[i] = x*c - y*s
		b[i] = y*c + x*s
	}
}

func vecAdamWGeneric(p, m, v, g []float32, clip, decay, beta1, rest1, beta2, rest2, rate, root, eps float32) {
	for i := range p {
		gi := g[i] * clip
		mi := beta1*m[i] + rest1*gi
		vi := beta2*v[i] + rest2*(gi*gi)
		m[i], v[i] = mi, vi
		pi := p[i] - decay*p[i]
		p[i] = pi - rate*mi/(float32(math.Sqrt(float64(vi)))*root+eps)
	}
}
