// Matrix products of our own: C = A·B (+ C) (+ Bias) for what cuBLASLt does not take
// or where it is absent, and the products of groups of rows (mixture of experts).
//
//   plain    C [m, n] of A [m, k], B [k, n], either transposed (tensor.Matmul); its
//            gradients are plain products as well
//   grouped  rows of C [R, n] by the matrix of their group (tensor.GroupedMatmul)
//   outer    C[e] [m, n] += Aᵀ·B over the rows of group e (tensor.GroupedOuter)
//
// All are cut into tiles of C, one a block; partOf says which. Three tile kernels:
// product_any (any types, strides and alignment), product_f32_XX (float32, 16-byte
// rows) and product_bf16_XX, product_f16_XX (tensor cores, 16-byte rows), XX telling
// which operand is transposed. Sums are float32, in the order of k. Products with
// few rows or columns, which are bound by reading the large operand, are dots_….
//
// Floors: 2·m·n·k FLOPs over the rate of float32 (67 TFLOP/s on an H100) or of
// mma.sync (about 0.62 of wgmma's rate there, all of the rate of compute capability 8);
// dots: the bytes of the large operand.
#include "common.cuh"

enum Kind : u32 { Plain, Grouped, Outer };
enum Type : u32 { F32, BF16, F16 };

DEVICE float loadAny(const void* p, u64 i, u32 type) {
    if (type == F32) return static_cast<const float*>(p)[i];
    if (type == BF16) return toFloat(static_cast<const bf16*>(p)[i]);
    return toFloat(static_cast<const f16*>(p)[i]);
}
DEVICE void storeAny(void* p, u64 i, u32 type, float x) {
    if (type == F32) static_cast<float*>(p)[i] = x;
    else if (type == BF16) static_cast<bf16*>(p)[i] = toBF16(x);
    else static_cast<f16*>(p)[i] = toF16(x);
}

struct ProductArgs {
    const void *a, *b;
    void* c;
    const void* bias;               // [n] or null
    const int* starts;              // [groups+1], not of a plain product
    u64 aStride, bStride, cStride;  // elements from a stored row to the next
    u64 bPage, cPage;               // elements from one group's matrix to the next
    int m, n, k;                    // grouped: m is R; outer: k is not used
    int groups;
    u32 kind, transA, transB, accumulate;
    u32 aType, bType, cType, biasType;
    u32 cVector; // rows of C are whole numbers of 16 bytes that start at multiples of 16
};

// Part is a block's tile of C: its operands start at elements a, b and c, C has m rows
// there, of which the tile starts at row, and the sum runs over k.
struct Part {
    u64 a, b, c;
    int m, k, row, col;
    bool empty;
};

// Grouped: group e's tiles are counted from starts[e]/tileM + e, which leaves room
// for a partial tile in every group and is found without adding up sizes.
template <int tileM, int tileN> DEVICE Part partOf(const ProductArgs& p) {
    int rowTiles = p.kind == Grouped ? p.m / tileM + p.groups : (p.m + tileM - 1) / tileM, colTiles = (p.n + tileN - 1) / tileN;
    // Blocks that run at once share rows of A and columns of B in the L2 cache: bands of 8 row tiles, column by column.
    const int bandRows = 8;
    int band = bandRows * colTiles, first = int(blockIdx.x) / band * bandRows, height = min(rowTiles - first, bandRows);
    int inBand = int(blockIdx.x) % band, rowTile = first + inBand % height;
    Part q = {0, 0, 0, p.m, p.k, rowTile * tileM, inBand / height * tileN, false};
    if (p.kind == Grouped) {
        int e = 0, past = p.groups; // e's first tile is not after rowTile, past's is
        while (past - e > 1) {
            int mid = (e + past) / 2;
            if (p.starts[mid] / tileM + mid <= rowTile) e = mid;
            else past = mid;
        }
        int from = p.starts[e], to = p.starts[e + 1];
        q.m = to - from;
        q.row = (rowTile - (from / tileM + e)) * tileM;
        q.a = u64(from) * p.aStride, q.b = u64(e) * p.bPage, q.c = u64(from) * p.cStride;
        q.empty = q.row >= q.m;
    }
    if (p.kind == Outer) {
        int from = p.starts[blockIdx.z], to = p.starts[blockIdx.z + 1];
        q.k = to - from;
        q.a = u64(from) * p.aStride, q.b = u64(from) * p.bStride, q.c = u64(blockIdx.z) * p.cPage;
        q.empty = q.k == 0;
    }
    return q;
}

// finish writes one element of C.
DEVICE void finish(const ProductArgs& p, const Part& q, int row, int col, float v) {
    if (row >= q.m || col >= p.n) return;
    u64 at = q.c + u64(row) * p.cStride + col;
    if (p.bias) v += loadAny(p.bias, col, p.biasType);
    if (p.accumulate) v += loadAny(p.c, at, p.cType);
    storeAny(p.c, at, p.cType, v);
}

// finishRows writes rows of C from row on, q.col on, held in shared memory, [rows][tileN].
template <int tileN> DEVICE void finishRows(const ProductArgs& p, const Part& q, int row, int rows, const float* held) {
    if (p.cVector && p.cType == F32 && !p.bias) {
#pragma unroll 4
        for (int at = threadIdx.x * 4; at < rows * tileN; at += blockDim.x * 4) {
            int r = row + at / tileN, col = q.col + at % tileN;
            if (r >= q.m || col >= p.n) continue;
            float* to = static_cast<float*>(p.c) + q.c + u64(r) * p.cStride + col;
            Pack<float> v = loadPack(held + at);
            if (p.accumulate) {
                Pack<float> old = loadPack(to);
                v.set({v.of(0) + old.of(0), v.of(1) + old.of(1), v.of(2) + old.of(2), v.of(3) + old.of(3)});
            }
            storePack(to, v);
        }
        return;
    }
#pragma unroll 1
    for (int at = threadIdx.x; at < rows * tileN; at += blockDim.x) finish(p, q, row + at / tileN, q.col + at % tileN, held[at]);
}

// product_any: 64x64 tiles, 16 of k at a time, 4x4 elements a thread; every load is guarded.
DEVICE void productAny(const ProductArgs& p) {
    const int tile = 64, depth = 16, pitch = tile + 4;
    SHARED alignas(16) float as[depth * pitch];
    SHARED alignas(16) float bs[depth * pitch];
    Part q = partOf<tile, tile>(p);
    if (q.empty) return;
    int t = threadIdx.x, tx = t % 16, ty = t / 16;
    float acc[4][4] = {};
    for (int k0 = 0; k0 < q.k; k0 += depth) {
#pragma unroll
        for (int i = 0; i < tile * depth / 256; i++) {
            int at = t + 256 * i;
            // Neighbouring threads read along the dimension that is adjacent in memory.
            int k = p.transA ? at / tile : at % depth, x = p.transA ? at % tile : at / depth, row = q.row + x;
            bool inside = row < q.m && k0 + k < q.k;
            u64 from = q.a + (p.transA ? u64(k0 + k) * p.aStride + row : u64(row) * p.aStride + (k0 + k));
            as[k * pitch + x] = inside ? loadAny(p.a, from, p.aType) : 0;
            k = p.transB ? at % depth : at / tile, x = p.transB ? at / depth : at % tile;
            int col = q.col + x;
            inside = col < p.n && k0 + k < q.k;
            from = q.b + (p.transB ? u64(col) * p.bStride + (k0 + k) : u64(k0 + k) * p.bStride + col);
            bs[k * pitch + x] = inside ? loadAny(p.b, from, p.bType) : 0;
        }
        barrier();
#pragma unroll
        for (int k = 0; k < depth; k++) {
            Pack<float> x = loadPack(as + k * pitch + 4 * ty), y = loadPack(bs + k * pitch + 4 * tx);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) acc[i][j] = fmaf(x.of(i), y.of(j), acc[i][j]);
        }
        barrier();
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) finish(p, q, q.row + 4 * ty + i, q.col + 4 * tx + j, acc[i][j]);
}
KERNEL(product_any, 256, ProductArgs, productAny)

// Operand reads a tile of float32, 128 of its rows or columns ("lines") by 16 of k,
// into registers and puts it down as [k][line]; kMajor: lines are adjacent in memory.
// Two 16-byte accesses a thread; nothing is read outside.
template <bool kMajor> struct Operand {
    static constexpr int tile = 128, depth = 16, pitch = tile + 4;
    Pack<float> held[2];
    DEVICE void load(const float* from, u64 stride, int line0, int lines, int k0, int ks) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int at = threadIdx.x + 256 * i;
            int line = line0 + (kMajor ? at % 32 * 4 : at / 4), k = k0 + (kMajor ? at / 32 : at % 4 * 4);
            bool inside = line < lines && k < ks;
            held[i] = inside ? loadPack(from + (kMajor ? u64(k) * stride + line : u64(line) * stride + k)) : Pack<float>{{{0, 0, 0, 0}}};
        }
    }
    DEVICE void put(float* to) const {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int at = threadIdx.x + 256 * i;
            if constexpr (kMajor) {
                storePack(to + at / 32 * pitch + at % 32 * 4, held[i]);
            } else {
#pragma unroll
                for (int j = 0; j < 4; j++) to[(at % 4 * 4 + j) * pitch + at / 4] = held[i].of(j);
            }
        }
    }
};

// product_f32_XX: 128x128 tiles, 16 of k at a time in two buffers (the next is on its
// way in registers), 8x8 elements a thread as four squares of 4x4.
template <bool transA, bool transB> DEVICE void productF32(const ProductArgs& p) {
    const int tile = 128, depth = 16, pitch = tile + 4;
    SHARED alignas(16) float memory[4 * depth * pitch];
    float *as = memory, *bs = memory + 2 * depth * pitch;
    Part q = partOf<tile, tile>(p);
    if (q.empty) return;
    const float *a = static_cast<const float*>(p.a) + q.a, *b = static_cast<const float*>(p.b) + q.b;
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    float acc[8][8] = {};
    Operand<transA> x;
    Operand<!transB> y;
    x.load(a, p.aStride, q.row, q.m, 0, q.k);
    y.load(b, p.bStride, q.col, p.n, 0, q.k);
    int buffer = 0;
    for (int k0 = 0; k0 < q.k; k0 += depth, buffer ^= depth * pitch) {
        // The buffer was last read two rounds ago; the barrier of the round between frees it.
        x.put(as + buffer);
        y.put(bs + buffer);
        barrier();
        x.load(a, p.aStride, q.row, q.m, k0 + depth, q.k);
        y.load(b, p.bStride, q.col, p.n, k0 + depth, q.k);
#pragma unroll
        for (int k = 0; k < depth; k++) {
            Pack<float> r[2], s[2];
#pragma unroll
            for (int h = 0; h < 2; h++) {
                r[h] = loadPack(as + buffer + k * pitch + 64 * h + 4 * ty);
                s[h] = loadPack(bs + buffer + k * pitch + 64 * h + 4 * tx);
            }
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) acc[i][j] = fmaf(r[i / 4].of(i % 4), s[j / 4].of(j % 4), acc[i][j]);
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) { // 64 rows at a time
        barrier();
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const float(&v)[8] = acc[4 * h + i];
                storePack(memory + (4 * ty + i) * tile + 64 * j + 4 * tx, Pack<float>{{{floatBits(v[4 * j]), floatBits(v[4 * j + 1]), floatBits(v[4 * j + 2]), floatBits(v[4 * j + 3])}}});
            }
        barrier();
        finishRows<tile>(p, q, q.row + 64 * h, 64, memory);
    }
}
KERNEL_MIN(product_f32_nn, 256, 2, ProductArgs, productF32<false, false>)
KERNEL_MIN(product_f32_nt, 256, 2, ProductArgs, productF32<false, true>)
KERNEL_MIN(product_f32_tn, 256, 2, ProductArgs, productF32<true, false>)
KERNEL_MIN(product_f32_tt, 256, 2, ProductArgs, productF32<true, true>)

// Tile is an operand's part of a stage in shared memory: 128 lines (rows of A, columns
// of B) by 32 of k, stored as it lies in memory: [line][k] (64 bytes a line), or, kMajor,
// [k][line] (256 bytes a row). Pieces of 16 bytes are permuted within a row so that
// the eight rows of an 8x8 matrix lie in different banks.
template <class T, bool kMajor> struct Tile {
    static constexpr int lines = 128, depth = 32, size = lines * depth;
    static DEVICE int at(int line, int k) { // of a piece: a multiple of 8 of what is adjacent
        if (kMajor) return k * lines + ((line / 8) ^ (k & 7)) * 8;
        return line * depth + ((k / 8) ^ (line >> 1 & 3)) * 8;
    }
    // This thread's four pieces: of lines 32 apart, or, kMajor, of k 8 apart. k advances by depth.
    static constexpr int lineStep = kMajor ? 0 : 32, kStep = kMajor ? 8 : 0;
    const T* from; // of the first
    u64 step, next; // to the next stage's, to the next piece
    int line, k, left; // left: lines from line on
    DEVICE Tile(const T* base, u64 stride, int line0, int end) {
        line = kMajor ? threadIdx.x % 16 * 8 : threadIdx.x / 4;
        k = kMajor ? threadIdx.x / 16 : threadIdx.x % 4 * 8;
        left = end - line0 - line;
        next = kMajor ? kStep * stride : lineStep * stride;
        step = kMajor ? depth * stride : depth;
        from = base + (kMajor ? u64(k) * stride + line0 + line : u64(line0 + line) * stride + k);
    }
    DEVICE void load(T* to, int ks, const T* base) {
        int in = k % depth;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            bool valid = i * lineStep < left && k + i * kStep < ks;
            cpAsync16(to + at(line + i * lineStep, in + i * kStep), valid ? from + i * next : base, valid);
        }
        from += step;
        k += depth;
    }
    // fragment gives four 8x8 matrices of the 16 lines from line on and the 16 of k
    // from k on, each with k along its columns. linesFirst: r[1] is the next 8 lines, r[2] the next
    // 8 of k (A of mma); else the other way round (two B's of mma).
    template <bool linesFirst> static DEVICE void fragment(u32 (&r)[4], const T* tile, int line, int k) {
        int lane = threadIdx.x % 32, low = lane / 8 % 2 * 8, high = lane / 16 * 8, in = lane % 8;
        line += linesFirst ? low : high;
        k += linesFirst ? high : low;
        if (kMajor) ldmatrix4Trans(r, tile + at(line, k + in));
        else ldmatrix4(r, tile + at(line + in, k));
    }
};

// Four lanes that hold two adjacent elements of each of four pieces (w[piece]) exchange
// them, so that lane i has the four pairs of piece i.
DEVICE void gatherPieces(u32 (&w)[4]) {
    int lane = threadIdx.x;
#pragma unroll
    for (int bit = 1; bit <= 2; bit *= 2)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & bit) continue;
            bool upper = lane & bit;
            u32 got = shuffleXor(upper ? w[i] : w[i | bit], bit);
            if (upper) w[i] = got;
            else w[i | bit] = got;
        }
}

struct alignas(8) FloatPair { float x, y; };
DEVICE u32 packPair(float x, float y, bf16) { return packBF16(x, y); }
DEVICE u32 packPair(float x, float y, f16) { return packF16(x, y); }
DEVICE float lowOf(u32 w, bf16) { return bitsFloat(w << 16); }
DEVICE float highOf(u32 w, bf16) { return bitsFloat(w & 0xffff0000u); }
DEVICE float lowOf(u32 w, f16) { return toFloat(f16{u16(w)}); }
DEVICE float highOf(u32 w, f16) { return toFloat(f16{u16(w >> 16)}); }

// product_bf16_XX, product_f16_XX: 128x128 tiles, 32 of k a stage, four stages in
// flight (64 KiB of dynamic shared memory), four warps of 64x64: smaller ones would read
// more shared memory for a multiplication than Hopper delivers in its time.
template <class T, bool transA, bool transB> DEVICE void productMMA(const ProductArgs& p) {
    typedef Tile<T, transA> TileA;
    typedef Tile<T, !transB> TileB;
    const int tile = 128, depth = TileA::depth, stages = 4;
    Part q = partOf<tile, tile>(p);
    if (q.empty) return;
    const T *a = static_cast<const T*>(p.a) + q.a, *b = static_cast<const T*>(p.b) + q.b;
    T *as = dynamicShared<T>(), *bs = as + stages * TileA::size;
    TileA x(a, p.aStride, q.row, q.m);
    TileB y(b, p.bStride, q.col, p.n);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp / 2 * 64, col = warp % 2 * 64;
    int rounds = (q.k + depth - 1) / depth;
    float acc[4][8][4] = {};
#pragma unroll
    for (int s = 0; s < stages - 1; s++) {
        if (s < rounds) {
            x.load(as + s * TileA::size, q.k, a);
            y.load(bs + s * TileB::size, q.k, b);
        }
        cpAsyncCommit();
    }
    for (int round = 0; round < rounds; round++) {
        cpAsyncWait<stages - 2>();
        barrier(); // this round's stage has come, and the stage of the round before is free
        if (round + stages - 1 < rounds) {
            int s = (round + stages - 1) % stages;
            x.load(as + s * TileA::size, q.k, a);
            y.load(bs + s * TileB::size, q.k, b);
        }
        cpAsyncCommit();
        const T *at = as + round % stages * TileA::size, *bt = bs + round % stages * TileB::size;
#pragma unroll
        for (int k = 0; k < depth; k += 16) {
            u32 fa[4][4], fb[4][4];
#pragma unroll
            for (int i = 0; i < 4; i++) TileA::template fragment<true>(fa[i], at, row + 16 * i, k);
#pragma unroll
            for (int j = 0; j < 4; j++) TileB::template fragment<false>(fb[j], bt, col + 16 * j, k);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) mma(acc[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1], T());
        }
    }
    cpAsyncWait<0>();

    // Of the 8 columns of acc[i][j] a lane has 2·(lane%4) and the next, in rows lane/4 and 8 below.
    int r0 = q.row + row + lane / 4, c0 = q.col + col;
    if (!p.cVector) { // through the stages' memory, which is as large as the tile
        float* held = dynamicShared<float>();
        barrier();
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int v = 0; v < 4; v++)
                    held[(row + 16 * i + lane / 4 + v / 2 * 8) * tile + col + 8 * j + lane % 4 * 2 + v % 2] = acc[i][j][v];
        barrier();
        finishRows<tile>(p, q, q.row, tile, held);
        return;
    }
    if (p.bias)
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int v = 0; v < 2; v++) {
                int c = c0 + 8 * j + lane % 4 * 2 + v;
                float add = c < p.n ? loadAny(p.bias, c, p.biasType) : 0;
#pragma unroll
                for (int i = 0; i < 4; i++) acc[i][j][v] += add, acc[i][j][v + 2] += add;
            }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int r = r0 + 16 * i + 8 * h;
            u64 from = q.c + u64(r) * p.cStride;
            if (p.cType == F32) {
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    int c = c0 + 8 * j + lane % 4 * 2;
                    if (r >= q.m || c >= p.n) continue;
                    FloatPair* to = reinterpret_cast<FloatPair*>(static_cast<float*>(p.c) + from + c);
                    FloatPair v = {acc[i][j][2 * h], acc[i][j][2 * h + 1]};
                    if (p.accumulate) {
                        FloatPair old = *to;
                        v.x += old.x, v.y += old.y;
                    }
                    *to = v;
                }
                continue;
            }
            T* to = static_cast<T*>(p.c) + from;
#pragma unroll
            for (int j0 = 0; j0 < 8; j0 += 4) {
                u32 w[4];
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    int c = c0 + 8 * (j0 + j) + lane % 4 * 2;
                    float lo = acc[i][j0 + j][2 * h], hi = acc[i][j0 + j][2 * h + 1];
                    if (p.accumulate && r < q.m && c < p.n) {
                        u32 old = *reinterpret_cast<const u32*>(to + c);
                        lo += lowOf(old, T()), hi += highOf(old, T());
                    }
                    w[j] = packPair(lo, hi, T());
                }
                gatherPieces(w);
                int c = c0 + 8 * (j0 + lane % 4);
                if (r < q.m && c < p.n) store16(to + c, Bytes16{{w[0], w[1], w[2], w[3]}});
            }
        }
}
#define PRODUCTS(T)                                                           \
    KERNEL_MIN(product_##T##_nn, 128, 2, ProductArgs, productMMA<T, false, false>) \
    KERNEL_MIN(product_##T##_nt, 128, 2, ProductArgs, productMMA<T, false, true>)  \
    KERNEL_MIN(product_##T##_tn, 128, 2, ProductArgs, productMMA<T, true, false>)  \
    KERNEL_MIN(product_##T##_tt, 128, 2, ProductArgs, productMMA<T, true, true>)
PRODUCTS(bf16)
PRODUCTS(f16)

// dots: products of a large operand, of `lines` rows or columns, with up to 8 vectors
// ("few"): heads of one column, generation of a few tokens, and their gradients. The
// sum over k is split among blocks; parts [splits][few][lines] are added up by
// dots_finish, in order.
struct DotsArgs {
    const void *large, *few;
    void* c;
    const void* bias;
    float* parts;
    u64 largeStride;      // elements from a stored row of the large operand to the next
    u64 fewLine, fewK;    // elements from one vector to the next, from one k to the next
    u64 cLine, cFew;      // elements of C from one line to the next, from one vector to the next
    int lines, count, k;
    int splits, span;     // of k: split s has [s·span, (s+1)·span)
    u32 vector;           // the large operand's rows are whole numbers of 16 bytes, at multiples of 16
    u32 accumulate, biasLine; // biasLine: Bias goes along lines, else along vectors
    u32 fewType, cType, biasType;
};

const int fewMost = 8;

// dots_rows: k is adjacent in the large operand; a warp a line, blocks of 8 lines.
template <class T> DEVICE void dotsRows(const DotsArgs& p) {
    const int chunk = 512, size = Pack<T>::size;
    SHARED alignas(16) float few[fewMost * chunk];
    int lane = threadIdx.x % 32, line = blockIdx.x * 8 + threadIdx.x / 32;
    int from = blockIdx.y * p.span, to = min(from + p.span, p.k);
    const T* large = static_cast<const T*>(p.large) + u64(min(line, p.lines - 1)) * p.largeStride;
    float acc[fewMost] = {};
    for (int k0 = from; k0 < to; k0 += chunk) {
        int n = min(chunk, to - k0);
        barrier();
        for (int j = 0; j < p.count; j++)
            for (int k = threadIdx.x; k < chunk; k += 256)
                few[j * chunk + k] = k < n ? loadAny(p.few, j * p.fewLine + (k0 + k) * p.fewK, p.fewType) : 0;
        barrier();
        if (p.vector) {
#pragma unroll
            for (int i = 0; i < chunk / 32 / size; i++) {
                int k = (i * 32 + lane) * size;
                if (k >= n) break;
                Pack<T> x = loadPack(large + k0 + k);
#pragma unroll
                for (int j = 0; j < fewMost; j++) {
                    if (j >= p.count) break;
#pragma unroll
                    for (int h = 0; h < size; h += 4) {
                        Pack<float> y = loadPack(few + j * chunk + k + h);
#pragma unroll
                        for (int v = 0; v < 4; v++) acc[j] = fmaf(x.of(h + v), y.of(v), acc[j]);
                    }
                }
            }
            continue;
        }
        for (int k = lane; k < n; k += 32) {
            float x = toFloat(large[k0 + k]);
#pragma unroll
            for (int j = 0; j < fewMost; j++) {
                if (j >= p.count) break;
                acc[j] = fmaf(x, few[j * chunk + k], acc[j]);
            }
        }
    }
#pragma unroll
    for (int j = 0; j < fewMost; j++) {
        if (j >= p.count) break;
        float sum = warpSum(acc[j]);
        if (lane == 0 && line < p.lines) p.parts[(u64(blockIdx.y) * p.count + j) * p.lines + line] = sum;
    }
}
KERNEL(dots_rows_f32, 256, DotsArgs, dotsRows<float>)
KERNEL(dots_rows_bf16, 256, DotsArgs, dotsRows<bf16>)
KERNEL(dots_rows_f16, 256, DotsArgs, dotsRows<f16>)

// dots_columns: lines are adjacent in the large operand; blocks of 32 packs of lines, each
// warp every eighth k; the warps' sums are added up in their order.
template <class T> DEVICE void dotsColumns(const DotsArgs& p) {
    const int size = Pack<T>::size, width = 32 * size;
    SHARED float total[fewMost * width];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first = blockIdx.x * width;
    int from = blockIdx.y * p.span, to = min(from + p.span, p.k);
    const T* large = static_cast<const T*>(p.large);
    float acc[fewMost][size] = {};
#pragma unroll 4
    for (int k = from + warp; k < to; k += 8) {
        const T* row = large + u64(k) * p.largeStride;
        float x[size];
        if (p.vector) {
            int line = first + lane * size;
            Pack<T> got = {{{0, 0, 0, 0}}};
            if (line < p.lines) got = loadPack(row + line);
#pragma unroll
            for (int v = 0; v < size; v++) x[v] = got.of(v);
        } else {
#pragma unroll
            for (int v = 0; v < size; v++) {
                int line = first + lane + 32 * v;
                x[v] = line < p.lines ? toFloat(row[line]) : 0;
            }
        }
#pragma unroll
        for (int j = 0; j < fewMost; j++) {
            if (j >= p.count) break;
            float y = loadAny(p.few, j * p.fewLine + k * p.fewK, p.fewType);
#pragma unroll
            for (int v = 0; v < size; v++) acc[j][v] = fmaf(x[v], y, acc[j][v]);
        }
    }
    for (int w = 0; w < 8; w++) {
        if (warp == w) {
#pragma unroll
            for (int j = 0; j < fewMost; j++) {
                if (j >= p.count) break;
#pragma unroll
                for (int v = 0; v < size; v++) {
                    float* sum = total + j * width + (p.vector ? lane * size + v : lane + 32 * v);
                    *sum = w == 0 ? acc[j][v] : *sum + acc[j][v];
                }
            }
        }
        barrier();
    }
    for (int j = 0; j < p.count; j++)
        for (int i = threadIdx.x; i < width; i += 256)
            if (first + i < p.lines) p.parts[(u64(blockIdx.y) * p.count + j) * p.lines + first + i] = total[j * width + i];
}
KERNEL(dots_columns_f32, 256, DotsArgs, dotsColumns<float>)
KERNEL(dots_columns_bf16, 256, DotsArgs, dotsColumns<bf16>)
KERNEL(dots_columns_f16, 256, DotsArgs, dotsColumns<f16>)

// dots_finish: a thread a line, a block row a vector.
DEVICE void dotsFinish(const DotsArgs& p) {
    int line = blockIdx.x * 256 + threadIdx.x, j = blockIdx.y;
    if (line >= p.lines) return;
    float sum = 0;
    for (int s = 0; s < p.splits; s++) sum += p.parts[(u64(s) * p.count + j) * p.lines + line];
    u64 at = u64(line) * p.cLine + j * p.cFew;
    if (p.bias) sum += loadAny(p.bias, p.biasLine ? line : j, p.biasType);
    if (p.accumulate) sum += loadAny(p.c, at, p.cType);
    storeAny(p.c, at, p.cType, sum);
}
KERNEL(dots_finish, 256, DotsArgs, dotsFinish)
