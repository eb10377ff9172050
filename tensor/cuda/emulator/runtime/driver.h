// Streams, events, graphs and memory, as libcuda's and cuBLASLt's entry points share them.
#pragma once

#include "runtime.h"

#include <atomic>

namespace emulator {

// enqueue does work now, or records it if the stream captures. Work returns a CUresult.
int enqueue(void* stream, std::function<int()> work);

// inDevice says whether device memory holds these bytes; it complains if not.
bool inDevice(const void* p, size_t bytes, const char* what);

// objects counts modules, graphs and cuBLASLt's handles and descriptors that live.
extern std::atomic<i64> objects;

// injected is the code that RINGTAIL_EMULATOR_FAIL has this call of a function fail with, or 0:
// "cuInit=100,cuMemAllocAsync=2@5", every call or only the fifth. After a code that ends a
// context (700 and its like) all calls that ask fail with it.
int injected(const char* call);

} // namespace emulator
