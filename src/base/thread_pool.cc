#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace mantissa {
namespace {

constexpr int kThreadsMax = 1024;
constexpr int kOpen = 1 << 30;
constexpr int64_t kChunksMost = (int64_t{1} << 32) - 1;
// Longer than what a forward pass and the host do between two loops (choosing one token takes 0.1
// ms), so that no worker sleeps within a step; shorter than a scheduler's time slice.
constexpr auto kWorkerSpins = std::chrono::milliseconds(1);
// A caller that sleeps gives its core to a worker that lost its own.
constexpr auto kCallerSpins = std::chrono::microseconds(100);

// Chunks [begin, end) in one word.
struct Range {
  uint64_t begin, end;
};
Range range_of(uint64_t word) {
  return {word & 0xffffffff, word >> 32};
}
uint64_t packed(Range range) {
  return range.end << 32 | range.begin;
}

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until done(value) of the atomic: spins, then sleeps. Acquires what the writer released.
template <class Done>
void await(const std::atomic<int>& atomic, std::chrono::steady_clock::duration spins, Done done) {
  constexpr int kUntimed = 64;
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int spin = 0; spin < kUntimed; ++spin) {
      if (done(atomic.load(std::memory_order_acquire))) return;
      pause_briefly();
    }
  } while (std::chrono::steady_clock::now() - start < spins);
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
  parts_ = std::make_unique<Part[]>(static_cast<size_t>(threads_));
  workers_.reserve(static_cast<size_t>(threads_ - 1));
  try {
    for (int w = 1; w < threads_; ++w) workers_.emplace_back([this, w] { work(w); });
  } catch (const std::system_error& e) {
    const size_t started = workers_.size();
    stop_workers();
    throw Error(text("thread pool: of ", threads_, " threads, ", threads_ - 1 - started,
                     " could not be started: ", e.what()),
                "use fewer --threads, or raise the limits on processes and memory (ulimit)");
  }
}

ThreadPool::~ThreadPool() {
  stop_workers();
}

void ThreadPool::wake() {
  if (threads_ < 2) return;
  epoch_.fetch_add(1, std::memory_order_release);  // whoever wakes finds the gate closed
  epoch_.notify_all();
}

void ThreadPool::stop_workers() {
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

void ThreadPool::run(const Job& job) {
  check(job.grain > 0, "ThreadPool: grain is positive");
  if (job.n <= 0) return;
  check(!busy_.exchange(true, std::memory_order_acquire),
        "ThreadPool: one caller at a time, loops do not nest");
  job_ = job;
  next_.store(0, std::memory_order_relaxed);
  if (threads_ > 1 && job.n > job.grain) {
    if (job.in_parts) deal_parts();
    gate_.store(kOpen, std::memory_order_release);  // publishes the job
    epoch_.fetch_add(1, std::memory_order_release);
    epoch_.notify_all();
    take_chunks(0);
    // Nobody joins any more; those inside finish their last chunk, and their writes are seen here.
    gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
    await(gate_, kCallerSpins, [](int inside) { return inside == 0; });
  } else {
    job_.in_parts = false;
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

void ThreadPool::deal_parts() {
  const int64_t chunks = (job_.n + job_.grain - 1) / job_.grain;
  check(chunks <= kChunksMost, "ThreadPool: chunks of a part are 32-bit numbers");
  for (int w = 0; w < threads_; ++w) {
    const Range part{static_cast<uint64_t>(chunks * w / threads_),
                     static_cast<uint64_t>(chunks * (w + 1) / threads_)};
    parts_[static_cast<size_t>(w)].chunks.store(packed(part), std::memory_order_relaxed);
  }
}

void ThreadPool::take_chunks(int worker) {
  if (job_.in_parts) {
    do {
      take_own_part(worker);
    } while (steal_part(worker));
    return;
  }
  for (;;) {
    const int64_t begin = next_.fetch_add(job_.grain, std::memory_order_relaxed);
    if (begin >= job_.n) return;
    run_chunk(worker, begin);
  }
}

void ThreadPool::take_own_part(int worker) {
  std::atomic<uint64_t>& own = parts_[static_cast<size_t>(worker)].chunks;
  uint64_t chunks = own.load(std::memory_order_relaxed);
  while (!failed_.load(std::memory_order_relaxed)) {
    const Range left = range_of(chunks);
    if (left.begin >= left.end) return;
    if (!own.compare_exchange_weak(chunks, packed({left.begin + 1, left.end}),
                                   std::memory_order_relaxed))
      continue;
    run_chunk(worker, static_cast<int64_t>(left.begin) * job_.grain);
    chunks = own.load(std::memory_order_relaxed);
  }
}

// Makes the second half of what another thread has left the worker's own part, which is empty.
bool ThreadPool::steal_part(int worker) {
  for (int i = 1; i < threads_; ++i) {
    std::atomic<uint64_t>& victim = parts_[static_cast<size_t>((worker + i) % threads_)].chunks;
    uint64_t chunks = victim.load(std::memory_order_relaxed);
    while (!failed_.load(std::memory_order_relaxed)) {
      const Range left = range_of(chunks);
      if (left.begin >= left.end) break;
      const uint64_t middle = left.begin + (left.end - left.begin) / 2;
      if (!victim.compare_exchange_weak(chunks, packed({left.begin, middle}),
                                        std::memory_order_relaxed))
        continue;
      parts_[static_cast<size_t>(worker)].chunks.store(packed({middle, left.end}),
                                                       std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

void ThreadPool::run_chunk(int worker, int64_t begin) {
  try {
    job_.body(job_.context, worker, begin, std::min(begin + job_.grain, job_.n));
  } catch (...) {
    if (!failed_.exchange(true, std::memory_order_relaxed)) error_ = std::current_exception();
    next_.store(job_.n, std::memory_order_relaxed);
  }
}

void ThreadPool::work(int worker) {
  int seen = 0;
  for (;;) {
    await(epoch_, kWorkerSpins, [seen](int epoch) { return epoch != seen; });
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
