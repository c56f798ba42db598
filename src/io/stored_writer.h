// Writing a quantized linear in a dialect: the reverse of io/stored_weight.h. Which row writes a
// scheme, what its tensors are called, their bytes, and what quantization_config says.
#pragma once

#include <string>
#include <vector>

#include "io/dialects.h"
#include "io/safetensors_writer.h"
#include "quant/quantize.h"
#include "quant/static_scale.h"

namespace mantissa {

// format: "fp8" or "compressed-tensors". Throws Error naming what the format has instead.
const DialectRow& dialect_for(std::string_view format, const Scheme& scheme);

// The JSON object. ignored: names of the linears that stay unquantized.
std::string quantization_config_of(const DialectRow& dialect, const Scheme& scheme,
                                   const std::vector<std::string>& ignored);

// One linear W[rows, cols], band by band.
class StoredWriter {
 public:
  // Throws Error where the dialect cannot hold the shape (groups that do not divide K).
  StoredWriter(const DialectRow& dialect, const Scheme& scheme, std::string module, int64_t rows,
               int64_t cols);

  std::vector<TensorSpec> tensors() const;
  // Bands in order, from row 0; then finish().
  void write(SafetensorsWriter& out, const QuantRows& band);
  void finish(SafetensorsWriter& out, const StaticScale& input);

 private:
  std::string name(std::string_view suffix) const { return module_ + "." + std::string(suffix); }
  void write_codes(SafetensorsWriter& out, const QuantRows& band) const;
  std::vector<int64_t> one() const;  // the shape of a single value

  const DialectRow& dialect_;
  const Scheme& scheme_;
  std::string module_;
  int64_t rows_, cols_, scale_rows_, scale_cols_;
  std::vector<float> scales_;  // of all bands
  std::vector<int32_t> zeros_;
  float global_ = 1;
};

}  // namespace mantissa
