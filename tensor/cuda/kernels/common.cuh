// What every kernel family shares: types, conversions, 16-byte accesses,
// reductions, and the instructions that are written as inline PTX.
//
// A kernel is a function template over the element type that takes one plain
// struct of arguments (pointers first, then 4-byte fields, as Go lays them out),
// made an entry point by KERNEL. Nothing here or in a family needs a CUDA header.
//
// Built with RINGTAIL_EMULATOR by a C++ compiler, the same sources run on the
// CPU (tensor/cuda/emulator): there emulator.h stands in for the compiler's
// built-ins and for everything in the #else branch.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// 16-bit floats: their bits alone, converted by the functions below.
struct bf16 { u16 bits; };
struct f16 { u16 bits; };

#ifdef RINGTAIL_EMULATOR
#include "emulator.h"
#else

#define DEVICE __device__ __forceinline__
#define SHARED __shared__

// KERNEL(name, threads, Args, function) makes an entry point of at most that many
// threads a block; KERNEL_MIN also asks for that many blocks on a multiprocessor.
#define KERNEL(name, threads, Args, ...) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Args a) { (__VA_ARGS__)(a); }
#define KERNEL_MIN(name, threads, blocks, Args, ...) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Args a) { (__VA_ARGS__)(a); }

// Threads of a block meet.
DEVICE void barrier() { __syncthreads(); }
// Threads of a warp meet.
DEVICE void warpBarrier() { __syncwarp(); }
// Memory that the launch gave the block, from a multiple of 128 bytes on.
extern __shared__ __align__(128) u8 dynamicSharedBytes[];
template <class T> DEVICE T* dynamicShared() { return reinterpret_cast<T*>(dynamicSharedBytes); }

// Exchange within a warp, all 32 lanes taking part; T has 4 or 8 bytes.
template <class T> DEVICE T shuffleXor(T v, int mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
template <class T> DEVICE T shuffleDown(T v, int by) { return __shfl_down_sync(0xffffffffu, v, by); }
template <class T> DEVICE T shuffleUp(T v, int by) { return __shfl_up_sync(0xffffffffu, v, by); }
template <class T> DEVICE T shuffleFrom(T v, int lane) { return __shfl_sync(0xffffffffu, v, lane); }
DEVICE u32 ballot(bool p) { return __ballot_sync(0xffffffffu, p); }

// Integer atomics. Float atomics are not used: their order would show in the result.
DEVICE u32 atomicAddU32(u32* p, u32 v) { return atomicAdd(p, v); }
DEVICE int atomicAddI32(int* p, int v) { return atomicAdd(p, v); }
DEVICE u32 atomicMaxU32(u32* p, u32 v) { return atomicMax(p, v); }
// Writes before it are seen by other blocks before writes after it.
DEVICE void fence() { __threadfence(); }
// A counter that other blocks raise: what they wrote before is seen after.
DEVICE u32 loadAcquire(const u32* p) { u32 v; asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory"); return v; }
// p[0..3] += v without waiting, where the caller sees to the order of additions; p is a multiple of 16 bytes.
DEVICE void addInOrder(float* p, const float (&v)[4]) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(p), "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3]) : "memory");
#else
    for (int i = 0; i < 4; i++) asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(p + i), "f"(v[i]) : "memory");
#endif
}

DEVICE float toFloat(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
DEVICE bf16 toBF16(float x) { bf16 y; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y; }
// Two at once: lo in the low half.
DEVICE u32 packBF16(float lo, float hi) { u32 y; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo)); return y; }
DEVICE float toFloat(f16 x) { float y; asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits)); return y; }
DEVICE f16 toF16(float x) { f16 y; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x)); return y; }
DEVICE u32 packF16(float lo, float hi) { u32 y; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo)); return y; }

DEVICE u32 floatBits(float x) { return __float_as_uint(x); }
DEVICE float bitsFloat(u32 x) { return __uint_as_float(x); }

// 2^x by the special function unit: relative error about 2^-22.
DEVICE float exp2Fast(float x) { float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
// √x, about 1 unit in the last place; 0 of subnormal numbers.
DEVICE float sqrtFast(float x) { float y; asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }
// 1/x, about 1 unit in the last place.
DEVICE float reciprocalFast(float x) { float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y; }

// 16 bytes from global to shared memory, past the registers; zeros where !valid.
DEVICE void cpAsync16(void* shared, const void* global, bool valid) {
    u32 s = u32(__cvta_generic_to_shared(shared));
    int n = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(s), "l"(global), "r"(n) : "memory");
}
DEVICE void cpAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending> DEVICE void cpAsyncWait() { asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory"); }

// ldmatrix: four 8x8 matrices of 16-bit elements; lane l gives the address of row l%8
// of matrix l/8.
DEVICE void ldmatrix4(u32 (&r)[4], const void* row) {
    u32 s = u32(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(s) : "memory");
}
DEVICE void ldmatrix4Trans(u32 (&r)[4], const void* row) {
    u32 s = u32(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(s) : "memory");
}

// mma.m16n8k16: c += a·b, fragments as the PTX manual lays them out.
DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, bf16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, f16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16 bytes as one access.
struct alignas(16) Bytes16 { u32 w[4]; };
DEVICE Bytes16 load16(const void* p) { uint4 v = *static_cast<const uint4*>(p); return {{v.x, v.y, v.z, v.w}}; }
DEVICE void store16(void* p, const Bytes16& b) { *static_cast<uint4*>(p) = make_uint4(b.w[0], b.w[1], b.w[2], b.w[3]); }
// Memory that is read once or written once: it should not push other lines out of the caches.
DEVICE Bytes16 load16Streaming(const void* p) { uint4 v = __ldcs(static_cast<const uint4*>(p)); return {{v.x, v.y, v.z, v.w}}; }
DEVICE void store16Streaming(void* p, const Bytes16& b) { __stcs(static_cast<uint4*>(p), make_uint4(b.w[0], b.w[1], b.w[2], b.w[3])); }

#endif

// --- the same for both ---

DEVICE float infinity() { return bitsFloat(0x7f800000u); }
DEVICE float notANumber() { return bitsFloat(0x7fc00000u); }
DEVICE float toFloat(float x) { return x; }
DEVICE double toDouble(double x) { return x; }
DEVICE double toDouble(float x) { return x; }
DEVICE double toDouble(bf16 x) { return toFloat(x); }
DEVICE double toDouble(f16 x) { return toFloat(x); }

// fromFloat<T>(x) rounds to nearest even.
template <class T> struct FromFloat;
template <> struct FromFloat<float> { static DEVICE float of(float x) { return x; } };
template <> struct FromFloat<bf16> { static DEVICE bf16 of(float x) { return toBF16(x); } };
template <> struct FromFloat<f16> { static DEVICE f16 of(float x) { return toF16(x); } };
template <class T> DEVICE T fromFloat(float x) { return FromFloat<T>::of(x); }

// Pack<T> is 16 bytes of elements: pack.of(i) as a float, i a constant.
template <class T> struct Pack {
    static constexpr int size = 16 / sizeof(T);
    Bytes16 b;
    DEVICE float of(int i) const;
    DEVICE void set(const float (&v)[size]);
};
template <> DEVICE float Pack<float>::of(int i) const { return bitsFloat(b.w[i]); }
template <> DEVICE void Pack<float>::set(const float (&v)[4]) {
    for (int i = 0; i < 4; i++) b.w[i] = floatBits(v[i]);
}
template <> DEVICE float Pack<bf16>::of(int i) const { return bitsFloat(i % 2 ? b.w[i / 2] & 0xffff0000u : b.w[i / 2] << 16); }
template <> DEVICE void Pack<bf16>::set(const float (&v)[8]) {
    for (int i = 0; i < 4; i++) b.w[i] = packBF16(v[2 * i], v[2 * i + 1]);
}
template <> DEVICE float Pack<f16>::of(int i) const { return toFloat(f16{u16(b.w[i / 2] >> (i % 2 * 16))}); }
template <> DEVICE void Pack<f16>::set(const float (&v)[8]) {
    for (int i = 0; i < 4; i++) b.w[i] = packF16(v[2 * i], v[2 * i + 1]);
}
template <class T> DEVICE Pack<T> loadPack(const T* p) { return {load16(p)}; }
template <class T> DEVICE void storePack(T* p, const Pack<T>& v) { store16(p, v.b); }

// N adjacent elements as floats, N being 1 or 8; 8 are read and written by 16-byte accesses.
template <class T> DEVICE void loadElements(const T* p, float (&v)[1]) { v[0] = toFloat(*p); }
template <class T> DEVICE void loadElements(const T* p, float (&v)[8]) {
    constexpr int n = Pack<T>::size;
    for (int k = 0; k < 8; k += n) {
        Pack<T> pack = loadPack(p + k);
        for (int i = 0; i < n; i++) v[k + i] = pack.of(i);
    }
}
template <class T> DEVICE void storeElements(T* p, const float (&v)[1]) { *p = fromFloat<T>(v[0]); }
template <class T> DEVICE void storeElements(T* p, const float (&v)[8]) {
    constexpr int n = Pack<T>::size;
    for (int k = 0; k < 8; k += n) {
        float part[n];
        for (int i = 0; i < n; i++) part[i] = v[k + i];
        Pack<T> pack;
        pack.set(part);
        storePack(p + k, pack);
    }
}

// Sums and maxima over a warp, in every lane; the order is fixed.
template <class T> DEVICE T warpSum(T v) {
    for (int m = 16; m; m >>= 1) v += shuffleXor(v, m);
    return v;
}
DEVICE float warpMax(float v) {
    for (int m = 16; m; m >>= 1) v = fmaxf(v, shuffleXor(v, m));
    return v;
}
// Sums and maxima over a block of up to 1024 threads, in every thread. All threads call
// them; scratch is shared memory of 33 elements, free again after the call.
template <class T> DEVICE T blockSum(T v, T* scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
    v = warpSum(v);
    if (lane == 0) scratch[warp] = v;
    barrier();
    if (warp == 0) {
        v = warpSum(lane < warps ? scratch[lane] : T(0));
        if (lane == 0) scratch[32] = v;
    }
    barrier();
    v = scratch[32];
    barrier();
    return v;
}
DEVICE float blockMax(float v, float* scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
    v = warpMax(v);
    if (lane == 0) scratch[warp] = v;
    barrier();
    if (warp == 0) {
        v = warpMax(lane < warps ? scratch[lane] : -infinity());
        if (lane == 0) scratch[32] = v;
    }
    barrier();
    v = scratch[32];
    barrier();
    return v;
}
