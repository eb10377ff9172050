package cpu

import "os"

// simd is a level of vector instructions for which there are kernels.
type simd uint8

const (
	simdGeneric simd = iota // plain Go
	simdAVX2                // AVX2 and FMA
	simdAVX512              // AVX-512 F, BW, DQ, VL
	simdNEON                // Advanced SIMD
)

var simdNames = [...]string{"generic", "avx2", "avx512", "neon"}

func (l simd) String() string { return simdNames[l] }

// simdLevel is the level that this process uses: the best one that the
// processor and the operating system support, or the lower one that RINGTAIL_CPU asks for.
var simdLevel = chooseSIMD(os.Getenv("RINGTAIL_CPU"))

func chooseSIMD(name string) simd {
	levels := availableSIMD()
	for _, l := range levels {
		if l.String() == name {
			return l
		}
	}
	return levels[len(levels)-1]
}

// Level names the vector instructions in use: "generic", "avx2", "avx512" or "neon".
func Level() string { return simdLevel.String() }
