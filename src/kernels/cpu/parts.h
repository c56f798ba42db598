// The CPU backend's operations by file: linear.cc and embed.cc (weights), rows.cc and attention.cc
// (the rest). ops.cc makes the kCpuOps row of them. Contracts: kernels/ops.h.
#pragma once

#include <vector>

#include "kernels/ops.h"

namespace mantissa::cpu {

// weights: pack.cc, linear.cc
Weight plan_weight(const WeightRequest&, Queue*);
void pack_rows(const Weight& w, int64_t row0, const QuantRows& q, Queue*);
void finish_weight(const Weight& w, Queue*);
void unpack_rows(const Weight& w, int64_t row0, int64_t rows, QuantRows& q, Queue*);
void embed(View out, const Weight& table, float multiplier, const Batch&, Queue*);
void linear(View out, const Activation& x, const Weight& w, const Epilogue&, Queue*);
std::vector<KernelInfo> linear_kernels(Queue*);
int64_t linear_scratch_bytes(const PassLimits&, Queue*);

// rows*.cc
void rms_norm(const Activation& out, ConstView x, const float* gain, float eps, Queue*);
void add_rows(View x, ConstView delta, const AddParams&, Queue*);
void norm_heads(View qkv, const HeadNormParams&, Queue*);
void cap_logits(Matrix<float> logits, float multiplier, float cap, Queue*);
void quantize_rows(const Activation& out, Queue*);
void observe(ConstView x, float* range, Queue*);
void gate(const Activation& out, ConstView gate_up, GateFn, Queue*);
void gather_rows(View out, ConstView x, std::span<const int32_t> rows, Queue*);
std::vector<KernelInfo> rows_kernels(Queue*);
int64_t rows_scratch_bytes(const PassLimits&, Queue*);

// attention*.cc
void rope_write(View qkv, const RopeParams&, const AttentionParams&, const Batch&, const KvLayer&,
                Queue*);
void attention(const Activation& out, ConstView qkv, const AttentionParams&, const Batch&,
               const KvLayer&, Queue*);
int64_t kv_page_bytes(const KvShape&);
std::vector<KernelInfo> attention_kernels(Queue*);
int64_t attention_scratch_bytes(const PassLimits&, Queue*);

}  // namespace mantissa::cpu
