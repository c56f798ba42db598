#include "bench/read_bandwidth.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "base/thread_pool.h"

namespace mantissa {
namespace {

constexpr int64_t kBlock = int64_t{4} << 20;  // bytes that a thread reads at a time
constexpr int64_t kBytesMax = int64_t{1} << 30;
constexpr int kPasses = 5;

int64_t memory_bytes() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
}

// Independent sums, so that loads and not additions are the limit.
uint64_t sum_of(const uint64_t* data, int64_t count) {
  constexpr int kLanes = 16;
  uint64_t lanes[kLanes] = {};
  for (int64_t i = 0; i + kLanes <= count; i += kLanes)
    for (int j = 0; j < kLanes; ++j) lanes[j] += data[i + j];
  uint64_t total = 0;
  for (uint64_t lane : lanes) total += lane;
  return total;
}

}  // namespace

double read_bandwidth_gb_s(int threads) {
  ThreadPool pool(threads);
  const int64_t bytes = std::min(kBytesMax, memory_bytes() / 4) / kBlock * kBlock;
  const int64_t words = bytes / 8;
  constexpr int64_t kBlockWords = kBlock / 8;
  const std::unique_ptr<uint64_t[]> data =
      std::make_unique_for_overwrite<uint64_t[]>(static_cast<size_t>(words));
  // Written once, by the threads that read it: untouched pages would all be one page of zeros.
  pool.parallel_for(words, kBlockWords, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) data[static_cast<size_t>(i)] = static_cast<uint64_t>(i);
  });
  std::vector<uint64_t> sums(static_cast<size_t>(pool.threads()));
  double best = 0;
  volatile uint64_t kept = 0;  // so that the reads are not left out
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(words, kBlockWords, [&](int worker, int64_t begin, int64_t end) {
      sums[static_cast<size_t>(worker)] += sum_of(data.get() + begin, end - begin);
    });
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(bytes) / seconds / 1e9);
  }
  for (uint64_t sum : sums) kept = kept + sum;
  return best;
}

}  // namespace mantissa
