// Host quantizers: float32 rows -> canonical codes and scales, and back. The definition that every
// device's quantizer equals bit for bit. Works on bands of rows so that a weight is quantized as it
// is read. Not here: packed layouts (kernels/).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/view.h"
#include "quant/scheme.h"

namespace mantissa {

// Codes and scales of a band of rows, canonical form: one byte per code for formats up to 8 bits
// (the code in its low bits, the others zero: -1 of int4 is 0x0f), the storage type for run dtypes
// (2 bytes for f16/bf16, 4 for f32). Value = (code - zero) * scale * global, or codebook[block,
// code].
struct QuantRows {
  const Elem* elem = nullptr;  // of the codes (the run dtype where not quantized)
  Block block{};
  int64_t rows = 0, cols = 0;
  std::vector<uint8_t> codes;        // [rows, cols] x (elem->bits() <= 8 ? 1 : bits / 8) bytes
  std::vector<float> scales;         // [ceil(rows / block.rows), ceil(cols / block.cols)], already
                                     // rounded to the scale's format; empty where not quantized
  std::vector<int32_t> zero_points;  // like scales; asymmetric only
  std::vector<float> codebook;       // [blocks, 2^bits]; codebook schemes only
  float global_scale = 1;            // multiplies every scale (NVFP4)

  int64_t scale_rows() const;  // 0 where there are no scales
  int64_t scale_cols() const;
};

// What was met on the way; reported with the tensor's name, never a NaN scale.
struct QuantReport {
  int64_t values = 0, nan = 0, inf = 0;
  int64_t zero_blocks = 0;  // blocks of zeros: they keep the recipe's least scale
  // Finite values that the largest code misses by a step or more (MX's floor rule, static scales),
  // and of run dtypes those that became infinite.
  int64_t saturated = 0;
  void add(const QuantReport& other);
  bool clean() const { return nan == 0 && inf == 0 && saturated == 0; }
};

// Quantizes one weight W[N, K] band by band. Where a scale spans more rows than a band (per tensor,
// NVFP4's global scale), observe() sees every row first:
//   WeightQuantizer q(spec, N, K, run_dtype);
//   if (q.needs_observe()) for each band: q.observe(band);
//   for each band: q.quantize(row0, band, out);
// Bands start at multiples of band_multiple() rows and hold a multiple of it (the last may be
// short). observe() and quantize() may be called from several threads on different bands; observe()
// is complete before the first quantize().
class WeightQuantizer {
 public:
  WeightQuantizer(const Spec& spec, int64_t rows, int64_t cols, const Elem& run_dtype);
  ~WeightQuantizer();
  WeightQuantizer(const WeightQuantizer&) = delete;
  WeightQuantizer& operator=(const WeightQuantizer&) = delete;

  bool needs_observe() const;
  int64_t band_multiple() const;  // 1, or the block's rows
  void observe(Matrix<const float> band);
  // NaN counts as 0 (reported), +-Inf becomes the code of the largest magnitude (reported; neither
  // enters the scale). Run dtypes keep both.
  QuantReport quantize(int64_t row0, Matrix<const float> band, QuantRows& out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Quantizes X[M, K] (float32 values already rounded to the run dtype): codes [M, K] one byte each;
// scales [M, ceil(K / block.cols)] (per tensor: [1, 1]); zero points like scales where
// spec.asymmetric. `global_scale` is for NVFP4 only. kPerCall writes scales, zero points and the
// global scale; kStatic reads them (NVFP4: the global scale; its block scales are written).
// NaN and infinities: as WeightQuantizer::quantize().
struct ActivationCodes {
  Matrix<uint8_t> codes;
  Matrix<float> scales;
  Matrix<int32_t> zero_points;
  float* global_scale = nullptr;
};
QuantReport quantize_activation(const Spec& spec, Matrix<const float> x,
                                const ActivationCodes& out);

// Rows back to float32: (code - zero) * scale * global, in float64, rounded once.
void dequantize(const QuantRows& q, Matrix<float> out);

}  // namespace mantissa
