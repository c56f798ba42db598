// A model made of a formula, behind the interface that eval uses: its logits depend on every token
// of the context, read back through the block table, so that a wrong page, position or slot shows.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "../engine/host_steps.h"
#include "base/random.h"
#include "engine/engine.h"

namespace mantissa {

class FakeModel {
 public:
  FakeModel(Model::Limits limits, float spread = 4) : limits_(limits), spread_(spread) {
    cache_.assign(static_cast<size_t>(limits.kv_pages * limits.kv_page_tokens), -1);
  }

  // [V] after this context.
  std::vector<float> logits_after(std::span<const int32_t> context) const {
    uint64_t hash = 1;
    for (int32_t token : context) hash = random_bits(hash, static_cast<uint64_t>(token) + 1);
    std::vector<float> out;
    for (int64_t v = 0; v < limits_.vocab; ++v)
      out.push_back(spread_ *
                    static_cast<float>(random_uniform(hash, static_cast<uint64_t>(v)) - 0.5));
    return out;
  }

  EngineModel engine_model() {
    return fake_engine_model(
        limits_, [this](const Model::Step& step) { forward(step); },
        [this](std::span<const int32_t> rows) { return logits(rows); }, /*runs_ahead=*/false);
  }

  std::vector<int64_t> step_tokens;  // of every forward pass
  int64_t logits_rows_max = 0;

 private:
  void forward(const Model::Step& step) {
    const int64_t tokens = std::ssize(step.token_ids), sequences = std::ssize(step.context_len);
    ASSERT_LE(tokens, limits_.tokens);
    ASSERT_LE(sequences, limits_.sequences);
    ASSERT_EQ(step.query_start.back(), tokens);
    step_tokens.push_back(tokens);
    std::vector<int> owner(static_cast<size_t>(limits_.kv_pages), -1);
    contexts_.clear();
    for (size_t s = 0; s < step.context_len.size(); ++s) {
      const std::vector<int32_t>& pages = step.block_tables[s];
      for (int32_t page : pages) {
        ASSERT_EQ(owner.at(static_cast<size_t>(page)), -1) << "one page, one sequence";
        owner[static_cast<size_t>(page)] = static_cast<int>(s);
      }
      std::vector<int32_t> context;
      const auto slot = [&](int64_t position) {
        const auto page = static_cast<size_t>(position / limits_.kv_page_tokens);
        return static_cast<size_t>(pages.at(page) * limits_.kv_page_tokens +
                                   position % limits_.kv_page_tokens);
      };
      const int32_t begin = step.query_start[s], end = step.query_start[s + 1];
      const int64_t first = step.context_len[s] - (end - begin);
      for (int32_t t = begin; t < end; ++t) {
        const auto at = static_cast<size_t>(t);
        ASSERT_EQ(step.positions[at], first + (t - begin));
        ASSERT_EQ(static_cast<size_t>(step.slots[at]), slot(step.positions[at]));
        cache_[static_cast<size_t>(step.slots[at])] = step.token_ids[at];
      }
      for (int64_t position = 0; position < step.context_len[s]; ++position) {
        context.push_back(cache_[slot(position)]);
        if (position >= first) contexts_.push_back(context);
      }
    }
  }

  Matrix<const float> logits(std::span<const int32_t> rows) {
    EXPECT_LE(std::ssize(rows), limits_.logits_rows);
    logits_rows_max = std::max<int64_t>(logits_rows_max, std::ssize(rows));
    logits_.clear();
    for (int32_t row : rows) {
      const std::vector<float> one = logits_after(contexts_.at(static_cast<size_t>(row)));
      logits_.insert(logits_.end(), one.begin(), one.end());
    }
    return {logits_.data(), std::ssize(rows), limits_.vocab};
  }

  Model::Limits limits_;
  float spread_;
  std::vector<int32_t> cache_;                  // token of each slot
  std::vector<std::vector<int32_t>> contexts_;  // of each row of the last pass
  std::vector<float> logits_;
};

}  // namespace mantissa
