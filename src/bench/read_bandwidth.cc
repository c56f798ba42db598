#include "bench/read_bandwidth.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/host_memory.h"

namespace mantissa {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kBlock = int64_t{4} << 20;  // bytes that a thread reads at a time
constexpr int64_t kBytesMax = int64_t{1} << 30;
constexpr int kPassesMin = 4;
constexpr double kSecondsMin = 0.8;

int64_t memory_bytes() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
}

// Sum of kStreams parts of a block that are read side by side: one stream or two, whichever the
// prefetcher likes better. Independent sums, so that loads and not additions are the limit.
template <int kStreams>
uint64_t sum_of(const uint64_t* data, int64_t count) {
  constexpr int kLanes = 16;
  uint64_t lanes[kStreams][kLanes] = {};
  const int64_t part = count / kStreams;
  for (int64_t i = 0; i + kLanes <= part; i += kLanes)
    for (int s = 0; s < kStreams; ++s)
      for (int j = 0; j < kLanes; ++j) lanes[s][j] += data[s * part + i + j];
  uint64_t total = 0;
  for (const auto& stream : lanes)
    for (uint64_t lane : stream) total += lane;
  return total;
}

}  // namespace

double read_bandwidth_gb_s(int threads) {
  ThreadPool pool(threads);
  const int64_t bytes = std::min(kBytesMax, memory_bytes() / 4) / kBlock * kBlock;
  const int64_t words = bytes / 8;
  constexpr int64_t kBlockWords = kBlock / 8;
  const auto release = [bytes](std::byte* memory) { release_host(memory, bytes, nullptr); };
  // On huge pages, as the weights.
  const std::unique_ptr<std::byte, decltype(release)> memory(
      allocate_host(bytes, "measuring the read bandwidth", nullptr), release);
  uint64_t* data = reinterpret_cast<uint64_t*>(memory.get());
  // Written once: untouched pages would all be one page of zeros.
  pool.parallel_for(words, kBlockWords, [&](int, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) data[i] = static_cast<uint64_t>(i);
  });
  std::vector<uint64_t> sums(static_cast<size_t>(pool.threads()));
  const Clock::time_point first = Clock::now();
  double best = 0, spent = 0;
  for (int pass = 0; pass < kPassesMin || spent < kSecondsMin; ++pass) {
    const Clock::time_point start = Clock::now();
    pool.parallel_for(words, kBlockWords, [&](int worker, int64_t begin, int64_t end) {
      const auto sum = pass % 2 == 0 ? sum_of<1> : sum_of<2>;
      sums[static_cast<size_t>(worker)] += sum(data + begin, end - begin);
    });
    const Clock::time_point now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - start).count();
    best = std::max(best, static_cast<double>(bytes) / seconds / 1e9);
    spent = std::chrono::duration<double>(now - first).count();
  }
  volatile uint64_t kept = 0;  // so that the reads are not left out
  for (uint64_t sum : sums) kept = kept + sum;
  return best;
}

}  // namespace mantissa
