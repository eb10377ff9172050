package cpu

// The plain activations and the soft cap in plain Go; see the generated
// declarations for what the functions set.

func vecSiLUGeneric(y, x []float32) {
	for i, v := range x {
		y[i] = v / (1 + exp32(-v))
	}
}

func vecSiLUGradGeneric(dx, dy, x []float32) {
	for i, v := range x {
		s, c := sigmoid32(v)
		dx[i] = dy[i] * (s + v*s*c)
	}
}

func vecGELUTanhGeneric(y, x []float32) {
	for i, v := range x {
		s, _ := sigmoid32(v * (geluTanhA + geluTanhB*(v*v)))
		y[i] = v * s
	}
}

func vecGELUTanhGradGeneric(dx, dy, x []float32) {
	for i, v := range x {
		s, c := sigmoid32(v * (geluTanhA + geluTanhB*(v*v)))
		dz := geluTanhA + 3*geluTanhB*(v*v)
		dx[i] = dy[i] * (s + v*s*c*dz)
	}
}

func vecGELUGeneric(y, x []float32) {
	for i, v := range x {
		cdf, _ := normal32(v)
		y[i] = v * cdf
	}
}

func vecGELUGradGeneric(dx, dy, x []float32) {
	for i, v := range x {
		cdf, density := normal32(v)
		dx[i] = dy[i] * (cdf + v*density)
	}
}

func vecReLUGeneric(y, x []float32) {
	for i, v := range x {
		y[i] = max(v, 0)
	}
}

func vecReLUGradGeneric(dx, dy, x []float32) {
	for i, v := range x {
		slope := min(max(v, 0), 0) // NaN stays NaN
		if v > 0 {
			slope = 1
		}
		dx[i] = dy[i] * slope
	}
}

func vecSoftCapGeneric(y, x []float32, inverse, limit float32) {
	for i, v := range x {
		y[i] = tanh32(v*inverse) * limit
	}
}

func vecSoftCapGradGeneric(dx, dy, y []float32, limit, square float32) {
	for i, v := range y {
		dx[i] = dy[i] * ((limit - v) * (limit + v) * square)
	}
}
