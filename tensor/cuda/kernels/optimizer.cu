// The optimizer's step: the gradients' sum of squares, the clipping factor, AdamW.
// Each kernel takes a table of tensors, so that a model's hundreds take few launches.
#include "common.cuh"

// Philox 4x32-10 (Salmon et al. 2011), as package rng has it.
struct Random4 { u32 w[4]; };
DEVICE Random4 philox(u64 low, u64 high, u64 key) {
    u32 c0 = u32(low), c1 = u32(low >> 32), c2 = u32(high), c3 = u32(high >> 32), k0 = u32(key), k1 = u32(key >> 32);
#pragma unroll
    for (int i = 0; i < 10; i++) {
        u64 a = u64(0xD2511F53u) * c0, b = u64(0xCD9E8D57u) * c2;
        c0 = u32(b >> 32) ^ c1 ^ k0;
        c1 = u32(b);
        c2 = u32(a >> 32) ^ c3 ^ k1;
        c3 = u32(a);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// A quad is four adjacent elements: of 16 or 8 bytes where aligned.
template <class T> DEVICE void loadQuad(float (&v)[4], const T* p, u64 i, u64 n, bool whole) {
    if (whole) {
        if constexpr (sizeof(T) == 4) {
            Pack<T> q = loadPack(p + i);
#pragma unroll
            for (int k = 0; k < 4; k++) v[k] = q.of(k);
        } else {
            u64 bits = *reinterpret_cast<const u64*>(p + i);
            Pack<T> q;
            q.b = {{u32(bits), u32(bits >> 32), 0, 0}};
#pragma unroll
            for (int k = 0; k < 4; k++) v[k] = q.of(k);
        }
        return;
    }
    for (int k = 0; k < 4; k++) v[k] = i + k < n ? toFloat(p[i + k]) : 0;
}
template <class T> DEVICE void storeQuad(T* p, const float (&v)[4], u64 i, u64 n, bool whole) {
    if (whole) {
        if constexpr (sizeof(T) == 4) {
            Pack<T> q;
            q.set(v);
            storePack(p + i, q);
        } else {
            float w[8] = {v[0], v[1], v[2], v[3], 0, 0, 0, 0};
            Pack<T> q;
            q.set(w);
            *reinterpret_cast<u64*>(p + i) = u64(q.b.w[1]) << 32 | q.b.w[0];
        }
        return;
    }
    for (int k = 0; k < 4; k++) {
        if (i + k < n) p[i + k] = fromFloat<T>(v[k]);
    }
}

// --- sum of squares ---

// One launch takes up to this many tensors.
constexpr int sumTensors = 128;
// A block adds up this many elements, whatever the GPU: the order of the sum is fixed.
constexpr u32 sumChunk = 1 << 15;

struct SumSquaresArgs {
    const void* x[sumTensors];
    u64 stride[sumTensors]; // of rows
    double* partials;       // [chunks of all tensors]
    u32 cols[sumTensors];
    u32 first[sumTensors + 1]; // first chunk of each tensor, and their number
    u32 rowChunks[sumTensors]; // chunks of a row
    int tensors;
};

// entryOf is the tensor of a chunk: the last i with first[i] <= chunk.
DEVICE int entryOf(const u32* first, int tensors, u32 chunk) {
    int low = 0, high = tensors;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (first[middle] <= chunk) low = middle; else high = middle;
    }
    return low;
}

// x [rows, cols]: a chunk is up to sumChunk elements of one row (dense tensors are one
// row). Grid: one block a chunk. Floor: x in once.
template <class T> DEVICE void sumSquares(const SumSquaresArgs& a) {
    SHARED double scratch[33];
    int e = entryOf(a.first, a.tensors, blockIdx.x);
    u32 chunk = blockIdx.x - a.first[e];
    u32 row = chunk / a.rowChunks[e], from = chunk % a.rowChunks[e] * sumChunk;
    u32 n = min(sumChunk, a.cols[e] - from);
    const T* x = static_cast<const T*>(a.x[e]) + row * a.stride[e] + from;
    constexpr u32 size = Pack<T>::size;
    double sum = 0;
    u32 tid = threadIdx.x, width = blockDim.x, done = 0;
    if (reinterpret_cast<u64>(x) % 16 == 0) {
        u32 packs = n / size;
        done = packs * size;
        double more[4] = {};
        for (u32 base = tid; base < packs; base += 4 * width) {
            Pack<T> p[4];
#pragma unroll
            for (int u = 0; u < 4; u++) {
                u32 i = base + u * width;
                p[u].b = {};
                if (i < packs) p[u].b = load16Streaming(x + u64(i) * size);
            }
#pragma unroll
            for (int u = 0; u < 4; u++) {
#pragma unroll
                for (u32 k = 0; k < size; k++) {
                    double v = p[u].of(k);
                    more[u] = fma(v, v, more[u]);
                }
            }
        }
        sum = (more[0] + more[1]) + (more[2] + more[3]);
    }
    for (u32 i = done + tid; i < n; i += width) {
        double v = toFloat(x[i]);
        sum = fma(v, v, sum);
    }
    sum = blockSum(sum, scratch);
    if (tid == 0) a.partials[blockIdx.x] = sum;
}
KERNEL(sum_squares_f32, 256, SumSquaresArgs, sumSquares<float>)
KERNEL(sum_squares_bf16, 256, SumSquaresArgs, sumSquares<bf16>)
KERNEL(sum_squares_f16, 256, SumSquaresArgs, sumSquares<f16>)

struct AddPartialsArgs {
    double* out; // [1], added to
    const double* partials;
    u64 n;
};
// One block, in a fixed order.
DEVICE void addPartials(const AddPartialsArgs& a) {
    SHARED double scratch[33];
    double sum = 0;
    for (u64 i = threadIdx.x; i < a.n; i += blockDim.x) sum += a.partials[i];
    sum = blockSum(sum, scratch);
    if (threadIdx.x == 0) a.out[0] += sum;
}
KERNEL(add_partials, 1024, AddPartialsArgs, addPartials)

// --- the step block (tensor.StepSize numbers) ---

enum { StepLR, StepBias1, StepBias2, StepSumSquares, StepGradNorm, StepClip, StepSkip, StepSkipped, StepOffset, StepUpdates };

struct ClipFactorArgs {
    double* step;
    const double* check; // [rows, cols] or null
    u64 stride;
    double maxNorm;
    double beta1, beta2; // both 0: biases and updates stay as they are
    int rows, cols;
};

DEVICE bool isFinite(double x) { return x - x == 0; }

// One thread.
DEVICE void clipFactor(const ClipFactorArgs& a) {
    if (threadIdx.x != 0) return;
    double norm = sqrt(a.step[StepSumSquares]), clip = 1;
    if (a.maxNorm > 0) clip = fmin(1.0, a.maxNorm / (norm + 1e-6));
    bool finite = isFinite(norm);
    for (int i = 0; a.check && i < a.rows; i++) {
        for (int j = 0; j < a.cols; j++) finite = finite && isFinite(a.check[i * a.stride + j]);
    }
    a.step[StepGradNorm] = norm;
    a.step[StepClip] = clip;
    bool counts = a.beta1 != 0 || a.beta2 != 0;
    if (counts) {
        double n = a.step[StepUpdates] + 1;
        a.step[StepBias1] = 1 - pow(a.beta1, n);
        a.step[StepBias2] = 1 - pow(a.beta2, n);
    }
    a.step[StepSkip] = finite ? 0 : 1;
    if (!finite) a.step[StepSkipped] += 1;
    else if (counts) a.step[StepUpdates] += 1;
}
KERNEL(clip_factor, 32, ClipFactorArgs, clipFactor)

// --- AdamW ---

constexpr int adamTensors = 48;
// Elements of a block.
constexpr u32 adamChunk = 1 << 12;

struct AdamWArgs {
    void* param[adamTensors];
    float* master[adamTensors]; // or null
    const void* grad[adamTensors];
    void* m[adamTensors];
    void* v[adamTensors];
    u64 n[adamTensors];
    u64 counter[adamTensors]; // of the first element's random number
    const double* step;
    u64 seed;
    double beta1, beta2, eps;
    float decay[adamTensors];
    u32 first[adamTensors + 1]; // first block of each tensor, and the number of blocks
    int tensors;
    int stochastic;
};

// roundAt rounds to a 16-bit float up where the random bits, from 0 to 0xffff, say so;
// the result is the rounded value.
DEVICE float roundAt(float x, u32 random, float) { return x; }
DEVICE float roundAt(float x, u32 random, bf16) {
    u32 b = floatBits(x);
    if ((b & 0x7f800000u) == 0x7f800000u) return x;
    return bitsFloat((b + random) & 0xffff0000u);
}
DEVICE float roundAt(float x, u32 random, f16) {
    u32 b = floatBits(x), magnitude = b & 0x7fffffffu;
    if (magnitude < 0x38800000u || magnitude >= 0x477fe000u) return x; // subnormal, or at the end of the range: to nearest
    return bitsFloat((b + (random >> 3)) & 0xffffe000u);
}

// Param P, gradient G, moments M; with master the master weights are read and the
// parameters only written. A thread takes quads, so that accesses of 16-bit and of
// 32-bit elements are each adjacent across a warp.
// Floor: P 2 written, master 4+4, G 2, moments 8+8 bytes: 28 a parameter; 14 where all are BF16 without master.
//
// The random bits of element i are word c%4 of philox(c/4, step) with c = counter + i:
// 16 bits of it for the parameter, 8 each for M and V, whose updates are not so small.
template <class P, class G, class M, bool master> DEVICE void adamW(const AdamWArgs& a) {
    SHARED float shared[8];
    if (a.step[StepSkip] != 0) return;
    int e = entryOf(a.first, a.tensors, blockIdx.x);
    if (threadIdx.x == 0) {
        double lr = a.step[StepLR];
        shared[0] = float(a.step[StepClip]);
        shared[1] = float(lr * a.decay[e]);
        shared[2] = float(lr / a.step[StepBias1]);
        shared[3] = float(1 / a.step[StepBias2]);
        shared[4] = float(a.beta1);
        shared[5] = float(1 - a.beta1);
        shared[6] = float(a.beta2);
        shared[7] = float(1 - a.beta2);
    }
    barrier();
    float clip = shared[0], decay = shared[1], rate = shared[2], inverse2 = shared[3];
    float beta1 = shared[4], new1 = shared[5], beta2 = shared[6], new2 = shared[7], eps = float(a.eps);
    P* param = static_cast<P*>(a.param[e]);
    float* weights = a.master[e];
    const G* grad = static_cast<const G*>(a.grad[e]);
    M *ms = static_cast<M*>(a.m[e]), *vs = static_cast<M*>(a.v[e]);
    u64 n = a.n[e], from = u64(blockIdx.x - a.first[e]) * adamChunk, to = min(n, from + adamChunk);
    bool aligned = (reinterpret_cast<u64>(param) | reinterpret_cast<u64>(weights) | reinterpret_cast<u64>(grad) | reinterpret_cast<u64>(ms) |
                    reinterpret_cast<u64>(vs)) % 16 == 0;
    u64 offset = a.stochastic ? u64(a.step[StepOffset]) : 0;
#pragma unroll 2
    for (u64 i = from + 4 * threadIdx.x; i < to; i += 4 * blockDim.x) {
        bool whole = aligned && i + 4 <= n;
        float p[4], g[4], m[4], v[4];
        if constexpr (master) loadQuad(p, weights, i, n, whole);
        else loadQuad(p, param, i, n, whole);
        loadQuad(g, grad, i, n, whole);
        loadQuad(m, ms, i, n, whole);
        loadQuad(v, vs, i, n, whole);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float x = g[k] * clip;
            p[k] = fmaf(-decay, p[k], p[k]);
            m[k] = fmaf(beta1, m[k], new1 * x);
            v[k] = fmaf(beta2, v[k], new2 * x * x);
            p[k] -= rate * m[k] / (sqrtf(v[k] * inverse2) + eps);
        }
        if constexpr (master) storeQuad(weights, p, i, n, whole);
        if constexpr (sizeof(P) == 2 || sizeof(M) == 2) {
            if (a.stochastic) {
                u64 c = a.counter[e] + i;
                Random4 r = philox(c / 4, offset, a.seed), next = r;
                if (c % 4 != 0) next = philox(c / 4 + 1, offset, a.seed);
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    u32 w = r.w[k];
                    if (c % 4 != 0) { // the element's word, of two draws
                        u32 at = u32(c % 4) + k;
                        w = at < 4 ? (at == 1 ? r.w[1] : at == 2 ? r.w[2] : r.w[3]) : (at == 4 ? next.w[0] : at == 5 ? next.w[1] : next.w[2]);
                    }
                    p[k] = roundAt(p[k], w >> 16, P{});
                    m[k] = roundAt(m[k], (w & 0xff00u) | 0x80u, M{});
                    v[k] = roundAt(v[k], (w & 0xffu) << 8 | 0x80u, M{});
                }
            }
        }
        storeQuad(param, p, i, n, whole);
        storeQuad(ms, m, i, n, whole);
        storeQuad(vs, v, i, n, whole);
    }
}

// param_gradient_moments
KERNEL(adamw_f32_f32_f32, 256, AdamWArgs, adamW<float, float, float, false>)
KERNEL(adamw_master_f32_f32_f32, 256, AdamWArgs, adamW<float, float, float, true>)
#define ADAMW(t, T)                                                                      \
    KERNEL(adamw_##t##_##t##_##t, 256, AdamWArgs, adamW<T, T, T, false>)                 \
    KERNEL(adamw_##t##_##t##_f32, 256, AdamWArgs, adamW<T, T, float, false>)             \
    KERNEL(adamw_##t##_f32_##t, 256, AdamWArgs, adamW<T, float, T, false>)               \
    KERNEL(adamw_##t##_f32_f32, 256, AdamWArgs, adamW<T, float, float, false>)           \
    KERNEL(adamw_master_##t##_##t##_##t, 256, AdamWArgs, adamW<T, T, T, true>)           \
    KERNEL(adamw_master_##t##_##t##_f32, 256, AdamWArgs, adamW<T, T, float, true>)       \
    KERNEL(adamw_master_##t##_f32_##t, 256, AdamWArgs, adamW<T, float, T, true>)         \
    KERNEL(adamw_master_##t##_f32_f32, 256, AdamWArgs, adamW<T, float, float, true>)
ADAMW(bf16, bf16)
