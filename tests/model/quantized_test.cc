// Checkpoints that are quantized already (tools/make_quantized_goldens.py): weights bit for bit,
// logits within bound on every backend, and what contradicts a checkpoint refused.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "io/stored_weight.h"
#include "run_model.h"

namespace mantissa::test {
namespace {

namespace fs = std::filesystem;

fs::path golden_folder() {
  return fs::path(MANTISSA_SOURCE_DIR) / "tests/golden/quantized";
}

std::vector<fs::path> folders() {
  std::vector<fs::path> all;
  for (const auto& entry : fs::directory_iterator(golden_folder())) all.push_back(entry.path());
  std::ranges::sort(all);
  return all;
}

ModelOptions options_of(const fs::path& folder, const Backend& backend) {
  ModelOptions options;
  options.folder = folder;
  options.device = backend.device;
  options.isa = backend.isa;
  options.dtype = "float32";
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 128;
  options.threads = 2;
  return options;
}

std::string error_of(const ModelOptions& options) {
  try {
    Model model(options);
    model.load();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

uint64_t fnv(std::span<const float> values) {
  uint64_t h = 0xcbf29ce484222325u;
  for (const std::byte b : std::as_bytes(values)) {
    h = (h ^ std::to_integer<uint8_t>(b)) * 0x100000001b3u;
  }
  return h;
}

struct Quantized {
  json::Document golden;
  explicit Quantized(const fs::path& folder) : golden(json::parse_file(folder / "golden.json")) {}
  json::Value operator[](std::string_view key) const { return golden.root().at(key); }
  bool has(std::string_view key) const { return golden.root().find(key).has_value(); }
};

TEST(QuantizedGolden, CodesAndScalesAreThoseOfTheFile) {
  size_t modules = 0;
  std::vector<std::string_view> dialects_seen;
  for (const fs::path& folder : folders()) {
    const Quantized golden(folder);
    const ModelConfig config = read_model_config(folder);
    QuantizationConfig stored = QuantizationConfig::parse(config.quantization_config);
    const Checkpoint checkpoint = Checkpoint::open(folder);
    const json::Value weights = golden["weights"];
    for (size_t i = 0; i < weights.size(); ++i) {
      const auto [module_view, hash] = weights.member(i);
      const std::string module(module_view);
      SCOPED_TRACE(folder.filename().string() + " " + module);
      const StoredScheme* scheme = stored.find(module);
      ASSERT_NE(scheme, nullptr);
      dialects_seen.push_back(scheme->dialect->name);
      const bool head = module == "lm_head", down = module.ends_with("down_proj"),
                 out = module.ends_with("o_proj"), wide = module.ends_with("q_proj"),
                 mlp = module.ends_with("gate_proj") || module.ends_with("up_proj");
      const int64_t q = config.num_attention_heads * config.head_dim,
                    kv = config.num_key_value_heads * config.head_dim;
      const int64_t rows = head            ? config.vocab_size
                           : (down || out) ? config.hidden_size
                           : mlp           ? config.intermediate_size
                           : wide          ? q
                                           : kv;
      const int64_t cols = down ? config.intermediate_size : out ? q : config.hidden_size;
      const StoredWeight weight(checkpoint, module, *scheme, rows, cols);
      std::vector<float> values(static_cast<size_t>(rows * cols));
      const int64_t band = std::max(1, weight.spec().block.rows);  // the least that is allowed
      QuantRows q_rows;
      for (int64_t row = 0; row < rows; row += band) {
        const int64_t count = std::min(band, rows - row);
        weight.read_rows(row, count, q_rows);
        dequantize(q_rows, {values.data() + row * cols, count, cols});
      }
      EXPECT_EQ(fnv(values), std::stoull(std::string(hash.as_string()), nullptr, 16));
      ++modules;
    }
  }
  EXPECT_GT(modules, 100u);
  for (const DialectRow& row : dialects()) {
    EXPECT_TRUE(std::ranges::count(dialects_seen, row.name) > 0) << row.name << " has no golden";
  }
}

TEST(QuantizedGolden, LogitsAreThoseOfTransformersOnEveryBackend) {
  for (const Backend& backend : backends()) {
    for (const fs::path& folder : folders()) {
      SCOPED_TRACE(folder.filename().string() + " on " + backend.device + " " + backend.isa);
      const Quantized golden(folder);
      ModelOptions options = options_of(folder, backend);
      if (golden.has("kv_cache_dtype")) {
        options.kv_cache_dtype = std::string(golden["kv_cache_dtype"].as_string());
      }
      Model model = load_model(options);
      if (golden.has("scheme")) {
        EXPECT_EQ(model.options().scheme, golden["scheme"].as_string());
      }
      for (const GoldenSequence& s : read_golden(folder / "golden.json").sequences) {
        const std::vector<float> all = prefill_logits(model, s.ids);
        const auto skipped = static_cast<size_t>(s.first * model.limits().vocab);
        // float32 norms there, and a code may fall on the other side of a boundary here
        EXPECT_LE(relative_gap(std::span(all).subspan(skipped), s.logits),
                  backend.device == "ref" ? 2e-5 : 2e-4)
            << s.ids.size() << " tokens";
      }
    }
  }
}

TEST(Quantized, WhatContradictsTheCheckpointIsRefusedByBothNames) {
  ModelOptions options = options_of(golden_folder() / "fp8-static-kv", {"ref", "auto"});
  for (const char* scheme : {"bf16", "fp8", "ptpc_fp8", "int8"}) {
    options.scheme = scheme;
    const std::string error = error_of(options);
    EXPECT_NE(error.find(std::string("--quantization ") + scheme), std::string::npos) << error;
    EXPECT_NE(error.find("fp8_static"), std::string::npos) << error;
  }
  options.scheme = "fp8_static";
  EXPECT_EQ(error_of(options), "");
  options.ignore = {"model.layers.0.mlp.down_proj"};
  EXPECT_NE(error_of(options).find("--ignore: model.layers.0.mlp.down_proj"), std::string::npos);

  options = options_of(golden_folder() / "fp8-static-head-kv-scale", {"ref", "auto"});
  options.lm_head_scheme = "int8";
  EXPECT_NE(error_of(options).find("--lm-head-scheme int8"), std::string::npos);

  // "dynamic" leaves open whether the scale is a token's or the batch's.
  options = options_of(golden_folder() / "fp8-dynamic", {"ref", "auto"});
  options.scheme = "fp8:act=token";
  Model model = load_model(options);
  EXPECT_EQ(model.options().scheme, "fp8:act=token");
}

TEST(Quantized, KvScalesAreUsedForAnFp8CacheAndNamedOtherwise) {
  ModelOptions options = options_of(golden_folder() / "fp8-static-kv", {"ref", "auto"});
  const auto says = [](const Model& model, const char* what) {
    return std::ranges::any_of(model.plan().notices, [&](const std::string& line) {
      return line.find(what) != std::string::npos;
    });
  };
  {
    const Model model(options);
    EXPECT_EQ(model.plan().kv_scales_given, 0);
    EXPECT_TRUE(says(model, "KV scales of 2 layers are not used"));
  }
  options.kv_cache_dtype = "fp8";
  Model given = load_model(options);
  EXPECT_EQ(given.plan().kv_scales_given, 2);
  EXPECT_FALSE(says(given, "KV scales"));
  options.kv_scale = 1;
  Model one = load_model(options);
  EXPECT_TRUE(says(one, "--kv-scale is given"));
  // A change of scale changes the logits: they do reach the cache.
  EXPECT_NE(prefill_logits(given, {1, 5, 9, 7}), prefill_logits(one, {1, 5, 9, 7}));
}

TEST(Quantized, PartsWithDifferentInputScalesShareTheWidest) {
  const Model model(options_of(golden_folder() / "fp8-static-kv", {"ref", "auto"}));
  EXPECT_TRUE(std::ranges::any_of(model.plan().notices, [](const std::string& line) {
    return line.find("input scales that differ") != std::string::npos;
  }));
}

// ---- broken checkpoints: each row changes one thing

// A golden folder in memory, to be changed and written elsewhere.
struct Broken {
  fs::path folder;
  std::string config, header, data;

  explicit Broken(const char* name) {
    folder = fs::temp_directory_path() / text("mantissa-broken-", ::getpid());
    config = slurp(golden_folder() / name / "config.json");
    const std::string file = slurp(golden_folder() / name / "model.safetensors");
    uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    header = file.substr(8, length);
    data = file.substr(8 + length);
  }
  ~Broken() {
    std::error_code ignored;
    fs::remove_all(folder, ignored);
  }
  static std::string slurp(const fs::path& path) { return read_file(path, 1 << 24); }
  static void replace(std::string& where, const std::string& from, const std::string& to) {
    const size_t at = where.find(from);
    check(at != std::string::npos, "the text to replace is there");
    where.replace(at, from.size(), to);
  }
  // Bytes of a tensor in `data`.
  std::span<char> bytes_of(const std::string& tensor) {
    const size_t at = header.find("\"" + tensor + "\"");
    const size_t offsets = header.find("\"data_offsets\":[", at) + 16;
    size_t begin = 0, end = 0;
    check(std::sscanf(header.c_str() + offsets, "%zu,%zu", &begin, &end) == 2, "two offsets");
    return std::span(data).subspan(begin, end - begin);
  }
  void set_f32(const std::string& tensor, float value) {
    std::memcpy(bytes_of(tensor).data(), &value, 4);
  }
  std::string error() const {
    fs::create_directories(folder);
    std::ofstream(folder / "config.json") << config;
    const uint64_t length = header.size();
    std::ofstream(folder / "model.safetensors", std::ios::binary)
            .write(reinterpret_cast<const char*>(&length), 8)
        << header << data;
    return error_of(options_of(folder, {"ref", "auto"}));
  }
};

struct Break {
  const char* golden;
  const char* what;
  void (*change)(Broken&);
  const char *says, *also;
};
constexpr char kUp[] = "model.layers.0.mlp.up_proj";

const Break kBreaks[] = {
    {"fp8-static-kv", "a missing weight scale",
     [](Broken& b) { Broken::replace(b.header, "up_proj.weight_scale", "up_proj.weight_scall"); },
     "model.layers.0.mlp.up_proj.weight_scale", "missing"},
    {"fp8-static-kv", "a missing input scale",
     [](Broken& b) { Broken::replace(b.header, "up_proj.input_scale", "up_proj.inqut_scale"); },
     "up_proj.input_scale", "static, so they need a scale"},
    {"fp8-static-kv", "a scale of NaN",
     [](Broken& b) { b.set_f32(std::string(kUp) + ".weight_scale", NAN); },
     "up_proj.weight_scale in model.safetensors", "nan"},
    {"fp8-static-kv", "a scale of 0",
     [](Broken& b) { b.set_f32(std::string(kUp) + ".input_scale", 0); },
     "up_proj.input_scale in model.safetensors", "is 0"},
    {"fp8-static-kv", "a negative scale",
     [](Broken& b) { b.set_f32(std::string(kUp) + ".weight_scale", -1); },
     "up_proj.weight_scale in model.safetensors", "-1"},
    {"fp8-static-kv", "an infinite scale",
     [](Broken& b) { b.set_f32(std::string(kUp) + ".input_scale", INFINITY); },
     "up_proj.input_scale in model.safetensors", "inf"},
    {"fp8-static-kv", "a negative KV scale",
     [](Broken& b) { b.set_f32("model.layers.1.self_attn.v_scale", -1); },
     "model.layers.1.self_attn.v_scale", "is -1"},
    {"fp8-static-kv", "KV scales of one layer",
     [](Broken& b) {
       Broken::replace(b.header, "layers.1.self_attn.k_scale", "layers.1.self_attn.k_scalf");
       Broken::replace(b.header, "layers.1.self_attn.v_scale", "layers.1.self_attn.v_scalf");
     },
     "model.layers.1.self_attn: no KV scales", "1 of 2 layers"},
    {"fp8-static-kv", "codes that are NaN",
     [](Broken& b) { b.bytes_of(std::string(kUp) + ".weight")[5] = '\x7f'; },
     "up_proj.weight in model.safetensors", "1 codes are NaN"},
    {"fp8-static-kv", "codes of e5m2",
     [](Broken& b) {
       const size_t at = b.header.find(std::string(kUp) + ".weight\"");
       b.header.replace(b.header.find("F8_E4M3", at), 7, "F8_E5M2");
     },
     "up_proj.weight in model.safetensors", "F8_E5M2"},
    {"fp8-static-kv", "codes of e4m3fnuz that e4m3fn has not",
     [](Broken& b) {
       const size_t at = b.header.find(std::string(kUp) + ".weight\"");
       b.header.replace(b.header.find("F8_E4M3", at), 7, "F8_E4M3FNUZ");
       b.bytes_of(std::string(kUp) + ".weight")[7] = '\x80';
     },
     "up_proj.weight in model.safetensors", "no equal in e4m3fn"},
    {"fp8-static-kv", "a scale the config denies",
     [](Broken& b) { Broken::replace(b.config, "\"static\"", "\"dynamic\""); }, "input_scale",
     "leaving it out would change the results"},
    {"fp8-static-kv", "an ignored module that is quantized",
     [](Broken& b) { Broken::replace(b.config, "model.layers.1.mlp.down_proj", kUp); },
     "up_proj.weight", "F8_E4M3"},
    {"fp8-static-kv", "a config that names no linear",
     [](Broken& b) {
       Broken::replace(b.config, "\"model.layers.1.mlp.down_proj\"", "\"re:.*\"");
       for (size_t at; (at = b.header.find("F8_E4M3")) != std::string::npos;)
         b.header.replace(at, 7, "I8");
     },
     "I8", "unquantized weight"},
    {"ct-fp8-channel-token", "too few scales",
     [](Broken& b) {
       const size_t at = b.header.find("up_proj.weight_scale\"");
       b.header.replace(b.header.find("[32,1]", at), 6, "[16,2]");
     },
     "up_proj.weight_scale in model.safetensors", "[16, 2]"},
    {"ct-int8-channel-token", "floats where the config says int8",
     [](Broken& b) {
       const size_t at = b.header.find("up_proj.weight\"");
       b.header.replace(b.header.find("\"I8\"", at), 4, "\"F8_E4M3\"");
     },
     "up_proj.weight in model.safetensors", "F8_E4M3"},
    {"ct-int8-static-asym", "a missing input zero point",
     [](Broken& b) {
       Broken::replace(b.header, "up_proj.input_zero_point", "up_proj.input_zero_poinX");
     },
     "up_proj.input_zero_point", "asymmetric"},
    {"ct-int8-static-asym", "a zero point the config denies",
     [](Broken& b) {
       const size_t at = b.config.find("\"symmetric\": false");
       b.config.replace(at, 18, "\"symmetric\": true");
     },
     "input_zero_point in model.safetensors", "config says symmetric"},
    {"ct-w4a16", "activation order",
     [](Broken& b) { Broken::replace(b.header, "up_proj.weight_shape", "up_proj.weight_g_idx"); },
     "up_proj.weight_shape", "missing"},
    {"ct-w4a16", "a shape that lies",
     [](Broken& b) { b.bytes_of(std::string(kUp) + ".weight_shape")[0] = 9; },
     "up_proj.weight_shape in model.safetensors", "says [9, 64]"},
    {"ct-w4a16-asym", "zero points that are missing",
     [](Broken& b) {
       Broken::replace(b.header, "up_proj.weight_zero_point", "up_proj.weight_zero_poinX");
     },
     "up_proj.weight_zero_point", "asymmetric"},
    {"ct-nvfp4", "a global scale of 0",
     [](Broken& b) { b.set_f32(std::string(kUp) + ".weight_global_scale", 0); },
     "up_proj.weight_global_scale in model.safetensors", "is 0"},
    {"fp8-block", "the scales of another block size",
     [](Broken& b) {
       const size_t at = b.header.find("o_proj.weight_scale_inv\"");
       b.header.replace(b.header.find("[2,1]", at), 5, "[1,2]");
     },
     "o_proj.weight_scale_inv in model.safetensors", "[1, 2]"},
};

TEST(Quantized, BrokenCheckpointsAreRefusedByTensorAndFile) {
  for (const Break& row : kBreaks) {
    SCOPED_TRACE(text(row.golden, ": ", row.what));
    Broken broken(row.golden);
    row.change(broken);
    const std::string error = broken.error();
    EXPECT_NE(error.find(row.says), std::string::npos) << error;
    EXPECT_NE(error.find(row.also), std::string::npos) << error;
  }
}

TEST(Quantized, CodesOfE4m3fnuzKeepTheirValues) {
  const fs::path folder = golden_folder() / "fp8-static-kv";
  Model fn = load_model(options_of(folder, {"ref", "auto"}));
  Broken broken("fp8-static-kv");
  for (size_t at = 0; (at = broken.header.find("\"F8_E4M3\"", at)) != std::string::npos; at += 13)
    broken.header.replace(at, 9, "\"F8_E4M3FNUZ\"");
  size_t scales = 0;
  for (int layer = 0; layer < 2; ++layer) {
    for (const char* part : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                             "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
      const std::string module = text("model.layers.", layer, ".", part);
      for (const char* name : {".weight_scale", ".input_scale"}) {
        if (broken.header.find(module + name) == std::string::npos) continue;
        float scale = 0;  // half the value a code: twice the scale
        std::memcpy(&scale, broken.bytes_of(module + name).data(), 4);
        broken.set_f32(module + name, 2 * scale);
        ++scales;
      }
      for (char& code : broken.bytes_of(module + ".weight")) {
        const bool plain = broken.header.find(module + ".weight_scale") != std::string::npos;
        if (plain && code == '\x80') code = 0;  // -0
        if (plain && (code & 0x7f) == 0x7f) code = static_cast<char>(code - 1);
      }
    }
  }
  EXPECT_EQ(scales, 26u);
  ASSERT_EQ(broken.error(), "");
  Model fnuz = load_model(options_of(broken.folder, {"ref", "auto"}));
  EXPECT_EQ(prefill_logits(fn, {1, 5, 9, 7}), prefill_logits(fnuz, {1, 5, 9, 7}));
}

}  // namespace
}  // namespace mantissa::test
