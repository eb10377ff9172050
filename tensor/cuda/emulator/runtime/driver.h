// Streams, events, graphs and memory, as libcuda's and cuBLASLt's entry points share them.
#pragma once

#include "runtime.h"

namespace emulator {

// enqueue does work now, or records it if the stream captures. Work returns a CUresult.
int enqueue(void* stream, std::function<int()> work);

// inDevice says whether device memory holds these bytes; it complains if not.
bool inDevice(const void* p, size_t bytes, const char* what);

} // namespace emulator
