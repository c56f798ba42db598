// Writes a Hugging Face folder of the llama architecture with random weights: as large as a real
// model, for tests of loading and memory. The same seed gives the same bytes.
//   random_checkpoint models/shapes/Llama-3.2-1B/config.json OUT --seed 1 --shard-mb 1000
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "io/config.h"
#include "io/safetensors_writer.h"

namespace mantissa {
namespace {

constexpr size_t kLevels = 1 << 16;  // quantiles of the normal distribution

struct Options {
  std::string config, out, dtype = "BF16";
  uint64_t seed = 0;
  int64_t shard_mb = 5000;  // 10^6 bytes
};

// The quantile of the standard normal distribution: Newton's method on erfc.
double normal_quantile(double p) {
  double x = 0;
  for (int step = 0; step < 100; ++step) {
    const double error = 0.5 * std::erfc(-x / std::sqrt(2.0)) - p;
    const double slope = std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
    // A bounded step: far out the slope is tiny.
    const double next = x - std::clamp(error / slope, -1.0, 1.0);
    if (std::abs(next - x) < 1e-12) return next;
    x = next;
  }
  return x;
}

// Stored little-endian values mean + deviation * (quantile (i + 1/2) / kLevels), in order.
std::vector<std::byte> level_table(const Elem& elem, double mean, double deviation) {
  const size_t elem_bytes = static_cast<size_t>(elem.bits()) / 8;
  std::vector<std::byte> table(kLevels * elem_bytes);
  for (size_t i = 0; i < kLevels; ++i) {
    const double quantile = normal_quantile((static_cast<double>(i) + 0.5) / kLevels);
    const uint32_t code = encode(elem, mean + deviation * quantile);
    std::memcpy(table.data() + i * elem_bytes, &code, elem_bytes);
  }
  return table;
}

// `count` values picked from the table with the random bits (seed, position), four a draw.
template <size_t kBytes>
void fill(std::span<std::byte> out, const std::vector<std::byte>& table, uint64_t seed,
          uint64_t& position) {
  const size_t count = out.size() / kBytes;
  for (size_t i = 0; i < count; i += 4) {
    uint64_t bits = random_bits(seed, position++);
    for (size_t k = i; k < std::min(i + 4, count); ++k, bits >>= 16) {
      std::memcpy(out.data() + k * kBytes, table.data() + (bits & 0xffff) * kBytes, kBytes);
    }
  }
}

std::vector<TensorSpec> tensors_of(const ModelConfig& c, const Dtype& dtype) {
  std::vector<TensorSpec> specs;
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    specs.push_back({name, &dtype, std::move(shape)});
  };
  const int64_t queries = c.num_attention_heads * c.head_dim;
  const int64_t keys = c.num_key_value_heads * c.head_dim;
  const auto add_linear = [&](const std::string& name, int64_t outputs, int64_t inputs, bool bias) {
    add(name + ".weight", {outputs, inputs});
    if (bias) add(name + ".bias", {outputs});
  };
  add("model.embed_tokens.weight", {c.vocab_size, c.hidden_size});
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = text("model.layers.", i, ".");
    add(layer + "input_layernorm.weight", {c.hidden_size});
    add_linear(layer + "self_attn.q_proj", queries, c.hidden_size, c.attention_bias);
    add_linear(layer + "self_attn.k_proj", keys, c.hidden_size, c.attention_bias);
    add_linear(layer + "self_attn.v_proj", keys, c.hidden_size, c.attention_bias);
    add_linear(layer + "self_attn.o_proj", c.hidden_size, queries, c.attention_bias);
    add(layer + "post_attention_layernorm.weight", {c.hidden_size});
    add_linear(layer + "mlp.gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    add_linear(layer + "mlp.up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias);
    add_linear(layer + "mlp.down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias);
  }
  add("model.norm.weight", {c.hidden_size});
  if (!c.tie_word_embeddings) add("lm_head.weight", {c.vocab_size, c.hidden_size});
  return specs;
}

void write_checkpoint(const Options& options) {
  const std::string config_json = read_file(options.config, 1 << 20);
  const ModelConfig config = parse_model_config(config_json);
  const Dtype* dtype = find_dtype(options.dtype);
  check(dtype != nullptr && dtype->elem != nullptr, "--dtype is one of the table");
  const std::vector<TensorSpec> specs = tensors_of(config, *dtype);
  const std::vector<std::byte> weights = level_table(*dtype->elem, 0, 0.02);
  const std::vector<std::byte> gains = level_table(*dtype->elem, 1, 0.02);
  SafetensorsWriter writer(options.out, specs, {.shard_bytes_max = options.shard_mb * 1'000'000});
  std::vector<std::byte> buffer(1 << 22);
  uint64_t position = 0;
  for (const TensorSpec& spec : specs) {
    const bool is_gain = spec.name.ends_with("norm.weight");
    size_t left = static_cast<size_t>(dtype->bits / 8);
    for (const int64_t dim : spec.shape) left *= static_cast<size_t>(dim);
    while (left > 0) {
      const std::span<std::byte> chunk = std::span(buffer).first(std::min(left, buffer.size()));
      const auto fill_chunk = dtype->bits == 16 ? fill<2> : fill<4>;
      fill_chunk(chunk, is_gain ? gains : weights, options.seed, position);
      writer.write(spec.name, chunk);
      left -= chunk.size();
    }
  }
  writer.finish();
  std::ofstream(std::filesystem::path(options.out) / "config.json") << config_json;
}

}  // namespace
}  // namespace mantissa

int main(int argc, char** argv) try {
  mantissa::Options options;
  CLI::App app("Writes a random checkpoint of the llama architecture");
  app.add_option("config", options.config, "config.json of the shape")->required();
  app.add_option("out", options.out, "folder to write")->required();
  app.add_option("--seed", options.seed, "of the random numbers")->capture_default_str();
  app.add_option("--dtype", options.dtype, "of all tensors")
      ->check(CLI::IsMember({"BF16", "F16", "F32"}))
      ->capture_default_str();
  app.add_option("--shard-mb", options.shard_mb, "largest file, in 10^6 bytes")
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  mantissa::write_checkpoint(options);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "random_checkpoint: %s\n", error.what());
  return 1;
}
