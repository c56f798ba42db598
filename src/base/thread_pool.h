// A fork/join pool for loops: the caller is worker 0, the others spin for a bounded time and then
// sleep (futex). A worker that is late (its core is busy with another load) is not waited for: the
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

  // body(int worker, int64_t begin, int64_t end) over [0, n) in chunks of `grain`, taken one by one
  // by whoever is free; worker is in [0, threads()) and unique among bodies that run at once. The
  // first exception of a body is rethrown here, and no further chunk is started. One caller at a
  // time; bodies may not start loops of the same pool (check).
  template <class Body>
  void parallel_for(int64_t n, int64_t grain, Body&& body) {
    using B = std::remove_reference_t<Body>;
    run(
        n, grain,
        [](void* context, int worker, int64_t begin, int64_t end) {
          (*static_cast<B*>(context))(worker, begin, end);
        },
        const_cast<void*>(static_cast<const void*>(std::addressof(body))));
  }
  // As above in at most threads() contiguous chunks of nearly equal size, each (but the last) a
  // multiple of `multiple`.
  template <class Body>
  void parallel_static(int64_t n, int64_t multiple, Body&& body) {
    parallel_for(n, static_grain(n, multiple), static_cast<Body&&>(body));
  }

 private:
  using Run = void (*)(void* context, int worker, int64_t begin, int64_t end);

  int64_t static_grain(int64_t n, int64_t multiple) const;
  void run(int64_t n, int64_t grain, Run body, void* context);
  void take_chunks(int worker);
  void work(int worker);

  // The job: written before gate_ opens, read by workers that joined through it.
  Run body_ = nullptr;
  void* context_ = nullptr;
  int64_t n_ = 0, grain_ = 1;

  int threads_ = 1;
  std::vector<std::thread> workers_;
  std::exception_ptr error_;  // owned by whoever set failed_ first, until the join

  alignas(64) std::atomic<int64_t> next_{0};  // first index that nobody took
  alignas(64) std::atomic<int> gate_{0};      // kOpen while workers may join, plus those inside
  alignas(64) std::atomic<int> epoch_{0};     // counts jobs; sleeping workers wait for a change
  alignas(64) std::atomic<bool> failed_{false};
  std::atomic<bool> busy_{false}, stop_{false};
};

}  // namespace mantissa
