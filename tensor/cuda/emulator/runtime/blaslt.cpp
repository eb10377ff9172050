// cuBLASLt's entry points for D = alpha·op(A)·op(B) + beta·C (+ bias), column-major, of
// float32, float16 and bfloat16, sums in float32; with GELU (its tanh form) before or behind a
// stored matrix, or with sums of A's rows or B's columns. Of 8-bit floats, on compute capability 8.9
// and later, A transposed and B not, with scales. Values are cublasLt.h's.
#include "driver.h"

#include <algorithm>

namespace emulator {

enum Status { OK = 0, LtInvalidValue = 7, ExecutionFailed = 13, LtNotSupported = 15 };
enum Type { Float32 = 0, Float16 = 2, BFloat16 = 14, E4M3 = 28, E5M2 = 29 };
enum ScaleMode { OneScale = 0, OuterVector = 3 };
enum Compute { Compute32F = 68, Compute32FPedantic = 69, Compute32FFastTF32 = 77 };
enum Epilogue { Plain = 1, Bias = 4, GELU = 32, DGELU = 64, Aux = 128, SumsOfA = 256, SumsOfB = 512 };

struct Layout { u32 type, order; u64 rows, columns; i64 stride; int batch; i64 batchStride; };

struct Description {
    int compute, scale, pointerMode, transposeA, transposeB, transposeC, epilogue, biasType;
    const void* bias;
    i64 biasStride;
    void* aux;
    i64 auxStride;
    const void* scales[5]; // of A, B, C, D and for the largest of D: A's and B's alone may be set
    int scaleModes[2];
};

struct Preference { u64 workspace; u32 alignment[4]; };

// 64 bytes, as the caller has room for.
struct Algorithm { u64 mark, workspace; u32 alignment[4]; u64 number, reserved[3]; };
static const u64 mark = 0x6d6c612d6c696172;

struct HeuristicResult { Algorithm algorithm; size_t workspace; int status; float waves; int reserved[4]; };
static_assert(sizeof(Algorithm) == 64 && sizeof(HeuristicResult) == 96, "as cublasLt.h has them");

static bool isF8(u32 type) { return type == E4M3 || type == E5M2; }
static size_t sizeOf(u32 type) { return type == Float32 ? 4 : isF8(type) ? 1 : 2; }

// Numbers of 8 bits by their definition: sign, exponent, fraction.
static float fromF8(u8 code, u32 type) {
    int fraction = type == E4M3 ? 3 : 2, bias = type == E4M3 ? 7 : 15, exponent = (code & 0x7f) >> fraction, units = code & ((1 << fraction) - 1);
    float v = exponent ? ldexpf(units + (1 << fraction), exponent - bias - fraction) : ldexpf(units, 1 - bias - fraction);
    if (type == E4M3 && (code & 0x7f) == 0x7f) v = NAN;
    if (type == E5M2 && exponent == 31) v = units ? NAN : INFINITY;
    return code & 0x80 ? -v : v;
}

static float load(const void* p, i64 i, u32 type) {
    switch (type) {
    case Float32: return static_cast<const float*>(p)[i];
    case Float16: return toFloat(static_cast<const f16*>(p)[i]);
    case E4M3: case E5M2: return fromF8(static_cast<const u8*>(p)[i], type);
    default: return toFloat(static_cast<const bf16*>(p)[i]);
    }
}
static void store(void* p, i64 i, u32 type, float v) {
    switch (type) {
    case Float32: static_cast<float*>(p)[i] = v; break;
    case Float16: static_cast<f16*>(p)[i] = toF16(v); break;
    default: static_cast<bf16*>(p)[i] = toBF16(v);
    }
}

// To TF32's 10 bits of fraction, halves away from zero.
static float toTF32(float x) {
    u32 b = floatBits(x);
    return x - x != 0 ? x : bitsFloat((b + 0x1000) & ~0x1fffu);
}

static u64 bytesOf(const Layout& l) {
    if (!l.rows || !l.columns) return 0;
    u64 one = (l.columns - 1) * l.stride + l.rows;
    return ((std::max(l.batch, 1) - 1) * l.batchStride + one) * sizeOf(l.type);
}

// supportedF8 is what 12.9 takes of 8-bit floats, beside what supported says.
static int supportedF8(const Description& d, const Layout& a, const Layout& b, const Layout& out) {
    const char* capability = getenv("RINGTAIL_EMULATOR_CC");
    int major = 8, minor = 0;
    if (capability) sscanf(capability, "%d.%d", &major, &minor);
    if (10 * major + minor < 89 || !isF8(a.type) || !isF8(b.type) || (a.type == E5M2 && b.type == E5M2)) return LtNotSupported;
    if (!d.transposeA || d.transposeB || (d.epilogue != Plain && d.epilogue != Bias) || d.compute != Compute32F) return LtNotSupported;
    if (a.rows % 16 || a.columns % 16 || a.stride % 16 || b.stride % 16 || out.stride * sizeOf(out.type) % 16) return LtNotSupported;
    for (int mode : d.scaleModes) {
        if (mode != d.scaleModes[0] || (mode != OneScale && mode != OuterVector)) return LtNotSupported;
        if (mode == OuterVector && (major != 9 || environment("RINGTAIL_EMULATOR_BLAS", 120400) < 120900)) return LtNotSupported;
    }
    return OK;
}

// supported answers for shapes and types as cuBLASLt's table of types does.
static int supported(const Description& d, const Layout& a, const Layout& b, const Layout& c, const Layout& out) {
    for (const Layout* l : {&a, &b, &c, &out}) {
        if (l->type != Float32 && l->type != Float16 && l->type != BFloat16 && !(isF8(l->type) && (l == &a || l == &b))) return LtNotSupported;
        if (l->order != 0) return LtNotSupported;
        if (l->stride < i64(l->rows) || l->batch != a.batch) return LtInvalidValue;
    }
    u64 m = d.transposeA ? a.columns : a.rows, k = d.transposeA ? a.rows : a.columns;
    u64 n = d.transposeB ? b.rows : b.columns, kb = d.transposeB ? b.columns : b.rows;
    if (k != kb || out.rows != m || out.columns != n || c.rows != m || c.columns != n) {
        complain("cublasLtMatmul: op(A) is %llux%llu, op(B) %llux%llu, C %llux%llu, D %llux%llu", m, k, kb, n, c.rows, c.columns, out.rows, out.columns);
        return LtInvalidValue;
    }
    if (d.compute != Compute32F && d.compute != Compute32FPedantic && !(d.compute == Compute32FFastTF32 && a.type == Float32)) return LtNotSupported;
    if (d.scale != Float32 || d.transposeC || d.pointerMode > 1) return LtNotSupported;
    bool eight = isF8(a.type) || isF8(b.type);
    if (eight) {
        if (int status = supportedF8(d, a, b, out)) return status;
    } else if (a.type != b.type || (out.type != a.type && out.type != Float32) || d.scales[0] || d.scales[1]) {
        return LtNotSupported;
    }
    if (c.type != out.type) return LtNotSupported;
    switch (d.epilogue) {
    case Plain: case Bias: case GELU: case GELU | Bias: case GELU | Aux: case GELU | Aux | Bias: case DGELU | Aux: case SumsOfA: case SumsOfB: break;
    default: return LtNotSupported;
    }
    if (d.epilogue & (Bias | SumsOfA | SumsOfB) && d.biasType >= 0 && u32(d.biasType) != out.type) return LtNotSupported;
    if (d.epilogue & Aux && (d.auxStride < i64(out.rows) || d.auxStride % 8 || a.batch > 1 || reinterpret_cast<u64>(d.aux) % 16)) return LtInvalidValue;
    for (int i = 2; i < 5; i++) if (d.scales[i]) return LtNotSupported;
    return OK;
}

struct Product {
    Description d;
    Layout a, b, c, out;
    const void *A, *B, *C;
    void* D;
    float alpha, beta; // of the host
    const void *alphaAt, *betaAt; // of the device, or null
};

static float gelu(float x) { return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x))); }
static float geluSlope(float x) {
    float t = tanhf(0.79788456f * (x + 0.044715f * x * x * x));
    return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.79788456f * (1 + 3 * 0.044715f * x * x);
}

static int multiply(const Product& p) {
    float alpha = p.alphaAt ? *static_cast<const float*>(p.alphaAt) : p.alpha;
    float beta = p.betaAt ? *static_cast<const float*>(p.betaAt) : p.beta;
    i64 m = p.out.rows, n = p.out.columns, k = p.d.transposeA ? p.a.rows : p.a.columns;
    if (!inDevice(p.A, bytesOf(p.a), "cublasLtMatmul's A") || !inDevice(p.B, bytesOf(p.b), "cublasLtMatmul's B") ||
        !inDevice(p.D, bytesOf(p.out), "cublasLtMatmul's D") || (beta != 0 && !inDevice(p.C, bytesOf(p.c), "cublasLtMatmul's C"))) return 700;
    bool bias = p.d.epilogue & Bias, aux = p.d.epilogue & Aux, sumsOfA = p.d.epilogue == SumsOfA, sumsOfB = p.d.epilogue == SumsOfB;
    if ((sumsOfA || sumsOfB) && !inDevice(p.d.bias, (sumsOfA ? m : n) * sizeOf(p.out.type), "cublasLtMatmul's sums")) return 700;
    if (aux && !inDevice(p.d.aux, ((n - 1) * p.d.auxStride + m) * sizeOf(p.out.type), "cublasLtMatmul's stored matrix")) return 700;
    if (bias && !inDevice(p.d.bias, m * sizeOf(p.out.type), "cublasLtMatmul's bias")) return 700;
    for (int i = 0; i < 2; i++) {
        u64 count = p.d.scaleModes[i] == OneScale ? 1 : i == 0 ? m : n;
        if (p.d.scales[i] && !inDevice(p.d.scales[i], 4 * count, "cublasLtMatmul's scales")) return 700;
    }
    auto scaleAt = [&](int which, i64 i) {
        return p.d.scales[which] ? static_cast<const float*>(p.d.scales[which])[p.d.scaleModes[which] == OneScale ? 0 : i] : 1;
    };
    const i64 rows = 64, columns = 4;
    i64 padded = (m + rows - 1) / rows * rows;
    std::vector<float> a(padded * k), b(n * k); // a[k][m], b[n][k]
    for (int batch = 0; batch < std::max(p.a.batch, 1); batch++) {
        bool tf32 = p.d.compute == Compute32FFastTF32;
        i64 aStart = batch * p.a.batchStride, bStart = batch * p.b.batchStride;
        parallel((k + 63) / 64, [&](u64 chunk) {
            for (i64 l = chunk * 64; l < std::min<i64>(k, chunk * 64 + 64); l++) {
                for (i64 i = 0; i < m; i++) {
                    float v = load(p.A, aStart + (p.d.transposeA ? l + i * p.a.stride : i + l * p.a.stride), p.a.type);
                    a[l * padded + i] = tf32 ? toTF32(v) : v;
                }
                for (i64 j = 0; j < n; j++) {
                    float v = load(p.B, bStart + (p.d.transposeB ? j + l * p.b.stride : l + j * p.b.stride), p.b.type);
                    b[j * k + l] = tf32 ? toTF32(v) : v;
                }
            }
        });
        for (i64 i = 0; i < (sumsOfA ? m : sumsOfB ? n : 0); i++) {
            float sum = 0;
            for (i64 l = 0; l < k; l++) sum += sumsOfA ? a[l * padded + i] : b[i * k + l];
            store(const_cast<void*>(p.d.bias), i, p.out.type, sum);
        }
        i64 rowTiles = padded / rows, columnTiles = (n + columns - 1) / columns;
        parallel(rowTiles * columnTiles, [&](u64 tile) {
            i64 i0 = tile % rowTiles * rows, j0 = tile / rowTiles * columns, wide = std::min(columns, n - j0);
            float sums[columns][rows] = {};
            for (i64 l = 0; l < k; l++) {
                const float* row = &a[l * padded + i0];
                for (i64 j = 0; j < wide; j++) {
                    float v = b[(j0 + j) * k + l];
                    for (i64 i = 0; i < rows; i++) sums[j][i] += row[i] * v;
                }
            }
            for (i64 j = 0; j < wide; j++) {
                for (i64 i = 0; i < std::min(rows, m - i0); i++) {
                    float v = alpha * sums[j][i] * scaleAt(0, i0 + i) * scaleAt(1, j0 + j);
                    if (beta != 0) v += beta * load(p.C, batch * p.c.batchStride + (i0 + i) + (j0 + j) * p.c.stride, p.c.type);
                    if (bias) v += load(p.d.bias, batch * p.d.biasStride + i0 + i, p.out.type);
                    i64 at = (i0 + i) + (j0 + j) * p.d.auxStride;
                    if (p.d.epilogue & GELU) {
                        if (aux) store(p.d.aux, at, p.out.type, v);
                        v = gelu(v);
                    }
                    if (p.d.epilogue & DGELU) v *= geluSlope(load(p.d.aux, at, p.out.type));
                    store(p.D, batch * p.out.batchStride + (i0 + i) + (j0 + j) * p.out.stride, p.out.type, v);
                }
            }
        });
    }
    return 0;
}

static u64 theHandle;

// A setter of one field: the size must be the field's.
template <class T> static int set(T& field, const void* from, size_t bytes) {
    if (!from || bytes != sizeof(T)) return LtInvalidValue;
    memcpy(&field, from, sizeof(T));
    return OK;
}

} // namespace emulator

using namespace emulator;

EXPORT int cublasLtCreate(void** handle) { if (int code = injected("cublasLtCreate")) return code; objects++; *handle = &theHandle; return OK; }
EXPORT int cublasLtDestroy(void* handle) { objects--; return handle == &theHandle ? OK : LtInvalidValue; }
EXPORT size_t cublasLtGetVersion() { return environment("RINGTAIL_EMULATOR_BLAS", 120400); }
EXPORT size_t cublasLtGetCudartVersion() { return 12040; }
EXPORT const char* cublasLtGetStatusString(int status) {
    switch (status) {
    case OK: return "success";
    case LtInvalidValue: return "an unsupported value or parameter was passed to the function";
    case ExecutionFailed: return "the function failed to launch on the GPU";
    case LtNotSupported: return "the functionality requested is not supported";
    }
    return "<unknown>";
}

EXPORT int cublasLtMatmulDescCreate(Description** out, int compute, int scale) {
    Description* d = new Description();
    objects++;
    d->compute = compute;
    d->scale = scale;
    d->epilogue = Plain;
    d->biasType = -1;
    *out = d;
    return OK;
}
EXPORT int cublasLtMatmulDescDestroy(Description* d) { objects--; delete d; return OK; }
EXPORT int cublasLtMatmulDescSetAttribute(Description* d, int attribute, const void* from, size_t bytes) {
    switch (attribute) {
    case 0: return set(d->compute, from, bytes);
    case 1: return set(d->scale, from, bytes);
    case 2: return set(d->pointerMode, from, bytes);
    case 3: return set(d->transposeA, from, bytes);
    case 4: return set(d->transposeB, from, bytes);
    case 5: return set(d->transposeC, from, bytes);
    case 7: return set(d->epilogue, from, bytes);
    case 8: return set(d->bias, from, bytes);
    case 10: return set(d->biasStride, from, bytes);
    case 11: return set(d->aux, from, bytes);
    case 12: return set(d->auxStride, from, bytes);
    case 15: return bytes == 4 ? OK : LtInvalidValue; // multiprocessors to use
    case 17: case 18: case 19: case 20: case 21: return set(d->scales[attribute - 17], from, bytes);
    case 25: return bytes == 1 ? OK : LtInvalidValue; // fast accumulation, of 8-bit floats
    case 26: return set(d->biasType, from, bytes);
    case 31: case 32: return set(d->scaleModes[attribute - 31], from, bytes);
    }
    complain("cublasLtMatmulDescSetAttribute: attribute %d is not emulated", attribute);
    return LtInvalidValue;
}

EXPORT int cublasLtMatrixLayoutCreate(Layout** out, u32 type, u64 rows, u64 columns, i64 stride) {
    objects++;
    *out = new Layout{type, 0, rows, columns, stride, 1, 0};
    return OK;
}
EXPORT int cublasLtMatrixLayoutDestroy(Layout* l) { objects--; delete l; return OK; }
EXPORT int cublasLtMatrixLayoutSetAttribute(Layout* l, int attribute, const void* from, size_t bytes) {
    switch (attribute) {
    case 0: return set(l->type, from, bytes);
    case 1: return set(l->order, from, bytes);
    case 2: return set(l->rows, from, bytes);
    case 3: return set(l->columns, from, bytes);
    case 4: return set(l->stride, from, bytes);
    case 5: return set(l->batch, from, bytes);
    case 6: return set(l->batchStride, from, bytes);
    }
    complain("cublasLtMatrixLayoutSetAttribute: attribute %d is not emulated", attribute);
    return LtInvalidValue;
}

EXPORT int cublasLtMatmulPreferenceCreate(Preference** out) { objects++; *out = new Preference{0, {256, 256, 256, 256}}; return OK; }
EXPORT int cublasLtMatmulPreferenceDestroy(Preference* p) { objects--; delete p; return OK; }
EXPORT int cublasLtMatmulPreferenceSetAttribute(Preference* p, int attribute, const void* from, size_t bytes) {
    switch (attribute) {
    case 0: case 3: case 9: case 12: return OK; // search mode, reduction schemes, waves, implementations
    case 1: return set(p->workspace, from, bytes);
    case 5: case 6: case 7: case 8: return set(p->alignment[attribute - 5], from, bytes);
    }
    return LtInvalidValue;
}

EXPORT int cublasLtMatmulAlgoGetHeuristic(void* handle, Description* d, Layout* a, Layout* b, Layout* c, Layout* out, Preference* p, int most,
                                          HeuristicResult* results, int* found) {
    *found = 0;
    if (!d || !a || !b || !c || !out || !p || most < 1) return LtInvalidValue;
    if (int status = supported(*d, *a, *b, *c, *out)) return status;
    // Several that differ by name and workspace, so that a choice among them is exercised.
    for (int i = 0; i < std::min(most, 3); i++) {
        u64 workspace = std::min<u64>(p->workspace, i * 1024);
        HeuristicResult& r = results[i] = {};
        r.algorithm = {mark, workspace, {p->alignment[0], p->alignment[1], p->alignment[2], p->alignment[3]}, u64(i), {}};
        r.workspace = workspace;
        r.waves = 1;
        ++*found;
    }
    return OK;
}

EXPORT int cublasLtMatmulAlgoCheck(void* handle, Description* d, Layout* a, Layout* b, Layout* c, Layout* out, const Algorithm* algorithm, HeuristicResult* result) {
    if (handle != &theHandle || !d || !a || !b || !c || !out || !algorithm || !result || algorithm->mark != mark) return LtInvalidValue;
    if (int status = supported(*d, *a, *b, *c, *out)) return status;
    *result = {};
    result->algorithm = *algorithm;
    result->workspace = algorithm->workspace;
    result->waves = 1;
    return OK;
}

EXPORT int cublasLtMatmul(void* handle, Description* d, const void* alpha, const void* A, Layout* a, const void* B, Layout* b, const void* beta, const void* C,
                          Layout* c, void* D, Layout* out, const Algorithm* algorithm, void* workspace, size_t workspaceBytes, void* stream) {
    if (handle != &theHandle || !d || !a || !b || !c || !out || !alpha || !beta) return LtInvalidValue;
    if (int status = supported(*d, *a, *b, *c, *out)) return status;
    size_t needed = 0;
    if (algorithm) {
        if (algorithm->mark != mark) {
            complain("cublasLtMatmul: the algorithm is not one of cublasLtMatmulAlgoGetHeuristic");
            return LtInvalidValue;
        }
        const void* pointers[] = {A, B, C, D};
        for (int i = 0; i < 4; i++) {
            if (reinterpret_cast<u64>(pointers[i]) % algorithm->alignment[i]) {
                complain("cublasLtMatmul: %c at %p, but the algorithm was chosen for multiples of %u bytes", "ABCD"[i], pointers[i], algorithm->alignment[i]);
                return LtInvalidValue;
            }
        }
        needed = algorithm->workspace;
        if (needed > workspaceBytes || (needed && !inDevice(workspace, needed, "cublasLtMatmul's workspace"))) return LtInvalidValue;
    }
    for (auto& pair : {std::make_pair(A, a), std::make_pair(B, b), std::make_pair(static_cast<const void*>(D), out)}) {
        if (reinterpret_cast<u64>(pair.first) % sizeOf(pair.second->type)) return LtInvalidValue;
    }
    Product p = {*d, *a, *b, *c, *out, A, B, C, D, 0, 0, nullptr, nullptr};
    if (d->pointerMode) {
        p.alphaAt = alpha;
        p.betaAt = beta;
    } else {
        memcpy(&p.alpha, alpha, 4);
        memcpy(&p.beta, beta, 4);
    }
    int code = enqueue(stream, [=] {
        if (needed) memset(workspace, 0xff, needed);
        return emulator::multiply(p);
    });
    return code ? ExecutionFailed : OK;
}
