// The contract of every backend: a table of plain functions, one row each for ref, cpu and cuda.
// `ref` (float64 loops) is its executable form. Shapes in memory order: M (or T) tokens, N outputs,
// K inputs, H heads, D head size. Results are rounded to the output's run dtype exactly once per
// operation, to nearest even. An operation on 0 rows does nothing.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/view.h"
#include "kernels/activation.h"
#include "kernels/batch.h"
#include "kernels/decode.h"
#include "kernels/load_stream.h"
#include "kernels/step.h"
#include "kernels/weight.h"
#include "quant/quantize.h"

namespace mantissa {

struct Queue;  // a backend's execution context: threads or stream, scratch memory, instruction set
struct Graph;  // operations that were captured, to be run again
struct CapturedGraph {
  Graph* graph = nullptr;
  int64_t bytes = 0;  // of the device's memory, as measured
};

inline constexpr int kMarks = 4;  // of one queue

struct DeviceConfig {
  int threads = 0;               // 0: all cores this process may use
  std::string isa = "auto";      // avx512 | avx2 | portable; forced means forced
  bool fast_accum = false;       // FP8 sums stay in the tensor cores (cuda only)
  int64_t scratch_tokens = 0;    // the largest M of a forward pass; scratch is allocated for it
  bool time_operations = false;  // see Ops::operation_times
};

// Applied before the one rounding: out = round(x w^T * scales + bias + residual).
struct Epilogue {
  const float* bias = nullptr;  // [N] float32 (values of the run dtype)
  ConstView residual{};         // [M, N] run dtype; may be the same memory as out
};

// Norms of queries and keys before they are rotated. Each head by itself (gains [D], shared by all
// heads), or all heads at once (q_gain [H * D], k_gain [KV * D]).
struct HeadNormParams {
  const float* q_gain = nullptr;  // float32
  const float* k_gain = nullptr;
  int32_t heads = 0, kv_heads = 0, head_dim = 0;
  bool each_head = true;
  float eps = 0;
};

// How a branch's result joins the residual stream.
struct AddParams {
  const float* gain = nullptr;  // [K]: the result is normalized first; nullptr: it is not
  float eps = 0;
  float multiplier = 1;
};

// Names a kernel and why it was, or was not, picked: rows of `mantissa kernels`.
struct KernelInfo {
  std::string name, operation, needs, status;  // status: "runs", or why not here
};

// Time inside one operation since the queue was opened; linears by the shape of their weight.
struct OperationTime {
  std::string operation;  // "linear 8192x2048"
  int64_t calls = 0;
  double seconds = 0;
};

struct MemoryInfo {
  int64_t total = 0, free = 0;  // bytes
};

// The largest pass that a queue will be asked for.
struct PassLimits {
  int64_t tokens = 0, sequences = 0, model_len = 0;
  int64_t cols = 0;   // the widest row that a linear reads
  int64_t vocab = 0;  // logits of a row that is sampled
  int32_t heads = 0;
  KvShape kv;
  const Elem* run_dtype = nullptr;
};

struct Ops {
  std::string_view name;

  // Throws Error when the machine cannot run it (with what would work).
  Queue* (*open)(const DeviceConfig&);
  void (*close)(Queue*);
  std::string (*describe)(Queue*);  // "cpu avx512 (AMD EPYC), 2 threads"
  std::vector<KernelInfo> (*kernels)(Queue*);
  // Operations will follow soon: threads that sleep are woken. From any thread; nullptr: no need.
  void (*wake)(Queue*) = nullptr;

  // ---- memory of the device
  // Whether it is the host's: then device pointers may be read and written directly.
  bool host_memory = true;
  // The device's memory; on the host all of it counts as free.
  MemoryInfo (*memory)(Queue*);
  // The most that operations of such passes allocate themselves, until close().
  int64_t (*scratch_bytes)(const PassLimits&, Queue*);
  // 64-byte aligned; `what` is for the Error when there is not enough.
  std::byte* (*allocate)(int64_t bytes, std::string_view what, Queue*);
  void (*release)(std::byte* memory, int64_t bytes, Queue*);
  // upload: the host memory may be reused on return; ordered before operations that follow.
  void (*upload)(void* device, const void* host, int64_t bytes, Queue*);
  // download: waits for the operations before it.
  void (*download)(void* host, const void* device, int64_t bytes, Queue*);

  // ---- running ahead of the host. Where host_memory is true everything is done when a function
  // returns; else operations only queue up, and these functions do not wait either.
  // Host memory that the device reads and writes too; 64-byte aligned.
  std::byte* (*allocate_staging)(int64_t bytes, std::string_view what, Queue*);
  void (*release_staging)(std::byte* memory, int64_t bytes, Queue*);
  // From staging memory, which must stay as it is until a mark that follows was passed.
  void (*upload_staged)(void* device, const void* staging, int64_t bytes, Queue*);
  // Sets mark `index` of kMarks behind all operations so far; wait_mark() returns once they are
  // done. What they could not do (a broken device) is thrown by wait_mark().
  void (*set_mark)(int index, Queue*);
  void (*wait_mark)(int index, Queue*);
  // Operations between these are captured, not run; the same ones must have run before, so that
  // scratch memory has its size. nullptr, all four: the backend has no graphs.
  void (*begin_capture)(Queue*) = nullptr;
  CapturedGraph (*end_capture)(Queue*) = nullptr;
  void (*replay)(Graph*, Queue*) = nullptr;
  void (*release_graph)(Graph*, Queue*) = nullptr;

  // Read bandwidth of that memory, measured now, in under 2 s (1e9 bytes/s).
  double (*read_gb_s)(Queue*);
  // Of a queue that was opened with time_operations, by name; nullptr: a backend whose operations
  // are not timed one by one.
  std::vector<OperationTime> (*operation_times)(Queue*) = nullptr;

  // ---- weights
  // Picks kernel and layout: `kernel` and `bytes` of the result are final, `data` is null. Throws
  // Error naming the weight, the candidates and the reasons when no kernel reads the scheme.
  Weight (*plan_weight)(const WeightRequest&, Queue*);
  // Rows [row0, row0 + q.rows) of w, from canonical form. row0 is a multiple of 64 (or of the
  // block's rows) but for the end of a fused part that is no multiple: any row0 works. Thread-safe
  // on different rows. finish_weight() follows the last band. Where LoadOps::codes_at took the
  // codes, q.codes is empty: the rest alone.
  void (*pack_rows)(const Weight& w, int64_t row0, const QuantRows& q, Queue*);
  void (*finish_weight)(const Weight& w, Queue*);
  // The canonical form again (tests and writers): codes and scales equal what was packed.
  void (*unpack_rows)(const Weight& w, int64_t row0, int64_t rows, QuantRows& q, Queue*);

  // Weights from raw checkpoint bytes, quantized by the device; nullptr: on the host.
  const LoadOps* load = nullptr;

  // ---- operations
  // Makes the arrays of the step's batch from its input and the seats, which it updates first: new
  // pages, tokens seen (a sequence at position 0 has seen none before).
  void (*prepare)(const BatchArrays& out, const StepInput&, const Seats&, Queue*);
  // A token for each row of logits (kernels/sampling.h), to SampleCall::out and to the seat.
  void (*sample)(const SampleCall&, Queue*);
  // After sample(), on the same logits: SampleCall::logprobs of the chosen tokens.
  void (*logprobs)(const SampleCall&, Queue*);
  // out [T, K] = table[token_ids] dequantized * multiplier; table [N, K] of any scheme (a tied head
  // is read in place).
  void (*embed)(View out, const Weight& table, float multiplier, const Batch&, Queue*);
  // out [M, K] = x / sqrt(mean(x^2) + eps) * gain, over each row.
  void (*rms_norm)(const Activation& out, ConstView x, const float* gain, float eps, Queue*);
  // x [M, K] += multiplier * (delta / sqrt(mean(delta^2) + eps) * gain, or delta itself).
  void (*add_rows)(View x, ConstView delta, const AddParams&, Queue*);
  // The queries and keys in qkv [T, (H + 2 KV) * D] /= sqrt(mean(squares) + eps), *= gain, in
  // place; means over each head or over all.
  void (*norm_heads)(View qkv, const HeadNormParams&, Queue*);
  // logits [M, N] = z, or cap * tanh(z / cap) where cap > 0, of z = logits * multiplier.
  void (*cap_logits)(Matrix<float> logits, float multiplier, float cap, Queue*);
  // Fills the quantized forms of `out` from out.high.
  void (*quantize_rows)(const Activation& out, Queue*);
  // range [2] float32 on the device: range[0] = max(range[0], -x), range[1] = max(range[1], x) over
  // the finite values of x. Both start at 0 (calibration).
  void (*observe)(ConstView x, float* range, Queue*);
  // out [M, N] (run dtype, or f32 for logits) = epilogue(x w^T). out may not overlap x.
  void (*linear)(View out, const Activation& x, const Weight& w, const Epilogue&, Queue*);
  // qkv [T, (H + 2 KV) * D]: rotates q and k in place (halves convention: pairs i and i + rotary/2)
  // by angle = float32(position) * inv_freq in float32, then writes k and v to their slots of the
  // cache. k and v are rounded to the run dtype, then to the cache's format.
  void (*rope_write)(View qkv, const RopeParams&, const AttentionParams&, const Batch&,
                     const KvLayer&, Queue*);
  // out.high [T, H * D] = softmax(scale q k^T, causal) v over the paged cache; q is the first H * D
  // columns of qkv. Fills all forms of out.
  void (*attention)(const Activation& out, ConstView qkv, const AttentionParams&, const Batch&,
                    const KvLayer&, Queue*);
  // out [M, I] = fn(gate_up[:, :I]) * gate_up[:, I:]: fn rounded to nothing in between.
  void (*gate)(const Activation& out, ConstView gate_up, GateFn, Queue*);
  // out [R, K] = x[rows]: the rows whose logits are wanted.
  void (*gather_rows)(View out, ConstView x, std::span<const int32_t> rows, Queue*);
  // All layers of a pass of one token at once. nullptr: the backend has no such operation.
  // decode_why_not: empty, or why it does not take these layers (the batch does not matter).
  std::string (*decode_why_not)(const DecodePass&, Queue*) = nullptr;
  void (*decode_layers)(const DecodePass&, const Batch&, Queue*) = nullptr;
  // Bytes of one page of one layer, K and V and scales: a multiple of 64.
  int64_t (*kv_page_bytes)(const KvShape&);
};

// The rows that were compiled in: "ref", "cpu" (and "cuda").
std::span<const Ops* const> all_ops();
// Throws Error listing the rows.
const Ops& find_ops(std::string_view name);

}  // namespace mantissa
