// Training in 8-bit floats (docs/fp8.md): the largest absolute values of a matrix, its
// rounding to 8 bits, as it is and transposed, and the way back.
//
//   amax        x [T, n] → All [1], Rows [T], Columns [n], each raised       (tensor.AMax)
//   quantize    x [T, n] → q [T, n], qᵀ [n, T] and their scales              (tensor.Quantize)
//   dequantize  q [T, n] → y [T, n] bfloat16, times its scales: operands of products on GPUs
//               whose tensor cores don't take 8 bits, and of shapes that cuBLASLt refuses
//
// Floors: bytes. Of an element of bfloat16 amax reads 2; quantize reads 2 and writes 1 for
// each of q and qᵀ.
#include "common.cuh"

// E4M3: sign, 4 bits of exponent, 3 of fraction; no infinity, NaN is all ones; 448 at most.
struct e4m3 {
    static constexpr int fraction = 3, bias = 7, top = 8; // the largest number is 1.75·2^top
    static constexpr u32 largest = 0x43e00000u;
};
// E5M2: the upper half of an IEEE binary16; 57344 at most.
struct e5m2 {
    static constexpr int fraction = 2, bias = 15, top = 15;
    static constexpr u32 largest = 0x47600000u;
};

// The code of x: to nearest, ties to even; what is larger than the largest number becomes
// that, NaN 0x7f.
template <class F> DEVICE u32 roundF8(float x) {
    const int shift = 23 - F::fraction;
    u32 b = floatBits(x), sign = b >> 24 & 0x80, a = b & 0x7fffffff;
    if (a > 0x7f800000u) return 0x7f;
    a = min(a, F::largest);
    if (a < u32(128 - F::bias) << 23) { // subnormal: the last bit of a float at this power of two is theirs
        const u32 unit = u32(127 + 23 + 1 - F::bias - F::fraction) << 23;
        return sign | (floatBits(bitsFloat(a) + bitsFloat(unit)) - unit);
    }
    return sign | ((a + (1u << (shift - 1)) - 1 + (a >> shift & 1)) >> shift) - (u32(127 - F::bias) << F::fraction);
}
template <class F> DEVICE float floatOfF8(u32 code) {
    u32 sign = (code & 0x80) << 24, a = code & 0x7f;
    if (F::fraction == 3 ? a == 0x7f : a > 0x7c) return notANumber();
    if (F::fraction == 2 && a == 0x7c) return bitsFloat(sign | 0x7f800000u);
    // With exponent and fraction in place the value is 2^(127-bias) too small, subnormal or not.
    return bitsFloat(sign | floatBits(bitsFloat(a << (23 - F::fraction)) * bitsFloat(u32(254 - F::bias) << 23)));
}

// Two codes at once, lo in the low byte.
#if !defined(RINGTAIL_EMULATOR) && __CUDA_ARCH__ >= 890
DEVICE u32 pair(float lo, float hi, e4m3) { u16 y; asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(y) : "f"(hi), "f"(lo)); return y; }
DEVICE u32 pair(float lo, float hi, e5m2) { u16 y; asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(y) : "f"(hi), "f"(lo)); return y; }
#else
template <class F> DEVICE u32 pair(float lo, float hi, F) { return roundF8<F>(lo) | roundF8<F>(hi) << 8; }
#endif

DEVICE u32 magnitude(float x) { return floatBits(x) & 0x7fffffff; }

// raise sets *p to the maximum of itself and v: of bits, which order numbers that aren't negative as
// their values and put NaN above infinity. Most find it large enough.
DEVICE void raise(u32* p, u32 v) {
    if (v > *static_cast<volatile u32*>(p)) atomicMaxU32(p, v);
}
DEVICE u32 warpLargest(u32 v) {
    for (int m = 16; m; m >>= 1) v = max(v, shuffleXor(v, m));
    return v;
}
// Of a block of 256; all threads call it.
DEVICE void raiseByBlock(u32* p, u32 v) {
    SHARED u32 scratch[8];
    v = warpLargest(v);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    barrier();
    if (threadIdx.x < 32) {
        v = warpLargest(threadIdx.x < 8 ? scratch[threadIdx.x] : 0);
        if (threadIdx.x == 0) raise(p, v);
    }
}

struct AMaxArgs {
    const void* x;
    u32 *all, *perRow, *perColumn; // any may be null
    u64 stride;
    u32 rows, cols, span; // span: rows of a block, a multiple of 4
};

// A block has span rows of 256·N columns, four rows at a time.
template <class T, int N> DEVICE void amax(const AMaxArgs& p) {
    const int deep = 4;
    u64 col = (u64(blockIdx.x) * 256 + threadIdx.x) * N;
    bool inside = col < p.cols;
    const T* x = static_cast<const T*>(p.x) + col;
    u32 best[N] = {};
    u64 from = u64(blockIdx.y) * p.span, to = min(from + p.span, u64(p.rows));
    for (u64 r = from; r < to; r += deep) {
        float v[deep][N] = {};
#pragma unroll
        for (int i = 0; i < deep; i++)
            if (inside && r + i < to) loadElements(x + (r + i) * p.stride, v[i]);
#pragma unroll
        for (int i = 0; i < deep; i++) {
            u32 row = 0;
#pragma unroll
            for (int j = 0; j < N; j++) {
                u32 m = magnitude(v[i][j]);
                best[j] = max(best[j], m);
                row = max(row, m);
            }
            if (p.perRow && r + i < to) {
                row = warpLargest(row);
                if (threadIdx.x % 32 == 0) raise(p.perRow + r + i, row);
            }
        }
    }
    u32 largest = 0;
#pragma unroll
    for (int j = 0; j < N; j++) {
        largest = max(largest, best[j]);
        if (p.perColumn && inside) raise(p.perColumn + col + j, best[j]);
    }
    if (p.all) raiseByBlock(p.all, largest);
}
KERNEL(amax_f32, 256, AMaxArgs, amax<float, 1>)
KERNEL(amax_f32_x8, 256, AMaxArgs, amax<float, 8>)
KERNEL(amax_bf16, 256, AMaxArgs, amax<bf16, 1>)
KERNEL(amax_bf16_x8, 256, AMaxArgs, amax<bf16, 8>)

struct QuantizeArgs {
    const void* x;
    u8 *q, *qt;                 // either may be null
    const float *amax, *amaxT;  // amaxT null: qt is of amax
    float *scale, *scaleT;
    u32* next;                  // null or raised to the largest absolute value
    u64 xStride, qStride, qtStride;
    u32 rows, cols;
    u32 qCols, qtCols;          // columns of q and qt; those past cols and rows become 0
    u32 amaxStep, amaxTStep;    // 0: one for the whole; 1: one for each row (column) of x
};

// The exponent of a scale: of the smallest power of two, 2^-60 at least, by which amax divided is a
// number of the format.
template <class F> DEVICE int scaleExponent(float amax) {
    return max(int((magnitude(amax) + 0x1fffff) >> 23) - 127 - F::top, -60); // carries where the fraction is above 1.75's
}
DEVICE float power(int e) { return bitsFloat(u32(127 + e) << 23); }
// What numbers are multiplied by, and the scale that brings them back. NaN where amax is not finite.
template <class F> DEVICE float factorOf(float amax) { return magnitude(amax) < 0x7f800000u ? power(-scaleExponent<F>(amax)) : notANumber(); }
template <class F> DEVICE float scaleOf(float amax) { return magnitude(amax) < 0x7f800000u ? power(scaleExponent<F>(amax)) : notANumber(); }

// Four codes, the first in the low byte. An infinity becomes NaN, lest it be hidden by the largest number.
template <class F> DEVICE u32 codes(const float* v, float f0, float f1, float f2, float f3) {
    float s0 = v[0] * f0 - (v[0] - v[0]), s1 = v[1] * f1 - (v[1] - v[1]), s2 = v[2] * f2 - (v[2] - v[2]), s3 = v[3] * f3 - (v[3] - v[3]);
    return pair(s0, s1, F()) | pair(s2, s3, F()) << 16;
}
DEVICE void storeCodes(u8* to, const Bytes16& b, u32 left) {
#pragma unroll
    for (int j = 0; j < 16; j++)
        if (j < left) to[j] = u8(b.w[j / 4] >> (j % 4 * 8));
}

// Tiles of 128x128, in two halves of 64 columns, of each of which a thread has 4 rows by 8 columns:
// a warp has 16 rows, with 4 such pieces below each other and 8 beside each other, so that its loads
// are of whole lines and its words of four transposed codes go to 32 banks.
template <class T, class F, bool vector> DEVICE void quantize(const QuantizeArgs& p) {
    const int tile = 128;
    SHARED alignas(16) u8 turned[tile * tile]; // [column][row], in groups of 16 rows, permuted
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, piece = lane % 8, word = lane / 8;
    u32 row0 = blockIdx.y * tile, col0 = blockIdx.x * tile, row = row0 + warp * 16 + word * 4;
    float factor[4];
#pragma unroll
    for (int i = 0; i < 4; i++) factor[i] = factorOf<F>(p.amaxStep && row + i >= p.rows ? 0 : p.amax[u64(row + i) * p.amaxStep]);
    u32 largest = 0;
#pragma unroll 1
    for (int half = 0; half < 2; half++) {
        float v[4][8];
        u32 at = col0 + half * 64 + piece * 8;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const T* from = static_cast<const T*>(p.x) + u64(row + i) * p.xStride + at;
#pragma unroll
            for (int j = 0; j < 8; j++) v[i][j] = !vector && row + i < p.rows && at + j < p.cols ? toFloat(from[j]) : 0;
            if (vector && row + i < p.rows && at < p.cols) loadElements(from, v[i]);
        }
        if (p.next)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) largest = max(largest, magnitude(v[i][j]));
        u32 w[4][2]; // codes: [row][columns/4]
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int k = 0; k < 2; k++) w[i][k] = codes<F>(v[i] + 4 * k, factor[i], factor[i], factor[i], factor[i]);
        if (p.q) {
            // Two neighbours exchange halves of two rows, so that each has 16 codes of one.
            bool odd = piece % 2;
#pragma unroll
            for (int i = 0; i < 4; i += 2) {
                u32 got0 = shuffleXor(odd ? w[i][0] : w[i + 1][0], 1), got1 = shuffleXor(odd ? w[i][1] : w[i + 1][1], 1);
                Bytes16 b = odd ? Bytes16{{got0, got1, w[i + 1][0], w[i + 1][1]}} : Bytes16{{w[i][0], w[i][1], got0, got1}};
                u32 r = row + i + odd, c = at - (odd ? 8 : 0);
                if (r >= p.rows || c >= p.qCols) continue;
                if constexpr (vector) store16(p.q + u64(r) * p.qStride + c, b);
                else storeCodes(p.q + u64(r) * p.qStride + c, b, p.qCols - c);
            }
        }
        if (!p.qt) continue;
        if (p.amaxT) { // scales of its own
#pragma unroll
            for (int k = 0; k < 2; k++) {
                float f[4];
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    u32 c = at + 4 * k + j;
                    f[j] = factorOf<F>(p.amaxTStep && c >= p.cols ? 0 : p.amaxT[u64(c) * p.amaxTStep]);
                }
#pragma unroll
                for (int i = 0; i < 4; i++) w[i][k] = codes<F>(v[i] + 4 * k, f[0], f[1], f[2], f[3]);
            }
        }
#pragma unroll
        for (int k = 0; k < 2; k++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                u32 column = 0;
#pragma unroll
                for (int i = 0; i < 4; i++) column |= (w[i][k] >> (8 * j) & 0xff) << (8 * i);
                int c = half * 64 + piece * 8 + 4 * k + j;
                *reinterpret_cast<u32*>(turned + c * tile + (warp ^ piece) * 16 + word * 4) = column;
            }
    }
    if (p.qt) {
        barrier();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int t = threadIdx.x + 256 * i, c = t / 8, group = t % 8;
            u32 r = row0 + group * 16;
            if (col0 + c >= p.cols || r >= p.qtCols) continue;
            Bytes16 b = load16(turned + c * tile + (group ^ (c / 8 & 7)) * 16);
            u8* to = p.qt + u64(col0 + c) * p.qtStride + r;
            if constexpr (vector) store16(to, b);
            else storeCodes(to, b, p.qtCols - r);
        }
    }
    if (p.next) raiseByBlock(p.next, largest);
    int t = threadIdx.x;
    if (p.scale && blockIdx.x == 0 && (p.amaxStep ? t < tile && row0 + t < p.rows : t == 0 && blockIdx.y == 0))
        p.scale[u64(row0 + t) * p.amaxStep] = scaleOf<F>(p.amax[u64(row0 + t) * p.amaxStep]);
    if (p.scaleT && blockIdx.y == 0 && (p.amaxTStep ? t < tile && col0 + t < p.cols : t == 0 && blockIdx.x == 0))
        p.scaleT[u64(col0 + t) * p.amaxTStep] = scaleOf<F>(p.amaxT[u64(col0 + t) * p.amaxTStep]);
}
#define QUANTIZE(name, T, F)                                                     \
    KERNEL_MIN(quantize_##name, 256, 2, QuantizeArgs, quantize<T, F, false>)     \
    KERNEL_MIN(quantize_##name##_x16, 256, 3, QuantizeArgs, quantize<T, F, true>)
QUANTIZE(bf16_e4m3, bf16, e4m3)
QUANTIZE(bf16_e5m2, bf16, e5m2)
QUANTIZE(f32_e4m3, float, e4m3)
QUANTIZE(f32_e5m2, float, e5m2)

struct DequantizeArgs {
    const u8* q;
    bf16* y;
    const float* scale;
    u64 qStride, yStride; // yStride: a multiple of 8, whose elements past cols become 0
    u32 rows, cols;
    u32 scaleStep; // 0: one scale; 1: one for each row
};

// 8 elements a thread.
template <class F> DEVICE void dequantize(const DequantizeArgs& p) {
    u64 c = (u64(blockIdx.x) * 256 + threadIdx.x) * 8;
    if (c >= p.yStride) return;
    for (u64 r = blockIdx.y; r < p.rows; r += gridDim.y) {
        float scale = p.scale[r * p.scaleStep], v[8];
        const u8* from = p.q + u64(r) * p.qStride + c;
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = c + j < p.cols ? floatOfF8<F>(from[j]) * scale : 0;
        storeElements(p.y + r * p.yStride + c, v);
    }
}
KERNEL(dequantize_e4m3, 256, DequantizeArgs, dequantize<e4m3>)
KERNEL(dequantize_e5m2, 256, DequantizeArgs, dequantize<e5m2>)
