// Model::launch and wait over a fake model's forward and logits, by the host's own prepare and
// sample. A launched step is done at once, but its tokens are only told by wait().
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "kernels/host_step.h"

namespace mantissa {

class HostSteps {
 public:
  using Forward = std::function<void(const Model::Step&)>;
  using Logits = std::function<Matrix<const float>(std::span<const int32_t>)>;

  HostSteps(const Model::Limits& limits, Forward forward, Logits logits)
      : limits_(limits),
        forward_(std::move(forward)),
        logits_(std::move(logits)),
        cols_((limits.model_len + limits.kv_page_tokens - 1) / limits.kv_page_tokens),
        tables_(static_cast<size_t>(limits.sequences * cols_), -1),
        seen_(static_cast<size_t>(limits.sequences * words()), ~0u),
        sampled_ids_(static_cast<size_t>(limits.sequences), -1) {}

  int64_t launch(const Model::StepRequest& request) {
    const auto tokens = request.token_ids.size(), sequences = request.sequences.size();
    std::vector<StepSequence> rows = request.sequences;
    for (size_t i = 0; i < request.sampling.size(); ++i)
      rows[static_cast<size_t>(request.sampling[i])].result = static_cast<int32_t>(i);
    Model::Step step;
    step.token_ids.resize(tokens);
    step.positions.resize(tokens);
    step.slots.resize(tokens);
    step.query_start.resize(sequences + 1);
    step.context_len.resize(sequences);
    std::vector<int32_t> tables(sequences * static_cast<size_t>(cols_), -1);
    const BatchArrays arrays{
        .token_ids = step.token_ids.data(),
        .positions = step.positions.data(),
        .slots = step.slots.data(),
        .query_start = step.query_start.data(),
        .context_len = step.context_len.data(),
        .block_table = {tables.data(), static_cast<int64_t>(sequences), cols_}};
    const StepInput input{.tokens = static_cast<int32_t>(tokens),
                          .sequences = static_cast<int32_t>(sequences),
                          .sequence = rows.data(),
                          .token_ids = request.token_ids.data(),
                          .pages = request.pages.data()};
    prepare_host(arrays, input, seats(), nullptr);
    for (size_t s = 0; s < sequences; ++s) {
      const auto row = arrays.block_table.row(static_cast<int64_t>(s));
      const int64_t pages =
          (step.context_len[s] + limits_.kv_page_tokens - 1) / limits_.kv_page_tokens;
      step.block_tables.emplace_back(row.begin(), row.begin() + pages);
    }
    forward_(step);
    Flight flight{.ticket = next_ticket_, .rows = {}, .logprobs = {}};
    flight.rows.resize(request.sampling.size());
    flight.logprobs.resize(request.logprobs ? request.sampling.size() : 0);
    sample(request, rows, flight);
    flights_.push_back(std::move(flight));
    return next_ticket_++;
  }

  Model::StepResult wait(int64_t ticket) {
    while (flights_.front().ticket < ticket) flights_.pop_front();
    const Flight& flight = flights_.front();
    return {.rows = flight.rows, .logprobs = flight.logprobs};
  }

 private:
  struct Flight {
    int64_t ticket;
    std::vector<SampledRow> rows;
    std::vector<LogprobRow> logprobs;
  };

  int64_t words() const { return (limits_.vocab + 31) / 32; }
  Seats seats() {
    return {.tables = {tables_.data(), limits_.sequences, cols_},
            .seen = {seen_.data(), limits_.sequences, words()},
            .sampled_ids = sampled_ids_.data(),
            .page_tokens = static_cast<int32_t>(limits_.kv_page_tokens)};
  }

  void sample(const Model::StepRequest& request, const std::vector<StepSequence>& rows,
              Flight& flight) {
    std::vector<int32_t> last;
    for (const int32_t s : request.sampling) {
      const StepSequence& q = rows[static_cast<size_t>(s)];
      last.push_back(q.first_token + q.tokens - 1);
    }
    const auto rows_max = static_cast<size_t>(limits_.logits_rows);
    for (size_t first = 0; first < last.size(); first += rows_max) {
      const size_t count = std::min(rows_max, last.size() - first);
      const SampleCall call{.logits = logits_(std::span<const int32_t>(last).subspan(first, count)),
                            .sequence = rows.data(),
                            .owners = request.sampling.data() + first,
                            .seats = seats(),
                            .out = flight.rows.data(),
                            .logprobs = flight.logprobs.data()};
      sample_host(call, scratch_);
      if (request.logprobs) logprobs_host(call, scratch_);
    }
  }

  Model::Limits limits_;
  Forward forward_;
  Logits logits_;
  int64_t cols_;
  std::vector<int32_t> tables_;
  std::vector<uint32_t> seen_;
  std::vector<int32_t> sampled_ids_;
  SamplerScratch scratch_;
  std::deque<Flight> flights_;
  int64_t next_ticket_ = 0;
};

inline EngineModel fake_engine_model(const Model::Limits& limits, HostSteps::Forward forward,
                                     HostSteps::Logits logits, bool runs_ahead) {
  const auto steps = std::make_shared<HostSteps>(limits, forward, logits);
  return {.limits = limits,
          .forward = std::move(forward),
          .logits = std::move(logits),
          .launch = [steps](const Model::StepRequest& r) { return steps->launch(r); },
          .wait = [steps](int64_t ticket) { return steps->wait(ticket); },
          .runs_ahead = runs_ahead};
}

}  // namespace mantissa
