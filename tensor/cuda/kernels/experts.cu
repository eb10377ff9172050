// What surrounds the experts of a mixture: choosing them and sorting tokens by expert
// (tensor.Route), adding up what they made (tensor.Combine), and the loss that keeps
// them equally busy (tensor.RouterLoss). Their products are in gemm.cu.
//
// Floors: Route reads T·E logits and writes 3·T·K numbers, RouterLoss reads N·E logits
// (and writes as many gradients); both are small beside the products. Combine moves
// (K+1)·T·H elements, CombineBackward (2·K+1)·T·H.
#include "common.cuh"

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

// Lane l of a warp holds logits l, l+32, … of a token: `per` of them, for up to 32·per experts.
const int mostExperts = 512;
template <int per> struct Logits {
    float v[per];
    DEVICE void load(const void* p, u64 row, int experts, u32 type) {
#pragma unroll
        for (int i = 0; i < per; i++) {
            int e = threadIdx.x % 32 + 32 * i;
            v[i] = e < experts ? loadAny(p, row + e, type) : -infinity();
        }
    }
    // softmax makes probabilities of them.
    DEVICE void softmax(int experts) {
        float top = -infinity(), sum = 0;
#pragma unroll
        for (int i = 0; i < per; i++) top = fmaxf(top, v[i]);
        top = warpMax(top);
#pragma unroll
        for (int i = 0; i < per; i++) {
            v[i] = int(threadIdx.x % 32 + 32 * i) < experts ? expf(v[i] - top) : 0;
            sum += v[i];
        }
        sum = warpSum(sum);
#pragma unroll
        for (int i = 0; i < per; i++) v[i] /= sum;
    }
};

// Ranks orders a token's experts: of whole numbers, the largest is the largest logit's, the
// lowest id's among equals. NaN comes after -Inf, what is taken is 0.
template <int per> struct Ranks {
    u64 rank[per];
    DEVICE Ranks(const Logits<per>& l, int experts) {
#pragma unroll
        for (int i = 0; i < per; i++) {
            u32 e = threadIdx.x % 32 + 32 * i, bits = floatBits(l.v[i] + 0.0f); // -0 becomes 0
            u32 order = l.v[i] != l.v[i] ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
            rank[i] = int(e) < experts ? u64(order) << 32 | ~e : 0;
        }
    }
    // take removes the largest and gives its expert and logit, in every lane.
    DEVICE int take(float& logit) {
        u64 best = 0;
#pragma unroll
        for (int i = 0; i < per; i++) best = max(best, rank[i]);
        for (int m = 16; m; m >>= 1) best = max(best, shuffleXor(best, m));
        int e = int(~u32(best));
        u32 order = u32(best >> 32);
        logit = order == 0 ? notANumber() : bitsFloat(order & 0x80000000u ? order & 0x7fffffffu : ~order);
#pragma unroll
        for (int i = 0; i < per; i++)
            if (rank[i] == best) rank[i] = 0;
        return e;
    }
};

DEVICE int bitsIn(u32 x) {
    x -= x >> 1 & 0x55555555u;
    x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
    return int(((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24);
}

// Route, in three launches. A block takes 64 tokens; which of them chose expert e are the bits
// of chosen[0][e] and chosen[1][e], so that a pair's place within the block is a count of bits.
struct RouteArgs {
    const void* logits;
    void* weights;
    int *experts, *slots, *tokens, *starts;
    int* counts; // [blocks+1][E]: of a block, then (route_offsets) of the blocks before it; the last row: of all
    u64 logitsStride, weightsStride;
    int rows, count, k, blocks; // T, E, K
    u32 normalize, logitsType, weightsType;
};

const int routeTokens = 64;

// route_choose_P: experts, weights and the block's counts; a warp a token.
template <int per> DEVICE void routeChoose(const RouteArgs& a) {
    SHARED u32 chosen[2][32 * per];
    int lane = threadIdx.x % 32;
    for (int e = threadIdx.x; e < a.count; e += 256) chosen[0][e] = chosen[1][e] = 0;
    barrier();
    for (int i = threadIdx.x / 32; i < routeTokens; i += 8) {
        int t = blockIdx.x * routeTokens + i;
        if (t >= a.rows) break;
        Logits<per> l;
        l.load(a.logits, u64(t) * a.logitsStride, a.count, a.logitsType);
        Ranks<per> ranks(l, a.count);
        float top = 0, mine = -infinity();
        int id = 0;
        for (int c = 0; c < a.k; c++) {
            float logit;
            int e = ranks.take(logit);
            if (c == 0) top = logit;
            if (c == lane) id = e, mine = logit;
        }
        float weight = lane < a.k ? expf(mine - top) : 0, sum = weight;
        if (!a.normalize) {
            sum = 0;
#pragma unroll
            for (int j = 0; j < per; j++) sum += lane + 32 * j < a.count ? expf(l.v[j] - top) : 0;
        }
        sum = warpSum(sum);
        if (lane < a.k) {
            storeAny(a.weights, u64(t) * a.weightsStride + lane, a.weightsType, weight / sum);
            a.experts[i64(t) * a.k + lane] = id;
            atomicAddU32(&chosen[i / 32][id], 1u << i % 32); // each bit once
        }
    }
    barrier();
    for (int e = threadIdx.x; e < a.count; e += 256) a.counts[i64(blockIdx.x) * a.count + e] = bitsIn(chosen[0][e]) + bitsIn(chosen[1][e]);
}
KERNEL(route_choose_2, 256, RouteArgs, routeChoose<2>)
KERNEL(route_choose_8, 256, RouteArgs, routeChoose<8>)
KERNEL(route_choose_16, 256, RouteArgs, routeChoose<16>)

// scanBlock gives the sum of v over the threads before this one, of 256, and of all.
DEVICE int scanBlock(int v, int& all, int (&scratch)[8]) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, sum = v;
    for (int by = 1; by < 32; by *= 2) {
        int below = shuffleUp(sum, by);
        if (lane >= by) sum += below;
    }
    if (lane == 31) scratch[warp] = sum;
    barrier();
    int before = 0;
    all = 0;
#pragma unroll
    for (int w = 0; w < 8; w++) {
        before += w < warp ? scratch[w] : 0;
        all += scratch[w];
    }
    barrier();
    return before + sum - v;
}

// route_offsets: a block an expert.
DEVICE void routeOffsets(const RouteArgs& a) {
    SHARED int scratch[8];
    int e = blockIdx.x, sum = 0;
    for (int b0 = 0; b0 < a.blocks; b0 += 256) {
        int b = b0 + threadIdx.x, all;
        int* at = a.counts + i64(b) * a.count + e;
        int before = scanBlock(b < a.blocks ? *at : 0, all, scratch);
        if (b < a.blocks) *at = sum + before;
        sum += all;
    }
    if (threadIdx.x == 0) a.counts[i64(a.blocks) * a.count + e] = sum;
}
KERNEL(route_offsets, 256, RouteArgs, routeOffsets)

// route_place: the first block also writes Starts.
DEVICE void routePlace(const RouteArgs& a) {
    SHARED u32 chosen[2][mostExperts];
    SHARED int first[mostExperts]; // row of the block's first pair of an expert
    SHARED int scratch[8];
    const int* totals = a.counts + i64(a.blocks) * a.count;
    int sum = 0;
    for (int e0 = 0; e0 < a.count; e0 += 256) {
        int e = e0 + threadIdx.x, all;
        int before = scanBlock(e < a.count ? totals[e] : 0, all, scratch);
        if (e < a.count) {
            first[e] = sum + before + (a.blocks ? a.counts[i64(blockIdx.x) * a.count + e] : 0);
            chosen[0][e] = chosen[1][e] = 0;
            if (blockIdx.x == 0) a.starts[e] = sum + before;
        }
        sum += all;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) a.starts[a.count] = sum;
    barrier();
    i64 pair0 = i64(blockIdx.x) * routeTokens * a.k;
    int pairs = min(routeTokens, a.rows - int(blockIdx.x) * routeTokens) * a.k;
    for (int i = threadIdx.x; i < pairs; i += 256) {
        int t = i / a.k;
        atomicAddU32(&chosen[t / 32][a.experts[pair0 + i]], 1u << t % 32);
    }
    barrier();
    for (int i = threadIdx.x; i < pairs; i += 256) {
        int t = i / a.k, e = a.experts[pair0 + i];
        u32 below = (1u << t % 32) - 1;
        int row = first[e] + (t < 32 ? bitsIn(chosen[0][e] & below) : bitsIn(chosen[0][e]) + bitsIn(chosen[1][e] & below));
        a.slots[pair0 + i] = row;
        a.tokens[row] = blockIdx.x * routeTokens + t;
    }
}
KERNEL(route_place, 256, RouteArgs, routePlace)

// RouteBackward: DLogits [T, E] from DWeights [T, K]; a warp a token.
struct RouteBackwardArgs {
    void* dlogits;
    const void *dweights, *logits, *weights;
    const int* experts;
    u64 dlogitsStride, dweightsStride, logitsStride, weightsStride;
    int rows, count, k;
    u32 normalize, accumulate;
    u32 dlogitsType, dweightsType, logitsType, weightsType;
};

template <int per> DEVICE void routeBackward(const RouteBackwardArgs& a) {
    int lane = threadIdx.x % 32, t = blockIdx.x * 8 + threadIdx.x / 32;
    if (t >= a.rows) return;
    bool chosen = lane < a.k;
    int id = chosen ? a.experts[i64(t) * a.k + lane] : -1;
    float w = chosen ? loadAny(a.weights, u64(t) * a.weightsStride + lane, a.weightsType) : 0;
    float dw = chosen ? loadAny(a.dweights, u64(t) * a.dweightsStride + lane, a.dweightsType) : 0;
    float mean = warpSum(w * dw);
    Logits<per> p;
    float grad[per];
    if (!a.normalize) {
        p.load(a.logits, u64(t) * a.logitsStride, a.count, a.logitsType);
        p.softmax(a.count);
    }
#pragma unroll
    for (int i = 0; i < per; i++) grad[i] = a.normalize ? 0 : -mean * p.v[i];
    for (int c = 0; c < a.k; c++) {
        int e = shuffleFrom(id, c);
        float wc = shuffleFrom(w, c), dwc = shuffleFrom(dw, c);
#pragma unroll
        for (int i = 0; i < per; i++)
            if (e == lane + 32 * i) grad[i] = a.normalize ? wc * (dwc - mean) : p.v[i] * (dwc - mean);
    }
#pragma unroll
    for (int i = 0; i < per; i++) {
        int e = lane + 32 * i;
        if (e >= a.count) break;
        u64 at = u64(t) * a.dlogitsStride + e;
        float v = grad[i];
        if (a.accumulate) v += loadAny(a.dlogits, at, a.dlogitsType);
        storeAny(a.dlogits, at, a.dlogitsType, v);
    }
}
KERNEL(route_backward_2, 256, RouteBackwardArgs, routeBackward<2>)
KERNEL(route_backward_8, 256, RouteBackwardArgs, routeBackward<8>)
KERNEL(route_backward_16, 256, RouteBackwardArgs, routeBackward<16>)

// Combine and CombineBackward: Y, DY [T, H], X, DX [T·K, H], Weights, DWeights, Slots [T, K]; a
// block a token.
struct CombineArgs {
    void* y;        // Combine's result
    const void* dy; // CombineBackward's from here on
    void *dx, *dweights;
    const void *x, *weights;
    const int* slots;
    u64 yStride, dyStride, dxStride, dweightsStride, xStride, weightsStride;
    int cols, k;
    u32 vector; // rows are whole numbers of 16 bytes, at multiples of 16
};

template <class T> DEVICE void combine(const CombineArgs& a) {
    const int size = Pack<T>::size;
    u64 t = blockIdx.x;
    const int* slots = a.slots + t * a.k;
    const T *x = static_cast<const T*>(a.x), *weights = static_cast<const T*>(a.weights) + t * a.weightsStride;
    T* y = static_cast<T*>(a.y) + t * a.yStride;
    if (!a.vector) {
        for (int c = threadIdx.x; c < a.cols; c += blockDim.x) {
            float sum = 0;
            for (int k = 0; k < a.k; k++) sum = fmaf(toFloat(weights[k]), toFloat(x[u64(slots[k]) * a.xStride + c]), sum);
            y[c] = fromFloat<T>(sum);
        }
        return;
    }
    for (int c = threadIdx.x * size; c < a.cols; c += blockDim.x * size) {
        float sum[size] = {};
#pragma unroll 4
        for (int k = 0; k < a.k; k++) {
            Pack<T> v = {load16Streaming(x + u64(slots[k]) * a.xStride + c)};
            float w = toFloat(weights[k]);
#pragma unroll
            for (int i = 0; i < size; i++) sum[i] = fmaf(w, v.of(i), sum[i]);
        }
        Pack<T> out;
        out.set(sum);
        storePack(y + c, out);
    }
}
KERNEL(combine_f32, 256, CombineArgs, combine<float>)
KERNEL(combine_bf16, 256, CombineArgs, combine<bf16>)
KERNEL(combine_f16, 256, CombineArgs, combine<f16>)

// Four of a token's experts at a time: DY's row is read again for each four, from the cache.
template <class T> DEVICE void combineBackward(const CombineArgs& a) {
    const int size = Pack<T>::size, most = 4;
    SHARED float scratch[33];
    u64 t = blockIdx.x;
    const T *dy = static_cast<const T*>(a.dy) + t * a.dyStride, *x = static_cast<const T*>(a.x);
    T* dx = static_cast<T*>(a.dx);
    for (int k0 = 0; k0 < a.k; k0 += most) {
        float dot[most] = {}, w[most] = {};
        u64 slot[most] = {};
#pragma unroll
        for (int j = 0; j < most; j++)
            if (k0 + j < a.k) {
                slot[j] = a.slots[t * a.k + k0 + j];
                if (dx) w[j] = toFloat(static_cast<const T*>(a.weights)[t * a.weightsStride + k0 + j]);
            }
        if (a.vector) {
            for (int c = threadIdx.x * size; c < a.cols; c += blockDim.x * size) {
                Pack<T> d = loadPack(dy + c), v[most];
#pragma unroll
                for (int j = 0; j < most; j++)
                    if (a.dweights && k0 + j < a.k) v[j] = {load16Streaming(x + slot[j] * a.xStride + c)};
#pragma unroll
                for (int j = 0; j < most; j++) {
                    if (k0 + j >= a.k) break;
                    if (a.dweights)
#pragma unroll
                        for (int i = 0; i < size; i++) dot[j] = fmaf(d.of(i), v[j].of(i), dot[j]);
                    if (!dx) continue;
                    float scaled[size];
#pragma unroll
                    for (int i = 0; i < size; i++) scaled[i] = w[j] * d.of(i);
                    Pack<T> out;
                    out.set(scaled);
                    storePack(dx + slot[j] * a.dxStride + c, out);
                }
            }
        } else {
            for (int c = threadIdx.x; c < a.cols; c += blockDim.x) {
                float d = toFloat(dy[c]);
#pragma unroll
                for (int j = 0; j < most; j++) {
                    if (k0 + j >= a.k) break;
                    if (a.dweights) dot[j] = fmaf(d, toFloat(x[slot[j] * a.xStride + c]), dot[j]);
                    if (dx) dx[slot[j] * a.dxStride + c] = fromFloat<T>(w[j] * d);
                }
            }
        }
        if (!a.dweights) continue;
#pragma unroll
        for (int j = 0; j < most; j++) {
            if (k0 + j >= a.k) break;
            float sum = blockSum(dot[j], scratch);
            if (threadIdx.x == 0) static_cast<T*>(a.dweights)[t * a.dweightsStride + k0 + j] = fromFloat<T>(sum);
        }
    }
}
KERNEL(combine_backward_f32, 256, CombineArgs, combineBackward<float>)
KERNEL(combine_backward_bf16, 256, CombineArgs, combineBackward<bf16>)
KERNEL(combine_backward_f16, 256, CombineArgs, combineBackward<f16>)

// RouterLoss: Logits[i], DLogits[i] [T, E]. Sums over slices of a layer's rows, sums of
// those, the loss, and the gradients: with F constant,
//   d(Live·E·Σ F·P)/dl_j = E/layers·p_j·(F_j − Σ p·F),
// where a constant in all of F moves nothing: F − K/E loses fewer digits.
const int layersMost = 32; // of a launch; more take several
struct RouterLossArgs {
    double* loss;
    double* parts;  // [layers·slices][2][E]: choices, then probabilities
    double* totals; // [2][E]
    const int* live;
    const void* scale;
    const void* logits[layersMost];
    void* dlogits[layersMost]; // null: left out
    u64 logitsStride[layersMost], dlogitsStride[layersMost];
    int rows, count, k, layers; // layers of all launches together
    int firstLayer, slices;
    float coef;
    u32 scaleType, floatType, accumulate; // a bit a layer
};

// router_sums_P: block (slice, layer), a warp a row at a time, the warps' sums added in their order.
template <int per> DEVICE void routerSums(const RouterLossArgs& a) {
    SHARED double sums[2][32 * per];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, layer = blockIdx.y;
    int span = (a.rows + a.slices - 1) / a.slices, from = blockIdx.x * span, to = min(from + span, *a.live);
    double probabilities[per] = {};
    int choices[per] = {};
    for (int t = from + warp; t < to; t += 8) {
        Logits<per> l;
        l.load(a.logits[layer], u64(t) * a.logitsStride[layer], a.count, a.floatType);
        Ranks<per> ranks(l, a.count);
        for (int c = 0; c < a.k; c++) {
            float logit;
            int e = ranks.take(logit);
#pragma unroll
            for (int i = 0; i < per; i++) choices[i] += e == lane + 32 * i;
        }
        l.softmax(a.count);
#pragma unroll
        for (int i = 0; i < per; i++) probabilities[i] += l.v[i];
    }
    for (int w = 0; w < 8; w++) {
        if (warp == w)
#pragma unroll
            for (int i = 0; i < per; i++) {
                int e = lane + 32 * i;
                sums[0][e] = (w ? sums[0][e] : 0) + choices[i];
                sums[1][e] = (w ? sums[1][e] : 0) + probabilities[i];
            }
        barrier();
    }
    double* part = a.parts + (i64(a.firstLayer + layer) * a.slices + blockIdx.x) * 2 * a.count;
    for (int e = threadIdx.x; e < a.count; e += 256) part[e] = sums[0][e], part[a.count + e] = sums[1][e];
}
KERNEL(router_sums_2, 256, RouterLossArgs, routerSums<2>)
KERNEL(router_sums_8, 256, RouterLossArgs, routerSums<8>)
KERNEL(router_sums_16, 256, RouterLossArgs, routerSums<16>)

// router_totals: a block 32 of the 2·E sums, eight of its threads each.
DEVICE void routerTotals(const RouterLossArgs& a) {
    SHARED double sums[8][32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, at = blockIdx.x * 32 + lane, parts = a.layers * a.slices;
    double sum = 0;
    if (at < 2 * a.count)
#pragma unroll 4
        for (int i = warp; i < parts; i += 8) sum += a.parts[i64(i) * 2 * a.count + at];
    sums[warp][lane] = sum;
    barrier();
    if (warp || at >= 2 * a.count) return;
    for (int w = 1; w < 8; w++) sum += sums[w][lane];
    a.totals[at] = sum;
}
KERNEL(router_totals, 256, RouterLossArgs, routerTotals)

// router_loss: one block.
DEVICE void routerLoss(const RouterLossArgs& a) {
    SHARED double scratch[33];
    double live = *a.live, n = live * a.layers, sum = 0;
    for (int e = threadIdx.x; e < a.count; e += 256) sum += a.totals[e] / n * (a.totals[a.count + e] / n);
    sum = blockSum(sum, scratch);
    if (threadIdx.x == 0 && live > 0) *a.loss += live * a.count * sum;
}
KERNEL(router_loss, 256, RouterLossArgs, routerLoss)

// router_gradients_P: blocks of 64 rows by layers, a warp a row.
template <int per> DEVICE void routerGradients(const RouterLossArgs& a) {
    int lane = threadIdx.x % 32, layer = blockIdx.y, live = *a.live;
    void* to = a.dlogits[layer];
    if (!to) return;
    bool accumulate = a.accumulate >> layer & 1;
    double n = double(live) * a.layers;
    float f[per], factor = loadAny(a.scale, 0, a.scaleType) * a.coef * float(a.count) / float(a.layers);
#pragma unroll
    for (int i = 0; i < per; i++) {
        int e = lane + 32 * i;
        f[i] = e < a.count ? float(a.totals[e] / n - double(a.k) / a.count) : 0;
    }
    for (int r = threadIdx.x / 32; r < 64; r += 8) {
        int t = blockIdx.x * 64 + r;
        if (t >= a.rows) break;
        u64 at = u64(t) * a.dlogitsStride[layer] + lane;
        if (t >= live) {
            if (accumulate) break;
#pragma unroll
            for (int i = 0; i < per; i++)
                if (lane + 32 * i < a.count) storeAny(to, at + 32 * i, a.floatType, 0);
            continue;
        }
        Logits<per> p;
        p.load(a.logits[layer], u64(t) * a.logitsStride[layer], a.count, a.floatType);
        p.softmax(a.count);
        float mean = 0;
#pragma unroll
        for (int i = 0; i < per; i++) mean = fmaf(p.v[i], f[i], mean);
        mean = warpSum(mean);
#pragma unroll
        for (int i = 0; i < per; i++) {
            if (lane + 32 * i >= a.count) break;
            float g = factor * p.v[i] * (f[i] - mean);
            if (accumulate) g += loadAny(to, at + 32 * i, a.floatType);
            storeAny(to, at + 32 * i, a.floatType, g);
        }
    }
}
KERNEL(router_gradients_2, 256, RouterLossArgs, routerGradients<2>)
KERNEL(router_gradients_8, 256, RouterLossArgs, routerGradients<8>)
KERNEL(router_gradients_16, 256, RouterLossArgs, routerGradients<16>)
