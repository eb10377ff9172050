// A block's fibers: barriers, a warp's collectives, asynchronous copies.
#include "block.h"
#include "switch.h"

#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

namespace emulator {

// Not zero, so that it lies in .tdata: all of .tbss is the kernels' static shared memory.
__thread Here here = {{}, {}, {}, {}, 0, nullptr, nullptr, nullptr, 1};

static const size_t stackBytes = 128 << 10, pageBytes = 4096;

static u64 mix(u64 x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static u8* mapped(size_t bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        complain("no memory for %zu bytes of stacks or shared memory", bytes);
        abort();
    }
    return static_cast<u8*>(p);
}

// --- stacks ---

static u8* takeStack(Worker& w) {
    if (w.stacks.empty()) {
        // A warp's worth at once. Tops differ in their low bits, so that they don't all fall
        // into the same sets of the cache.
        u8* chunk = mapped(32 * (stackBytes + pageBytes));
        for (int i = 0; i < 32; i++) {
            u8* base = chunk + i * (stackBytes + pageBytes);
            mprotect(base, pageBytes, PROT_NONE);
            w.allStacks.push_back(base + pageBytes + stackBytes - i % 16 * 256);
            w.stacks.push_back(w.allStacks.back());
        }
    }
    u8* top = w.stacks.back();
    w.stacks.pop_back();
    return top;
}

// --- switching ---

static void fiberMain();

static void enter(Worker& w, Thread* t) {
    t->state = Running;
    here.thread = t;
    threadIdx = t->index;
    here.lane = t->lane;
}

static void switchTo(Worker& w, void** from, Thread* to) {
    if (to->state == Fresh) {
        to->stack = takeStack(w);
        to->sp = freshFiber(to->stack, fiberMain);
    }
    enter(w, to);
    ringtailSwitch(from, to->sp);
}

static bool runnable(const Worker& w, const Thread& t) {
    switch (t.state) {
    case Fresh: return true;
    case Waiting: return t.generation != w.warps[t.warp].generation;
    case Blocked: return t.generation != w.generation;
    default: return false;
    }
}

// The next lane of the warp, going round from the one after lane.
static Thread* nextRunnable(Worker& w, Warp& warp, u32 lane) {
    for (u32 i = 1; i <= warp.size; i++) {
        u32 l = lane + i;
        if (l >= warp.size) l -= warp.size;
        Thread& t = w.threads[warp.first + l];
        if (runnable(w, t)) return &t;
    }
    return nullptr;
}

static void suspend(Worker& w, Thread* t) {
    Thread* n = nextRunnable(w, w.warps[t->warp], t->lane);
    if (n) switchTo(w, &t->sp, n);
    else ringtailSwitch(&t->sp, w.scheduler);
}

void fail(int code, const char* format, ...) {
    Worker& w = *here.worker;
    char text[400];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    int none = 0;
    if (w.job->failed.compare_exchange_strong(none, code)) {
        const Launch& l = w.job->launch;
        complain("kernel %s.%s, grid (%u, %u, %u), %u threads a block, block (%u, %u, %u), thread %u: %s", l.kernel->family, l.kernel->name,
                 l.grid.x, l.grid.y, l.grid.z, w.size, blockIdx.x, blockIdx.y, blockIdx.z,
                 here.thread ? u32(here.thread - w.threads) : 0, text);
    }
    void* abandoned;
    if (here.thread) ringtailSwitch(&abandoned, w.scheduler);
    abort();
}

// --- barriers ---

static const char* nameOf(Collective kind) {
    static const char* const names[] = {"nothing", "a warp's barrier", "a shuffle", "a ballot", "ldmatrix", "ldmatrix.trans", "mma of bf16", "mma of f16"};
    return names[kind];
}

void blockBarrier() {
    Worker& w = *here.worker;
    if (++w.arrived == w.live) {
        w.arrived = 0;
        w.generation++;
        return;
    }
    Thread* t = here.thread;
    t->state = Blocked;
    t->generation = w.generation;
    suspend(w, t);
}

static void complete(Worker& w, Warp& warp);

static void checkWhole(Warp& warp, Collective kind) {
    if (warp.size < 32) fail(715, "%s in a warp of %u threads: make the block a multiple of 32", nameOf(kind), warp.size);
    if (warp.live < 32) fail(715, "%s, which takes 32 lanes, but %u of this warp have returned", nameOf(kind), 32 - warp.live);
}

// meet waits for the warp's other lanes and returns the parity of this meeting.
static u32 meet(Collective kind) {
    Worker& w = *here.worker;
    Thread* t = here.thread;
    Warp& warp = w.warps[t->warp];
    if (warp.arrived && warp.kind != kind) fail(715, "%s, but other lanes of its warp wait for %s", nameOf(kind), nameOf(warp.kind));
    if (kind != WarpBarrier) checkWhole(warp, kind);
    warp.kind = kind;
    u32 generation = warp.generation;
    if (++warp.arrived == warp.live) {
        complete(w, warp);
        warp.arrived = 0;
        warp.generation++;
    } else {
        t->state = Waiting;
        t->generation = generation;
        suspend(w, t);
    }
    return generation & 1;
}

static void finish(Worker& w, Thread* t) {
    Warp& warp = w.warps[t->warp];
    t->state = Done;
    w.live--;
    warp.live--;
    if (warp.arrived) {
        if (warp.kind != WarpBarrier) checkWhole(warp, warp.kind);
        if (warp.arrived == warp.live) {
            warp.arrived = 0;
            warp.generation++;
        }
    }
    if (w.arrived && w.arrived == w.live) { // who has returned counts as arrived
        w.arrived = 0;
        w.generation++;
    }
}

static void fiberMain() {
    for (;;) {
        Worker& w = *here.worker;
        w.job->launch.kernel->run(w.job->launch.arguments);
        Thread* t = here.thread;
        finish(w, t);
        Thread* n = nextRunnable(w, w.warps[t->warp], t->lane);
        if (n && n->state == Fresh) { // goes on with the next thread on this stack
            n->stack = t->stack;
            enter(w, n);
            continue;
        }
        w.stacks.push_back(t->stack);
        if (n) switchTo(w, &t->sp, n);
        else ringtailSwitch(&t->sp, w.scheduler);
    }
}

// --- a warp's collectives ---

void warpBarrier() { meet(WarpBarrier); }

const u64* exchange(Collective kind, u64 v) {
    Warp& warp = here.worker->warps[here.thread->warp];
    warp.values[warp.generation & 1][here.lane] = v;
    return warp.values[meet(kind)];
}

void loadMatrix(u32 (&r)[4], const void* row, Collective kind) {
    checkAligned16(row);
    Worker& w = *here.worker;
    if (!w.isShared(row, 16)) fail(717, "%s of %p, which is not in shared memory", nameOf(kind), row);
    Warp& warp = w.warps[here.thread->warp];
    warp.rows[here.lane] = row;
    u32 lane = here.lane, parity = meet(kind);
    memcpy(r, warp.matrices[parity][lane], sizeof(r));
}

void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, Collective kind) {
    Warp& warp = here.worker->warps[here.thread->warp];
    u32 lane = here.lane;
    u32* operands = warp.operands[lane];
    memcpy(operands, a, 16);
    operands[4] = b0;
    operands[5] = b1;
    u32 parity = meet(kind);
    for (int i = 0; i < 4; i++) c[i] += warp.products[parity][lane][i];
}

static void completeMatrix(Warp& warp, u32 (*out)[4], bool transposed) {
    for (int m = 0; m < 4; m++) {
        for (int lane = 0; lane < 32; lane++) {
            u16 pair[2];
            for (int i = 0; i < 2; i++) {
                int row = lane / 4, column = lane % 4 * 2 + i;
                if (transposed) { int t = row; row = column; column = t; }
                memcpy(&pair[i], static_cast<const u8*>(warp.rows[m * 8 + row]) + 2 * column, 2);
            }
            out[lane][m] = pair[0] | u32(pair[1]) << 16;
        }
    }
}

// mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"): with g = lane/4 and
// t = lane%4, A's registers hold rows g, g+8, g, g+8 at columns 2t (twice) and 2t+8
// (twice), B's hold rows 2t and 2t+8 of column g, C's hold rows g (twice), g+8 (twice) at
// columns 2t and 2t+1.
template <class T> static void completeProduct(Warp& warp, float (*out)[4]) {
    float a[16][16], b[16][8], c[16][8] = {};
    for (int lane = 0; lane < 32; lane++) {
        int g = lane / 4, t = lane % 4;
        for (int half = 0; half < 2; half++) {
            for (int r = 0; r < 4; r++) {
                a[g + r % 2 * 8][2 * t + r / 2 * 8 + half] = toFloat(T{u16(warp.operands[lane][r] >> 16 * half)});
            }
            for (int r = 0; r < 2; r++) b[2 * t + r * 8 + half][g] = toFloat(T{u16(warp.operands[lane][4 + r] >> 16 * half)});
        }
    }
    for (int i = 0; i < 16; i++) {
        for (int k = 0; k < 16; k++) {
            for (int j = 0; j < 8; j++) c[i][j] += a[i][k] * b[k][j];
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        for (int r = 0; r < 4; r++) out[lane][r] = c[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
    }
}

static void complete(Worker& w, Warp& warp) {
    u32 parity = warp.generation & 1;
    switch (warp.kind) {
    case LoadMatrix: return completeMatrix(warp, warp.matrices[parity], false);
    case LoadMatrixTransposed: return completeMatrix(warp, warp.matrices[parity], true);
    case MultiplyBF16: return completeProduct<bf16>(warp, warp.products[parity]);
    case MultiplyF16: return completeProduct<f16>(warp, warp.products[parity]);
    default: return;
    }
}

// --- asynchronous copies ---

static void copyNow(const AsyncCopy& c) {
    if (c.valid) memcpy(c.shared, c.global, 16);
    else memset(c.shared, 0, 16);
}

// In half of the launches a copy happens only at the wait that covers it, which shows
// waits that are missing; in the others at once, which shows a buffer that is still read.
void copyAsync16(void* shared, const void* global, bool valid) {
    Worker& w = *here.worker;
    checkAligned16(shared);
    if (!w.isShared(shared, 16)) fail(717, "cp.async to %p, which is not in shared memory", shared);
    if (valid) {
        checkAligned16(global);
        if (w.isShared(global, 1)) fail(717, "cp.async from %p, which is in shared memory", global);
    }
    Thread* t = here.thread;
    AsyncCopy c = {shared, global, t->groups, valid};
    if (w.job->late) t->copies.push_back(c);
    else copyNow(c);
}

void commitAsync() { here.thread->groups++; }

void waitAsync(u32 pending) {
    Thread* t = here.thread;
    if (t->copies.empty()) return;
    size_t kept = 0;
    for (const AsyncCopy& c : t->copies) {
        if (c.group + pending < t->groups) copyNow(c);
        else t->copies[kept++] = c;
    }
    t->copies.resize(kept);
}

// --- blocks ---

bool Worker::isShared(const void* pointer, size_t bytes) const {
    const u8* p = static_cast<const u8*>(pointer);
    return (p >= dynamicBase && p + bytes <= sharedEnd) || (p >= staticBase && p + bytes <= staticBase + staticBytes);
}

static int findStatic(dl_phdr_info* info, size_t, void* data) {
    Worker* w = static_cast<Worker*>(data);
    u8* tls = static_cast<u8*>(info->dlpi_tls_data);
    u8* own = reinterpret_cast<u8*>(&here);
    for (int i = 0; tls && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr)& p = info->dlpi_phdr[i];
        if (p.p_type != PT_TLS || own < tls || own >= tls + p.p_memsz) continue;
        w->staticBase = tls + p.p_filesz;
        w->staticBytes = p.p_memsz - p.p_filesz;
        return 1;
    }
    return 0;
}

// prepare makes the worker this thread's.
void Worker::prepare() {
    here.worker = this;
    if (!sharedEnd) {
        size_t bytes = (maximumSharedOptIn + pageBytes - 1) / pageBytes * pageBytes;
        u8* base = mapped(bytes + 2 * pageBytes);
        mprotect(base, pageBytes, PROT_NONE);
        mprotect(base + pageBytes + bytes, pageBytes, PROT_NONE);
        sharedEnd = base + pageBytes + bytes;
        emergency = mapped(16 * pageBytes) + 16 * pageBytes;
    }
    if (!staticBase || !pthread_equal(owner, pthread_self())) {
        if (!dl_iterate_phdr(findStatic, this)) {
            complain("this library's thread-local memory was not found");
            abort();
        }
    }
    owner = pthread_self();
}

void Worker::run(Job* j) {
    prepare();
    job = j;
    const Launch& l = j->launch;
    size = l.block.x * l.block.y * l.block.z;
    warpCount = (size + 31) / 32;
    dynamicBase = sharedEnd - (l.shared + 127) / 128 * 128;
    blockDim = l.block;
    gridDim = l.grid;
    here.dynamicShared = dynamicBase;
    for (u32 i = 0, x = 0, y = 0, z = 0; i < size; i++) {
        threads[i].index = {x, y, z};
        threads[i].warp = i / 32;
        threads[i].lane = i % 32;
        if (++x == l.block.x) x = 0, y++;
        if (y == l.block.y) y = 0, z++;
    }
    // Static shared memory is that of all kernels. All of it is filled before the first block
    // of some launches, which shows what this kernel uses; that much is filled before the others.
    Uses& uses = used[l.kernel];
    bool learn = uses.launches++ % 8 == 0;
    for (;;) {
        u64 i = j->next++;
        if (i >= j->blocks || j->failed) break;
        if (learn) memset(staticBase, 0xff, staticBytes);
        else for (const Range& r : uses.ranges) memset(staticBase + r.first, 0xff, r.bytes);
        active = true;
        runBlock(u64(((unsigned __int128)i * j->stride + j->offset) % j->blocks));
        active = false;
        if (learn) findTouched(uses.ranges);
        learn = false;
    }
    here.thread = nullptr;
}

void Worker::findTouched(std::vector<Range>& ranges) const {
    const size_t step = 64;
    std::vector<bool> touched((staticBytes + step - 1) / step);
    for (const Range& r : ranges) {
        for (size_t i = r.first; i < r.first + r.bytes; i += step) touched[i / step] = true;
    }
    ranges.clear();
    for (size_t i = 0; i < staticBytes; i += step) {
        size_t n = staticBytes - i < step ? staticBytes - i : step;
        const u8* p = staticBase + i;
        if (!touched[i / step] && p[0] == 0xff && !memcmp(p, p + 1, n - 1)) continue; // all its bytes are as they were
        if (!ranges.empty() && ranges.back().first + ranges.back().bytes == i) ranges.back().bytes += n;
        else ranges.push_back({i, n});
    }
}

void Worker::runBlock(u64 block) {
    const Launch& l = job->launch;
    blockIdx = {u32(block % l.grid.x), u32(block / l.grid.x % l.grid.y), u32(block / l.grid.x / l.grid.y)};
    if (l.shared) memset(dynamicBase, 0xff, sharedEnd - dynamicBase);
    u64 random = mix(job->seed ^ mix(block));
    live = size;
    arrived = 0;
    for (u32 i = 0; i < size; i++) {
        Thread& t = threads[i];
        t.state = Fresh;
        t.groups = 0;
        t.copies.clear();
    }
    u32 startLane[32];
    for (u32 i = 0; i < warpCount; i++) {
        Warp& w = warps[i];
        w.first = 32 * i;
        w.size = w.live = size - w.first < 32 ? size - w.first : 32;
        w.arrived = 0;
        startLane[i] = u32(mix(random + i)) % w.size;
    }
    u32 step = random & 1 ? 1 : warpCount - 1, start = u32(random >> 8) % warpCount;
    while (live) {
        bool progress = false;
        for (u32 i = 0, warp = start; i < warpCount; i++, warp = (warp + step) % warpCount) {
            Thread* t = nextRunnable(*this, warps[warp], startLane[warp]);
            if (!t) continue;
            progress = true;
            switchTo(*this, &scheduler, t);
            if (job->failed) {
                stacks = allStacks;
                return;
            }
        }
        if (!progress) {
            int none = 0;
            if (job->failed.compare_exchange_strong(none, 715)) {
                complain("kernel %s.%s, %u threads a block, block (%u, %u, %u): deadlock:", l.kernel->family, l.kernel->name, size,
                         blockIdx.x, blockIdx.y, blockIdx.z);
                for (u32 i = 0; i < warpCount; i++) {
                    u32 blocked = 0, waiting = 0;
                    for (u32 k = 0; k < warps[i].size; k++) {
                        blocked += threads[warps[i].first + k].state == Blocked;
                        waiting += threads[warps[i].first + k].state == Waiting;
                    }
                    complain("  warp %u: %u threads at the block's barrier, %u at %s, %u returned", i, blocked, waiting,
                             waiting ? nameOf(warps[i].kind) : "a warp's collective", warps[i].size - warps[i].live);
                }
            }
            stacks = allStacks;
            return;
        }
    }
}

} // namespace emulator
