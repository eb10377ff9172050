// Attention in float32 arithmetic without tensor cores, for elements of any type
// and heads of any size: the F32 device's, and that of heads which attention.cu
// has no kernel for.
//
// A block of 256 threads takes a tile of 64 queries (or 64 keys, for dK and dV) of
// one sequence and head, and 64 columns of the result; scores are made by products of
// 64x64 tiles in shared memory, 4x4 elements a thread, as in a blocked matrix product.
// Heads of more than 64 columns make their scores once for every 64 columns of the result.
// Floor: 4·Σ len²/2·Heads·HeadDim FLOP forward and 14 instead of 4 backward, at the rate of
// FMA outside tensor cores (67 TFLOP/s on an H200).
#include "common.cuh"

struct AttentionArgs {
    const void *qkv, *dOut;   // [T, (heads+2·kvHeads)·headDim], [T, heads·headDim]
    void *out, *dqkv;         // as dOut and qkv
    float *lse, *delta;       // [heads, T]; delta = rowsum(dOut∘out), stride tokens
    const int* starts;        // [sequences+1]
    u64 qkvStride, dOutStride, outStride, dqkvStride, lseStride;
    int heads, kvHeads, headDim, tokens, sequences;
    int window, alibi, vector;  // window 0: none; vector: rows may be read 16 bytes at a time
    float scale, softCap;
};

static constexpr int side = 64;           // of a tile
static constexpr int pitch = side + 1;    // floats from a tile's row to the next: odd, so that columns fall into different banks
static constexpr int tileFloats = side * pitch;

// Work is tile `tile` of a sequence of `length` tokens from `start` on.
struct Work { int start, length, tile; };

// findWork finds the sequence and tile of work item `slot`. Sequence s has the items from
// starts[s]/size+s on: at least as many as it has tiles, so that the launch needs no more
// than tokens/size+sequences items, whatever the lengths are. False where an item is left over.
DEVICE bool findWork(const AttentionArgs& a, int slot, int size, Work& w) {
    int low = 0, high = a.sequences - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (a.starts[middle] / size + middle <= slot) low = middle; else high = middle - 1;
    }
    w.start = a.starts[low];
    w.length = a.starts[low + 1] - w.start;
    w.tile = slot - (w.start / size + low);
    return w.tile * size < w.length;
}

// Scoring makes a score of a product q·k.
struct Scoring { float scale, softCap, slope; };

DEVICE Scoring scoringOf(const AttentionArgs& a, int head) {
    Scoring s = {a.scale, a.softCap, 0};
    if (a.alibi) {  // tensor.ALiBiSlope
        int m = 1;
        while (2 * m <= a.heads) m *= 2;
        s.slope = exp2Fast(head < m ? -8.0f * (head + 1) / m : -4.0f * (2 * (head - m) + 1) / m);
    }
    return s;
}

// score is that of a key `back` tokens before the query, and its derivative by the product.
DEVICE float score(const Scoring& s, float product, int back, float& derivative) {
    float x = product * s.scale;
    derivative = s.scale;
    if (s.softCap > 0) {
        float t = tanhf(x / s.softCap);
        x = s.softCap * t;
        derivative *= 1 - t * t;
    }
    return x - s.slope * back;
}

DEVICE bool sees(const AttentionArgs& a, int query, int key) { return key <= query && (a.window == 0 || query - key < a.window); }

// stage copies a tile of floats to shared memory, zeros beyond its rows and columns.
template <class T> DEVICE void stage(float* tile, const T* from, u64 stride, int rows, int columns) {
    #pragma unroll 4
    for (int i = threadIdx.x; i < side * side; i += 256) {
        int r = i / side, c = i % side;
        tile[r * pitch + c] = r < rows && c < columns ? toFloat(from[r * stride + c]) : 0.0f;
    }
}

// A thread's elements of a tile are rows 4·(thread/16)+i and columns thread%16+16·j.
DEVICE int rowOf(int i) { return threadIdx.x / 16 * 4 + i; }
DEVICE int columnOf(int j) { return threadIdx.x % 16 + 16 * j; }

DEVICE void clearTile(float (&c)[4][4]) {
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) c[i][j] = 0;
}

// c += a·bᵀ
DEVICE void addProductTransposed(float (&c)[4][4], const float* a, const float* b) {
    #pragma unroll 4
    for (int k = 0; k < side; k++) {
        float x[4], y[4];
        for (int i = 0; i < 4; i++) x[i] = a[rowOf(i) * pitch + k];
        for (int j = 0; j < 4; j++) y[j] = b[columnOf(j) * pitch + k];
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) c[i][j] = fmaf(x[i], y[j], c[i][j]);
    }
}

// c += a·b
DEVICE void addProduct(float (&c)[4][4], const float* a, const float* b) {
    #pragma unroll 4
    for (int k = 0; k < side; k++) {
        float x[4], y[4];
        for (int i = 0; i < 4; i++) x[i] = a[rowOf(i) * pitch + k];
        for (int j = 0; j < 4; j++) y[j] = b[k * pitch + columnOf(j)];
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) c[i][j] = fmaf(x[i], y[j], c[i][j]);
    }
}

// c += aᵀ·b
DEVICE void addTransposedProduct(float (&c)[4][4], const float* a, const float* b) {
    #pragma unroll 4
    for (int k = 0; k < side; k++) {
        float x[4], y[4];
        for (int i = 0; i < 4; i++) x[i] = a[k * pitch + rowOf(i)];
        for (int j = 0; j < 4; j++) y[j] = b[k * pitch + columnOf(j)];
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) c[i][j] = fmaf(x[i], y[j], c[i][j]);
    }
}

// Rows of a sequence from token `at` on: of one head's columns.
template <class T> struct Rows {
    const T* from;
    u64 stride;
    int count;
    DEVICE void stageAt(float* tile, int column, int headDim) const {
        stage(tile, from + column, stride, count < side ? count : side, headDim - column < side ? headDim - column : side);
    }
};

template <class T> DEVICE Rows<T> rowsOf(const void* base, u64 stride, int head, int headDim, const Work& w, int at) {
    return {static_cast<const T*>(base) + u64(w.start + at) * stride + head * headDim, stride, w.length - at};
}

// products sets c to x·yᵀ over all columns of a head, staging both through shared memory.
template <class T> DEVICE void products(float (&c)[4][4], const Rows<T>& x, const Rows<T>& y, int headDim, float* first, float* second) {
    clearTile(c);
    for (int column = 0; column < headDim; column += side) {
        barrier();
        x.stageAt(first, column, headDim);
        y.stageAt(second, column, headDim);
        barrier();
        addProductTransposed(c, first, second);
    }
}

// write stores a tile of the result, as far as it has rows and columns.
template <class T> DEVICE void write(const float (&c)[4][4], T* to, u64 stride, int rows, int columns) {
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            if (rowOf(i) < rows && columnOf(j) < columns) to[rowOf(i) * stride + columnOf(j)] = fromFloat<T>(c[i][j]);
}

DEVICE int firstKey(const AttentionArgs& a, int query) { return a.window > 0 && query - a.window + 1 > 0 ? query - a.window + 1 : 0; }

// Grid: tokens/64+sequences, heads, headDim/64. Shared: three tiles and 64 floats.
template <class T> DEVICE void attention(const AttentionArgs& a) {
    Work w;
    if (!findWork(a, blockIdx.x, side, w)) return;
    float *x = dynamicShared<float>(), *y = x + tileFloats, *p = y + tileFloats, *factors = p + tileFloats;
    int head = blockIdx.y, kvHead = head / (a.heads / a.kvHeads), column = blockIdx.z * side, query = w.tile * side;
    int last = w.length < query + side ? w.length : query + side;
    Scoring scoring = scoringOf(a, head);
    Rows<T> q = rowsOf<T>(a.qkv, a.qkvStride, head, a.headDim, w, query);
    float o[4][4], s[4][4], largest = -infinity(), sum = 0;  // the last two of row thread/4
    clearTile(o);
    for (int key = firstKey(a, query) / side * side; key < last; key += side) {
        products(s, q, rowsOf<T>(a.qkv, a.qkvStride, a.heads + kvHead, a.headDim, w, key), a.headDim, x, y);
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) {
                int qi = query + rowOf(i), kj = key + columnOf(j);
                float derivative;
                p[rowOf(i) * pitch + columnOf(j)] = sees(a, qi, kj) ? score(scoring, s[i][j], qi - kj, derivative) : -infinity();
            }
        barrier();
        float* row = p + threadIdx.x / 4 * pitch;
        float m = largest;
        for (int j = threadIdx.x % 4; j < side; j += 4) m = fmaxf(m, row[j]);
        for (int k = 1; k < 4; k *= 2) m = fmaxf(m, shuffleXor(m, k));
        float base = m == -infinity() ? 0.0f : m, part = 0;  // a row may see no key of this tile and none before it
        for (int j = threadIdx.x % 4; j < side; j += 4) {
            row[j] = expf(row[j] - base);
            part += row[j];
        }
        for (int k = 1; k < 4; k *= 2) part += shuffleXor(part, k);
        float factor = expf(largest - base);
        sum = sum * factor + part;
        largest = m;
        if (threadIdx.x % 4 == 0) factors[threadIdx.x / 4] = factor;
        rowsOf<T>(a.qkv, a.qkvStride, a.heads + a.kvHeads + kvHead, a.headDim, w, key).stageAt(y, column, a.headDim);
        barrier();
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 4; j++) o[i][j] *= factors[rowOf(i)];
        addProduct(o, p, y);
    }
    barrier();
    if (threadIdx.x % 4 == 0) {
        int r = threadIdx.x / 4;
        factors[r] = 1 / sum;
        if (blockIdx.z == 0 && query + r < w.length) a.lse[head * a.lseStride + w.start + query + r] = largest + logf(sum);
    }
    barrier();
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) o[i][j] *= factors[rowOf(i)];
    write(o, static_cast<T*>(a.out) + u64(w.start + query) * a.outStride + head * a.headDim + column, a.outStride, w.length - query, a.headDim - column);
}

// delta [heads, T] = the row sums of dOut∘out of each head: a warp for each. Grid: heads·T/8.
template <class T> DEVICE void delta(const AttentionArgs& a) {
    u64 item = u64(blockIdx.x) * 8 + threadIdx.x / 32;
    int token = item / a.heads, head = item % a.heads, lane = threadIdx.x % 32;
    if (token >= a.tokens) return;
    const T* x = static_cast<const T*>(a.dOut) + token * a.dOutStride + head * a.headDim;
    const T* y = static_cast<const T*>(a.out) + token * a.outStride + head * a.headDim;
    float sum = 0;
    for (int c = lane; c < a.headDim; c += 32) sum = fmaf(toFloat(x[c]), toFloat(y[c]), sum);
    sum = warpSum(sum);
    if (lane == 0) a.delta[u64(head) * a.tokens + token] = sum;
}

// derivatives makes of one tile of products s = q·k and dp = dOut·v the probabilities p and the
// products' derivatives ds. Rows are queries, columns keys.
DEVICE void derivatives(const AttentionArgs& a, const Scoring& scoring, const Work& w, int head, int query, int key, const float (&s)[4][4],
                        const float (&dp)[4][4], float* p, float* ds) {
    for (int i = 0; i < 4; i++) {
        int qi = query + rowOf(i);
        float lse = 0, mean = 0;
        if (qi < w.length) {
            lse = a.lse[head * a.lseStride + w.start + qi];
            mean = a.delta[u64(head) * a.tokens + w.start + qi];
        }
        for (int j = 0; j < 4; j++) {
            int kj = key + columnOf(j);
            float probability = 0, derivative = 0;
            if (qi < w.length && sees(a, qi, kj)) probability = expf(score(scoring, s[i][j], qi - kj, derivative) - lse);
            if (p) p[rowOf(i) * pitch + columnOf(j)] = probability;
            ds[rowOf(i) * pitch + columnOf(j)] = probability * (dp[i][j] - mean) * derivative;
        }
    }
}

// Grid: tokens/64+sequences, kvHeads, headDim/64. Shared: four tiles. The heads that share a key are added up here.
template <class T> DEVICE void attentionBackwardKeys(const AttentionArgs& a) {
    Work w;
    if (!findWork(a, blockIdx.x, side, w)) return;
    float *x = dynamicShared<float>(), *y = x + tileFloats, *p = y + tileFloats, *ds = p + tileFloats;
    int kvHead = blockIdx.y, column = blockIdx.z * side, key = w.tile * side, group = a.heads / a.kvHeads;
    int last = w.length;
    if (a.window > 0 && key + side - 1 + a.window < last) last = key + side - 1 + a.window;
    Rows<T> k = rowsOf<T>(a.qkv, a.qkvStride, a.heads + kvHead, a.headDim, w, key);
    Rows<T> v = rowsOf<T>(a.qkv, a.qkvStride, a.heads + a.kvHeads + kvHead, a.headDim, w, key);
    float dk[4][4], dv[4][4], s[4][4], dp[4][4];
    clearTile(dk);
    clearTile(dv);
    for (int head = kvHead * group; head < (kvHead + 1) * group; head++) {
        Scoring scoring = scoringOf(a, head);
        for (int query = key; query < last; query += side) {
            Rows<T> q = rowsOf<T>(a.qkv, a.qkvStride, head, a.headDim, w, query), dOut = rowsOf<T>(a.dOut, a.dOutStride, head, a.headDim, w, query);
            products(s, q, k, a.headDim, x, y);
            products(dp, dOut, v, a.headDim, x, y);
            derivatives(a, scoring, w, head, query, key, s, dp, p, ds);
            barrier();
            dOut.stageAt(x, column, a.headDim);
            q.stageAt(y, column, a.headDim);
            barrier();
            addTransposedProduct(dv, p, x);
            addTransposedProduct(dk, ds, y);
        }
    }
    T* to = static_cast<T*>(a.dqkv) + u64(w.start + key) * a.dqkvStride + column;
    write(dk, to + (a.heads + kvHead) * a.headDim, a.dqkvStride, w.length - key, a.headDim - column);
    write(dv, to + (a.heads + a.kvHeads + kvHead) * a.headDim, a.dqkvStride, w.length - key, a.headDim - column);
}

// Grid: tokens/64+sequences, heads, headDim/64. Shared: three tiles.
template <class T> DEVICE void attentionBackwardQueries(const AttentionArgs& a) {
    Work w;
    if (!findWork(a, blockIdx.x, side, w)) return;
    float *x = dynamicShared<float>(), *y = x + tileFloats, *ds = y + tileFloats;
    int head = blockIdx.y, kvHead = head / (a.heads / a.kvHeads), column = blockIdx.z * side, query = w.tile * side;
    int last = w.length < query + side ? w.length : query + side;
    Scoring scoring = scoringOf(a, head);
    Rows<T> q = rowsOf<T>(a.qkv, a.qkvStride, head, a.headDim, w, query), dOut = rowsOf<T>(a.dOut, a.dOutStride, head, a.headDim, w, query);
    float dq[4][4], s[4][4], dp[4][4];
    clearTile(dq);
    for (int key = firstKey(a, query) / side * side; key < last; key += side) {
        Rows<T> k = rowsOf<T>(a.qkv, a.qkvStride, a.heads + kvHead, a.headDim, w, key);
        products(s, q, k, a.headDim, x, y);
        products(dp, dOut, rowsOf<T>(a.qkv, a.qkvStride, a.heads + a.kvHeads + kvHead, a.headDim, w, key), a.headDim, x, y);
        derivatives(a, scoring, w, head, query, key, s, dp, nullptr, ds);
        barrier();
        k.stageAt(y, column, a.headDim);
        barrier();
        addProduct(dq, ds, y);
    }
    write(dq, static_cast<T*>(a.dqkv) + u64(w.start + query) * a.dqkvStride + head * a.headDim + column, a.dqkvStride, w.length - query,
          a.headDim - column);
}

KERNEL(forward_f32, 256, AttentionArgs, attention<float>)
KERNEL(forward_bf16, 256, AttentionArgs, attention<bf16>)
KERNEL(forward_f16, 256, AttentionArgs, attention<f16>)
KERNEL(delta_f32, 256, AttentionArgs, delta<float>)
KERNEL(delta_bf16, 256, AttentionArgs, delta<bf16>)
KERNEL(delta_f16, 256, AttentionArgs, delta<f16>)
KERNEL(backward_keys_f32, 256, AttentionArgs, attentionBackwardKeys<float>)
KERNEL(backward_keys_bf16, 256, AttentionArgs, attentionBackwardKeys<bf16>)
KERNEL(backward_keys_f16, 256, AttentionArgs, attentionBackwardKeys<f16>)
KERNEL(backward_queries_f32, 256, AttentionArgs, attentionBackwardQueries<float>)
KERNEL(backward_queries_bf16, 256, AttentionArgs, attentionBackwardQueries<bf16>)
KERNEL(backward_queries_f16, 256, AttentionArgs, attentionBackwardQueries<f16>)
