// Sampling: one token from each row of logits, one block a row.
//
// TopK and TopP say where to cut the tokens ranked by their logit, equal ones by id.
// Nothing is sorted: the last token kept is found by radix selection on its rank,
// nine digits of 8 bits:
//
//   bucket   ⌊8·(m − z)/T⌋, at most 255: spreads the tokens that matter over many counters
//   key      the bits of z in an order that falls as z rises, four digits
//   id       four digits
//
// A pass over the row counts the tokens (TopK) or sums their probabilities (TopP) by the
// next digit, among those that agree in all digits before it; it ends as soon as one
// token is left, after about four.
//
// Probabilities are whole numbers, exp((z − m)/T) in units of 2^-40, so that their sums
// don't depend on the order, and a row's token on nothing but its logits and settings.
//
// Logits go in once, then a float32 copy is read again from the L2 cache, a pass each.
#include "common.cuh"

struct SampleRow {
    double uniform;
    float temperature, topP, minP, penalty;
    int topK;
    int tempered;
    int seen, seenCount;     // in tokens
    int banned, bannedCount;
};

struct SampleArgs {
    const void* logits;    // T [rows, vocab]
    float* z;              // [rows, vocab] of workspace
    int* ids;              // [rows]
    float* logProbs;       // [rows]
    const SampleRow* rows;
    const int* tokens;     // all rows' Seen and Banned
    u64 stride;            // of logits
    int vocab;
};

constexpr int levels = 9;

// Rank orders tokens: by bucket, then key, then id, the lowest first.
struct Rank { u32 bucket, key, id; };
DEVICE bool notAfter(const Rank& a, const Rank& b) {
    if (a.bucket != b.bucket) return a.bucket < b.bucket;
    return a.key != b.key ? a.key < b.key : a.id <= b.id;
}
DEVICE u32 digitOf(const Rank& r, int level) {
    if (level == 0) return r.bucket;
    return (level <= 4 ? r.key >> (8 * (4 - level)) : r.id >> (8 * (8 - level))) & 255;
}

// Row is what the passes over a row share.
struct Row {
    const float* z;
    u32 vocab;
    float largest, temperature, minP;
    Rank last; // the last token that is kept

    DEVICE float distance(float x) const { return (x - largest) / temperature; } // 0 or less
    DEVICE Rank rankOf(float x, u32 id) const {
        u32 bits = floatBits(x + 0.0f); // −0 is 0
        u32 ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
        return {u32(fminf(distance(x) * -8.0f, 255.0f)), ~ordered, id};
    }
    DEVICE bool exists(float x) const { return x > -infinity(); } // a NaN doesn't
    DEVICE u64 weight(float x) const { return u64(expf(distance(x)) * 1099511627776.0f); }
    // kept is the weight of a token, 0 if it isn't kept.
    DEVICE u64 kept(u32 id) const {
        float x = z[id];
        if (!exists(x)) return 0;
        float w = expf(distance(x));
        return w >= minP && notAfter(rankOf(x, id), last) ? u64(w * 1099511627776.0f) : 0;
    }
};

// Counters are of a pass, by digit. Masses have 64 bits: two words, whose sum of
// atomic additions and carries is exact in any order.
struct Counters {
    u32 count[256], low[256], high[256];
    u32 digit, found;
    u64 before;
};

// find sets digit to the one at which the cumulated count (or mass) reaches target,
// before to what precedes it and found to its count. Warp 0 calls it.
DEVICE void find(Counters& c, u64 target, bool byMass) {
    int lane = threadIdx.x;
    auto at = [&](int i) { return byMass ? u64(c.high[i]) << 32 | c.low[i] : u64(c.count[i]); };
    u64 mine = 0;
    for (int i = 0; i < 8; i++) mine += at(8 * lane + i);
    u64 upTo = mine;
    for (int by = 1; by < 32; by *= 2) {
        u64 other = shuffleUp(upTo, by);
        if (lane >= by) upTo += other;
    }
    u64 before = upTo - mine;
    if (before < target && target <= upTo) {
        for (int i = 8 * lane; i < 8 * lane + 8; i++) {
            if (target <= before + at(i)) {
                c.digit = i;
                c.found = c.count[i];
                c.before = before;
                break;
            }
            before += at(i);
        }
    }
}

// cut is the first token in rank, among those up to row.last, with which the count (or
// mass) reaches target, which is above 0 and no more than all of them have.
DEVICE Rank cut(const Row& row, Counters& c, u64 target, bool byMass) {
    Rank prefix = {0, 0, 0};
    u32 maskBucket = 0, maskKey = 0, maskID = 0; // digits that are known
    for (int level = 0; level < levels; level++) {
        for (u32 i = threadIdx.x; i < 256; i += blockDim.x) c.count[i] = c.low[i] = c.high[i] = 0;
        barrier();
        for (u32 v = threadIdx.x; v < row.vocab; v += blockDim.x) {
            float x = row.z[v];
            if (!row.exists(x)) continue;
            Rank r = row.rankOf(x, v);
            if (((r.bucket ^ prefix.bucket) & maskBucket) || ((r.key ^ prefix.key) & maskKey) || ((r.id ^ prefix.id) & maskID)) continue;
            if (!notAfter(r, row.last)) continue;
            u32 d = digitOf(r, level);
            atomicAddU32(&c.count[d], 1);
            if (byMass) {
                u64 w = row.weight(x);
                u32 low = u32(w), old = atomicAddU32(&c.low[d], low), high = u32(w >> 32) + (old + low < old);
                if (high) atomicAddU32(&c.high[d], high);
            }
        }
        barrier();
        if (threadIdx.x < 32) find(c, target, byMass);
        barrier();
        u32 d = c.digit, found = c.found;
        target -= c.before;
        barrier();
        if (level == 0) {
            prefix.bucket = d;
            maskBucket = ~0u;
        } else if (level <= 4) {
            prefix.key |= d << (8 * (4 - level));
            maskKey |= 255u << (8 * (4 - level));
        } else {
            prefix.id |= d << (8 * (8 - level));
            maskID |= 255u << (8 * (8 - level));
        }
        if (found == 1 || (!byMass && target == found)) break; // all of them are kept
    }
    prefix.key |= ~maskKey;
    prefix.id |= ~maskID;
    return notAfter(prefix, row.last) ? prefix : row.last;
}

// choose is the first kept token, by id, at which the cumulated weight exceeds uniform
// of the whole. Warps share the tokens in order, then those of the warp where it falls.
DEVICE u32 choose(const Row& row, double uniform, u64* masses) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    u32 from = 0, to = row.vocab;
    u64 target = 0;
    for (bool first = true; first || (to - from > 32 && warps > 1); first = false) {
        u32 span = (to - from + 32 * warps - 1) / (32 * warps) * 32;
        u64 mine = 0;
        for (u32 v = from + warp * span + lane; v < min(to, from + (warp + 1) * span); v += 32) mine += row.kept(v);
        mine = warpSum(mine);
        if (lane == 0) masses[warp] = mine;
        barrier();
        if (first) {
            u64 total = 0;
            for (u32 w = 0; w < warps; w++) total += masses[w];
            target = min(u64(uniform * double(total)), total - 1);
        }
        u32 w = 0;
        while (w + 1 < warps && masses[w] <= target) target -= masses[w++];
        from += w * span;
        to = min(to, from + span);
        barrier();
    }
    if (warp == 0) {
        u32 past = 0;
        for (u64 before = 0; from < to; from += 32) {
            u64 upTo = from + lane < to ? row.kept(from + lane) : 0;
            for (int by = 1; by < 32; by *= 2) {
                u64 other = shuffleUp(upTo, by);
                if (int(lane) >= by) upTo += other;
            }
            past = ballot(before + upTo > target);
            if (past) break;
            before += shuffleFrom(upTo, 31);
        }
        u32 at = 0;
        while (at < 31 && !(past >> at & 1)) at++;
        if (lane == 0) masses[0] = from + at;
    }
    barrier();
    return u32(masses[0]);
}

// Grid: one block a row, a multiple of 32 threads.
template <class T> DEVICE void sample(const SampleArgs& a) {
    SHARED Counters counters;
    SHARED double doubles[33];
    SHARED float floats[33];
    SHARED u64 wide[33];
    SHARED u32 first;
    u32 tid = threadIdx.x, width = blockDim.x, vocab = a.vocab;
    const SampleRow s = a.rows[blockIdx.x];
    const T* raw = static_cast<const T*>(a.logits) + blockIdx.x * a.stride;
    float* z = a.z + u64(blockIdx.x) * vocab;

    float most = -infinity();
#pragma unroll 4
    for (u32 v = tid; v < vocab; v += width) {
        float x = toFloat(raw[v]);
        z[v] = x;
        most = x > most ? x : most;
    }
    if (tid == 0) first = 0;
    most = blockMax(most, floats); // and z is there for all threads
    // Both look at raw, so that a token named twice is adjusted once; a ban holds whatever the penalty.
    if (s.penalty != 0 && s.penalty != 1) {
        for (int i = tid; i < s.seenCount; i += width) {
            int id = a.tokens[s.seen + i];
            float x = toFloat(raw[id]);
            z[id] = x > 0 ? x / s.penalty : x * s.penalty;
        }
        barrier();
    }
    for (int i = tid; i < s.bannedCount; i += width) z[a.tokens[s.banned + i]] = -infinity();
    barrier();

    // The largest logit, the lowest id that has it, and the sum for the log-probability.
    float t = s.tempered && s.temperature > 0 ? s.temperature : 1.0f;
    float largest = -infinity();
    u32 id = 0;
    double sum = 0;
    u64 tokens = 0;
#pragma unroll 4
    for (u32 v = tid; v < vocab; v += width) {
        float x = z[v];
        if (x > largest) {
            largest = x;
            id = v;
        }
        tokens += x > -infinity();
        sum += expf((toFloat(raw[v]) - most) / t);
    }
    float mine = largest;
    largest = blockMax(largest, floats);
    if (mine == largest) atomicMaxU32(&first, ~id);
    sum = blockSum(sum, doubles);
    tokens = blockSum(tokens, wide);
    id = ~first;

    if (tokens == 0) {
        if (tid == 0) {
            a.ids[blockIdx.x] = -1;
            a.logProbs[blockIdx.x] = notANumber();
        }
        return;
    }
    if (s.temperature > 0 && largest < infinity()) {
        Row row = {z, vocab, largest, s.temperature, fminf(s.minP, 1.0f), {~0u, ~0u, ~0u}};
        if (s.topK > 0 && u64(s.topK) < tokens) row.last = cut(row, counters, s.topK, false);
        if (s.topP > 0 && s.topP < 1) {
            u64 mass = 0;
            for (u32 v = tid; v < vocab; v += width) {
                float x = z[v];
                if (row.exists(x) && notAfter(row.rankOf(x, v), row.last)) mass += row.weight(x);
            }
            mass = blockSum(mass, wide);
            u64 target = u64(ceil(double(s.topP) * double(mass)));
            row.last = cut(row, counters, max(u64(1), min(target, mass)), true);
        }
        id = choose(row, s.uniform, wide);
    }
    if (tid == 0) {
        a.ids[blockIdx.x] = int(id);
        a.logProbs[blockIdx.x] = float(double((toFloat(raw[id]) - most) / t) - log(sum));
    }
}
KERNEL(sample_f32, 1024, SampleArgs, sample<float>)
KERNEL(sample_bf16, 1024, SampleArgs, sample<bf16>)
KERNEL(sample_f16, 1024, SampleArgs, sample<f16>)
