// The threads of one block as fibers on one thread of the system.
#pragma once

#include "runtime.h"

#include <atomic>
#include <pthread.h>
#include <unordered_map>

namespace emulator {

// Of a fiber. A Waiting or Blocked thread runs again once its warp's or block's
// generation has changed.
enum State : u8 { Fresh, Running, Waiting, Blocked, Done };

struct AsyncCopy { void* shared; const void* global; u32 group; bool valid; };

struct Thread {
    void* sp;
    u8* stack;
    State state;
    u32 generation;
    u32 warp, lane;
    Index index;
    u32 groups; // of asynchronous copies, committed so far
    std::vector<AsyncCopy> copies;
};

struct Warp {
    u32 first, size, live, arrived, generation;
    Collective kind; // what the arrived ones wait for
    // By parity of generation: a lane may be one collective ahead of the slowest.
    u64 values[2][32];
    const void* rows[32];
    u32 operands[32][6];
    u32 matrices[2][32][4];
    float products[2][32][4];
};

struct Job {
    Launch launch;
    u64 blocks, stride, offset, seed;
    bool late; // asynchronous copies happen when they are waited for, not when they are issued
    std::atomic<u64> next;
    std::atomic<int> failed;
};

struct Range { size_t first, bytes; };
// What a kernel uses of static shared memory, as far as its launches have shown.
struct Uses {
    u64 launches = 0;
    std::vector<Range> ranges;
};

// A thread of the system as it runs blocks.
struct Worker {
    Job* job = nullptr;
    Thread threads[1024];
    Warp warps[32];
    u32 size, live, arrived, generation, warpCount;
    void* scheduler; // its stack's place while fibers run
    std::vector<u8*> stacks; // tops, free
    std::vector<u8*> allStacks;
    std::vector<u8*> chunks;
    u8* sharedEnd = nullptr; // dynamic shared memory ends here, before a page without access
    u8 *dynamicBase = nullptr, *staticBase = nullptr;
    size_t staticBytes;
    std::unordered_map<const Kernel*, Uses> used;
    pthread_t owner;
    std::atomic<bool> active{false};
    u8* emergency = nullptr; // top of the stack on which a segmentation fault is reported

    void prepare();
    void run(Job*);
    void runBlock(u64 block);
    void findTouched(std::vector<Range>& ranges) const;
    bool isShared(const void* p, size_t bytes) const;
};

} // namespace emulator
