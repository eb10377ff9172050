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

// W adjacent elements from a multiple of W on, in accesses of at most 16 bytes.
template <int W, class T> DEVICE void loadRun(float (&v)[W], const T* p) {
    constexpr int size = Pack<T>::size;
    if constexpr (W < size) {
        u64 bits = *reinterpret_cast<const u64*>(p);
        Pack<T> q;
        q.b = {{u32(bits), u32(bits >> 32), 0, 0}};
#pragma unroll
        for (int k = 0; k < W; k++) v[k] = q.of(k);
    } else {
#pragma unroll
        for (int u = 0; u < W / size; u++) {
            Pack<T> q = loadPack(p + u * size);
#pragma unroll
            for (int k = 0; k < size; k++) v[u * size + k] = q.of(k);
        }
    }
}
template <int W, class T> DEVICE void storeRun(T* p, const float (&v)[W]) {
    constexpr int size = Pack<T>::size;
    float w[size] = {};
    Pack<T> q;
    if constexpr (W < size) {
#pragma unroll
        for (int k = 0; k < W; k++) w[k] = v[k];
        q.set(w);
        *reinterpret_cast<u64*>(p) = u64(q.b.w[1]) << 32 | q.b.w[0];
    } else {
#pragma unroll
        for (int u = 0; u < W / size; u++) {
#pragma unroll
            for (int k = 0; k < size; k++) w[k] = v[u * size + k];
            q.set(w);
            storePack(p + u * size, q);
        }
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
constexpr u32 adamChunk = 1 << 13;

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

// AdamStep is what all elements of a launch share.
struct AdamStep {
    float clip, decay, rate, inverse2, beta1, new1, beta2, new2, eps;
    // Approximate root and reciprocal: 2^-22 of an update that is itself rounded.
    DEVICE void operator()(float& p, float g, float& m, float& v) const {
        float x = g * clip;
        p = fmaf(-decay, p, p);
        m = fmaf(beta1, m, new1 * x);
        v = fmaf(beta2, v, new2 * x * x);
        p = fmaf(-rate * m, reciprocalFast(sqrtFast(v * inverse2) + eps), p);
    }
};

// Param P, gradient G, moments M; with master the master weights are read and the
// parameters only written.
// Floor: P 2 written, master 4+4, G 2, moments 8+8 bytes: 28 a parameter; 14 where all are BF16 without master.
//
// The random bits of element i are word c%4 of philox(c/4, step) with c = counter + i:
// 16 bits of it for the parameter, 8 each for M and V, whose updates are not so small.
template <class P, class G, class M, bool master> DEVICE void adamW(const AdamWArgs& a) {
    constexpr int W = sizeof(P) == 2 && sizeof(G) == 2 && sizeof(M) == 2 && !master ? 8 : 4;
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
    AdamStep step = {shared[0], shared[1], shared[2], shared[3], shared[4], shared[5], shared[6], shared[7], float(a.eps)};
    P* param = static_cast<P*>(a.param[e]);
    float* weights = a.master[e];
    const G* grad = static_cast<const G*>(a.grad[e]);
    M *ms = static_cast<M*>(a.m[e]), *vs = static_cast<M*>(a.v[e]);
    u64 n = a.n[e], counter = a.counter[e], from = u64(blockIdx.x - a.first[e]) * adamChunk, to = min(n, from + adamChunk);
    bool aligned = (reinterpret_cast<u64>(param) | reinterpret_cast<u64>(weights) | reinterpret_cast<u64>(grad) | reinterpret_cast<u64>(ms) |
                    reinterpret_cast<u64>(vs)) % 16 == 0 && (!a.stochastic || counter % 4 == 0);
    u64 offset = a.stochastic ? u64(a.step[StepOffset]) : 0;
    u64 runs = aligned ? from + (to - from) / W * W : from;
#pragma unroll 2
    for (u64 i = from + W * threadIdx.x; i < runs; i += W * blockDim.x) {
        float p[W], g[W], m[W], v[W];
        if constexpr (master) loadRun<W>(p, weights + i);
        else loadRun<W>(p, param + i);
        loadRun<W>(g, grad + i);
        loadRun<W>(m, ms + i);
        loadRun<W>(v, vs + i);
#pragma unroll
        for (int k = 0; k < W; k++) step(p[k], g[k], m[k], v[k]);
        if constexpr (master) storeRun<W>(weights + i, p);
        if constexpr (sizeof(P) == 2 || sizeof(M) == 2) {
            if (a.stochastic) {
#pragma unroll
                for (int u = 0; u < W; u += 4) {
                    Random4 r = philox((counter + i + u) / 4, offset, a.seed);
#pragma unroll
                    for (int k = 0; k < 4; k++) {
                        u32 w = r.w[k];
                        p[u + k] = roundAt(p[u + k], w >> 16, P{});
                        m[u + k] = roundAt(m[u + k], (w & 0xff00u) | 0x80u, M{});
                        v[u + k] = roundAt(v[u + k], (w & 0xffu) << 8 | 0x80u, M{});
                    }
                }
            }
        }
        storeRun<W>(param + i, p);
        storeRun<W>(ms + i, m);
        storeRun<W>(vs + i, v);
    }
    // What is left over, or all where a tensor isn't aligned.
    for (u64 i = runs + threadIdx.x; i < to; i += blockDim.x) {
        float p, g = toFloat(grad[i]), m = toFloat(ms[i]), v = toFloat(vs[i]);
        if constexpr (master) p = weights[i];
        else p = toFloat(param[i]);
        step(p, g, m, v);
        if constexpr (master) weights[i] = p;
        if constexpr (sizeof(P) == 2 || sizeof(M) == 2) {
            if (a.stochastic) {
                u64 c = counter + i;
                Random4 r = philox(c / 4, offset, a.seed);
                u32 w = c % 4 == 0 ? r.w[0] : c % 4 == 1 ? r.w[1] : c % 4 == 2 ? r.w[2] : r.w[3];
                p = roundAt(p, w >> 16, P{});
                m = roundAt(m, (w & 0xff00u) | 0x80u, M{});
                v = roundAt(v, (w & 0xffu) << 8 | 0x80u, M{});
            }
        }
        param[i] = fromFloat<P>(p);
        ms[i] = fromFloat<M>(m);
        vs[i] = fromFloat<M>(v);
    }
}

// param_gradient_moments
KERNEL(adamw_f32_f32_f32, 256, AdamWArgs, adamW<float, float, float, false>)
KERNEL(adamw_master_f32_f32_f32, 256, AdamWArgs, adamW<float, float, float, true>)
// Weights that are quantised to 8 bits from float32.
KERNEL(adamw_f32_bf16_bf16, 256, AdamWArgs, adamW<float, bf16, bf16, false>)
KERNEL(adamw_f32_bf16_f32, 256, AdamWArgs, adamW<float, bf16, float, false>)
KERNEL(adamw_f32_f32_bf16, 256, AdamWArgs, adamW<float, float, bf16, false>)
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
