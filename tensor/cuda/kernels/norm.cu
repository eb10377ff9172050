// RMSNorm, LayerNorm and HeadNorm, forward and backward (tensor/ops.go).
//
// A row of [T, H] belongs to a group: a warp where H is small, else a block. A thread holds
// K units of N elements of it in registers, unit k·group + lane: N is 8 where everything
// lies at multiples of 16 bytes, else 1. Rows that fit no group are read again from memory
// (the …_long kernels).
//
// Floors, in bytes of bf16: forward with a sum 8·T·H (reads X, Delta, writes Sum, Y), alone
// 4·T·H; backward 6·T·H, with DSum 8·T·H. [16384, 4096]: 537 MB with a sum, 125 µs at 4.3 TB/s;
// LayerNorm of GPT-2, [16384, 768]: 101 MB, 23 µs.
#include "common.cuh"

struct NormArgs {
    const void *x, *delta, *w, *bias;
    void *sum, *y;
    float *mean, *rstd;
    u64 xs, ds, ss, ys; // elements from row to row of x, delta, sum, y
    u32 rows, h;
    float eps, offset;
};

// The sum over a group, in every thread. scratch is 32 floats that no one else uses until
// the group's next but one barrier.
template <bool warps> DEVICE float groupSum(float v, float* scratch) {
    v = warpSum(v);
    if (warps) return v;
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
    barrier();
    float sum = 0;
    for (u32 i = 0; i < blockDim.x / 32; i++) sum += scratch[i];
    return sum;
}

template <class T, int N, int K, bool warps, bool layer> DEVICE void norm(const NormArgs& a) {
    SHARED float scratch[3][32];
    u32 group = warps ? 32 : blockDim.x, lane = warps ? threadIdx.x % 32 : threadIdx.x;
    u64 row = warps ? u64(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32 : blockIdx.x;
    if (row >= a.rows) return; // the whole group
    u32 units = a.h / N;
    const T* x = static_cast<const T*>(a.x) + row * a.xs;
    float s[K][N];
    for (int k = 0; k < K; k++) {
        u32 c = k * group + lane;
        if (c < units) loadElements(x + u64(c) * N, s[k]);
        else
            for (int i = 0; i < N; i++) s[k][i] = 0;
    }
    if (a.delta) {
        const T* delta = static_cast<const T*>(a.delta) + row * a.ds;
        T* sum = static_cast<T*>(a.sum) + row * a.ss;
        float d[K][N];
        for (int k = 0; k < K; k++)
            if (u32 c = k * group + lane; c < units) loadElements(delta + u64(c) * N, d[k]);
        for (int k = 0; k < K; k++)
            if (u32 c = k * group + lane; c < units) {
                // It goes on with what is stored, as one does that starts from Sum to make Y again.
                for (int i = 0; i < N; i++) s[k][i] = toFloat(fromFloat<T>(s[k][i] + d[k][i]));
                storeElements(sum + u64(c) * N, s[k]);
            }
    }
    float mean = 0, squares = 0, left = 0;
    if (layer) {
        float total = 0;
        for (int k = 0; k < K; k++)
            for (int i = 0; i < N; i++) total += s[k][i];
        mean = groupSum<warps>(total, scratch[0]) / a.h;
    }
    for (int k = 0; k < K; k++)
        if (k * group + lane < units)
            for (int i = 0; i < N; i++) {
                s[k][i] -= mean;
                squares += s[k][i] * s[k][i];
                if (layer) left += s[k][i];
            }
    squares = groupSum<warps>(squares, scratch[1]) / a.h;
    float rest = 0;
    if (layer) { // what rounding left of the mean
        rest = groupSum<warps>(left, scratch[2]) / a.h;
        squares -= rest * rest;
    }
    float rstd = 1 / sqrtf(squares + a.eps);
    if (lane == 0) {
        a.rstd[row] = rstd;
        if (layer) a.mean[row] = rest == rest ? mean + rest : mean; // infinite means have no rest
    }
    T* y = static_cast<T*>(a.y) + row * a.ys;
    for (int k = 0; k < K; k++)
        if (u32 c = k * group + lane; c < units) {
            float w[N];
            loadElements(static_cast<const T*>(a.w) + u64(c) * N, w);
            for (int i = 0; i < N; i++) s[k][i] = (s[k][i] - rest) * (rstd * (w[i] + a.offset));
            if (layer && a.bias) {
                loadElements(static_cast<const T*>(a.bias) + u64(c) * N, w);
                for (int i = 0; i < N; i++) s[k][i] += w[i];
            }
            storeElements(y + u64(c) * N, s[k]);
        }
}

// One block a row of any length: sums are read again from Sum, each element by the thread that wrote it.
template <class T, bool layer> DEVICE void normLong(const NormArgs& a) {
    SHARED float scratch[3][32];
    u64 row = blockIdx.x;
    const T* s = static_cast<const T*>(a.x) + row * a.xs;
    if (a.delta) {
        const T* delta = static_cast<const T*>(a.delta) + row * a.ds;
        T* sum = static_cast<T*>(a.sum) + row * a.ss;
        for (u32 j = threadIdx.x; j < a.h; j += blockDim.x) sum[j] = fromFloat<T>(toFloat(s[j]) + toFloat(delta[j]));
        s = sum;
    }
    float mean = 0, squares = 0, left = 0;
    if (layer) {
        float total = 0;
        for (u32 j = threadIdx.x; j < a.h; j += blockDim.x) total += toFloat(s[j]);
        mean = groupSum<false>(total, scratch[0]) / a.h;
    }
    for (u32 j = threadIdx.x; j < a.h; j += blockDim.x) {
        float d = toFloat(s[j]) - mean;
        squares += d * d;
        left += d;
    }
    squares = groupSum<false>(squares, scratch[1]) / a.h;
    float rest = 0;
    if (layer) {
        rest = groupSum<false>(left, scratch[2]) / a.h;
        squares -= rest * rest;
    }
    float rstd = 1 / sqrtf(squares + a.eps);
    if (threadIdx.x == 0) {
        a.rstd[row] = rstd;
        if (layer) a.mean[row] = rest == rest ? mean + rest : mean; // infinite means have no rest
    }
    for (u32 j = threadIdx.x; j < a.h; j += blockDim.x) {
        float y = (toFloat(s[j]) - mean - rest) * rstd * (toFloat(static_cast<const T*>(a.w)[j]) + a.offset);
        if (layer && a.bias) y += toFloat(static_cast<const T*>(a.bias)[j]);
        static_cast<T*>(a.y)[row * a.ys + j] = fromFloat<T>(y);
    }
}

struct NormBackwardArgs {
    void* dx; // may be null
    const void *dy, *dsum, *s, *w;
    const float *mean, *rstd;
    float* partial;       // [gridDim.x, 1 or, of LayerNorm, 2, h]: sums of DW and DBias; may be null
    u64 xs, ys, ds, ss;   // elements from row to row of dx, dy, dsum, s
    u32 rows, h;
    float offset;
    u32 accumulate;
    u32 share, unused; // normWeightLong's rows of a block
};

// N elements as they lie in memory, so that they wait in few registers.
template <class T, int N> struct Raw;
template <class T> struct Raw<T, 1> {
    T v;
    DEVICE void load(const T* p) { v = *p; }
    DEVICE float of(int) const { return toFloat(v); }
};
template <class T> struct Raw<T, 8> {
    static constexpr int size = Pack<T>::size;
    Pack<T> v[8 / size];
    DEVICE void load(const T* p) {
        for (int k = 0; k < 8 / size; k++) v[k] = loadPack(p + k * size);
    }
    DEVICE float of(int i) const { return v[i / size].of(i % size); }
};

// Groups go over the rows, each keeping its sums of DW (and DBias) in registers; those of a
// block's warps are added in order at the end.
template <class T, int N, int K, bool warps, bool layer> DEVICE void normBackward(const NormBackwardArgs& a) {
    SHARED float scratch[4][32];
    u32 group = warps ? 32 : blockDim.x, lane = warps ? threadIdx.x % 32 : threadIdx.x;
    u32 warp = threadIdx.x / 32, groups = warps ? blockDim.x / 32 : 1;
    u32 units = a.h / N;
    float dw[K][N], db[K][N];
    Raw<T, N> w[K];
    for (int k = 0; k < K; k++) {
        for (int i = 0; i < N; i++) dw[k][i] = db[k][i] = 0;
        if (u32 c = k * group + lane; c < units) w[k].load(static_cast<const T*>(a.w) + u64(c) * N);
    }
    u32 parity = 0;
    for (u64 row = u64(blockIdx.x) * groups + (warps ? warp : 0); row < a.rows; row += u64(gridDim.x) * groups) {
        Raw<T, N> y[K], s[K], d[K];
        const T* dsum = static_cast<const T*>(a.dsum) + row * a.ds;
        for (int k = 0; k < K; k++)
            if (u32 c = k * group + lane; c < units) {
                y[k].load(static_cast<const T*>(a.dy) + row * a.ys + u64(c) * N);
                s[k].load(static_cast<const T*>(a.s) + row * a.ss + u64(c) * N);
                if (a.dsum) d[k].load(dsum + u64(c) * N);
            }
        float mean = layer ? a.mean[row] : 0, rstd = a.rstd[row], sum = 0, dot = 0;
        for (int k = 0; k < K; k++)
            if (k * group + lane < units)
                for (int i = 0; i < N; i++) {
                    float dy = y[k].of(i), n = (s[k].of(i) - mean) * rstd, g = dy * (w[k].of(i) + a.offset);
                    dot += g * n;
                    dw[k][i] += dy * n;
                    if (layer) {
                        sum += g;
                        db[k][i] += dy;
                    }
                }
        if (!a.dx) continue;
        dot = groupSum<warps>(dot, scratch[parity]) / a.h;
        if (layer) sum = groupSum<warps>(sum, scratch[parity + 2]) / a.h;
        parity ^= 1;
        T* dx = static_cast<T*>(a.dx) + row * a.xs;
        for (int k = 0; k < K; k++)
            if (u32 c = k * group + lane; c < units) {
                float out[N];
                for (int i = 0; i < N; i++) {
                    float n = (s[k].of(i) - mean) * rstd, g = y[k].of(i) * (w[k].of(i) + a.offset);
                    out[i] = rstd * (fmaf(-n, dot, g) - sum); // g enters rounded, as into sum: they may cancel
                }
                if (a.dsum)
                    for (int i = 0; i < N; i++) out[i] += d[k].of(i);
                if (a.accumulate) {
                    float old[N];
                    loadElements(dx + u64(c) * N, old);
                    for (int i = 0; i < N; i++) out[i] += old[i];
                }
                storeElements(dx + u64(c) * N, out);
            }
    }
    if (!a.partial) return;
    for (int part = 0; part < (layer ? 2 : 1); part++) {
        float* partial = a.partial + (u64(blockIdx.x) * (layer ? 2 : 1) + part) * a.h;
        if constexpr (!warps) {
            for (int k = 0; k < K; k++)
                if (u32 c = k * group + lane; c < units)
                    for (int i = 0; i < N; i++) partial[u64(c) * N + i] = part ? db[k][i] : dw[k][i];
        } else {
            SHARED float total[32 * N * K];
            for (u32 turn = 0; turn < groups; turn++) {
                barrier();
                if (turn == warp)
                    for (int k = 0; k < K; k++)
                        if (u32 c = k * group + lane; c < units)
                            for (int i = 0; i < N; i++) total[c * N + i] = (turn ? total[c * N + i] : 0) + (part ? db[k][i] : dw[k][i]);
            }
            barrier();
            for (u32 j = threadIdx.x; j < a.h; j += blockDim.x) partial[j] = total[j];
        }
    }
}

// DX of one row of any length.
template <class T, bool layer> DEVICE void normBackwardLong(const NormBackwardArgs& a) {
    SHARED float scratch[2][32];
    u64 row = blockIdx.x;
    const T *dy = static_cast<const T*>(a.dy) + row * a.ys, *s = static_cast<const T*>(a.s) + row * a.ss, *w = static_cast<const T*>(a.w);
    float mean = layer ? a.mean[row] : 0, rstd = a.rstd[row], sum = 0, dot = 0;
    for (u32 j = threadIdx.x; j < a.h; j += blockDim.x) {
        float g = toFloat(dy[j]) * (toFloat(w[j]) + a.offset);
        dot += g * (toFloat(s[j]) - mean) * rstd;
        sum += g;
    }
    dot = groupSum<false>(dot, scratch[0]) / a.h;
    sum = layer ? groupSum<false>(sum, scratch[1]) / a.h : 0;
    T* dx = static_cast<T*>(a.dx) + row * a.xs;
    for (u32 j = threadIdx.x; j < a.h; j += blockDim.x) {
        float g = toFloat(dy[j]) * (toFloat(w[j]) + a.offset), out = rstd * (fmaf(-(toFloat(s[j]) - mean) * rstd, dot, g) - sum);
        if (a.dsum) out += toFloat(static_cast<const T*>(a.dsum)[row * a.ds + j]);
        if (a.accumulate) out += toFloat(dx[j]);
        dx[j] = fromFloat<T>(out);
    }
}
// DW and DBias of a column, over the block's share of the rows: partial [gridDim.y, …].
template <class T, bool layer> DEVICE void normWeightLong(const NormBackwardArgs& a) {
    u32 j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= a.h) return;
    float dw = 0, db = 0;
    for (u64 row = u64(blockIdx.y) * a.share; row < min(u64(a.rows), u64(blockIdx.y + 1) * a.share); row++) {
        float dy = toFloat(static_cast<const T*>(a.dy)[row * a.ys + j]);
        dw += dy * (toFloat(static_cast<const T*>(a.s)[row * a.ss + j]) - (layer ? a.mean[row] : 0)) * a.rstd[row];
        db += dy;
    }
    float* partial = a.partial + u64(blockIdx.y) * (layer ? 2 : 1) * a.h + j;
    partial[0] = dw;
    if (layer) partial[a.h] = db;
}

// The forms of one operation: wK, a warp a row; bK, a block; scalar, a block, elements one by one.
#define NORM(op, type, T, layer)                                                                  \
    KERNEL(op##_##type##_w1, 128, NormArgs, norm<T, 8, 1, true, layer>)                           \
    KERNEL(op##_##type##_w2, 128, NormArgs, norm<T, 8, 2, true, layer>)                           \
    KERNEL(op##_##type##_w3, 128, NormArgs, norm<T, 8, 3, true, layer>)                           \
    KERNEL(op##_##type##_w4, 128, NormArgs, norm<T, 8, 4, true, layer>)                           \
    KERNEL(op##_##type##_b2, 512, NormArgs, norm<T, 8, 2, false, layer>)                          \
    KERNEL(op##_##type##_b4, 512, NormArgs, norm<T, 8, 4, false, layer>)                          \
    KERNEL(op##_##type##_scalar, 512, NormArgs, norm<T, 1, 8, false, layer>)                      \
    KERNEL(op##_##type##_long, 512, NormArgs, normLong<T, layer>)                                 \
    KERNEL(op##_backward_##type##_w1, 128, NormBackwardArgs, normBackward<T, 8, 1, true, layer>)  \
    KERNEL(op##_backward_##type##_w2, 128, NormBackwardArgs, normBackward<T, 8, 2, true, layer>)  \
    KERNEL(op##_backward_##type##_w3, 128, NormBackwardArgs, normBackward<T, 8, 3, true, layer>)  \
    KERNEL(op##_backward_##type##_w4, 128, NormBackwardArgs, normBackward<T, 8, 4, true, layer>)  \
    KERNEL(op##_backward_##type##_b2, 512, NormBackwardArgs, normBackward<T, 8, 2, false, layer>) \
    KERNEL(op##_backward_##type##_b4, 512, NormBackwardArgs, normBackward<T, 8, 4, false, layer>) \
    KERNEL(op##_backward_##type##_scalar, 512, NormBackwardArgs, normBackward<T, 1, 8, false, layer>) \
    KERNEL(op##_backward_##type##_long, 512, NormBackwardArgs, normBackwardLong<T, layer>)        \
    KERNEL(op##_weight_##type##_long, 256, NormBackwardArgs, normWeightLong<T, layer>)
NORM(rms_norm, f32, float, false)
NORM(rms_norm, bf16, bf16, false)
NORM(layer_norm, f32, float, true)
NORM(layer_norm, bf16, bf16, true)

// --- HeadNorm ---

struct HeadNormArgs {
    const void *x, *wq, *wk, *dy; // dy: the gradient, of backward
    void* y;                      // Y, or DX
    float* rstd;
    float* partial;     // [gridDim.x, 2, dim]: sums of DWQ and DWK; may be null
    u64 xs, ys, gs, rs; // elements from row to row of x, y, dy, rstd
    u32 rows, heads, kvHeads, dim;
    u32 lanes; // threads of a head: a power of two up to 32
    u32 values; // 1: value heads are copied
    float eps, offset;
};

DEVICE float lanesSum(float v, u32 lanes) {
    for (u32 m = 1; m < lanes; m *= 2) v += shuffleXor(v, int(m));
    return v;
}

// A head of up to 256 columns belongs to `lanes` threads of a warp, with K units of N elements each. Loops are of equal
// length for all lanes of a warp, as they exchange sums.
template <class T, int N, int K> DEVICE void headNorm(const HeadNormArgs& a) {
    u32 lane = threadIdx.x & (a.lanes - 1), normed = a.heads + a.kvHeads, all = normed + (a.values ? a.kvHeads : 0);
    u32 head = blockIdx.x * (blockDim.x / a.lanes) + threadIdx.x / a.lanes; // 32 bits: a division of 64 costs as much as the rest
    bool valid = head < a.rows * all;
    u64 row = valid ? head / all : 0;
    u32 h = head - u32(row) * all, units = a.dim / N;
    const T* x = static_cast<const T*>(a.x) + row * a.xs + u64(h) * a.dim;
    T* y = static_cast<T*>(a.y) + row * a.ys + u64(h) * a.dim;
    float v[K][N], squares = 0;
    for (int k = 0; k < K; k++)
        if (u32 c = k * a.lanes + lane; valid && c < units) {
            loadElements(x + u64(c) * N, v[k]);
            for (int i = 0; i < N; i++) squares += v[k][i] * v[k][i];
        }
    float r = 1 / sqrtf(lanesSum(squares, a.lanes) / a.dim + a.eps);
    if (!valid) return;
    bool plain = h >= normed;
    if (lane == 0 && !plain) a.rstd[row * a.rs + h] = r;
    const T* w = static_cast<const T*>(h < a.heads ? a.wq : a.wk);
    for (int k = 0; k < K; k++)
        if (u32 c = k * a.lanes + lane; c < units) {
            if (!plain) {
                float wv[N];
                loadElements(w + u64(c) * N, wv);
                for (int i = 0; i < N; i++) v[k][i] *= r * (wv[i] + a.offset);
            }
            storeElements(y + u64(c) * N, v[k]);
        }
}

template <class T, int N, int K> DEVICE void headNormBackward(const HeadNormArgs& a) {
    u32 lane = threadIdx.x & (a.lanes - 1), normed = a.heads + a.kvHeads, all = normed + (a.values ? a.kvHeads : 0);
    u32 units = a.dim / N;
    u32 step = gridDim.x * (blockDim.x / a.lanes), count = a.rows * all;
    u32 head = blockIdx.x * (blockDim.x / a.lanes) + threadIdx.x / a.lanes;
    u32 turns = (count + step - 1) / step;
    float dq[K][N], dk[K][N];
    for (int k = 0; k < K; k++)
        for (int i = 0; i < N; i++) dq[k][i] = dk[k][i] = 0;
    for (u32 turn = 0; turn < turns; turn++, head += step) {
        bool valid = head < count;
        u64 row = valid ? head / all : 0;
        u32 h = head - u32(row) * all;
        bool plain = h >= normed, query = h < a.heads;
        const T* x = static_cast<const T*>(a.x) + row * a.xs + u64(h) * a.dim;
        const T* dy = static_cast<const T*>(a.dy) + row * a.gs + u64(h) * a.dim;
        T* dx = static_cast<T*>(a.y) + row * a.ys + u64(h) * a.dim;
        const T* w = static_cast<const T*>(query ? a.wq : a.wk);
        float g[K][N], n[K][N], dot = 0, r = valid && !plain ? a.rstd[row * a.rs + h] : 0;
        for (int k = 0; k < K; k++)
            if (u32 c = k * a.lanes + lane; valid && c < units) {
                loadElements(dy + u64(c) * N, g[k]);
                if (plain) continue;
                loadElements(x + u64(c) * N, n[k]);
                float wv[N];
                loadElements(w + u64(c) * N, wv);
                for (int i = 0; i < N; i++) {
                    n[k][i] *= r;
                    float p = g[k][i] * n[k][i];
                    dq[k][i] += query ? p : 0;
                    dk[k][i] += query ? 0 : p;
                    g[k][i] *= wv[i] + a.offset;
                    dot += g[k][i] * n[k][i];
                }
            }
        dot = lanesSum(dot, a.lanes) / a.dim;
        for (int k = 0; k < K; k++)
            if (u32 c = k * a.lanes + lane; valid && c < units) {
                if (!plain)
                    for (int i = 0; i < N; i++) g[k][i] = r * (g[k][i] - n[k][i] * dot);
                storeElements(dx + u64(c) * N, g[k]);
            }
    }
    if (!a.partial) return;
    // The groups of the block in order, one part at a time.
    SHARED float sums[256 * N];
    u32 groups = blockDim.x / a.lanes, group = threadIdx.x / a.lanes;
    for (int part = 0; part < 2; part++)
        for (int k = 0; k < K; k++) {
            for (int i = 0; i < N; i++) sums[(group * a.lanes + lane) * N + i] = part ? dk[k][i] : dq[k][i];
            barrier();
            for (u32 j = threadIdx.x; j < a.lanes * N; j += blockDim.x) {
                u32 column = k * a.lanes * N + j;
                if (column >= a.dim) break;
                float total = 0;
                for (u32 q = 0; q < groups; q++) total += sums[q * a.lanes * N + j];
                a.partial[(u64(blockIdx.x) * 2 + part) * a.dim + column] = total;
            }
            barrier();
        }
}
#define HEAD_NORM(type, T)                                                                     \
    KERNEL(head_norm_##type##_x8, 256, HeadNormArgs, headNorm<T, 8, 1>)                        \
    KERNEL(head_norm_##type##_x1, 256, HeadNormArgs, headNorm<T, 1, 8>)                        \
    KERNEL(head_norm_backward_##type##_x8, 256, HeadNormArgs, headNormBackward<T, 8, 1>)       \
    KERNEL(head_norm_backward_##type##_x1, 256, HeadNormArgs, headNormBackward<T, 1, 8>)
HEAD_NORM(f32, float)
HEAD_NORM(bf16, bf16)
