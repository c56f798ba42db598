// What rows.cc hands to the per-ISA code of rows_body.inc: plain structs and function types only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_abi.h"

namespace mantissa::cpu {

struct NormArgs {
  Format run;
  const float* gain;  // [K]
  int64_t cols;       // K
  float eps;
};

enum class Gate : uint8_t { kSilu, kGeluTanh };

// Of the finite values of a piece of a row, 0 among them.
struct Range {
  float min, max;
};

enum class Coder : uint8_t { kInt, kE4m3, kE5m2, kE3m2, kE2m3, kE2m1 };

// How values become codes: units = value / factor or value * factor, then the nearest code of the
// format (an integer of `bits`: plus zero, clamped, its low bits).
struct EncodeArgs {
  Format run;  // of the values
  Coder coder;
  bool divide;
  const float* factors;  // of blocks of `block` values
  int64_t block;
  float low, high;  // integers: of units, zero point not yet added
  int32_t zero;
  uint32_t mask;
};

// x += multiplier * delta, normalized by `gain` where there is one.
struct AddArgs {
  Format run;
  const float* gain;  // [K] or nullptr
  int64_t cols;       // K
  float eps, multiplier;
};

struct RowsKernels {
  // One row: out = x / sqrt(mean(x^2) + eps) * gain; out may be x.
  void (*norm)(const NormArgs&, const std::byte* x, std::byte* out);
  void (*add)(const AddArgs&, const std::byte* delta, std::byte* x);
  // z = x * multiplier, then cap * tanh(z / cap) where cap > 0.
  void (*cap)(float multiplier, float cap, float* x, int64_t count);
  // One row: out[i] = fn(x[i]) * x[cols + i].
  void (*gate)(Format run, Gate fn, const std::byte* x, int64_t cols, std::byte* out);
  Range (*range)(Format run, const std::byte* x, int64_t count);
  // The largest finite magnitude of each block of values; the last may be short.
  void (*block_amax)(Format run, const std::byte* x, int64_t count, int64_t block, float* amax);
  // A NaN is taken as 0.
  void (*encode)(const EncodeArgs&, const std::byte* x, int64_t count, uint8_t* codes);
};

extern const RowsKernels kRowsPortable, kRowsAvx2, kRowsAvx512;

}  // namespace mantissa::cpu
