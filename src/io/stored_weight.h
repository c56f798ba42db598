// One quantized linear of a checkpoint: its tensors, found and checked by the dialect's row, and
// its rows in canonical form. Codes are never quantized again and scales never changed; where a
// file's form has no equal here, that is an Error naming tensor and file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/dialects.h"
#include "io/safetensors.h"
#include "quant/quantize.h"
#include "quant/static_scale.h"

namespace mantissa {

class StoredWeight {
 public:
  // W[rows, cols] of `module`. Checks names, dtypes and shapes, reads the scales that are one
  // value. The checkpoint and `stored` must outlive it. Throws Error.
  StoredWeight(const Checkpoint& checkpoint, const std::string& module, const StoredScheme& stored,
               int64_t rows, int64_t cols);

  // What the tensors hold: stored.scheme.weight with the format of the scales as they are read.
  const Spec& spec() const { return spec_; }
  // Every tensor that belongs to it.
  const std::vector<const TensorInfo*>& tensors() const { return tensors_; }
  // What one of them holds: "codes", "scales", "input scale" ...
  std::string_view role(const TensorInfo& tensor) const;
  // Of a static activation scheme.
  const StaticScale& input() const { return input_; }

  // Rows [row0, row0 + rows); row0 is a multiple of the block's rows. Thread-safe. Throws Error for
  // codes that are NaN or out of range and for scales that are not normal numbers above 0.
  void read_rows(int64_t row0, int64_t rows, QuantRows& q) const;

 private:
  const TensorInfo& find(std::string_view suffix, std::string_view why);
  void expect(const TensorInfo& tensor, std::string_view dtypes,
              const std::vector<int64_t>& shape) const;
  void find_codes();
  void find_scales();
  void find_zero_points();
  void find_inputs();
  void check_zeros(std::string_view suffix);
  float one_value(const TensorInfo& tensor) const;
  float one_scale(const TensorInfo& tensor) const;
  [[noreturn]] void refuse(const TensorInfo& tensor, const std::string& problem) const;

  void read_codes(int64_t row0, QuantRows& q) const;
  void read_scales(int64_t row0, QuantRows& q) const;
  void read_zero_points(int64_t row0, QuantRows& q) const;

  const Checkpoint* checkpoint_;
  const StoredScheme* stored_;
  std::string module_;
  int64_t rows_, cols_, scale_rows_ = 1, scale_cols_ = 1;
  Spec spec_;
  bool fnuz_ = false;  // codes of e4m3fnuz: the same bits stand for half the value
  const TensorInfo *codes_ = nullptr, *scale_ = nullptr, *zero_ = nullptr;
  float global_ = 1;
  StaticScale input_;
  std::vector<const TensorInfo*> tensors_;
};

}  // namespace mantissa
