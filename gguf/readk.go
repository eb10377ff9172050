package gguf

import (
	"encoding/binary"
	"math"
)

// The K types hold 256 elements in a block, with a scale for each 16 or 32 of
// them that is itself quantised (llama.cpp, ggml-quants). Layouts are the bytes
// in order.

// readQ2_K: 16 bytes of scales (low half) and minima (high half), 64 bytes of
// four 2-bit q each, f16 d, f16 dmin; w = (d·scale)·q − dmin·min.
func readQ2_K(dst []float32, src []byte) {
	for len(dst) >= 256 {
		b := src[:84:84]
		d, dmin := half(b[80:]), half(b[82:])
		scales, qs, y := b[:16], b[16:80], dst[:256]
		for part := 0; part < 2; part++ { // 128 elements from 32 bytes
			for shift := 0; shift < 8; shift += 2 {
				for h := 0; h < 2; h++ {
					s := scales[0]
					scale, least := d*float32(s&15), dmin*float32(s>>4)
					for j, q := range qs[16*h : 16*h+16] {
						y[j] = float32(scale*float32(q>>shift&3)) - least
					}
					scales, y = scales[1:], y[16:]
				}
			}
			qs = qs[32:]
		}
		dst, src = dst[256:], src[84:]
	}
}

// readQ3_K: 32 bytes of third bits, 64 bytes of four 2-bit q each, 12 bytes of
// sixteen 6-bit scales, f16 d; w = (d·(scale−32))·(q−4 where the third bit is 0).
func readQ3_K(dst []float32, src []byte) {
	for len(dst) >= 256 {
		b := src[:110:110]
		d := half(b[108:])
		high, qs, packed, y := b[:32], b[32:96], b[96:108], dst[:256]
		for g := 0; g < 16; g++ { // 16 elements with one scale
			low := packed[g%8] >> (4 * (g / 8)) & 15
			top := packed[8+g%4] >> (2 * (g / 4)) & 3
			scale := d * float32(int(low|top<<4)-32)
			shift, bit := 2*(g/2%4), g/2
			from := g % 2 * 16
			q, h := qs[g/8*32+from:][:16], high[from:][:16]
			for j := range q {
				v := int(q[j]>>shift&3) - int(^h[j]>>bit&1)<<2
				y[j] = scale * float32(v)
			}
			y = y[16:]
		}
		dst, src = dst[256:], src[110:]
	}
}

// scaleMin takes scale and minimum i of 8 out of 12 bytes of 6-bit numbers: the
// first four of each have bytes of their own, whose upper bits complete the
// halves in which the last four lie.
func scaleMin(b []byte, i int) (scale, least byte) {
	if i < 4 {
		return b[i] & 63, b[i+4] & 63
	}
	return b[i+4]&15 | b[i-4]>>6<<4, b[i+4]>>4 | b[i]>>6<<4
}

// readQ4_K: f16 d, f16 dmin, 12 bytes of eight scales and minima, 128 bytes of
// two 4-bit q each; w = (d·scale)·q − dmin·min.
func readQ4_K(dst []float32, src []byte) {
	for len(dst) >= 256 {
		b := src[:144:144]
		d, dmin, scales := half(b), half(b[2:]), b[4:16]
		for i := 0; i < 4; i++ { // 64 elements from 32 bytes
			s, m := scaleMin(scales, 2*i)
			scale0, least0 := d*float32(s), dmin*float32(m)
			s, m = scaleMin(scales, 2*i+1)
			scale1, least1 := d*float32(s), dmin*float32(m)
			y := dst[64*i : 64*i+64 : 64*i+64]
			for j, q := range b[16+32*i : 48+32*i] {
				y[j] = float32(scale0*float32(q&15)) - least0
				y[j+32] = float32(scale1*float32(q>>4)) - least1
			}
		}
		dst, src = dst[256:], src[144:]
	}
}

// readQ5_K: as Q4_K, with 32 bytes of fifth bits before the 4-bit ones.
func readQ5_K(dst []float32, src []byte) {
	for len(dst) >= 256 {
		b := src[:176:176]
		d, dmin, scales, high := half(b), half(b[2:]), b[4:16], b[16:48]
		for i := 0; i < 4; i++ {
			s, m := scaleMin(scales, 2*i)
			scale0, least0 := d*float32(s), dmin*float32(m)
			s, m = scaleMin(scales, 2*i+1)
			scale1, least1 := d*float32(s), dmin*float32(m)
			y := dst[64*i : 64*i+64 : 64*i+64]
			for j, q := range b[48+32*i : 80+32*i] {
				h := high[j] >> (2 * i)
				y[j] = float32(scale0*float32(q&15|h&1<<4)) - least0
				y[j+32] = float32(scale1*float32(q>>4|h>>1&1<<4)) - least1
			}
		}
		dst, src = dst[256:], src[176:]
	}
}

// readQ6_K: 128 bytes of two lower halves each, 64 bytes of four upper pairs of
// bits each, 16 signed scales, f16 d; w = (d·scale)·(q−32).
func readQ6_K(dst []float32, src []byte) {
	for len(dst) >= 256 {
		b := src[:210:210]
		d := half(b[208:])
		for part := 0; part < 2; part++ { // 128 elements
			low, high := b[64*part:64*part+64:64*part+64], b[128+32*part:160+32*part:160+32*part]
			scales := b[192+8*part : 200+8*part : 200+8*part]
			y := dst[128*part : 128*part+128 : 128*part+128]
			for h := 0; h < 2; h++ { // 16 columns of the 32
				s0, s1 := d*float32(int8(scales[h])), d*float32(int8(scales[h+2]))
				s2, s3 := d*float32(int8(scales[h+4])), d*float32(int8(scales[h+6]))
				for j := 16 * h; j < 16*h+16; j++ {
					p, q, t := low[j], low[j+32], high[j]
					y[j] = s0 * float32(int(p&15|t<<4&0x30)-32)
					y[j+32] = s1 * float32(int(q&15|t<<2&0x30)-32)
					y[j+64] = s2 * float32(int(p>>4|t&0x30)-32)
					y[j+96] = s3 * float32(int(q>>4|t>>2&0x30)-32)
				}
			}
		}
		dst, src = dst[256:], src[210:]
	}
}

// readQ8_K: f32 d, 256 signed bytes, and 16 sums that only products use; w = d·q.
func readQ8_K(dst []float32, src []byte) {
	for len(dst) >= 256 {
		b := src[:292:292]
		d := math.Float32frombits(binary.LittleEndian.Uint32(b))
		y := dst[:256:256]
		for j, q := range b[4:260] {
			y[j] = d * float32(int8(q))
		}
		dst, src = dst[256:], src[292:]
	}
}
