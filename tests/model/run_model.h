// Running a Model without the engine: sequences with pages of their own, advanced by hand.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "model/model.h"

namespace mantissa::test {

struct HandSequence {
  std::vector<int32_t> pages;
  int32_t length = 0;  // tokens in the cache
};

// Sequence i gets pages i, i + count, i + 2 count, ...: never contiguous when there are several.
std::vector<HandSequence> make_sequences(const Model& model, int count);

// One pass: tokens[i] are appended to sequences[i] (an empty list leaves it out).
// Returns the index of the first row of each sequence in the pass.
std::vector<int32_t> advance(Model& model, std::span<HandSequence> sequences,
                             const std::vector<std::vector<int32_t>>& tokens);

// Logits of every token of one pass, copied, [tokens, vocab].
std::vector<float> logits_of_rows(Model& model, int32_t first, int32_t count);

// Whole sequence in one pass from an empty cache.
std::vector<float> prefill_logits(Model& model, const std::vector<int32_t>& ids);

int32_t argmax(std::span<const float> values);

struct GoldenSequence {
  std::vector<int32_t> ids;
  int32_t first = 0;          // logits follow ids[first:]
  int64_t context = 0;        // max_model_len that RoPE was made for; 0: the model's default
  std::vector<float> logits;  // [ids.size() - first, vocab]
};
struct Golden {
  std::vector<GoldenSequence> sequences;
  std::map<std::string, GoldenSequence> schemes;  // with the linears quantized
  std::vector<int32_t> greedy_prompt, greedy_ids;
};
Golden read_golden(const std::filesystem::path& file);
std::vector<std::filesystem::path> golden_models();

// max |a - b| / max |b|
double relative_gap(std::span<const float> a, std::span<const float> b);
// RMS of a - b over RMS of b.
double rms_gap(std::span<const float> a, std::span<const float> b);

Model load_model(const ModelOptions& options);

// The devices a test crosses: ref, cpu with every instruction set that runs here, cuda where there
// is one.
struct Backend {
  std::string device, isa;
};
std::vector<Backend> backends();

}  // namespace mantissa::test
