#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace mantissa {
namespace {

constexpr int kThreadsMax = 1024;
constexpr int kOpen = 1 << 30;
// About 100 us of pauses on Zen 4, 300 on Intel: longer than what a forward pass and the host do
// between two loops (choosing one token takes 90), far shorter than a scheduler's time slice.
constexpr int kSpins = 8000;

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until done(value) of the atomic: spins, then sleeps. Acquires what the writer released.
template <class Done>
void await(const std::atomic<int>& atomic, Done done) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (done(atomic.load(std::memory_order_acquire))) return;
    pause_briefly();
  }
  for (;;) {
    const int value = atomic.load(std::memory_order_acquire);
    if (done(value)) return;
    atomic.wait(value, std::memory_order_acquire);
  }
}

}  // namespace

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool::ThreadPool(int threads) {
  if (threads < 0 || threads > kThreadsMax) {
    throw Error(text("thread pool: ", threads, " threads asked for"),
                text("use 1 to ", kThreadsMax, ", or 0 for all cores of this process"));
  }
  threads_ = threads > 0 ? threads : std::min(usable_cores(), kThreadsMax);
  workers_.reserve(static_cast<size_t>(threads_ - 1));
  for (int w = 1; w < threads_; ++w) workers_.emplace_back([this, w] { work(w); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);  // publishes stop_
  epoch_.notify_all();
  for (std::thread& t : workers_) t.join();
}

int64_t ThreadPool::static_grain(int64_t n, int64_t multiple) const {
  check(multiple > 0, "ThreadPool: multiple is positive");
  const int64_t units = (n + multiple - 1) / multiple;
  return std::max<int64_t>(1, (units + threads_ - 1) / threads_) * multiple;
}

void ThreadPool::run(int64_t n, int64_t grain, Run body, void* context) {
  check(grain > 0, "ThreadPool: grain is positive");
  if (n <= 0) return;
  check(!busy_.exchange(true, std::memory_order_acquire),
        "ThreadPool: one caller at a time, loops do not nest");
  body_ = body;
  context_ = context;
  n_ = n;
  grain_ = grain;
  next_.store(0, std::memory_order_relaxed);
  if (threads_ > 1 && n > grain) {
    gate_.store(kOpen, std::memory_order_release);  // publishes the job
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    take_chunks(0);
    // Nobody joins any more; those inside finish their last chunk, and their writes are seen here.
    gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
    await(gate_, [](int inside) { return inside == 0; });
  } else {
    take_chunks(0);
  }
  std::exception_ptr error;
  if (failed_.load(std::memory_order_relaxed)) {
    error = std::exchange(error_, nullptr);
    failed_.store(false, std::memory_order_relaxed);
  }
  busy_.store(false, std::memory_order_release);
  if (error) std::rethrow_exception(error);
}

void ThreadPool::take_chunks(int worker) {
  for (;;) {
    const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
    if (begin >= n_) return;
    try {
      body_(context_, worker, begin, std::min(begin + grain_, n_));
    } catch (...) {
      if (!failed_.exchange(true, std::memory_order_relaxed)) error_ = std::current_exception();
      next_.store(n_, std::memory_order_relaxed);
    }
  }
}

void ThreadPool::work(int worker) {
  int seen = 0;
  for (;;) {
    await(epoch_, [seen](int epoch) { return epoch != seen; });
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    int gate = gate_.load(std::memory_order_relaxed);
    bool joined = false;
    while ((gate & kOpen) != 0 && !joined) {
      joined = gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire,
                                           std::memory_order_relaxed);  // sees the job
    }
    if (!joined) continue;  // too late: the others did it
    take_chunks(worker);
    if (gate_.fetch_sub(1, std::memory_order_release) == 1) gate_.notify_all();
  }
}

}  // namespace mantissa
