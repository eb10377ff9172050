package rng

import "math"

// FillNormal fills dst with normally distributed numbers and moves the stream
// past the draws used. Each block of Philox makes four of them: its words as u
// and v of two pairs √(−2 ln u)·(cos 2πv, sin 2πv) (Box and Muller, 1958). With 32
// bits in u none lies further out than 6.7 standard deviations.
func (s *Stream) FillNormal(dst []float32, mean, std float64) {
	s.fill(dst, func(b [4]uint32) (z [4]float64) {
		for i := 0; i < 4; i += 2 {
			radius := std * math.Sqrt(-2*math.Log((float64(b[i])+1)*0x1p-32)) // u in (0, 1]
			sin, cos := math.Sincos(2 * math.Pi * 0x1p-32 * float64(b[i+1]))
			z[i], z[i+1] = mean+radius*cos, mean+radius*sin
		}
		return z
	})
}

// FillUniform fills dst with numbers spread evenly over [low, high) and moves the
// stream past the draws used. Each word of a block gives one number, from its
// upper 24 bits.
func (s *Stream) FillUniform(dst []float32, low, high float64) {
	s.fill(dst, func(b [4]uint32) (z [4]float64) {
		for i, w := range b {
			z[i] = low + (high-low)*float64(w>>8)*0x1p-24
		}
		return z
	})
	// Rounding to float32 may reach the end that the interval leaves out.
	if end := float32(high); low < high {
		for i := range dst {
			if dst[i] >= end {
				dst[i] = math.Nextafter32(end, float32(math.Inf(-1)))
			}
		}
	}
}

// fill makes four numbers of each block, from the next block of which no draw has
// been taken.
func (s *Stream) fill(dst []float32, four func(block [4]uint32) [4]float64) {
	index := (s.counter + 1) / 2
	for len(dst) > 0 {
		z := four(s.blockAt(index))
		for i := range min(4, len(dst)) {
			dst[i] = float32(z[i])
		}
		dst = dst[min(4, len(dst)):]
		index++
	}
	s.counter = 2 * index
}
