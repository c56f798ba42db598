#include "bench/throughput.h"

#include <chrono>

#include "base/error.h"
#include "base/random.h"

namespace mantissa {
namespace {

// Requests are ids and nobody reads the answers: there is no text.
EngineText no_text() {
  return {.encode = [](std::string_view) -> std::vector<int32_t> { return {}; },
          .stream =
              [](std::span<const int32_t>) {
                return TextStream{.push = [](int32_t) { return std::string(); },
                                  .flush = [] { return std::string(); }};
              }};
}

Request random_request(const ThroughputOptions& options, int64_t index, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < options.input_len; ++i) {
    const uint64_t bits =
        random_bits(options.seed, static_cast<uint64_t>(index * options.input_len + i));
    ids.push_back(static_cast<int32_t>(bits % static_cast<uint64_t>(vocab)));
  }
  Request request;
  request.prompt = std::move(ids);
  request.sampling.max_tokens = options.output_len;
  request.sampling.temperature = 0;
  request.sampling.repetition_penalty = 1;
  request.sampling.ignore_eos = true;
  return request;
}

}  // namespace

ThroughputResult measure_throughput(
    const EngineModel& model, const ThroughputOptions& options,
    const std::function<void(int64_t done, int64_t total)>& progress) {
  Engine engine(model, no_text(), {});
  for (int64_t i = 0; i < options.num_prompts; ++i)
    engine.submit(random_request(options, i, model.limits.vocab));
  const auto start = std::chrono::steady_clock::now();
  ThroughputResult out;
  while (!engine.idle()) {
    for (const OutputDelta& delta : engine.step()) {
      out.output_tokens += std::ssize(delta.token_ids);
      if (delta.error) throw *delta.error;
      if (delta.finish != FinishReason::kNone) ++out.requests;
    }
    if (progress) progress(out.requests, options.num_prompts);
  }
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  out.input_tokens = options.num_prompts * options.input_len;
  return out;
}

}  // namespace mantissa
