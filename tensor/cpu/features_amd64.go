package cpu

import "golang.org/x/sys/cpu"

// availableSIMD lists the levels that can run here, the best one last.
func availableSIMD() []simd {
	l := []simd{simdGeneric}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		l = append(l, simdAVX2)
		if cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL {
			l = append(l, simdAVX512)
		}
	}
	return l
}
