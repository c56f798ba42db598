// Linear of 1..8 rows on the GPU: achieved share of the read bandwidth, weights rotated over more
// than twice the L2, launches in a graph. Of more rows: the GEMM that decodes its weights, TFLOP/s.
//   gemv_bench [--warps] -> JSON lines on standard output (--warps: for every block size)
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "graph_timer.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/gemv.h"

namespace mantissa::cuda {
namespace {

constexpr double kReadBandwidth = 4.45e12;  // of an H200, measured
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
};
struct Shape {
  int n, k;
};
constexpr Shape kShapes[] = {{28672, 4096}, {4096, 14336}, {6144, 4096}, {4096, 4096}};

// Random bits whose 16-bit values are finite and near 1 in magnitude.
__global__ void fill(uint32_t* out, int64_t words, bool values) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < words;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761u;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 13;
    out[i] = values ? (x & 0x807f807fu) | 0x3f003f00u : x;
  }
}

template <class T>
T* device_array(int64_t bytes, bool values) {
  void* p = nullptr;
  cuda_check(cudaMalloc(&p, static_cast<size_t>((bytes + 255) / 256 * 256)), "allocating");
  fill<<<1024, 256>>>(static_cast<uint32_t*>(p), (bytes + 3) / 4, values);
  return static_cast<T*>(p);
}

void time_one(const Kind& kind, Shape s, int m, int warps) {
  const int64_t row_bytes = int64_t{s.k} * kind.bits / 8;
  const int64_t scale_bytes = kind.group > 0 ? int64_t{s.n} * (s.k / kind.group) * 2 : s.n * 4;
  const int64_t bytes = row_bytes * s.n + (kind.bits == 16 ? 0 : scale_bytes);
  const int sets = static_cast<int>(std::clamp<int64_t>((int64_t{160} << 20) / bytes + 1, 2, 24));
  std::vector<unsigned char*> weights;
  for (int i = 0; i < sets; ++i)
    weights.push_back(device_array<unsigned char>(row_bytes * s.n, kind.bits == 16));
  auto* scales = device_array<unsigned char>(scale_bytes * 24, true);
  auto* x = device_array<unsigned char>(int64_t{m} * s.k * 2, true);
  auto* x_scale = device_array<float>(64, true);
  auto* out = device_array<unsigned char>(int64_t{m} * s.n * 2, true);
  GemvArgs args{.weight = kind.weight,
                .input = kind.input,
                .row_bytes = row_bytes,
                .w_scale = kind.bits == 16 ? nullptr : scales,
                .group_cols = kind.group,
                .x = x,
                .x_stride = s.k,
                .x_scale = kind.input == GemvInput::kRun ? nullptr : x_scale,
                .x_scale_stride = 1,
                .out = out,
                .out_stride = s.n,
                .m = m,
                .n = s.n,
                .k = s.k,
                .warps = warps};
  const bool streams = m <= kGemvRowsMax;
  const auto run = streams ? gemv__sm80 : gemm_mixed__sm80;
  const std::string why_not = streams ? gemv_sm80_why_not(args) : gemm_mixed_sm80_why_not(args);
  const int launches = streams ? kLaunches : 4;
  if (!why_not.empty()) {
    std::printf("{\"gemv\":\"%s\",\"m\":%d,\"n\":%d,\"k\":%d,\"not_run\":\"%s\"}\n", kind.name, m,
                s.n, s.k, why_not.c_str());
  } else {
    cudaStream_t stream;
    cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
    cuda_check(cudaDeviceSynchronize(), "filling");
    args.w = weights[0];
    run(args, stream);
    const LaunchTimes us = time_graph(stream, launches, 30, [&](int i) {
      args.w = weights[static_cast<size_t>(i % sets)];
      args.w_scale = kind.bits == 16 ? nullptr : scales + i * scale_bytes;
      run(args, stream);
    });
    std::printf(
        "{\"gemv\":\"%s\",\"m\":%d,\"n\":%d,\"k\":%d,\"warps\":%d,\"p10_us\":%.2f,\"p50_us\":%.2f,"
        "\"p90_us\":%.2f,\"gb_per_s\":%.0f,\"percent\":%.1f,\"tflops\":%.1f}\n",
        kind.name, m, s.n, s.k, warps, us.p10, us.p50, us.p90,
        static_cast<double>(bytes) / us.p50 * 1e-3,
        static_cast<double>(bytes) / (us.p50 * 1e-6) / kReadBandwidth * 100,
        2.0 * m * s.n * s.k / us.p50 * 1e-6);
    std::fflush(stdout);
    cudaStreamDestroy(stream);
  }
  for (unsigned char* p : weights) cudaFree(p);
  cudaFree(scales);
  cudaFree(x);
  cudaFree(x_scale);
  cudaFree(out);
}

}  // namespace
}  // namespace mantissa::cuda

int main(int argc, char** argv) {
  using namespace mantissa::cuda;
  const bool every_size = argc > 1 && std::strcmp(argv[1], "--warps") == 0;
  try {
    for (const Kind& kind : kKinds) {
      for (const Shape& s : kShapes) {
        for (const int m : {1, 2, 4, 8}) time_one(kind, s, m, 0);
        if (kind.weight != GemvWeight::kS8 || kind.input != GemvInput::kS8)
          for (const int m : {64, 1024}) time_one(kind, s, m, 0);
        if (!every_size) continue;
        for (const int warps : {2, 4, 6, 8, 10, 12}) time_one(kind, s, 1, warps);
      }
    }
    return 0;
  } catch (const mantissa::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
