// Times launches that were captured in a CUDA graph, so that the host's launch cost is left out.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

#include "kernels/cuda/cuda_error.h"

namespace mantissa::cuda {

// Microseconds of one launch.
struct LaunchTimes {
  double p10 = 0, p50 = 0, p90 = 0;
};

// run(i) enqueues launch i on `stream`; the graph of `launches` of them is timed `repeats` times
// after kWarmup that do not count.
template <class Run>
LaunchTimes time_graph(cudaStream_t stream, int launches, int repeats, const Run& run) {
  constexpr int kWarmup = 3;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing");
  for (int i = 0; i < launches; ++i) run(i);
  cuda_check(cudaStreamEndCapture(stream, &graph), "capturing");
  cuda_check(cudaGraphInstantiate(&exec, graph, 0), "instantiating the graph");
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<double> times;
  for (int i = 0; i < kWarmup + repeats; ++i) {
    cudaEventRecord(begin, stream);
    cudaGraphLaunch(exec, stream);
    cudaEventRecord(end, stream);
    cuda_check(cudaEventSynchronize(end), "timing");
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    if (i >= kWarmup) times.push_back(ms * 1000.0 / launches);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  std::sort(times.begin(), times.end());
  return {times[times.size() / 10], times[times.size() / 2], times[times.size() * 9 / 10]};
}

}  // namespace mantissa::cuda
