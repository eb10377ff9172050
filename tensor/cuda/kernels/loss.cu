// The softmax of rows of logits: cross-entropy, log-probabilities and entropies of
// chosen tokens, and their gradients.
//
// The host projects a chunk of rows on the vocabulary by a matmul, softmaxRows turns the
// logits [rows, V] of the chunk into losses and, in their place, into their gradients,
// and two more matmuls make DX and DW of these. So logits exist for one chunk at a time.
//
// With z a row's logits (after the soft cap), m the largest, at index top, and T the
// temperature,
//
//   D = (z − m)/T,  E = exp(D),  r = Σ_{j≠top} E,  s = 1 + r,  μ = Σ E·D / s
//   log-probability = D_a − log1p(r),  LSE = m/T + log1p(r),  entropy = log1p(r) − μ
//   dz_j = (dl·([j=a] − E_j/s) − dh·E_j/s·(D_j − μ)) / T
//
// and cross-entropy is T = 1, dl = −Scale. Nothing cancels: D ≤ 0, and where one token
// has nearly all of the probability, r is what is left of it, to the last digit.
//
// Traffic: logits in once, gradients out once, at 2 or 4 bytes an element each. One
// block takes one row, in two passes; as much of the row as is given shared memory is
// kept there between them, the rest of a large vocabulary is read again, from the L2
// cache (two rows a multiprocessor are in flight, 27 MB of rest for GPT-2's vocabulary).
#include "common.cuh"

struct SoftmaxRowsArgs {
    void* logits;             // L [rows, stride]; their gradients G go to the same bytes of each row
    const int* targets;       // [rows]; negative: none
    const float* scale;       // [1], or null: cross-entropy's gradient is scale·(p − [j = a])
    const float* dLogProbs;   // [rows] or null
    const float* dEntropies;  // [rows] or null
    float* losses;            // [rows] or null: −log-probability, 0 without a target
    u32* marks;               // [rows] or null: 0 without a target, 1, or 3 where the target has the largest logit
    float* logProbs;          // [rows] or null
    float* entropies;         // [rows] or null
    float* lse;               // [rows] or null
    u64 stride;               // elements of L, a multiple of 16 bytes, from a multiple of 16 bytes on
    int vocab;
    int padded;               // gradients from vocab on up to here are set to 0
    u32 kept;                 // packs of 16 bytes of a row that are kept in shared memory
    int gradient;             // 1: write it
    float softCap;            // capped kernels only
    float inverseTemperature;
};

// Scan is the state of the pass over some elements of a row: its largest logit, and
// sums over the others.
struct Scan {
    float raw;  // the largest logit, before the cap
    float th;   // tanh(raw/cap)
    int top;    // its index, the lowest among equals
    float rest; // Σ exp(D), the largest left out: −1 of no elements
    float mean; // Σ exp(D)·D (with entropy only)
};

constexpr float log2e = 1.44269504088896340736f;
// Beyond it exp(−x) is 0 in float32, and x·exp(−x) must be as well.
constexpr float farthest = 200;

DEVICE Scan emptyScan() { return {bitsFloat(0xff7fffffu), -1, 0x7fffffff, -1, 0}; }

// below is cap(x) − cap(top), from th = tanh(x/limit) and that of top: without the
// cancellation that a difference of two logits far from 0 has.
template <bool capped> DEVICE float below(float x, float th, float top, float thTop, float limit) {
    float d = x - top;
    return capped ? limit * tanhf(d / limit) * fmaf(-th, thTop, 1.0f) : d;
}

// include adds element j with logit x. A larger logit than the largest makes the latter one of the rest.
template <bool capped, bool entropy> DEVICE void include(Scan& a, float x, int j, float limit, float inverseT) {
    float th = capped ? tanhf(x / limit) : 0;
    bool larger = x > a.raw;
    float far = fabsf(below<capped>(x, th, a.raw, a.th, limit)) * inverseT;
    float e;
    if constexpr (entropy) {
        far = far > farthest ? farthest : far; // a NaN stays
        e = exp2Fast(-far * log2e);
        a.mean = larger ? e * fmaf(-far, a.rest + 1, a.mean) : fmaf(-e, far, a.mean);
    } else {
        e = exp2Fast(-far * log2e);
    }
    a.rest = fmaf(a.rest, larger ? e : 1.0f, e);
    a.raw = larger ? x : a.raw;
    a.th = larger ? th : a.th;
    a.top = larger ? j : a.top;
}

// merge is the scan of a's and b's elements together.
template <bool capped> DEVICE Scan merge(const Scan& a, const Scan& b, float limit, float inverseT) {
    bool second = b.raw > a.raw || (b.raw == a.raw && b.top < a.top);
    float far = fabsf(below<capped>(a.raw, a.th, b.raw, b.th, limit)) * inverseT;
    far = far > farthest ? farthest : far;
    float e = exp2Fast(-far * log2e);
    const Scan &high = second ? b : a, &low = second ? a : b;
    Scan r = high;
    r.rest = fmaf(low.rest + 1, e, high.rest);
    r.mean = fmaf(fmaf(-far, low.rest + 1, low.mean), e, high.mean);
    return r;
}

DEVICE Scan shuffled(const Scan& a, int mask) {
    return {shuffleXor(a.raw, mask), shuffleXor(a.th, mask), shuffleXor(a.top, mask), shuffleXor(a.rest, mask), shuffleXor(a.mean, mask)};
}

// blockMerge is the scan of a whole row, in every thread. It ends at a barrier.
template <bool capped> DEVICE Scan blockMerge(Scan a, float limit, float inverseT, Scan* scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    for (int m = 16; m; m >>= 1) a = merge<capped>(a, shuffled(a, m), limit, inverseT);
    if (lane == 0) scratch[warp] = a;
    barrier();
    if (warp == 0) {
        a = lane < warps ? scratch[lane] : emptyScan();
        for (int m = 16; m; m >>= 1) a = merge<capped>(a, shuffled(a, m), limit, inverseT);
        if (lane == 0) scratch[32] = a;
    }
    barrier();
    return scratch[32];
}

// storeGradients writes N gradients at a multiple of N elements.
template <class G, int N> DEVICE void storeGradients(G* at, const float (&v)[N]) {
    if constexpr (N * sizeof(G) == 16) {
        Pack<G> p;
        p.set(v);
        storePack(at, p);
    } else {
        static_assert(N == 4 && sizeof(G) == 2, "gradients are as wide as logits or half as wide");
        float w[8] = {v[0], v[1], v[2], v[3], 0, 0, 0, 0};
        Pack<G> p;
        p.set(w);
        *reinterpret_cast<u64*>(at) = u64(p.b.w[1]) << 32 | p.b.w[0];
    }
}

// Slope is what the gradient of a logit needs: that of any token but the target,
// E·(p + h·(D − μ))·slope of the cap, and that of the target.
template <bool capped, bool entropy> struct Slope {
    float top, thTop, mean, p, h, limit, inverseT;
    // of is the gradient of a token that isn't the target, or, with others not 0, of the
    // target: −p·others in place of E·p, others being the other tokens' share, times s.
    DEVICE float of(float x, float others) const {
        float th = capped ? tanhf(x / limit) : 0, slope = capped ? fmaf(-th, th, 1.0f) : 1;
        float d = below<capped>(x, th, top, thTop, limit) * inverseT, e = exp2Fast(d * log2e), g = others != 0 ? -p * others : e * p;
        if constexpr (entropy) {
            d = d < -farthest ? -farthest : d; // 0·∞ is no number
            g = fmaf(e * h, d - mean, g);
        }
        return g * slope;
    }
};

// Grid: one block a row, a multiple of 32 threads. Shared: kept·16 bytes.
template <class L, class G, bool capped, bool entropy> DEVICE void softmaxRows(const SoftmaxRowsArgs& a) {
    constexpr int n = Pack<L>::size;
    constexpr int ahead = capped ? 1 : 4; // packs that a thread has in flight
    SHARED Scan scratch[33];
    Bytes16* shared = dynamicShared<Bytes16>();
    u64 t = blockIdx.x;
    L* row = static_cast<L*>(a.logits) + t * a.stride;
    G* gradients = reinterpret_cast<G*>(row);
    u32 vocab = a.vocab, packs = vocab / n, kept = min(a.kept, packs); // and fewer than n elements more
    u32 tid = threadIdx.x, width = blockDim.x, tile = width * ahead;
    u32 last = packs * n + tid; // the element of them that this thread takes

    int target = a.targets[t];
    float dl = 0, dh = 0;
    if (a.scale) dl = -a.scale[0];
    if (a.dLogProbs) dl = a.dLogProbs[t];
    if (a.dEntropies) dh = a.dEntropies[t];
    bool used = target >= 0 && (a.losses || a.logProbs || dl != 0 || dh != 0);
    if (!used) {
        if (tid == 0) {
            if (a.losses) a.losses[t] = 0;
            if (a.marks) a.marks[t] = 0;
            if (a.logProbs) a.logProbs[t] = 0;
            if (a.entropies) a.entropies[t] = 0;
            if (a.lse) a.lse[t] = 0;
        }
        if (a.gradient) {
            float zeros[n] = {};
            for (u32 i = tid; i < packs; i += width) storeGradients(gradients + u64(i) * n, zeros);
            if (last < vocab) gradients[last] = fromFloat<G>(0);
            for (u32 i = vocab + tid; i < u32(a.padded); i += width) gradients[i] = fromFloat<G>(0);
        }
        return;
    }

    float limit = a.softCap, inverseT = a.inverseTemperature;
    Scan s = emptyScan();
    for (u32 base = tid; base < packs; base += tile) {
        Pack<L> q[ahead];
#pragma unroll
        for (int u = 0; u < ahead; u++) {
            u32 i = base + u * width;
            if (i < packs) q[u] = loadPack(row + u64(i) * n);
        }
#pragma unroll
        for (int u = 0; u < ahead; u++) {
            u32 i = base + u * width;
            if (i < packs) {
                if (a.gradient && i < kept) store16(shared + i, q[u].b);
#pragma unroll
                for (int k = 0; k < n; k++) include<capped, entropy>(s, q[u].of(k), int(i) * n + k, limit, inverseT);
            }
        }
    }
    float lastLogit = 0, targetLogit = 0;
    if (last < vocab) {
        lastLogit = toFloat(row[last]);
        include<capped, entropy>(s, lastLogit, int(last), limit, inverseT);
    }
    if (tid == 0) targetLogit = u32(target) < vocab ? toFloat(row[target]) : notANumber();
    s = blockMerge<capped>(s, limit, inverseT, scratch);

    float sum = 1 + s.rest, mean = s.mean / sum;
    float targetBelow = below<capped>(targetLogit, capped ? tanhf(targetLogit / limit) : 0, s.raw, s.th, limit) * inverseT;
    if (tid == 0) {
        float logSum = log1pf(s.rest), logProb = targetBelow - logSum;
        if (a.losses) a.losses[t] = -logProb;
        if (a.marks) a.marks[t] = s.top == target ? 3 : 1;
        if (a.logProbs) a.logProbs[t] = logProb;
        if (a.entropies) a.entropies[t] = logSum - mean;
        if (a.lse) a.lse[t] = (capped ? limit * s.th : s.raw) * inverseT + logSum;
    }
    if (!a.gradient) return;

    Slope<capped, entropy> slope = {s.raw, s.th, mean, -dl * inverseT / sum, -dh * inverseT / sum, limit, inverseT};
    // Gradients of half the width overtake nothing that is still to be read: those of
    // packs up to i end at pack i/2, which is kept or which this loop has read before a barrier.
    for (u32 first = 0; first < packs; first += tile) {
        Pack<L> q[ahead];
#pragma unroll
        for (int u = 0; u < ahead; u++) {
            u32 i = first + tid + u * width;
            if (i < packs) q[u].b = i < kept ? load16(shared + i) : load16(row + u64(i) * n);
        }
        if (sizeof(G) < sizeof(L) && first + tile > kept) barrier();
#pragma unroll
        for (int u = 0; u < ahead; u++) {
            u32 i = first + tid + u * width;
            if (i >= packs) continue;
            float v[n];
#pragma unroll
            for (int k = 0; k < n; k++) v[k] = slope.of(q[u].of(k), 0);
            storeGradients(gradients + u64(i) * n, v);
        }
    }
    barrier();
    if (last < vocab) gradients[last] = fromFloat<G>(slope.of(lastLogit, 0));
    for (u32 i = vocab + tid; i < u32(a.padded); i += width) gradients[i] = fromFloat<G>(0);
    barrier();
    if (tid == 0 && u32(target) < vocab) {
        // 1 − E_a/s is r/s for the largest.
        float others = target == s.top ? s.rest : sum - exp2Fast(targetBelow * log2e);
        gradients[target] = fromFloat<G>(others != 0 ? slope.of(targetLogit, others) : 0.0f);
    }
}

// With a cap the entropy costs little beside it.
#define SOFTMAX_ROWS(suffix, L, G)                                                                \
    KERNEL_MIN(softmax_##suffix, 512, 2, SoftmaxRowsArgs, softmaxRows<L, G, false, false>)        \
    KERNEL_MIN(softmax_entropy_##suffix, 512, 2, SoftmaxRowsArgs, softmaxRows<L, G, false, true>) \
    KERNEL_MIN(softmax_capped_##suffix, 512, 2, SoftmaxRowsArgs, softmaxRows<L, G, true, true>)

// logits_gradients
SOFTMAX_ROWS(f32_f32, float, float)
SOFTMAX_ROWS(f32_bf16, float, bf16)

struct SumLossArgs {
    double* loss;        // [3]: Σ losses, rows with a target, those of them that are right; added to
    const float* losses; // [rows]
    const u32* marks;    // [rows]
    int rows;
};

// One block, in a fixed order.
DEVICE void sumLoss(const SumLossArgs& a) {
    SHARED double scratch[33];
    double loss = 0, counted = 0, right = 0;
    for (int i = threadIdx.x; i < a.rows; i += blockDim.x) {
        u32 mark = a.marks[i];
        loss += mark ? double(a.losses[i]) : 0;
        counted += mark & 1;
        right += mark >> 1;
    }
    loss = blockSum(loss, scratch);
    counted = blockSum(counted, scratch);
    right = blockSum(right, scratch);
    if (threadIdx.x == 0) {
        a.loss[0] += loss;
        a.loss[1] += counted;
        a.loss[2] += right;
    }
}
KERNEL(sum_loss, 1024, SumLossArgs, sumLoss)
