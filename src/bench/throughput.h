// How much work the engine gets through when all requests are there at once: vLLM's `bench
// throughput` with random prompts of equal length.
#pragma once

#include <cstdint>
#include <functional>

#include "engine/engine.h"

namespace mantissa {

struct ThroughputOptions {
  int64_t num_prompts = 0, input_len = 0, output_len = 0;
  uint64_t seed = 0;
};
struct ThroughputResult {
  double seconds = 0;
  int64_t requests = 0, input_tokens = 0, output_tokens = 0;
  double requests_per_s() const { return static_cast<double>(requests) / seconds; }
  double total_tok_s() const { return static_cast<double>(input_tokens + output_tokens) / seconds; }
  double output_tok_s() const { return static_cast<double>(output_tokens) / seconds; }
};
// Greedy, ends of text ignored. progress counts finished requests.
ThroughputResult measure_throughput(
    const EngineModel& model, const ThroughputOptions& options,
    const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace mantissa
