// The machine's limits, measured: what speeds are divided by. Measuring takes about 2 s and is
// cached in $XDG_CACHE_HOME/mantissa (or ~/.cache/mantissa), one file per machine. Not here: the
// loops themselves, which need instruction sets (kernels/cpu/peaks.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace mantissa {

struct Peaks {
  std::string machine;            // processor, cores, instruction set: what the figures belong to
  std::vector<double> read_gb_s;  // read bandwidth of memory by 1, 2, ... threads, 1e9 bytes/s
  // By all threads, 1e9 operations/s (a multiplication and an addition are two); 0: no such
  // instruction.
  double f32_gflops = 0;   // fused multiply-adds
  double bf16_gflops = 0;  // dot products of bf16 pairs
  double int8_gops = 0;    // dot products of int8 quadruples
};

// Loops of one instruction set; each returns a value that depends on all its work.
struct PeakLoop {
  float (*run)(int64_t rounds) = nullptr;  // null: no such instruction
  double ops_per_round = 0;
};
struct PeakLoops {
  // One sequential stream, or two halves side by side: prefetchers differ. bytes: a multiple of
  // 1024.
  uint64_t (*read)(const std::byte* data, int64_t bytes) = nullptr;
  uint64_t (*read_two)(const std::byte* data, int64_t bytes) = nullptr;
  PeakLoop f32, bf16, int8;
};

// Median of several runs each, in under 10 s.
Peaks measure_peaks(const PeakLoops& loops, int threads, const std::string& machine);

// Read bandwidth alone, by `threads`, 1e9 bytes/s; under 2 s.
double measure_read_gb_s(const PeakLoops& loops, int threads);

// What threads cost each other; under 0.5 s.
struct ThreadTimes {
  double fork_join_us = 0;        // an empty loop of a pool whose threads are awake
  double fork_join_slept_us = 0;  // after 2 ms of other work of the caller
  double fork_join_woken_us = 0;  // the same, but wake() was called 50 us before: a request came
  double wake_us = 0;             // of that call
  double round_trip_ns = 0;       // of a cache line between two cores; 0: there is one core
};
ThreadTimes measure_threads(int threads);
// The last of them alone, in about 10 ms: some 50 ns within one group of cores that shares a cache
// (a CCD), several times that between two.
double measure_round_trip_ns();

std::string to_json(const Peaks& peaks);
// The cache. load: nullopt where there is none for the machine, or it is not readable as one.
std::filesystem::path peaks_file(const std::string& machine);
std::optional<Peaks> load_peaks(const std::string& machine);
// What is kept of a new measurement: the higher of each arithmetic rate, since a busy machine only
// lowers them. Bandwidths are the new ones: they differ from hour to hour, and benchmarks measure
// their own. far_below: a line for each rate that is now under 80 % of the kept one.
Peaks merged_peaks(const Peaks& kept, const Peaks& now, std::vector<std::string>& far_below);
// Creates the folder; false where it cannot be written (a read-only home is no error).
bool save_peaks(const Peaks& peaks);

}  // namespace mantissa
