// Loading through the device: raw checkpoint bytes travel there, and the device itself rounds,
// quantizes and packs. Optional in a backend (Ops::load); where there is none the loader quantizes
// on the host. Results are equal bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "kernels/weight.h"
#include "quant/quantize.h"

namespace mantissa {

struct Queue;
struct LoadStream;  // staging memory, memory for one raw weight: while a model loads

// Rows of a weight as a checkpoint tensor holds them.
struct RawPart {
  int64_t row0 = 0, rows = 0;   // in the weight
  const Elem* elem = nullptr;   // f32, f16 or bf16: how values are stored; nullptr: dummy values
  uint64_t stream = 0;          // of dummy values
  std::byte* device = nullptr;  // where the bytes of its [rows, K] go; set by begin()
  int64_t bytes(int64_t cols) const {
    return elem == nullptr ? 0 : rows * cols * (elem->bits() / 8);
  }
};

// Dummy weights depend on (seed, tensor, index) alone: uniform in +-sqrt(3)/50, so of standard
// deviation 0.02.
constexpr float dummy_value(uint64_t stream, uint64_t index) {
  constexpr float kScale = 0.034641016f / 8388608.0f;  // sqrt(3) / 50 / 2^23
  const auto bits = static_cast<int32_t>(mix64(stream + index) >> 40);
  return static_cast<float>(bits - (1 << 23)) * kScale;
}

inline constexpr int64_t kLoadStageBytes = 2 << 20;  // of one staging buffer

struct LoadStreamConfig {
  int workers = 1;        // threads that stage and send
  int64_t raw_bytes = 0;  // the largest raw_bytes() of the weights to come
  int64_t weights = 0;    // how many will come, at most
};

// What was met, in the order of the weights, and how long the device was busy.
struct LoadStreamResult {
  std::vector<QuantReport> reports;
  int64_t copied_bytes = 0, made_bytes = 0;  // raw bytes sent; bytes of the weights made
  double copy_seconds = 0, make_seconds = 0;
};

// begin(w); stage() and send() by any worker until all bytes of w's parts are there; make(w).
struct LoadOps {
  // Empty: the device quantizes this weight. Else why not; the host does.
  std::string_view (*refuses)(const Weight&);
  // Device memory that loading takes beside the weight, until the next one: 0 where the bytes are
  // dummy or go where they stay.
  int64_t (*raw_bytes)(const Weight&, std::span<const RawPart>);
  LoadStream* (*open)(const LoadStreamConfig&, Queue*);
  void (*close)(LoadStream*);  // waits

  void (*begin)(LoadStream*, const Weight&, std::span<RawPart>);
  // Host memory of kLoadStageBytes that is free to be written: waits until it is. Thread-safe for
  // different workers, as send().
  std::byte* (*stage)(LoadStream*, int worker);
  // The first `bytes` of what stage() gave go to `to` on the device; returns at once.
  void (*send)(LoadStream*, int worker, std::byte* to, int64_t bytes);
  // Codes, scales and all else of w from its parts; returns at once.
  void (*make)(LoadStream*, const Weight&, std::span<const RawPart>);
  // Codes that exist already: where those of rows from row0 on go as they are in canonical form.
  // nullptr: the layout is another; pack_rows takes them.
  std::byte* (*codes_at)(const Weight&, int64_t row0);
  LoadStreamResult (*finish)(LoadStream*);  // waits; once, at the end
};

}  // namespace mantissa
