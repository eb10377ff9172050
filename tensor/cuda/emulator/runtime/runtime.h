// What the emulator's parts ask of each other.
#pragma once

#define RINGTAIL_FAMILY ""
#include "common.cuh"

#include <functional>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace emulator {

const u32 maximumSharedOptIn = 227 << 10, maximumShared = 48 << 10;

std::vector<Kernel*>& kernels();

// One launch, from its arguments' copy on.
struct Launch {
    Kernel* kernel;
    Index grid, block;
    u32 shared;
    const void* arguments;
};

// checkLaunch and runLaunch return a CUresult.
int checkLaunch(const Launch&);
int runLaunch(const Launch&);

// parallel calls f(0) to f(n-1) on the pool's threads and this one.
void parallel(u64 n, const std::function<void(u64)>& f);

// A number of the environment, or otherwise.
u64 environment(const char* name, u64 otherwise);

// What went wrong goes to standard error: CUDA's codes alone don't say which thread of
// which kernel did it.
void complain(const char* format, ...) __attribute__((format(printf, 1, 2)));

} // namespace emulator
