// A model and a tokenizer for tests of the engine. The model keeps tokens where a real one keeps
// keys and values: each row's logits are a hash of the context as slots and block tables give it,
// so that a mixed-up page, position or slot changes what is generated.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/random.h"
#include "engine/engine.h"
#include "host_steps.h"

namespace mantissa {

struct FakeModel {
  Model::Limits limits;
  std::vector<std::pair<int32_t, int32_t>> cache;  // [slots] token and position
  std::vector<uint64_t> hashes;                    // [T] of the last pass
  std::vector<float> out;
  int64_t passes = 0, logits_rows = 0;
  int throw_at_pass = -1;            // this pass throws, once
  std::vector<int32_t> nan_context;  // exactly this context has NaN logits

  explicit FakeModel(const Model::Limits& limits)
      : limits(limits),
        cache(static_cast<size_t>(limits.kv_pages * limits.kv_page_tokens), {-1, -1}) {}

  void forward(const Model::Step& step) {
    if (passes++ == throw_at_pass) throw Error("the device is gone", "try again");
    ASSERT_LE(static_cast<int64_t>(step.token_ids.size()), limits.tokens);
    ASSERT_LE(static_cast<int64_t>(step.context_len.size()), limits.sequences);
    ASSERT_EQ(step.query_start.size(), step.context_len.size() + 1);
    ASSERT_EQ(step.block_tables.size(), step.context_len.size());
    for (size_t t = 0; t < step.token_ids.size(); ++t) {
      cache.at(static_cast<size_t>(step.slots[t])) = {step.token_ids[t], step.positions[t]};
    }
    hashes.assign(step.token_ids.size(), 0);
    for (size_t s = 0; s < step.context_len.size(); ++s) run_sequence(step, s);
  }

  void run_sequence(const Model::Step& step, size_t s) {
    const int32_t queries = step.query_start[s + 1] - step.query_start[s];
    uint64_t hash = kStart;
    for (int32_t p = 0; p < step.context_len[s]; ++p) {
      const auto page = static_cast<size_t>(p / limits.kv_page_tokens);
      const int64_t slot =
          step.block_tables[s].at(page) * limits.kv_page_tokens + p % limits.kv_page_tokens;
      const auto [token, position] = cache.at(static_cast<size_t>(slot));
      ASSERT_EQ(position, p) << "the cache holds another token's keys and values here";
      hash = extend(hash, token);
      const int32_t query = p - (step.context_len[s] - queries);
      if (query >= 0) hashes.at(static_cast<size_t>(step.query_start[s] + query)) = hash;
    }
  }

  Matrix<const float> logits(std::span<const int32_t> rows) {
    const auto vocab = static_cast<size_t>(limits.vocab);
    EXPECT_LE(static_cast<int64_t>(rows.size()), limits.logits_rows);
    logits_rows += static_cast<int64_t>(rows.size());
    out.assign(rows.size() * vocab, 0);
    for (size_t r = 0; r < rows.size(); ++r) {
      const uint64_t hash = hashes.at(static_cast<size_t>(rows[r]));
      for (size_t v = 0; v < vocab; ++v) {
        out[r * vocab + v] = static_cast<float>(4 * random_uniform(hash, v));
      }
      uint64_t bad = kStart;
      for (const int32_t token : nan_context) bad = extend(bad, token);
      if (hash == bad) out[r * vocab + 2] = std::numeric_limits<float>::quiet_NaN();
    }
    return {out.data(), static_cast<int64_t>(rows.size()), limits.vocab};
  }

  static constexpr uint64_t kStart = 1;
  static uint64_t extend(uint64_t hash, int32_t token) {
    return random_bits(hash, static_cast<uint64_t>(token));
  }
};

// Token 0 begins a text, 1 ends it; the others are pieces of it, among them half characters.
inline const std::vector<std::string>& fake_pieces() {
  static const std::vector<std::string> pieces = {"",  "",   "a", "b", "c",    " ",    "ab", "ba",
                                                  "d", "\n", "e", "f", "\xC3", "\xA9", "g",  "h"};
  return pieces;
}

inline EngineText fake_text() {
  const auto encode = [](std::string_view text) {
    std::vector<int32_t> ids = {0};
    for (const char c : text) {
      for (size_t i = 2; i < fake_pieces().size(); ++i) {
        if (fake_pieces()[i] == std::string(1, c)) ids.push_back(static_cast<int32_t>(i));
      }
    }
    return ids;
  };
  const auto stream = [](std::span<const int32_t>) {
    const auto held = std::make_shared<std::string>();  // the first half of a character
    const auto push = [held](int32_t id) {
      std::string out;
      for (const char c : fake_pieces().at(static_cast<size_t>(id))) {
        if (!held->empty()) {
          out += c == '\xA9' ? "\xC3\xA9" : "\xEF\xBF\xBD";
          held->clear();
          if (c == '\xA9') continue;
        }
        if (c == '\xC3') {
          *held = c;
        } else {
          out += c == '\xA9' ? "\xEF\xBF\xBD" : std::string(1, c);
        }
      }
      return out;
    };
    const auto flush = [held] {
      return std::exchange(*held, {}).empty() ? std::string() : "\xEF\xBF\xBD";
    };
    return TextStream{push, flush};
  };
  return {encode, stream};
}

inline EngineModel engine_model(FakeModel& model, bool runs_ahead = false) {
  return fake_engine_model(
      model.limits, [&model](const Model::Step& step) { model.forward(step); },
      [&model](std::span<const int32_t> rows) { return model.logits(rows); }, runs_ahead);
}

}  // namespace mantissa
