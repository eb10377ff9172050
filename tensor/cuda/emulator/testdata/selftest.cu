// Kernels of the emulator's own tests.
#include "common.cuh"

struct SumArgs { const float* x; double* out; u64 n; };
// Each block sums its elements, in shared memory.
DEVICE void sumBlocks(const SumArgs& a) {
    SHARED double scratch[33];
    double v = 0;
    for (u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x; i < a.n; i += u64(gridDim.x) * blockDim.x) v += a.x[i];
    v = blockSum(v, scratch);
    if (threadIdx.x == 0) a.out[blockIdx.x] = v;
}
KERNEL(sum_blocks, 1024, SumArgs, sumBlocks)

struct MapArgs { const void* in; void* out; int n, parameter; };

// out[i] = in[i] + 1, no thread waits.
DEVICE void addOne(const MapArgs& a) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < a.n) static_cast<int*>(a.out)[i] = static_cast<const int*>(a.in)[i] + 1;
}
KERNEL(add_one, 256, MapArgs, addOne)

// Each row of 32 goes through every shuffle: out has 5 rows for each in.
DEVICE void shuffles(const MapArgs& a) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32, row = i / 32;
    int v = static_cast<const int*>(a.in)[i];
    int* out = static_cast<int*>(a.out) + row * 160 + lane;
    out[0] = shuffleXor(v, 5);
    out[32] = shuffleDown(v, 3);
    out[64] = shuffleUp(v, 7);
    out[96] = int(shuffleFrom(i64(v) << 32, 9) >> 32);
    out[128] = ballot(v % 3 == 0);
}
KERNEL(shuffles, 256, MapArgs, shuffles)

// Reverses 256 elements a block through dynamic shared memory.
DEVICE void reverse(const MapArgs& a) {
    int* s = dynamicShared<int>();
    s[threadIdx.x] = static_cast<const int*>(a.in)[blockIdx.x * 256 + threadIdx.x];
    if (!a.parameter) barrier(); // with a parameter: what forgetting it does
    static_cast<int*>(a.out)[blockIdx.x * 256 + threadIdx.x] = s[255 - threadIdx.x];
}
KERNEL(reverse, 256, MapArgs, reverse)

// One warp multiplies a [16, 16] by b [16, 8] (both row-major) into out [16, 8], its operands
// brought by cp.async and ldmatrix.
template <class T> DEVICE void multiplyTile(const MapArgs& a) {
    SHARED T s[16 * 16 + 16 * 16];
    int lane = threadIdx.x;
    const T* in = static_cast<const T*>(a.in);
    cpAsync16(s + lane * 8, in + lane * 8, true);
    cpAsyncCommit();
    // b's rows stand 16 apart in shared memory, its upper half zeros
    int row = lane / 2;
    cpAsync16(s + 256 + lane * 8, in + 256 + row * 8, lane % 2 == 0);
    cpAsyncCommit();
    if (!a.parameter) cpAsyncWait<0>(); // with a parameter: what forgetting it does
    else cpAsyncWait<1>();
    warpBarrier();
    u32 fragment[4], b[4];
    ldmatrix4(fragment, s + (lane % 16) * 16 + lane / 16 * 8);
    ldmatrix4Trans(b, s + 256 + (lane % 16) * 16 + lane / 16 * 8);
    float c[4] = {};
    mma(c, fragment, b[0], b[1], T{});
    float* out = static_cast<float*>(a.out);
    for (int r = 0; r < 4; r++) out[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = c[r];
}
KERNEL(multiply_bf16, 32, MapArgs, multiplyTile<bf16>)
KERNEL(multiply_f16, 32, MapArgs, multiplyTile<f16>)

// Every 16-bit pattern to float, and the float of in to both 16-bit types.
DEVICE void convert(const MapArgs& a) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    u32 x = static_cast<const u32*>(a.in)[i];
    u32* out = static_cast<u32*>(a.out) + i * 4;
    out[0] = floatBits(toFloat(bf16{u16(i)}));
    out[1] = floatBits(toFloat(f16{u16(i)}));
    out[2] = toBF16(bitsFloat(x)).bits;
    out[3] = toF16(bitsFloat(x)).bits;
}
KERNEL(convert, 256, MapArgs, convert)

// The last block to finish adds up all blocks' counts.
struct LastArgs { u32* counter; u32* parts; u32* out; };
DEVICE void last(const LastArgs& a) {
    SHARED u32 ticket;
    if (threadIdx.x == 0) {
        a.parts[blockIdx.x] = blockIdx.x;
        fence();
        ticket = atomicAddU32(a.counter, 1);
    }
    barrier();
    if (ticket != gridDim.x - 1 || threadIdx.x) return;
    u32 sum = 0;
    for (u32 i = 0; i < gridDim.x; i++) sum += a.parts[i];
    *a.out = sum;
}
KERNEL(last, 64, LastArgs, last)

// What is wrong on purpose, by parameter.
DEVICE void broken(const MapArgs& a) {
    int* out = static_cast<int*>(a.out);
    int lane = threadIdx.x % 32, v = lane;
    switch (a.parameter) {
    case 0: // half of a warp shuffles, the other half waits at the barrier
        if (lane < 16) v = shuffleXor(v, 1);
        barrier();
        break;
    case 1: // shuffles after some lanes have returned
        if (lane == 3) return;
        v = shuffleXor(v, 1);
        break;
    case 2: // different collectives
        v = lane < 16 ? int(ballot(true)) : shuffleXor(v, 1);
        break;
    case 3: // 16 bytes at a multiple of 4
        v = load16(out + 1).w[0];
        break;
    case 4: // far out of bounds
        out[i64(1) << 40] = 1;
        break;
    case 5: // one past the end
        out[a.n] = 1;
        break;
    case 6: // ldmatrix of global memory
        u32 r[4];
        ldmatrix4(r, out);
        break;
    }
    out[threadIdx.x] = v;
}
KERNEL(broken, 64, MapArgs, broken)

// The barrier counts threads that have returned; shared memory starts as NaNs.
DEVICE void early(const MapArgs& a) {
    SHARED float s[64];
    float* out = static_cast<float*>(a.out);
    out[64 + threadIdx.x] = s[threadIdx.x];
    if (threadIdx.x >= 40) return;
    s[threadIdx.x] = threadIdx.x;
    barrier();
    out[threadIdx.x] = s[39 - threadIdx.x];
}
KERNEL(early, 64, MapArgs, early)

// More local memory than a fiber's stack has.
DEVICE void deep(const MapArgs& a) {
    volatile int local[1 << 20];
    local[threadIdx.x * 1000] = threadIdx.x;
    static_cast<int*>(a.out)[threadIdx.x] = local[threadIdx.x * 1000];
}
KERNEL(deep, 64, MapArgs, deep)
