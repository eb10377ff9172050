// Attention for generation, over a cache [slots, capacity, kvHeads·headDim] of keys and values.
//
// store writes the step's keys and values to their rows; attend then gives each token and
// key/value head a block of 128 threads, which reads that token's rows of the cache in chunks of 64
// and serves every query head of the group with them, so that the cache is read once. The softmax
// is made on the fly (Milakov & Gimelshein 2018). Floor: the bytes of the rows that are seen.
#include "common.cuh"

struct CachedAttentionArgs {
    const void* qkv;              // [T, (heads+2·kvHeads)·headDim]
    void *out, *k, *v;            // [T, heads·headDim], [slots·capacity, kvHeads·headDim] twice
    const int *slots, *positions; // [T]
    u64 qkvStride, outStride, kStride, vStride;
    int heads, kvHeads, headDim, tokens, capacity;
    int window, alibi, vector;  // vector: rows of k and headDim are multiples of 16 bytes
    float scale, softCap;
};

// Grid: T. Key and value of a token go to their row.
template <class T> DEVICE void store(const CachedAttentionArgs& a) {
    int t = blockIdx.x, width = a.kvHeads * a.headDim;
    u64 row = u64(a.slots[t]) * a.capacity + a.positions[t];
    const T* from = static_cast<const T*>(a.qkv) + t * a.qkvStride + a.heads * a.headDim;
    T *k = static_cast<T*>(a.k) + row * a.kStride, *v = static_cast<T*>(a.v) + row * a.vStride;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        k[i] = from[i];
        v[i] = from[width + i];
    }
}

static constexpr int chunk = 64;  // rows of the cache at a time

// The slope of a head's linear bias (tensor.ALiBiSlope).
DEVICE float slopeOf(int head, int heads) {
    int m = 1;
    while (2 * m <= heads) m *= 2;
    return exp2Fast(head < m ? -8.0f * (head + 1) / m : -4.0f * (2 * (head - m) + 1) / m);
}

// Grid: T, kvHeads; 128 threads. Shared, in floats: group·(2·headDim+chunk+3).
template <class T> DEVICE void attend(const CachedAttentionArgs& a) {
    int t = blockIdx.x, kvHead = blockIdx.y, group = a.heads / a.kvHeads, d = a.headDim, thread = threadIdx.x;
    float *q = dynamicShared<float>(), *o = q + group * d, *p = o + group * d;
    float *largest = p + group * chunk, *sum = largest + group, *factor = sum + group;
    const T* query = static_cast<const T*>(a.qkv) + t * a.qkvStride + kvHead * group * d;
    for (int i = thread; i < group * d; i += 128) {
        q[i] = toFloat(query[i]) * a.scale;
        o[i] = 0;
    }
    for (int h = thread; h < group; h += 128) {
        largest[h] = -infinity();
        sum[h] = 0;
    }
    barrier();
    int position = a.positions[t], first = a.window > 0 && position - a.window + 1 > 0 ? position - a.window + 1 : 0;
    u64 base = u64(a.slots[t]) * a.capacity;
    const T *k = static_cast<const T*>(a.k) + base * a.kStride + kvHead * d, *v = static_cast<const T*>(a.v) + base * a.vStride + kvHead * d;
    constexpr int size = Pack<T>::size;
    for (int from = first; from <= position; from += chunk) {
        int rows = position + 1 - from < chunk ? position + 1 - from : chunk;
        // Scores: 8 lanes take a row, 16 rows at a time.
        for (int r = thread / 8; r < chunk; r += 16) {
            const T* row = k + u64(from + (r < rows ? r : rows - 1)) * a.kStride;  // all lanes take part in the exchange
            for (int h = 0; h < group; h++) {
                const float* x = q + h * d;
                float s = 0;
                if (a.vector) {
                    for (int c = thread % 8 * size; c < d; c += 8 * size) {
                        Pack<T> y = loadPack(row + c);
                        for (int i = 0; i < size; i++) s = fmaf(x[c + i], y.of(i), s);
                    }
                } else {
                    for (int c = thread % 8; c < d; c += 8) s = fmaf(x[c], toFloat(row[c]), s);
                }
                for (int m = 4; m; m >>= 1) s += shuffleXor(s, m);
                if (a.softCap > 0) s = a.softCap * tanhf(s / a.softCap);
                if (a.alibi) s -= slopeOf(kvHead * group + h, a.heads) * (position - from - r);
                if (thread % 8 == 0) p[h * chunk + r] = r < rows ? s : -infinity();
            }
        }
        barrier();
        // Probabilities, up to a factor: a warp takes a head.
        for (int h = thread / 32; h < group; h += 4) {
            float *s = p + h * chunk + thread % 32, m = fmaxf(largest[h], warpMax(fmaxf(s[0], s[32])));
            s[0] = expf(s[0] - m);
            s[32] = expf(s[32] - m);
            float part = warpSum(s[0] + s[32]);
            if (thread % 32 == 0) {
                factor[h] = expf(largest[h] - m);
                sum[h] = sum[h] * factor[h] + part;
                largest[h] = m;
            }
            warpBarrier();
        }
        barrier();
        // Values: a thread takes a column of every head.
        for (int i = thread; i < group * d; i += 128) {
            int h = i / d;
            const T* column = v + u64(from) * a.vStride + i % d;
            float s = o[i] * factor[h];
            #pragma unroll 4
            for (int r = 0; r < rows; r++) s = fmaf(p[h * chunk + r], toFloat(column[r * a.vStride]), s);
            o[i] = s;
        }
        barrier();
    }
    T* to = static_cast<T*>(a.out) + t * a.outStride + kvHead * group * d;
    for (int i = thread; i < group * d; i += 128) to[i] = fromFloat<T>(o[i] / sum[i / d]);
}

KERNEL(store_f32, 256, CachedAttentionArgs, store<float>)
KERNEL(store_bf16, 256, CachedAttentionArgs, store<bf16>)
KERNEL(store_f16, 256, CachedAttentionArgs, store<f16>)
KERNEL(attend_f32, 128, CachedAttentionArgs, attend<float>)
KERNEL(attend_bf16, 128, CachedAttentionArgs, attend<bf16>)
KERNEL(attend_f16, 128, CachedAttentionArgs, attend<f16>)
