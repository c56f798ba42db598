// Loading: what the plan promises, what is refused and how, --ignore, dummy weights, and the memory
// that a load may take.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "base/error.h"
#include "io/safetensors.h"
#include "io/safetensors_writer.h"
#include "run_model.h"

namespace mantissa::test {
namespace {

namespace fs = std::filesystem;

ModelOptions small(const fs::path& folder) {
  ModelOptions options;
  options.folder = folder;
  options.device = "ref";
  options.threads = 1;
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 64;
  return options;
}

fs::path golden(const char* name) {
  return fs::path(MANTISSA_SOURCE_DIR) / "tests/golden/models" / name;
}

// A copy of a golden model whose config or tensors a test may change.
class ModelCopy {
 public:
  explicit ModelCopy(const char* name) : source_(Checkpoint::open(golden(name))) {
    folder_ = fs::temp_directory_path() / ("mantissa-load-test-" + std::to_string(getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    fs::copy_file(golden(name) / "config.json", folder_ / "config.json");
    for (const TensorInfo& t : source_.tensors()) {
      specs_.push_back({t.name, t.dtype, t.shape});
      std::vector<std::byte> bytes(static_cast<size_t>(t.bytes));
      source_.read_rows(t, 0, bytes);
      bytes_.push_back(std::move(bytes));
    }
  }
  ~ModelCopy() { fs::remove_all(folder_); }
  ModelCopy(const ModelCopy&) = delete;
  ModelCopy& operator=(const ModelCopy&) = delete;

  size_t index(const std::string& name) const {
    for (size_t i = 0; i < specs_.size(); ++i) {
      if (specs_[i].name == name) return i;
    }
    ADD_FAILURE() << "no tensor " << name;
    return 0;
  }
  void remove(const std::string& name) {
    const auto i = static_cast<std::ptrdiff_t>(index(name));
    specs_.erase(specs_.begin() + i);
    bytes_.erase(bytes_.begin() + i);
  }
  void add(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t count = 1;
    for (const int64_t s : shape) count *= s;
    specs_.push_back({name, dtype_of(kF32), shape});
    bytes_.emplace_back(static_cast<size_t>(count * 4));
  }
  void set_value(const std::string& name, size_t at, float value) {
    std::memcpy(bytes_[index(name)].data() + 4 * at, &value, 4);
  }
  void edit_config(const std::string& from, const std::string& to) {
    std::ifstream in(folder_ / "config.json");
    std::string all{std::istreambuf_iterator<char>(in), {}};
    const size_t at = all.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    std::ofstream(folder_ / "config.json") << all.replace(at, from.size(), to);
  }
  const fs::path& write() {
    SafetensorsWriter writer(folder_, specs_);
    for (size_t i = 0; i < specs_.size(); ++i) writer.write(specs_[i].name, bytes_[i]);
    writer.finish();
    return folder_;
  }

 private:
  Checkpoint source_;
  fs::path folder_;
  std::vector<TensorSpec> specs_;
  std::vector<std::vector<std::byte>> bytes_;
};

// Loading must throw an Error whose text has each of these.
void expect_refused(const ModelOptions& options, const std::vector<std::string>& words) {
  try {
    load_model(options);
    FAIL() << "loaded";
  } catch (const Error& e) {
    for (const std::string& word : words) {
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << word << " in: " << e.what();
    }
  }
}

constexpr const char* kGqa = "llama-gqa-tied";
constexpr const char* kNorm = "model.layers.1.input_layernorm.weight";

TEST(Load, MissingTensorIsNamed) {
  ModelCopy copy(kGqa);
  copy.remove("model.layers.1.self_attn.k_proj.weight");
  expect_refused(small(copy.write()), {"model.layers.1.self_attn.k_proj.weight"});
}

TEST(Load, WrongShapeIsNamedWithBothShapes) {
  ModelCopy copy(kGqa);
  copy.remove(kNorm);
  copy.add(kNorm, {7});
  expect_refused(small(copy.write()), {kNorm, "[7]"});
}

TEST(Load, BiasThatConfigDeniesIsRefused) {
  ModelCopy copy(kGqa);
  copy.add("model.layers.0.self_attn.q_proj.bias", {3});
  expect_refused(small(copy.write()), {"model.layers.0.self_attn.q_proj.bias", "config.json"});
}

TEST(Load, ForeignTensorIsNotedAndRefusedWhenStrict) {
  ModelCopy copy(kGqa);
  copy.add("vision.tower.weight", {3});
  ModelOptions options = small(copy.write());
  const Model model = load_model(options);
  const auto& notices = model.plan().notices;
  EXPECT_TRUE(std::ranges::any_of(notices, [](const std::string& n) {
    return n.find("vision.tower.weight") != std::string::npos;
  }));
  options.strict = true;
  expect_refused(options, {"vision.tower.weight"});
}

TEST(Load, SavedRotaryBuffersAreNoForeignTensors) {
  ModelCopy copy(kGqa);
  copy.add("model.layers.0.self_attn.rotary_emb.inv_freq", {4});
  ModelOptions options = small(copy.write());
  options.strict = true;
  EXPECT_NO_THROW(load_model(options));
}

TEST(Load, NanGainIsRefused) {
  ModelCopy copy(kGqa);
  copy.set_value(kNorm, 3, NAN);
  expect_refused(small(copy.write()), {kNorm, "NaN"});
}

TEST(Load, NanAndInfWeightsAreCountedByName) {
  ModelCopy copy(kGqa);
  copy.set_value("model.layers.0.mlp.down_proj.weight", 5, NAN);
  copy.set_value("model.layers.0.mlp.down_proj.weight", 6, INFINITY);
  ModelOptions options = small(copy.write());
  options.scheme = "ptpc_fp8";
  Model model(options);
  const LoadReport report = model.load();
  const std::string name = "model.layers.0.mlp.down_proj: ";
  EXPECT_EQ(report.warnings,
            (std::vector<std::string>{name + "1 NaN weight became 0",
                                      name + "1 infinite weight became the largest code"}));
  const std::vector<float> logits = prefill_logits(model, {1, 2, 3});
  EXPECT_TRUE(std::ranges::all_of(logits, [](float x) { return std::isfinite(x); }));

  options.scheme = "bf16";
  for (const std::string& w : Model(options).load().warnings) {
    EXPECT_NE(w.find(" weight stayed as read"), std::string::npos) << w;
  }
}

TEST(Load, UnknownArchitectureListsTheKnown) {
  ModelCopy copy(kGqa);
  copy.edit_config("\"llama\"", "\"mamba9\"");
  expect_refused(small(copy.write()), {"mamba9", "llama"});
}

TEST(Load, QuantizationConfigThatDeniesItsWeightsIsRefused) {
  ModelCopy copy(kGqa);
  copy.edit_config("\"model_type\"",
                   "\"quantization_config\": {\"quant_method\": \"fp8\", \"activation_scheme\": "
                   "\"dynamic\"}, \"model_type\"");
  expect_refused(small(copy.write()), {"q_proj.weight in model.safetensors", "F32", "F8_E4M3"});
}

TEST(Load, ContextBeyondThePositionsIsRefused) {
  ModelOptions options = small(golden(kGqa));
  options.max_model_len = 1 << 20;
  expect_refused(options, {"--max-model-len", "1048576"});
}

TEST(Load, KvScaleNeedsAQuantizedCache) {
  ModelOptions options = small(golden(kGqa));
  options.kv_scale = 1;
  expect_refused(options, {"--kv-scale", "--kv-cache-dtype"});
}

TEST(Load, IgnoredModulesStayUnquantizedAndSplitTheirFusedWeight) {
  ModelOptions options = small(golden(kGqa));
  options.scheme = "int8_weight_only";
  options.ignore = {"re:.*k_proj", "model.layers.0.mlp.down_proj"};
  const Model model(options);
  int64_t unquantized = 0;
  for (const PlanRow& row : model.plan().rows) {
    if (row.module.find("k_proj") != std::string::npos) {
      EXPECT_EQ(row.scheme, "f32");
    }
    if (row.module == "mlp.down_proj" && row.scheme == "f32") unquantized += row.count;
    EXPECT_NE(row.module, "self_attn.qkv_proj");
  }
  EXPECT_EQ(unquantized, 1);
}

TEST(Load, IgnorePatternWithoutAModuleIsRefused) {
  ModelOptions options = small(golden(kGqa));
  options.ignore = {"re:nothing"};
  expect_refused(options, {"--ignore", "re:nothing"});
  options.ignore = {"re:("};
  expect_refused(options, {"--ignore", "re:("});
}

TEST(Load, StaticActivationScalesNeedCalibration) {
  ModelOptions options = small(golden(kGqa));
  for (const char* scheme : {"fp8_static", "int8:static"}) {
    options.scheme = scheme;
    expect_refused(options, {scheme, "calibrated"});
  }
}

TEST(Load, PlanAddsUp) {
  ModelOptions options = small(golden("llama-mha-untied"));
  options.scheme = "int8";
  const Model model(options);
  const MemoryPlan& plan = model.plan();
  int64_t bytes = 0;
  for (const PlanRow& row : plan.rows) bytes += row.bytes;
  EXPECT_EQ(bytes, plan.weights_bytes);
  EXPECT_GT(plan.kv_bytes, 0);
  EXPECT_GT(plan.workspace_bytes, 0);
  EXPECT_EQ(plan.kv_tokens, model.limits().kv_pages * model.limits().kv_page_tokens);
}

TEST(Load, DummyNeedsConfigAloneAndDependsOnTheSeed) {
  ModelOptions options = small(golden(kGqa));
  options.folder = fs::path(MANTISSA_SOURCE_DIR) / "tests/golden/models" / kGqa;
  options.dummy = true;
  options.dtype = "float32";
  std::vector<std::vector<float>> logits;
  for (const uint64_t seed : {1u, 1u, 2u}) {
    options.seed = seed;
    Model model = load_model(options);
    logits.push_back(prefill_logits(model, {1, 2, 3}));
  }
  EXPECT_EQ(logits[0], logits[1]);
  EXPECT_NE(logits[0], logits[2]);
}

TEST(Load, TokenOutsideTheVocabularyIsAnError) {
  Model model = load_model(small(golden(kGqa)));
  EXPECT_THROW(prefill_logits(model, {1 << 20}), Error);
  EXPECT_THROW(prefill_logits(model, {-1}), Error);
}

}  // namespace
}  // namespace mantissa::test
