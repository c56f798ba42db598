// What the tests of the operations share: tensors with a run-time dtype, a paged batch with its
// cache, and the backends to run on. Not here: tolerances (compare.h).
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/view.h"
#include "kernels/ops.h"
#include "kernels/ref/ops.h"

namespace mantissa {

// An open backend.
class Device {
 public:
  Device(const Ops& ops, const DeviceConfig& config) : ops(ops), queue_(ops.open(config)) {}
  explicit Device(const Ops& ops) : Device(ops, {.threads = 2, .scratch_tokens = 512}) {}
  ~Device() { ops.close(queue_); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  Queue* queue() const { return queue_; }

  const Ops& ops;

 private:
  Queue* queue_;
};

// A row-major matrix that owns its bytes, 64-byte aligned, followed by a guard that view() users
// must not touch (guard_intact()).
class Tensor {
 public:
  Tensor() = default;
  Tensor(const Elem& elem, int64_t rows, int64_t cols)
      : elem_(&elem), rows_(rows), cols_(cols), bytes_(static_cast<size_t>(size() + kGuard + 64)) {
    base_ = (64 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64) % 64;
    std::memset(data() + size(), 0x5a, kGuard);
  }
  Tensor(const Tensor& other) : Tensor(*other.elem_, other.rows_, other.cols_) {
    std::memcpy(data(), other.data(), static_cast<size_t>(size()));
  }
  Tensor& operator=(const Tensor& other) {
    Tensor copy(other);
    std::swap(elem_, copy.elem_);
    std::swap(rows_, copy.rows_);
    std::swap(cols_, copy.cols_);
    std::swap(base_, copy.base_);
    bytes_.swap(copy.bytes_);
    return *this;
  }

  View view() { return {data(), *elem_, rows_, cols_}; }
  ConstView view() const { return {data(), *elem_, rows_, cols_}; }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  const Elem& elem() const { return *elem_; }
  int64_t size() const { return elem_ == nullptr ? 0 : rows_ * cols_ * elem_->bits() / 8; }
  std::byte* data() { return bytes_.data() + base_; }
  const std::byte* data() const { return bytes_.data() + base_; }

  double at(int64_t r, int64_t c) const {
    const int64_t i = r * cols_ + c;
    if (*elem_ == kF32) return reinterpret_cast<const float*>(data())[i];
    return decode(*elem_, reinterpret_cast<const uint16_t*>(data())[i]);
  }
  void set(int64_t r, int64_t c, double value) {
    const int64_t i = r * cols_ + c;
    if (*elem_ == kF32)
      reinterpret_cast<float*>(data())[i] = static_cast<float>(value);
    else
      reinterpret_cast<uint16_t*>(data())[i] = static_cast<uint16_t>(encode(*elem_, value, false));
  }
  // Normal values times `spread`.
  void fill(uint32_t seed, double spread = 1) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal(0, spread);
    for (int64_t r = 0; r < rows_; ++r)
      for (int64_t c = 0; c < cols_; ++c) set(r, c, normal(random));
  }
  Tensor rows_from(int64_t first, int64_t count) const {
    Tensor out(*elem_, count, cols_);
    const int64_t row_bytes = cols_ * elem_->bits() / 8;
    std::memcpy(out.data(), data() + first * row_bytes, static_cast<size_t>(count * row_bytes));
    return out;
  }
  bool guard_intact() const {
    for (size_t i = 0; i < kGuard; ++i)
      if (data()[static_cast<size_t>(size()) + i] != std::byte{0x5a}) return false;
    return true;
  }
  bool operator==(const Tensor& other) const {
    return rows_ == other.rows_ && cols_ == other.cols_ && elem_ == other.elem_ &&
           std::memcmp(data(), other.data(), static_cast<size_t>(size())) == 0;
  }

 private:
  static constexpr size_t kGuard = 64;
  const Elem* elem_ = nullptr;
  int64_t rows_ = 0, cols_ = 0;
  size_t base_ = 0;
  std::vector<std::byte> bytes_;
};

inline Activation high_only(View high) {
  Activation out;
  out.high = high;
  return out;
}

// The memory behind one quantized form of an activation.
struct Codes {
  Codes(const Spec& spec, int64_t m, int64_t k)
      : spec(spec),
        m(m),
        k(k),
        scale_rows(spec.block.rows == kAll ? 1 : m),
        scale_cols(spec.block.cols == kAll ? 1 : (k + spec.block.cols - 1) / spec.block.cols),
        codes(static_cast<size_t>(m * k), 0xcd),
        scales(static_cast<size_t>(scale_rows * scale_cols), -1),
        zeros(scales.size(), -1) {}
  QuantizedActivation view() {
    QuantizedActivation out;
    out.spec = spec;
    out.codes = {codes.data(), m, k};
    out.scales = {scales.data(), scale_rows, scale_cols};
    if (spec.asymmetric) out.zero_points = {zeros.data(), scale_rows, scale_cols};
    if (spec.global_scale) out.global_scale = &global;
    return out;
  }
  bool operator==(const Codes& other) const {
    return codes == other.codes && scales == other.scales && zeros == other.zeros &&
           global == other.global;
  }

  Spec spec;
  int64_t m, k, scale_rows, scale_cols;
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> zeros;
  float global = 1;
};

// One sequence of a step: `query` new tokens at the end of `context` tokens in all.
struct SequenceShape {
  int32_t query, context;
};

// A paged batch over a cache of one layer; pages are dealt out of order, so that a wrong table
// look-up shows.
class Paged {
 public:
  Paged(const Ops& ops, const KvShape& shape, const std::vector<int32_t>& lengths_max) {
    layer.shape = shape;
    layer.page_bytes = ops.kv_page_bytes(shape);
    int32_t pages = 0;
    for (const int32_t length : lengths_max) {
      tables_.emplace_back();
      for (int32_t t = 0; t < length; t += shape.page_tokens) tables_.back().push_back(pages++);
    }
    for (std::vector<int32_t>& table : tables_)
      for (int32_t& page : table) page = pages - 1 - page;
    memory_.resize(static_cast<size_t>(pages * layer.page_bytes + 64), std::byte{0xff});
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory_.data());
    layer.pages = memory_.data() + (64 - address % 64) % 64;
  }

  // The batch of one step; sequence s of the step is shapes[s] (query may be 0).
  Batch batch(const std::vector<SequenceShape>& shapes) {
    positions_.clear();
    slots_.clear();
    starts_ = {0};
    contexts_.clear();
    size_t stride = 1;
    for (const std::vector<int32_t>& table : tables_) stride = std::max(stride, table.size());
    table_.assign(shapes.size() * stride, -1);
    for (size_t s = 0; s < shapes.size(); ++s) {
      const int32_t page_tokens = layer.shape.page_tokens;
      for (int32_t i = 0; i < shapes[s].query; ++i) {
        const int32_t p = shapes[s].context - shapes[s].query + i;
        positions_.push_back(p);
        slots_.push_back(tables_[s][static_cast<size_t>(p / page_tokens)] * page_tokens +
                         p % page_tokens);
      }
      starts_.push_back(static_cast<int32_t>(positions_.size()));
      contexts_.push_back(shapes[s].context);
      std::copy(tables_[s].begin(), tables_[s].end(),
                table_.begin() + static_cast<ptrdiff_t>(s * stride));
    }
    Batch b;
    b.tokens = static_cast<int32_t>(positions_.size());
    b.sequences = static_cast<int32_t>(shapes.size());
    b.positions = positions_.data();
    b.slots = slots_.data();
    b.query_start = starts_.data();
    b.context_len = contexts_.data();
    b.block_table = table_.data();
    b.block_table_stride = static_cast<int64_t>(stride);
    return b;
  }

  KvLayer layer;

 private:
  std::vector<std::vector<int32_t>> tables_;
  std::vector<std::byte> memory_;
  std::vector<int32_t> positions_, slots_, starts_, contexts_, table_;
};

}  // namespace mantissa
