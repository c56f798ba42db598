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
constexpr auto kIsByte = Codes::kByte;
constexpr auto kIsNibble = Codes::kNibble;
constexpr auto kIsInt8 = Codes::kInt8;
constexpr auto kRun = Input::kRunDtype;
constexpr auto kFp8 = Input::kFp8;
constexpr auto kInt = Input::kInt8;
constexpr auto kSumF32 = Arithmetic::kF32;
constexpr auto kSumBf16 = Arithmetic::kBf16;
constexpr auto kSumInt8 = Arithmetic::kInt8;

// linear_<activation>_<weight>_<scales>__<needs>: code8 and code4 are any element of up to 8 or 4
// bits, "any" scales are per tensor, row or group; "run" is the run dtype, widened to f32. First
// match wins.
// clang-format off
constexpr CpuLinear kTable[] = {
    {{"linear_bf16_bf16__avx512"},          kAvx512,   kIsBf16,   kRun, kSumBf16},
    {{"linear_bf16_code8_any__avx512"},     kAvx512,   kIsByte,   kRun, kSumBf16},
    {{"linear_bf16_code4_any__avx512"},     kAvx512,   kIsNibble, kRun, kSumBf16},
    {{"linear_fp8_code8_any__avx512"},      kAvx512,   kIsByte,   kFp8, kSumBf16},
    {{"linear_fp8_code4_any__avx512"},      kAvx512,   kIsNibble, kFp8, kSumBf16},
    {{"linear_int8_code8_any__avx512"}, kAvx512,   kIsInt8,   kInt, kSumInt8},
    {{"linear_int8_code4_any__avx512"}, kAvx512,   kIsNibble, kInt, kSumInt8},
    {{"linear_f32_f32__avx512"},            kAvx512,   kIsF32,    kRun, kSumF32},
    {{"linear_f16_f16__avx512"},            kAvx512,   kIsF16,    kRun, kSumF32},
    {{"linear_run_code8_any__avx512"},      kAvx512,   kIsByte,   kRun, kSumF32},
    {{"linear_run_code4_any__avx512"},      kAvx512,   kIsNibble, kRun, kSumF32},
    {{"linear_f32_f32__avx2"},              kAvx2,     kIsF32,    kRun, kSumF32},
    {{"linear_f16_f16__avx2"},              kAvx2,     kIsF16,    kRun, kSumF32},
    {{"linear_bf16_bf16__avx2"},            kAvx2,     kIsBf16,   kRun, kSumF32},
    {{"linear_run_code8_any__avx2"},        kAvx2,     kIsByte,   kRun, kSumF32},
    {{"linear_run_code4_any__avx2"},        kAvx2,     kIsNibble, kRun, kSumF32},
    {{"linear_fp8_code8_any__avx2"},        kAvx2,     kIsByte,   kFp8, kSumF32},
    {{"linear_fp8_code4_any__avx2"},        kAvx2,     kIsNibble, kFp8, kSumF32},
    {{"linear_int8_code8_any__avx2"}, kAvx2,     kIsInt8,   kInt, kSumInt8},
    {{"linear_int8_code4_any__avx2"}, kAvx2,     kIsNibble, kInt, kSumInt8},
    {{"linear_f32_f32__portable"},          kPortable, kIsF32,    kRun, kSumF32},
    {{"linear_f16_f16__portable"},          kPortable, kIsF16,    kRun, kSumF32},
    {{"linear_bf16_bf16__portable"},        kPortable, kIsBf16,   kRun, kSumF32},
    {{"linear_run_code8_any__portable"},    kPortable, kIsByte,   kRun, kSumF32},
    {{"linear_run_code4_any__portable"},    kPortable, kIsNibble, kRun, kSumF32},
    {{"linear_fp8_code8_any__portable"},    kPortable, kIsByte,   kFp8, kSumF32},
    {{"linear_fp8_code4_any__portable"},    kPortable, kIsNibble, kFp8, kSumF32},
    {{"linear_int8_code8_any__portable"}, kPortable, kIsInt8,   kInt, kSumInt8},
    {{"linear_int8_code4_any__portable"}, kPortable, kIsNibble, kInt, kSumInt8},
};
// clang-format on

// Why the kernel does not read the request; empty when it does.
std::string refuses(const CpuLinear& kernel, const WeightRequest& request) {
  const Spec& weight = request.scheme.weight;
  const Spec& input = request.scheme.activation;
  const bool whole_row = input.block.cols == kAll;
  if (kernel.input == Input::kRunDtype && input.quantized())
    return "reads activations of the run dtype";
  if (kernel.input == Input::kFp8 && !(input.quantized() && input.elem->is_float() && whole_row))
    return "reads 8-bit float activations with a scale per token or tensor";
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
    std::string status = kernel.isa == picked ? "runs" : text("not picked: --isa ", name(picked));
    if (!lack.empty()) status = "lacks " + lack;
    rows.push_back({std::string(kernel.base.name), "linear",
                    std::string(isa_rows()[static_cast<size_t>(kernel.isa)].needs), status});
  }
  return rows;
}

}  // namespace mantissa::cpu
