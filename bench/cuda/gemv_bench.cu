// Linear of few rows on the GPU: share of the read bandwidth that was probed in the same run,
// weights rotated over more than twice the L2, launches in a graph. Then one layer's decode chain
// without attention (norm, qkv, quantize, out, norm, gate_up, gate, down) 32 times in a graph, and
// the operations on rows alone.
//   gemv_bench [linear|chain|layers|rows|few|batch|mixed|fp4|sweep]... -> JSON lines on standard
//   output
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "graph_timer.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/gemm_sm90.h"
#include "kernels/cuda/gemv.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/queue.h"
#include "kernels/cuda/weight.h"

namespace mantissa::cuda {
namespace {

constexpr int kLaunches = 24;

struct Kind {
  const char* name;
  GemvWeight weight;
  GemvInput input;
  int bits, group;
};
constexpr Kind kKinds[] = {
    {"bf16", GemvWeight::kRun, GemvInput::kRun, 16, 0},
    {"ptpc_fp8", GemvWeight::kE4M3, GemvInput::kE4M3, 8, 0},
    {"fp8_weight_only", GemvWeight::kE4M3, GemvInput::kRun, 8, 0},
    {"int8", GemvWeight::kS8, GemvInput::kS8, 8, 0},
    {"int8_weight_only", GemvWeight::kS8, GemvInput::kRun, 8, 0},
    {"int4_weight_only", GemvWeight::kS4, GemvInput::kRun, 4, 128},
    {"int4_weight_only:g32", GemvWeight::kS4, GemvInput::kRun, 4, 32},
    {"int4_fp8", GemvWeight::kS4, GemvInput::kE4M3, 4, 128},
    {"fp8_block", GemvWeight::kE4M3Tiles, GemvInput::kE4M3, 8, 128},
    {"mxfp4_weight_only", GemvWeight::kMini4, GemvInput::kRun, 4, 32},
    {"nvfp4_weight_only", GemvWeight::kMini4, GemvInput::kRun, 4, 16},
};
struct Shape {
  int n, k;
};
constexpr Shape kShapes[] = {{28672, 4096}, {4096, 14336}, {6144, 4096}, {4096, 4096}};

struct Kernel {
  const char* name;
  std::string (*why_not)(const GemvArgs&);
  void (*run)(const GemvArgs&, cudaStream_t);
};
constexpr Kernel kSm90{"gemv__sm90", gemv_sm90_why_not, gemv__sm90};
constexpr Kernel kFp4{"gemv_fp4__sm90", gemv_fp4_sm90_why_not, gemv_fp4__sm90};
constexpr Kernel kSm80{"gemv__sm80", gemv_sm80_why_not, gemv__sm80};
constexpr Kernel kRows{"gemm_rows__sm90", gemm_rows_sm90_why_not, gemm_rows__sm90};
constexpr Kernel kMixed{"gemm_mixed__sm80", gemm_mixed_sm80_why_not, gemm_mixed__sm80};

// The GEMM of large M on the same operands, where both sides are of one kind.
GemmArgs gemm_args(const GemvArgs& a) {
  return {.elem = a.weight == GemvWeight::kRun    ? GemmElem::kBf16
                  : a.weight == GemvWeight::kE4M3 ? GemmElem::kE4M3
                                                  : GemmElem::kS8,
          .fast_accum = false,
          .a = a.x,
          .b = a.w,
          .a_stride = a.x_stride,
          .a_scale = a.x_scale,
          .b_scale = static_cast<const float*>(a.w_scale),
          .a_scale_stride = a.x_scale_stride,
          .b_scale_stride = 1,
          .bias = nullptr,
          .residual = nullptr,
          .residual_stride = 0,
          .out = a.out,
          .out_stride = a.out_stride,
          .out_f32 = false,
          .m = a.m,
          .n = a.n,
          .k = a.k};
}
std::string gemm_why_not(const GemvArgs& a) {
  if (a.weight == GemvWeight::kE4M3Tiles) return "scales of groups";
  const bool same =
      a.weight == GemvWeight::kRun || (a.weight == GemvWeight::kS8) == (a.input == GemvInput::kS8);
  if (a.weight == GemvWeight::kS4 || !same ||
      (a.weight != GemvWeight::kRun) != (a.input != GemvInput::kRun))
    return "weights and activations of two kinds";
  return gemm_sm90_why_not(gemm_args(a));
}
void run_gemm(const GemvArgs& a, cudaStream_t stream) {
  gemm__sm90(gemm_args(a), stream);
}
constexpr Kernel kGemm{"gemm__sm90", gemm_why_not, run_gemm};

double g_read_gb_s = 0;  // of this device, in this run

// Random bits, of which some are given.
struct Bits {
  uint32_t random, given;
};
constexpr Bits kAny{0xffffffffu, 0};
constexpr Bits kValues{0x807f807fu, 0x3f003f00u};  // 16-bit halves, finite and near 1 in magnitude
constexpr Bits kE4M3Codes{0xbfbfbfbfu, 0};  // no NaN: rows that hold it take a slow way to codes
constexpr Bits kE8M0Bytes{0x07070707u, 0x78787878u}, kE4M3Bytes{0x07070707u, 0x30303030u};
__global__ void fill(uint32_t* out, int64_t words, Bits bits) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < words;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 13;
    out[i] = (x & bits.random) | bits.given;
  }
}

struct Free {
  void operator()(void* p) const { cudaFree(p); }
};
using Array = std::unique_ptr<unsigned char, Free>;
Array device_array(int64_t bytes, Bits bits) {
  void* p = nullptr;
  const int64_t padded = (bytes + 255) / 256 * 256;
  cuda_check(cudaMalloc(&p, static_cast<size_t>(padded)), "allocating");
  fill<<<1024, 256>>>(static_cast<uint32_t*>(p), padded / 4, bits);
  return Array(static_cast<unsigned char*>(p));
}

Bits scale_bits(ScaleForm form) {
  return form == ScaleForm::kE8M0 ? kE8M0Bytes : form == ScaleForm::kE4M3 ? kE4M3Bytes : kValues;
}

Bits code_bits(const Spec& spec) {
  return spec.quantized() && *spec.elem == kE4M3 ? kE4M3Codes : kAny;
}

// ---- one linear

struct Tuning {
  int stages = 0, piece = 0, shared_kib = 0, in_flight = 0;
};

void time_one(const Kernel& kernel, const Kind& kind, Shape s, int m, const Tuning& tuning) {
  const int64_t row_bytes = int64_t{s.k} * kind.bits / 8;
  const bool tiles = kind.weight == GemvWeight::kE4M3Tiles;
  const bool fp4 = kind.weight == GemvWeight::kMini4;
  const int64_t groups = kind.group > 0 ? s.k / kind.group : 1;
  const int64_t scale_bytes = tiles            ? s.n / 128 * groups * 4
                              : fp4            ? s.n * groups
                              : kind.group > 0 ? s.n * groups * 2
                                               : s.n * 4;
  const int64_t bytes = row_bytes * s.n + (kind.bits == 16 ? 0 : scale_bytes);
  const int sets = static_cast<int>(std::clamp<int64_t>((int64_t{160} << 20) / bytes + 1, 2, 24));
  std::vector<Array> weights;
  for (int i = 0; i < sets; ++i)
    weights.push_back(device_array(row_bytes * s.n, kind.bits == 16 ? kValues : kAny));
  const ScaleForm form = !fp4               ? ScaleForm::kF32
                         : kind.group == 32 ? ScaleForm::kE8M0
                                            : ScaleForm::kE4M3;
  const Array scales = device_array(scale_bytes * kLaunches, scale_bits(form));
  const Array x = device_array(int64_t{m} * s.k * 2, kValues),
              x_scale = device_array(4096 * 4, kValues);
  const Array out = device_array(int64_t{m} * s.n * 2, kValues);
  GemvArgs args{.weight = kind.weight,
                .input = kind.input,
                .w = weights[0].get(),
                .row_bytes = row_bytes,
                .w_scale = kind.bits == 16 ? nullptr : scales.get(),
                .group_cols = kind.group,
                .man_bits = 1,
                .exp_bias = 1,
                .x = x.get(),
                .x_stride = s.k,
                .x_scale = kind.input == GemvInput::kRun
                               ? nullptr
                               : reinterpret_cast<const float*>(x_scale.get()),
                .x_scale_stride = tiles       ? s.k / kind.group
                                  : m <= 1024 ? 1
                                              : 0,
                .out = out.get(),
                .out_stride = s.n,
                .m = m,
                .n = s.n,
                .k = s.k,
                .stages = tuning.stages,
                .piece = tuning.piece,
                .shared_kib = tuning.shared_kib,
                .in_flight = tuning.in_flight};
  const std::string why_not = kernel.why_not(args);
  if (!why_not.empty()) return;  // not a kernel for these
  cudaStream_t stream;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  cuda_check(cudaDeviceSynchronize(), "filling");
  kernel.run(args, stream);
  const LaunchTimes us = time_graph(stream, m > 256 ? 4 : kLaunches, 30, [&](int i) {
    args.w = weights[static_cast<size_t>(i % sets)].get();
    args.w_scale = kind.bits == 16 ? nullptr : scales.get() + i * scale_bytes;
    kernel.run(args, stream);
  });
  std::printf(
      "{\"kernel\":\"%s\",\"scheme\":\"%s\",\"m\":%d,\"n\":%d,\"k\":%d,\"stages\":%d,\"piece\":%d,"
      "\"shared_kib\":%d,\"in_flight\":%d,\"p10_us\":%.2f,\"p50_us\":%.2f,"
      "\"p90_us\":%.2f,\"gb_per_s\":%.0f,"
      "\"percent\":"
      "%.1f,\"tflops\":%.1f}\n",
      kernel.name, kind.name, m, s.n, s.k, tuning.stages, tuning.piece, tuning.shared_kib,
      tuning.in_flight, us.p10, us.p50, us.p90, static_cast<double>(bytes) / us.p50 * 1e-3,
      static_cast<double>(bytes) / us.p50 * 1e-3 / g_read_gb_s * 100,
      2.0 * m * s.n * s.k / us.p50 * 1e-6);
  std::fflush(stdout);
  cudaStreamDestroy(stream);
}

// Each kernel leaves out the kinds that are not for it.
void time_kinds(const Kernel& kernel, std::initializer_list<int> rows) {
  for (const Kind& kind : kKinds)
    for (const Shape& s : kShapes)
      for (const int m : rows) time_one(kernel, kind, s, m, {});
}
void run_single() {
  time_kinds(kSm90, {1});
  time_kinds(kFp4, {1});
}
void run_linear() {
  time_kinds(kSm90, {1, 2, 4, 8});
  time_kinds(kSm80, {1});
}
// Which kernel for how many rows: what linear.cc's limits come from.
void run_few() {
  for (const Kind& kind : kKinds) {
    for (const Shape& s : kShapes) {
      for (const int m : {4, 8, 16, 24, 32, 48, 64, 96, 128, 256}) {
        if (m <= kGemvRowsMax) time_one(kSm90, kind, s, m, {});
        time_one(kRows, kind, s, m, {});
        if (m >= 16) time_one(kGemm, kind, s, m, {});
      }
    }
  }
}
// Decode of a full batch: what one step of many sequences is made of.
void run_batch() {
  for (const Kind& kind : {kKinds[0], kKinds[1], kKinds[3]}) {
    for (const Shape& s : kShapes) {
      for (const int m : {64, 128, 256}) {
        time_one(kRows, kind, s, m, {});
        time_one(kGemm, kind, s, m, {});
      }
    }
  }
}
void run_mixed() {
  for (const Kind& kind : kKinds) {
    for (const Shape& s : {kShapes[0], kShapes[1]}) {
      for (const int m : {1024, 8192}) time_one(kRows, kind, s, m, {});
      time_one(kMixed, kind, s, 1024, {});
    }
  }
}
void run_sweep() {
  for (const Kind& kind : kKinds) {
    for (const Shape& s : kShapes) {
      for (const int m : {1, 8})
        for (const int in_flight : {1, 2, 3, 4, 6})
          time_one(kSm90, kind, s, m, {.in_flight = in_flight});
    }
  }
}

// ---- through Ops: the queue, weights, activations

struct Gpu {
  Queue* queue = kCudaOps.open({});
  ~Gpu() { kCudaOps.close(queue); }
  cudaStream_t stream() const { return cuda_queue(queue).stream.get(); }
};

struct RandomWeight {
  RandomWeight(const Gpu& gpu, const Scheme& scheme, Shape s)
      : weight(kCudaOps.plan_weight(
            {.name = "bench", .scheme = scheme, .run_dtype = &kBF16, .rows = s.n, .cols = s.k},
            gpu.queue)),
        memory(device_array(weight.bytes, code_bits(scheme.weight))) {
    const WeightLayout l(weight.request);
    weight.data = reinterpret_cast<std::byte*>(memory.get());
    if (l.groups == 0)
      fill<<<1024, 256>>>(reinterpret_cast<uint32_t*>(memory.get()), l.rows * l.row_bytes / 4,
                          kValues);
    if (l.groups > 0) {
      fill<<<64, 256>>>(reinterpret_cast<uint32_t*>(memory.get() + l.scales), l.scale_bytes / 4,
                        scale_bits(l.scale_form));
      fill<<<64, 256>>>(reinterpret_cast<uint32_t*>(memory.get() + l.globals), l.rows, kValues);
    }
    bytes = l.rows * l.row_bytes + l.scale_bytes;
  }
  Weight weight;
  Array memory;
  int64_t bytes;
};

// An activation in the form that the scheme reads.
struct Buffer {
  Buffer(const Spec& spec, int m, int k)
      : high(device_array(int64_t{m} * k * 2, kValues)),
        codes(device_array(int64_t{m} * k, kValues)),
        scales(device_array(int64_t{m} * 4 * ((k + 127) / 128), kValues)),
        m(m),
        k(k),
        spec(spec) {}
  View view() const { return {reinterpret_cast<std::byte*>(high.get()), kBF16, m, k}; }
  // with_high: also (or, where the scheme reads the run dtype, only) the run dtype.
  Activation activation(bool with_high) const {
    Activation a;
    if (with_high || !spec.quantized()) a.high = view();
    if (!spec.quantized()) return a;
    QuantizedActivation& q = a.quantized[a.quantized_count++];
    const bool tensor = spec.block.rows == kAll;
    q.spec = spec;
    q.codes = {codes.get(), m, k};
    q.scales = {reinterpret_cast<float*>(scales.get()), tensor ? 1 : m,
                spec.block.cols == kAll ? 1 : (k + spec.block.cols - 1) / spec.block.cols};
    return a;
  }
  Array high, codes, scales;
  int m, k;
  Spec spec;
};

// ---- the chain

constexpr int kLayers = 32, kSets = 3;  // sets of weights: beyond twice the L2 for every scheme
constexpr int kHidden = 4096, kInner = 14336, kQkvCols = 6144;

// kSets layers: qkv, out, gate_up, down of each.
std::vector<RandomWeight> layer_weights(const Gpu& gpu, const Scheme& scheme) {
  std::vector<RandomWeight> weights;
  for (int i = 0; i < kSets; ++i) {
    for (const Shape s : {Shape{kQkvCols, kHidden}, Shape{kHidden, kHidden},
                          Shape{2 * kInner, kHidden}, Shape{kHidden, kInner}})
      weights.emplace_back(gpu, scheme, s);
  }
  return weights;
}

void time_chain(const char* name, int m) {
  const Gpu gpu;
  const Scheme scheme = parse_scheme(name);
  const std::vector<RandomWeight> weights = layer_weights(gpu, scheme);
  const Buffer hidden(scheme.activation, m, kHidden), attended(scheme.activation, m, kHidden);
  const Buffer gated(scheme.activation, m, kInner);
  const Buffer x(Spec{}, m, kHidden), qkv(Spec{}, m, kQkvCols), gate_up(Spec{}, m, 2 * kInner);
  const Array gain = device_array(kHidden * 4, kValues);
  const auto* gains = reinterpret_cast<const float*>(gain.get());
  const auto layer = [&](int i) {
    const RandomWeight* w = &weights[static_cast<size_t>(i % kSets * 4)];
    const Ops& ops = kCudaOps;
    ops.rms_norm(hidden.activation(false), x.view(), gains, 1e-5f, gpu.queue);
    ops.linear(qkv.view(), hidden.activation(false), w[0].weight, {}, gpu.queue);
    if (scheme.activation.quantized()) ops.quantize_rows(attended.activation(true), gpu.queue);
    ops.linear(x.view(), attended.activation(false), w[1].weight, {.residual = x.view()},
               gpu.queue);
    ops.rms_norm(hidden.activation(false), x.view(), gains, 1e-5f, gpu.queue);
    ops.linear(gate_up.view(), hidden.activation(false), w[2].weight, {}, gpu.queue);
    ops.gate(gated.activation(false), gate_up.view(), GateFn::kSilu, gpu.queue);
    ops.linear(x.view(), gated.activation(false), w[3].weight, {.residual = x.view()}, gpu.queue);
  };
  layer(0);  // scratch memory grows outside of the graph
  cuda_check(cudaDeviceSynchronize(), "a first layer");
  int64_t bytes = 0;
  for (int i = 0; i < 4; ++i) bytes += weights[static_cast<size_t>(i)].bytes;
  const LaunchTimes us = time_graph(gpu.stream(), kLayers, 20, layer);
  const double ideal = static_cast<double>(bytes) / g_read_gb_s * 1e-3;
  std::printf(
      "{\"chain\":\"%s\",\"m\":%d,\"layer_p10_us\":%.2f,\"layer_p50_us\":%.2f,\"layer_p90_us\":%."
      "2f,"
      "\"weight_bytes\":%lld,\"bandwidth_us\":%.2f,\"percent\":%.1f}\n",
      name, m, us.p10, us.p50, us.p90, static_cast<long long>(bytes), ideal, ideal / us.p50 * 100);
  std::fflush(stdout);
}

void run_chain() {
  for (const char* name : {"bf16", "ptpc_fp8", "fp8", "fp8_weight_only", "int8", "int8_weight_only",
                           "int4_weight_only", "int4_weight_only:g32", "fp8_block",
                           "mxfp4_weight_only", "nvfp4_weight_only"})
    time_chain(name, 1);
  for (const int m : {2, 4, 8, 16, 32, 64, 128, 256})
    for (const char* name : {"bf16", "ptpc_fp8", "int8", "int8_weight_only", "int4_weight_only"})
      time_chain(name, m);
}

// FP4: its kernel of few tokens beside the one of any number.
void run_fp4() {
  for (const Kind& kind : kKinds) {
    if (kind.weight != GemvWeight::kMini4) continue;
    for (const Shape& s : kShapes) {
      for (const int m : {1, 2, 3, 4, 8}) {
        time_one(kFp4, kind, s, m, {});
        time_one(kRows, kind, s, m, {});
      }
    }
  }
  for (const int m : {1, 2, 4, 8})
    for (const char* name :
         {"int3_weight_only", "int4_weight_only", "mxfp4_weight_only", "nvfp4_weight_only"})
      time_chain(name, m);
}

// ---- all layers in one kernel, with attention over `context` tokens

void time_layers(const char* name, int context) {
  constexpr int kHeads = 32, kKvHeads = 8, kDim = 128, kPageTokens = 16;
  const Gpu gpu;
  const Scheme scheme = parse_scheme(name);
  const std::vector<RandomWeight> weights = layer_weights(gpu, scheme);
  const Buffer x(Spec{}, 1, kHidden);
  const Array gain = device_array(kHidden * 4, kValues), inv_freq = device_array(kDim * 2, kValues);
  const auto* gains = reinterpret_cast<const float*>(gain.get());
  const int pages = (context + kPageTokens - 1) / kPageTokens;
  std::vector<int32_t> ints = {context - 1, context - 1, 0, 1,
                               context};  // position, slot, query_start
  for (int i = 0; i < pages; ++i) ints.push_back(i);
  const Array batch_ints = device_array(std::ssize(ints) * 4, kAny);
  cuda_check(cudaMemcpy(batch_ints.get(), ints.data(), ints.size() * 4, cudaMemcpyHostToDevice),
             "copying the batch");
  const auto* at = reinterpret_cast<const int32_t*>(batch_ints.get());
  const Batch batch{.tokens = 1,
                    .sequences = 1,
                    .query_max = 1,
                    .token_ids = nullptr,
                    .positions = at,
                    .slots = at + 1,
                    .query_start = at + 2,
                    .context_len = at + 4,
                    .block_table = at + 5,
                    .block_table_stride = pages};
  const KvShape shape{.layers = kLayers,
                      .kv_heads = kKvHeads,
                      .head_dim = kDim,
                      .page_tokens = kPageTokens,
                      .elem = &kBF16};
  const int64_t page_bytes = kCudaOps.kv_page_bytes(shape);
  const Array cache = device_array(kLayers * pages * page_bytes, kValues);
  std::vector<DecodeLayer> layers(kLayers);
  std::vector<KvLayer> kv;
  for (int i = 0; i < kLayers; ++i) {
    DecodeLayer& layer = layers[static_cast<size_t>(i)];
    for (int r = 0; r < kDecodeLinears; ++r)
      layer.linears[r].weight = &weights[static_cast<size_t>(i % kSets * 4 + r)].weight;
    layer.attention_gain = layer.mlp_gain = gains;
    layer.attention = {.heads = kHeads, .scale = 0.088f};
    layer.rope = {.inv_freq = reinterpret_cast<const float*>(inv_freq.get()), .rotary_dim = kDim};
    kv.push_back({.shape = shape,
                  .pages = reinterpret_cast<std::byte*>(cache.get()) + i * pages * page_bytes,
                  .page_bytes = page_bytes});
  }
  const DecodePass pass{
      .layers = layers, .kv = kv, .gate = GateFn::kSilu, .eps = 1e-5f, .x = x.view()};
  if (const std::string why = kCudaOps.decode_why_not(pass, gpu.queue); !why.empty()) {
    std::printf("{\"layers\":\"%s\",\"why_not\":\"%s\"}\n", name, why.c_str());
    return;
  }
  int64_t bytes = 0;
  for (int i = 0; i < 4; ++i) bytes += weights[static_cast<size_t>(i)].bytes;
  const LaunchTimes us =
      time_graph(gpu.stream(), 1, 20, [&](int) { kCudaOps.decode_layers(pass, batch, gpu.queue); });
  const double ideal = static_cast<double>(bytes) / g_read_gb_s * 1e-3;
  std::printf(
      "{\"layers\":\"%s\",\"context\":%d,\"layer_p10_us\":%.2f,\"layer_p50_us\":%.2f,"
      "\"layer_p90_us\":%.2f,\"weight_bytes\":%lld,\"bandwidth_us\":%.2f,\"percent\":%.1f}\n",
      name, context, us.p10 / kLayers, us.p50 / kLayers, us.p90 / kLayers,
      static_cast<long long>(bytes), ideal, ideal / us.p50 * kLayers * 100);
  std::fflush(stdout);
}

void run_layers() {
  for (const char* name :
       {"mxfp4_weight_only", "nvfp4_weight_only", "int4_weight_only", "bf16", "ptpc_fp8", "fp8",
        "fp8_block", "fp8_weight_only", "int8", "int8_weight_only", "int4_fp8"})
    time_layers(name, 128);
  for (const int context : {16, 256, 512, 1024, 4096, 16384}) time_layers("ptpc_fp8", context);
}

// ---- operations on rows

void time_rows(const char* op, const char* scheme, int m) {
  const Gpu gpu;
  const Spec spec = parse_scheme(scheme).activation;
  const bool is_gate = std::strcmp(op, "gate") == 0, is_norm = std::strcmp(op, "rms_norm") == 0;
  const int cols = is_gate ? kInner : kHidden;
  const int sets = m == 1 ? 1 : 4;  // of a large M: beyond the L2
  std::vector<Buffer> in, out;
  for (int i = 0; i < sets; ++i) {
    in.emplace_back(Spec{}, m, is_gate ? 2 * cols : cols);
    out.emplace_back(spec, m, cols);
  }
  const Array gain = device_array(cols * 4, kValues);
  const bool quantizes = spec.quantized();
  const auto run = [&](int i) {
    const Buffer &from = in[static_cast<size_t>(i % sets)],
                 &to = out[static_cast<size_t>(i % sets)];
    if (is_gate) {
      kCudaOps.gate(to.activation(false), from.view(), GateFn::kSilu, gpu.queue);
    } else if (is_norm) {
      kCudaOps.rms_norm(to.activation(false), from.view(),
                        reinterpret_cast<const float*>(gain.get()), 1e-5f, gpu.queue);
    } else {
      kCudaOps.quantize_rows(to.activation(true), gpu.queue);
    }
  };
  run(0);
  cuda_check(cudaDeviceSynchronize(), "a first launch");
  const LaunchTimes us = time_graph(gpu.stream(), kLaunches, 30, run);
  const double bytes =
      1.0 * m * cols * ((is_gate ? 4.0 : 2.0) + (quantizes ? 1.0 : 2.0)) + (is_norm ? cols * 4 : 0);
  std::printf(
      "{\"rows\":\"%s\",\"scheme\":\"%s\",\"m\":%d,\"cols\":%d,\"p10_us\":%.2f,\"p50_us\":%.2f,"
      "\"p90_us\":%.2f,\"gb_per_s\":%.0f,\"percent_of_read\":%.1f}\n",
      op, scheme, m, cols, us.p10, us.p50, us.p90, bytes / us.p50 * 1e-3,
      bytes / us.p50 * 1e-3 / g_read_gb_s * 100);
  std::fflush(stdout);
}
void run_rows() {
  for (const int m : {1, 128, 8192}) {
    for (const char* scheme : {"bf16", "ptpc_fp8", "fp8", "fp8_block", "int8"}) {
      for (const char* op : {"rms_norm", "gate", "quantize_rows"}) {
        if (std::strcmp(scheme, "bf16") != 0 || op[0] != 'q') time_rows(op, scheme, m);
      }
    }
  }
}

struct Part {
  const char* name;
  void (*run)();
};
constexpr Part kParts[] = {{"linear", run_linear}, {"single", run_single}, {"chain", run_chain},
                           {"layers", run_layers}, {"rows", run_rows},     {"few", run_few},
                           {"batch", run_batch},   {"mixed", run_mixed},   {"sweep", run_sweep},
                           {"fp4", run_fp4}};

void probe() {
  const Gpu gpu;
  g_read_gb_s = kCudaOps.read_gb_s(gpu.queue);
  std::printf("{\"read_gb_s\":%.0f}\n", g_read_gb_s);
}

}  // namespace
}  // namespace mantissa::cuda

int main(int argc, char** argv) {
  using namespace mantissa::cuda;
  try {
    probe();
    for (const Part& part : kParts) {
      bool asked = argc < 2 && std::strcmp(part.name, "sweep") != 0 &&
                   std::strcmp(part.name, "single") != 0;  // of linear
      for (int i = 1; i < argc; ++i) asked = asked || std::strcmp(argv[i], part.name) == 0;
      if (asked) part.run();
    }
    return 0;
  } catch (const mantissa::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
