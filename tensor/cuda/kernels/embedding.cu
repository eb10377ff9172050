// Embedding and its gradient (tensor/ops.go).
//
// The gradient sorts tokens by id, stably, and sums the runs of equal ids in the order of the
// tokens: no float atomics, and each row of dw that an id names is read and written once.
//
// Floors in bf16: forward 4·T·H bytes; backward 2·T·H + 4·H a distinct id (dw of float32: 8·H),
// and the sort, which is one block's work: by its instructions some 8 µs a pass of 16384 tokens, 2 passes up to 65536 ids.
#include "common.cuh"

struct EmbeddingArgs {
    void* y;        // [tokens, …]
    const void* w;  // [V, …]
    const int* ids; // [tokens]
    u64 ys, ws;     // elements from row to row
    u64 units;      // N elements each
    u32 tokens, logWidth;
};

// A block of 256 threads is 256/w tokens of w threads.
template <class T, int N> DEVICE void embedding(const EmbeddingArgs& a) {
    u32 width = 1u << a.logWidth;
    u64 first = u64(blockIdx.x) * width + (threadIdx.x & (width - 1));
    for (u64 t = u64(blockIdx.y) * (blockDim.x >> a.logWidth) + (threadIdx.x >> a.logWidth); t < a.tokens; t += u64(gridDim.y) * (blockDim.x >> a.logWidth))
        for (u64 c = first; c < a.units; c += u64(gridDim.x) * width) {
            float v[N];
            loadElements(static_cast<const T*>(a.w) + u64(a.ids[t]) * a.ws + c * N, v);
            storeElements(static_cast<T*>(a.y) + t * a.ys + c * N, v);
        }
}
KERNEL(embedding_f32, 256, EmbeddingArgs, embedding<float, 1>)
KERNEL(embedding_f32_x8, 256, EmbeddingArgs, embedding<float, 8>)
KERNEL(embedding_bf16, 256, EmbeddingArgs, embedding<bf16, 1>)
KERNEL(embedding_bf16_x8, 256, EmbeddingArgs, embedding<bf16, 8>)

struct SortArgs {
    const int* ids;
    u32 *keys[2], *order[2]; // [tokens] each; the result is in keys[passes % 2], order[passes % 2]
    u32 tokens, passes, bits, unused; // bits of a digit, 1 to 8
};

DEVICE u32 ones(u32 x) {
    x -= x >> 1 & 0x55555555u;
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    return ((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24;
}

// A radix sort in one block of 512 threads, lowest digit first. Each warp has a contiguous
// share of the keys and counts of its own, so that equal digits keep their order.
DEVICE void sortTokens(const SortArgs& a) {
    constexpr u32 warps = 16;
    SHARED u32 counts[warps][256];
    SHARED u32 totals[256];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, radix = 1u << a.bits;
    u32 share = ((a.tokens + warps - 1) / warps + 31) / 32 * 32;
    u32 from = warp * share, to = min(from + share, a.tokens);
    for (u32 pass = 0; pass < a.passes; pass++) {
        const u32 *keys = a.keys[pass % 2], *order = a.order[pass % 2];
        u32 *outKeys = a.keys[(pass + 1) % 2], *outOrder = a.order[(pass + 1) % 2];
        for (u32 d = lane; d < radix; d += 32) counts[warp][d] = 0;
        warpBarrier();
        // The first round counts, the second writes each key where the counts say.
        for (int round = 0; round < 2; round++) {
            for (u32 i = from; i < to; i += 32) {
                bool valid = i + lane < to;
                u32 key = 0, token = i + lane;
                if (valid) {
                    key = pass ? keys[i + lane] : u32(a.ids[i + lane]);
                    if (pass) token = order[i + lane];
                }
                u32 digit = key >> pass * a.bits & (radix - 1), same = ballot(valid);
                for (u32 b = 0; b < a.bits; b++) {
                    u32 set = ballot(digit >> b & 1);
                    same &= digit >> b & 1 ? set : ~set;
                }
                u32 before = ones(same & ((1u << lane) - 1));
                if (round && valid) {
                    u32 at = counts[warp][digit] + before;
                    outKeys[at] = key;
                    outOrder[at] = token;
                }
                warpBarrier();
                if (valid && before == 0) counts[warp][digit] += ones(same);
                warpBarrier();
            }
            if (round) break;
            // Counts become the places of the first key of each digit and warp.
            barrier();
            for (u32 d = threadIdx.x; d < radix; d += blockDim.x) {
                u32 sum = 0;
                for (u32 w = 0; w < warps; w++) {
                    u32 n = counts[w][d];
                    counts[w][d] = sum;
                    sum += n;
                }
                totals[d] = sum;
            }
            barrier();
            if (warp == 0) {
                u32 carry = 0;
                for (u32 d = 0; d < radix; d += 32) {
                    u32 n = d + lane < radix ? totals[d + lane] : 0, sum = n;
                    for (int by = 1; by < 32; by *= 2) {
                        u32 left = shuffleUp(sum, by);
                        if (lane >= u32(by)) sum += left;
                    }
                    if (d + lane < radix) totals[d + lane] = carry + sum - n;
                    carry += shuffleFrom(sum, 31);
                }
            }
            barrier();
            for (u32 d = lane; d < radix; d += 32) counts[warp][d] += totals[d];
            warpBarrier();
        }
        fence();
        barrier(); // what this pass wrote, other warps read in the next
    }
}
KERNEL(sort_tokens, 512, SortArgs, sortTokens)

struct EmbeddingBackwardArgs {
    void* dw;
    const void* dy;
    const u32 *keys, *order; // sorted
    float* partial;          // [pieces, 2, cols]: sums of runs cut at a piece's start and at its end
    u64 ws, ys;              // elements from row to row of dw, dy
    u64 cols;
    u32 tokens, unused;
};

// Tokens of a block: a piece of the sorted order.
constexpr u32 piece = 32;

// A warp sums a piece's runs of equal ids in 32·N columns. A run that lies in the piece is added to
// dw; of one that began before it or goes on after it the sum becomes a partial.
template <class G, class T, int N> DEVICE void embeddingBackward(const EmbeddingBackwardArgs& a) {
    u64 column = (u64(blockIdx.y) * (blockDim.x / 32) * 32 + threadIdx.x) * N;
    if (column >= a.cols) return;
    u32 from = blockIdx.x * piece, to = min(from + piece, a.tokens);
    const T* dy = static_cast<const T*>(a.dy) + column;
    G* dw = static_cast<G*>(a.dw) + column;
    float* partial = a.partial + u64(blockIdx.x) * 2 * a.cols + column;
    float sum[N];
    for (int i = 0; i < N; i++) sum[i] = 0;
    bool cut = from > 0 && a.keys[from - 1] == a.keys[from]; // the run began before this piece
    constexpr u32 R = 4;                                     // rows in flight
    for (u32 at = from; at < to; at += R) {
        float v[R][N], old[R][N];
        u32 key[R];
        bool ends[R], whole[R];
        for (u32 k = 0; k < R; k++) {
            ends[k] = whole[k] = false;
            if (at + k >= to) continue;
            key[k] = a.keys[at + k];
            ends[k] = at + k + 1 == to || a.keys[at + k + 1] != key[k];
            whole[k] = ends[k] && !(at + k + 1 == to && to < a.tokens && a.keys[to] == key[k]);
            loadElements(dy + u64(a.order[at + k]) * a.ys, v[k]);
            if (whole[k]) loadElements(dw + u64(key[k]) * a.ws, old[k]);
        }
        for (u32 k = 0; k < R; k++) {
            if (at + k >= to) break;
            for (int i = 0; i < N; i++) sum[i] += v[k][i];
            if (!ends[k]) continue;
            if (cut || !whole[k]) {
                float* p = partial + (cut ? 0 : a.cols);
                for (int i = 0; i < N; i++) p[i] = sum[i];
            } else {
                for (int i = 0; i < N; i++) old[k][i] += sum[i];
                storeElements(dw + u64(key[k]) * a.ws, old[k]);
            }
            cut = false;
            for (int i = 0; i < N; i++) sum[i] = 0;
        }
    }
}

// The runs that pieces cut: the block of the piece in which one begins adds up its partials, in order.
template <class G, int N> DEVICE void embeddingRuns(const EmbeddingBackwardArgs& a) {
    u32 from = blockIdx.x * piece, to = min(from + piece, a.tokens);
    if (to >= a.tokens || a.keys[to] != a.keys[to - 1]) return; // no run goes on
    u32 key = a.keys[to];
    if (a.keys[from] == key && from > 0 && a.keys[from - 1] == key) return; // it began before
    u64 column = (u64(blockIdx.y) * (blockDim.x / 32) * 32 + threadIdx.x) * N;
    if (column >= a.cols) return;
    float sum[N];
    const float* p = a.partial + (u64(blockIdx.x) * 2 + 1) * a.cols + column;
    for (int i = 0; i < N; i++) sum[i] = p[i];
    constexpr u32 R = 4; // partials in flight
    for (u32 at = to; at < a.tokens && a.keys[at] == key; at += R * piece) {
        float v[R][N];
        bool there[R];
        for (u32 k = 0; k < R; k++) {
            u64 first = at + u64(k) * piece;
            there[k] = first < a.tokens && a.keys[first] == key;
            p = a.partial + first / piece * 2 * a.cols + column;
            if (there[k])
                for (int i = 0; i < N; i++) v[k][i] = p[i];
        }
        for (u32 k = 0; k < R; k++)
            if (there[k])
                for (int i = 0; i < N; i++) sum[i] += v[k][i];
    }
    G* dw = static_cast<G*>(a.dw) + u64(key) * a.ws + column;
    float old[N];
    loadElements(dw, old);
    for (int i = 0; i < N; i++) old[i] += sum[i];
    storeElements(dw, old);
}
// Types: of dw, then of dy.
#define EMBEDDING_BACKWARD(name, G, T)                                                                      \
    KERNEL(embedding_backward_##name, 128, EmbeddingBackwardArgs, embeddingBackward<G, T, 1>)              \
    KERNEL(embedding_backward_##name##_x8, 128, EmbeddingBackwardArgs, embeddingBackward<G, T, 8>)
EMBEDDING_BACKWARD(f32_f32, float, float)
EMBEDDING_BACKWARD(f32_bf16, float, bf16)
EMBEDDING_BACKWARD(bf16_bf16, bf16, bf16)
KERNEL(embedding_runs_f32, 128, EmbeddingBackwardArgs, embeddingRuns<float, 1>)
KERNEL(embedding_runs_f32_x8, 128, EmbeddingBackwardArgs, embeddingRuns<float, 8>)
KERNEL(embedding_runs_bf16, 128, EmbeddingBackwardArgs, embeddingRuns<bf16, 1>)
KERNEL(embedding_runs_bf16_x8, 128, EmbeddingBackwardArgs, embeddingRuns<bf16, 8>)
