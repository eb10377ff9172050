// libcuda's entry points. All work is done at the call, in the caller's order; a capturing
// stream records it instead. Values are cuda.h's.
#include "driver.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <thread>

namespace emulator {

enum Result {
    Success = 0, InvalidValue = 1, OutOfMemory = 2, NotInitialized = 3, InvalidDevice = 101, InvalidImage = 200, InvalidContext = 201,
    InvalidHandle = 400, NotFound = 500, NotReady = 600, IllegalAddress = 700, HostMemoryAlreadyRegistered = 712,
    HostMemoryNotRegistered = 713, IllegalInstruction = 715, MisalignedAddress = 716, InvalidAddressSpace = 717, NotSupported = 801,
    CaptureUnsupported = 900, CaptureInvalidated = 901, CaptureMerge = 902, CaptureUnmatched = 903, CaptureUnjoined = 904,
    CaptureIsolation = 905, CaptureImplicit = 906, CapturedEvent = 907, CaptureWrongThread = 908,
};

static const struct { int code; const char *name, *text; } results[] = {
    {Success, "CUDA_SUCCESS", "no error"},
    {InvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {35, "CUDA_ERROR_INSUFFICIENT_DRIVER", "CUDA driver version is insufficient for CUDA runtime version"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {InvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {InvalidImage, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {InvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {InvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {NotReady, "CUDA_ERROR_NOT_READY", "device not ready"},
    {IllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {HostMemoryAlreadyRegistered, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"},
    {HostMemoryNotRegistered, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"},
    {IllegalInstruction, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"},
    {MisalignedAddress, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {InvalidAddressSpace, "CUDA_ERROR_INVALID_ADDRESS_SPACE", "operation not supported on global/shared address space"},
    {NotSupported, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
    {CaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {CaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {CaptureMerge, "CUDA_ERROR_STREAM_CAPTURE_MERGE", "operation would result in a merge of separate capture sequences"},
    {CaptureUnmatched, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began"},
    {CaptureUnjoined, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {CaptureIsolation, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
    {CaptureImplicit, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
    {CapturedEvent, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"},
    {CaptureWrongThread, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a thread-local capture sequence from another thread"},
};

static std::recursive_mutex lock; // of all that follows
typedef std::lock_guard<std::recursive_mutex> Locked;

// --- faults ---

int injected(const char* call) {
    static int broken; // by a code that ends the context
    static std::map<std::string, u64> calls;
    Locked locked(lock);
    if (broken) return broken;
    const char* list = getenv("RINGTAIL_EMULATOR_FAIL");
    if (!list || !*list) return Success;
    u64 count = ++calls[call];
    size_t length = strlen(call);
    for (const char* at = list; at; at = strchr(at, ','), at = at ? at + 1 : nullptr) {
        if (strncmp(at, call, length) || at[length] != '=') continue;
        char* rest;
        int code = strtol(at + length + 1, &rest, 10);
        if (*rest == '@' && strtoull(rest + 1, nullptr, 10) != count) continue;
        if (code == IllegalAddress || code == IllegalInstruction || code == MisalignedAddress || code == 719) broken = code;
        return code;
    }
    return Success;
}
#define FAULT(call) if (int code = injected(call)) return code

// --- memory ---

struct Allocation { size_t bytes; u8* mapping; size_t mapped; struct MemoryPool* pool; };
struct MemoryPool { u64 threshold = 0, used = 0, usedHigh = 0; };

static std::map<u8*, Allocation> allocations;
static std::map<u8*, size_t> hostRanges;
static u64 allocated;
static MemoryPool defaultPool;

static u64 totalMemory() {
    static u64 bytes = environment("RINGTAIL_EMULATOR_MEMORY", u64(4) << 30);
    return bytes;
}

static bool within(const std::map<u8*, Allocation>& in, const u8* p, size_t bytes) {
    auto i = in.upper_bound(const_cast<u8*>(p));
    if (i == in.begin()) return false;
    --i;
    return p + bytes <= i->first + i->second.bytes;
}

static bool registered(const u8* p, size_t bytes) {
    auto i = hostRanges.upper_bound(const_cast<u8*>(p));
    if (i == hostRanges.begin()) return false;
    --i;
    return p + bytes <= i->first + i->second;
}

bool inDevice(const void* pointer, size_t bytes, const char* what) {
    Locked locked(lock);
    const u8* p = static_cast<const u8*>(pointer);
    if (!bytes || within(allocations, p, bytes) || registered(p, bytes)) return true;
    complain("%s: %zu bytes at %p are not in one allocation of the device", what, bytes, pointer);
    return false;
}

// allocate fills memory with NaNs. With RINGTAIL_EMULATOR_GUARD=1 each allocation ends, or in
// every other one starts, at a page without access, and freed memory stays without access.
static int allocate(size_t bytes, MemoryPool* pool, u64* out) {
    if (!bytes) return InvalidValue;
    if (allocated + bytes > totalMemory()) return OutOfMemory;
    static bool guard = environment("RINGTAIL_EMULATOR_GUARD", 0);
    static u32 count;
    const size_t page = 4096;
    size_t whole = (bytes + page - 1) / page * page;
    Allocation a = {bytes, nullptr, whole + (guard ? 2 * page : 0), pool};
    void* m = mmap(nullptr, a.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED) return OutOfMemory;
    a.mapping = static_cast<u8*>(m);
    u8* p = a.mapping;
    if (guard) {
        mprotect(a.mapping, page, PROT_NONE);
        mprotect(a.mapping + page + whole, page, PROT_NONE);
        p += page;
        if (count++ % 4) p += whole - (bytes + 15) / 16 * 16;
    }
    memset(p, 0xff, bytes);
    allocated += bytes;
    if (pool) {
        pool->used += bytes;
        pool->usedHigh = std::max(pool->usedHigh, pool->used);
    }
    allocations[p] = a;
    *out = reinterpret_cast<u64>(p);
    return Success;
}

static int release(u64 address) {
    if (!address) return Success;
    auto i = allocations.find(reinterpret_cast<u8*>(address));
    if (i == allocations.end()) {
        complain("free of %#llx, which no allocation starts at", address);
        return InvalidValue;
    }
    static bool guard = environment("RINGTAIL_EMULATOR_GUARD", 0);
    Allocation& a = i->second;
    allocated -= a.bytes;
    if (a.pool) a.pool->used -= a.bytes;
    if (guard) mmap(a.mapping, a.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    else munmap(a.mapping, a.mapped);
    allocations.erase(i);
    return Success;
}

// --- streams, events, captures ---

std::atomic<i64> objects;
struct Counted {
    Counted() { objects++; }
    Counted(const Counted&) { objects++; }
    ~Counted() { objects--; }
};

struct Graph : Counted { std::vector<std::function<int()>> nodes; };

// What a point of a stream comes after: for each stream of the capture, that many nodes.
typedef std::map<struct Stream*, u64> Clock;

struct Capture {
    Graph graph;
    Stream* origin;
    int mode;
    std::thread::id thread;
    bool invalid = false;
    std::set<Stream*> streams;
};

struct Stream {
    u32 flags = 0;
    Capture* capture = nullptr;
    Clock clock;
};

struct Event {
    bool recorded = false, captured = false;
    Capture* capture = nullptr; // only compared: it may have ended
    Clock clock;
    std::chrono::steady_clock::time_point time;
    u32 flags = 0;
};

static std::set<Stream*> streams;
static std::set<Event*> events;
static std::set<Capture*> captures;
static Stream legacy, perThread;

static Stream* streamOf(void* handle) {
    u64 h = reinterpret_cast<u64>(handle);
    if (h <= 1) return &legacy;
    if (h == 2) return &perThread;
    Stream* s = static_cast<Stream*>(handle);
    return streams.count(s) ? s : nullptr;
}

static bool live(Capture* c) { return captures.count(c); }

static int invalidate(Capture* c, int code) {
    c->invalid = true;
    return code;
}

// unsafe is asked by calls that no capture bears: those that synchronise or allocate.
// It invalidates the captures that this thread may not disturb.
static int unsafe(const char* call) {
    for (Capture* c : captures) {
        if (c->mode == 0 || (c->mode == 1 && c->thread == std::this_thread::get_id())) {
            complain("%s while a stream captures", call);
            return invalidate(c, CaptureUnsupported);
        }
    }
    return Success;
}

// Of calls on one stream that would wait for it.
static int unsafe(const char* call, Stream* s) {
    if (!s->capture) return Success;
    complain("%s of a stream that captures", call);
    return invalidate(s->capture, CaptureUnsupported);
}

int enqueue(void* handle, std::function<int()> work) {
    FAULT("");
    std::unique_lock<std::recursive_mutex> locked(lock);
    Stream* s = streamOf(handle);
    if (!s) return InvalidHandle;
    if (!s->capture) {
        // The legacy stream waits for all others, which no capture bears.
        if (s == &legacy) {
            for (Capture* c : captures) {
                for (Stream* member : c->streams) {
                    if (!(member->flags & 1)) return invalidate(c, CaptureImplicit);
                }
            }
        }
        locked.unlock();
        return work();
    }
    if (s->capture->invalid) return CaptureInvalidated;
    s->capture->graph.nodes.push_back(std::move(work));
    s->clock[s]++;
    return Success;
}

static void endMembership(Capture* c) {
    for (Stream* s : c->streams) {
        s->capture = nullptr;
        s->clock.clear();
    }
    captures.erase(c);
}

static void merge(Clock& into, const Clock& from) {
    for (auto& e : from) into[e.first] = std::max(into[e.first], e.second);
}

static bool initialised;
static int contextUses;
static u64 theContext; // its address is the primary context

} // namespace emulator

using namespace emulator;

typedef int CUresult;
typedef u64 CUdeviceptr;

#define DEVICE_ONLY(d) if (!initialised) return NotInitialized; if (d != 0) return InvalidDevice

// What lives: bytes, allocations, ranges of host memory, streams, events, uses of the
// context, other objects. Not one of libcuda's; leaks are found by it.
EXPORT int ringtailEmulatorLive(i64 out[7]) {
    Locked locked(lock);
    i64 counts[] = {i64(allocated), i64(allocations.size()), i64(hostRanges.size()), i64(streams.size()), i64(events.size()), contextUses, objects};
    for (int i = 0; i < 7; i++) out[i] = counts[i];
    return Success;
}

// --- the device ---

EXPORT CUresult cuInit(u32 flags) { FAULT("cuInit"); initialised = true; return flags ? InvalidValue : Success; }
EXPORT CUresult cuDriverGetVersion(int* version) { *version = environment("RINGTAIL_EMULATOR_DRIVER", 12040); return Success; }
EXPORT CUresult cuDeviceGetCount(int* n) { if (!initialised) return NotInitialized; *n = environment("RINGTAIL_EMULATOR_GPUS", 1); return Success; }
EXPORT CUresult cuDeviceGet(int* d, int ordinal) { DEVICE_ONLY(ordinal); *d = 0; return Success; }
EXPORT CUresult cuDeviceGetName(char* name, int bytes, int d) { DEVICE_ONLY(d); 
    const char* as = getenv("RINGTAIL_EMULATOR_NAME");
    snprintf(name, bytes, "%s", as && *as ? as : "Ringtail's emulator");
    return Success;
}
EXPORT CUresult cuDeviceGetUuid_v2(u8* uuid, int d) { DEVICE_ONLY(d); memcpy(uuid, "ringtail-emulate", 16); return Success; }
EXPORT CUresult cuDeviceTotalMem_v2(size_t* bytes, int d) { DEVICE_ONLY(d); *bytes = totalMemory(); return Success; }
EXPORT CUresult cuDeviceGetPCIBusId(char* id, int bytes, int d) { DEVICE_ONLY(d); snprintf(id, bytes, "0000:00:00.0"); return Success; }

EXPORT CUresult cuDeviceGetAttribute(int* value, int attribute, int d) {
    DEVICE_ONLY(d);
    const char* capability = getenv("RINGTAIL_EMULATOR_CC"); // such as 9.0
    int major = 8, minor = 0;
    if (capability) sscanf(capability, "%d.%d", &major, &minor);
    switch (attribute) {
    case 1: *value = 1024; break;                   // threads of a block
    case 2: case 3: *value = 1024; break;           // block, x and y
    case 4: *value = 64; break;                     // block, z
    case 5: *value = 0x7fffffff; break;             // grid, x
    case 6: case 7: *value = 65535; break;          // grid, y and z
    case 8: *value = maximumShared; break;          // shared memory of a block
    case 10: *value = 32; break;                    // warp
    case 12: case 82: *value = 65536; break;        // registers of a block, of a multiprocessor
    case 13: case 36: *value = 1000000; break;      // clocks, kHz
    case 16: *value = environment("RINGTAIL_EMULATOR_MULTIPROCESSORS", 4); break;
    case 19: case 41: case 99: case 115: *value = 1; break; // host memory mapped, unified addresses, host registration, memory pools
    case 37: *value = 64; break;                    // bits of the memory bus
    case 38: *value = 4 << 20; break;               // L2
    case 39: *value = 2048; break;                  // threads of a multiprocessor
    case 75: *value = major; break;
    case 76: *value = minor; break;
    case 81: *value = 228 << 10; break;             // shared memory of a multiprocessor
    case 95: *value = 0; break;                     // cooperative launch
    case 97: *value = maximumSharedOptIn; break;
    case 106: *value = 32; break;                   // blocks of a multiprocessor
    case 111: *value = 1024; break;                 // shared memory reserved, a block
    default: *value = 0;
    }
    return Success;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(void** context, int d) { DEVICE_ONLY(d); FAULT("cuDevicePrimaryCtxRetain"); contextUses++; *context = &theContext; return Success; }
EXPORT CUresult cuDevicePrimaryCtxRelease_v2(int d) { DEVICE_ONLY(d); FAULT("cuDevicePrimaryCtxRelease"); return contextUses-- > 0 ? Success : InvalidContext; }
EXPORT CUresult cuDevicePrimaryCtxGetState(int d, u32* flags, int* active) { DEVICE_ONLY(d); *flags = 0; *active = contextUses > 0; return Success; }
EXPORT CUresult cuDevicePrimaryCtxSetFlags_v2(int d, u32) { DEVICE_ONLY(d); return Success; }

EXPORT CUresult cuDevicePrimaryCtxReset_v2(int d) {
    DEVICE_ONLY(d);
    Locked locked(lock);
    while (!captures.empty()) endMembership(*captures.begin());
    while (!allocations.empty()) release(reinterpret_cast<u64>(allocations.begin()->first));
    for (Stream* s : streams) delete s;
    for (Event* e : events) delete e;
    streams.clear();
    events.clear();
    hostRanges.clear();
    return Success;
}

EXPORT CUresult cuCtxSetCurrent(void* context) { return !context || context == &theContext ? Success : InvalidContext; }
EXPORT CUresult cuCtxGetCurrent(void** context) { *context = contextUses > 0 ? &theContext : nullptr; return Success; }
EXPORT CUresult cuCtxPushCurrent_v2(void* context) { return cuCtxSetCurrent(context); }
EXPORT CUresult cuCtxPopCurrent_v2(void** context) { return context ? cuCtxGetCurrent(context) : Success; }
EXPORT CUresult cuCtxGetDevice(int* d) { *d = 0; return Success; }
EXPORT CUresult cuCtxSynchronize() { Locked locked(lock); return unsafe("cuCtxSynchronize"); }
EXPORT CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) { *least = 0; *greatest = -5; return Success; }

EXPORT CUresult cuGetErrorName(int code, const char** name) {
    for (auto& r : results) if (r.code == code) { *name = r.name; return Success; }
    *name = nullptr;
    return InvalidValue;
}
EXPORT CUresult cuGetErrorString(int code, const char** text) {
    for (auto& r : results) if (r.code == code) { *text = r.text; return Success; }
    *text = nullptr;
    return InvalidValue;
}

// --- memory ---

EXPORT CUresult cuMemGetInfo_v2(size_t* freeBytes, size_t* total) {
    Locked locked(lock);
    *total = totalMemory();
    *freeBytes = *total - allocated;
    return Success;
}
EXPORT CUresult cuMemAlloc_v2(CUdeviceptr* p, size_t bytes) {
    Locked locked(lock);
    if (int code = unsafe("cuMemAlloc")) return code;
    return allocate(bytes, nullptr, p);
}
EXPORT CUresult cuMemFree_v2(CUdeviceptr p) {
    Locked locked(lock);
    if (int code = unsafe("cuMemFree")) return code;
    return release(p);
}
EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr* p, size_t bytes, void* pool, void* stream) {
    Locked locked(lock);
    Stream* s = streamOf(stream);
    if (!s) return InvalidHandle;
    if (int code = unsafe("cuMemAllocAsync", s)) return code;
    return allocate(bytes, static_cast<MemoryPool*>(pool), p);
}
EXPORT CUresult cuMemAllocAsync(CUdeviceptr* p, size_t bytes, void* stream) { FAULT("cuMemAllocAsync"); return cuMemAllocFromPoolAsync(p, bytes, &defaultPool, stream); }
EXPORT CUresult cuMemFreeAsync(CUdeviceptr p, void* stream) {
    FAULT("cuMemFreeAsync");
    Locked locked(lock);
    Stream* s = streamOf(stream);
    if (!s) return InvalidHandle;
    if (int code = unsafe("cuMemFreeAsync", s)) return code;
    return release(p);
}
EXPORT CUresult cuDeviceGetDefaultMemPool(void** pool, int d) { DEVICE_ONLY(d); *pool = &defaultPool; return Success; }
EXPORT CUresult cuDeviceGetMemPool(void** pool, int d) { return cuDeviceGetDefaultMemPool(pool, d); }
EXPORT CUresult cuMemPoolCreate(void** pool, const void*) { *pool = new MemoryPool; return Success; }
EXPORT CUresult cuMemPoolDestroy(void* pool) { if (pool != &defaultPool) delete static_cast<MemoryPool*>(pool); return Success; }
EXPORT CUresult cuMemPoolTrimTo(void*, size_t) { return Success; }
EXPORT CUresult cuMemPoolSetAttribute(void* pool, int attribute, void* value) {
    Locked locked(lock);
    MemoryPool* p = static_cast<MemoryPool*>(pool);
    if (attribute == 4) p->threshold = *static_cast<u64*>(value);
    else if (attribute == 8) p->usedHigh = p->used;
    else if (attribute < 1 || attribute > 8) return InvalidValue;
    return Success;
}
EXPORT CUresult cuMemPoolGetAttribute(void* pool, int attribute, void* value) {
    Locked locked(lock);
    MemoryPool* p = static_cast<MemoryPool*>(pool);
    switch (attribute) {
    case 1: case 2: case 3: *static_cast<int*>(value) = 1; return Success;
    case 4: *static_cast<u64*>(value) = p->threshold; return Success;
    case 5: case 7: *static_cast<u64*>(value) = p->used; return Success;
    case 6: case 8: *static_cast<u64*>(value) = p->usedHigh; return Success;
    }
    return InvalidValue;
}

EXPORT CUresult cuMemHostAlloc(void** p, size_t bytes, u32) {
    Locked locked(lock);
    if (int code = unsafe("cuMemHostAlloc")) return code;
    *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!*p) return OutOfMemory;
    hostRanges[static_cast<u8*>(*p)] = bytes;
    return Success;
}
EXPORT CUresult cuMemAllocHost_v2(void** p, size_t bytes) { return cuMemHostAlloc(p, bytes, 0); }
EXPORT CUresult cuMemFreeHost(void* p) {
    Locked locked(lock);
    if (int code = unsafe("cuMemFreeHost")) return code;
    if (!hostRanges.erase(static_cast<u8*>(p))) return InvalidValue;
    free(p);
    return Success;
}
EXPORT CUresult cuMemHostRegister_v2(void* p, size_t bytes, u32) {
    FAULT("cuMemHostRegister");
    Locked locked(lock);
    if (int code = unsafe("cuMemHostRegister")) return code;
    if (!bytes) return InvalidValue;
    if (registered(static_cast<u8*>(p), 1)) return HostMemoryAlreadyRegistered;
    hostRanges[static_cast<u8*>(p)] = bytes;
    return Success;
}
EXPORT CUresult cuMemHostUnregister(void* p) {
    Locked locked(lock);
    if (int code = unsafe("cuMemHostUnregister")) return code;
    return hostRanges.erase(static_cast<u8*>(p)) ? Success : HostMemoryNotRegistered;
}
EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* out, void* p, u32) {
    Locked locked(lock);
    if (!registered(static_cast<u8*>(p), 1)) return InvalidValue;
    *out = reinterpret_cast<u64>(p);
    return Success;
}

static void* at(CUdeviceptr p) { return reinterpret_cast<void*>(p); }

// Copies that wait: like every call that synchronises, none while a stream captures.
#define SYNCHRONOUS(call) { Locked locked(lock); if (int code = unsafe(call)) return code; }

static CUresult copyToDevice(CUdeviceptr d, const void* h, size_t n) {
    if (!inDevice(at(d), n, "copy from the host")) return InvalidValue;
    memmove(at(d), h, n);
    return Success;
}
static CUresult copyToHost(void* h, CUdeviceptr d, size_t n) {
    if (!inDevice(at(d), n, "copy to the host")) return InvalidValue;
    memmove(h, at(d), n);
    return Success;
}
static CUresult copyWithin(CUdeviceptr to, CUdeviceptr from, size_t n) {
    if (!inDevice(at(to), n, "copy's target") || !inDevice(at(from), n, "copy's source")) return InvalidValue;
    memmove(at(to), at(from), n);
    return Success;
}
EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr d, const void* h, size_t n) { SYNCHRONOUS("cuMemcpyHtoD"); return copyToDevice(d, h, n); }
EXPORT CUresult cuMemcpyDtoH_v2(void* h, CUdeviceptr d, size_t n) { SYNCHRONOUS("cuMemcpyDtoH"); return copyToHost(h, d, n); }
EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t n) { SYNCHRONOUS("cuMemcpyDtoD"); return copyWithin(to, from, n); }
EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr d, const void* h, size_t n, void* stream) {
    return enqueue(stream, [=] { return copyToDevice(d, h, n); });
}
EXPORT CUresult cuMemcpyDtoHAsync_v2(void* h, CUdeviceptr d, size_t n, void* stream) {
    return enqueue(stream, [=] { return copyToHost(h, d, n); });
}
EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t n, void* stream) {
    return enqueue(stream, [=] { return copyWithin(to, from, n); });
}

static CUresult copyAny(CUdeviceptr to, CUdeviceptr from, size_t n) { memmove(at(to), at(from), n); return Success; }
EXPORT CUresult cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t n) { SYNCHRONOUS("cuMemcpy"); return copyAny(to, from, n); }
EXPORT CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t n, void* stream) {
    return enqueue(stream, [=] { return copyAny(to, from, n); });
}

struct Copy2D {
    size_t sourceX, sourceY;
    u32 sourceType;
    const void* sourceHost;
    CUdeviceptr sourceDevice;
    void* sourceArray;
    size_t sourcePitch, targetX, targetY;
    u32 targetType;
    void* targetHost;
    CUdeviceptr targetDevice;
    void* targetArray;
    size_t targetPitch, width, height;
};
static CUresult copy2D(const Copy2D& c) {
    // Types: 1 the host's, 2 the device's, 4 either.
    if (!c.width || !c.height) return Success;
    if (c.sourceType == 3 || c.targetType == 3) return NotSupported;
    const u8* source = static_cast<const u8*>(c.sourceType == 1 ? c.sourceHost : at(c.sourceDevice));
    u8* target = static_cast<u8*>(c.targetType == 1 ? c.targetHost : at(c.targetDevice));
    size_t sourcePitch = c.sourcePitch ? c.sourcePitch : c.width, targetPitch = c.targetPitch ? c.targetPitch : c.width;
    if (sourcePitch < c.width || targetPitch < c.width) return InvalidValue;
    source += c.sourceX + c.sourceY * sourcePitch;
    target += c.targetX + c.targetY * targetPitch;
    if (c.sourceType == 2 && !inDevice(source, (c.height - 1) * sourcePitch + c.width, "2D copy's source")) return InvalidValue;
    if (c.targetType == 2 && !inDevice(target, (c.height - 1) * targetPitch + c.width, "2D copy's target")) return InvalidValue;
    for (size_t i = 0; i < c.height; i++) memmove(target + i * targetPitch, source + i * sourcePitch, c.width);
    return Success;
}
EXPORT CUresult cuMemcpy2D_v2(const Copy2D* c) { SYNCHRONOUS("cuMemcpy2D"); return copy2D(*c); }
EXPORT CUresult cuMemcpy2DUnaligned_v2(const Copy2D* c) { SYNCHRONOUS("cuMemcpy2D"); return copy2D(*c); }
EXPORT CUresult cuMemcpy2DAsync_v2(const Copy2D* c, void* stream) {
    Copy2D copy = *c;
    return enqueue(stream, [=] { return copy2D(copy); });
}

template <class T> static CUresult fill(CUdeviceptr p, T v, size_t n) {
    if (p % sizeof(T)) return InvalidValue;
    if (!inDevice(at(p), n * sizeof(T), "memset")) return InvalidValue;
    std::fill_n(static_cast<T*>(at(p)), n, v);
    return Success;
}
EXPORT CUresult cuMemsetD8_v2(CUdeviceptr p, u8 v, size_t n) { SYNCHRONOUS("cuMemsetD8"); return fill(p, v, n); }
EXPORT CUresult cuMemsetD16_v2(CUdeviceptr p, u16 v, size_t n) { SYNCHRONOUS("cuMemsetD16"); return fill(p, v, n); }
EXPORT CUresult cuMemsetD32_v2(CUdeviceptr p, u32 v, size_t n) { SYNCHRONOUS("cuMemsetD32"); return fill(p, v, n); }
EXPORT CUresult cuMemsetD8Async(CUdeviceptr p, u8 v, size_t n, void* stream) { return enqueue(stream, [=] { return fill(p, v, n); }); }
EXPORT CUresult cuMemsetD16Async(CUdeviceptr p, u16 v, size_t n, void* stream) { return enqueue(stream, [=] { return fill(p, v, n); }); }
EXPORT CUresult cuMemsetD32Async(CUdeviceptr p, u32 v, size_t n, void* stream) { return enqueue(stream, [=] { return fill(p, v, n); }); }

// --- streams and events ---

EXPORT CUresult cuStreamCreate(void** out, u32 flags) {
    FAULT("cuStreamCreate");
    Locked locked(lock);
    if (!initialised) return NotInitialized;
    Stream* s = new Stream;
    s->flags = flags;
    streams.insert(s);
    *out = s;
    return Success;
}
EXPORT CUresult cuStreamCreateWithPriority(void** out, u32 flags, int) { return cuStreamCreate(out, flags); }
EXPORT CUresult cuStreamDestroy_v2(void* handle) {
    Locked locked(lock);
    Stream* s = static_cast<Stream*>(handle);
    if (!streams.count(s)) return InvalidHandle;
    if (s->capture) {
        Capture* c = s->capture;
        endMembership(c);
        delete c;
    }
    streams.erase(s);
    delete s;
    return Success;
}
EXPORT CUresult cuStreamSynchronize(void* handle) {
    FAULT("cuStreamSynchronize");
    Locked locked(lock);
    Stream* s = streamOf(handle);
    return s ? unsafe("cuStreamSynchronize", s) : InvalidHandle;
}
EXPORT CUresult cuStreamQuery(void* handle) {
    Locked locked(lock);
    Stream* s = streamOf(handle);
    return s ? unsafe("cuStreamQuery", s) : InvalidHandle;
}

EXPORT CUresult cuEventCreate(void** out, u32 flags) {
    Locked locked(lock);
    Event* e = new Event;
    e->flags = flags;
    events.insert(e);
    *out = e;
    return Success;
}
EXPORT CUresult cuEventDestroy_v2(void* handle) {
    Locked locked(lock);
    Event* e = static_cast<Event*>(handle);
    if (!events.erase(e)) return InvalidHandle;
    delete e;
    return Success;
}
EXPORT CUresult cuEventRecord(void* handle, void* stream) {
    Locked locked(lock);
    Event* e = static_cast<Event*>(handle);
    Stream* s = streamOf(stream);
    if (!s || !events.count(e)) return InvalidHandle;
    if (s->capture && s->capture->invalid) return CaptureInvalidated;
    e->recorded = true;
    e->captured = s->capture;
    e->capture = s->capture;
    e->clock = s->clock;
    e->time = std::chrono::steady_clock::now();
    return Success;
}
EXPORT CUresult cuEventRecordWithFlags(void* e, void* stream, u32) { return cuEventRecord(e, stream); }

// A stream that waits for an event of a capture joins the capture.
EXPORT CUresult cuStreamWaitEvent(void* stream, void* handle, u32) {
    Locked locked(lock);
    Event* e = static_cast<Event*>(handle);
    Stream* s = streamOf(stream);
    if (!s || !events.count(e)) return InvalidHandle;
    if (s->capture && s->capture->invalid) return CaptureInvalidated;
    if (!e->recorded) return Success;
    if (!e->captured) return s->capture ? invalidate(s->capture, CaptureIsolation) : Success;
    if (!live(e->capture)) return s->capture ? invalidate(s->capture, CapturedEvent) : CapturedEvent;
    if (s->capture && s->capture != e->capture) {
        invalidate(e->capture, CaptureMerge);
        return invalidate(s->capture, CaptureMerge);
    }
    if (s == &legacy) return invalidate(e->capture, CaptureImplicit);
    s->capture = e->capture;
    s->capture->streams.insert(s);
    merge(s->clock, e->clock);
    return Success;
}

static CUresult settled(const char* call, void* handle) {
    Event* e = static_cast<Event*>(handle);
    if (!events.count(e)) return InvalidHandle;
    if (int code = unsafe(call)) return code;
    return e->captured ? CapturedEvent : Success;
}
EXPORT CUresult cuEventSynchronize(void* e) { FAULT("cuEventSynchronize"); Locked locked(lock); return settled("cuEventSynchronize", e); }
EXPORT CUresult cuEventQuery(void* e) { Locked locked(lock); return settled("cuEventQuery", e); }
EXPORT CUresult cuEventElapsedTime_v2(float* milliseconds, void* from, void* to) {
    Locked locked(lock);
    Event *a = static_cast<Event*>(from), *b = static_cast<Event*>(to);
    if (!events.count(a) || !events.count(b) || !a->recorded || !b->recorded || a->flags & 2 || b->flags & 2) return InvalidHandle;
    if (a->captured || b->captured) return CapturedEvent;
    *milliseconds = std::chrono::duration<float, std::milli>(b->time - a->time).count();
    return Success;
}
EXPORT CUresult cuEventElapsedTime(float* milliseconds, void* from, void* to) { return cuEventElapsedTime_v2(milliseconds, from, to); }

// --- graphs ---

EXPORT CUresult cuStreamBeginCapture_v2(void* stream, int mode) {
    Locked locked(lock);
    Stream* s = streamOf(stream);
    if (!s) return InvalidHandle;
    if (mode < 0 || mode > 2) return InvalidValue;
    if (s == &legacy) return CaptureImplicit;
    if (s->capture) return invalidate(s->capture, InvalidValue);
    Capture* c = new Capture;
    c->origin = s;
    c->mode = mode;
    c->thread = std::this_thread::get_id();
    c->streams.insert(s);
    captures.insert(c);
    s->capture = c;
    return Success;
}
EXPORT CUresult cuThreadExchangeStreamCaptureMode(int* mode) { *mode = 0; return Success; }
EXPORT CUresult cuStreamEndCapture(void* stream, void** graph) {
    Locked locked(lock);
    *graph = nullptr;
    Stream* s = streamOf(stream);
    if (!s) return InvalidHandle;
    Capture* c = s->capture;
    if (!c) return InvalidValue;
    if (c->origin != s) return invalidate(c, CaptureUnmatched);
    if (c->mode != 2 && c->thread != std::this_thread::get_id()) return CaptureWrongThread;
    CUresult code = c->invalid ? CaptureInvalidated : Success;
    if (!code) {
        for (Stream* member : c->streams) {
            if (s->clock[member] < member->clock[member]) code = CaptureUnjoined;
        }
    }
    endMembership(c);
    if (!code) *graph = new Graph(std::move(c->graph));
    delete c;
    return code;
}
EXPORT CUresult cuStreamIsCapturing(void* stream, int* status) {
    Locked locked(lock);
    Stream* s = streamOf(stream);
    if (!s) return InvalidHandle;
    *status = !s->capture ? 0 : s->capture->invalid ? 2 : 1;
    return Success;
}
EXPORT CUresult cuGraphInstantiateWithFlags(void** executable, void* graph, u64) { *executable = new Graph(*static_cast<Graph*>(graph)); return Success; }
EXPORT CUresult cuGraphLaunch(void* executable, void* stream) {
    FAULT("cuGraphLaunch");
    Graph* g = static_cast<Graph*>(executable);
    return enqueue(stream, [g] {
        for (auto& node : g->nodes) {
            if (int code = node()) return code;
        }
        return int(Success);
    });
}
EXPORT CUresult cuGraphUpload(void*, void*) { return Success; }
EXPORT CUresult cuGraphExecDestroy(void* executable) { delete static_cast<Graph*>(executable); return Success; }
EXPORT CUresult cuGraphDestroy(void* graph) { delete static_cast<Graph*>(graph); return Success; }
EXPORT CUresult cuGraphGetNodes(void* graph, void** nodes, size_t* n) {
    if (nodes) return NotSupported;
    *n = static_cast<Graph*>(graph)->nodes.size();
    return Success;
}

// --- modules and launches ---

// Every image has every kernel. A name may be FAMILY.NAME; alone it must be of one family.
struct Module : Counted {};

EXPORT CUresult cuModuleLoadData(void** module, const void* image) {
    FAULT("cuModuleLoadData");
    Locked locked(lock);
    if (!image) return InvalidValue;
    if (int code = unsafe("cuModuleLoadData")) return code;
    *module = new Module;
    return Success;
}
EXPORT CUresult cuModuleLoadDataEx(void** module, const void* image, u32, int*, void**) { return cuModuleLoadData(module, image); }
EXPORT CUresult cuModuleUnload(void* module) { delete static_cast<Module*>(module); return Success; }
EXPORT CUresult cuModuleGetFunction(void** function, void*, const char* name) {
    Kernel* found = nullptr;
    const char* dot = strchr(name, '.');
    for (Kernel* k : kernels()) {
        if (strcmp(k->name, dot ? dot + 1 : name)) continue;
        if (dot) {
            if (std::string(name, dot) != k->family) continue;
            *function = k;
            return Success;
        }
        if (found) {
            complain("kernel %s is in both %s and %s: ask for FAMILY.NAME", name, found->family, k->family);
            return NotFound;
        }
        found = k;
    }
    if (!found) {
        complain("no kernel is named %s", name);
        return NotFound;
    }
    *function = found;
    return Success;
}
// There is no linker; a fault of its own is left for RINGTAIL_EMULATOR_FAIL.
EXPORT CUresult cuLinkCreate_v2(u32, int*, void**, void**) { FAULT("cuLinkCreate"); return Success; }
EXPORT CUresult cuLinkAddData_v2(void*, int, void*, size_t, const char*, u32, int*, void**) { FAULT("cuLinkAddData"); return NotSupported; }
EXPORT CUresult cuLinkComplete(void*, void**, size_t*) { FAULT("cuLinkComplete"); return NotSupported; }
EXPORT CUresult cuLinkDestroy(void*) { return Success; }

EXPORT CUresult cuFuncSetAttribute(void* function, int attribute, int value) {
    Kernel* k = static_cast<Kernel*>(function);
    if (attribute == 9) return value >= -1 && value <= 100 ? Success : InvalidValue; // preferred carve-out
    if (attribute != 8 || value < 0 || value > int(maximumSharedOptIn)) return InvalidValue;
    if (u32(value) > k->dynamicShared) k->dynamicShared = value;
    return Success;
}
EXPORT CUresult cuFuncGetAttribute(int* value, int attribute, void* function) {
    Kernel* k = static_cast<Kernel*>(function);
    switch (attribute) {
    case 0: *value = k->maximumThreads; return Success;
    case 4: *value = 32; return Success; // registers
    case 5: case 6: *value = 80; return Success;
    case 8: *value = k->dynamicShared; return Success;
    case 9: *value = -1; return Success;
    }
    *value = 0;
    return attribute >= 0 && attribute < 16 ? Success : InvalidValue;
}
EXPORT CUresult cuFuncSetCacheConfig(void*, int) { return Success; }
EXPORT CUresult cuFuncGetParamInfo(void* function, size_t index, size_t* offset, size_t* bytes) {
    if (index) return InvalidValue;
    *offset = 0;
    *bytes = static_cast<Kernel*>(function)->argumentBytes;
    return Success;
}
EXPORT CUresult cuFuncGetName(const char** name, void* function) { *name = static_cast<Kernel*>(function)->name; return Success; }
EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, void*, int threads, size_t shared) {
    if (threads < 1 || threads > 1024) return InvalidValue;
    *n = std::min<size_t>({32, 2048 / size_t((threads + 31) / 32 * 32), (228 << 10) / (shared + 1024)});
    return Success;
}

EXPORT CUresult cuLaunchKernel(void* function, u32 gx, u32 gy, u32 gz, u32 bx, u32 by, u32 bz, u32 shared, void* stream, void** parameters, void** extra) {
    FAULT("cuLaunchKernel");
    Kernel* k = static_cast<Kernel*>(function);
    const void* from = nullptr;
    if (parameters) {
        from = parameters[0];
    } else if (extra) {
        for (; *extra; extra += 2) {
            if (reinterpret_cast<u64>(extra[0]) == 1) from = extra[1];
            if (reinterpret_cast<u64>(extra[0]) == 2 && *static_cast<size_t*>(extra[1]) != k->argumentBytes) {
                complain("launch of %s.%s: %zu bytes of arguments, but the kernel takes %zu", k->family, k->name, *static_cast<size_t*>(extra[1]), k->argumentBytes);
                return InvalidValue;
            }
        }
    }
    if (!from) return InvalidValue;
    // Aligned as the kernel's struct may be.
    std::vector<Bytes16> arguments((k->argumentBytes + 15) / 16);
    memcpy(arguments.data(), from, k->argumentBytes);
    Launch l = {k, {gx, gy, gz}, {bx, by, bz}, shared, nullptr};
    if (int code = checkLaunch(l)) return code;
    return enqueue(stream, [l, arguments = std::move(arguments)]() mutable {
        l.arguments = arguments.data();
        return runLaunch(l);
    });
}

struct LaunchConfig { u32 gx, gy, gz, bx, by, bz, shared; void* stream; const u32* attributes; u32 count; };
EXPORT CUresult cuLaunchKernelEx(const LaunchConfig* c, void* function, void** parameters, void** extra) {
    // An attribute takes 72 bytes, its number first: 4 is a cluster, 2 a cooperative launch.
    for (u32 i = 0; i < c->count; i++) {
        u32 number = c->attributes[i * 18];
        if (number == 4 || number == 2) {
            complain("launch attribute %u (a cluster, a cooperative launch) is not emulated", number);
            return NotSupported;
        }
    }
    return cuLaunchKernel(function, c->gx, c->gy, c->gz, c->bx, c->by, c->bz, c->shared, c->stream, parameters, extra);
}
