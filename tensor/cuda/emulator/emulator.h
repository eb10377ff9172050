// The CPU's branch of ../kernels/common.cuh: what kernels use of the compiler's
// built-ins and of inline PTX, for a C++ compiler.
//
// A thread of a block is a fiber (runtime/block.cpp). All fibers of a block share one
// thread of the system, so shared memory is thread-local memory of it. What hardware
// leaves undefined is made to fail where that costs little: shared memory starts as
// NaNs, a warp's exchange needs all 32 lanes, 16-byte accesses must be aligned, and the
// order of blocks, warps and lanes changes from launch to launch.
#pragma once

#include <math.h>
#include <string.h>

#define DEVICE inline
#define SHARED static thread_local

namespace emulator {

struct Index { u32 x, y, z; };

// Where the running thread stands: the system's thread changes it as it switches fibers.
struct Here {
    Index threadIdx, blockIdx, blockDim, gridDim;
    u32 lane;
    void* dynamicShared;
    struct Thread* thread;
    struct Worker* worker;
    u32 initialised; // not zero, so that the linker puts this variable apart from shared memory
};
extern __thread Here here;

struct Kernel {
    const char *family, *name;
    u32 maximumThreads;
    size_t argumentBytes;
    void (*run)(const void* arguments);
    u32 dynamicShared; // the most that a launch may ask for, raised by cuFuncSetAttribute
};

struct Registration {
    Registration(const char* family, const char* name, u32 maximumThreads, size_t argumentBytes, void (*run)(const void*));
};

// What a warp does together: lanes that wait for each other must wait for the same.
enum Collective : u32 { None, WarpBarrier, Shuffle, Ballot, LoadMatrix, LoadMatrixTransposed, MultiplyBF16, MultiplyF16 };

void blockBarrier();
void warpBarrier();
// exchange returns what the 32 lanes passed. It holds until this lane's next collective.
const u64* exchange(Collective kind, u64 v);
void loadMatrix(u32 (&r)[4], const void* row, Collective kind);
void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, Collective kind);
void copyAsync16(void* shared, const void* global, bool valid);
void commitAsync();
void waitAsync(u32 pending);
[[noreturn]] void fail(int code, const char* format, ...) __attribute__((format(printf, 2, 3)));

template <class T> inline u64 toBits(T v) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles take values of 4 or 8 bytes");
    u64 bits = 0;
    memcpy(&bits, &v, sizeof(T));
    return bits;
}
template <class T> inline T fromBits(u64 bits) {
    T v;
    memcpy(&v, &bits, sizeof(T));
    return v;
}
inline void checkAligned16(const void* p) {
    if (reinterpret_cast<size_t>(p) % 16) fail(716, "16-byte access of %p, which is not a multiple of 16", p);
}

} // namespace emulator

#define threadIdx (emulator::here.threadIdx)
#define blockIdx (emulator::here.blockIdx)
#define blockDim (emulator::here.blockDim)
#define gridDim (emulator::here.gridDim)

#define KERNEL(name, threads, Args, ...)                                                                             \
    static void name##Run(const void* arguments) { (__VA_ARGS__)(*static_cast<const Args*>(arguments)); }            \
    static const emulator::Registration name##Registration(RINGTAIL_FAMILY, #name, threads, sizeof(Args), name##Run);
#define KERNEL_MIN(name, threads, blocks, Args, ...) KERNEL(name, threads, Args, __VA_ARGS__)

DEVICE void barrier() { emulator::blockBarrier(); }
DEVICE void warpBarrier() { emulator::warpBarrier(); }
template <class T> DEVICE T* dynamicShared() { return static_cast<T*>(emulator::here.dynamicShared); }

template <class T> DEVICE T shuffleFrom(T v, int lane) {
    return emulator::fromBits<T>(emulator::exchange(emulator::Shuffle, emulator::toBits(v))[lane & 31]);
}
template <class T> DEVICE T shuffleXor(T v, int mask) { return shuffleFrom(v, int(emulator::here.lane) ^ mask); }
// Lanes without such a neighbour keep their own value.
template <class T> DEVICE T shuffleDown(T v, int by) {
    int lane = emulator::here.lane;
    return shuffleFrom(v, lane + by < 32 ? lane + by : lane);
}
template <class T> DEVICE T shuffleUp(T v, int by) {
    int lane = emulator::here.lane;
    return shuffleFrom(v, lane >= by ? lane - by : lane);
}
DEVICE u32 ballot(bool p) {
    const u64* all = emulator::exchange(emulator::Ballot, p);
    u32 mask = 0;
    for (int i = 0; i < 32; i++) mask |= u32(all[i]) << i;
    return mask;
}

DEVICE u32 atomicAddU32(u32* p, u32 v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
DEVICE int atomicAddI32(int* p, int v) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
DEVICE u32 atomicMaxU32(u32* p, u32 v) {
    u32 old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
    while (old < v && !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
    return old;
}
DEVICE void fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
DEVICE u32 loadAcquire(const u32* p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
DEVICE void addInOrder(float* p, const float (&v)[4]) {
    for (int i = 0; i < 4; i++) p[i] += v[i];
}

DEVICE u32 floatBits(float x) { return emulator::fromBits<u32>(emulator::toBits(x)); }
DEVICE float bitsFloat(u32 x) { return emulator::fromBits<float>(x); }

DEVICE float toFloat(bf16 x) { return bitsFloat(u32(x.bits) << 16); }
DEVICE bf16 toBF16(float x) {
    u32 b = floatBits(x);
    if (x != x) return {0x7fff};
    return {u16((b + 0x7fff + (b >> 16 & 1)) >> 16)};
}
DEVICE u32 packBF16(float lo, float hi) { return toBF16(lo).bits | u32(toBF16(hi).bits) << 16; }
DEVICE float toFloat(f16 x) {
    u32 sign = u32(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fff;
    if (magnitude >= 0x7c00) return bitsFloat(sign | 0x7f800000u | (magnitude & 0x3ff) << 13);
    // The exponent's bias differs by 112; multiplying also makes subnormal numbers right.
    return bitsFloat(sign | floatBits(bitsFloat(magnitude << 13) * 0x1p112f));
}
DEVICE f16 toF16(float x) {
    u32 b = floatBits(x), sign = b >> 16 & 0x8000, magnitude = b & 0x7fffffff;
    if (x != x) return {0x7fff};
    if (magnitude >= 0x477ff000) return {u16(sign | 0x7c00)}; // 65520 and more
    if (magnitude < 0x38800000) return {u16(sign | (floatBits(bitsFloat(magnitude) + 0.5f) - 0x3f000000u))}; // subnormal: 0.5's last bit is 2^-24
    return {u16(sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13)};
}
DEVICE u32 packF16(float lo, float hi) { return toF16(lo).bits | u32(toF16(hi).bits) << 16; }

namespace emulator {
inline float flush(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }
} // namespace emulator
DEVICE float sqrtFast(float x) { return sqrtf(emulator::flush(x)); }
DEVICE float exp2Fast(float x) { return emulator::flush(exp2f(emulator::flush(x))); }
DEVICE float reciprocalFast(float x) { return emulator::flush(1 / emulator::flush(x)); }

DEVICE void cpAsync16(void* shared, const void* global, bool valid) { emulator::copyAsync16(shared, global, valid); }
DEVICE void cpAsyncCommit() { emulator::commitAsync(); }
template <int pending> DEVICE void cpAsyncWait() { emulator::waitAsync(pending); }

DEVICE void ldmatrix4(u32 (&r)[4], const void* row) { emulator::loadMatrix(r, row, emulator::LoadMatrix); }
DEVICE void ldmatrix4Trans(u32 (&r)[4], const void* row) { emulator::loadMatrix(r, row, emulator::LoadMatrixTransposed); }
DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, bf16) { emulator::multiply(c, a, b0, b1, emulator::MultiplyBF16); }
DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, f16) { emulator::multiply(c, a, b0, b1, emulator::MultiplyF16); }

struct alignas(16) Bytes16 { u32 w[4]; };
DEVICE Bytes16 load16(const void* p) {
    emulator::checkAligned16(p);
    Bytes16 b;
    memcpy(&b, p, 16);
    return b;
}
DEVICE void store16(void* p, const Bytes16& b) {
    emulator::checkAligned16(p);
    memcpy(p, &b, 16);
}
DEVICE Bytes16 load16Streaming(const void* p) { return load16(p); }
DEVICE void store16Streaming(void* p, const Bytes16& b) { store16(p, b); }

// CUDA's overloads of min and max.
DEVICE int min(int a, int b) { return a < b ? a : b; }
DEVICE int max(int a, int b) { return a > b ? a : b; }
DEVICE u32 min(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u32 max(u32 a, u32 b) { return a > b ? a : b; }
DEVICE i64 min(i64 a, i64 b) { return a < b ? a : b; }
DEVICE i64 max(i64 a, i64 b) { return a > b ? a : b; }
DEVICE u64 min(u64 a, u64 b) { return a < b ? a : b; }
DEVICE u64 max(u64 a, u64 b) { return a > b ? a : b; }
DEVICE float min(float a, float b) { return fminf(a, b); }
DEVICE float max(float a, float b) { return fmaxf(a, b); }
DEVICE double min(double a, double b) { return fmin(a, b); }
DEVICE double max(double a, double b) { return fmax(a, b); }
