// Attention on tensor cores in the form of FlashAttention-2 (Dao 2023): scores live in
// registers only, tile by tile.
//
// A warp owns 16 or 32 rows of a block's tile and makes whole rows of scores by
// mma.m16n8k16, so that probabilities go from accumulators straight into the next product's
// left operand and warps meet only where tiles are loaded. Tiles come by cp.async; rows in shared
// memory stand 16 bytes further apart than they are long, an odd number of 16-byte pieces, so that
// the eight rows of an ldmatrix fall into different banks.
//
// The backward pass for most heads is two kernels: one takes a tile of keys and runs over the queries that see it
// (dK, dV: four products), one takes a tile of queries (dQ: three). Seven products instead
// of the five of a pass that adds to dQ from every tile of keys, but no sum depends on the order
// of blocks, dQ needs neither a float32 buffer nor its clearing and conversion, and neither
// kernel moves probabilities through shared memory. For heads of 64 and of 256 columns a pass of five products
// that adds to dQ in a fixed order is the faster one (backwardFused).
//
// Each kernel is there plain (causal, any window) and general (soft cap, linear bias, heads
// filled up to the kernel's size, rows at any address).
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

static constexpr float log2e = 1.4426950408889634f, ln2 = 0.6931471805599453f;

// Work is tile `tile` of a sequence of `length` tokens from `start` on.
struct Work { int start, length, tile, sequence; };

// findWork finds the sequence and tile of work item `slot`. Sequence s has the items from
// starts[s]/size+s on: at least as many as it has tiles, so that the launch needs no more
// than tokens/size+sequences items, whatever the lengths are. False where an item is left over.
// A warp looks at 32 sequences at once.
DEVICE bool findWork(const AttentionArgs& a, int slot, int size, bool lastFirst, Work& w) {
    int low = 0, count = a.sequences, lane = threadIdx.x % 32;
    while (count > 1) {
        int step = (count + 31) / 32, s = low + lane * step;
        u64 not_after = ballot(lane * step < count && a.starts[s] / size + s <= slot);  // the first ones
        int n = int(floatBits(float(not_after + 1)) >> 23) - 127;
        low += (n - 1) * step;
        count -= (n - 1) * step;
        if (count > step) count = step;
    }
    w.sequence = low;
    w.start = a.starts[low];
    w.length = a.starts[low + 1] - w.start;
    int tiles = (w.length + size - 1) / size;
    w.tile = slot - (w.start / size + low);
    if (w.tile >= tiles) return false;
    if (lastFirst) w.tile = tiles - 1 - w.tile;
    return true;
}

// Scoring makes a score, in units of ln 2, of a product q·k.
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

// score is that of a key `back` tokens before the query; derivative is its derivative by scale·product.
DEVICE float score(const Scoring& s, float product, int back, float& derivative) {
    float x = product * s.scale;
    derivative = 1;
    if (s.softCap > 0) {
        float t = 1 - 2 * reciprocalFast(exp2Fast(x / s.softCap * (2 * log2e)) + 1);  // tanh
        x = s.softCap * t;
        derivative = 1 - t * t;
    }
    return (x - s.slope * back) * log2e;
}

DEVICE bool sees(int window, int query, int key) { return key <= query && (window == 0 || query - key < window); }
DEVICE int least(int a, int b) { return a < b ? a : b; }

template <class T> struct Packed;
template <> struct Packed<bf16> { static DEVICE u32 of(float lo, float hi) { return packBF16(lo, hi); } };
template <> struct Packed<f16> { static DEVICE u32 of(float lo, float hi) { return packF16(lo, hi); } };

template <int D> struct Tile { static constexpr int pitch = D + 8; };

// load starts the copy of `rows` rows of a head to shared memory, of a tile of ROWS; what is missing
// becomes zeros.
template <class T, int D, int ROWS, int THREADS, bool GENERAL>
DEVICE void load(const AttentionArgs& a, T* tile, const T* from, u64 stride, int rows) {
    constexpr int pieces = D / 8, pitch = Tile<D>::pitch;
    if (!GENERAL || a.vector) {
        if constexpr (THREADS % pieces == 0) {
            constexpr int step = THREADS / pieces;
            int r = threadIdx.x / pieces, c = threadIdx.x % pieces * 8;
            tile += r * pitch + c;
            from += r * stride + c;
            #pragma unroll
            for (int i = 0; i < ROWS / step; i++, from += step * stride)
                cpAsync16(tile + i * step * pitch, from, r < rows - i * step && (!GENERAL || c < a.headDim));
        } else {
            #pragma unroll
            for (int i = 0; i < (ROWS * pieces + THREADS - 1) / THREADS; i++) {
                int n = i * THREADS + threadIdx.x, r = n / pieces, c = n % pieces * 8;
                if (ROWS * pieces % THREADS == 0 || n < ROWS * pieces)
                    cpAsync16(tile + r * pitch + c, from + r * stride + c, r < rows && (!GENERAL || c < a.headDim));
            }
        }
    } else {
        #pragma unroll 1
        for (int n = threadIdx.x; n < ROWS * D; n += THREADS) {
            int r = n / D, c = n % D;
            T x = {0};
            if (r < rows && c < a.headDim) x = from[r * stride + c];
            tile[r * pitch + c] = x;
        }
    }
}

// c [16·MT, N] += x·yᵀ of this warp's rows x [16·MT, D] and rows y [N, D]. Pieces of y are loaded
// one ahead of the products that take them.
template <class T, int D, int MT, int N> DEVICE void addProductTransposed(float (&c)[MT][N / 8][4], const T* x, const T* y) {
    constexpr int pitch = Tile<D>::pitch;
    int lane = threadIdx.x % 32;
    x += lane % 16 * pitch + lane / 16 * 8;
    y += (lane / 16 * 8 + lane % 8) * pitch + lane / 8 % 2 * 8;
    #pragma unroll
    for (int k = 0; k < D / 16; k++) {
        u32 xs[MT][4];
        #pragma unroll
        for (int m = 0; m < MT; m++) ldmatrix4(xs[m], x + m * 16 * pitch + k * 16);
        u32 ys[2][4];
        ldmatrix4(ys[0], y + k * 16);
        #pragma unroll
        for (int n = 0; n < N / 16; n++) {
            if (n + 1 < N / 16) ldmatrix4(ys[(n + 1) % 2], y + (n + 1) * 16 * pitch + k * 16);
            #pragma unroll
            for (int m = 0; m < MT; m++) {
                mma(c[m][2 * n], xs[m], ys[n % 2][0], ys[n % 2][1], T{});
                mma(c[m][2 * n + 1], xs[m], ys[n % 2][2], ys[n % 2][3], T{});
            }
        }
    }
}

// c [16·MT, D] += x·y of x [16·MT, K] in registers as left operands and rows y [K, D].
template <class T, int D, int MT, int K, int N = D> DEVICE void addProduct(float (&c)[MT][N / 8][4], const u32 (&x)[MT][K / 16][4], const T* y) {
    constexpr int pitch = Tile<D>::pitch;
    int lane = threadIdx.x % 32;
    y += lane % 16 * pitch + lane / 16 * 8;
    u32 ys[2][4];
    ldmatrix4Trans(ys[0], y);
    #pragma unroll
    for (int i = 0; i < K / 16 * (N / 16); i++) {
        int k = i / (N / 16), n = i % (N / 16), next = i + 1;
        if (next < K / 16 * (N / 16)) ldmatrix4Trans(ys[next % 2], y + next / (N / 16) * 16 * pitch + next % (N / 16) * 16);
        #pragma unroll
        for (int m = 0; m < MT; m++) {
            mma(c[m][2 * n], x[m][k], ys[i % 2][0], ys[i % 2][1], T{});
            mma(c[m][2 * n + 1], x[m][k], ys[i % 2][2], ys[i % 2][3], T{});
        }
    }
}

// A product's result becomes a left operand.
template <class T, int MT, int N> DEVICE void toOperand(u32 (&x)[MT][N / 16][4], const float (&c)[MT][N / 8][4]) {
    #pragma unroll
    for (int m = 0; m < MT; m++)
        #pragma unroll
        for (int n = 0; n < N / 8; n++) {
            x[m][n / 2][n % 2 * 2] = Packed<T>::of(c[m][n][0], c[m][n][1]);
            x[m][n / 2][n % 2 * 2 + 1] = Packed<T>::of(c[m][n][2], c[m][n][3]);
        }
}

template <int MT, int N> DEVICE void clear(float (&c)[MT][N][4]) {
    #pragma unroll
    for (int m = 0; m < MT; m++)
        #pragma unroll
        for (int n = 0; n < N; n++)
            #pragma unroll
            for (int e = 0; e < 4; e++) c[m][n][e] = 0;
}

// store writes this warp's rows of a result, factor times c, by way of shared memory that the
// warp alone has used.
template <class T, int D, int MT, bool GENERAL>
DEVICE void store(const AttentionArgs& a, const float (&c)[MT][D / 8][4], float factor, T* rows, T* to, u64 stride, int count) {
    constexpr int pitch = Tile<D>::pitch, pieces = D / 8;
    int lane = threadIdx.x % 32;
    warpBarrier();
    #pragma unroll
    for (int m = 0; m < MT; m++)
        #pragma unroll
        for (int n = 0; n < D / 8; n++) {
            T* at = rows + (m * 16 + lane / 4) * pitch + n * 8 + lane % 4 * 2;
            *reinterpret_cast<u32*>(at) = Packed<T>::of(c[m][n][0] * factor, c[m][n][1] * factor);
            *reinterpret_cast<u32*>(at + 8 * pitch) = Packed<T>::of(c[m][n][2] * factor, c[m][n][3] * factor);
        }
    warpBarrier();
    if (!GENERAL || a.vector) {
        #pragma unroll 4
        for (int n = lane; n < 16 * MT * pieces; n += 32) {
            int r = n / pieces, i = n % pieces * 8;
            if (r < count && (!GENERAL || i < a.headDim)) store16(to + r * stride + i, load16(rows + r * pitch + i));
        }
    } else {
        #pragma unroll 1
        for (int n = lane; n < 16 * MT * D; n += 32) {
            int r = n / D, i = n % D;
            if (r < count && i < a.headDim) to[r * stride + i] = rows[r * pitch + i];
        }
    }
}

// The rows of a head in a sequence: head counts queries', then keys', then values'.
template <class T> DEVICE const T* headOf(const AttentionArgs& a, const Work& w, int head, int at) {
    return static_cast<const T*>(a.qkv) + u64(w.start + at) * a.qkvStride + head * a.headDim;
}

// s becomes probabilities up to a row's factor, and what has been summed takes that factor.
template <int D, int MT, int BN>
DEVICE void softmax(float (&s)[MT][BN / 8][4], float (&o)[MT][D / 8][4], float (&largest)[MT][2], float (&sum)[MT][2], float unit) {
    #pragma unroll
    for (int m = 0; m < MT; m++)
        #pragma unroll
        for (int e = 0; e < 2; e++) {
            float top = largest[m][e];
            #pragma unroll
            for (int j = 0; j < BN / 8; j++) top = fmaxf(top, fmaxf(s[m][j][2 * e], s[m][j][2 * e + 1]));
            top = fmaxf(top, shuffleXor(top, 1));
            top = fmaxf(top, shuffleXor(top, 2));
            float base = top == -infinity() ? 0.0f : top * unit;  // a window's row may see no key yet
            float factor = exp2Fast(fmaf(largest[m][e], unit, -base));
            largest[m][e] = top;
            float part = sum[m][e] * factor;
            #pragma unroll
            for (int j = 0; j < D / 8; j++) {
                o[m][j][2 * e] *= factor;
                o[m][j][2 * e + 1] *= factor;
            }
            #pragma unroll
            for (int j = 0; j < BN / 8; j++)
                #pragma unroll
                for (int i = 2 * e; i < 2 * e + 2; i++) {
                    s[m][j][i] = exp2Fast(fmaf(s[m][j][i], unit, -base));
                    part += s[m][j][i];
                }
            sum[m][e] = part;
        }
}

// This warp's rows [16·MT, D] as left operands, and the product of these with rows y as addProductTransposed makes it.
template <class T, int D, int MT> DEVICE void loadOperand(u32 (&xs)[D / 16][MT][4], const T* x) {
    constexpr int pitch = Tile<D>::pitch;
    int lane = threadIdx.x % 32;
    x += lane % 16 * pitch + lane / 16 * 8;
    #pragma unroll
    for (int k = 0; k < D / 16; k++)
        #pragma unroll
        for (int m = 0; m < MT; m++) ldmatrix4(xs[k][m], x + m * 16 * pitch + k * 16);
}
template <class T, int D, int MT, int N> DEVICE void addProductTransposed(float (&c)[MT][N / 8][4], const u32 (&xs)[D / 16][MT][4], const T* y) {
    constexpr int pitch = Tile<D>::pitch;
    int lane = threadIdx.x % 32;
    y += (lane / 16 * 8 + lane % 8) * pitch + lane / 8 % 2 * 8;
    #pragma unroll
    for (int k = 0; k < D / 16; k++) {
        u32 ys[2][4];
        ldmatrix4(ys[0], y + k * 16);
        #pragma unroll
        for (int n = 0; n < N / 16; n++) {
            if (n + 1 < N / 16) ldmatrix4(ys[(n + 1) % 2], y + (n + 1) * 16 * pitch + k * 16);
            #pragma unroll
            for (int m = 0; m < MT; m++) {
                mma(c[m][2 * n], xs[k][m], ys[n % 2][0], ys[n % 2][1], T{});
                mma(c[m][2 * n + 1], xs[k][m], ys[n % 2][2], ys[n % 2][3], T{});
            }
        }
    }
}

// lse and out of this warp's rows, by way of shared memory that the warp alone uses.
template <class T, int D, int MT, bool GENERAL>
DEVICE void finish(const AttentionArgs& a, const Work& w, int head, int row, float (&o)[MT][D / 8][4], float (&largest)[MT][2],
                   float (&sum)[MT][2], float unit, T* rows) {
    int lane = threadIdx.x % 32;
    #pragma unroll
    for (int m = 0; m < MT; m++)
        #pragma unroll
        for (int e = 0; e < 2; e++) {
            float total = sum[m][e];
            total += shuffleXor(total, 1);
            total += shuffleXor(total, 2);
            int at = row + m * 16 + lane / 4 + 8 * e;
            if (lane % 4 == 0 && at < w.length) a.lse[head * a.lseStride + w.start + at] = largest[m][e] * unit * ln2 + logf(total);
            float factor = 1 / total;
            #pragma unroll
            for (int j = 0; j < D / 8; j++) {
                o[m][j][2 * e] *= factor;
                o[m][j][2 * e + 1] *= factor;
            }
        }
    T* to = static_cast<T*>(a.out) + u64(w.start + row) * a.outStride + head * a.headDim;
    store<T, D, MT, GENERAL>(a, o, 1, rows, to, a.outStride, w.length - row);
}

// out [T, heads·headDim] and lse [heads, T] from qkv. A block takes 16·MT·WARPS queries, in steps of BN keys from
// the diagonal down. Keys and values have one buffer each: the next values come while scores are
// made, the next keys while values are summed.
// Grid: tokens/(16·MT·WARPS)+sequences, heads. Shared: 16·MT·WARPS+2·BN rows.
template <class T, int D, int MT, int WARPS, int BN, bool GENERAL> DEVICE void forward(const AttentionArgs& a) {
    constexpr int BM = 16 * MT * WARPS, threads = 32 * WARPS, pitch = Tile<D>::pitch;
    Work w;
    if (!findWork(a, blockIdx.x, BM, true, w)) return;
    int head = blockIdx.y, kvHead = head / (a.heads / a.kvHeads), query = w.tile * BM;
    int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16 * MT, row = query + own;  // this warp's first row, in the tile and in the sequence
    T *qs = dynamicShared<T>(), *ks = qs + BM * pitch, *vs = ks + BN * pitch;
    const T *k = headOf<T>(a, w, a.heads + kvHead, 0), *v = headOf<T>(a, w, a.heads + a.kvHeads + kvHead, 0);
    int window = a.window, first = window > 0 && query >= window ? (query - window + 1) / BN : 0;
    int n = (least(query + BM, w.length) + BN - 1) / BN - 1;
    load<T, D, BM, threads, GENERAL>(a, qs, headOf<T>(a, w, head, query), a.qkvStride, w.length - query);
    load<T, D, BN, threads, GENERAL>(a, ks, k + u64(n * BN) * a.qkvStride, a.qkvStride, w.length - n * BN);
    cpAsyncCommit();
    Scoring scoring = {0, 0, 0};
    if (GENERAL) scoring = scoringOf(a, head);
    float unit = GENERAL ? 1.0f : a.scale * log2e;  // of what s holds, in units of ln 2
    float o[MT][D / 8][4], largest[MT][2], sum[MT][2];
    clear(o);
    #pragma unroll
    for (int m = 0; m < MT; m++)
        for (int e = 0; e < 2; e++) {
            largest[m][e] = -infinity();
            sum[m][e] = 0;
        }
    for (; n >= first; n--) {
        int key = n * BN;
        // Some row of the warp sees some key; the rows all see all.
        bool some = key < row + 16 * MT && (window == 0 || row - (key + BN - 1) < window);
        bool all = key + BN - 1 <= row && (window == 0 || row + 16 * MT - 1 - key < window);
        cpAsyncWait<0>();
        barrier();
        load<T, D, BN, threads, GENERAL>(a, vs, v + u64(key) * a.qkvStride, a.qkvStride, w.length - key);
        cpAsyncCommit();
        u32 p[MT][BN / 16][4];
        if (some) {
            float s[MT][BN / 8][4];
            clear(s);
            addProductTransposed<T, D, MT, BN>(s, qs + own * pitch, ks);
            if (GENERAL || !all) {
                #pragma unroll
                for (int m = 0; m < MT; m++)
                    #pragma unroll
                    for (int j = 0; j < BN / 8; j++)
                        #pragma unroll
                        for (int e = 0; e < 4; e++) {
                            int qi = row + m * 16 + lane / 4 + e / 2 * 8, kj = key + j * 8 + lane % 4 * 2 + e % 2;
                            float derivative;
                            if (GENERAL) s[m][j][e] = score(scoring, s[m][j][e], qi - kj, derivative);
                            if (!sees(window, qi, kj)) s[m][j][e] = -infinity();
                        }
            }
            softmax<D, MT, BN>(s, o, largest, sum, unit);
            toOperand<T, MT, BN>(p, s);
        }
        cpAsyncWait<0>();
        barrier();
        if (n > first) load<T, D, BN, threads, GENERAL>(a, ks, k + u64(key - BN) * a.qkvStride, a.qkvStride, w.length - (key - BN));
        cpAsyncCommit();
        if (some) addProduct<T, D, MT, BN>(o, p, vs);
    }
    finish<T, D, MT, GENERAL>(a, w, head, row, o, largest, sum, unit, qs + own * pitch);
}

// The same, plain, with the scores of the next keys made while those of these become probabilities: keys and values have
// two buffers each, and queries stay in registers.
// Grid as forward's. Shared: 16·MT·WARPS+4·BN rows.
template <class T, int D, int MT, int WARPS, int BN> DEVICE void forwardAhead(const AttentionArgs& a) {
    constexpr int BM = 16 * MT * WARPS, threads = 32 * WARPS, pitch = Tile<D>::pitch;
    Work w;
    if (!findWork(a, blockIdx.x, BM, true, w)) return;
    int head = blockIdx.y, kvHead = head / (a.heads / a.kvHeads), query = w.tile * BM;
    int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16 * MT, row = query + own;
    T *qs = dynamicShared<T>(), *ks = qs + BM * pitch, *vs = ks + 2 * BN * pitch;
    const T *k = headOf<T>(a, w, a.heads + kvHead, 0), *v = headOf<T>(a, w, a.heads + a.kvHeads + kvHead, 0);
    int window = a.window, first = window > 0 && query >= window ? (query - window + 1) / BN : 0;
    int n = (least(query + BM, w.length) + BN - 1) / BN - 1, buffer = 0;
    auto begin = [&](T* to, const T* from, int tile) {
        load<T, D, BN, threads, false>(a, to, from + u64(tile * BN) * a.qkvStride, a.qkvStride, w.length - tile * BN);
    };
    load<T, D, BM, threads, false>(a, qs, headOf<T>(a, w, head, query), a.qkvStride, w.length - query);
    begin(ks, k, n);
    cpAsyncCommit();
    begin(vs, v, n);
    if (n > first) begin(ks + BN * pitch, k, n - 1);
    cpAsyncCommit();
    float unit = a.scale * log2e;
    float o[MT][D / 8][4], s[MT][BN / 8][4], largest[MT][2], sum[MT][2];
    clear(o);
    clear(s);
    #pragma unroll
    for (int m = 0; m < MT; m++)
        for (int e = 0; e < 2; e++) {
            largest[m][e] = -infinity();
            sum[m][e] = 0;
        }
    cpAsyncWait<1>();
    barrier();
    u32 held[D / 16][MT][4];
    loadOperand<T, D, MT>(held, qs + own * pitch);
    auto scores = [&](float (&to)[MT][BN / 8][4], const T* from) {
        clear(to);
        addProductTransposed<T, D, MT, BN>(to, held, from);
    };
    auto mask = [&](int key) {
        bool all = key + BN - 1 <= row && (window == 0 || row + 16 * MT - 1 - key < window);
        if (all) return;
        #pragma unroll
        for (int m = 0; m < MT; m++)
            #pragma unroll
            for (int j = 0; j < BN / 8; j++)
                #pragma unroll
                for (int e = 0; e < 4; e++) {
                    int qi = row + m * 16 + lane / 4 + e / 2 * 8, kj = key + j * 8 + lane % 4 * 2 + e % 2;
                    if (!sees(window, qi, kj)) s[m][j][e] = -infinity();
                }
    };
    scores(s, ks);
    u32 p[MT][BN / 16][4];
    for (; n > first; n--, buffer ^= 1) {
        mask(n * BN);
        cpAsyncWait<0>();
        barrier();
        if (n > first + 1) begin(ks + buffer * BN * pitch, k, n - 2);
        begin(vs + (buffer ^ 1) * BN * pitch, v, n - 1);
        cpAsyncCommit();
        float next[MT][BN / 8][4];
        scores(next, ks + (buffer ^ 1) * BN * pitch);
        softmax<D, MT, BN>(s, o, largest, sum, unit);
        toOperand<T, MT, BN>(p, s);
        addProduct<T, D, MT, BN>(o, p, vs + buffer * BN * pitch);
        #pragma unroll
        for (int m = 0; m < MT; m++)
            #pragma unroll
            for (int j = 0; j < BN / 8; j++)
                #pragma unroll
                for (int e = 0; e < 4; e++) s[m][j][e] = next[m][j][e];
    }
    mask(n * BN);
    cpAsyncWait<0>();
    barrier();
    softmax<D, MT, BN>(s, o, largest, sum, unit);
    toOperand<T, MT, BN>(p, s);
    addProduct<T, D, MT, BN>(o, p, vs + buffer * BN * pitch);
    finish<T, D, MT, false>(a, w, head, row, o, largest, sum, unit, qs + own * pitch);
}

// delta [heads, T] = the row sums of dOut∘out of each head, 16 lanes for each. Grid: heads·T/16 of 256 threads.
template <class T> DEVICE void delta(const AttentionArgs& a) {
    u64 item = u64(blockIdx.x) * 16 + threadIdx.x / 16;
    bool some = item < u64(a.tokens) * a.heads;
    int token = some ? item / a.heads : 0, head = some ? item % a.heads : 0, lane = threadIdx.x % 16;
    const T* x = static_cast<const T*>(a.dOut) + token * a.dOutStride + head * a.headDim;
    const T* y = static_cast<const T*>(a.out) + token * a.outStride + head * a.headDim;
    float sum = 0;
    if (a.vector) {
        for (int c = lane * 8; c < a.headDim; c += 128) {
            Pack<T> p = loadPack(x + c), q = loadPack(y + c);
            #pragma unroll
            for (int i = 0; i < 8; i++) sum = fmaf(p.of(i), q.of(i), sum);
        }
    } else {
        for (int c = lane; c < a.headDim; c += 16) sum = fmaf(toFloat(x[c]), toFloat(y[c]), sum);
    }
    for (int m = 8; m; m >>= 1) sum += shuffleXor(sum, m);
    if (lane == 0 && some) a.delta[u64(head) * a.tokens + token] = sum;
}

// dQ. A block takes 16·MT·WARPS queries, in steps of BN keys from the diagonal down; keys and values
// have two buffers each.
// Grid: tokens/(16·MT·WARPS)+sequences, heads. Shared: 2·16·MT·WARPS+4·BN rows.
template <class T, int D, int MT, int WARPS, int BN, bool GENERAL> DEVICE void backwardQueries(const AttentionArgs& a) {
    constexpr int BM = 16 * MT * WARPS, threads = 32 * WARPS, pitch = Tile<D>::pitch;
    Work w;
    if (!findWork(a, blockIdx.x, BM, true, w)) return;
    int head = blockIdx.y, kvHead = head / (a.heads / a.kvHeads), query = w.tile * BM;
    int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16 * MT, row = query + own;
    T *qs = dynamicShared<T>(), *dos = qs + BM * pitch, *kvs = dos + BM * pitch;  // keys, values, keys, values
    const T *k = headOf<T>(a, w, a.heads + kvHead, 0), *v = headOf<T>(a, w, a.heads + a.kvHeads + kvHead, 0);
    const T* dOut = static_cast<const T*>(a.dOut) + u64(w.start + query) * a.dOutStride + head * a.headDim;
    int window = a.window, first = window > 0 && query >= window ? (query - window + 1) / BN : 0;
    int n = (least(query + BM, w.length) + BN - 1) / BN - 1, buffer = 0;
    load<T, D, BM, threads, GENERAL>(a, qs, headOf<T>(a, w, head, query), a.qkvStride, w.length - query);
    load<T, D, BM, threads, GENERAL>(a, dos, dOut, a.dOutStride, w.length - query);
    load<T, D, BN, threads, GENERAL>(a, kvs, k + u64(n * BN) * a.qkvStride, a.qkvStride, w.length - n * BN);
    load<T, D, BN, threads, GENERAL>(a, kvs + BN * pitch, v + u64(n * BN) * a.qkvStride, a.qkvStride, w.length - n * BN);
    cpAsyncCommit();
    Scoring scoring = {0, 0, 0};
    if (GENERAL) scoring = scoringOf(a, head);
    float unit = GENERAL ? 1.0f : a.scale * log2e;
    float dq[MT][D / 8][4], lse[MT][2], mean[MT][2];
    clear(dq);
    #pragma unroll
    for (int m = 0; m < MT; m++)
        for (int e = 0; e < 2; e++) {
            int at = row + m * 16 + lane / 4 + 8 * e;
            bool there = at < w.length;
            lse[m][e] = there ? a.lse[head * a.lseStride + w.start + at] * log2e : infinity();  // probabilities of 0
            mean[m][e] = there ? a.delta[u64(head) * a.tokens + w.start + at] : 0.0f;
        }
    for (; n >= first; n--, buffer ^= 1) {
        int key = n * BN;
        bool some = key < row + 16 * MT && (window == 0 || row - (key + BN - 1) < window);
        bool all = key + BN - 1 <= row && (window == 0 || row + 16 * MT - 1 - key < window);
        cpAsyncWait<0>();
        barrier();
        if (n > first) {
            T* to = kvs + (buffer ^ 1) * 2 * BN * pitch;
            load<T, D, BN, threads, GENERAL>(a, to, k + u64(key - BN) * a.qkvStride, a.qkvStride, w.length - (key - BN));
            load<T, D, BN, threads, GENERAL>(a, to + BN * pitch, v + u64(key - BN) * a.qkvStride, a.qkvStride, w.length - (key - BN));
        }
        cpAsyncCommit();
        if (!some) continue;
        const T *ks = kvs + buffer * 2 * BN * pitch, *vs = ks + BN * pitch;
        float s[MT][BN / 8][4], dp[MT][BN / 8][4];
        clear(s);
        clear(dp);
        addProductTransposed<T, D, MT, BN>(s, qs + own * pitch, ks);
        addProductTransposed<T, D, MT, BN>(dp, dos + own * pitch, vs);
        #pragma unroll
        for (int m = 0; m < MT; m++)
            #pragma unroll
            for (int j = 0; j < BN / 8; j++)
                #pragma unroll
                for (int e = 0; e < 4; e++) {
                    int qi = row + m * 16 + lane / 4 + e / 2 * 8, kj = key + j * 8 + lane % 4 * 2 + e % 2;
                    float x = s[m][j][e], derivative = 1;
                    if (GENERAL) x = score(scoring, x, qi - kj, derivative);
                    float p = exp2Fast(fmaf(x, unit, -lse[m][e / 2])) * derivative;
                    if (!all && !sees(window, qi, kj)) p = 0;
                    s[m][j][e] = p * (dp[m][j][e] - mean[m][e / 2]);
                }
        u32 ds[MT][BN / 16][4];
        toOperand<T, MT, BN>(ds, s);
        addProduct<T, D, MT, BN>(dq, ds, ks);
    }
    T* to = static_cast<T*>(a.dqkv) + u64(w.start + row) * a.dqkvStride + head * a.headDim;
    store<T, D, MT, GENERAL>(a, dq, a.scale, qs + own * pitch, to, a.dqkvStride, w.length - row);
}

// What backwardKeys keeps of a query.
struct Row { float lse, mean; };

// dK and dV. A block takes 16·MT·WARPS keys, and of each head of the group the queries that see them in steps of BQ, of which
// SUB at a time are in registers; queries and their dOut have two buffers each. Rows of the scores
// are keys here. Heads whose dK and dV do not both fit into registers have a block for each: DK and DV say
// which one this is.
// Grid: tokens/(16·MT·WARPS)+sequences, kvHeads. Shared: 2·16·MT·WARPS+4·BQ rows, 2·BQ Rows.
template <class T, int D, int MT, int WARPS, int BQ, int SUB, bool DK, bool DV, bool GENERAL> DEVICE void backwardKeys(const AttentionArgs& a) {
    constexpr int BK = 16 * MT * WARPS, threads = 32 * WARPS, pitch = Tile<D>::pitch;
    static_assert(BQ <= threads, "each thread loads a row's sums");
    Work w;
    if (!findWork(a, blockIdx.x, BK, false, w)) return;
    int kvHead = blockIdx.y, group = a.heads / a.kvHeads, key = w.tile * BK;
    int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16 * MT, row = key + own;
    T *ks = dynamicShared<T>(), *vs = ks + BK * pitch, *qdos = vs + BK * pitch;  // queries, dOut, queries, dOut
    Row* rows = reinterpret_cast<Row*>(qdos + 4 * BQ * pitch);
    int window = a.window, last = w.length;
    if (window > 0) last = least(last, key + BK - 1 + window);
    int head = kvHead * group, query = key, left = group * ((last - key + BQ - 1) / BQ), buffer = 0;
    auto begin = [&](int h, int q, int b) -> Row {
        T* to = qdos + b * 2 * BQ * pitch;
        load<T, D, BQ, threads, GENERAL>(a, to, headOf<T>(a, w, h, q), a.qkvStride, w.length - q);
        load<T, D, BQ, threads, GENERAL>(a, to + BQ * pitch, static_cast<const T*>(a.dOut) + u64(w.start + q) * a.dOutStride + h * a.headDim,
                                         a.dOutStride, w.length - q);
        int at = q + threadIdx.x;
        if (threadIdx.x >= BQ || at >= w.length) return {infinity(), 0};  // probabilities of 0
        return {a.lse[h * a.lseStride + w.start + at] * log2e, a.delta[u64(h) * a.tokens + w.start + at]};
    };
    load<T, D, BK, threads, GENERAL>(a, ks, headOf<T>(a, w, a.heads + kvHead, key), a.qkvStride, w.length - key);
    if (DK) load<T, D, BK, threads, GENERAL>(a, vs, headOf<T>(a, w, a.heads + a.kvHeads + kvHead, key), a.qkvStride, w.length - key);
    Row mine = begin(head, query, 0);
    if (threadIdx.x < BQ) rows[threadIdx.x] = mine;
    cpAsyncCommit();
    Scoring scoring = {0, 0, 0};
    if (GENERAL) scoring = scoringOf(a, head);
    float unit = GENERAL ? 1.0f : a.scale * log2e;
    float dk[MT][DK ? D / 8 : 1][4], dv[MT][DV ? D / 8 : 1][4];
    clear(dk);
    clear(dv);
    for (; left > 0; left--, buffer ^= 1) {
        cpAsyncWait<0>();
        barrier();
        int nextHead = head, nextQuery = query + BQ;
        if (nextQuery >= last) {
            nextHead++;
            nextQuery = key;
        }
        if (left > 1) mine = begin(nextHead, nextQuery, buffer ^ 1);
        cpAsyncCommit();
        const T *qs = qdos + buffer * 2 * BQ * pitch, *dos = qs + BQ * pitch;
        #pragma unroll 1
        for (int sub = 0; sub < BQ; sub += SUB) {
            int from = query + sub;
            bool some = from + SUB - 1 >= row && from < w.length && (window == 0 || from - (row + 16 * MT - 1) < window);
            bool all = from >= row + 16 * MT - 1 && (window == 0 || from + SUB - 1 - row < window);
            if (!some) continue;
            float s[MT][SUB / 8][4];
            u32 p[MT][SUB / 16][4];
            clear(s);
            addProductTransposed<T, D, MT, SUB>(s, ks + own * pitch, qs + sub * pitch);
            float derivatives[GENERAL ? MT : 1][GENERAL ? SUB / 8 : 1][4];
            #pragma unroll
            for (int j = 0; j < SUB / 8; j++) {
                const Row* r = rows + buffer * BQ + sub + j * 8 + lane % 4 * 2;
                float lse[2] = {r[0].lse, r[1].lse};
                #pragma unroll
                for (int m = 0; m < MT; m++)
                    #pragma unroll
                    for (int e = 0; e < 4; e++) {
                        int kj = row + m * 16 + lane / 4 + e / 2 * 8, qi = from + j * 8 + lane % 4 * 2 + e % 2;
                        float x = s[m][j][e];
                        if (GENERAL) x = score(scoring, x, qi - kj, derivatives[GENERAL ? m : 0][GENERAL ? j : 0][e]);
                        x = exp2Fast(fmaf(x, unit, -lse[e % 2]));
                        if (!all && !sees(window, qi, kj)) x = 0;
                        s[m][j][e] = x;
                    }
            }
            if constexpr (DV) {
                toOperand<T, MT, SUB>(p, s);
                addProduct<T, D, MT, SUB>(dv, p, dos + sub * pitch);
            }
            if constexpr (DK) {
                float dp[MT][SUB / 8][4];
                clear(dp);
                addProductTransposed<T, D, MT, SUB>(dp, vs + own * pitch, dos + sub * pitch);
                #pragma unroll
                for (int j = 0; j < SUB / 8; j++) {
                    const Row* r = rows + buffer * BQ + sub + j * 8 + lane % 4 * 2;
                    float mean[2] = {r[0].mean, r[1].mean};
                    #pragma unroll
                    for (int m = 0; m < MT; m++)
                        #pragma unroll
                        for (int e = 0; e < 4; e++) {
                            s[m][j][e] *= dp[m][j][e] - mean[e % 2];
                            if (GENERAL) s[m][j][e] *= derivatives[GENERAL ? m : 0][GENERAL ? j : 0][e];
                        }
                }
                toOperand<T, MT, SUB>(p, s);
                addProduct<T, D, MT, SUB>(dk, p, qs + sub * pitch);
            }
        }
        if (threadIdx.x < BQ) rows[(buffer ^ 1) * BQ + threadIdx.x] = mine;
        if (GENERAL && nextHead != head && left > 1) scoring = scoringOf(a, nextHead);
        head = nextHead;
        query = nextQuery;
    }
    T* to = static_cast<T*>(a.dqkv) + u64(w.start + row) * a.dqkvStride + (a.heads + kvHead) * a.headDim;
    if constexpr (DK) store<T, D, MT, GENERAL>(a, dk, a.scale, ks + own * pitch, to, a.dqkvStride, w.length - row);
    if constexpr (DV) store<T, D, MT, GENERAL>(a, dv, 1, DK ? vs + own * pitch : ks + own * pitch, to + a.kvHeads * a.headDim, a.dqkvStride, w.length - row);
}

// dK by the blocks of blockIdx.z = 0, dV by the others.
template <class T, int D, int MT, int WARPS, int BQ, int SUB, bool GENERAL> DEVICE void backwardKeysSplit(const AttentionArgs& a) {
    if (blockIdx.z == 0) backwardKeys<T, D, MT, WARPS, BQ, SUB, true, false, GENERAL>(a);
    else backwardKeys<T, D, MT, WARPS, BQ, SUB, false, true, GENERAL>(a);
}

// What backwardFused takes beside: sums of dQ in float32, and counters of the key tiles that have been added.
struct FusedArgs {
    AttentionArgs a;
    float* dq;   // [heads, tokens/BQ+sequences, BQ·D], each thread's fragments 16 bytes at a time
    u32* turns;  // the next work item, then [heads, tokens/BQ+sequences]
};

// delta, and zeros for the counters.
template <class T, int BQ> DEVICE void deltaFused(const FusedArgs& f) {
    delta<T>(f.a);
    u64 counters = u64(f.a.heads) * (f.a.tokens / BQ + f.a.sequences) + 1;
    for (u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x; i < counters; i += u64(gridDim.x) * blockDim.x) f.turns[i] = 0;
}

// dK, dV and dQ in five products. A block takes 16·MT·WARPS keys as backwardKeys does. dSᵀ also goes
// to shared memory, from where the warps, two (one for BQ = 32) by WARPS/2, make dQ's part of BQ queries of
// these keys. Parts are added in float32 and in order, from the keys on the diagonal back, and the last tile of keys that
// the queries see makes dQ of the sum: a block waits by a counter until the tile after its own has been added, so that
// though additions are atomic operations (which need not be waited for) no two of one element are ever under way together
// and the result does not depend on the order of blocks. Blocks take their work by a counter, the last tile of a sequence
// first, so that what a block waits for is always running or done; and as each tile begins at its diagonal, it follows
// the one that it waits for.
// Grid: (tokens/(16·MT·WARPS)+sequences)·kvHeads. Shared: 2·16·MT·WARPS+4·BQ rows, 2·BQ Rows, 16·MT·WARPS·(BQ+8) elements.
template <class T, int D, int MT, int WARPS, int BQ, int SUB> DEVICE void backwardFused(const FusedArgs& f) {
    constexpr int BK = 16 * MT * WARPS, threads = 32 * WARPS, pitch = Tile<D>::pitch, sPitch = BQ + 8;
    constexpr int WM = BQ / 32, WN = WARPS / WM, CN = D / WN;
    static_assert(BQ <= threads, "each thread loads a row's sums");
    static_assert(CN % 16 == 0 && BK % BQ == 0, "tiles of dQ");
    const AttentionArgs& a = f.a;
    SHARED u32 ticket;
    if (threadIdx.x == 0) ticket = atomicAddU32(f.turns, 1);
    barrier();
    int items = a.tokens / BK + a.sequences, kvHead = ticket / items;
    Work w;
    if (!findWork(a, ticket % items, BK, true, w)) return;
    int group = a.heads / a.kvHeads, key = w.tile * BK;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, own = warp * 16 * MT, row = key + own;
    int slots = a.tokens / BQ + a.sequences, slot0 = w.start / BQ + w.sequence;
    T *ks = dynamicShared<T>(), *vs = ks + BK * pitch, *qdos = vs + BK * pitch;  // queries, dOut, queries, dOut
    Row* rows = reinterpret_cast<Row*>(qdos + 4 * BQ * pitch);
    T* dss = reinterpret_cast<T*>(rows + 2 * BQ);
    int window = a.window, last = w.length;
    if (window > 0) last = least(last, key + BK - 1 + window);
    int head = kvHead * group, query = key, left = group * ((last - key + BQ - 1) / BQ), buffer = 0;
    auto begin = [&](int h, int q, int b) -> Row {
        T* to = qdos + b * 2 * BQ * pitch;
        load<T, D, BQ, threads, false>(a, to, headOf<T>(a, w, h, q), a.qkvStride, w.length - q);
        load<T, D, BQ, threads, false>(a, to + BQ * pitch, static_cast<const T*>(a.dOut) + u64(w.start + q) * a.dOutStride + h * a.headDim,
                                       a.dOutStride, w.length - q);
        int at = q + threadIdx.x;
        if (threadIdx.x >= BQ || at >= w.length) return {infinity(), 0};  // probabilities of 0
        return {a.lse[h * a.lseStride + w.start + at] * log2e, a.delta[u64(h) * a.tokens + w.start + at]};
    };
    load<T, D, BK, threads, false>(a, ks, headOf<T>(a, w, a.heads + kvHead, key), a.qkvStride, w.length - key);
    load<T, D, BK, threads, false>(a, vs, headOf<T>(a, w, a.heads + a.kvHeads + kvHead, key), a.qkvStride, w.length - key);
    Row mine = begin(head, query, 0);
    if (threadIdx.x < BQ) rows[threadIdx.x] = mine;
    cpAsyncCommit();
    float unit = a.scale * log2e;
    float dk[MT][D / 8][4], dv[MT][D / 8][4];
    clear(dk);
    clear(dv);
    u32* done = nullptr;  // the counter of the tile whose part has been added
    for (; left > 0; left--, buffer ^= 1) {
        cpAsyncWait<0>();
        barrier();
        int nextHead = head, nextQuery = query + BQ;
        if (nextQuery >= last) {
            nextHead++;
            nextQuery = key;
        }
        if (left > 1) mine = begin(nextHead, nextQuery, buffer ^ 1);
        cpAsyncCommit();
        const T *qs = qdos + buffer * 2 * BQ * pitch, *dos = qs + BQ * pitch;
        #pragma unroll 1
        for (int sub = 0; sub < BQ; sub += SUB) {
            int from = query + sub;
            bool some = from + SUB - 1 >= row && from < w.length && (window == 0 || from - (row + 16 * MT - 1) < window);
            bool all = from >= row + 16 * MT - 1 && (window == 0 || from + SUB - 1 - row < window);
            u32 p[MT][SUB / 16][4];
            if (some) {
                float s[MT][SUB / 8][4];
                clear(s);
                addProductTransposed<T, D, MT, SUB>(s, ks + own * pitch, qs + sub * pitch);
                #pragma unroll
                for (int j = 0; j < SUB / 8; j++) {
                    const Row* r = rows + buffer * BQ + sub + j * 8 + lane % 4 * 2;
                    float lse[2] = {r[0].lse, r[1].lse};
                    #pragma unroll
                    for (int m = 0; m < MT; m++)
                        #pragma unroll
                        for (int e = 0; e < 4; e++) {
                            int kj = row + m * 16 + lane / 4 + e / 2 * 8, qi = from + j * 8 + lane % 4 * 2 + e % 2;
                            float x = exp2Fast(fmaf(s[m][j][e], unit, -lse[e % 2]));
                            if (!all && !sees(window, qi, kj)) x = 0;
                            s[m][j][e] = x;
                        }
                }
                toOperand<T, MT, SUB>(p, s);
                addProduct<T, D, MT, SUB>(dv, p, dos + sub * pitch);
                float dp[MT][SUB / 8][4];
                clear(dp);
                addProductTransposed<T, D, MT, SUB>(dp, vs + own * pitch, dos + sub * pitch);
                #pragma unroll
                for (int j = 0; j < SUB / 8; j++) {
                    const Row* r = rows + buffer * BQ + sub + j * 8 + lane % 4 * 2;
                    float mean[2] = {r[0].mean, r[1].mean};
                    #pragma unroll
                    for (int m = 0; m < MT; m++)
                        #pragma unroll
                        for (int e = 0; e < 4; e++) s[m][j][e] *= dp[m][j][e] - mean[e % 2];
                }
                toOperand<T, MT, SUB>(p, s);
            } else {
                #pragma unroll
                for (int m = 0; m < MT; m++)
                    #pragma unroll
                    for (int n = 0; n < SUB / 16; n++)
                        #pragma unroll
                        for (int e = 0; e < 4; e++) p[m][n][e] = 0;
            }
            #pragma unroll
            for (int m = 0; m < MT; m++)
                #pragma unroll
                for (int n = 0; n < SUB / 8; n++)
                    #pragma unroll
                    for (int e = 0; e < 2; e++)
                        *reinterpret_cast<u32*>(dss + (own + m * 16 + lane / 4 + 8 * e) * sPitch + sub + n * 8 + lane % 4 * 2) =
                            p[m][n / 2][n % 2 * 2 + e];
            if (some) addProduct<T, D, MT, SUB>(dk, p, qs + sub * pitch);
        }
        u64 slot = u64(head) * slots + slot0 + query / BQ;
        int turn = query / BK - w.tile;  // how many parts come before this one
        if (threadIdx.x == 0) {
            if (done) {
                fence();
                atomicAddU32(done, 1);
            }
            done = f.turns + 1 + slot;
            if (turn > 0)
                while (loadAcquire(done) != u32(turn)) {}
        }
        barrier();
        {
            float* to = f.dq + slot * (BQ * D) + threadIdx.x * 4;
            bool final = w.tile == (window > 0 && query >= window ? (query - window + 1) / BK : 0);
            Pack<float> before[2][CN / 8];
            if (final && turn > 0) {
                #pragma unroll
                for (int m = 0; m < 2; m++)
                    #pragma unroll
                    for (int n = 0; n < CN / 8; n++) before[m][n] = loadPack(to + (m * (CN / 8) + n) * (threads * 4));
            } else {
                #pragma unroll
                for (int m = 0; m < 2; m++)
                    #pragma unroll
                    for (int n = 0; n < CN / 8; n++) before[m][n].b = Bytes16{{0, 0, 0, 0}};
            }
            float dq[2][CN / 8][4];
            clear(dq);
            const T* x = dss + (lane / 16 * 8 + lane % 8) * sPitch + lane / 8 % 2 * 8 + warp % WM * 32;
            const T* y = ks + lane % 16 * pitch + lane / 16 * 8 + warp / WM * CN;
            #pragma unroll
            for (int k = 0; k < BK / 16; k++) {
                u32 xs[2][4];
                #pragma unroll
                for (int m = 0; m < 2; m++) ldmatrix4Trans(xs[m], x + k * 16 * sPitch + m * 16);
                #pragma unroll
                for (int n = 0; n < CN / 16; n++) {
                    u32 ys[4];
                    ldmatrix4Trans(ys, y + k * 16 * pitch + n * 16);
                    #pragma unroll
                    for (int m = 0; m < 2; m++) {
                        mma(dq[m][2 * n], xs[m], ys[0], ys[1], T{});
                        mma(dq[m][2 * n + 1], xs[m], ys[2], ys[3], T{});
                    }
                }
            }
            if (final) {
                int at = query + warp % WM * 32 + lane / 4;
                T* out = static_cast<T*>(a.dqkv) + u64(w.start + at) * a.dqkvStride + head * a.headDim + warp / WM * CN + lane % 4 * 2;
                #pragma unroll
                for (int m = 0; m < 2; m++)
                    #pragma unroll
                    for (int e = 0; e < 2; e++)
                        if (at + m * 16 + 8 * e < w.length) {
                            #pragma unroll
                            for (int n = 0; n < CN / 8; n++)
                                *reinterpret_cast<u32*>(out + (m * 16 + 8 * e) * a.dqkvStride + n * 8) =
                                    Packed<T>::of((dq[m][n][2 * e] + before[m][n].of(2 * e)) * a.scale,
                                                  (dq[m][n][2 * e + 1] + before[m][n].of(2 * e + 1)) * a.scale);
                        }
            } else {
                #pragma unroll
                for (int m = 0; m < 2; m++)
                    #pragma unroll
                    for (int n = 0; n < CN / 8; n++) {
                        float* at = to + (m * (CN / 8) + n) * (threads * 4);
                        if (turn > 0) {
                            addInOrder(at, dq[m][n]);
                        } else {
                            Pack<float> pack;
                            pack.set(dq[m][n]);
                            storePack(at, pack);
                        }
                    }
            }
        }
        if (threadIdx.x < BQ) rows[(buffer ^ 1) * BQ + threadIdx.x] = mine;
        head = nextHead;
        query = nextQuery;
    }
    barrier();
    if (threadIdx.x == 0 && done) {
        fence();
        atomicAddU32(done, 1);
    }
    T* to = static_cast<T*>(a.dqkv) + u64(w.start + row) * a.dqkvStride + (a.heads + kvHead) * a.headDim;
    store<T, D, MT, false>(a, dk, a.scale, ks + own * pitch, to, a.dqkvStride, w.length - row);
    store<T, D, MT, false>(a, dv, 1, vs + own * pitch, to + a.kvHeads * a.headDim, a.dqkvStride, w.length - row);
}

// The same for heads whose dK and dV do not both fit into a warp's registers: two warps share 16 keys. Each makes the scores of half
// the queries, and, by way of shared memory, half the columns of dK and dV.
// Shared: 8·WARPS·2+4·BQ rows, 2·BQ Rows, 2·8·WARPS·(BQ+8) elements.
template <class T, int D, int WARPS, int BQ> DEVICE void backwardFusedWide(const FusedArgs& f) {
    constexpr int MT = 1, SUB = BQ / 2, BK = 8 * WARPS, threads = 32 * WARPS, pitch = Tile<D>::pitch, sPitch = BQ + 8;
    constexpr int WM = BQ / 32, WN = WARPS / WM, CN = D / WN;
    static_assert(BQ <= threads, "each thread loads a row's sums");
    static_assert(CN % 16 == 0 && BK % BQ == 0, "tiles of dQ");
    const AttentionArgs& a = f.a;
    SHARED u32 ticket;
    if (threadIdx.x == 0) ticket = atomicAddU32(f.turns, 1);
    barrier();
    int items = a.tokens / BK + a.sequences, kvHead = ticket / items;
    Work w;
    if (!findWork(a, ticket % items, BK, true, w)) return;
    int group = a.heads / a.kvHeads, key = w.tile * BK;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, own = warp % (WARPS / 2) * 16, half = warp / (WARPS / 2), row = key + own;
    int slots = a.tokens / BQ + a.sequences, slot0 = w.start / BQ + w.sequence;
    T *ks = dynamicShared<T>(), *vs = ks + BK * pitch, *qdos = vs + BK * pitch;  // queries, dOut, queries, dOut
    Row* rows = reinterpret_cast<Row*>(qdos + 4 * BQ * pitch);
    T* dss = reinterpret_cast<T*>(rows + 2 * BQ);
    T* pss = dss + BK * sPitch;
    int window = a.window, last = w.length;
    if (window > 0) last = least(last, key + BK - 1 + window);
    int head = kvHead * group, query = key, left = group * ((last - key + BQ - 1) / BQ), buffer = 0;
    auto begin = [&](int h, int q, int b) -> Row {
        T* to = qdos + b * 2 * BQ * pitch;
        load<T, D, BQ, threads, false>(a, to, headOf<T>(a, w, h, q), a.qkvStride, w.length - q);
        load<T, D, BQ, threads, false>(a, to + BQ * pitch, static_cast<const T*>(a.dOut) + u64(w.start + q) * a.dOutStride + h * a.headDim,
                                       a.dOutStride, w.length - q);
        int at = q + threadIdx.x;
        if (threadIdx.x >= BQ || at >= w.length) return {infinity(), 0};  // probabilities of 0
        return {a.lse[h * a.lseStride + w.start + at] * log2e, a.delta[u64(h) * a.tokens + w.start + at]};
    };
    load<T, D, BK, threads, false>(a, ks, headOf<T>(a, w, a.heads + kvHead, key), a.qkvStride, w.length - key);
    load<T, D, BK, threads, false>(a, vs, headOf<T>(a, w, a.heads + a.kvHeads + kvHead, key), a.qkvStride, w.length - key);
    Row mine = begin(head, query, 0);
    if (threadIdx.x < BQ) rows[threadIdx.x] = mine;
    cpAsyncCommit();
    float unit = a.scale * log2e;
    float dk[1][D / 16][4], dv[1][D / 16][4];
    clear(dk);
    clear(dv);
    u32* done = nullptr;  // the counter of the tile whose part has been added
    for (; left > 0; left--, buffer ^= 1) {
        cpAsyncWait<0>();
        barrier();
        int nextHead = head, nextQuery = query + BQ;
        if (nextQuery >= last) {
            nextHead++;
            nextQuery = key;
        }
        if (left > 1) mine = begin(nextHead, nextQuery, buffer ^ 1);
        cpAsyncCommit();
        const T *qs = qdos + buffer * 2 * BQ * pitch, *dos = qs + BQ * pitch;
        {
            int sub = half * SUB;
            int from = query + sub;
            bool some = from + SUB - 1 >= row && from < w.length && (window == 0 || from - (row + 16 * MT - 1) < window);
            bool all = from >= row + 16 * MT - 1 && (window == 0 || from + SUB - 1 - row < window);
            u32 p[MT][SUB / 16][4], ds[MT][SUB / 16][4];
            if (some) {
                float s[MT][SUB / 8][4];
                clear(s);
                addProductTransposed<T, D, MT, SUB>(s, ks + own * pitch, qs + sub * pitch);
                #pragma unroll
                for (int j = 0; j < SUB / 8; j++) {
                    const Row* r = rows + buffer * BQ + sub + j * 8 + lane % 4 * 2;
                    float lse[2] = {r[0].lse, r[1].lse};
                    #pragma unroll
                    for (int m = 0; m < MT; m++)
                        #pragma unroll
                        for (int e = 0; e < 4; e++) {
                            int kj = row + m * 16 + lane / 4 + e / 2 * 8, qi = from + j * 8 + lane % 4 * 2 + e % 2;
                            float x = exp2Fast(fmaf(s[m][j][e], unit, -lse[e % 2]));
                            if (!all && !sees(window, qi, kj)) x = 0;
                            s[m][j][e] = x;
                        }
                }
                toOperand<T, MT, SUB>(p, s);
                float dp[MT][SUB / 8][4];
                clear(dp);
                addProductTransposed<T, D, MT, SUB>(dp, vs + own * pitch, dos + sub * pitch);
                #pragma unroll
                for (int j = 0; j < SUB / 8; j++) {
                    const Row* r = rows + buffer * BQ + sub + j * 8 + lane % 4 * 2;
                    float mean[2] = {r[0].mean, r[1].mean};
                    #pragma unroll
                    for (int m = 0; m < MT; m++)
                        #pragma unroll
                        for (int e = 0; e < 4; e++) s[m][j][e] *= dp[m][j][e] - mean[e % 2];
                }
                toOperand<T, MT, SUB>(ds, s);
            } else {
                #pragma unroll
                for (int m = 0; m < MT; m++)
                    #pragma unroll
                    for (int n = 0; n < SUB / 16; n++)
                        #pragma unroll
                        for (int e = 0; e < 4; e++) p[m][n][e] = ds[m][n][e] = 0;
            }
            #pragma unroll
            for (int m = 0; m < MT; m++)
                #pragma unroll
                for (int n = 0; n < SUB / 8; n++)
                    #pragma unroll
                    for (int e = 0; e < 2; e++) {
                        int at = (own + m * 16 + lane / 4 + 8 * e) * sPitch + sub + n * 8 + lane % 4 * 2;
                        *reinterpret_cast<u32*>(pss + at) = p[m][n / 2][n % 2 * 2 + e];
                        *reinterpret_cast<u32*>(dss + at) = ds[m][n / 2][n % 2 * 2 + e];
                    }
        }
        u64 slot = u64(head) * slots + slot0 + query / BQ;
        int turn = query / BK - w.tile;  // how many parts come before this one
        if (threadIdx.x == 0) {
            if (done) {
                fence();
                atomicAddU32(done, 1);
            }
            done = f.turns + 1 + slot;
            if (turn > 0)
                while (loadAcquire(done) != u32(turn)) {}
        }
        barrier();
        {
            u32 x[1][BQ / 16][4];
            const T* from = pss + (own + lane % 16) * sPitch + lane / 16 * 8;
            #pragma unroll
            for (int i = 0; i < BQ / 16; i++) ldmatrix4(x[0][i], from + i * 16);
            addProduct<T, D, 1, BQ, D / 2>(dv, x, dos + half * (D / 2));
            from = dss + (own + lane % 16) * sPitch + lane / 16 * 8;
            #pragma unroll
            for (int i = 0; i < BQ / 16; i++) ldmatrix4(x[0][i], from + i * 16);
            addProduct<T, D, 1, BQ, D / 2>(dk, x, qs + half * (D / 2));
        }
        {
            float* to = f.dq + slot * (BQ * D) + threadIdx.x * 4;
            bool final = w.tile == (window > 0 && query >= window ? (query - window + 1) / BK : 0);
            float dq[2][CN / 8][4];
            clear(dq);
            if (final && turn > 0) {
                #pragma unroll
                for (int m = 0; m < 2; m++)
                    #pragma unroll
                    for (int n = 0; n < CN / 8; n++) {
                        Pack<float> before = loadPack(to + (m * (CN / 8) + n) * (threads * 4));
                        #pragma unroll
                        for (int e = 0; e < 4; e++) dq[m][n][e] = before.of(e);
                    }
            }
            const T* x = dss + (lane / 16 * 8 + lane % 8) * sPitch + lane / 8 % 2 * 8 + warp % WM * 32;
            const T* y = ks + lane % 16 * pitch + lane / 16 * 8 + warp / WM * CN;
            #pragma unroll
            for (int k = 0; k < BK / 16; k++) {
                u32 xs[2][4];
                #pragma unroll
                for (int m = 0; m < 2; m++) ldmatrix4Trans(xs[m], x + k * 16 * sPitch + m * 16);
                #pragma unroll
                for (int n = 0; n < CN / 16; n++) {
                    u32 ys[4];
                    ldmatrix4Trans(ys, y + k * 16 * pitch + n * 16);
                    #pragma unroll
                    for (int m = 0; m < 2; m++) {
                        mma(dq[m][2 * n], xs[m], ys[0], ys[1], T{});
                        mma(dq[m][2 * n + 1], xs[m], ys[2], ys[3], T{});
                    }
                }
            }
            if (final) {
                int at = query + warp % WM * 32 + lane / 4;
                T* out = static_cast<T*>(a.dqkv) + u64(w.start + at) * a.dqkvStride + head * a.headDim + warp / WM * CN + lane % 4 * 2;
                #pragma unroll
                for (int m = 0; m < 2; m++)
                    #pragma unroll
                    for (int e = 0; e < 2; e++)
                        if (at + m * 16 + 8 * e < w.length) {
                            #pragma unroll
                            for (int n = 0; n < CN / 8; n++)
                                *reinterpret_cast<u32*>(out + (m * 16 + 8 * e) * a.dqkvStride + n * 8) =
                                    Packed<T>::of(dq[m][n][2 * e] * a.scale, dq[m][n][2 * e + 1] * a.scale);
                        }
            } else {
                #pragma unroll
                for (int m = 0; m < 2; m++)
                    #pragma unroll
                    for (int n = 0; n < CN / 8; n++) {
                        float* at = to + (m * (CN / 8) + n) * (threads * 4);
                        if (turn > 0) {
                            addInOrder(at, dq[m][n]);
                        } else {
                            Pack<float> pack;
                            pack.set(dq[m][n]);
                            storePack(at, pack);
                        }
                    }
            }
        }
        if (threadIdx.x < BQ) rows[(buffer ^ 1) * BQ + threadIdx.x] = mine;
        head = nextHead;
        query = nextQuery;
    }
    barrier();
    if (threadIdx.x == 0 && done) {
        fence();
        atomicAddU32(done, 1);
    }
    T* to = static_cast<T*>(a.dqkv) + u64(w.start + row) * a.dqkvStride + (a.heads + kvHead) * a.headDim + half * (D / 2);
    T* scratch = ks + warp * 16 * Tile<D / 2>::pitch;
    store<T, D / 2, 1, false>(a, dk, a.scale, scratch, to, a.dqkvStride, w.length - row);
    store<T, D / 2, 1, false>(a, dv, 1, scratch, to + a.kvHeads * a.headDim, a.dqkvStride, w.length - row);
}

// The shapes are those of attention_own.go's flashes.
KERNEL_MIN(forward_32_bf16, 128, 2, AttentionArgs, forward<bf16, 32, 2, 4, 128, false>)
KERNEL_MIN(forward_64_bf16, 128, 3, AttentionArgs, forwardAhead<bf16, 64, 1, 4, 64>)
KERNEL_MIN(forward_80_bf16, 128, 2, AttentionArgs, forward<bf16, 80, 2, 4, 64, false>)
KERNEL_MIN(forward_96_bf16, 128, 2, AttentionArgs, forward<bf16, 96, 2, 4, 64, false>)
KERNEL_MIN(forward_128_bf16, 128, 2, AttentionArgs, forward<bf16, 128, 2, 4, 64, false>)
KERNEL_MIN(forward_256_bf16, 128, 2, AttentionArgs, forward<bf16, 256, 1, 4, 64, false>)
KERNEL_MIN(forward_64_general_bf16, 128, 2, AttentionArgs, forward<bf16, 64, 1, 4, 64, true>)
KERNEL_MIN(forward_128_general_bf16, 128, 2, AttentionArgs, forward<bf16, 128, 1, 4, 64, true>)
KERNEL_MIN(forward_256_general_bf16, 128, 2, AttentionArgs, forward<bf16, 256, 1, 4, 32, true>)

KERNEL(delta_bf16, 256, AttentionArgs, delta<bf16>)

KERNEL_MIN(backward_queries_32_bf16, 128, 2, AttentionArgs, backwardQueries<bf16, 32, 2, 4, 64, false>)
KERNEL_MIN(backward_queries_80_bf16, 128, 2, AttentionArgs, backwardQueries<bf16, 80, 2, 4, 32, false>)
KERNEL_MIN(backward_queries_96_bf16, 128, 2, AttentionArgs, backwardQueries<bf16, 96, 2, 4, 32, false>)
KERNEL_MIN(backward_queries_128_bf16, 128, 2, AttentionArgs, backwardQueries<bf16, 128, 2, 4, 32, false>)
KERNEL_MIN(backward_queries_256_bf16, 128, 1, AttentionArgs, backwardQueries<bf16, 256, 1, 4, 32, false>)
KERNEL_MIN(backward_queries_64_general_bf16, 128, 2, AttentionArgs, backwardQueries<bf16, 64, 1, 4, 32, true>)
KERNEL_MIN(backward_queries_128_general_bf16, 128, 2, AttentionArgs, backwardQueries<bf16, 128, 1, 4, 32, true>)
KERNEL_MIN(backward_queries_256_general_bf16, 128, 1, AttentionArgs, backwardQueries<bf16, 256, 1, 4, 32, true>)

KERNEL_MIN(backward_keys_32_bf16, 128, 2, AttentionArgs, backwardKeys<bf16, 32, 2, 4, 64, 32, true, true, false>)
KERNEL_MIN(backward_keys_80_bf16, 128, 2, AttentionArgs, backwardKeys<bf16, 80, 1, 4, 64, 64, true, true, false>)
KERNEL_MIN(backward_keys_96_bf16, 128, 2, AttentionArgs, backwardKeys<bf16, 96, 1, 4, 64, 64, true, true, false>)
KERNEL_MIN(backward_keys_128_bf16, 128, 2, AttentionArgs, backwardKeys<bf16, 128, 1, 4, 64, 64, true, true, false>)
KERNEL_MIN(backward_keys_256_bf16, 128, 1, AttentionArgs, backwardKeysSplit<bf16, 256, 1, 4, 32, 32, false>)
KERNEL_MIN(backward_keys_64_general_bf16, 128, 2, AttentionArgs, backwardKeys<bf16, 64, 1, 4, 64, 32, true, true, true>)
KERNEL_MIN(backward_keys_128_general_bf16, 128, 2, AttentionArgs, backwardKeys<bf16, 128, 1, 4, 32, 32, true, true, true>)
KERNEL_MIN(backward_keys_256_general_bf16, 128, 1, AttentionArgs, backwardKeysSplit<bf16, 256, 1, 4, 32, 32, true>)

KERNEL(delta_fused_bf16, 256, FusedArgs, deltaFused<bf16, 64>)
KERNEL_MIN(backward_64_bf16, 128, 2, FusedArgs, backwardFused<bf16, 64, 2, 4, 64, 32>)
KERNEL_MIN(backward_256_bf16, 256, 1, FusedArgs, backwardFusedWide<bf16, 256, 8, 64>)
