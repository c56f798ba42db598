#include "device/peaks.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <iomanip>
#include <memory>
#include <sstream>
#include <system_error>
#include <thread>

#include "base/env.h"
#include "base/error.h"
#include "base/json.h"
#include "base/thread_pool.h"

namespace mantissa {
namespace {

constexpr int kRuns = 7;
constexpr int64_t kReadBytes = int64_t{512} << 20;  // well beyond the caches of any current CPU

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median_seconds(const std::function<void()>& work) {
  std::array<double, kRuns> times;
  for (double& t : times) t = seconds_of(work);
  std::sort(times.begin(), times.end());
  return times[kRuns / 2];
}

// Keeps a result without a cost: written where the optimizer cannot know that nobody reads.
template <class T>
void keep(T value) {
  [[maybe_unused]] volatile T sink = value;
}

double read_rate(const PeakLoops& loops, const std::byte* data, int threads) {
  ThreadPool pool(threads);
  constexpr int64_t kPiece = int64_t{2} << 20;
  double best = 0;
  for (auto* read : {loops.read, loops.read_two}) {
    const double seconds = median_seconds([&] {
      pool.parallel_for(kReadBytes, kPiece, [&](int, int64_t begin, int64_t end) {
        keep(read(data + begin, end - begin));
      });
    });
    best = std::max(best, static_cast<double>(kReadBytes) / seconds * 1e-9);
  }
  return best;
}

// kReadBytes on huge pages where the system gives them, as weights are: small pages are limited by
// address translation.
struct Unmap {
  void operator()(std::byte* data) const { munmap(data, static_cast<size_t>(kReadBytes)); }
};
std::unique_ptr<std::byte, Unmap> map_read_buffer() {
  const auto bytes = static_cast<size_t>(kReadBytes);
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED)
    throw Error(text("cannot allocate ", kReadBytes >> 20, " MiB to measure the read bandwidth"),
                "free some memory", Error::Kind::kRuntime);
  madvise(data, bytes, MADV_HUGEPAGE);
  std::memset(data, 1, bytes);  // untouched pages would all be one page of zeros
  return std::unique_ptr<std::byte, Unmap>(static_cast<std::byte*>(data));
}

double op_rate(const PeakLoop& loop, ThreadPool& pool) {
  if (loop.run == nullptr) return 0;
  // Rounds for about 2 ms a piece, 8 pieces a thread.
  int64_t rounds = 1024;
  while (seconds_of([&] { keep(loop.run(rounds)); }) < 2e-3) rounds *= 2;
  const int64_t pieces = 8 * int64_t{pool.threads()};
  const double seconds = median_seconds([&] {
    pool.parallel_for(pieces, 1, [&](int, int64_t, int64_t) { keep(loop.run(rounds)); });
  });
  return static_cast<double>(pieces * rounds) * loop.ops_per_round / seconds * 1e-9;
}

std::string quoted_json(const std::string& s) {
  std::string out = "\"";
  for (const char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + '"';
}

// FNV-1a: names the file of a machine.
uint64_t hash_of(const std::string& s) {
  uint64_t hash = 14695981039346656037ull;
  for (const char c : s) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  return hash;
}

}  // namespace

Peaks measure_peaks(const PeakLoops& loops, int threads, const std::string& machine) {
  Peaks peaks;
  peaks.machine = machine;
  const auto data = map_read_buffer();
  for (int t = 1; t <= threads; t = t < threads && 2 * t > threads ? threads : 2 * t) {
    while (static_cast<int>(peaks.read_gb_s.size()) < t - 1)  // counts between are not measured
      peaks.read_gb_s.push_back(peaks.read_gb_s.back());
    peaks.read_gb_s.push_back(read_rate(loops, data.get(), t));
  }
  ThreadPool pool(threads);
  peaks.f32_gflops = op_rate(loops.f32, pool);
  peaks.bf16_gflops = op_rate(loops.bf16, pool);
  peaks.int8_gops = op_rate(loops.int8, pool);
  return peaks;
}

double measure_read_gb_s(const PeakLoops& loops, int threads) {
  return read_rate(loops, map_read_buffer().get(), threads);
}

ThreadTimes measure_threads(int threads) {
  constexpr int kBatch = 200, kSleeps = 40;
  ThreadPool pool(threads);
  const auto loop = [&] { pool.parallel_for(threads, 1, [](int, int64_t, int64_t) {}); };
  ThreadTimes out;
  // The caller stays awake: what it costs to have slept itself is not the pool's.
  const auto work_for = [](std::chrono::microseconds time) {
    const auto start = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - start < time) continue;
  };
  constexpr std::chrono::microseconds kUntilAsleep{2000}, kUntilFirstLoop{50};
  std::vector<double> awake, slept, woken, wake;
  for (int i = 0; i < 5 * kRuns; ++i) {
    awake.push_back(seconds_of([&] {
                      for (int j = 0; j < kBatch; ++j) loop();
                    }) /
                    kBatch);
  }
  for (int i = 0; i < kSleeps; ++i) {
    work_for(kUntilAsleep);
    slept.push_back(seconds_of(loop));
    work_for(kUntilAsleep);
    wake.push_back(seconds_of([&] { pool.wake(); }));
    work_for(kUntilFirstLoop);
    woken.push_back(seconds_of(loop));
  }
  const auto median = [](std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  };
  out.fork_join_us = 1e6 * median(awake);
  out.fork_join_slept_us = 1e6 * median(slept);
  out.fork_join_woken_us = 1e6 * median(woken);
  out.wake_us = 1e6 * median(wake);
  out.round_trip_ns = measure_round_trip_ns();
  return out;
}

double measure_round_trip_ns() {
  if (usable_cores() < 2) return 0;
  constexpr int kRounds = 2000, kSpins = 10000;
  alignas(64) std::atomic<int> ball{0};
  // Yields where the other side does not run: two threads may share a core for a while.
  const auto await = [&](int value) {
    for (int spin = 0; ball.load(std::memory_order_acquire) != value; ++spin)
      if (spin > kSpins) std::this_thread::yield();
  };
  std::thread other([&] {
    for (int i = 0; i < kRuns * kRounds; ++i) {
      await(2 * i + 1);
      ball.store(2 * i + 2, std::memory_order_release);
    }
  });
  std::array<double, kRuns> times;
  int round = 0;
  for (double& t : times) {
    t = seconds_of([&] {
      for (int i = 0; i < kRounds; ++i, ++round) {
        ball.store(2 * round + 1, std::memory_order_release);
        await(2 * round + 2);
      }
    });
  }
  other.join();
  return 1e9 * *std::min_element(times.begin(), times.end()) / kRounds;
}

std::string to_json(const Peaks& peaks) {
  std::ostringstream out;
  out << std::setprecision(6) << "{\"machine\":" << quoted_json(peaks.machine)
      << ",\"read_gb_s\":[";
  for (size_t i = 0; i < peaks.read_gb_s.size(); ++i)
    out << (i == 0 ? "" : ",") << peaks.read_gb_s[i];
  out << "],\"f32_gflops\":" << peaks.f32_gflops << ",\"bf16_gflops\":" << peaks.bf16_gflops
      << ",\"int8_gops\":" << peaks.int8_gops << "}\n";
  return out.str();
}

std::filesystem::path peaks_file(const std::string& machine) {
  std::filesystem::path folder;
  if (const auto cache = env("XDG_CACHE_HOME"); cache && !cache->empty()) {
    folder = *cache;
  } else if (const auto home = env("HOME"); home && !home->empty()) {
    folder = std::filesystem::path(*home) / ".cache";
  } else {
    return {};
  }
  std::ostringstream name;
  name << "peaks-" << std::hex << std::setw(16) << std::setfill('0') << hash_of(machine) << ".json";
  return folder / "mantissa" / name.str();
}

std::optional<Peaks> load_peaks(const std::string& machine) {
  const std::filesystem::path path = peaks_file(machine);
  std::error_code error;
  if (path.empty() || !std::filesystem::is_regular_file(path, error)) return std::nullopt;
  try {
    const json::Document document = json::parse_file(path, {.bytes_max = 1 << 16});
    const json::Value root = document.root();
    Peaks peaks;
    peaks.machine = root.at("machine").as_string();
    if (peaks.machine != machine) return std::nullopt;
    const json::Value rates = root.at("read_gb_s");
    for (size_t i = 0; i < rates.size(); ++i) peaks.read_gb_s.push_back(rates[i].as_number(0));
    peaks.f32_gflops = root.at("f32_gflops").as_number(0);
    peaks.bf16_gflops = root.at("bf16_gflops").as_number(0);
    peaks.int8_gops = root.at("int8_gops").as_number(0);
    if (peaks.read_gb_s.empty()) return std::nullopt;
    return peaks;
  } catch (const Error&) {
    return std::nullopt;  // a damaged cache is measured again
  }
}

Peaks merged_peaks(const Peaks& kept, const Peaks& now, std::vector<std::string>& far_below) {
  struct Row {
    const char* name;
    double Peaks::*rate;
  };
  constexpr Row kRows[] = {{"float32 GFLOP/s", &Peaks::f32_gflops},
                           {"bf16 GFLOP/s", &Peaks::bf16_gflops},
                           {"int8 GOP/s", &Peaks::int8_gops}};
  constexpr double kFar = 0.8;
  Peaks out = now;
  for (const Row& row : kRows) {
    const double before = kept.*row.rate, after = now.*row.rate;
    out.*row.rate = std::max(before, after);
    if (after < kFar * before)
      far_below.push_back(
          text(row.name, ": ", std::llround(after), " now, ", std::llround(before), " kept"));
  }
  return out;
}

bool save_peaks(const Peaks& peaks) {
  const std::filesystem::path path = peaks_file(peaks.machine);
  if (path.empty()) return false;
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  // Written beside and renamed: a reader never sees half a file.
  std::filesystem::path temporary = path;
  temporary += ".new";
  {
    std::ofstream out(temporary, std::ios::trunc);
    out << to_json(peaks);
    if (!out.flush()) return false;
  }
  std::filesystem::rename(temporary, path, error);
  return !error;
}

}  // namespace mantissa
