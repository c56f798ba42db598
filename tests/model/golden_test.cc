// Whole models against transformers: tiny random checkpoints with golden logits in float32
// (tools/make_model_goldens.py), one pass, chunks, mixed batches and greedy continuations.
#include <gtest/gtest.h>

#include <set>

#include "model/architecture.h"
#include "run_model.h"

namespace mantissa::test {
namespace {

// Largest |delta logit| over the largest |logit| that is allowed: issue 2.
double tolerance(const Backend& backend) {
  return backend.device == "ref" ? 1e-5 : 1e-4;
}

ModelOptions options_for(const std::filesystem::path& folder, const Backend& backend) {
  ModelOptions options;
  options.folder = folder;
  options.device = backend.device;
  options.isa = backend.isa;
  options.dtype = "float32";
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 512;
  options.threads = 2;
  return options;
}

// Reads each golden once.
template <class Body>
void for_each_case(const Body& body) {
  const auto folders = golden_models();
  ASSERT_GE(folders.size(), architectures().size());
  for (const auto& folder : folders) {
    const Golden golden = read_golden(folder / "golden.json");
    for (const Backend& backend : backends()) {
      SCOPED_TRACE(folder.filename().string() + " on " + backend.device + " " + backend.isa);
      body(options_for(folder, backend), golden, tolerance(backend));
    }
  }
}

template <class Body>
void for_each_golden(const Body& body) {
  for_each_case([&](const ModelOptions& options, const Golden& golden, double) {
    Model model = load_model(options);
    body(model, golden);
  });
}

double gap_to(Model& model, const GoldenSequence& s) {
  const std::vector<float> all = prefill_logits(model, s.ids);
  const auto skipped = static_cast<size_t>(s.first * model.limits().vocab);
  return relative_gap(std::span(all).subspan(skipped), s.logits);
}

// Also past the original context, for every kind of RoPE scaling.
TEST(Golden, PrefillEqualsTransformers) {
  for_each_case([](ModelOptions options, const Golden& golden, double allowed) {
    for (const GoldenSequence& s : golden.sequences) {
      options.max_model_len = s.context;
      Model model = load_model(options);
      EXPECT_LE(gap_to(model, s), allowed) << s.ids.size() << " tokens";
    }
  });
}

// Weights quantized at load against transformers with the same codes, dequantized.
TEST(Golden, QuantizedEqualsTransformersWithTheSameCodes) {
  for_each_case([](ModelOptions options, const Golden& golden, double allowed) {
    for (const auto& [scheme, s] : golden.schemes) {
      options.scheme = scheme;
      Model model = load_model(options);
      EXPECT_LE(gap_to(model, s), allowed) << scheme;
    }
  });
}

TEST(Golden, EveryFamilyHasOne) {
  std::set<std::string> types;
  for (const auto& folder : golden_models()) types.insert(read_config(folder).id.model_type);
  for (const Architecture& row : architectures()) {
    EXPECT_TRUE(types.contains(std::string(row.model_type))) << row.model_type;
  }
}

// All sequences at once, in chunks of different sizes that come and go, over interleaved pages:
// bit-equal to one sequence alone in one pass (but on cuda, where sums depend on the batch).
TEST(Golden, MixedBatchesEqualOneByOne) {
  for_each_golden([](Model& model, const Golden& golden) {
    std::vector<std::vector<int32_t>> texts;
    std::vector<std::vector<float>> alone;
    for (const GoldenSequence& s : golden.sequences) {
      if (static_cast<int64_t>(s.ids.size()) > model.limits().model_len) continue;
      texts.push_back(s.ids);
      alone.push_back(prefill_logits(model, s.ids));
    }
    const auto count = static_cast<int>(texts.size());
    std::vector<HandSequence> sequences = make_sequences(model, count);
    std::vector<std::vector<float>> mixed(texts.size());
    for (int round = 0;; ++round) {
      std::vector<std::vector<int32_t>> chunk(texts.size());
      bool any = false;
      for (size_t s = 0; s < chunk.size(); ++s) {
        const auto& ids = texts[s];
        const auto at = static_cast<size_t>(sequences[s].length);
        // Sizes 0, 1, 2, ... in turn, shifted per sequence: prefill and decode meet in one pass.
        const size_t want = (static_cast<size_t>(round) + 3 * s) % 9;
        const size_t take = std::min(want, ids.size() - at);
        chunk[s].assign(ids.begin() + static_cast<int64_t>(at),
                        ids.begin() + static_cast<int64_t>(at + take));
        any = any || at < ids.size();
      }
      if (!any) break;
      const std::vector<int32_t> first = advance(model, sequences, chunk);
      for (size_t s = 0; s < chunk.size(); ++s) {
        const auto rows = logits_of_rows(model, first[s], static_cast<int32_t>(chunk[s].size()));
        mixed[s].insert(mixed[s].end(), rows.begin(), rows.end());
      }
    }
    for (size_t s = 0; s < mixed.size(); ++s) {
      if (model.options().device == "cuda") {
        EXPECT_LE(relative_gap(mixed[s], alone[s]), 1e-4);
      } else {
        EXPECT_EQ(mixed[s], alone[s]);
      }
    }
  });
}

TEST(Golden, GreedyEqualsTransformers) {
  for_each_golden([](Model& model, const Golden& golden) {
    std::vector<HandSequence> one = make_sequences(model, 1);
    std::vector<int32_t> next = golden.greedy_prompt, ids;
    while (ids.size() < golden.greedy_ids.size()) {
      advance(model, one, {next});
      const auto last = static_cast<int32_t>(next.size()) - 1;
      next = {argmax(logits_of_rows(model, last, 1))};
      ids.push_back(next[0]);
    }
    EXPECT_EQ(ids, golden.greedy_ids);
  });
}

}  // namespace
}  // namespace mantissa::test
