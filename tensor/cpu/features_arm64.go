package cpu

// availableSIMD lists the levels that can run here, the best one last. Advanced
// SIMD is part of every 64-bit ARM processor that Go supports.
func availableSIMD() []simd { return []simd{simdGeneric, simdNEON} }
