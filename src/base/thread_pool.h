// A fork/join pool for loops: the caller is worker 0, the others spin for 1 ms and then sleep
// (futex). A worker that is late (its core is busy with another load) is not waited for: the
// ones that came do the work. Results must not depend on which worker runs which chunk.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace mantissa {

// Cores this process may run on (sched affinity), at least 1.
int usable_cores();

class ThreadPool {
 public:
  // threads counts the caller; 0: usable_cores(). Throws Error outside [0, 1024].
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Threads that sleep begin to spin, as after a loop, and sleep again if none comes: called when
  // work is known to come, so that waking them is no part of its first loop. From any thread.
  void wake();

  // body(int worker, int64_t begin, int64_t end) over [0, n) in chunks of `grain`, taken one by one
  // by whoever is free; worker is in [0, threads()) and unique among bodies that run at once. The
  // first exception of a body is rethrown here, and no further chunk is started. One caller at a
  // time; bodies may not start loops of the same pool (check).
  template <class Body>
  void parallel_for(int64_t n, int64_t grain, Body&& body) {
    run({call<Body>, address(body), n, grain, false});
  }
  // As above for loops that read memory in order: [0, n) is cut into a part for each thread, which
  // takes its chunks front to back; who is done with its own goes on with the second half of what
  // another has left.
  template <class Body>
  void parallel_parts(int64_t n, int64_t grain, Body&& body) {
    run({call<Body>, address(body), n, grain, true});
  }
  // As above in at most threads() contiguous chunks of nearly equal size, each (but the last) a
  // multiple of `multiple`.
  template <class Body>
  void parallel_static(int64_t n, int64_t multiple, Body&& body) {
    parallel_for(n, static_grain(n, multiple), static_cast<Body&&>(body));
  }

 private:
  struct Job {
    void (*body)(void* context, int worker, int64_t begin, int64_t end) = nullptr;
    void* context = nullptr;
    int64_t n = 0, grain = 1;
    bool in_parts = false;
  };
  // Chunks of one thread's part that nobody took: the first in the low half, the end in the high.
  struct alignas(64) Part {
    std::atomic<uint64_t> chunks{0};
  };

  template <class Body>
  static void call(void* context, int worker, int64_t begin, int64_t end) {
    (*static_cast<std::remove_reference_t<Body>*>(context))(worker, begin, end);
  }
  template <class Body>
  static void* address(Body& body) {
    return const_cast<void*>(static_cast<const void*>(std::addressof(body)));
  }

  int64_t static_grain(int64_t n, int64_t multiple) const;
  void run(const Job& job);
  void deal_parts();
  void take_chunks(int worker);
  void take_own_part(int worker);
  bool steal_part(int worker);
  void run_chunk(int worker, int64_t begin);
  void work(int worker);
  void stop_workers();

  Job job_;  // written before gate_ opens, read by workers that joined through it

  int threads_ = 1;
  std::vector<std::thread> workers_;
  std::unique_ptr<Part[]> parts_;  // [threads]
  std::exception_ptr error_;       // owned by whoever set failed_ first, until the join

  alignas(64) std::atomic<int64_t> next_{0};  // first index that nobody took
  alignas(64) std::atomic<int> gate_{0};      // kOpen while workers may join, plus those inside
  alignas(64) std::atomic<int> epoch_{0};     // counts jobs; sleeping workers wait for a change
  alignas(64) std::atomic<bool> failed_{false};
  std::atomic<bool> busy_{false}, stop_{false};
};

}  // namespace mantissa
