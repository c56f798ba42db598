// The scheme table, its options and the KV cache formats; they prove themselves at compile time.
#include "quant/scheme_table.h"

#include <iterator>

namespace mantissa {
namespace {

using enum When;

constexpr Spec kRunDtype{};

constexpr Spec fp8_weight(Block block) {
  return {.elem = &kE4M3, .block = block, .when = kAtLoad};
}
constexpr Spec fp8_activation(Block block, When when = kPerCall) {
  return {.elem = &kE4M3, .block = block, .when = when};
}
constexpr Spec kInt8Channel{.elem = &int_elem(8), .block = per_row(), .when = kAtLoad};
constexpr Spec kInt8Token{.elem = &int_elem(8), .block = per_row(), .when = kPerCall};

// Groups of integers: bf16 scales, but float32 at 8 bits. One bit holds {0, -1}: symmetric codes of
// either sign would all round to 0, so it has a zero point always.
constexpr Spec int_weight(int bits) {
  return {.elem = &int_elem(bits),
          .block = per_group(128),
          .scale = bits == 8 ? &kF32 : &kBF16,
          .when = kAtLoad,
          .asymmetric = bits == 1};
}
constexpr Spec mx(const Elem& elem, When when) {
  return {.elem = &elem,
          .block = per_group(32),
          .scale = &kE8M0,
          .when = when,
          .recipe = Recipe::kFloor};
}
constexpr Spec nvfp4(When when) {
  return {.elem = &kE2M1,
          .block = per_group(16),
          .scale = &kE4M3,
          .when = when,
          .global_scale = true,
          .recipe = Recipe::kTorchao};
}
constexpr Spec codebook(int bits) {
  return {.elem = &uint_elem(bits),
          .block = per_group(128),
          .scale = &kBF16,
          .when = kAtLoad,
          .codebook = true};
}

#define MANTISSA_GROUPS "g32,g64,g128,g256"
#define MANTISSA_INT_OPTIONS MANTISSA_GROUPS ",channel,asym,recipe=vllm,recipe=ct"
#define MANTISSA_FP8_OPTIONS "recipe=vllm,recipe=torchao,recipe=ct,recipe=modelopt"
#define MANTISSA_MX_OPTIONS "recipe=floor,recipe=rceil,recipe=even"

// clang-format off
constexpr SchemeRow kSchemes[] = {
    // name                weight                       activation                 aliases  options  source
    {"bf16",               kRunDtype,                   kRunDtype,
     "none", "", "the run dtype (--dtype)"},
    {"fp8",                fp8_weight(per_tensor()),    fp8_activation(per_tensor()),
     "fp8_per_tensor", "act=token," MANTISSA_FP8_OPTIONS ",recipe=autofp8", "vLLM online fp8"},
    {"fp8_static",         fp8_weight(per_tensor()),    fp8_activation(per_tensor(), kStatic),
     "FP8", MANTISSA_FP8_OPTIONS ",recipe=autofp8", "AutoFP8, compressed-tensors FP8"},
    {"ptpc_fp8",           fp8_weight(per_row()),       fp8_activation(per_row()),
     "fp8_per_channel,FP8_DYNAMIC,float8_rowwise", MANTISSA_FP8_OPTIONS, "vLLM ptpc_fp8"},
    {"fp8_block",          fp8_weight(per_tile(128)),   fp8_activation(per_group(128)),
     "FP8_BLOCK,fp8_per_block", MANTISSA_FP8_OPTIONS, "DeepSeek-V3, vLLM"},
    {"fp8_weight_only",    fp8_weight(per_row()),       kRunDtype,
     "float8_weight_only", MANTISSA_FP8_OPTIONS, "torchao Float8WeightOnlyConfig"},
    {"int8",               kInt8Channel,                kInt8Token,
     "W8A8,INT8,int8_rowwise", "asym,static,recipe=vllm,recipe=torchao,recipe=ct", "vLLM, compressed-tensors W8A8"},
    {"int8_weight_only",   kInt8Channel,                kRunDtype,
     "W8A16", MANTISSA_GROUPS ",channel,asym,recipe=vllm,recipe=torchao,recipe=ct", "torchao Int8WeightOnlyConfig"},
    {"int4_weight_only",   int_weight(4),               kRunDtype,
     "W4A16,W4A16_ASYM=asym", MANTISSA_INT_OPTIONS ",recipe=modelopt", "compressed-tensors W4A16"},
    {"int4_fp8",           int_weight(4),               fp8_activation(per_row()),
     "W4AFP8", MANTISSA_GROUPS ",asym,recipe=vllm,recipe=torchao,recipe=ct,recipe=modelopt", "compressed-tensors W4AFP8"},
    {"int4_int8",          int_weight(4),               kInt8Token,
     "W4A8,int8_int4", MANTISSA_GROUPS ",asym,recipe=vllm,recipe=ct,recipe=modelopt", "compressed-tensors W4A8, torchao"},
    {"int1_weight_only",   int_weight(1),               kRunDtype,  "",      MANTISSA_GROUPS ",channel", "torchao IntxWeightOnlyConfig"},
    {"int2_weight_only",   int_weight(2),               kRunDtype,  "W2A16", MANTISSA_INT_OPTIONS, "torchao IntxWeightOnlyConfig"},
    {"int3_weight_only",   int_weight(3),               kRunDtype,  "W3A16", MANTISSA_INT_OPTIONS, "torchao IntxWeightOnlyConfig"},
    {"int5_weight_only",   int_weight(5),               kRunDtype,  "W5A16", MANTISSA_INT_OPTIONS, "torchao IntxWeightOnlyConfig"},
    {"int6_weight_only",   int_weight(6),               kRunDtype,  "W6A16", MANTISSA_INT_OPTIONS, "torchao IntxWeightOnlyConfig"},
    {"int7_weight_only",   int_weight(7),               kRunDtype,  "W7A16", MANTISSA_INT_OPTIONS, "torchao IntxWeightOnlyConfig"},
    {"int8_int1",          int_weight(1),               kInt8Token, "", MANTISSA_GROUPS, "torchao Int8DynamicActivationIntxWeightConfig"},
    {"int8_int2",          int_weight(2),               kInt8Token, "", MANTISSA_GROUPS ",asym,recipe=vllm,recipe=ct", "torchao Int8DynamicActivationIntxWeightConfig"},
    {"int8_int3",          int_weight(3),               kInt8Token, "", MANTISSA_GROUPS ",asym,recipe=vllm,recipe=ct", "torchao Int8DynamicActivationIntxWeightConfig"},
    {"int8_int5",          int_weight(5),               kInt8Token, "", MANTISSA_GROUPS ",asym,recipe=vllm,recipe=ct", "torchao Int8DynamicActivationIntxWeightConfig"},
    {"int8_int6",          int_weight(6),               kInt8Token, "", MANTISSA_GROUPS ",asym,recipe=vllm,recipe=ct", "torchao Int8DynamicActivationIntxWeightConfig"},
    {"int8_int7",          int_weight(7),               kInt8Token, "", MANTISSA_GROUPS ",asym,recipe=vllm,recipe=ct", "torchao Int8DynamicActivationIntxWeightConfig"},
    {"int8_int8",          int_weight(8),               kInt8Token, "", MANTISSA_GROUPS ",asym,recipe=vllm,recipe=torchao,recipe=ct", "torchao Int8DynamicActivationIntxWeightConfig"},
    {"mxfp8",              mx(kE4M3, kAtLoad),          mx(kE4M3, kPerCall),
     "MXFP8", MANTISSA_MX_OPTIONS ",recipe=ct", "OCP MX v1.0"},
    {"mxfp8_weight_only",  mx(kE4M3, kAtLoad),          kRunDtype,
     "MXFP8A16", MANTISSA_MX_OPTIONS ",recipe=ct", "OCP MX v1.0"},
    {"mxfp6",              mx(kE3M2, kAtLoad),          mx(kE3M2, kPerCall),
     "", "e3m2,e2m3," MANTISSA_MX_OPTIONS, "OCP MX v1.0"},
    {"mxfp6_weight_only",  mx(kE3M2, kAtLoad),          kRunDtype,
     "", "e3m2,e2m3," MANTISSA_MX_OPTIONS, "OCP MX v1.0"},
    {"mxfp4",              mx(kE2M1, kAtLoad),          mx(kE2M1, kPerCall),
     "MXFP4", MANTISSA_MX_OPTIONS ",recipe=ct,recipe=modelopt", "OCP MX v1.0"},
    {"mxfp4_weight_only",  mx(kE2M1, kAtLoad),          kRunDtype,
     "MXFP4A16", MANTISSA_MX_OPTIONS ",recipe=ct,recipe=modelopt", "OCP MX v1.0"},
    {"nvfp4",              nvfp4(kAtLoad),              nvfp4(kPerCall),
     "NVFP4", "static,recipe=torchao,recipe=ct,recipe=modelopt", "NVIDIA NVFP4, torchao"},
    {"nvfp4_weight_only",  nvfp4(kAtLoad),              kRunDtype,
     "NVFP4A16", "recipe=torchao,recipe=ct,recipe=modelopt", "NVIDIA NVFP4, torchao"},
    {"codebook2",          codebook(2),                 kRunDtype, "", MANTISSA_GROUPS, "k-means"},
    {"codebook3",          codebook(3),                 kRunDtype, "", MANTISSA_GROUPS, "k-means"},
    {"codebook4",          codebook(4),                 kRunDtype, "", MANTISSA_GROUPS, "k-means"},
};

constexpr KvFormatRow kKvFormats[] = {
    // name        elem          aliases
    {"auto",       nullptr,      ""},
    {"fp8",        &kE4M3,       "fp8_e4m3"},
    {"fp8_e5m2",   &kE5M2,       ""},
    {"int8",       &int_elem(8), "int8_per_token_head"},
};
// clang-format on

template <int kSize>
void set_group(Scheme& s) {
  s.weight.block = per_group(kSize);
}
// Recipes are about weights; activations follow where both sides share one block scale rule.
template <Recipe kRecipe>
void set_recipe(Scheme& s) {
  s.weight.recipe = kRecipe;
  const bool shared = *s.activation.scale == kE8M0 || s.activation.global_scale;
  if (s.activation.quantized() && shared) s.activation.recipe = kRecipe;
}
template <const Elem& kElem>
void set_elem(Scheme& s) {
  s.weight.elem = &kElem;
  if (s.activation.quantized()) s.activation.elem = &kElem;
}
// Of int8 x int8 per channel the activations (as vLLM's azp), else the weights.
void set_asymmetric(Scheme& s) {
  const bool activations = s.activation.quantized() && s.weight.block == per_row();
  (activations ? s.activation : s.weight).asymmetric = true;
}
void set_static(Scheme& s) {
  s.activation.when = kStatic;
  if (!s.activation.global_scale) s.activation.block = per_tensor();
}

// clang-format off
constexpr OptionRow kOptions[] = {
    {"g32",             "block",      "weights in groups of 32 along K",  set_group<32>},
    {"g64",             "block",      "weights in groups of 64 along K",  set_group<64>},
    {"g128",            "block",      "weights in groups of 128 along K", set_group<128>},
    {"g256",            "block",      "weights in groups of 256 along K", set_group<256>},
    {"channel",         "block",      "one scale per output channel",     [](Scheme& s) { s.weight.block = per_row(); }},
    {"asym",            "zero point", "integer zero points (of int8: for the activations)", set_asymmetric},
    {"static",          "when",       "activation scales from calibration (of nvfp4: the global one)", set_static},
    {"act=token",       "activation", "one activation scale per token",   [](Scheme& s) { s.activation.block = per_row(); }},
    {"e3m2",            "element",    "FP6 with 3 exponent bits",         set_elem<kE3M2>},
    {"e2m3",            "element",    "FP6 with 2 exponent bits",         set_elem<kE2M3>},
    {"recipe=vllm",     "recipe",     "scales as vLLM's CUDA kernels",    set_recipe<Recipe::kVllm>},
    {"recipe=autofp8",  "recipe",     "weights as AutoFP8 writes them",   set_recipe<Recipe::kAutoFp8>},
    {"recipe=torchao",  "recipe",     "scales as torchao",                set_recipe<Recipe::kTorchao>},
    {"recipe=ct",       "recipe",     "scales as compressed-tensors",     set_recipe<Recipe::kCompressedTensors>},
    {"recipe=modelopt", "recipe",     "scales as NVIDIA ModelOpt",        set_recipe<Recipe::kModelOpt>},
    {"recipe=floor",    "recipe",     "MX exponents rounded down (OCP MX v1.0)", set_recipe<Recipe::kFloor>},
    {"recipe=rceil",    "recipe",     "MX exponents rounded up (Blackwell)", set_recipe<Recipe::kRceil>},
    {"recipe=even",     "recipe",     "MX exponents rounded to nearest",  set_recipe<Recipe::kEven>},
};
// clang-format on

constexpr bool listed(std::string_view option) {
  for (const OptionRow& row : kOptions)
    if (row.name == option) return true;
  return false;
}

constexpr bool sound(const Spec& s) {
  if (s.when == kNever) return s == Spec{};
  if (*s.scale == kE8M0 && !(s.block == per_group(32))) return false;                    // OCP MX
  if (s.global_scale && !(s.block == per_group(16) && *s.scale == kE4M3)) return false;  // NVFP4
  if (s.codebook && (s.elem->kind != ElemKind::kUnsigned || s.block.rows != 1)) return false;
  if (s.asymmetric && s.elem->is_float()) return false;
  return s.elem->bits() <= 8 && (s.block.rows == s.block.cols || s.block.rows == 1);
}

constexpr bool is_row(const SchemeRow& row, std::string_view name) {
  return row.name == name || any_item(row.aliases, [&](std::string_view alias) {
           return alias.substr(0, alias.find('=')) == name;
         });
}

// Weights never change, activations are not quantized at load, names and aliases are unique, and
// every option exists.
constexpr bool sound(const SchemeRow& row) {
  if (!sound(row.weight) || !sound(row.activation)) return false;
  if (row.weight.when != kNever && row.weight.when != kAtLoad) return false;
  if (row.activation.when == kAtLoad) return false;
  if (row.activation.block.rows != 1 && row.activation.block != per_tensor()) return false;
  for (const SchemeRow& other : kSchemes) {
    if (&other == &row) continue;
    if (is_row(other, row.name)) return false;
    if (any_item(row.aliases, [&](auto a) { return is_row(other, a.substr(0, a.find('='))); })) {
      return false;
    }
  }
  return !any_item(row.options, [](std::string_view option) { return !listed(option); });
}
constexpr bool all_sound() {
  for (const SchemeRow& row : kSchemes)
    if (!sound(row)) return false;
  return true;
}
static_assert(all_sound());

}  // namespace

std::span<const SchemeRow> scheme_rows() {
  return kSchemes;
}
std::span<const KvFormatRow> kv_format_rows() {
  return kKvFormats;
}
std::span<const OptionRow> option_rows() {
  return kOptions;
}

}  // namespace mantissa
