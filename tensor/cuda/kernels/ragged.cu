// Where the sequences of a packed row lie, as cuDNN's attention wants it told: the length
// of each, and for each tensor the offset of each in elements, one more than there are.
#include "common.cuh"

struct RaggedArgs {
    const int* starts;  // [sequences+1]
    int* to;            // [6, pitch]: lengths, then starts times each stride
    int sequences, pitch;
    int strides[5];
};

// Grid: enough threads for sequences+1. Floor: a launch.
DEVICE void raggedOffsets(const RaggedArgs& a) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i > a.sequences) return;
    int start = a.starts[i];
    if (i < a.sequences) a.to[i] = a.starts[i + 1] - start;
    for (int k = 0; k < 5; k++) a.to[(k + 1) * a.pitch + i] = start * a.strides[k];
}

KERNEL(offsets, 256, RaggedArgs, raggedOffsets)
