// config.json and generation_config.json: what is read, defaults that are told, every refusal.
#include "io/config.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>

#include "base/file.h"
#include "fixture.h"

namespace mantissa {
namespace {

namespace fs = std::filesystem;

constexpr char kTiny[] = R"({
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
  "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
  "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
  "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": 2,
  "torch_dtype": "float32"})";

// kTiny with these fields set (or removed, where the value is the text "remove").
std::string tiny_with(std::string_view changes) {
  boost::json::object config = boost::json::parse(kTiny).as_object();
  const boost::json::value parsed = boost::json::parse({changes.data(), changes.size()});
  for (const auto& member : parsed.as_object()) {
    if (member.value() == "remove") {
      config.erase(member.key());
    } else {
      config[member.key()] = member.value();
    }
  }
  return boost::json::serialize(config);
}

TEST(Config, Tiny) {
  const ModelConfig c = parse_model_config(kTiny);
  EXPECT_EQ(c.id.model_type, "llama");
  EXPECT_EQ(c.id.architectures, std::vector<std::string>{"LlamaForCausalLM"});
  EXPECT_EQ(c.hidden_size, 64);
  EXPECT_EQ(c.num_key_value_heads, 4);
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.rms_norm_eps, 1e-5);
  EXPECT_EQ(c.rope.type, "default");
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_EQ(c.dtype, &kF32);
  EXPECT_EQ(c.eos_token_ids, std::vector<int32_t>{2});
  EXPECT_TRUE(c.defaults_used.empty());
  EXPECT_FALSE(c.has_generation_config);
  EXPECT_EQ(c.layers.size(), 5u);
  EXPECT_EQ(c.layers[0].window, 0);
  EXPECT_TRUE(c.quantization_config.empty());
}

TEST(Config, DefaultsAreTold) {
  const ModelConfig c = parse_model_config(tiny_with(
      R"({"num_key_value_heads":null,"rms_norm_eps":"remove","rope_theta":"remove","hidden_act":"remove",
          "tie_word_embeddings":"remove","torch_dtype":"remove","max_position_embeddings":"remove"})"));
  EXPECT_EQ(c.num_key_value_heads, 8);
  EXPECT_EQ(c.rms_norm_eps, 1e-6);
  EXPECT_EQ(c.rope.theta, 10000);
  EXPECT_EQ(c.max_position_embeddings, 2048);
  EXPECT_EQ(c.dtype, nullptr);
  EXPECT_EQ(c.defaults_used,
            (std::vector<std::string>{"max_position_embeddings = 2048 (not in config.json)",
                                      "tie_word_embeddings = false (not in config.json)",
                                      "num_key_value_heads = 8 (not in config.json)",
                                      "rms_norm_eps = 1e-06 (not in config.json)",
                                      "rope_theta = 10000 (not in config.json)",
                                      "hidden_act = silu (not in config.json)"}));
}

TEST(Config, RopeOfBothGenerations) {
  const ModelConfig old_style = parse_model_config(tiny_with(
      R"({"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":32.0,"low_freq_factor":1.0,
          "high_freq_factor":4.0,"original_max_position_embeddings":8192}})"));
  const ModelConfig new_style = parse_model_config(tiny_with(
      R"({"rope_theta":"remove","rope_parameters":{"rope_theta":500000,"rope_type":"llama3","factor":32,
          "low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192}})"));
  for (const ModelConfig& c : {old_style, new_style}) {
    EXPECT_EQ(c.rope.theta, 500000);
    EXPECT_EQ(c.rope.type, "llama3");
    EXPECT_EQ(c.rope.factor, 32);
    EXPECT_EQ(c.rope.low_freq_factor, 1);
    EXPECT_EQ(c.rope.high_freq_factor, 4);
    EXPECT_EQ(c.rope.original_max_position_embeddings, 8192);
    EXPECT_TRUE(c.defaults_used.empty());
  }
  const auto scaled = [](const char* scaling) {
    return parse_model_config(tiny_with(text("{\"rope_scaling\":", scaling, "}"))).rope;
  };
  EXPECT_EQ(scaled(R"({"type":"linear","factor":2})").factor, 2);
  EXPECT_EQ(scaled(R"({"type":"dynamic","rope_type":"dynamic","factor":2})").type, "dynamic");
  EXPECT_EQ(scaled(R"({"rope_type":"yarn","factor":4,"beta_fast":32})").beta_fast, 32);
  EXPECT_EQ(scaled(R"({"rope_type":"longrope","short_factor":[1,1,1,1],"long_factor":[1,2,3,4]})")
                .long_factor[3],
            4);
  EXPECT_EQ(scaled(R"({"rope_type":"default"})").type, "default");
}

TEST(Config, IdsAreANumberAListOrNull) {
  const auto eos = [](const char* ids) {
    return parse_model_config(tiny_with(text("{\"eos_token_id\":", ids, "}"))).eos_token_ids;
  };
  EXPECT_EQ(eos("7"), std::vector<int32_t>{7});
  EXPECT_EQ(eos("[7, 511]"), (std::vector<int32_t>{7, 511}));
  EXPECT_EQ(eos("null"), std::vector<int32_t>{});
}

std::vector<int64_t> windows_of(const char* changes, const ConfigRules& rules) {
  std::vector<int64_t> windows;
  for (const LayerConfig& layer :
       parse_model_config(tiny_with(changes), std::nullopt, rules).layers) {
    windows.push_back(layer.window);
  }
  return windows;
}

TEST(Config, WindowsByRule) {
  using Windows = std::vector<int64_t>;
  constexpr KeyDefault kDefaults[] = {
      {"sliding_window", 64}, {"sliding_window_pattern", 3}, {"no_rope_layer_interval", 2}};
  ConfigRules rules{
      .keys = "sliding_window", .defaults = kDefaults, .windows = WindowRule::kEveryLayer};
  constexpr char kSeven[] =
      R"({"sliding_window":7,"use_sliding_window":true,"max_window_layers":3})";
  EXPECT_EQ(windows_of(R"({"sliding_window":7})", rules), (Windows{7, 7, 7, 7, 7}));
  EXPECT_EQ(windows_of(R"({"sliding_window":null})", rules), (Windows{0, 0, 0, 0, 0}));
  EXPECT_EQ(windows_of("{}", rules), (Windows{64, 64, 64, 64, 64})) << "the class's default";
  rules.windows = WindowRule::kAllButEvery;
  EXPECT_EQ(windows_of(R"({"sliding_window":7})", rules), (Windows{7, 7, 0, 7, 7}));
  rules.keys = "use_sliding_window,sliding_window,max_window_layers,layer_types";
  rules.windows = WindowRule::kUpperLayers;
  EXPECT_EQ(windows_of(kSeven, rules), (Windows{0, 0, 0, 7, 7}));
  EXPECT_EQ(windows_of(R"({"sliding_window":7,"use_sliding_window":false})", rules),
            (Windows{0, 0, 0, 0, 0}));
  EXPECT_EQ(windows_of(R"({"sliding_window":7,"use_sliding_window":true,"layer_types":
      ["sliding_attention","full_attention","full_attention","full_attention","sliding_attention"]})",
                       rules),
            (Windows{7, 0, 0, 0, 7}));
  rules.keys = "use_sliding_window,sliding_window,max_window_layers,no_rope_layers";
  rules.windows = WindowRule::kRopeless;
  EXPECT_EQ(windows_of(kSeven, rules), (Windows{0, 7, 0, 7, 0}));
}

TEST(Config, QuantizationDtype) {
  EXPECT_EQ(parse_model_config(tiny_with(R"({"quantization_config":{"quant_method":"fp8"}})"))
                .quantization_config,
            R"({"quant_method":"fp8"})");
  EXPECT_EQ(parse_model_config(tiny_with(R"({"torch_dtype":"remove","dtype":"bfloat16"})")).dtype,
            &kBF16);
}

TEST(Config, GenerationConfig) {
  const ModelConfig c = parse_model_config(
      kTiny, R"({"do_sample":true,"temperature":0.6,"top_p":0.9,"top_k":50,"min_p":0.05,
                 "repetition_penalty":1.1,"max_new_tokens":128,"eos_token_id":[2,5],"unknown":[1]})");
  EXPECT_TRUE(c.has_generation_config);
  EXPECT_EQ(c.generation.do_sample, true);
  EXPECT_EQ(c.generation.temperature, 0.6);
  EXPECT_EQ(c.generation.top_p, 0.9);
  EXPECT_EQ(c.generation.top_k, 50);
  EXPECT_EQ(c.generation.min_p, 0.05);
  EXPECT_EQ(c.generation.repetition_penalty, 1.1);
  EXPECT_EQ(c.generation.max_new_tokens, 128);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{2, 5}));
  EXPECT_EQ(c.bos_token_ids, std::vector<int32_t>{1}) << "from config.json";
  const ModelConfig empty = parse_model_config(kTiny, R"({"temperature":null})");
  EXPECT_FALSE(empty.generation.temperature);
  EXPECT_EQ(empty.eos_token_ids, std::vector<int32_t>{2});
}

struct Refusal {
  const char* changes;
  const char* says;
};

TEST(Config, Refusals) {
  // clang-format off
  const Refusal refusals[] = {
      {R"({"hidden_size":"abc"})", "config.json: hidden_size: expected an integer from 1 to 262144, found \"abc\""},
      {R"({"hidden_size":0})", "hidden_size: expected an integer from 1"},
      {R"({"hidden_size":-64})", "found -64"},
      {R"({"hidden_size":64.5})", "found 6.45E1"},
      {R"({"hidden_size":1e300})", "hidden_size: expected an integer"},
      {R"({"hidden_size":99999999999999999999})", "hidden_size: expected an integer"},
      {R"({"hidden_size":18446744073709551615})", "hidden_size: expected an integer"},
      {R"({"hidden_size":true})", "found true"},
      {R"({"hidden_size":[64]})", "found an array of 1"},
      {R"({"hidden_size":null})", "config.json: hidden_size is missing"},
      {R"({"vocab_size":"remove"})", "config.json: vocab_size is missing"},
      {R"({"vocab_size":16777217})", "vocab_size: expected an integer from 1 to 16777216"},
      {R"({"num_hidden_layers":100000})", "num_hidden_layers: expected"},
      {R"({"num_attention_heads":0})", "num_attention_heads: expected"},
      {R"({"model_type":null})", "config.json: model_type is missing"},
      {R"({"model_type":7})", "model_type: expected a string, found 7"},
      {R"({"architectures":"LlamaForCausalLM"})", "architectures: expected an array of names"},
      {R"({"architectures":[1]})", "architectures[0]: expected a string"},
      {R"({"num_key_value_heads":3})", "num_attention_heads 8 is no multiple of num_key_value_heads 3"},
      {R"({"num_key_value_heads":16})", "num_attention_heads 8 is no multiple of num_key_value_heads 16"},
      {R"({"hidden_size":60})", "hidden_size 60 is no multiple of num_attention_heads 8, and head_dim is not given"},
      {R"({"head_dim":7})", "head_dim 7 is odd"},
      {R"({"hidden_size":72})", "head_dim 9 is odd"},
      {R"({"head_dim":4096,"num_attention_heads":128})", "num_attention_heads 128 * head_dim 4096 is above 262144"},
      {R"({"head_dim":100000})", "head_dim: expected an integer from 1 to 4096"},
      {R"({"hidden_size":262144})", "hidden_size / num_attention_heads is 32768"},
      {R"({"rms_norm_eps":0})", "rms_norm_eps: expected a number from 1e-12 to 1"},
      {R"({"rms_norm_eps":-1e-5})", "rms_norm_eps: expected"},
      {R"({"rms_norm_eps":"1e-5"})", "rms_norm_eps: expected"},
      {R"({"rope_theta":0})", "rope_theta: expected a number from 1 to"},
      {R"({"rope_scaling":"linear"})", "rope_scaling: expected an object"},
      {R"({"rope_scaling":{"factor":8}})", "rope_scaling: expected an object with rope_type"},
      {R"({"rope_scaling":{"type":"magic"}})", "rope_scaling.type: expected one of default, linear, dynamic, llama3, yarn, longrope, found \"magic\""},
      {R"({"rope_scaling":{"type":"linear","rope_type":"yarn","factor":8}})", "rope_scaling.type: expected the same as rope_type"},
      {R"({"rope_scaling":{"type":"linear"}})", "rope_scaling: expected an object with \"factor\""},
      {R"({"rope_scaling":{"type":"linear","factor":"8"}})", "rope_scaling.factor: expected a number from 1e-06 to 1e+06, found \"8\""},
      {R"({"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4}})", "an object with \"original_max_position_embeddings\""},
      {R"({"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4,"original_max_position_embeddings":8192}})", "low_freq_factor below high_freq_factor"},
      {R"({"rope_scaling":{"rope_type":"longrope","short_factor":[1],"long_factor":[1]}})", "rope_scaling.short_factor: expected an array of 4 numbers"},
      {R"({"rope_scaling":{"rope_type":"default"},"rope_parameters":{"rope_type":"default"}})", "either rope_parameters or rope_scaling"},
      {R"({"rope_parameters":{"full_attention":{"rope_type":"default"}}})", "rope_parameters: expected an object with rope_type"},
      {R"({"tie_word_embeddings":"true"})", "tie_word_embeddings: expected true or false, found \"true\""},
      {R"({"attention_bias":1})", "attention_bias: expected true or false, found 1"},
      {R"({"hidden_act":1})", "hidden_act: expected a string"},
      {R"({"torch_dtype":"int8"})", "torch_dtype: expected one of bfloat16, float16, float32, found \"int8\""},
      {R"({"dtype":"bfloat16"})", "dtype: expected the same as torch_dtype, \"float32\""},
      {R"({"eos_token_id":512})", "eos_token_id: expected an integer from 0 to 511, found 512"},
      {R"({"eos_token_id":[1,-1]})", "eos_token_id[1]: expected an integer from 0 to 511, found -1"},
      {R"({"bos_token_id":"1"})", "bos_token_id: expected"},
      {R"({"sliding_window":4096})", "sliding_window is set, but this family"},
      {R"({"final_logit_softcapping":30.0})", "final_logit_softcapping is set"},
      {R"({"no_rope_layers":[1,1,0,1,1]})", "no_rope_layers is set"},
      {R"({"layer_types":["full_attention","sliding_attention"]})", "layer_types is set"},
      {R"({"num_local_experts":8})", "num_local_experts is set, which means a mixture of experts"},
      {R"({"vision_config":{"depth":2}})", "vision_config is set, which means images"},
      {R"({"rope_scaling":{"rope_type":"default","partial_rotary_factor":0.5}})", "partial_rotary_factor: expected 1"},
      {R"({"rope_scaling":{"rope_type":"default","mrope_section":[2,1,1]}})", "mrope_section"},
      {R"({"quantization_config":"fp8"})", "quantization_config: expected an object"},
      {R"({"max_position_embeddings":1e6})", "max_position_embeddings: expected an integer"},
  };
  // clang-format on
  for (const Refusal& r : refusals) {
    const std::string config = tiny_with(r.changes);
    const std::string error = error_of([&] { parse_model_config(config); });
    EXPECT_NE(error.find(r.says), std::string::npos) << r.changes << "\n  " << error;
  }
}

TEST(Config, RefusalsOfGeneration) {
  // clang-format off
  const Refusal refusals[] = {
      {R"({"temperature":-1})", "generation_config.json: temperature: expected a number from 0 to 1000, found -1"},
      {R"({"top_p":0})", "top_p: expected a number from 1e-06 to 1"},
      {R"({"top_p":1.5})", "top_p: expected"},
      {R"({"top_k":-2})", "top_k: expected an integer from -1"},
      {R"({"top_k":1.5})", "top_k: expected"},
      {R"({"min_p":2})", "min_p: expected"},
      {R"({"repetition_penalty":0})", "repetition_penalty: expected"},
      {R"({"max_new_tokens":0})", "max_new_tokens: expected"},
      {R"({"do_sample":"yes"})", "do_sample: expected true or false"},
      {R"({"eos_token_id":[9999]})", "generation_config.json: eos_token_id[0]: expected"},
      {R"([])", "generation_config.json: the top level: expected an object"},
      {R"()", "generation_config.json, line 1, column 1: not valid JSON"},
      {R"({"temperature":NaN})", "not valid JSON"},
  };
  // clang-format on
  for (const Refusal& r : refusals) {
    const std::string error = error_of([&] { parse_model_config(kTiny, r.changes); });
    EXPECT_NE(error.find(r.says), std::string::npos) << r.changes << "\n  " << error;
  }
}

TEST(Config, FoldersAndTheUnknown) {
  const TempDir dir;
  const auto says = [](const fs::path& folder, const char* part) {
    const std::string error = error_of([&] { read_model_config(folder); });
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_EQ(error_of([&] { read_model_id(folder); }), error);
  };
  says(dir.path() / "nowhere", "nowhere\" is not a folder");
  says(dir.path(), "has no config.json");
  fs::create_directory(dir.path() / "config.json");
  says(dir.path(), "is not a regular file");
  fs::remove(dir.path() / "config.json");
  dir.write("config.json", std::string(17 << 20, ' '));
  says(dir.path(), "at most 16777216 are accepted");
  // Only model_type is needed to say which model it is.
  dir.write("config.json", R"({"model_type":"gpt2","n_embd":768})");
  EXPECT_EQ(read_model_id(dir.path()).model_type, "gpt2");
  EXPECT_NE(error_of([&] { read_model_config(dir.path()); }).find("vocab_size is missing"),
            std::string::npos);
  dir.write("config.json", kTiny);
  dir.write("generation_config.json", "{\"top_p\":0.5}");
  EXPECT_EQ(read_model_config(dir.path()).generation.top_p, 0.5);
}

struct ShapeCase {
  const char* name;
  int64_t hidden, layers, kv_heads, head_dim, vocab;
  double parameters;  // published, in 10^9
};

TEST(Config, ShippedShapesHaveTheirPublishedSizes) {
  // clang-format off
  const ShapeCase cases[] = {
      {"Llama-2-7B",    4096, 32, 32, 128,  32000,  6.738},
      {"Llama-2-13B",   5120, 40, 40, 128,  32000, 13.016},
      {"Llama-3.1-8B",  4096, 32,  8, 128, 128256,  8.030},
      {"Llama-3.1-70B", 8192, 80,  8, 128, 128256, 70.554},
      {"Mistral-7B",    4096, 32,  8, 128,  32768,  7.248},
      {"Llama-3.2-1B",  2048, 16,  8,  64, 128256,  1.236},
  };
  // clang-format on
  for (const ShapeCase& s : cases) {
    const ModelConfig c =
        read_model_config(fs::path(MANTISSA_SOURCE_DIR) / "models/shapes" / s.name);
    EXPECT_EQ(c.hidden_size, s.hidden);
    EXPECT_EQ(c.num_hidden_layers, s.layers);
    EXPECT_EQ(c.num_key_value_heads, s.kv_heads);
    EXPECT_EQ(c.head_dim, s.head_dim);
    EXPECT_EQ(c.vocab_size, s.vocab);
    EXPECT_EQ(c.dtype, &kBF16);
    const int64_t attention =
        2 * c.hidden_size * c.head_dim * (c.num_attention_heads + c.num_key_value_heads);
    const int64_t layer = attention + 3 * c.hidden_size * c.intermediate_size + 2 * c.hidden_size;
    const int64_t tables = (c.tie_word_embeddings ? 1 : 2) * c.vocab_size * c.hidden_size;
    const int64_t total = layer * c.num_hidden_layers + tables + c.hidden_size;
    EXPECT_NEAR(static_cast<double>(total) / 1e9, s.parameters, 0.0006) << s.name;
  }
}

}  // namespace
}  // namespace mantissa
