// GEMM on the GPU: checked against float64 sums on the device, then timed with rotating buffers.
//   gemm_bench [--check | --tiles] [KIND]... -> JSON lines on standard output, microseconds
//   (medians) beside cuBLASLt's. KIND: of kKinds, default all. --tiles: with every width of tile.
#include <cuda_fp8.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "graph_timer.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/gemm_sm90.h"

namespace mantissa::cuda {
namespace {

struct Shape {
  int m, n, k;
};
constexpr Shape kLlama[] = {{1024, 6144, 4096},  {1024, 4096, 4096}, {1024, 28672, 4096},
                            {1024, 4096, 14336}, {4096, 4096, 4096}, {4096, 4096, 14336},
                            {8192, 6144, 4096},  {8192, 4096, 4096}, {8192, 28672, 4096},
                            {8192, 4096, 14336}, {8192, 8192, 8192}, {16384, 16384, 16384}};
constexpr Shape kOdd[] = {{1, 128, 128},   {17, 136, 96},     {300, 520, 144},
                          {257, 512, 256}, {129, 1000, 4096}, {1024, 6144, 4096}};

__device__ uint32_t mix(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}
__global__ void fill(unsigned char* out, int64_t count, GemmElem elem, uint32_t seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const float u = static_cast<float>(mix(static_cast<uint32_t>(i) ^ seed)) / 2147483648.0f - 1.0f;
    if (elem == GemmElem::kE4M3) out[i] = __nv_cvt_float_to_fp8(u, __NV_SATFINITE, __NV_E4M3);
    if (elem == GemmElem::kS8) out[i] = static_cast<unsigned char>(static_cast<int8_t>(u * 127));
    if (elem == GemmElem::kBf16) reinterpret_cast<__nv_bfloat16*>(out)[i] = __float2bfloat16(u);
  }
}
__global__ void fill_scales(float* out, int count, uint32_t seed) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
    out[i] = 0.5f + static_cast<float>(mix(i ^ seed) % 1024) / 1024.0f;
}
__device__ double value_of(const unsigned char* p, int64_t i, GemmElem elem) {
  if (elem == GemmElem::kE4M3) {
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(p[i], __NV_E4M3)));
  }
  if (elem == GemmElem::kS8) return static_cast<int8_t>(p[i]);
  return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(p)[i]);
}
__device__ double scale_of(const GemmArgs& g, int64_t m, int64_t n, int k) {
  if (g.block_scales)
    return double{g.a_scale[m * g.a_scale_stride + k / 128]} *
           g.b_scale[n / 128 * g.b_scale_stride + k / 128];
  return double{g.a_scale[m]} * g.b_scale[n];
}
// worst[0]: largest |out - exact| / (2^-8 |exact| + sum |a b| * unit) as float bits.
__global__ void compare(GemmArgs g, double unit, float* worst, double* squares) {
  const int64_t count = int64_t{g.m} * g.n;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    if (count > 1 << 20 && i % 7 != 0) continue;  // a sample
    const int64_t m = i / g.n, n = i % g.n;
    double sum = 0, magnitude = 0;
    for (int k = 0; k < g.k; ++k) {
      const double p =
          value_of(static_cast<const unsigned char*>(g.a), m * g.a_stride + k, g.elem) *
          value_of(static_cast<const unsigned char*>(g.b), n * g.k + k, g.elem);
      const double scale = scale_of(g, m, n, k);
      sum += p * scale;
      magnitude += fabs(p) * scale;
    }
    const double exact =
        sum + (g.bias != nullptr ? g.bias[n] : 0.0f) +
        (g.residual != nullptr ? __bfloat162float(g.residual[m * g.residual_stride + n]) : 0.0f);
    const double got =
        g.out_f32
            ? static_cast<const float*>(g.out)[m * g.out_stride + n]
            : __bfloat162float(static_cast<const __nv_bfloat16*>(g.out)[m * g.out_stride + n]);
    const double gap = fabs(got - exact);
    const double allowed = fabs(exact) / 256 + magnitude * unit + 1e-6;
    const float ratio = gap >= 0 ? static_cast<float>(gap / allowed) : 1e30f;
    atomicMax(reinterpret_cast<int*>(worst), __float_as_int(ratio));
    atomicAdd(squares, gap * gap);
    atomicAdd(squares + 1, exact * exact);
  }
}

template <class T>
T* device_array(int64_t count) {
  void* p = nullptr;
  cuda_check(cudaMalloc(&p, static_cast<size_t>(count) * sizeof(T)), "allocating");
  return static_cast<T*>(p);
}

struct Kind {
  const char* name;
  GemmElem elem;
  bool fast = false, blocks = false;
};
constexpr Kind kKinds[] = {{"e4m3 fast", GemmElem::kE4M3, true},
                           {"e4m3 two-level", GemmElem::kE4M3},
                           {"e4m3 blocks", GemmElem::kE4M3, false, true},
                           {"int8", GemmElem::kS8},
                           {"bf16", GemmElem::kBf16}};

struct Problem {
  GemmArgs args;
  std::vector<void*> owned;
  explicit Problem(const Kind& kind, Shape s, bool with_extras, uint32_t seed) {
    const GemmElem elem = kind.elem;
    const int64_t bytes = elem == GemmElem::kBf16 ? 2 : 1;
    auto* a = device_array<unsigned char>(int64_t{s.m} * s.k * bytes);
    auto* b = device_array<unsigned char>(int64_t{s.n} * s.k * bytes);
    auto* residual = device_array<__nv_bfloat16>(int64_t{s.m} * s.n);
    auto* out = device_array<__nv_bfloat16>(int64_t{s.m} * s.n);
    const int groups = kind.blocks ? (s.k + 127) / 128 : 1;
    auto* scales = device_array<float>((s.m + s.n) * int64_t{groups} + s.n);
    owned = {a, b, residual, out, scales};
    fill<<<1024, 256>>>(a, int64_t{s.m} * s.k, elem, seed);
    fill<<<1024, 256>>>(b, int64_t{s.n} * s.k, elem, seed + 77);
    fill<<<1024, 256>>>(reinterpret_cast<unsigned char*>(residual), int64_t{s.m} * s.n,
                        GemmElem::kBf16, seed + 5);
    float* b_scales = scales + int64_t{s.m} * groups;
    float* bias = b_scales + int64_t{s.n} * groups;
    fill_scales<<<1024, 256>>>(scales, s.m * groups, seed);
    fill_scales<<<1024, 256>>>(b_scales, s.n * groups, seed + 3);
    fill_scales<<<64, 256>>>(bias, s.n, seed + 9);
    cuda_check(cudaMemset(out, 0xff, static_cast<size_t>(s.m) * s.n * 2), "poisoning");
    args = {.elem = elem,
            .fast_accum = kind.fast,
            .block_scales = kind.blocks,
            .a = a,
            .b = b,
            .a_stride = s.k,
            .a_scale = scales,
            .b_scale = b_scales,
            .a_scale_stride = groups,
            .b_scale_stride = groups,
            .bias = with_extras ? bias : nullptr,
            .residual = with_extras ? residual : nullptr,
            .residual_stride = s.n,
            .out = out,
            .out_stride = s.n,
            .out_f32 = false,
            .m = s.m,
            .n = s.n,
            .k = s.k};
  }
  ~Problem() {
    for (void* p : owned) cudaFree(p);
  }
  Problem(const Problem&) = delete;
};

bool check_one(const Kind& kind, Shape s, bool f32, int tile) {
  Problem problem(kind, s, !f32, 11);
  GemmArgs args = problem.args;
  args.tile_columns = tile;
  float* wide = f32 ? device_array<float>(int64_t{s.m} * s.n) : nullptr;
  if (f32) {
    cuda_check(cudaMemset(wide, 0xff, static_cast<size_t>(s.m) * s.n * 4), "poisoning");
    args.out = wide;
    args.out_f32 = true;
  }
  gemm__sm90(args, nullptr);
  cuda_check(cudaDeviceSynchronize(), "running the GEMM");
  float* worst = device_array<float>(1);
  double* squares = device_array<double>(2);
  cudaMemset(worst, 0, 4);
  cudaMemset(squares, 0, 16);
  const double unit =
      kind.elem == GemmElem::kE4M3 ? (kind.fast ? 1.0 / 1024 : 1.0 / 8192) : 1.0 / (1 << 20);
  compare<<<2048, 128>>>(args, unit, worst, squares);
  float host_worst = 0;
  double host_squares[2];
  cuda_check(cudaMemcpy(&host_worst, worst, 4, cudaMemcpyDeviceToHost), "comparing");
  cudaMemcpy(host_squares, squares, 16, cudaMemcpyDeviceToHost);
  cudaFree(worst);
  cudaFree(squares);
  cudaFree(wide);
  const bool ok = host_worst <= 1;
  std::printf(
      "{\"check\":\"%s%s\",\"tile\":%d,\"m\":%d,\"n\":%d,\"k\":%d,\"worst_ratio\":%.3f,\"rms_rel\":"
      "%.3e,"
      "\"ok\":%s}\n",
      kind.name, f32 ? " f32" : "", gemm_sm90_columns(args), s.m, s.n, s.k, host_worst,
      std::sqrt(host_squares[0] / std::max(host_squares[1], 1e-30)), ok ? "true" : "false");
  return ok;
}

// Contenders are timed in turn, each after a pause: the card runs at its power limit, so whoever
// runs while it is still cool would win.
constexpr auto kPause = std::chrono::milliseconds(60);

struct Contender {
  std::string name;
  std::function<void(int set, cudaStream_t stream)> run;
};

void time_contenders(Shape s, const char* kind, const std::vector<Contender>& contenders,
                     int sets) {
  const double flop = 2.0 * s.m * s.n * s.k;
  // A graph of several launches, so that a launch costs what it costs in a model.
  const int launches = static_cast<int>(std::clamp(2e-3 / (flop / 1.2e15), 2.0, 24.0));
  cudaStream_t stream;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  std::vector<std::vector<double>> times(contenders.size());
  constexpr size_t kRounds = 5;
  for (size_t round = 0; round < kRounds; ++round) {
    for (size_t turn = 0; turn < contenders.size(); ++turn) {
      const size_t c = (round + turn) % contenders.size();
      contenders[c].run(0, stream);
      cuda_check(cudaStreamSynchronize(stream), "running a contender");
      std::this_thread::sleep_for(kPause);
      times[c].push_back(
          time_graph(stream, launches, 6, [&](int i) { contenders[c].run(i % sets, stream); }).p50);
    }
  }
  std::printf("{\"gemm\":\"%s\",\"m\":%d,\"n\":%d,\"k\":%d", kind, s.m, s.n, s.k);
  for (size_t c = 0; c < contenders.size(); ++c) {
    std::sort(times[c].begin(), times[c].end());
    std::printf(",\"%s\":%.1f", contenders[c].name.c_str(), times[c][kRounds / 2]);
    if (c == 0) std::printf(",\"tflops\":%.0f", flop / times[c][kRounds / 2] * 1e-6);
  }
  std::printf("}\n");
  std::fflush(stdout);
  cudaStreamDestroy(stream);
}

struct PeerRow {
  const char* name;
  PeerKind kind;
  bool fast;
};
std::vector<PeerRow> peers_of(const Kind& kind) {
  if (kind.elem == GemmElem::kBf16) return {{"lt_bf16", PeerKind::kBf16, false}};
  if (kind.elem == GemmElem::kS8) return {};
  if (kind.blocks) return {{"lt_block", PeerKind::kFp8Block, false}};
  if (kind.fast)
    return {{"lt_tensor_fast", PeerKind::kFp8Tensor, true},
            {"lt_row_fast", PeerKind::kFp8Row, true}};
  return {{"lt_row", PeerKind::kFp8Row, false}, {"lt_tensor", PeerKind::kFp8Tensor, false}};
}

void time_one(const Kind& kind, Shape s, CublasLt* lt, bool all_tiles) {
  const int64_t bytes =
      (int64_t{s.m} * s.k + int64_t{s.n} * s.k) * (kind.elem == GemmElem::kBf16 ? 2 : 1);
  const int sets = static_cast<int>(std::clamp<int64_t>((int64_t{160} << 20) / bytes, 1, 8));
  std::vector<std::unique_ptr<Problem>> problems;
  for (int i = 0; i < sets; ++i)
    problems.push_back(std::make_unique<Problem>(kind, s, false, 100 + i));
  const auto args_of = [&](int set) { return problems[static_cast<size_t>(set)]->args; };
  std::vector<Contender> contenders;
  const auto ours = [&](int tile) {
    const std::string name = tile == 0 ? "us" : "us_" + std::to_string(tile);
    contenders.push_back({name, [&, tile](int set, cudaStream_t stream) {
                            GemmArgs args = args_of(set);
                            args.tile_columns = tile;
                            gemm__sm90(args, stream);
                          }});
  };
  ours(0);
  if (all_tiles)
    for (const int tile : {256, 192, 128}) ours(tile);
  for (const PeerRow& peer : peers_of(kind)) {
    if (lt == nullptr) break;
    const auto peer_args = [&args_of, peer, s](int set) {
      const GemmArgs a = args_of(set);
      return PeerArgs{peer.kind, peer.fast, s.m, s.n, s.k, a.a, a.b, a.a_scale, a.b_scale, a.out};
    };
    if (const std::string why = lt->why_not(peer_args(0)); !why.empty()) {
      std::fprintf(stderr, "%s %d x %d x %d: %s\n", peer.name, s.m, s.n, s.k, why.c_str());
      continue;
    }
    contenders.push_back(
        {peer.name, [=](int set, cudaStream_t stream) { lt->run(peer_args(set), stream); }});
  }
  const int tile = gemm_sm90_columns(args_of(0));
  time_contenders(s, (std::string(kind.name) + " 256x" + std::to_string(tile)).c_str(), contenders,
                  sets);
}

bool check_all(const std::vector<Kind>& kinds) {
  bool ok = true;
  for (const Kind& kind : kinds) {
    for (const Shape& s : kOdd) ok = check_one(kind, s, false, 0) && ok;
    for (const int tile : {256, 192, 128}) {  // of one to five stages of K
      for (const int k : {96, 256, 384, 640})
        ok = check_one(kind, {300, 520, k}, false, tile) && ok;
      ok = check_one(kind, {257, 520, 400}, true, tile) && ok;
    }
    std::fflush(stdout);
  }
  return ok;
}

}  // namespace
}  // namespace mantissa::cuda

int main(int argc, char** argv) {
  using namespace mantissa::cuda;
  std::vector<std::string> asked(argv + 1, argv + argc);
  const auto option = [&](const char* name) { return std::erase(asked, name) > 0; };
  const bool only_check = option("--check"), all_tiles = option("--tiles");
  std::vector<Kind> kinds;
  for (const Kind& kind : kKinds) {
    if (asked.empty() || std::find(asked.begin(), asked.end(), kind.name) != asked.end())
      kinds.push_back(kind);
  }
  if (!asked.empty() && kinds.size() != asked.size()) {
    std::fprintf(stderr, "a KIND is one of:");
    for (const Kind& kind : kKinds) std::fprintf(stderr, " \"%s\"", kind.name);
    std::fprintf(stderr, "\n");
    return 2;
  }
  try {
    const bool ok = check_all(kinds);
    if (only_check) return ok ? 0 : 1;
    std::unique_ptr<CublasLt> lt;
    try {
      lt = std::make_unique<CublasLt>();
    } catch (const mantissa::Error& e) {
      std::fprintf(stderr, "no peers: %s\n", e.what());
    }
    for (const Kind& kind : kinds)
      for (const Shape& s : kLlama) time_one(kind, s, lt.get(), all_tiles);
    return ok ? 0 : 1;
  } catch (const mantissa::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
