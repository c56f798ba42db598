// What the files of the `ref` backend share: its queue, its operations, and the one rounding from
// float64 to a run dtype. The backend is the definition of every operation: float64 loops in one
// fixed order, whatever the number of threads. Not here: anything fast.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/ops.h"

namespace mantissa::ref {

// What Queue* points to in this backend.
struct RefQueue {
  explicit RefQueue(int threads) : pool(threads) {}
  ThreadPool pool;
  SamplerScratch sampler;
};
RefQueue& queue_of(Queue* queue);

// Calls work(i) for every i in [0, count), on the queue's threads. Results must not depend on which
// thread runs what.
void for_each(Queue* queue, int64_t count, const std::function<void(int64_t)>& work);

// The float32 that rounds to every narrower format as `value` itself would: rounded towards zero,
// last bit set where inexact ("round to odd"; Boldo and Melquiond, 2008). Exact values stay.
float round_to_odd(double value);

// Row r of x as float64, and float64 values rounded once, to nearest even, into row r of out.
void load_row(ConstView x, int64_t r, std::span<double> out);
void store_row(View out, int64_t r, std::span<const double> values);

// Fills the quantized forms of `out` from run-dtype values.
void quantize_forms(const Activation& out, ConstView values, Queue* queue);

// ---- the rows of kRefOps; contracts in kernels/ops.h
Weight plan_weight(const WeightRequest& request, Queue* queue);
void pack_rows(const Weight& w, int64_t row0, const QuantRows& q, Queue* queue);
void finish_weight(const Weight& w, Queue* queue);
void unpack_rows(const Weight& w, int64_t row0, int64_t rows, QuantRows& q, Queue* queue);
void embed(View out, const Weight& table, float multiplier, const Batch& batch, Queue* queue);
void linear(View out, const Activation& x, const Weight& w, const Epilogue& e, Queue* queue);

void rms_norm(const Activation& out, ConstView x, const float* gain, float eps, Queue* queue);
void add_rows(View x, ConstView delta, const AddParams& params, Queue* queue);
void norm_heads(View qkv, const HeadNormParams& params, Queue* queue);
void cap_logits(Matrix<float> logits, float multiplier, float cap, Queue* queue);
void quantize_rows(const Activation& out, Queue* queue);
void observe(ConstView x, float* range, Queue* queue);
void gate(const Activation& out, ConstView gate_up, GateFn fn, Queue* queue);
void gather_rows(View out, ConstView x, std::span<const int32_t> rows, Queue* queue);

void rope_write(View qkv, const RopeParams& rope, const AttentionParams& params, const Batch& batch,
                const KvLayer& kv, Queue* queue);
void attention(const Activation& out, ConstView qkv, const AttentionParams& params,
               const Batch& batch, const KvLayer& kv, Queue* queue);
int64_t kv_page_bytes(const KvShape& shape);

}  // namespace mantissa::ref
