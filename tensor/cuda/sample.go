package cuda

import (
	"encoding/binary"
	"fmt"
	"math"

	"ringtail/tensor"
)

// sampleArgs mirrors SampleArgs of kernels/sample.cu.
type sampleArgs struct {
	logits, z, ids, logProbs, rows, tokens uintptr
	stride                                 uint64
	vocab                                  int32
}

// sampleRowBytes is the size of SampleRow there.
const sampleRowBytes = 48

// sample draws a token a row. Settings go to the device with the call.
func (d *Device) sample(a tensor.Sample) {
	n, vocab := a.Logits.Rows(), a.Logits.Cols()
	if len(a.Rows) != n || a.IDs.Len() != n || a.IDs.Dtype != tensor.I32 || a.LogProbs.Len() != n {
		panic(fmt.Sprintf("cuda: Sample of Logits %v to IDs %v and LogProbs %v with settings for %d", a.Logits, a.IDs, a.LogProbs, len(a.Rows)))
	}
	if n == 0 {
		return
	}
	mustBeF32("Sample's LogProbs", a.LogProbs)
	packed := packSampleRows(a.Rows, vocab)
	space, settings := d.workspace(4*n*vocab), d.upload(packed)
	if space == 0 || settings == 0 {
		return
	}
	launch(d, "sample.sample_"+suffix(a.Logits.Dtype), grid{X: n, Threads: min(max(ceilDiv(vocab, 8*32)*32, 32), 1024)}, &sampleArgs{
		logits: a.Logits.Addr, z: space, ids: a.IDs.Addr, logProbs: a.LogProbs.Addr, rows: settings,
		tokens: settings + uintptr(n*sampleRowBytes), stride: uint64(a.Logits.Stride), vocab: int32(vocab)})
}

// packSampleRows lays out SampleRow for each row, then all rows' tokens.
func packSampleRows(rows []tensor.SampleRow, vocab int) []byte {
	order := binary.LittleEndian
	var b []byte
	tokens := 0
	for _, s := range rows {
		if !(s.Temperature >= 0) {
			panic(fmt.Sprintf("cuda: Sample at temperature %g", s.Temperature))
		}
		b = order.AppendUint64(b, math.Float64bits(s.Uniform))
		for _, f := range [...]float32{s.Temperature, s.TopP, s.MinP, s.RepetitionPenalty} {
			b = order.AppendUint32(b, math.Float32bits(f))
		}
		tempered := 0
		if s.TemperedLogProb {
			tempered = 1
		}
		for _, i := range [...]int{min(s.TopK, vocab), tempered, tokens, len(s.Seen), tokens + len(s.Seen), len(s.Banned)} {
			b = order.AppendUint32(b, uint32(int32(i)))
		}
		tokens += len(s.Seen) + len(s.Banned)
	}
	for _, s := range rows {
		for _, ids := range [...][]int32{s.Seen, s.Banned} {
			for _, id := range ids {
				if id < 0 || int(id) >= vocab {
					panic(fmt.Sprintf("cuda: Sample with token %d of a vocabulary of %d", id, vocab))
				}
				b = order.AppendUint32(b, uint32(id))
			}
		}
	}
	return b
}
