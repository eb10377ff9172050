// RoPE in place (tensor/ops.go). A thread has N pairs of 4 heads of a token: it reads cosines
// and sines once for them. N is 8 where everything lies at multiples of 16 bytes, else 1.
//
// Floor: the rotated columns read and written once; 16384 tokens of 40 heads of 128 in bf16:
// 336 MB, 78 µs at 4.3 TB/s.
#include "common.cuh"

struct RoPEArgs {
    void* x;
    const float *cos, *sin;
    const int* positions;
    u64 xs, cs, ss; // elements from row to row
    u32 tokens, heads, dim;
    u32 units; // units of N pairs in a head
    float direction; // −1: Inverse
    u32 unused;
};

template <class T, int N> DEVICE void rope(const RoPEArgs& a) {
    constexpr int B = 4; // heads of a thread, `quarter` apart
    u32 quarter = (a.heads + B - 1) / B, perToken = quarter * a.units;
    u32 i = blockIdx.x * blockDim.x + threadIdx.x;
    u64 token = i / perToken;
    if (token >= a.tokens) return;
    u32 rest = i - u32(token) * perToken, head = rest / a.units, c = (rest - head * a.units) * N;
    u64 p = a.positions[token];
    u32 half = a.units * N;
    T* x = static_cast<T*>(a.x) + token * a.xs + c;
    float u[B][N], v[B][N], cos[N], sin[N];
    for (int b = 0; b < B; b++)
        if (u32 h = head + b * quarter; h < a.heads) {
            loadElements(x + u64(h) * a.dim, u[b]);
            loadElements(x + u64(h) * a.dim + half, v[b]);
        }
    loadElements(a.cos + p * a.cs + c, cos);
    loadElements(a.sin + p * a.ss + c, sin);
    for (int k = 0; k < N; k++) sin[k] *= a.direction;
    for (int b = 0; b < B; b++)
        if (u32 h = head + b * quarter; h < a.heads) {
            float p[N], q[N];
            for (int k = 0; k < N; k++) {
                p[k] = u[b][k] * cos[k] - v[b][k] * sin[k];
                q[k] = v[b][k] * cos[k] + u[b][k] * sin[k];
            }
            storeElements(x + u64(h) * a.dim, p);
            storeElements(x + u64(h) * a.dim + half, q);
        }
}
KERNEL(rope_f32, 256, RoPEArgs, rope<float, 1>)
KERNEL(rope_f32_x8, 256, RoPEArgs, rope<float, 8>)
KERNEL(rope_bf16, 256, RoPEArgs, rope<bf16, 1>)
KERNEL(rope_bf16_x8, 256, RoPEArgs, rope<bf16, 8>)
