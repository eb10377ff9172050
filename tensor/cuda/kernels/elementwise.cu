// Operations on elements alone: Zero, Copy, Add, Scale, the activations, GLU, SoftCap;
// and sums of rows (the gradient of a bias, the end of other sums over rows).
//
// All but the sums see planes of rows × (cols/N) units of N elements, N being 8 where
// everything lies at multiples of 16 bytes and 1 elsewhere; a dense tensor is one row.
// A block of 256 threads is 256/w rows of w threads, w a power of two that the host
// chooses; a thread has two units of a row, where that is cheap both loaded before either is stored. Each element
// is read before it is written by the same thread, so results may replace operands.
//
// Floor: bytes read and written once each, e.g. Add over [16384, 4096] bf16: 403 MB,
// 94 µs at 4.3 TB/s; GLU to [16384, 8192]: 805 MB, 187 µs; its gradient 1.34 GB, 312 µs.
#include "common.cuh"

struct ElementwiseArgs {
    void* y;          // result
    const void *a, *b;
    u64 rows, units;  // units of N elements in a row
    u64 ys, as, bs;   // elements from row to row
    float f;          // Scale's factor, SoftCap's limit
    u32 logWidth;     // log2 of w
    u32 act;          // tensor.Activation
};

// The units of a thread: row by row, two of a row, w apart.
struct Walk {
    u64 row, rowStep, first, width;
    DEVICE Walk(const ElementwiseArgs& a) {
        width = u64(1) << a.logWidth;
        first = u64(blockIdx.x) * 2 * width + (threadIdx.x & (width - 1));
        row = u64(blockIdx.y) * (blockDim.x >> a.logWidth) + (threadIdx.x >> a.logWidth);
        rowStep = u64(gridDim.y) * (blockDim.x >> a.logWidth);
    }
};

// y = op(a), op(a, b): N elements at a time, U units in flight. Costly functions take one, as
// the code is repeated for each.
template <class Y, class A, int N, class Op, int U = 2> DEVICE void map1(const ElementwiseArgs& a) {
    Walk w(a);
    for (u64 r = w.row; r < a.rows; r += w.rowStep)
#pragma unroll 1
        for (u64 c0 = w.first; c0 < w.first + 2 * w.width; c0 += U * w.width) {
            float v[U][N];
            for (int u = 0; u < U; u++)
                if (u64 c = c0 + u * w.width; c < a.units) loadElements(static_cast<const A*>(a.a) + r * a.as + c * N, v[u]);
            for (int u = 0; u < U; u++)
                if (u64 c = c0 + u * w.width; c < a.units) {
                    float y[N];
                    for (int i = 0; i < N; i++) y[i] = Op::of(v[u][i], a.f);
                    storeElements(static_cast<Y*>(a.y) + r * a.ys + c * N, y);
                }
        }
}
template <class Y, class A, class B, int N, class Op, int U = 2> DEVICE void map2(const ElementwiseArgs& a) {
    Walk w(a);
    for (u64 r = w.row; r < a.rows; r += w.rowStep)
#pragma unroll 1
        for (u64 c0 = w.first; c0 < w.first + 2 * w.width; c0 += U * w.width) {
            float p[U][N], q[U][N];
            for (int u = 0; u < U; u++)
                if (u64 c = c0 + u * w.width; c < a.units) {
                    loadElements(static_cast<const A*>(a.a) + r * a.as + c * N, p[u]);
                    loadElements(static_cast<const B*>(a.b) + r * a.bs + c * N, q[u]);
                }
            for (int u = 0; u < U; u++)
                if (u64 c = c0 + u * w.width; c < a.units) {
                    float y[N];
                    for (int i = 0; i < N; i++) y[i] = Op::of(p[u][i], q[u][i], a.f);
                    storeElements(static_cast<Y*>(a.y) + r * a.ys + c * N, y);
                }
        }
}

// --- Zero, Copy ---

// Units of memory, whatever they hold; strides are in units.
template <class T> DEVICE void zero(const ElementwiseArgs& a) {
    Walk w(a);
    for (u64 r = w.row; r < a.rows; r += w.rowStep)
        for (int u = 0; u < 2; u++) {
            u64 c = w.first + u * w.width;
            if (c < a.units) static_cast<T*>(a.y)[r * a.ys + c] = T{};
        }
}
template <class T> DEVICE void copy(const ElementwiseArgs& a) {
    Walk w(a);
    for (u64 r = w.row; r < a.rows; r += w.rowStep) {
        T v[2];
        for (int u = 0; u < 2; u++) {
            u64 c = w.first + u * w.width;
            if (c < a.units) v[u] = static_cast<const T*>(a.a)[r * a.as + c];
        }
        for (int u = 0; u < 2; u++) {
            u64 c = w.first + u * w.width;
            if (c < a.units) static_cast<T*>(a.y)[r * a.ys + c] = v[u];
        }
    }
}
KERNEL(zero_1, 256, ElementwiseArgs, zero<u8>)
KERNEL(zero_2, 256, ElementwiseArgs, zero<u16>)
KERNEL(zero_4, 256, ElementwiseArgs, zero<u32>)
KERNEL(zero_8, 256, ElementwiseArgs, zero<u64>)
KERNEL(zero_16, 256, ElementwiseArgs, zero<Bytes16>)
KERNEL(copy_1, 256, ElementwiseArgs, copy<u8>)
KERNEL(copy_2, 256, ElementwiseArgs, copy<u16>)
KERNEL(copy_4, 256, ElementwiseArgs, copy<u32>)
KERNEL(copy_8, 256, ElementwiseArgs, copy<u64>)
KERNEL(copy_16, 256, ElementwiseArgs, copy<Bytes16>)

struct Same { static DEVICE float of(float x, float) { return x; } };
KERNEL(copy_f32_bf16, 256, ElementwiseArgs, map1<bf16, float, 1, Same>)
KERNEL(copy_f32_bf16_x8, 256, ElementwiseArgs, map1<bf16, float, 8, Same>)
KERNEL(copy_bf16_f32, 256, ElementwiseArgs, map1<float, bf16, 1, Same>)
KERNEL(copy_bf16_f32_x8, 256, ElementwiseArgs, map1<float, bf16, 8, Same>)
KERNEL(copy_f32_f16, 256, ElementwiseArgs, map1<f16, float, 1, Same>)
KERNEL(copy_f32_f16_x8, 256, ElementwiseArgs, map1<f16, float, 8, Same>)
KERNEL(copy_f16_f32, 256, ElementwiseArgs, map1<float, f16, 1, Same>)
KERNEL(copy_f16_f32_x8, 256, ElementwiseArgs, map1<float, f16, 8, Same>)
KERNEL(copy_bf16_f16, 256, ElementwiseArgs, map1<f16, bf16, 1, Same>)
KERNEL(copy_bf16_f16_x8, 256, ElementwiseArgs, map1<f16, bf16, 8, Same>)
KERNEL(copy_f16_bf16, 256, ElementwiseArgs, map1<bf16, f16, 1, Same>)
KERNEL(copy_f16_bf16_x8, 256, ElementwiseArgs, map1<bf16, f16, 8, Same>)

// x rounded to odd: where x is no float, the neighbour whose last bit is 1. A 16-bit
// type then rounds as from x itself, not a second time.
DEVICE float roundToOdd(double x) {
    float f = float(x);
    u32 bits = floatBits(f);
    if (double(f) == x || !(x == x) || bits & 1) return f;
    return bitsFloat(fabs(x) > fabs(double(f)) ? bits + 1 : bits - 1);
}
template <class T> struct FromDouble { static DEVICE T of(double x) { return fromFloat<T>(roundToOdd(x)); } };
template <> struct FromDouble<float> { static DEVICE float of(double x) { return float(x); } };
template <> struct FromDouble<double> { static DEVICE double of(double x) { return x; } };
// Copies from and to F64, which occur at checkpoints and tests only.
template <class Y, class A> DEVICE void copyDouble(const ElementwiseArgs& a) {
    Walk w(a);
    for (u64 r = w.row; r < a.rows; r += w.rowStep)
        for (int u = 0; u < 2; u++) {
            u64 c = w.first + u * w.width;
            if (c < a.units) static_cast<Y*>(a.y)[r * a.ys + c] = FromDouble<Y>::of(toDouble(static_cast<const A*>(a.a)[r * a.as + c]));
        }
}
KERNEL(copy_f64_f32, 256, ElementwiseArgs, copyDouble<float, double>)
KERNEL(copy_f64_bf16, 256, ElementwiseArgs, copyDouble<bf16, double>)
KERNEL(copy_f64_f16, 256, ElementwiseArgs, copyDouble<f16, double>)
KERNEL(copy_f32_f64, 256, ElementwiseArgs, copyDouble<double, float>)
KERNEL(copy_bf16_f64, 256, ElementwiseArgs, copyDouble<double, bf16>)
KERNEL(copy_f16_f64, 256, ElementwiseArgs, copyDouble<double, f16>)

// --- Add, Scale ---

struct Sum { static DEVICE float of(float a, float b, float) { return a + b; } };
KERNEL(add_f32, 256, ElementwiseArgs, map2<float, float, float, 1, Sum>)
KERNEL(add_f32_x8, 256, ElementwiseArgs, map2<float, float, float, 8, Sum>)
KERNEL(add_bf16, 256, ElementwiseArgs, map2<bf16, bf16, bf16, 1, Sum>)
KERNEL(add_bf16_x8, 256, ElementwiseArgs, map2<bf16, bf16, bf16, 8, Sum>)
// y and a wide, b narrow.
KERNEL(add_f32_bf16, 256, ElementwiseArgs, map2<float, float, bf16, 1, Sum>)
KERNEL(add_f32_bf16_x8, 256, ElementwiseArgs, map2<float, float, bf16, 8, Sum>)

struct Times { static DEVICE float of(float x, float f) { return x * f; } };
KERNEL(scale_f32, 256, ElementwiseArgs, map1<float, float, 1, Times>)
KERNEL(scale_f32_x8, 256, ElementwiseArgs, map1<float, float, 8, Times>)
KERNEL(scale_bf16, 256, ElementwiseArgs, map1<bf16, bf16, 1, Times>)
KERNEL(scale_bf16_x8, 256, ElementwiseArgs, map1<bf16, bf16, 8, Times>)

// --- activations ---

// σ(x) = 1/(1+e^−x): 0 and 1 at the ends, never NaN but of NaN.
DEVICE float sigmoid(float x) { return reciprocalFast(1 + exp2Fast(-1.44269504f * x)); }

struct SiLU {
    static DEVICE float value(float x) { return x * sigmoid(x); }
    static DEVICE float both(float x, float& slope) {
        float s = sigmoid(x);
        slope = s * (1 + x * (1 - s));
        return x * s;
    }
};
struct GELU {
    static DEVICE float value(float x) { return x * (0.5f + 0.5f * erff(0.707106781f * x)); }
    static DEVICE float both(float x, float& slope) {
        float cdf = 0.5f + 0.5f * erff(0.707106781f * x);
        slope = cdf + x * (0.398942280f * exp2Fast(-0.721347520f * x * x));
        return x * cdf;
    }
};
// ½(1 + tanh u) = σ(2u), and its derivative is 2σ(2u)(1 − σ(2u))·u'.
struct GELUTanh {
    static DEVICE float inner(float x) { return 1.59576912f * x * (1 + 0.044715f * x * x); } // 2u
    static DEVICE float value(float x) { return x * sigmoid(inner(x)); }
    static DEVICE float both(float x, float& slope) {
        float s = sigmoid(inner(x)), d = s * (1 - s);
        slope = d == 0 ? s : s + x * d * 1.59576912f * (1 + 3 * 0.044715f * x * x); // where d is 0 its factor may be infinite
        return x * s;
    }
};
struct ReLU {
    static DEVICE float value(float x) { return x > 0 ? x : x <= 0 ? 0 : x; }
    static DEVICE float both(float x, float& slope) {
        slope = x > 0 ? 1 : x <= 0 ? 0 : x;
        return value(x);
    }
};
template <class Act> struct Value { static DEVICE float of(float x, float) { return Act::value(x); } };
template <class Act> struct SlopeTimes {
    static DEVICE float of(float dy, float x, float) {
        float slope;
        Act::both(x, slope);
        return dy * slope;
    }
};

template <class T, int N> DEVICE void activate(const ElementwiseArgs& a) {
    switch (a.act) {
    case 0: map1<T, T, N, Value<SiLU>, 1>(a); break;
    case 1: map1<T, T, N, Value<GELU>, 1>(a); break;
    case 2: map1<T, T, N, Value<GELUTanh>, 1>(a); break;
    default: map1<T, T, N, Value<ReLU>, 1>(a);
    }
}
// a is dy, b is x.
template <class T, int N> DEVICE void activateBackward(const ElementwiseArgs& a) {
    switch (a.act) {
    case 0: map2<T, T, T, N, SlopeTimes<SiLU>, 1>(a); break;
    case 1: map2<T, T, T, N, SlopeTimes<GELU>, 1>(a); break;
    case 2: map2<T, T, T, N, SlopeTimes<GELUTanh>, 1>(a); break;
    default: map2<T, T, T, N, SlopeTimes<ReLU>, 1>(a);
    }
}
KERNEL(activate_f32, 256, ElementwiseArgs, activate<float, 1>)
KERNEL(activate_f32_x8, 256, ElementwiseArgs, activate<float, 8>)
KERNEL(activate_bf16, 256, ElementwiseArgs, activate<bf16, 1>)
KERNEL(activate_bf16_x8, 256, ElementwiseArgs, activate<bf16, 8>)
KERNEL(activate_backward_f32, 256, ElementwiseArgs, activateBackward<float, 1>)
KERNEL(activate_backward_f32_x8, 256, ElementwiseArgs, activateBackward<float, 8>)
KERNEL(activate_backward_bf16, 256, ElementwiseArgs, activateBackward<bf16, 1>)
KERNEL(activate_backward_bf16_x8, 256, ElementwiseArgs, activateBackward<bf16, 8>)

struct Cap { static DEVICE float of(float x, float limit) { return limit * tanhf(x * (1 / limit)); } };
struct CapSlope {
    static DEVICE float of(float dy, float y, float limit) {
        float t = y * (1 / limit);
        return dy * (1 - t * t);
    }
};
KERNEL(soft_cap_f32, 256, ElementwiseArgs, map1<float, float, 1, Cap, 1>)
KERNEL(soft_cap_f32_x8, 256, ElementwiseArgs, map1<float, float, 8, Cap, 1>)
KERNEL(soft_cap_bf16, 256, ElementwiseArgs, map1<bf16, bf16, 1, Cap, 1>)
KERNEL(soft_cap_bf16_x8, 256, ElementwiseArgs, map1<bf16, bf16, 8, Cap, 1>)
KERNEL(soft_cap_backward_f32, 256, ElementwiseArgs, map2<float, float, float, 1, CapSlope, 1>)
KERNEL(soft_cap_backward_f32_x8, 256, ElementwiseArgs, map2<float, float, float, 8, CapSlope, 1>)
KERNEL(soft_cap_backward_bf16, 256, ElementwiseArgs, map2<bf16, bf16, bf16, 1, CapSlope, 1>)
KERNEL(soft_cap_backward_bf16_x8, 256, ElementwiseArgs, map2<bf16, bf16, bf16, 8, CapSlope, 1>)

// --- GLU: a [rows, 2n] holds gate and up, n = units·N ---

template <class T, int N, class Act> DEVICE void glu(const ElementwiseArgs& a) {
    Walk w(a);
    u64 n = a.units * N;
    for (u64 r = w.row; r < a.rows; r += w.rowStep) {
        const T* x = static_cast<const T*>(a.a) + r * a.as;
#pragma unroll 1
        for (u64 c = w.first; c < min(w.first + 2 * w.width, a.units); c += w.width) {
            float gate[N], up[N];
            loadElements(x + c * N, gate);
            loadElements(x + n + c * N, up);
            for (int i = 0; i < N; i++) up[i] *= Act::value(gate[i]);
            storeElements(static_cast<T*>(a.y) + r * a.ys + c * N, up);
        }
    }
}
// y is dx [rows, 2n], a is x, b is dy [rows, n].
template <class T, int N, class Act> DEVICE void gluBackward(const ElementwiseArgs& a) {
    Walk w(a);
    u64 n = a.units * N;
    for (u64 r = w.row; r < a.rows; r += w.rowStep) {
        const T* x = static_cast<const T*>(a.a) + r * a.as;
        T* dx = static_cast<T*>(a.y) + r * a.ys;
#pragma unroll 1
        for (u64 c = w.first; c < min(w.first + 2 * w.width, a.units); c += w.width) {
            float gate[N], up[N], dy[N];
            loadElements(x + c * N, gate);
            loadElements(x + n + c * N, up);
            loadElements(static_cast<const T*>(a.b) + r * a.bs + c * N, dy);
            for (int i = 0; i < N; i++) {
                float slope, value = Act::both(gate[i], slope);
                gate[i] = dy[i] * up[i] * slope;
                up[i] = dy[i] * value;
            }
            storeElements(dx + c * N, gate);
            storeElements(dx + n + c * N, up);
        }
    }
}
template <class T, int N> DEVICE void gluAny(const ElementwiseArgs& a) {
    switch (a.act) {
    case 0: glu<T, N, SiLU>(a); break;
    case 1: glu<T, N, GELU>(a); break;
    case 2: glu<T, N, GELUTanh>(a); break;
    default: glu<T, N, ReLU>(a);
    }
}
template <class T, int N> DEVICE void gluBackwardAny(const ElementwiseArgs& a) {
    switch (a.act) {
    case 0: gluBackward<T, N, SiLU>(a); break;
    case 1: gluBackward<T, N, GELU>(a); break;
    case 2: gluBackward<T, N, GELUTanh>(a); break;
    default: gluBackward<T, N, ReLU>(a);
    }
}
KERNEL(glu_f32, 256, ElementwiseArgs, gluAny<float, 1>)
KERNEL(glu_f32_x8, 256, ElementwiseArgs, gluAny<float, 8>)
KERNEL(glu_bf16, 256, ElementwiseArgs, gluAny<bf16, 1>)
KERNEL(glu_bf16_x8, 256, ElementwiseArgs, gluAny<bf16, 8>)
KERNEL(glu_backward_f32, 256, ElementwiseArgs, gluBackwardAny<float, 1>)
KERNEL(glu_backward_f32_x8, 256, ElementwiseArgs, gluBackwardAny<float, 8>)
KERNEL(glu_backward_bf16, 256, ElementwiseArgs, gluBackwardAny<bf16, 1>)
KERNEL(glu_backward_bf16_x8, 256, ElementwiseArgs, gluBackwardAny<bf16, 8>)

// --- sums of rows ---

struct SumRowsArgs {
    const void* x;  // [rows, cols]
    float* partial; // [gridDim.y, cols]
    u64 stride;     // of x
    u32 rows, cols;
    u32 share;      // rows of a block
};

// Block (x, y) sums its share y of the rows, in 32·N columns: 8 warps take a row each in
// turn, then their sums are added in order. Floor: x once; [16384, 4096] bf16 134 MB, 31 µs.
template <class T, int N> DEVICE void sumRows(const SumRowsArgs& a) {
    SHARED float sums[8][32 * N];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u64 column = (u64(blockIdx.x) * 32 + lane) * N;
    u32 end = min(a.rows, (blockIdx.y + 1) * a.share);
    float sum[N];
    for (int i = 0; i < N; i++) sum[i] = 0;
    if (column < a.cols) {
        const T* x = static_cast<const T*>(a.x) + column;
        u32 r = blockIdx.y * a.share + warp;
        for (; r + 24 < end; r += 32) { // four rows in flight
            float v[4][N];
            for (int k = 0; k < 4; k++) loadElements(x + u64(r + 8 * k) * a.stride, v[k]);
            for (int k = 0; k < 4; k++)
                for (int i = 0; i < N; i++) sum[i] += v[k][i];
        }
        for (; r < end; r += 8) {
            float v[N];
            loadElements(x + u64(r) * a.stride, v);
            for (int i = 0; i < N; i++) sum[i] += v[i];
        }
    }
    for (int i = 0; i < N; i++) sums[warp][i * 32 + lane] = sum[i];
    barrier();
    for (u32 j = threadIdx.x; j < 32 * N; j += blockDim.x) {
        u64 c = u64(blockIdx.x) * 32 * N + j;
        if (c >= a.cols) break;
        float total = 0;
        for (int k = 0; k < 8; k++) total += sums[k][j % N * 32 + j / N];
        a.partial[u64(blockIdx.y) * a.cols + c] = total;
    }
}
KERNEL(sum_rows_f32, 256, SumRowsArgs, sumRows<float, 1>)
KERNEL(sum_rows_f32_x8, 256, SumRowsArgs, sumRows<float, 8>)
KERNEL(sum_rows_bf16, 256, SumRowsArgs, sumRows<bf16, 1>)
KERNEL(sum_rows_bf16_x8, 256, SumRowsArgs, sumRows<bf16, 8>)

struct RowPartialsArgs {
    const float* partial; // [rows, cols]
    void* y;              // [cols]
    u64 stride;           // of partial
    u32 rows, cols;
};

// y += the sum of partial's rows; the second half of every sum over tokens. A block has 32
// columns and 16 warps.
template <class T> DEVICE void addRowPartials(const RowPartialsArgs& a) {
    SHARED float sums[16][33];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
    float sum = 0;
    if (column < a.cols) {
        const float* p = a.partial + column;
        u32 r = warp;
        for (; r + 48 < a.rows; r += 64) {
            float v[4];
            for (int k = 0; k < 4; k++) v[k] = p[u64(r + 16 * k) * a.stride];
            for (int k = 0; k < 4; k++) sum += v[k];
        }
        for (; r < a.rows; r += 16) sum += p[u64(r) * a.stride];
    }
    sums[warp][lane] = sum;
    barrier();
    if (warp == 0 && column < a.cols) {
        T* y = static_cast<T*>(a.y) + column;
        float total = 0;
        for (int k = 0; k < 16; k++) total += sums[k][lane];
        *y = fromFloat<T>(toFloat(*y) + total);
    }
}
KERNEL(add_row_partials_f32, 512, RowPartialsArgs, addRowPartials<float>)
KERNEL(add_row_partials_bf16, 512, RowPartialsArgs, addRowPartials<bf16>)
