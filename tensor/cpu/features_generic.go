//go:build !amd64 && !arm64

package cpu

func availableSIMD() []simd { return []simd{simdGeneric} }
