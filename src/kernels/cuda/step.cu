// The batch of a step, made from what the host sent and what stayed on the device. A block for each
// sequence.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void prepare_kernel(BatchArrays out, StepInput in, Seats seats) {
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  const int s = blockIdx.x;
  const StepSequence q = in.sequence[s];
  const bool penalized = q.sampling.repetition_penalty != 1;
  int32_t* table = seats.tables.data + q.seat * seats.tables.stride;
  uint32_t* seen = seats.seen.data + q.seat * seats.seen.stride;
  for (int i = threadIdx.x; i < q.pages; i += kThreads)
    table[q.page_col + i] = in.pages[q.page_at + i];
  if (penalized && q.position == 0)
    for (int64_t i = threadIdx.x; i < seats.seen.cols; i += kThreads) seen[i] = 0;
  __syncthreads();  // the table's row is complete, nothing is seen

  const int end = q.position + q.tokens;
  const int pages = (end + seats.page_tokens - 1) / seats.page_tokens;
  for (int i = threadIdx.x; i < pages; i += kThreads)
    out.block_table.data[s * out.block_table.stride + i] = table[i];
  for (int i = threadIdx.x; i < q.tokens; i += kThreads) {
    const int t = q.first_token + i, position = q.position + i;
    const int32_t sent = in.token_ids[t];
    const int32_t id = sent == kSampledId ? seats.sampled_ids[q.seat] : sent;
    out.token_ids[t] = id;
    out.positions[t] = position;
    out.slots[t] = q.padding != 0 ? seats.spare_slot
                                  : table[position / seats.page_tokens] * seats.page_tokens +
                                        position % seats.page_tokens;
    if (penalized) atomicOr(&seen[id / 32], 1u << (id % 32));
  }
  if (threadIdx.x != 0) return;
  out.query_start[s] = q.first_token;
  out.context_len[s] = end;
  if (s == in.sequences - 1) out.query_start[s + 1] = in.tokens;
}

}  // namespace

void prepare(const BatchArrays& out, const StepInput& in, const Seats& seats, Queue* queue) {
  if (in.sequences == 0) return;
  launch("launching prepare", prepare_kernel,
         {.grid = dim3(static_cast<unsigned>(in.sequences)), .block = dim3(kThreads)},
         cuda_queue(queue).stream.get(), out, in, seats);
}

}  // namespace mantissa::cuda
