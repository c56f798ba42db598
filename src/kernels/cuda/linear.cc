// `linear`: the table of its kernels, and who takes which call. A weight's codes have one layout
// for all of them, so a small batch and a large one may go to different kernels.
#include <algorithm>
#include <type_traits>

#include "base/error.h"
#include "kernels/cuda/gemm_sm90.h"
#include "kernels/cuda/gemv.h"
#include "kernels/cuda/linear_call.h"
#include "kernels/cuda/queue.h"
#include "kernels/cuda/rows_blocks.h"
#include "kernels/cuda/weight.h"

namespace mantissa::cuda {
namespace {

// ---- formats, so that rows are about these and not about scheme names

bool is_f32_row(const Spec& s) {
  return s.quantized() && s.block.cols == kAll && *s.scale == kF32 && !s.asymmetric && !s.codebook;
}
bool is_e4m3(const Spec& s) {
  return is_f32_row(s) && *s.elem == kE4M3;
}
bool is_int8(const Spec& s) {
  return is_f32_row(s) && *s.elem == int_elem(8);
}
// Codes with one float32 scale a token or tensor; int8 with zero points too.
bool is_int8_token(const Spec& s) {
  return s.quantized() && *s.elem == int_elem(8) && s.block.cols == kAll;
}
// Of up to 4 bits: stored as int4.
bool is_int4(const Spec& s) {
  return s.quantized() && !s.elem->is_float() && s.elem->bits() <= 4 && *s.scale == kBF16 &&
         s.block.rows == 1 && !s.codebook && !s.global_scale;
}
bool runs_16_bits(const WeightRequest& r) {
  return *r.run_dtype == kBF16 || *r.run_dtype == kF16;
}

// e4m3 in tiles of 128 x 128, activations in groups of 128.
bool is_e4m3_blocks(const Scheme& s) {
  const auto is_e4m3_f32 = [](const Spec& spec, Block block) {
    return spec.quantized() && *spec.elem == kE4M3 && *spec.scale == kF32 && spec.block == block;
  };
  return is_e4m3_f32(s.weight, per_tile(128)) && is_e4m3_f32(s.activation, per_group(128));
}

// Activation formats that rows.cu and rows_blocks.cu make.
bool activation_is_made(const Spec& s) {
  if (!s.quantized() || has_groups(s)) return true;
  if (s.recipe != Recipe::kVllm || s.global_scale || *s.scale != kF32) return false;
  if (s.when == When::kStatic)
    return s.block == per_tensor() && (*s.elem == kE4M3 || *s.elem == int_elem(8));
  if (*s.elem == kE4M3) return !s.asymmetric;
  return *s.elem == int_elem(8) && s.block == per_row();
}

// ---- calls as the kernels' arguments

GemvArgs gemv_args(const LinearCall& call) {
  const WeightLayout l(call.w.request);
  const Scheme& scheme = call.w.request.scheme;
  const auto at = [&](int64_t offset) { return call.w.data + offset; };
  const bool int4 = is_int4(scheme.weight);
  return {.weight = !scheme.weight.quantized() ? GemvWeight::kRun
                    : is_e4m3_blocks(scheme)   ? GemvWeight::kE4M3Tiles
                    : int4                     ? GemvWeight::kS4
                    : is_int8(scheme.weight)   ? GemvWeight::kS8
                                               : GemvWeight::kE4M3,
          .input = call.x.scales == nullptr          ? GemvInput::kRun
                   : call.x.code == InputCode::kInt8 ? GemvInput::kS8
                                                     : GemvInput::kE4M3,
          .run_is_f16 = *call.w.request.run_dtype == kF16,
          .out_f32 = *call.out.elem == kF32,
          .w = reinterpret_cast<const unsigned char*>(at(l.codes)),
          .row_bytes = l.row_bytes,
          .w_scale = l.groups > 0 ? at(l.scales) : nullptr,
          .w_zero = l.asymmetric ? reinterpret_cast<const int8_t*>(at(l.zeros)) : nullptr,
          .group_cols = l.group_cols,
          .x = call.x.data,
          .x_stride = call.x.stride,
          .x_scale = call.x.scales,
          .x_zero = call.x.zero_points,
          .x_scale_stride = static_cast<int>(call.x.scale_stride),
          .bias = call.epilogue.bias,
          .residual = call.epilogue.residual.data,
          .residual_stride = call.epilogue.residual.stride,
          .out = call.out.data,
          .out_stride = call.out.stride,
          .m = call.rows,
          .n = static_cast<int>(l.rows),
          .k = static_cast<int>(l.cols)};
}
bool try_gemv(const LinearCall& call) {
  const GemvArgs args = gemv_args(call);
  if (!gemv_sm80_why_not(args).empty()) return false;
  gemv__sm80(args, call.stream);
  return true;
}
bool try_gemv_sm90(const LinearCall& call) {
  const GemvArgs args = gemv_args(call);
  if (!gemv_sm90_why_not(args).empty()) return false;
  gemv__sm90(args, call.stream);
  return true;
}
// Weights as the tensor cores' rows: where tokens are few for codes or bf16 on both sides, and for
// every M where weights are decoded. The layer of Llama-3.1-8B at M = 128: bf16 146 us against
// gemm__sm90's 220, e4m3 98 against 131, int8 90 against 115; at 256 tiles of 128 tokens lose
// (gemv_bench batch).
constexpr int kRowsFewMax = 128;
bool try_gemm_rows(const LinearCall& call) {
  const GemvArgs args = gemv_args(call);
  if (!gemm_rows_sm90_why_not(args).empty()) return false;
  gemm_rows__sm90(args, call.stream);
  return true;
}
// Weights in codes of any kind.
GemvArgs codes_args(const LinearCall& call) {
  const WeightLayout l(call.w.request);
  const Spec& weight = call.w.request.scheme.weight;
  const int bits = weight.elem->bits();
  const bool integer = !weight.elem->is_float();
  GemvArgs args = gemv_args(call);
  args.weight = integer && bits <= 4    ? GemvWeight::kS4
                : is_int8(weight)       ? GemvWeight::kS8
                : integer               ? GemvWeight::kS8Groups
                : *weight.elem == kE4M3 ? GemvWeight::kE4M3Groups
                : bits > 4              ? GemvWeight::kMini8
                                        : GemvWeight::kMini4;
  args.wide_scales = l.scale_form == ScaleForm::kF32;
  args.spare_bits = integer && bits > 4 ? 8 - bits : 0;
  args.man_bits = weight.elem->man_bits;
  args.exp_bias = weight.elem->bias;
  if (weight.global_scale) args.w_global = reinterpret_cast<const float*>(call.w.data + l.globals);
  return args;
}
// With bf16 activations, or codes that are turned into bf16 first.
bool try_codes(const LinearCall& call, std::string (*why_not)(const GemvArgs&),
               void (*run)(const GemvArgs&, cudaStream_t)) {
  const Spec& x = call.w.request.scheme.activation;
  GemvArgs args = codes_args(call);
  if (x.quantized()) {
    args.input = GemvInput::kRun;
    args.x_stride = args.k;
    args.x_zero = nullptr;
    args.x_global = call.x.global;
    if (x.block.cols != kAll) args.x_scale = nullptr;
    args.x = args.w;  // aligned as scratch memory is
    if (!why_not(args).empty()) return false;
    args.x = decoded_input(call);
    if (args.x == nullptr) return false;
  }
  if (!why_not(args).empty()) return false;
  run(args, call.stream);
  return true;
}
bool try_gemm_rows_codes(const LinearCall& call) {
  return try_codes(call, gemm_rows_sm90_why_not, gemm_rows__sm90);
}
bool try_gemm_rows_few(const LinearCall& call) {
  return call.rows <= kRowsFewMax && !call.fast_accum && try_gemm_rows(call);
}

// ---- rows by parts

// Rows [first, first + count) of x, residual and out.
GemvArgs rows_of(GemvArgs a, int first, int count) {
  const auto shift = [&](auto* p, int64_t bytes) {
    using P = decltype(p);
    using Byte =
        std::conditional_t<std::is_const_v<std::remove_pointer_t<P>>, const std::byte, std::byte>;
    return p == nullptr ? p : reinterpret_cast<P>(reinterpret_cast<Byte*>(p) + first * bytes);
  };
  a.x = shift(a.x, a.x_stride * (a.input == GemvInput::kRun ? 2 : 1));
  a.x_scale = shift(a.x_scale, a.x_scale_stride * 4);
  a.x_zero = shift(a.x_zero, a.x_scale_stride * 4);
  a.residual = shift(a.residual, a.residual_stride * 2);
  a.out = shift(a.out, a.out_stride * (a.out_f32 ? 4 : 2));
  a.m = count;
  return a;
}

void run_by_parts(const GemvArgs& a, int rows, void (*run)(const GemvArgs&, cudaStream_t),
                  cudaStream_t stream) {
  for (int m = 0; m < a.m; m += rows) run(rows_of(a, m, std::min(rows, a.m - m)), stream);
}

// FP4: more of x than this goes in two halves, since stages need room; reading the weights twice
// takes less than gemm_rows__sm90 does (8 rows, 4096 x 14336, MXFP4: 2 x 17.5 us, 36.7).
constexpr int64_t kFp4InputMax = 128 << 10;
int fp4_rows_at_once(const GemvArgs& a) {
  return int64_t{a.m} * a.k * 2 > kFp4InputMax ? (a.m + 1) / 2 : a.m;
}
std::string fp4_why_not(const GemvArgs& a) {
  if (a.m > kGemvRowsMax) return "more than 8 rows";
  return gemv_fp4_sm90_why_not(rows_of(a, 0, fp4_rows_at_once(a)));
}
void run_fp4(const GemvArgs& a, cudaStream_t stream) {
  run_by_parts(a, fp4_rows_at_once(a), gemv_fp4__sm90, stream);
}
bool try_gemv_fp4(const LinearCall& call) {
  return try_codes(call, fp4_why_not, run_fp4);
}

// Streaming the weights a few times is faster than tiles that are mostly empty.
constexpr int kStreamsMax = 4;
bool try_gemm_mixed(const LinearCall& call) {
  const GemvArgs args = gemv_args(call);
  if (!gemm_mixed_sm80_why_not(args).empty()) return false;
  for (int rows = kGemvRowsMax; rows >= 1; --rows) {
    if ((args.m + rows - 1) / rows > kStreamsMax) break;
    if (!gemv_sm80_why_not(rows_of(args, 0, rows)).empty()) continue;
    run_by_parts(args, rows, gemv__sm80, call.stream);
    return true;
  }
  gemm_mixed__sm80(args, call.stream);
  return true;
}

bool try_gemm(const LinearCall& call) {
  const WeightLayout l(call.w.request);
  const Spec& weight = call.w.request.scheme.weight;
  const bool blocks = is_e4m3_blocks(call.w.request.scheme);
  const GemmArgs args{
      .elem = !weight.quantized()     ? GemmElem::kBf16
              : *weight.elem == kE4M3 ? GemmElem::kE4M3
                                      : GemmElem::kS8,
      .fast_accum = call.fast_accum,
      .block_scales = blocks,
      .a = call.x.data,
      .b = call.w.data + l.codes,
      .a_stride = call.x.stride,
      .a_scale = call.x.scales,
      .b_scale =
          weight.quantized() ? reinterpret_cast<const float*>(call.w.data + l.scales) : nullptr,
      .a_scale_stride = blocks                     ? call.x.scale_stride
                        : call.x.scale_stride == 0 ? 0
                                                   : 1,
      .b_scale_stride = blocks ? l.scale_pitch : 1,
      .bias = call.epilogue.bias,
      .residual = reinterpret_cast<const __nv_bfloat16*>(call.epilogue.residual.data),
      .residual_stride = call.epilogue.residual.stride,
      .out = call.out.data,
      .out_stride = call.out.stride,
      .out_f32 = *call.out.elem == kF32,
      .m = call.rows,
      .n = static_cast<int>(l.rows),
      .k = static_cast<int>(l.cols)};
  if (!gemm_sm90_why_not(args).empty()) return false;
  gemm__sm90(args, call.stream);
  *call.tile = gemm_sm90_columns(args);
  return true;
}

bool run_any(const LinearCall& call) {
  linear_any__sm80(call);
  return true;
}

// ---- the table

struct CudaLinearKernel {
  LinearKernel base;  // first: Weight::kernel points here
  std::string_view needs;
  int capability;
  bool small_batch;  // only for some M: another row names the weight's kernel
  bool (*takes)(const WeightRequest&);
  bool (*try_run)(const LinearCall&);  // false: not these shapes
};
bool is_bf16(const WeightRequest& r) {
  return *r.run_dtype == kBF16;
}
// What small-batch kernels take: weight and activation by format.
bool takes_run_run(const WeightRequest& r) {
  return runs_16_bits(r) && !r.scheme.weight.quantized();
}
bool takes_e4m3_e4m3(const WeightRequest& r) {
  return runs_16_bits(r) && is_e4m3(r.scheme.weight) && is_e4m3(r.scheme.activation);
}
bool takes_e4m3_blocks(const WeightRequest& r) {
  return runs_16_bits(r) && is_e4m3_blocks(r.scheme);
}
// Sums of 127 x 127 stay in int32.
bool sums_fit_int32(const WeightRequest& r) {
  return r.cols < 1 << 17;
}
bool takes_s8_s8(const WeightRequest& r) {
  return runs_16_bits(r) && sums_fit_int32(r) && is_int8(r.scheme.weight) &&
         is_int8_token(r.scheme.activation);
}
bool takes_e4m3_run(const WeightRequest& r) {
  return runs_16_bits(r) && is_e4m3(r.scheme.weight) && !r.scheme.activation.quantized();
}
bool takes_s8_run(const WeightRequest& r) {
  return runs_16_bits(r) && is_int8(r.scheme.weight) && !r.scheme.activation.quantized();
}
bool takes_s4_any(const WeightRequest& r) {
  const Spec& a = r.scheme.activation;
  return runs_16_bits(r) && is_int4(r.scheme.weight) &&
         (!a.quantized() || is_e4m3(a) || is_int8_token(a));
}
// Formats of gemm_rows__sm90 that are decoded to bf16; K as its stages are.
bool takes_codes(const WeightRequest& r) {
  const Spec& w = r.scheme.weight;
  if (*r.run_dtype != kBF16 || !w.quantized() || w.codebook || r.cols % 128 != 0) return false;
  // decode_rows() multiplies scales of groups into bf16: exact for powers of two, and for e4m3
  // beside FP4.
  const Spec& x = r.scheme.activation;
  if (x.quantized() && x.block.cols != kAll && *x.scale != kE8M0 && *x.scale != kE4M3) return false;
  const int64_t group = w.block.cols;
  if (!w.elem->is_float()) {
    const bool sums = group == kAll || group == 32 || group == 64 || group % 128 == 0;
    return w.block.rows == 1 && sums && !w.global_scale &&
           (w.elem->bits() > 4 || *w.scale == kBF16);
  }
  const bool exact = *w.scale == kE8M0 || *w.scale == kE4M3;
  return exact && (group == 32 || (group == 16 && *w.elem == kE2M1));
}
bool takes_fp4(const WeightRequest& r) {
  return takes_codes(r) && *r.scheme.weight.elem == kE2M1;
}
GemvInput input_of_s4(const WeightRequest& r) {
  const Spec& a = r.scheme.activation;
  return !a.quantized() ? GemvInput::kRun : is_e4m3(a) ? GemvInput::kE4M3 : GemvInput::kS8;
}
#define MANTISSA_GEMV_ROWS(NAME, TAKES, WHAT)                                   \
  {{"gemv_" NAME "__sm90"}, "sm_90a, " WHAT, 90, true, TAKES, try_gemv_sm90}, { \
    {"gemv_" NAME "__sm80"}, "sm_80, " WHAT, 80, true, TAKES, try_gemv          \
  }

// The first row that takes a call runs it.
constexpr CudaLinearKernel kKernels[] = {
    MANTISSA_GEMV_ROWS("run_run_16", takes_run_run, "bf16 or f16 weights, up to 8 rows"),
    MANTISSA_GEMV_ROWS("e4m3_e4m3_row_16", takes_e4m3_e4m3,
                       "bf16 or f16, e4m3 weights and activations with scales per tensor, channel "
                       "or token, up to 8 rows"),
    MANTISSA_GEMV_ROWS("s8_s8_row_16", takes_s8_s8,
                       "bf16 or f16, symmetric int8 weights per channel, int8 activations per "
                       "token, up to 8 rows"),
    MANTISSA_GEMV_ROWS("e4m3_run_16", takes_e4m3_run,
                       "bf16 or f16, e4m3 weights per channel, up to 8 rows"),
    MANTISSA_GEMV_ROWS("s8_run_16", takes_s8_run,
                       "bf16 or f16, int8 weights per channel, up to 8 rows"),
    MANTISSA_GEMV_ROWS(
        "s4_any_16", takes_s4_any,
        "bf16 or f16, integers of up to 4 bits in groups of 32, 64 or multiples of 128, "
        "K a multiple of 128, up to 8 rows"),
    {{"gemv_e4m3_e4m3_block_16__sm90"},
     "sm_90a, bf16 or f16, e4m3 weights in tiles of 128 x 128, e4m3 activations in groups of 128, "
     "up to 8 rows",
     90,
     true,
     takes_e4m3_blocks,
     try_gemv_sm90},
    {{"gemv_fp4_any_bf16__sm90"},
     "sm_90a, bf16, MXFP4 and NVFP4, K a multiple of 128, up to 8 rows; activations in bf16, or "
     "codes that are decoded to bf16 first",
     90,
     true,
     takes_fp4,
     try_gemv_fp4},
    {{"gemm_rows_run_run_bf16__sm90"},
     "sm_90a, bf16 weights and activations, 9 to 128 rows",
     90,
     true,
     [](const WeightRequest& r) { return is_bf16(r) && takes_run_run(r); },
     try_gemm_rows_few},
    {{"gemm_rows_e4m3_e4m3_row_bf16__sm90"},
     "sm_90a, bf16, e4m3 weights and activations, 9 to 128 rows",
     90,
     true,
     [](const WeightRequest& r) { return is_bf16(r) && takes_e4m3_e4m3(r); },
     try_gemm_rows_few},
    {{"gemm_rows_e4m3_e4m3_block_bf16__sm90"},
     "sm_90a, bf16, e4m3 weights in tiles of 128 x 128, e4m3 activations in groups of 128, 9 to "
     "128 rows",
     90,
     true,
     [](const WeightRequest& r) { return is_bf16(r) && takes_e4m3_blocks(r); },
     try_gemm_rows_few},
    {{"gemm_rows_s8_s8_row_bf16__sm90"},
     "sm_90a, bf16, symmetric int8 weights and activations, 9 to 128 rows",
     90,
     true,
     [](const WeightRequest& r) { return is_bf16(r) && takes_s8_s8(r); },
     try_gemm_rows_few},
    {{"gemm_rows_e4m3_run_bf16__sm90"},
     "sm_90a, bf16, e4m3 weights per channel",
     90,
     false,
     [](const WeightRequest& r) { return is_bf16(r) && takes_e4m3_run(r); },
     try_gemm_rows},
    {{"gemm_rows_s8_run_bf16__sm90"},
     "sm_90a, bf16, int8 weights per channel",
     90,
     false,
     [](const WeightRequest& r) { return is_bf16(r) && takes_s8_run(r); },
     try_gemm_rows},
    {{"gemm_rows_s4_run_bf16__sm90"},
     "sm_90a, bf16, integers of up to 4 bits in groups of 32, 64 or multiples of 128, K a multiple "
     "of 128",
     90,
     false,
     [](const WeightRequest& r) {
       return is_bf16(r) && takes_s4_any(r) && !r.scheme.activation.quantized();
     },
     try_gemm_rows},
    {{"gemm_e4m3_e4m3_row_bf16__sm90"},
     "sm_90a, bf16, e4m3 weights and activations with scales per tensor, channel or token",
     90,
     false,
     [](const WeightRequest& r) { return is_bf16(r) && takes_e4m3_e4m3(r); },
     try_gemm},
    {{"gemm_e4m3_e4m3_block_bf16__sm90"},
     "sm_90a, bf16, e4m3 weights in tiles of 128 x 128, e4m3 activations in groups of 128",
     90,
     false,
     [](const WeightRequest& r) { return is_bf16(r) && takes_e4m3_blocks(r); },
     try_gemm},
    {{"gemm_s8_s8_row_bf16__sm90"},
     "sm_90a, bf16, symmetric int8 weights per channel and activations per token",
     90,
     false,
     [](const WeightRequest& r) {
       return is_bf16(r) && takes_s8_s8(r) && is_int8(r.scheme.activation);
     },
     try_gemm},
    {{"gemm_bf16_bf16_bf16__sm90"},
     "sm_90a, bf16 weights and activations",
     90,
     false,
     [](const WeightRequest& r) { return is_bf16(r) && takes_run_run(r); },
     try_gemm},
    {{"gemm_rows_codes_any_bf16__sm90"},
     "sm_90a, bf16, integers of any width per channel or in groups of 32, 64 or multiples of 128, "
     "MX and NVFP4, K a multiple of 128; activations in bf16, or codes that are decoded to bf16 "
     "first",
     90,
     false,
     takes_codes,
     try_gemm_rows_codes},
    {{"gemm_run_run_16__sm80"},
     "sm_80, bf16 or f16 weights",
     80,
     false,
     takes_run_run,
     try_gemm_mixed},
    {{"gemm_e4m3_any_16__sm80"},
     "sm_80, bf16 or f16, e4m3 weights per channel, activations in either or in e4m3",
     80,
     false,
     [](const WeightRequest& r) { return takes_e4m3_run(r) || takes_e4m3_e4m3(r); },
     try_gemm_mixed},
    {{"gemm_s8_run_16__sm80"},
     "sm_80, bf16 or f16, int8 weights per channel",
     80,
     false,
     takes_s8_run,
     try_gemm_mixed},
    {{"gemm_s4_any_16__sm80"},
     "sm_80, bf16 or f16, integers of up to 4 bits in groups of 32, 64 or multiples of 128, K a "
     "multiple of 128",
     80,
     false,
     takes_s4_any,
     try_gemm_mixed},
    {{"linear_any_any_16__sm80"},
     "sm_80, bf16 or f16; codebooks: bf16; groups of 32 or more, NVFP4; K a multiple of 8",
     80,
     false,
     [](const WeightRequest& r) {
       const Spec &w = r.scheme.weight, &x = r.scheme.activation;
       // Sums are scaled 32 inputs at a time; groups of 16 are NVFP4's, multiplied into the codes.
       const auto scales_fit = [](const Spec& s) {
         return !s.quantized() || s.block.cols == kAll || s.block.cols >= 32 || *s.scale == kE4M3;
       };
       return runs_16_bits(r) && w.quantized() && r.cols % 8 == 0 && scales_fit(w) &&
              scales_fit(x) && !(w.codebook && (*r.run_dtype == kF16 || x.quantized()));
     },
     try_linear_any_16},
    {{"linear_any_any_any__sm80"},
     "sm_80",
     80,
     false,
     [](const WeightRequest&) { return true; },
     run_any},
};

bool runs_here(const CudaLinearKernel& kernel, const CudaQueue& q) {
  return kernel.capability <= (q.portable_only ? 80 : q.capability);
}

LinearInput input_of(const Activation& x, const Weight& w) {
  const Spec& spec = w.request.scheme.activation;
  LinearInput input;
  if (!spec.quantized()) {
    input.data = x.high.data;
    input.stride = x.high.stride;
    return input;
  }
  const QuantizedActivation* q = x.find(spec);
  check(q != nullptr, "linear: x has the form that the weight reads");
  return {
      .data = q->codes.data,
      .stride = q->codes.stride,
      .scales = q->scales.data,
      .zero_points = q->zero_points.data,
      .global = spec.global_scale ? q->global_scale : nullptr,
      .scale_stride = spec.block.rows == kAll ? 0 : q->scales.stride,
      .group_cols = static_cast<int>(spec.block.cols == kAll ? w.request.cols : spec.block.cols),
      .code = !spec.elem->is_float() ? InputCode::kInt8
              : *spec.elem == kE4M3  ? InputCode::kE4M3
                                     : InputCode::kMini,
      .bits = spec.elem->bits(),
      .man_bits = spec.elem->man_bits,
      .bias = spec.elem->bias};
}

}  // namespace

std::optional<GemvFormats> gemv_formats(const WeightRequest& r) {
  if (takes_run_run(r)) return GemvFormats{GemvWeight::kRun, GemvInput::kRun};
  if (takes_e4m3_e4m3(r)) return GemvFormats{GemvWeight::kE4M3, GemvInput::kE4M3};
  if (takes_e4m3_blocks(r)) return GemvFormats{GemvWeight::kE4M3Tiles, GemvInput::kE4M3};
  if (takes_s8_s8(r)) return GemvFormats{GemvWeight::kS8, GemvInput::kS8};
  if (takes_e4m3_run(r)) return GemvFormats{GemvWeight::kE4M3, GemvInput::kRun};
  if (takes_s8_run(r)) return GemvFormats{GemvWeight::kS8, GemvInput::kRun};
  if (takes_s4_any(r)) return GemvFormats{GemvWeight::kS4, input_of_s4(r)};
  if (takes_fp4(r) && !r.scheme.activation.quantized())
    return GemvFormats{GemvWeight::kMini4, GemvInput::kRun};
  return std::nullopt;
}

Weight plan_weight(const WeightRequest& request, Queue* queue) {
  const CudaQueue& q = cuda_queue(queue);
  if (!activation_is_made(request.scheme.activation)) {
    throw Error(text(request.name, ": scheme ", request.scheme.name, ": no CUDA kernel makes ",
                     describe(request.scheme.activation, *request.run_dtype), " activations"),
                "choose another scheme; --device cpu and ref run this one");
  }
  for (const CudaLinearKernel& kernel : kKernels) {
    if (kernel.small_batch || !runs_here(kernel, q) || !kernel.takes(request)) continue;
    return {.request = request,
            .kernel = &kernel.base,
            .bytes = WeightLayout(request).bytes,
            .data = nullptr};
  }
  check(false, "the last kernel takes everything");
  return {};
}

std::vector<KernelInfo> linear_kernels(const CudaQueue& queue) {
  std::vector<KernelInfo> rows;
  for (const CudaLinearKernel& kernel : kKernels) {
    rows.push_back({std::string(kernel.base.name), "linear", std::string(kernel.needs),
                    runs_here(kernel, queue) ? "runs"
                    : queue.portable_only    ? "not asked for (--isa portable)"
                                             : "needs a Hopper GPU"});
  }
  return rows;
}

namespace {

// The kernel's name; its tile's columns in `tile`.
std::string_view run_linear(View out, const Activation& x, const Weight& w, const Epilogue& e,
                            CudaQueue& q, int& tile) {
  const LinearCall call{.out = out,
                        .x = input_of(x, w),
                        .w = w,
                        .epilogue = e,
                        .rows = static_cast<int>(out.rows),
                        .stream = q.stream.get(),
                        .fast_accum = q.fast_accum,
                        .tile = &tile,
                        .queue = &q};
  for (const CudaLinearKernel& kernel : kKernels) {
    if (runs_here(kernel, q) && kernel.takes(w.request) && kernel.try_run(call))
      return kernel.base.name;
  }
  check(false, "the last kernel takes everything");
  return {};
}

}  // namespace

void linear(View out, const Activation& x, const Weight& w, const Epilogue& e, Queue* queue) {
  if (out.rows == 0 || out.cols == 0) return;
  int tile = 0;
  run_linear(out, x, w, e, cuda_queue(queue), tile);
}

std::string name_linear(View out, const Activation& x, const Weight& w, Queue* queue) {
  int tile = 0;
  const std::string_view name = run_linear(out, x, w, {}, cuda_queue(queue), tile);
  return tile == 0 ? std::string(name) : text(name, " 256x", tile);
}

}  // namespace mantissa::cuda
