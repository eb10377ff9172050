package cpu

func gemmLevel(simd) *gemmKernels { return gemmGeneric }
