// Running ahead of the host: pinned memory, marks (events) and captured graphs.
#include "base/error.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {
namespace {

int64_t free_bytes() {
  size_t free = 0, total = 0;
  cuda_check(cudaMemGetInfo(&free, &total), "asking for free memory");
  return static_cast<int64_t>(free);
}

struct GraphDestroy {
  void operator()(cudaGraph_t graph) const noexcept { cudaGraphDestroy(graph); }
};

}  // namespace

std::byte* allocate_staging(int64_t bytes, std::string_view what, Queue*) {
  void* memory = nullptr;
  const cudaError_t code = cudaHostAlloc(&memory, static_cast<size_t>(bytes), cudaHostAllocDefault);
  if (code == cudaErrorMemoryAllocation) {
    throw Error(text("cannot allocate ", bytes >> 10, " KiB of page-locked memory for ", what),
                "raise the limit of locked memory (ulimit -l), or use a smaller "
                "--max-num-batched-tokens or --max-num-seqs",
                Error::Kind::kRuntime);
  }
  cuda_check(code, "allocating page-locked memory");
  return static_cast<std::byte*>(memory);
}
void release_staging(std::byte* memory, int64_t, Queue*) {
  cudaFreeHost(memory);
}

void upload_staged(void* device, const void* staging, int64_t bytes, Queue* queue) {
  if (bytes == 0) return;
  cuda_check(cudaMemcpyAsync(device, staging, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                             cuda_queue(queue).stream.get()),
             "copying to the GPU");
}

void set_mark(int index, Queue* queue) {
  CudaQueue& q = cuda_queue(queue);
  cuda_check(cudaEventRecord(q.marks.at(static_cast<size_t>(index)).get(), q.stream.get()),
             "marking a step");
}
void wait_mark(int index, Queue* queue) {
  cuda_check(cudaEventSynchronize(cuda_queue(queue).marks.at(static_cast<size_t>(index)).get()),
             "running on the GPU");
}

void begin_capture(Queue* queue) {
  cuda_check(
      cudaStreamBeginCapture(cuda_queue(queue).stream.get(), cudaStreamCaptureModeThreadLocal),
      "beginning to capture a graph");
}

CapturedGraph end_capture(Queue* queue) {
  CudaQueue& q = cuda_queue(queue);
  cudaGraph_t captured = nullptr;
  cuda_check(cudaStreamEndCapture(q.stream.get(), &captured), "capturing a graph");
  const std::unique_ptr<CUgraph_st, GraphDestroy> graph(captured);
  const int64_t before = free_bytes();
  cudaGraphExec_t exec = nullptr;
  cuda_check(cudaGraphInstantiate(&exec, graph.get(), 0), "making a graph ready to run");
  q.captured = true;
  CapturedGraph out{.graph = reinterpret_cast<Graph*>(exec), .bytes = 0};
  cuda_check(cudaGraphUpload(exec, q.stream.get()), "sending a graph to the GPU");
  out.bytes = before - free_bytes();
  return out;
}

void replay(Graph* graph, Queue* queue) {
  cuda_check(
      cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(graph), cuda_queue(queue).stream.get()),
      "launching a graph");
}
void release_graph(Graph* graph, Queue*) {
  cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(graph));
}

}  // namespace mantissa::cuda
