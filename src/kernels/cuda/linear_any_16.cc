// Calls of `linear` for the kernels of any format on tensor cores: their arguments, and which
// shapes they take.
#include <bit>

#include "kernels/cuda/any_call.h"
#include "kernels/cuda/linear_call.h"
#include "kernels/cuda/queue.h"
#include "kernels/cuda/weight.h"

namespace mantissa::cuda {
namespace {

// Two f16 of 2^exponent.
uint32_t twice_power(int exponent) {
  return static_cast<uint32_t>(exponent + 15) << 10 | static_cast<uint32_t>(exponent + 15) << 26;
}

AnyFormat format_of(const Spec& s) {
  if (!s.quantized()) return AnyFormat::kRun;
  if (s.codebook) return AnyFormat::kCodebook;
  if (!s.elem->is_float()) return AnyFormat::kInt;
  return *s.elem == kE4M3 ? AnyFormat::kE4M3 : AnyFormat::kMini;
}

// What the spec says; where the parts lie is the caller's.
AnyOperand operand_of(const Spec& s, int64_t cols) {
  AnyOperand o{};
  o.format = format_of(s);
  o.group_shift = kWholeRows;
  if (!s.quantized()) return o;
  o.bits = s.elem->bits();
  o.man_bits = s.elem->man_bits;
  if (o.format == AnyFormat::kMini) o.rescale = twice_power(15 - s.elem->bias);
  if (s.block.cols != kAll && s.block.cols < cols)
    o.group_shift = std::countr_zero(static_cast<uint32_t>(s.block.cols));
  o.folds = s.block.cols == 16 && *s.scale == kE4M3;
  return o;
}

AnyOperand weight_of(const Weight& w) {
  const WeightLayout l(w.request);
  const DeviceWeight d = device_weight(w);
  AnyOperand o = operand_of(w.request.scheme.weight, l.cols);
  o.codes = d.codes;
  o.row_bytes = d.row_bytes;
  o.nibbles = l.code_bits == 4;
  if (o.nibbles && o.format == AnyFormat::kInt) o.bits = 4;  // as they are stored
  if (o.format != AnyFormat::kCodebook) o.scales = d.scales;
  o.scale_form = d.scale_form;
  o.scale_blocks = d.scale_blocks;
  o.scale_group = d.group_cols;
  o.scale_rows = d.scale_rows;
  o.scale_pitch = d.scale_pitch;
  o.scale_stride = d.groups;
  o.zeros = d.zeros;
  if (l.groups > 0) o.row_globals = d.globals;
  o.codebooks = d.codebooks;
  return o;
}

AnyOperand input_of(const LinearInput& x, const Spec& spec, int64_t cols) {
  AnyOperand o = operand_of(spec, cols);
  o.codes = static_cast<const unsigned char*>(x.data);
  o.row_bytes = x.stride * (spec.quantized() ? 1 : 2);
  o.scales = x.scales;
  o.scale_form = ScaleForm::kF32;
  o.scale_rows = 1;
  o.scale_pitch = x.scale_stride;
  o.scale_stride = x.scale_stride;
  o.zeros32 = x.zero_points;
  o.global = x.global;
  return o;
}

bool starts_at(const void* p, int64_t row_bytes, int64_t multiple) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(multiple) == 0 &&
         row_bytes % multiple == 0;
}

}  // namespace

bool try_linear_any_16(const LinearCall& call) {
  const WeightRequest& request = call.w.request;
  const Spec &weight = request.scheme.weight, &activation = request.scheme.activation;
  const bool f16 = *request.run_dtype == kF16;
  AnyArgs a{.x = input_of(call.x, activation, request.cols),
            .w = weight_of(call.w),
            .m = call.rows,
            .n = static_cast<int>(request.rows),
            .k = static_cast<int>(request.cols),
            .promotes_32 = false,
            .promotes_64 = false,
            .run_is_f16 = f16,
            .out_f32 = *call.out.elem == kF32,
            .out = call.out.data,
            .out_stride = call.out.stride,
            .bias = call.epilogue.bias,
            .residual = call.epilogue.residual.data,
            .residual_stride = call.epilogue.residual.stride};
  for (const AnyOperand* o : {&a.x, &a.w}) {
    if (!o->grouped()) continue;
    a.promotes_32 |= o->group_shift == 5;
    a.promotes_64 |= o->group_shift > 5;
  }
  if (!weight.quantized() || (weight.codebook && any_is_half(a))) return false;
  if (a.k % 8 != 0 || !starts_at(a.x.codes, a.x.row_bytes, activation.quantized() ? 8 : 16))
    return false;
  a.m <= kGemvAnyRowsMax ? gemv_any__sm80(a, call.stream) : gemm_any__sm80(a, call.stream);
  return true;
}

const void* decoded_input(const LinearCall& call) {
  const int64_t cols = call.w.request.cols;
  const AnyOperand x = input_of(call.x, call.w.request.scheme.activation, cols);
  if (cols % 8 != 0 || !starts_at(x.codes, x.row_bytes, 8)) return nullptr;
  auto* out = reinterpret_cast<__nv_bfloat16*>(call.queue->scratch(call.rows * cols * 2));
  decode_rows(x, call.rows, static_cast<int>(cols), out, call.stream);
  return out;
}

}  // namespace mantissa::cuda
