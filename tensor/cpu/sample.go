package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"ringtail/tensor"
)

// Sampling: one token from each row of logits.
//
// All that TopK, TopP and MinP say is where to cut the tokens ranked by their
// logit, equal ones by id. So nothing is sorted: TopK and TopP each find the last
// token kept by selection (Hoare 1961; for TopP by weight), over the few tokens
// that can matter, and the draw is one pass over the tokens at or above the cut,
// in the order of their ids. Blocks of the vocabulary whose largest logit is
// below the cut are passed over.
//
// A row without a single logit above -Inf (all NaN, -Inf or banned) gives id -1
// and the log-probability NaN. A NaN or +Inf among others makes the
// log-probability NaN, and a NaN is never drawn. The caller reports these.

type sampleJob struct {
	a        tensor.Sample
	logits   rows
	ids      []int32
	logProbs []float32
	vocab    int
}

var sampleJobs freeList[sampleJob]

func sample(a tensor.Sample) {
	n, vocab := a.Logits.Rows(), a.Logits.Cols()
	if len(a.Rows) != n {
		panic(fmt.Sprintf("cpu: Sample of %d rows with settings for %d", n, len(a.Rows)))
	}
	j := sampleJobs.take()
	j.a, j.vocab = a, vocab
	j.logits = rowsOf("Sample's Logits", a.Logits, n, vocab)
	j.ids, j.logProbs = intsOf("Sample's IDs", a.IDs, n), vectorOf("Sample's LogProbs", a.LogProbs, n)
	for i := range a.Rows {
		s := &a.Rows[i]
		if !(s.Temperature >= 0) {
			panic(fmt.Sprintf("cpu: Sample with a temperature of %g", s.Temperature))
		}
		for _, id := range s.Seen {
			checkIndex("Sample: seen token", id, vocab)
		}
		for _, id := range s.Banned {
			checkIndex("Sample: banned token", id, vocab)
		}
	}
	parallel(n, j)
	*j = sampleJob{}
	sampleJobs.give(j)
}

func (j *sampleJob) run(ws *workspace, i int) {
	raw := j.logits.row(i, j.vocab)
	d := draw{ws: ws, z: ws.scratch(0, j.vocab), rule: &j.a.Rows[i]}
	d.adjust(raw)
	id := d.token()
	j.ids[i] = int32(id)
	j.logProbs[i] = float32(math.NaN())
	if id >= 0 {
		j.logProbs[i] = float32(d.logProb(raw, id))
	}
}

// logProb is the log-probability of a token among the logits as they came, or
// over the temperature. It overwrites z.
func (d *draw) logProb(raw []float32, id int) float64 {
	t := d.rule.Temperature
	if !d.rule.TemperedLogProb || t == 0 || t == 1 {
		return float64(raw[id]) - logSumExp(raw)
	}
	m := vecMax(raw)
	if math.IsInf(float64(m), 0) {
		return math.NaN()
	}
	copy(d.z, raw)
	vecShiftScale(d.z, m, inverse(t))
	return (float64(raw[id])-float64(m))/float64(t) - math.Log(sumExp(d.z, 0))
}

// inverse is 1/t, finite for every t > 0.
func inverse(t float32) float32 { return min(1/t, math.MaxFloat32) }

// sampleBlock is how many tokens one call of a vector kernel covers.
const sampleBlock = 1024

// logSumExp is ln Σ exp(x), the sum kept in float64 from block to block.
func logSumExp(x []float32) float64 {
	m := vecMax(x)
	if math.IsInf(float64(m), 0) {
		return math.NaN()
	}
	return float64(m) + math.Log(sumExp(x, m))
}

func sumExp(x []float32, shift float32) float64 {
	sum := 0.0
	for len(x) > 0 {
		n := min(len(x), sampleBlock)
		sum += float64(vecSumExp(x[:n], shift))
		x = x[n:]
	}
	return sum
}

// draw is the drawing of one token.
type draw struct {
	ws   *workspace
	rule *tensor.SampleRow
	z    []float32 // logits; then, unless greedy, less their maximum and over the temperature
}

// candidate is a token that may be among those kept.
type candidate struct {
	z  float32
	id int32
}

// before tells whether c ranks before d.
func (c candidate) before(d candidate) bool { return c.z > d.z || c.z == d.z && c.id < d.id }

// adjust sets z to the logits after the repetition penalty and the bans. Both
// look at raw, not at z, so that a token named twice is adjusted once; a ban
// holds whatever the penalty.
func (d *draw) adjust(raw []float32) {
	copy(d.z, raw)
	if r := d.rule.RepetitionPenalty; r != 0 && r != 1 {
		for _, id := range d.rule.Seen {
			if x := raw[id]; x > 0 {
				d.z[id] = x / r
			} else {
				d.z[id] = x * r
			}
		}
	}
	for _, id := range d.rule.Banned {
		d.z[id] = float32(math.Inf(-1))
	}
}

// token is the id drawn, -1 if there is none to draw.
func (d *draw) token() int {
	largest, id := largestOf(d.z)
	if id < 0 || d.rule.Temperature == 0 || math.IsInf(float64(largest), 1) {
		return id
	}
	// Differences from the maximum cannot overflow, however low the temperature.
	vecShiftScale(d.z, largest, inverse(d.rule.Temperature))
	return d.choose(d.cut())
}

// largestOf is the largest element of z, NaN left out, and the lowest index that
// has it; −Inf and −1 if there is none above −Inf.
func largestOf(z []float32) (float32, int) {
	m, at := float32(math.Inf(-1)), -1
	for i := 0; i < len(z); i += sampleBlock {
		if x := vecMax(z[i:min(i+sampleBlock, len(z))]); x > m {
			m, at = x, i
		}
	}
	for i := max(at, 0); at >= 0; i++ {
		if z[i] == m {
			return m, i
		}
	}
	return m, -1
}

// cut is the last token that TopK and TopP keep.
func (d *draw) cut() candidate {
	last := candidate{-math.MaxFloat32, math.MaxInt32} // everything above -Inf
	var kept []candidate
	if k := d.rule.TopK; k > 0 && k < len(d.z) {
		kept = d.top(k)
		for i, c := range kept {
			if i == 0 || last.before(c) {
				last = c
			}
		}
	}
	p := float64(d.rule.TopP)
	if !(p > 0 && p < 1) {
		return last
	}
	if kept != nil {
		total := 0.0
		for _, c := range kept {
			total += weight(c.z)
		}
		return selectWeight(kept, p*total)
	}
	// Most of the time the tokens within a few units of the maximum suffice.
	target := p * sumExp(d.z, 0)
	for _, low := range [...]float32{-6, -12, -24, -math.MaxFloat32} {
		mass := 0.0
		kept = d.above(low)
		for _, c := range kept {
			mass += weight(c.z)
		}
		// The margin is for sums in different orders.
		if mass >= target*(1+1e-5) {
			break
		}
	}
	return selectWeight(kept, target)
}

// weight is a token's probability up to a factor.
func weight(z float32) float64 { return float64(exp32(z)) }

// candidates is memory for n candidates.
func (d *draw) candidates(n int) []candidate {
	m := d.ws.scratch(1, 2*n)
	return unsafe.Slice((*candidate)(unsafe.Pointer(unsafe.SliceData(m))), n)
}

// above lists the tokens whose logit is at least low, by id.
func (d *draw) above(low float32) []candidate {
	found, n := d.candidates(len(d.z)), 0
	for i := 0; i < len(d.z); i += sampleBlock {
		b := d.z[i:min(i+sampleBlock, len(d.z))]
		if vecMax(b) < low {
			continue
		}
		for k, x := range b {
			if x >= low {
				found[n] = candidate{x, int32(i + k)}
				n++
			}
		}
	}
	return found[:n]
}

// top lists the k tokens that rank first, or all above -Inf if they are fewer, in
// any order. Tokens are gathered up to twice k, then cut down to k, which raises
// the bar for those to come; each is looked at about twice.
func (d *draw) top(k int) []candidate {
	limit := min(2*k+sampleBlock, len(d.z))
	found, n := d.candidates(limit), 0
	bar := float32(math.Inf(-1)) // a token must be above; an equal one ranks after k others
	for i := 0; i < len(d.z); i += sampleBlock {
		b := d.z[i:min(i+sampleBlock, len(d.z))]
		if !(vecMax(b) > bar) {
			continue
		}
		for j, x := range b {
			if !(x > bar) {
				continue
			}
			if n == limit {
				selectCount(found, k)
				n, bar = k, lastOf(found[:k]).z
				if !(x > bar) {
					continue
				}
			}
			found[n] = candidate{x, int32(i + j)}
			n++
		}
	}
	if n > k {
		selectCount(found[:n], k)
		n = k
	}
	return found[:n]
}

// lastOf is the candidate that ranks last.
func lastOf(c []candidate) candidate {
	last := c[0]
	for _, x := range c {
		if last.before(x) {
			last = x
		}
	}
	return last
}

// selectCount moves the k candidates that rank first to the front, 0 < k <= len(c).
func selectCount(c []candidate, k int) {
	for len(c) > 1 && k > 0 && k < len(c) {
		n := partition(c)
		if k <= n {
			c = c[:n]
		} else {
			c, k = c[n:], k-n
		}
	}
}

// selectWeight is the candidate at which, from the first in rank on, the sum of
// the weights reaches target; the last in rank if it never does. It reorders c.
func selectWeight(c []candidate, target float64) candidate {
	for len(c) > 1 {
		n := partition(c)
		sum := 0.0
		for _, x := range c[:n] {
			sum += weight(x.z)
		}
		if sum >= target {
			c = c[:n]
		} else {
			c, target = c[n:], target-sum
		}
	}
	return c[0]
}

// partition moves candidates that rank first to the front and says how many, at
// least one and not all: for a pivot, the median of three, none in front ranks
// after it and none behind before it. len(c) >= 2.
func partition(c []candidate) int {
	p := median(c[0], c[len(c)/2], c[len(c)-1])
	i, j := 0, len(c)-1
	for {
		for c[i].before(p) {
			i++
		}
		for p.before(c[j]) {
			j--
		}
		if i >= j {
			break
		}
		c[i], c[j] = c[j], c[i]
		i++
		j--
	}
	return min(max(i, 1), len(c)-1)
}

func median(a, b, c candidate) candidate {
	if b.before(a) {
		a, b = b, a
	}
	if c.before(b) {
		b = c
		if b.before(a) {
			b = a
		}
	}
	return b
}

// choose draws among the tokens that rank no later than last and have at least
// MinP times the largest probability: the first of them, by id, at which the
// cumulative probability exceeds Uniform.
func (d *draw) choose(last candidate) int {
	minP := min(d.rule.MinP, 1)
	low := last.z
	all := low == -math.MaxFloat32 && !(minP > 0)
	if minP > 0 {
		// A little below, so that rounding of the logarithm excludes nothing.
		low = max(low, float32(math.Log(float64(minP)))-1e-3)
	}
	// First the weights, which replace the logits, and the sum of each block; then
	// the token within the block where the draw falls.
	blocks := (len(d.z) + sampleBlock - 1) / sampleBlock
	mass := unsafe.Slice((*float64)(unsafe.Pointer(unsafe.SliceData(d.ws.scratch(2, 2*blocks)))), blocks)
	total := 0.0
	for i := range mass {
		b := d.block(i)
		switch {
		case all:
			mass[i] = float64(vecExpSum(b, b, 0))
		case vecMax(b) < low:
			mass[i] = 0
			continue
		default:
			mass[i] = d.keep(b, i*sampleBlock, low, minP, last)
		}
		if mass[i] != mass[i] { // a NaN among the logits
			mass[i] = 0
			for k, w := range b {
				if w != w {
					b[k] = 0
				}
				mass[i] += float64(b[k])
			}
		}
		total += mass[i]
	}
	target := d.rule.Uniform * total
	before, chosen := 0.0, 0
	for i, sum := 0, 0.0; i < blocks; i++ {
		if mass[i] == 0 {
			continue
		}
		before, chosen = sum, i
		if sum += mass[i]; sum > target {
			break
		}
	}
	// By rounding the sum token by token may stay just short of the target, or
	// Uniform may not be below 1: then it is the last token with any weight.
	id := -1
	for k, w := range d.block(chosen) {
		if w > 0 {
			id = chosen*sampleBlock + k
			if before += float64(w); before > target {
				break
			}
		}
	}
	return id
}

// keep turns the logits of a block, which begins at token from, into weights, 0
// for those not kept, and returns their sum.
func (d *draw) keep(b []float32, from int, low, minP float32, last candidate) float64 {
	weights := d.ws.scratch(3, sampleBlock)[:len(b)]
	vecExpSum(weights, b, 0)
	sum := 0.0
	for k, z := range b {
		w := weights[k]
		if !(z >= low) || last.before(candidate{z, int32(from + k)}) || w < minP {
			w = 0
		}
		b[k] = w
		sum += float64(w)
	}
	return sum
}

// block is block i of the vocabulary.
func (d *draw) block(i int) []float32 {
	return d.z[i*sampleBlock : min((i+1)*sampleBlock, len(d.z))]
}
