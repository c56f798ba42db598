#include "io/dialects.h"

#include "base/error.h"
#include "base/list.h"

namespace mantissa {
namespace {

constexpr auto kBytes = Packing::kBytes;
constexpr auto kWords = Packing::kWords;
constexpr auto kNibbles = Packing::kNibbles;

constexpr std::string_view kCt = "compressed-tensors";
constexpr std::string_view kFp8Codes = "F8_E4M3,F8_E4M3FNUZ";

// clang-format off
constexpr DialectRow kDialects[] = {
    // name                                        method  format
    //  codes            scale               zero point           global scale           input scale           input zero point    shape
    {"fp8",                                        "fp8",  "",
     "weight",          "weight_scale",     "",                  "",                    "input_scale",        "",                 "",
     kBytes, false, kFp8Codes, "tensor", "AutoFP8, vLLM"},
    {"fp8 block",                                  "fp8",  "block",
     "weight",          "weight_scale_inv", "",                  "",                    "",                   "",                 "",
     kBytes, false, kFp8Codes, "block", "DeepSeek-V3, Qwen3-FP8, transformers FineGrainedFP8"},
    {"compressed-tensors float-quantized",         kCt,    "float-quantized",
     "weight",          "weight_scale",     "",                  "",                    "input_scale",        "",                 "",
     kBytes, false, kFp8Codes, "tensor,channel,block", "llm-compressor FP8, FP8_DYNAMIC, FP8_BLOCK"},
    {"compressed-tensors int-quantized",           kCt,    "int-quantized",
     "weight",          "weight_scale",     "weight_zero_point", "",                    "input_scale",        "input_zero_point", "",
     kBytes, false, "I8", "tensor,channel,group", "llm-compressor W8A8"},
    {"compressed-tensors naive-quantized",         kCt,    "naive-quantized",
     "weight",          "weight_scale",     "weight_zero_point", "",                    "input_scale",        "input_zero_point", "",
     kBytes, false, "I8,F8_E4M3,F8_E4M3FNUZ", "tensor,channel,group,block", "compressed-tensors"},
    {"compressed-tensors pack-quantized",          kCt,    "pack-quantized",
     "weight_packed",   "weight_scale",     "weight_zero_point", "",                    "",                   "",                 "weight_shape",
     kWords, false, "I32", "channel,group", "llm-compressor W4A16, W8A16, W4A8"},
    {"compressed-tensors mxfp8-quantized",         kCt,    "mxfp8-quantized",
     "weight",          "weight_scale",     "",                  "",                    "",                   "",                 "",
     kBytes, false, "F8_E4M3", "mx", "llm-compressor MXFP8, MXFP8A16"},
    {"compressed-tensors mxfp4-pack-quantized",    kCt,    "mxfp4-pack-quantized",
     "weight_packed",   "weight_scale",     "",                  "",                    "",                   "",                 "",
     kNibbles, false, "U8", "mx", "llm-compressor MXFP4, MXFP4A16"},
    {"compressed-tensors nvfp4-pack-quantized",    kCt,    "nvfp4-pack-quantized",
     "weight_packed",   "weight_scale",     "",                  "weight_global_scale", "input_global_scale", "",                 "",
     kNibbles, true, "U8", "nvfp4", "llm-compressor NVFP4, NVFP4A16"},
};
// clang-format on

constexpr bool sound(const DialectRow& row) {
  for (const DialectRow& other : kDialects) {
    if (&other == &row) continue;
    if (other.name == row.name) return false;
    if (other.method == row.method && other.format == row.format) return false;
  }
  return !row.codes.empty() && !row.scale.empty() && !row.blocks.empty() && !row.dtypes.empty();
}
constexpr bool all_sound() {
  for (const DialectRow& row : kDialects)
    if (!sound(row)) return false;
  return true;
}
static_assert(all_sound());

}  // namespace

std::span<const DialectRow> dialects() {
  return kDialects;
}

}  // namespace mantissa
