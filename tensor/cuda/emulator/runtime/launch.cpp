// Kernels by name, checks of a launch, the pool of threads that run its blocks, and what
// happens when a kernel touches memory that isn't there.
#include "block.h"

#include <condition_variable>
#include <mutex>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

namespace emulator {

std::vector<Kernel*>& kernels() {
    static std::vector<Kernel*> all;
    return all;
}

Registration::Registration(const char* family, const char* name, u32 maximumThreads, size_t argumentBytes, void (*run)(const void*)) {
    kernels().push_back(new Kernel{family, name, maximumThreads, argumentBytes, run, maximumShared});
}

void complain(const char* format, ...) {
    char text[600];
    va_list list;
    va_start(list, format);
    int n = snprintf(text, sizeof(text), "emulator: ");
    n += vsnprintf(text + n, sizeof(text) - n - 1, format, list);
    va_end(list);
    if (n > int(sizeof(text)) - 2) n = sizeof(text) - 2;
    text[n++] = '\n';
    if (write(2, text, n) < 0) return;
}

u64 environment(const char* name, u64 otherwise) {
    const char* value = getenv(name);
    return value && *value ? strtoull(value, nullptr, 0) : otherwise;
}

// --- the pool ---

struct Pool {
    std::mutex use; // one launch at a time
    std::mutex mutex;
    std::condition_variable wake, done;
    u64 task = 0;
    u32 running = 0;
    const std::function<void(u32)>* work = nullptr;
    std::vector<Worker*> workers; // the first is the calling thread's

    Pool() {
        u32 n = environment("RINGTAIL_EMULATOR_THREADS", std::thread::hardware_concurrency());
        if (n < 1) n = 1;
        if (n > 256) n = 256;
        for (u32 i = 0; i < n; i++) workers.push_back(new Worker);
        // Signals are for the threads of the program that loaded this library.
        sigset_t all, old;
        sigfillset(&all);
        for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&all, s);
        pthread_sigmask(SIG_BLOCK, &all, &old);
        for (u32 i = 1; i < n; i++) std::thread([this, i] { serve(i); }).detach();
        pthread_sigmask(SIG_SETMASK, &old, nullptr);
    }

    void serve(u32 i) {
        stack_t alternate = {};
        alternate.ss_size = 64 << 10;
        alternate.ss_sp = mmap(nullptr, alternate.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        sigaltstack(&alternate, nullptr);
        u64 seen = 0;
        for (;;) {
            std::unique_lock<std::mutex> lock(mutex);
            wake.wait(lock, [&] { return task != seen; });
            seen = task;
            const std::function<void(u32)>* f = work;
            lock.unlock();
            (*f)(i);
            lock.lock();
            if (--running == 0) done.notify_one();
        }
    }

    // all calls f with every worker's number, 0 here, and returns when all have.
    void all(const std::function<void(u32)>& f) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            work = &f;
            running = workers.size() - 1;
            task++;
        }
        wake.notify_all();
        f(0);
        std::unique_lock<std::mutex> lock(mutex);
        done.wait(lock, [&] { return running == 0; });
    }
};

static Pool& pool() {
    static Pool* p = new Pool; // never destroyed: its threads go on to the end of the process
    return *p;
}

void parallel(u64 n, const std::function<void(u64)>& f) {
    Pool& p = pool();
    std::lock_guard<std::mutex> one(p.use);
    std::atomic<u64> next{0};
    auto work = [&](u32) {
        for (u64 i; (i = next++) < n;) f(i);
    };
    if (n < 2) work(0);
    else p.all(work);
}

// --- segmentation faults ---

static struct sigaction previous[2]; // of SIGSEGV and SIGBUS
static __thread void* faultAddress = reinterpret_cast<void*>(1);

static void reportFault() {
    fail(700, "access of %p, which is no memory of this device", faultAddress);
}

// A fault of a kernel ends the launch with CUDA_ERROR_ILLEGAL_ADDRESS: the handler
// returns into reportFault, on a stack of its own (the fiber's may be what is full).
static void onFault(int signal, siginfo_t* info, void* context) {
    for (Worker* w : pool().workers) {
        if (!w->active || !pthread_equal(w->owner, pthread_self())) continue;
        if (w->job->failed == 700) break; // a second fault while the first is reported
        faultAddress = info->si_addr;
        ucontext_t* c = static_cast<ucontext_t*>(context);
#if defined(__x86_64__)
        c->uc_mcontext.gregs[REG_RSP] = reinterpret_cast<greg_t>(w->emergency) - 8;
        c->uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(reportFault);
#elif defined(__aarch64__)
        c->uc_mcontext.sp = reinterpret_cast<u64>(w->emergency);
        c->uc_mcontext.pc = reinterpret_cast<u64>(reportFault);
#endif
        return;
    }
    const struct sigaction& old = previous[signal == SIGBUS];
    if (old.sa_flags & SA_SIGINFO) return old.sa_sigaction(signal, info, context);
    if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) return old.sa_handler(signal);
    ::signal(signal, SIG_DFL);
}

static void catchFaults() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = onFault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigfillset(&action.sa_mask);
        sigaction(SIGSEGV, &action, &previous[0]);
        sigaction(SIGBUS, &action, &previous[1]);
    });
}

// --- launches ---

int checkLaunch(const Launch& l) {
    const Kernel& k = *l.kernel;
    const char* name = k.name;
    u64 threads = u64(l.block.x) * l.block.y * l.block.z;
    if (!l.grid.x || !l.grid.y || !l.grid.z || l.grid.x > 0x7fffffff || l.grid.y > 65535 || l.grid.z > 65535) {
        complain("launch of %s.%s: grid (%u, %u, %u), but x goes from 1 to 2^31-1, y and z from 1 to 65535", k.family, name, l.grid.x, l.grid.y, l.grid.z);
        return 1;
    }
    if (!threads || l.block.x > 1024 || l.block.y > 1024 || l.block.z > 64 || threads > k.maximumThreads) {
        complain("launch of %s.%s: block (%u, %u, %u), but the kernel is declared for 1 to %u threads", k.family, name, l.block.x, l.block.y, l.block.z, k.maximumThreads);
        return 1;
    }
    if (l.shared > k.dynamicShared) {
        complain("launch of %s.%s: %u bytes of dynamic shared memory, but %u are allowed (raise it by cuFuncSetAttribute, to %u at most)", k.family, name, l.shared,
                 k.dynamicShared, maximumSharedOptIn);
        return 1;
    }
    return 0;
}

static u64 greatestCommonDivisor(u64 a, u64 b) {
    while (b) {
        u64 r = a % b;
        a = b;
        b = r;
    }
    return a;
}

int runLaunch(const Launch& l) {
    if (int code = checkLaunch(l)) return code;
    Pool& p = pool();
    catchFaults();
    std::lock_guard<std::mutex> one(p.use);
    // Each launch has its order of blocks, warps and lanes; a process repeats its orders.
    static u64 state = environment("RINGTAIL_EMULATOR_SEED", 1);
    state = state * 6364136223846793005u + 1442695040888963407u;
    Job job;
    job.launch = l;
    job.blocks = u64(l.grid.x) * l.grid.y * l.grid.z;
    job.seed = state;
    job.late = state >> 40 & 1;
    job.offset = (state >> 20) % job.blocks;
    job.stride = (state >> 16) % job.blocks + 1;
    while (greatestCommonDivisor(job.stride, job.blocks) != 1) job.stride++;
    job.next = 0;
    job.failed = 0;
    u64 threads = job.blocks * l.block.x * l.block.y * l.block.z;
    if (job.blocks == 1 || threads < 4096) p.workers[0]->run(&job); // waking others would take longer
    else p.all([&](u32 i) { p.workers[i]->run(&job); });
    return job.failed;
}

} // namespace emulator
