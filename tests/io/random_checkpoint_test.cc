// tools/random_checkpoint: the model it writes opens, has the shape of its config, and is the same
// for the same seed.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "base/file.h"
#include "fixture.h"
#include "io/config.h"
#include "io/safetensors.h"

namespace mantissa {
namespace {

namespace fs = std::filesystem;

constexpr char kConfig[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "vocab_size": 4096, "max_position_embeddings": 64, "attention_bias": true,
  "rms_norm_eps": 1e-05, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})";

int run(const TempDir& dir, const std::string& out, const std::string& more) {
  const std::string command = text(MANTISSA_RANDOM_CHECKPOINT, " ", dir.path().string(),
                                   "/shape.json ", (dir.path() / out).string(), " ", more);
  return std::system(command.c_str());
}

TEST(RandomCheckpoint, WritesTheModelOfItsConfig) {
  const TempDir dir;
  dir.write("shape.json", kConfig);
  for (const char* dtype : {"BF16", "F16", "F32"}) {
    ASSERT_EQ(run(dir, dtype, text("--seed 3 --shard-mb 1 --dtype ", dtype)), 0);
    EXPECT_EQ(read_model_config(dir.path() / dtype).hidden_size, 64);
    const Checkpoint checkpoint = Checkpoint::open(dir.path() / dtype);
    EXPECT_EQ(checkpoint.tensors().size(), 3u + 2 * (2 + 2 * 4 + 3));
    EXPECT_EQ(checkpoint.at("model.layers.1.self_attn.k_proj.weight").shape,
              (std::vector<int64_t>{32, 64}));
    EXPECT_EQ(checkpoint.at("lm_head.weight").dtype->name, dtype);
    const TensorInfo& embed = checkpoint.at("model.embed_tokens.weight");
    std::vector<float> values(static_cast<size_t>(embed.elements()));
    checkpoint.read_rows_f32(embed, 0, {values.data(), embed.rows(), embed.cols()});
    double sum = 0, squares = 0;
    for (const float v : values) {
      sum += v;
      squares += double{v} * v;
    }
    const double count = static_cast<double>(values.size());
    EXPECT_NEAR(sum / count, 0, 0.02 * 5 / std::sqrt(count));
    EXPECT_NEAR(std::sqrt(squares / count), 0.02, 0.02 * 5 / std::sqrt(2 * count));
    const TensorInfo& norm = checkpoint.at("model.norm.weight");
    checkpoint.read_rows_f32(norm, 0, {values.data(), 1, 64});
    for (int i = 0; i < 64; ++i) EXPECT_NEAR(values[static_cast<size_t>(i)], 1, 0.1);
  }
}

TEST(RandomCheckpoint, SeedDecidesTheBytes) {
  const TempDir dir;
  dir.write("shape.json", kConfig);
  ASSERT_EQ(run(dir, "a", "--seed 1"), 0);
  ASSERT_EQ(run(dir, "b", "--seed 1"), 0);
  ASSERT_EQ(run(dir, "c", "--seed 2"), 0);
  const auto content = [&](const char* out) {
    return read_file(dir.path() / out / "model.safetensors", 1 << 24);
  };
  EXPECT_TRUE(content("a") == content("b"));
  EXPECT_FALSE(content("a") == content("c"));
}

}  // namespace
}  // namespace mantissa
