// A random `linear` on the CPU backend: canonical weight codes and scales, activations, epilogue,
// and the float64 result on the dequantized inputs.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "compare.h"
#include "kernels/cpu/parts.h"
#include "kernels/cpu/queue.h"
#include "kernels/ops.h"

namespace mantissa::linear_test {

using Values = std::vector<double>;

// Opens the CPU backend's queue.
class CpuDevice {
 public:
  explicit CpuDevice(const std::string& isa, int threads = 2)
      : queue_(std::make_unique<cpu::CpuQueue>(DeviceConfig{.threads = threads, .isa = isa})) {}
  Queue* queue() { return reinterpret_cast<Queue*>(queue_.get()); }

 private:
  std::unique_ptr<cpu::CpuQueue> queue_;
};

// Bytes of a run-dtype matrix.
struct Buffer {
  const Elem* elem;
  int64_t rows, cols;
  std::vector<std::byte> bytes;

  Buffer(const Elem& e, int64_t r, int64_t c)
      : elem(&e), rows(r), cols(c), bytes(static_cast<size_t>(r * c * e.bits() / 8)) {}
  View view() { return {bytes.data(), *elem, rows, cols}; }
  void set(int64_t i, double value) {
    const uint32_t code = encode(*elem, value, false);
    const auto size = static_cast<size_t>(elem->bits() / 8);
    std::memcpy(bytes.data() + static_cast<size_t>(i) * size, &code, size);
  }
};

struct Shape {
  int64_t m, n, k;
  const char* why;
};

enum class Fill {
  kRandom,    // all codes, random scales
  kIntegers,  // small integers, scales of powers of two: every partial sum is exact
  kOneHot,    // as kIntegers, but each row of x holds a single 1
};

struct Options {
  Fill fill = Fill::kRandom;
  bool bias = false, residual = false, f32_out = false;
  uint32_t seed = 1;
};

class Problem {
 public:
  Problem(const Scheme& scheme, const Elem& run, const Shape& shape, const Options& options);

  // The weight packed on the device, in bands of `band` rows.
  Weight pack(Queue* queue, int64_t band = 64);
  // Rows [first, first + count) of x through the packed weight.
  Buffer run(const Weight& w, Queue* queue, int64_t first, int64_t count, bool in_place = false);
  Buffer run(const Weight& w, Queue* queue) { return run(w, queue, 0, shape.m); }

  // x w^T * scales + bias + residual in float64, and the bound of an f32 sum rounded to the output.
  void reference(Values& want, Values& bound) const;
  // The weight dequantized.
  double weight_value(int64_t n, int64_t k) const;
  void set_x_scale(int64_t m, int64_t group, float scale) {
    x_scales_[static_cast<size_t>(m * x_groups() + group)] = scale;
  }
  // Every code of the weight the least, every code of x the greatest.
  void saturate();
  const Elem& out_elem() const { return options.f32_out ? kF32 : *run_dtype; }

  Scheme scheme;
  const Elem* run_dtype;
  Shape shape;
  Options options;
  QuantRows weight;       // canonical, all rows
  std::vector<double> x;  // [M, K] codes' values, without their scales and zero point
  std::vector<std::byte> packed;

 private:
  void fill_weight();
  void fill_input();
  bool integers() const;  // int8 activations: exact sums
  double roundings() const;
  bool x_grouped() const;
  int64_t x_groups() const;
  double x_group_scale(int64_t m, int64_t k) const;

  std::mt19937 random_;
  Buffer high_;
  std::vector<uint8_t> codes_;
  std::vector<float> x_scales_;
  std::vector<int32_t> x_zeros_;
  float x_global_ = 1;
  std::vector<float> bias_;
  Buffer residual_;
};

}  // namespace mantissa::linear_test
