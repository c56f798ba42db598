// Loading within its memory bound: VmHWM minus the resident size before, without KV and workspace.
// While loading: packed bytes + largest tensor + max(5 %, 8 MiB); afterwards packed bytes + max(2
// %, 4 MiB). Running: what the plan says, in all, + max(5 %, 8 MiB). A program of its own: the peak
// is the process's.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "io/safetensors_writer.h"
#include "run_model.h"

namespace mantissa::test {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kMiB = 1 << 20;

int64_t status_bytes(const std::string& key) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key)) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  ADD_FAILURE() << "no " << key << " in /proc/self/status";
  return 0;
}

void expect_load_within_bound(const fs::path& folder, const std::string& scheme) {
  SCOPED_TRACE(folder.filename().string() + " " + scheme);
  ModelOptions options;
  options.folder = folder;
  options.scheme = scheme;
  options.max_num_seqs = 1;
  options.max_num_batched_tokens = 16;
  options.max_model_len = 128;
  Model model(options);
  const int64_t packed = model.plan().weights_bytes;
  std::ofstream("/proc/self/clear_refs") << "5";  // VmHWM starts again from the present
  const int64_t before = status_bytes("VmRSS:");
  model.load();
  const int64_t peak = status_bytes("VmHWM:") - before, after = status_bytes("VmRSS:") - before;
  EXPECT_LE(peak, packed + model.plan().largest_tensor_bytes + std::max(packed / 20, 8 * kMiB));
  EXPECT_LE(after, packed + std::max(packed / 50, 4 * kMiB));
  EXPECT_GE(after, packed * 9 / 10) << "the measurement sees the weights";
}

constexpr const char* kSchemes[] = {
    "bf16", "fp8", "ptpc_fp8", "int8", "int8_weight_only", "int4_weight_only"};

TEST(LoadMemory, SharedModel) {
  const fs::path folder = fs::path(MANTISSA_SHARED_DIR) / "models/wiki-29m";
  if (!fs::exists(folder)) GTEST_SKIP() << "needs " << folder;
  for (const char* scheme : kSchemes) expect_load_within_bound(folder, scheme);
}

// A checkpoint of the Llama-3.2-1B shape in two shards; its values do not matter here, so the
// tensors are written from one block of varying bytes.
TEST(LoadMemory, SyntheticLlama1B) {
  const fs::path shape = fs::path(MANTISSA_SOURCE_DIR) / "models/shapes/Llama-3.2-1B/config.json";
  const fs::path folder = fs::temp_directory_path() / ("mantissa-1b-" + std::to_string(getpid()));
  if (fs::space(fs::temp_directory_path()).available < 4'000 * static_cast<uint64_t>(kMiB)) {
    GTEST_SKIP() << "needs 4 GB of temporary disk";
  }
  struct Removed {
    fs::path folder;
    ~Removed() { fs::remove_all(folder); }
  } removed{folder};
  fs::create_directories(folder);
  fs::copy_file(shape, folder / "config.json");
  const ModelConfig c = read_model_config(folder);
  const int64_t kv = c.num_key_value_heads * c.head_dim, q = c.num_attention_heads * c.head_dim;
  std::vector<TensorSpec> specs{
      {"model.embed_tokens.weight", dtype_of(kBF16), {c.vocab_size, c.hidden_size}},
      {"model.norm.weight", dtype_of(kBF16), {c.hidden_size}}};
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const auto add = [&](const char* name, std::vector<int64_t> s) {
      specs.push_back(
          {"model.layers." + std::to_string(i) + "." + name, dtype_of(kBF16), std::move(s)});
    };
    add("input_layernorm.weight", {c.hidden_size});
    add("post_attention_layernorm.weight", {c.hidden_size});
    add("self_attn.q_proj.weight", {q, c.hidden_size});
    add("self_attn.k_proj.weight", {kv, c.hidden_size});
    add("self_attn.v_proj.weight", {kv, c.hidden_size});
    add("self_attn.o_proj.weight", {c.hidden_size, q});
    add("mlp.gate_proj.weight", {c.intermediate_size, c.hidden_size});
    add("mlp.up_proj.weight", {c.intermediate_size, c.hidden_size});
    add("mlp.down_proj.weight", {c.hidden_size, c.intermediate_size});
  }
  {
    std::vector<uint16_t> block(1 << 19);
    for (size_t i = 0; i < block.size(); ++i) {
      block[i] = bf16_from_f32(static_cast<float>(static_cast<int>(i % 8191) - 4095) * 1e-5f);
    }
    SafetensorsWriter writer(folder, specs, {.shard_bytes_max = 2'000 * kMiB});
    for (const TensorSpec& spec : specs) {
      int64_t left = 2;
      for (const int64_t s : spec.shape) left *= s;
      while (left > 0) {
        const auto bytes = std::as_bytes(std::span(block))
                               .first(static_cast<size_t>(std::min<int64_t>(
                                   left, static_cast<int64_t>(block.size()) * 2)));
        writer.write(spec.name, bytes);
        left -= static_cast<int64_t>(bytes.size());
      }
    }
    writer.finish();
  }
  for (const char* scheme : {"bf16", "fp8", "ptpc_fp8", "int4_weight_only"}) {
    expect_load_within_bound(folder, scheme);
  }
}

// A prompt of 32k tokens in passes of 1024, over a cache that makes up most of the plan.
TEST(RunMemory, LongPromptStaysWithinThePlan) {
  constexpr int64_t kTokens = 32768;
  const fs::path folder =
      fs::temp_directory_path() / ("mantissa-long-" + std::to_string(::getpid()));
  struct Removed {
    fs::path folder;
    ~Removed() { fs::remove_all(folder); }
  } removed{folder};
  fs::create_directories(folder);
  std::ofstream(folder / "config.json") << R"({"model_type": "llama", "hidden_size": 64,
      "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
      "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 128, "rms_norm_eps": 1e-5,
      "max_position_embeddings": 32768, "rope_theta": 500000, "hidden_act": "silu",
      "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": true,
      "torch_dtype": "bfloat16"})";
  ModelOptions options;
  options.folder = folder;
  options.dummy = true;
  options.device = "cpu";
  options.threads = 2;
  options.max_num_seqs = 1;
  options.max_num_batched_tokens = 1024;
  Model model(options);
  const MemoryPlan& plan = model.plan();
  const int64_t planned = plan.weights_bytes + plan.kv_bytes + plan.workspace_bytes;
  EXPECT_GT(plan.kv_bytes, planned / 2);
  std::ofstream("/proc/self/clear_refs") << "5";
  const int64_t before = status_bytes("VmRSS:");
  model.load();
  std::vector<HandSequence> one = make_sequences(model, 1);
  std::vector<int32_t> pass(1024);
  for (int64_t at = 0; at < kTokens; at += std::ssize(pass)) {
    for (size_t i = 0; i < pass.size(); ++i) pass[i] = static_cast<int32_t>(i * 7 % 128);
    advance(model, one, {pass});
  }
  EXPECT_EQ(one[0].length, kTokens);
  const std::vector<float> logits = logits_of_rows(model, 1023, 1);
  EXPECT_TRUE(std::ranges::all_of(logits, [](float z) { return std::isfinite(z); }));
  const int64_t peak = status_bytes("VmHWM:") - before;
  EXPECT_LE(peak, planned + std::max(planned / 20, 8 * kMiB));
  EXPECT_GE(peak, plan.kv_bytes) << "the measurement sees the cache";
}

}  // namespace
}  // namespace mantissa::test
