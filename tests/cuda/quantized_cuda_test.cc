// Checkpoints that are quantized already, on the GPU: logits of the goldens in float32, and in
// bf16, where the tuned kernels run, near the reference's.
#include <algorithm>
#include <filesystem>

#include "../model/run_model.h"
#include "base/json.h"
#include "gpu.h"

namespace mantissa::test {
namespace {

namespace fs = std::filesystem;

class QuantizedCuda : public GpuTest {};

std::vector<fs::path> folders() {
  const fs::path here = "tests/golden/quantized";
  std::vector<fs::path> all;
  for (const auto& entry :
       fs::directory_iterator(fs::exists(here) ? here : fs::path(MANTISSA_SOURCE_DIR) / here))
    all.push_back(entry.path());
  std::ranges::sort(all);
  return all;
}

ModelOptions options_of(const fs::path& folder, const char* device, const char* dtype) {
  ModelOptions options;
  options.folder = folder;
  options.device = device;
  options.dtype = dtype;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 128;
  options.threads = 2;
  const json::Document golden = json::parse_file(folder / "golden.json");
  if (const auto kv = golden.root().find("kv_cache_dtype"))
    options.kv_cache_dtype = kv->as_string();
  return options;
}

TEST_F(QuantizedCuda, LogitsAreTheGoldensAndTheReferences) {
  int sequences = 0, apart = 0;
  for (const fs::path& folder : folders()) {
    SCOPED_TRACE(folder.filename().string());
    Model model = load_model(options_of(folder, "cuda", "float32"));
    Model narrow = load_model(options_of(folder, "cuda", "bfloat16"));
    Model ref = load_model(options_of(folder, "ref", "bfloat16"));
    for (const GoldenSequence& s : read_golden(folder / "golden.json").sequences) {
      const std::vector<float> all = prefill_logits(model, s.ids);
      const auto skipped = static_cast<size_t>(s.first * model.limits().vocab);
      // A value off by an ulp may take the neighbouring code, and a step of e4m3 is 1/16: rare in
      // float32, usual in bf16. A wrong scale moves logits by their own size.
      const double gap = relative_gap(std::span(all).subspan(skipped), s.logits);
      EXPECT_LE(gap, 0.1);
      apart += gap > 2e-4 ? 1 : 0;
      ++sequences;
      EXPECT_LE(relative_gap(prefill_logits(narrow, s.ids), prefill_logits(ref, s.ids)), 0.2);
    }
  }
  EXPECT_LE(apart, sequences / 20);
}

}  // namespace
}  // namespace mantissa::test
