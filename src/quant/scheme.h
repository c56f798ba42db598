// Schemes are rows of data: weight = element format x block shape x scale format x when; activation
// likewise. This table is the only place that lists them; help text, documentation, tests,
// benchmarks and checkpoint readers read it. How the numbers are computed: quant/quantize.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/elem.h"

namespace mantissa {

inline constexpr int kAll = -1;  // the whole axis

// The extent that shares one scale. W[N, K]: per channel is one row. X[M, K]: per token is one row.
struct Block {
  int rows = kAll, cols = kAll;
  constexpr bool operator==(const Block&) const = default;
};
constexpr Block per_tensor() {
  return {kAll, kAll};
}
constexpr Block per_row() {
  return {1, kAll};
}
constexpr Block per_group(int size) {
  return {1, size};
}
constexpr Block per_tile(int edge) {
  return {edge, edge};
}

enum class When : uint8_t {
  kNever,    // stays in the run dtype
  kAtLoad,   // weights
  kPerCall,  // activations, dynamic
  kStatic,   // activations, a scale from calibration; of two-level scales (NVFP4) the global one
};

// How scales and codes are computed (reference: numerics_and_formats.md section 2; the formulas
// stand in quant/recipe.cc, a row for each family and recipe, and in docs/formats.md).
enum class Recipe : uint8_t {
  kVllm,  // the default of FP8, integers and codebooks; vLLM's CUDA kernels where vLLM has the
          // scheme
  kAutoFp8,
  kTorchao,  // the default of NVFP4
  kCompressedTensors,
  kModelOpt,
  kRceil,
  kEven,
  kFloor  // the default of MX: OCP MX v1.0
};
// "vllm", "autofp8", "torchao", "ct", "modelopt", "rceil", "even", "floor".
std::string_view recipe_name(Recipe recipe);

struct Spec {
  const Elem* elem = nullptr;  // nullptr: the run dtype, not quantized
  Block block{};
  const Elem* scale = &kF32;  // the scale's own format
  When when = When::kNever;
  bool asymmetric = false;    // integer zero point per block
  bool global_scale = false;  // a second, float32 scale over the whole tensor (NVFP4)
  bool codebook = false;      // codes index a k-means codebook per block
  Recipe recipe = Recipe::kVllm;

  constexpr bool quantized() const { return elem != nullptr; }
  constexpr bool operator==(const Spec&) const = default;
};

struct Scheme {
  std::string name;  // canonical, with its options: "int4_weight_only:g64"
  Spec weight, activation;
};

// A row of the table: a name, its parameters and where the scheme comes from.
struct SchemeRow {
  std::string_view name;
  Spec weight, activation;
  // Comma-separated other names, each meaning this row with its defaults or, written "NAME=option",
  // with that option.
  std::string_view aliases;
  std::string_view options;  // comma-separated options after ':', e.g. "g32,g64,g128,g256,asym"
  std::string_view source;   // who defines it
};
std::span<const SchemeRow> scheme_rows();

// "ptpc_fp8", "int4_weight_only:g64", "int8:asym:static", "fp8:act=token", "mxfp4:recipe=rceil", an
// alias ... Each option once, in any order; the result's name has those that change something, in
// the row's order. Throws Error listing the nearest names, or the row's options, when there is no
// such scheme, and when a recipe does not define the combination.
Scheme parse_scheme(std::string_view name);

// The name of the scheme that has these formats, whatever the recipes and whether block scales are
// float32 or bf16: how a checkpoint's scheme is called. Empty where the table has none.
std::string scheme_name_of(const Spec& weight, const Spec& activation);

// One line for each option that rows may list: "g64", "weights in groups of 64 along K".
struct OptionHelp {
  std::string_view name, help;
};
std::vector<OptionHelp> option_help();

// Whether activations are quantized with scales that must come from calibration.
inline bool needs_calibration(const Scheme& scheme) {
  return scheme.activation.quantized() && scheme.activation.when == When::kStatic;
}

// Bits per weight element of an [rows, cols] weight: codes, scales in their format, zero points at
// the width of a code, codebooks in bf16, the global scale. (Unquantized: the run dtype's bits.)
double bits_per_weight(const Spec& weight, int64_t rows, int64_t cols, const Elem& run_dtype);

// "e4m3fn per-channel, f32 scale" for tables and messages.
std::string describe(const Spec& spec, const Elem& run_dtype);

// KV cache formats (--kv-cache-dtype): "auto" is the run dtype; online formats keep one float32
// scale per (token, KV head).
struct KvFormatRow {
  std::string_view name;  // "fp8"
  const Elem* elem;       // nullptr: the run dtype
  std::string_view aliases;
};
std::span<const KvFormatRow> kv_format_rows();
const KvFormatRow& parse_kv_format(std::string_view name);

}  // namespace mantissa
