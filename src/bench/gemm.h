// One linear layer's speed, whatever the backend: weights rotated over more bytes than caches
// hold, results sampled against float64 sums of the same codes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/bench_ops.h"

namespace mantissa {

struct GemmCase {
  Scheme scheme;
  const Elem* run_dtype = nullptr;
  int64_t m = 0, n = 0, k = 0;
};

struct GemmResult {
  std::string kernel;  // what ran, with its tile where it has several
  RunTimes times;
  double bytes = 0;       // the least that memory moves: weights, x and out once
  double operations = 0;  // 2 M N K
  double math_gops = 0;   // the limit of the unit; 0: not known
  // Of sampled results: RMS of the difference to float64 sums over the RMS of those; a rounding of
  // the run dtype is in it.
  double rms_error = 0;
  int64_t sampled = 0;
  bool rotated = false;  // the copies of the weights are kRotatedBytes: they came from main memory
  std::vector<PeerTime> peers;

  double tflops() const { return operations / times.p50_us * 1e-6; }
  double gb_s() const { return bytes / times.p50_us * 1e-3; }
};

// x is quantized before, not timed. Throws Error where the backend lacks the scheme or the memory.
GemmResult measure_gemm(const Ops& ops, Queue* queue, const GemmCase& c, bool with_peers,
                        uint64_t seed);

// rms_norm and the linear that reads its forms, one after the other: torchao's "ReLU -> Linear"
// with this engine's own activation, whose bytes are the same.
RunTimes measure_activation_and_linear(const Ops& ops, Queue* queue, const GemmCase& c,
                                       uint64_t seed);

// torchao's roofline of the same: seconds that bytes and operations take at the limits, the larger
// of the two for the product, their sum for both steps.
struct Roofline {
  double activation_s = 0, linear_s = 0;
  double total_s() const { return activation_s + linear_s; }
};
Roofline roofline_of(const GemmCase& c, double read_gb_s, double math_gops);

}  // namespace mantissa
