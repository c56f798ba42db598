// The scheme table: names, aliases, options, suggestions, sizes.
#include "quant/scheme.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>

#include "base/error.h"

namespace mantissa {
namespace {

std::vector<std::string> split(std::string_view list) {
  std::vector<std::string> out;
  while (!list.empty()) {
    const size_t comma = list.find(',');
    out.emplace_back(list.substr(0, comma));
    list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
  }
  return out;
}

// What parse_scheme() says is wrong, or "" when nothing is.
std::string complaint(const std::string& name) {
  try {
    parse_scheme(name);
  } catch (const Error& error) {
    return error.found + " | " + error.fix;
  }
  return "";
}

TEST(Scheme, TheTableHoldsEveryRowOfTheDesign) {
  for (const char* name : {"bf16",
                           "none",
                           "fp8",
                           "fp8_per_tensor",
                           "fp8_static",
                           "FP8",
                           "ptpc_fp8",
                           "fp8_per_channel",
                           "FP8_DYNAMIC",
                           "float8_rowwise",
                           "fp8_block",
                           "FP8_BLOCK",
                           "fp8_weight_only",
                           "int8",
                           "W8A8",
                           "int8_rowwise",
                           "int8:asym",
                           "int8:static",
                           "int8:asym:static",
                           "int8_weight_only",
                           "W8A16",
                           "int4_weight_only:g32",
                           "int4_weight_only:g64",
                           "int4_weight_only:g128",
                           "int4_weight_only:g256",
                           "int4_weight_only:asym",
                           "W4A16",
                           "W4A16_ASYM",
                           "int4_fp8",
                           "W4AFP8",
                           "int4_int8:g32",
                           "int4_int8:g64",
                           "W4A8",
                           "int8_int4:g32",
                           "int1_weight_only",
                           "int2_weight_only:channel",
                           "int3_weight_only:g32",
                           "int5_weight_only",
                           "int6_weight_only",
                           "int7_weight_only",
                           "int8_weight_only:g32",
                           "int8_int1",
                           "int8_int2",
                           "int8_int3",
                           "int8_int5",
                           "int8_int6",
                           "int8_int7",
                           "int8_int8",
                           "mxfp8",
                           "mxfp8_weight_only",
                           "mxfp6",
                           "mxfp6:e2m3",
                           "mxfp6:e3m2",
                           "mxfp6_weight_only:e2m3",
                           "mxfp4",
                           "mxfp4_weight_only",
                           "nvfp4",
                           "nvfp4:static",
                           "nvfp4_weight_only",
                           "codebook2",
                           "codebook3",
                           "codebook4:g64",
                           "fp8:act=token",
                           "W2A16",
                           "W7A16",
                           "MXFP4",
                           "MXFP8A16",
                           "NVFP4A16"}) {
    EXPECT_EQ(complaint(name), "");
  }
}

TEST(Scheme, EveryAliasAndOptionOfEveryRowParses) {
  for (const SchemeRow& row : scheme_rows()) {
    const Scheme plain = parse_scheme(row.name);
    EXPECT_EQ(plain.name, row.name);
    EXPECT_EQ(plain.weight, row.weight);
    EXPECT_EQ(plain.activation, row.activation);
    for (const Spec& spec : {row.weight, row.activation}) {
      EXPECT_EQ(spec.quantized(), spec.when != When::kNever) << row.name;
    }
    EXPECT_FALSE(row.source.empty()) << row.name;
    for (const std::string& alias : split(row.aliases)) {
      const size_t equals = alias.find('=');
      const Scheme scheme = parse_scheme(alias.substr(0, equals));
      const bool implies = equals != std::string::npos;
      EXPECT_EQ(scheme.name,
                std::string(row.name) + (implies ? ":" + alias.substr(equals + 1) : ""));
    }
    std::set<std::string> names;
    for (const std::string& option : split(row.options)) {
      const std::string written = std::string(row.name) + ":" + option;
      const Scheme scheme = parse_scheme(written);
      EXPECT_TRUE(scheme.name == written || scheme.name == row.name) << scheme.name;
      EXPECT_EQ(parse_scheme(scheme.name).name, scheme.name);
      EXPECT_EQ(parse_scheme(scheme.name).weight, scheme.weight);
      names.insert(describe(scheme.weight, kBF16) + describe(scheme.activation, kBF16));
    }
    if (!row.options.empty()) {
      EXPECT_GE(names.size(), 2u) << row.name << ": options change something";
    }
  }
}

TEST(Scheme, OptionHelpCoversTheOptionsInUse) {
  std::set<std::string> known, used;
  for (const OptionHelp& option : option_help()) {
    EXPECT_FALSE(option.help.empty());
    known.emplace(option.name);
  }
  for (const SchemeRow& row : scheme_rows())
    for (const std::string& option : split(row.options)) used.insert(option);
  EXPECT_EQ(known, used);
}

TEST(Scheme, OptionsChangeWhatTheySay) {
  EXPECT_EQ(parse_scheme("int4_weight_only:g64:asym").name, "int4_weight_only:g64:asym");
  EXPECT_EQ(parse_scheme("int4_weight_only:asym:g64").name, "int4_weight_only:g64:asym");
  EXPECT_EQ(parse_scheme("int4_weight_only:g64").weight.block, per_group(64));
  EXPECT_EQ(parse_scheme("int3_weight_only:channel").weight.block, per_row());
  EXPECT_TRUE(parse_scheme("W4A16_ASYM").weight.asymmetric);
  const Scheme azp = parse_scheme("int8:asym:static");
  EXPECT_FALSE(azp.weight.asymmetric);
  EXPECT_TRUE(azp.activation.asymmetric);
  EXPECT_EQ(azp.activation.when, When::kStatic);
  EXPECT_EQ(azp.activation.block, per_tensor());
  EXPECT_TRUE(parse_scheme("int8_int4:asym").weight.asymmetric);
  EXPECT_FALSE(parse_scheme("int8_int4:asym").activation.asymmetric);
  EXPECT_EQ(parse_scheme("fp8:act=token").activation.block, per_row());
  EXPECT_EQ(parse_scheme("fp8:act=token").weight.block, per_tensor());
  EXPECT_EQ(*parse_scheme("mxfp6:e2m3").activation.elem, kE2M3);
  EXPECT_EQ(parse_scheme("mxfp4:recipe=rceil").activation.recipe, Recipe::kRceil);
  EXPECT_EQ(parse_scheme("ptpc_fp8:recipe=ct").activation.recipe, Recipe::kVllm);
  EXPECT_EQ(parse_scheme("nvfp4:static").activation.block, per_group(16));
}

TEST(Scheme, RefusalsNameWhatWouldWork) {
  EXPECT_EQ(
      complaint("ptpc_fp9"),
      "there is no scheme \"ptpc_fp9\" | did you mean ptpc_fp8? `mantissa schemes` lists all");
  EXPECT_NE(complaint("ptpc").find("did you mean ptpc_fp8?"), std::string::npos);
  EXPECT_NE(complaint("q4_k_m").find("use one of bf16, fp8,"), std::string::npos);
  EXPECT_NE(complaint("").find("use one of bf16"), std::string::npos);
  EXPECT_EQ(complaint("mxfp4:g64"),
            "scheme mxfp4 has no option \"g64\" | its options are "
            "recipe=floor,recipe=rceil,recipe=even,recipe=ct,recipe=modelopt");
  EXPECT_NE(complaint("bf16:g64").find("it has no options"), std::string::npos);
  EXPECT_NE(complaint("int4_weight_only:").find("has no option \"\""), std::string::npos);
  EXPECT_EQ(complaint("int4_weight_only:g32:g64"),
            "scheme int4_weight_only:g32:g64: g32 and g64 exclude each other | choose one block");
  EXPECT_NE(complaint("mxfp8:recipe=autofp8").find("recipe=rceil"), std::string::npos);
  EXPECT_NE(complaint("int4_weight_only:asym:recipe=modelopt").find("recipes that do: vllm, ct"),
            std::string::npos);
  EXPECT_NE(complaint("int4_fp8:asym:recipe=torchao").find("recipes that do: vllm, ct"),
            std::string::npos);
  const std::string hostile = complaint(std::string(100000, '\x01'));
  EXPECT_LT(hostile.size(), 2000u);
  EXPECT_EQ(hostile.find('\x01'), std::string::npos);
}

TEST(Scheme, BitsPerWeightCountScalesZeroPointsAndCodebooks) {
  const auto bits = [](const char* name, int64_t rows, int64_t cols) {
    return bits_per_weight(parse_scheme(name).weight, rows, cols, kBF16);
  };
  EXPECT_EQ(bits("bf16", 64, 64), 16);
  EXPECT_EQ(bits_per_weight(parse_scheme("bf16").weight, 64, 64, kF32), 32);
  EXPECT_EQ(bits("ptpc_fp8", 64, 128), 8 + 32.0 / 128);
  EXPECT_EQ(bits("fp8", 64, 128), 8 + 32.0 / (64 * 128));
  EXPECT_EQ(bits("fp8_block", 256, 256), 8 + 32.0 / (128 * 128));
  EXPECT_EQ(bits("int4_weight_only", 1, 256), 4 + 16.0 / 128);
  EXPECT_EQ(bits("int4_weight_only", 1, 192), 4 + 2 * 16.0 / 192);  // a short last group
  EXPECT_EQ(bits("int4_weight_only:asym", 1, 256), 4 + 20.0 / 128);
  EXPECT_EQ(bits("mxfp4", 1, 320), 4.25);
  EXPECT_EQ(bits("nvfp4", 2, 160), 4.5 + 32.0 / 320);
  EXPECT_EQ(bits("codebook4", 1, 256), 4 + 256.0 / 128);
}

TEST(Scheme, DescriptionsReadWell) {
  const auto both = [](const char* name) {
    const Scheme s = parse_scheme(name);
    return describe(s.weight, kBF16) + " | " + describe(s.activation, kF16);
  };
  EXPECT_EQ(both("bf16"), "bf16 | f16");
  EXPECT_EQ(both("ptpc_fp8"),
            "e4m3fn per-channel, f32 scale | e4m3fn per-token, f32 scale, dynamic");
  EXPECT_EQ(both("fp8_block"),
            "e4m3fn per-tile 128x128, f32 scale | e4m3fn per-group 128, f32 scale, dynamic");
  EXPECT_EQ(both("codebook3:g32"), "uint3 per-group 32, codebook of 8 bf16 | f16");
  EXPECT_EQ(both("int4_weight_only:asym:recipe=ct"),
            "int4 per-group 128, bf16 scale, zero point, recipe ct | f16");
}

// docs/formats.md is written by hand, but its tables say what the code says.
TEST(Scheme, TheDocumentHoldsEveryRow) {
  std::ifstream in(std::string(MANTISSA_SOURCE_DIR) + "/docs/formats.md");
  const std::string doc((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  ASSERT_FALSE(doc.empty());
  for (const SchemeRow& row : scheme_rows()) {
    std::ostringstream line;
    line.precision(4);
    line << "| `" << row.name << "` | " << describe(row.weight, kBF16) << " | "
         << describe(row.activation, kBF16) << " | "
         << bits_per_weight(row.weight, 4096, 4096, kBF16) << " |\n";
    EXPECT_NE(doc.find(line.str()), std::string::npos) << line.str();
  }
  for (const OptionHelp& option : option_help()) {
    const std::string_view name = option.name.substr(option.name.find('=') + 1);
    const bool group = name == "g64" || name == "g128";  // within "g32 .. g256"
    EXPECT_TRUE(group || doc.find(text("`", name, "`")) != std::string::npos ||
                doc.find(text("`", option.name, "`")) != std::string::npos)
        << option.name;
  }
  for (const Elem* elem : all_elems()) {
    if (!elem->is_float()) continue;
    const std::string line = text("| `", elem->name, "` | ", elem->bits(), " | ", elem->has_sign,
                                  ", ", elem->exp_bits, ", ", elem->man_bits, " | ", elem->bias);
    EXPECT_NE(doc.find(line), std::string::npos) << line;
  }
}

TEST(KvFormat, NamesAndAliases) {
  EXPECT_EQ(parse_kv_format("auto").elem, nullptr);
  EXPECT_EQ(*parse_kv_format("fp8").elem, kE4M3);
  EXPECT_EQ(*parse_kv_format("fp8_e4m3").elem, kE4M3);
  EXPECT_EQ(*parse_kv_format("fp8_e5m2").elem, kE5M2);
  EXPECT_EQ(*parse_kv_format("int8").elem, int_elem(8));
  EXPECT_THROW(parse_kv_format("fp4"), Error);
}

}  // namespace
}  // namespace mantissa
