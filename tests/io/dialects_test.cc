// quantization_config: what is read as what, what is refused and by which words, and patterns that
// try to hang the matcher.
#include "io/dialects.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "fixture.h"
#include "io/name_pattern.h"

namespace mantissa {
namespace {

constexpr char kWeights[] = R"("weights":{"num_bits":8,"type":"float","strategy":"channel"})";

// A compressed-tensors config of one group; `group` replaces or adds to what is usual.
std::string ct(const std::string& group, const std::string& top = "",
               const std::string& format = "float-quantized") {
  return R"({"quant_method":"compressed-tensors","format":")" + format +
         R"(","config_groups":{"group_0":{"targets":["Linear"],)" + group + "}}" + top + "}";
}
std::string weights(const std::string& args, const std::string& format = "float-quantized") {
  return ct("\"weights\":{" + args + "}", "", format);
}

struct Read {
  std::string json;
  const char* scheme;  // of model.layers.0.mlp.up_proj
  const char* dialect;
};

TEST(Dialects, ConfigsNameTheSchemeTheyMean) {
  const std::string token =
      R"("input_activations":{"num_bits":8,"type":"float","strategy":"token","dynamic":true})";
  const Read rows[] = {
      {R"({"quant_method":"fp8","activation_scheme":"dynamic"})", "fp8", "fp8"},
      {R"({"quant_method":"fp8","activation_scheme":"static","kv_cache_scheme":"static"})",
       "fp8_static", "fp8"},
      {R"({"quant_method":"fp8","activation_scheme":"dynamic","weight_block_size":[128,128],"fmt":"e4m3"})",
       "fp8_block", "fp8 block"},
      {ct(std::string(kWeights) + "," + token), "ptpc_fp8", "compressed-tensors float-quantized"},
      {ct(kWeights), "fp8_weight_only", "compressed-tensors float-quantized"},
      {weights(R"("num_bits":4,"strategy":"group","group_size":64,"actorder":"weight")",
               "pack-quantized"),
       "int4_weight_only:g64", "compressed-tensors pack-quantized"},
      {weights(R"("num_bits":4,"group_size":128,"symmetric":false)", "pack-quantized"),
       "int4_weight_only:asym", "compressed-tensors pack-quantized"},
      {weights(R"("num_bits":8,"group_size":-1)", "pack-quantized"), "int8_weight_only",
       "compressed-tensors pack-quantized"},
      {weights(R"("num_bits":8)", "int-quantized"), "int8 per-tensor",
       "compressed-tensors int-quantized"},
  };
  for (const Read& row : rows) {
    SCOPED_TRACE(row.json);
    QuantizationConfig config = QuantizationConfig::parse(row.json);
    const StoredScheme* stored = config.find("model.layers.0.mlp.up_proj");
    ASSERT_NE(stored, nullptr);
    EXPECT_EQ(stored->scheme.name, row.scheme);
    EXPECT_EQ(stored->dialect->name, row.dialect);
  }
}

TEST(Dialects, TheMostSpecificTargetWinsAndIgnoredModulesStay) {
  QuantizationConfig config = QuantizationConfig::parse(
      R"({"quant_method":"compressed-tensors","format":"mixed-precision","config_groups":{
        "a":{"targets":["Linear"],"format":"float-quantized",)" +
      std::string(kWeights) + R"(},
        "b":{"targets":["re:.*down_proj$"],"format":"int-quantized","weights":{"strategy":"channel"}},
        "c":{"targets":["model.layers.1.mlp.down_proj"],"format":"pack-quantized",
             "weights":{"num_bits":4,"group_size":32}}},
        "ignore":["lm_head","re:.*layers\\.3\\..*","nowhere"]})");
  const auto name = [&](const char* module) {
    const StoredScheme* found = config.find(module);
    return found == nullptr ? std::string("-") : found->scheme.name;
  };
  EXPECT_EQ(name("model.layers.0.mlp.up_proj"), "fp8_weight_only");
  EXPECT_EQ(name("model.layers.0.mlp.down_proj"), "int8_weight_only");
  EXPECT_EQ(name("model.layers.1.mlp.down_proj"), "int4_weight_only:g32");
  EXPECT_EQ(name("model.layers.3.mlp.down_proj"), "-");
  EXPECT_EQ(name("lm_head"), "-");
  EXPECT_EQ(config.unused(), std::vector<std::string>{"nowhere"});
}

TEST(Dialects, IgnoredLayersOfFp8NameModulesAndSubtrees) {
  QuantizationConfig config = QuantizationConfig::parse(
      R"({"quant_method":"fp8","activation_scheme":"dynamic",
          "ignored_layers":["model.layers.0"],"modules_to_not_convert":["model.layers.1.mlp.gate"]})");
  EXPECT_EQ(config.find("model.layers.0.mlp.up_proj"), nullptr);
  EXPECT_NE(config.find("model.layers.01.mlp.up_proj"), nullptr);
  EXPECT_NE(config.find("model.layers.1.mlp.gate_proj"), nullptr) << "a router is no prefix of it";
}

struct Refused {
  std::string json;
  const char* says;
};

TEST(Dialects, WhatIsNotKnownIsRefusedByName) {
  const std::string w = kWeights;
  const Refused rows[] = {
      {"{}", "quant_method"},
      {"[]", "expected an object"},
      {R"({"quant_method":"gptq","bits":4})", "quant_method \"gptq\" is not read"},
      {R"({"quant_method":7})", "expected a string"},
      {R"({"quant_method":"fp8"})", "activation_scheme"},
      {R"({"quant_method":"fp8","activation_scheme":"sometimes"})", "\"dynamic\" or \"static\""},
      {R"({"quant_method":"fp8","activation_scheme":"dynamic","magic":1})", "magic: this build"},
      {R"({"quant_method":"fp8","activation_scheme":"dynamic","fmt":"e5m2"})", "e4m3 is read"},
      {R"({"quant_method":"fp8","activation_scheme":"dynamic","scale_fmt":"ue8m0"})",
       "powers of two"},
      {R"({"quant_method":"fp8","activation_scheme":"dynamic","weight_block_size":[64,128]})",
       "blocks of 128 x 128"},
      {R"({"quant_method":"fp8","activation_scheme":"static","weight_block_size":[128,128]})",
       "blocks go with dynamic"},
      {R"({"quant_method":"fp8","quant_method":"fp8","activation_scheme":"static"})",
       "occurs twice"},
      {ct(w, R"(,"sparsity_config":{"format":"sparse-24-bitmask"})"), "sparse weights"},
      {ct(w, R"(,"transform_config":{"config_groups":{"R1":{}}})"), "transform_config"},
      {ct(w, R"(,"quantization_status":"calibration")"), "not compressed yet"},
      {ct(w, R"(,"rotation":true)"), "rotation: this build"},
      {ct(w, R"(,"kv_cache_scheme":{"num_bits":4,"type":"int"})"), "an FP8 KV cache"},
      {ct(w, "", "marlin-24"), "format \"marlin-24\""},
      {ct(w, "", "dense"), "format \"dense\""},
      {ct(w + R"(,"output_activations":{"num_bits":8})"), "quantized outputs"},
      {ct(w + R"(,"magic":1)"), "config_groups.group_0.magic"},
      {ct(R"("weights":null)"), "no weights"},
      {ct(w, "", "int-quantized"), ""},  // floats in I8: refused when the tensors are read
      {weights(R"("num_bits":8,"type":"float","dynamic":true)"), "scales of their own"},
      {weights(R"("num_bits":8,"type":"float","symmetric":false)"), "floats have no zero points"},
      {weights(R"("num_bits":6,"type":"float")"), "6-bit float"},
      {weights(R"("num_bits":99)"), "num_bits"},
      {weights(R"("num_bits":8,"type":"float","strategy":"block")"), "without block_structure"},
      {weights(
           R"("num_bits":8,"type":"float","strategy":"block","block_structure":[1,99999999999])"),
       "128 x 128"},
      {weights(R"("num_bits":8,"type":"float","strategy":"diagonal")"), "strategy \"diagonal\""},
      {weights(R"("num_bits":4,"group_size":100)", "pack-quantized"), "groups of 16"},
      {weights(R"("num_bits":4,"group_size":0,"strategy":"group")", "pack-quantized"),
       "group_size"},
      {weights(R"("num_bits":4,"group_size":128,"actorder":"group")", "pack-quantized"),
       "activation order"},
      {weights(R"("num_bits":4,"strategy":"tensor")", "pack-quantized"), "has scales per"},
      {ct(w +
          R"(,"input_activations":{"num_bits":8,"type":"float","strategy":"token","dynamic":false})"),
       "static scales per token"},
      {ct(w +
          R"(,"input_activations":{"num_bits":8,"type":"float","strategy":"channel","dynamic":true})"),
       "strategy \"channel\""},
      {R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{}})",
       "config_groups is empty"},
      {R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"W8A8":["Linear"]}})",
       "presets by name"},
      {R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"a":{"targets":[],)" +
           w + "}}}",
       "no targets"},
      {R"({"quant_method":"compressed-tensors","format":"float-quantized","config_groups":{"a":{"targets":["re:(("],)" +
           w + "}}}",
       "not a regular expression"},
      {ct(w, R"(,"ignore":["re:)" + std::string(5000, 'a') + "\"]"), "a pattern of 5000 bytes"},
      {ct(w, R"(,"ignore":[7])"), "expected a string"},
  };
  for (const Refused& row : rows) {
    SCOPED_TRACE(row.json.substr(0, 300));
    const std::string found = error_of([&] { QuantizationConfig::parse(row.json); });
    if (*row.says == 0) {
      EXPECT_EQ(found, "");
    } else {
      EXPECT_NE(found.find(row.says), std::string::npos) << found;
      EXPECT_NE(found.find("quantization_config"), std::string::npos) << found;
    }
  }
}

// docs/formats.md is written by hand, but its table says what the code says.
TEST(Dialects, TheDocumentHoldsEveryRow) {
  const std::string doc =
      read_file(std::filesystem::path(MANTISSA_SOURCE_DIR) / "docs/formats.md", 1 << 20);
  for (const DialectRow& row : dialects()) {
    const size_t at = doc.find(text("| `", row.name, "` | `", row.codes, "` "));
    ASSERT_NE(at, std::string::npos) << row.name;
    const std::string line = doc.substr(at, doc.find('\n', at) - at);
    for (const std::string_view part : {row.scale, row.zero_point, row.global_scale,
                                        row.input_scale, row.input_zero_point, row.shape}) {
      EXPECT_TRUE(part.empty() || line.find(text("`", part, "`")) != std::string::npos)
          << row.name << " " << part;
    }
    EXPECT_TRUE(line.ends_with(text("| ", row.source, " |"))) << line;
  }
}

TEST(NamePattern, MatchesAsPythonsReMatchDoes) {
  const auto matches = [](const char* pattern, const char* name) {
    return NamePattern(pattern, "test").matches(name);
  };
  EXPECT_TRUE(matches("lm_head", "lm_head"));
  EXPECT_FALSE(matches("lm_head", "lm_head.x"));
  EXPECT_TRUE(matches("re:.*lm_head", "model.lm_head")) << "the end is free";
  EXPECT_TRUE(matches("re:model", "model.x"));
  EXPECT_FALSE(matches("re:head", "lm_head")) << "from the start";
  EXPECT_TRUE(
      matches(R"(re:model\.layers\.(1[0-9]|2)\.mlp\..*_proj$)", "model.layers.12.mlp.up_proj"));
  EXPECT_TRUE(matches("re:(?!lm_head).*", "model.x"));
  EXPECT_FALSE(matches("re:.*(?<!down)_proj$", "a.down_proj"));
}

TEST(NamePattern, GivesUpOnPatternsMadeToHang) {
  const NamePattern slow("re:(a+)+(a+)+(a+)+[bc]", "test");
  const std::string name(60, 'a');
  EXPECT_NE(error_of([&] { (void)slow.matches(name); }).find("gave up"), std::string::npos);
}

}  // namespace
}  // namespace mantissa
