// Attention over the paged cache by itself, whatever the backend: caches rotated so that no memory
// nearer than the device's holds them, results sampled against `ref` on the same cache.
#pragma once

#include <cstdint>

#include "kernels/bench_ops.h"
#include "quant/scheme.h"

namespace mantissa {

struct AttentionCase {
  bool prefill = false;  // all tokens of the context at once; else one new token a sequence
  int64_t batch = 1, context = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  const Elem* run_dtype = nullptr;
  const KvFormatRow* cache = nullptr;
};

struct AttentionResult {
  RunTimes times;
  double bytes = 0;       // the least that memory moves: K and V with their scales, q and out once
  double operations = 0;  // of both products, of keys that are not masked
  double math_gops = 0;   // the limit of the run dtype's unit; 0: not known
  double rms_error = 0;   // of sampled rows: RMS of the difference to ref over the RMS of ref
  int64_t sampled = 0;    // values
  bool rotated = false;   // no nearer memory held the cache: bytes came from main memory

  double tflops() const { return operations / times.p50_us * 1e-6; }
  double gb_s() const { return bytes / times.p50_us * 1e-3; }
};

// Writing the cache is not timed. Throws Error where the backend lacks the shape or the memory.
AttentionResult measure_attention(const Ops& ops, Queue* queue, const AttentionCase& c,
                                  uint64_t seed);

}  // namespace mantissa
