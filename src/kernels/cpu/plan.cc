#include "kernels/cpu/plan.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "kernels/cpu/parts.h"
#include "kernels/cpu/queue.h"

namespace mantissa::cpu {
namespace {

using enum Isa;
constexpr auto kIsF32 = Codes::kF32;
constexpr auto kIsF16 = Codes::kF16;
constexpr auto kIsBf16 = Codes::kBf16;
constexpr auto kIsPacked = Codes::kPacked;
constexpr auto kRun = Input::kRunDtype;
constexpr auto kFp = Input::kFloat;
constexpr auto kInt = Input::kInt8;
constexpr auto kSumF32 = Arithmetic::kF32;
constexpr auto kSumBf16 = Arithmetic::kBf16;
constexpr auto kSumInt8 = Arithmetic::kInt8;

// linear_<activation>_<weight>_<scales>__<needs>: "code" is any element of 1 to 8 bits or a
// codebook (beside int8: any integer), "float" one of 4 to 8 bits, "any" scales are per tensor,
// row, group or tile; "run" is the run dtype, widened to f32. First match wins.
// clang-format off
constexpr CpuLinear kTable[] = {
    {{"linear_bf16_bf16__avx512"},            kAvx512,   kIsBf16,   kRun,   kSumBf16},
    {{"linear_bf16_code_any__avx512"},        kAvx512,   kIsPacked, kRun,   kSumBf16},
    {{"linear_float_code_any__avx512"},       kAvx512,   kIsPacked, kFp,    kSumBf16},
    {{"linear_int8_code_any__avx512"},        kAvx512,   kIsPacked, kInt,   kSumInt8},
    {{"linear_f32_f32__avx512"},              kAvx512,   kIsF32,    kRun,   kSumF32},
    {{"linear_f16_f16__avx512"},              kAvx512,   kIsF16,    kRun,   kSumF32},
    {{"linear_run_code_any__avx512"},         kAvx512,   kIsPacked, kRun,   kSumF32},
    {{"linear_int8_code_any__avx2"},          kAvx2,     kIsPacked, kInt,   kSumInt8},
    {{"linear_f32_f32__avx2"},                kAvx2,     kIsF32,    kRun,   kSumF32},
    {{"linear_f16_f16__avx2"},                kAvx2,     kIsF16,    kRun,   kSumF32},
    {{"linear_bf16_bf16__avx2"},              kAvx2,     kIsBf16,   kRun,   kSumF32},
    {{"linear_run_code_any__avx2"},           kAvx2,     kIsPacked, kRun,   kSumF32},
    {{"linear_float_code_any__avx2"},         kAvx2,     kIsPacked, kFp,    kSumF32},
    {{"linear_int8_code_any__portable"},      kPortable, kIsPacked, kInt,   kSumInt8},
    {{"linear_f32_f32__portable"},            kPortable, kIsF32,    kRun,   kSumF32},
    {{"linear_f16_f16__portable"},            kPortable, kIsF16,    kRun,   kSumF32},
    {{"linear_bf16_bf16__portable"},          kPortable, kIsBf16,   kRun,   kSumF32},
    {{"linear_run_code_any__portable"},       kPortable, kIsPacked, kRun,   kSumF32},
    {{"linear_float_code_any__portable"},     kPortable, kIsPacked, kFp,    kSumF32},
};
// clang-format on

// Why the kernel of float codes does not read these; empty when it does.
std::string refuses_floats(const WeightRequest& request) {
  const Spec& weight = request.scheme.weight;
  const Spec& input = request.scheme.activation;
  if (!input.quantized() || !input.elem->is_float() || input.elem->bits() > 8)
    return "reads activations of float codes of up to 8 bits";
  const bool whole_row = input.block.cols == kAll || input.block.cols >= request.cols;
  const bool same_groups = input.block.cols == weight.block.cols;
  if (!whole_row && !same_groups && !has_folded_scales(input))
    return text("reads activation groups that are the weight's, not of ", input.block.cols);
  return "";
}

// Why the kernel does not read the request; empty when it does.
std::string refuses(const CpuLinear& kernel, const WeightRequest& request) {
  const Spec& weight = request.scheme.weight;
  const Spec& input = request.scheme.activation;
  const bool whole_row = input.block.cols == kAll;
  if (kernel.input == Input::kRunDtype && input.quantized())
    return "reads activations of the run dtype";
  if (kernel.input == Input::kFloat)
    if (std::string why = refuses_floats(request); !why.empty()) return why;
  const bool integers = kernel.input == Input::kInt8;
  if (integers) {
    if (!input.quantized() || !(*input.elem == int_elem(8)) || !whole_row)
      return "reads int8 activations with a scale per token or tensor";
    if (!weight.quantized() || weight.elem->is_float() || weight.codebook)
      return "reads integer weights";
  }
  if (std::string why = layout_refuses(request, integers); !why.empty()) return why;
  const PackedLayout layout = packed_layout(request, integers);
  if (layout.codes != kernel.codes) return "reads another weight format";
  if (kernel.arithmetic == Arithmetic::kBf16 && kernel.input == Input::kRunDtype &&
      !(*request.run_dtype == kBF16))
    return text("reads bf16 activations, not ", request.run_dtype->name);
  return "";
}

}  // namespace

std::span<const CpuLinear> linear_table() {
  return kTable;
}

Planned plan_of(const Weight& w) {
  const auto& kernel = *reinterpret_cast<const CpuLinear*>(w.kernel);
  return {kernel, packed_layout(w.request, kernel.input == Input::kInt8)};
}

bool has_folded_scales(const Spec& activation) {
  return activation.quantized() && activation.global_scale && activation.elem->man_bits <= 3 &&
         *activation.scale == kE4M3;
}

Weight plan_weight(const WeightRequest& request, Queue* queue) {
  const Isa isa = cpu_queue(queue).isa;
  check(request.run_dtype != nullptr && request.rows >= 0 && request.cols >= 0,
        "cpu: a weight request with a run dtype and a shape");
  std::vector<std::string> reasons;  // each once: several kernels share theirs
  for (const CpuLinear& kernel : kTable) {
    if (kernel.isa != isa) continue;
    const std::string why = refuses(kernel, request);
    if (why.empty()) {
      Weight w{.request = request, .kernel = &kernel.base};
      w.bytes = plan_of(w).layout.bytes;
      return w;
    }
    if (std::ranges::find(reasons, why) == reasons.end()) reasons.push_back(why);
  }
  std::string seen;
  for (const std::string& why : reasons) seen += text(seen.empty() ? "" : "; ", "one ", why);
  throw Error(text(request.name, ": no CPU kernel reads scheme ", request.scheme.name,
                   " in run dtype ", request.run_dtype->name, ": ", seen),
              "choose another --quantization (`mantissa schemes` says which run), or --device ref");
}

std::vector<KernelInfo> linear_kernels(Queue* queue) {
  const Isa picked = cpu_queue(queue).isa;
  std::vector<KernelInfo> rows;
  for (const CpuLinear& kernel : kTable) {
    const std::string lack = missing(kernel.isa);
    std::string status = kernel.isa == picked ? "runs" : text("not chosen: ", name(picked), " is");
    if (!lack.empty()) status = "lacks " + lack;
    rows.push_back({std::string(kernel.base.name), "linear",
                    std::string(isa_rows()[static_cast<size_t>(kernel.isa)].needs), status});
  }
  return rows;
}

}  // namespace mantissa::cpu
