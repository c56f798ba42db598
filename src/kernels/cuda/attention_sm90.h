// The attention kernels of Hopper. Both read pages of 16 tokens; sequences are dealt between them
// by their rows (query tokens x query heads of a KV head).
#pragma once

#include "kernels/cuda/queue.h"

namespace mantissa::cuda {

struct AttentionCall;

constexpr int kSm90PageTokens = 16;
constexpr int kDecodeRows = 16;  // a sequence of at most so many rows is decode's, else prefill's
constexpr int kDecodeShareMax = 2;  // blocks of decode on a multiprocessor

void attention_decode__sm90(const AttentionCall& call);
void attention_prefill__sm90(const AttentionCall& call);

// The kernels of `attention`, also those of other files: rows of `mantissa kernels`.
std::vector<KernelInfo> attention_kernels(const CudaQueue& queue);

// What the launches leave to each other lies in CudaQueue::attention_state.
constexpr int kStateDimMax = 256;
struct AttentionState {
  int* prefill_tiles;  // [2]: tiles handed out, blocks that are done; zero between launches
  int* arrivals;       // [blocks]: parts of the chain that starts in this block; likewise
  float* tops;         // [2 blocks][kDecodeRows][2]: maximum (of base 2), sum of weights
  float* sums;         // [2 blocks][kDecodeRows][D]
};
DeviceMemory make_attention_state();
AttentionState attention_state(const CudaQueue& queue);

}  // namespace mantissa::cuda
