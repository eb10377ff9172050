package data

import "math"

// mixer draws sequences from several sources. Which source comes next follows
// Balinski and Young's quota method ("The Quota Method of Apportionment", 1975):
// after any number t of draws, each source has given within one of its share
// t*w/W. Within a source, each pass takes every sequence once, in a new order.
//
// Without weights, w is the source's number of sequences, and so every W draws
// give each sequence exactly once.
type mixer struct {
	seed    uint64
	shuffle bool
	names   []string
	lists   [][]uint32 // sequences by source
	weights []uint64
	total   uint64 // sum of weights

	drawn  []uint64 // from each source, ever
	count  uint64   // draws, ever
	orders [][]uint32
	passes []uint64 // the pass that orders[i] is for, from 1; 0: none yet
}

func newMixer(names []string, lists [][]uint32, weights []float64, seed uint64, shuffle bool) *mixer {
	m := &mixer{seed: seed, shuffle: shuffle, names: names, lists: lists,
		weights: make([]uint64, len(lists)), drawn: make([]uint64, len(lists)),
		orders: make([][]uint32, len(lists)), passes: make([]uint64, len(lists))}
	weighted := false
	for _, w := range weights {
		weighted = weighted || w > 0
	}
	for i, list := range lists {
		switch {
		case len(list) == 0:
		case !weighted:
			m.weights[i] = uint64(len(list))
		case weights[i] > 0:
			// Millionths, so that common weights (2, 0.25) are exact.
			m.weights[i] = max(1, uint64(math.Round(weights[i]*1e6)))
		}
	}
	var divisor uint64
	for _, w := range m.weights {
		divisor = gcd(w, divisor)
		m.total += w
	}
	if divisor > 1 {
		m.total = 0
		for i := range m.weights {
			m.weights[i] /= divisor
			m.total += m.weights[i]
		}
	}
	// next multiplies a weight by up to the total: keep that within 64 bits.
	for m.total > math.MaxUint32 {
		m.total = 0
		for i, w := range m.weights {
			if w > 0 {
				m.weights[i] = max(1, w/2)
			}
			m.total += m.weights[i]
		}
	}
	return m
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// next draws a sequence; there must be one.
func (m *mixer) next() uint32 {
	periods, t := m.count/m.total, m.count%m.total
	best := -1
	var bestDrawn uint64
	for i, w := range m.weights {
		if w == 0 {
			continue
		}
		d := m.drawn[i] - periods*w
		if d*m.total >= w*(t+1) {
			continue // it would get ahead of its share
		}
		if best < 0 || (d+1)*m.weights[best] < (bestDrawn+1)*w {
			best, bestDrawn = i, d
		}
	}
	list := m.lists[best]
	n := uint64(len(list))
	pass, at := m.drawn[best]/n, m.drawn[best]%n
	m.drawn[best]++
	m.count++
	if !m.shuffle {
		return list[at]
	}
	if m.passes[best] != pass+1 {
		if m.orders[best] == nil {
			m.orders[best] = make([]uint32, n)
		}
		permutation(m.orders[best], m.seed, m.names[best], pass)
		m.passes[best] = pass + 1
	}
	return list[m.orders[best][at]]
}
