package cpu

// The gated activations in plain Go. Each pair of functions is the forward pass
// and its gradients; see the generated declarations for what they set.

func vecGLUSiLUGeneric(y, gate, up []float32) {
	for i, x := range gate {
		y[i] = x / (1 + exp32(-x)) * up[i]
	}
}

func vecGLUSiLUGradGeneric(dgate, dup, dy, gate, up []float32) {
	for i, x := range gate {
		s, c := sigmoid32(x)
		act := x * s
		dgate[i], dup[i] = dy[i]*up[i]*(s+act*c), dy[i]*act
	}
}

// GELU's tanh approximation is x·σ(z), z = 2√(2/π)(x + 0.044715x³).
func vecGLUGELUTanhGeneric(y, gate, up []float32) {
	for i, x := range gate {
		s, _ := sigmoid32(x * (geluTanhA + geluTanhB*(x*x)))
		y[i] = x * s * up[i]
	}
}

func vecGLUGELUTanhGradGeneric(dgate, dup, dy, gate, up []float32) {
	for i, x := range gate {
		s, c := sigmoid32(x * (geluTanhA + geluTanhB*(x*x)))
		act, dz := x*s, geluTanhA+3*geluTanhB*(x*x)
		dgate[i], dup[i] = dy[i]*up[i]*(s+act*c*dz), dy[i]*act
	}
}

// normal32 is the normal distribution Φ(x) and its density.
func normal32(x float32) (cdf, density float32) {
	tail, density := normalTail32(x)
	if x < 0 {
		return tail, density
	}
	return 1 - tail, density
}

func vecGLUGELUGeneric(y, gate, up []float32) {
	for i, x := range gate {
		cdf, _ := normal32(x)
		y[i] = x * cdf * up[i]
	}
}

func vecGLUGELUGradGeneric(dgate, dup, dy, gate, up []float32) {
	for i, x := range gate {
		cdf, density := normal32(x)
		dgate[i], dup[i] = dy[i]*up[i]*(cdf+x*density), dy[i]*x*cdf
	}
}

func vecGLUReLUGeneric(y, gate, up []float32) {
	for i, x := range gate {
		y[i] = max(x, 0) * up[i]
	}
}

func vecGLUReLUGradGeneric(dgate, dup, dy, gate, up []float32) {
	for i, x := range gate {
		slope := min(max(x, 0), 0) // NaN stays NaN
		if x > 0 {
			slope = 1
		}
		dgate[i], dup[i] = dy[i]*up[i]*slope, dy[i]*max(x, 0)
	}
}
