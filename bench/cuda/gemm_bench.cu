// GEMM on the GPU: checked against float64 sums on the device, then timed with rotating buffers.
//   gemm_bench [--check] [--shapes llama|squares|all] -> JSON lines on standard output
#include <cuda_fp8.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
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
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) out[i] = 0.5f + static_cast<float>(mix(i ^ seed) % 1024) / 1024.0f;
}
__device__ double value_of(const unsigned char* p, int64_t i, GemmElem elem) {
  if (elem == GemmElem::kE4M3) {
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(p[i], __NV_E4M3)));
  }
  if (elem == GemmElem::kS8) return static_cast<int8_t>(p[i]);
  return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(p)[i]);
}
// worst[0]: largest |out - exact| / (2^-8 |exact| + sum |a b| * unit) as float bits.
__global__ void compare(GemmArgs g, double unit, float* worst, double* squares) {
  const int64_t count = int64_t{g.m} * g.n;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t m = i / g.n, n = i % g.n;
    double sum = 0, magnitude = 0;
    for (int k = 0; k < g.k; ++k) {
      const double p =
          value_of(static_cast<const unsigned char*>(g.a), m * g.a_stride + k, g.elem) *
          value_of(static_cast<const unsigned char*>(g.b), n * g.k + k, g.elem);
      sum += p;
      magnitude += fabs(p);
    }
    const double scale = double{g.a_scale[m]} * g.b_scale[n];
    const double exact =
        sum * scale + g.bias[n] + __bfloat162float(g.residual[m * g.residual_stride + n]);
    const double got =
        __bfloat162float(static_cast<const __nv_bfloat16*>(g.out)[m * g.out_stride + n]);
    const double gap = fabs(got - exact);
    const double allowed = fabs(exact) / 256 + magnitude * scale * unit + 1e-6;
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

struct Problem {
  GemmArgs args;
  std::vector<void*> owned;
  explicit Problem(GemmElem elem, Shape s, bool with_extras, uint32_t seed) {
    const int64_t bytes = elem == GemmElem::kBf16 ? 2 : 1;
    auto* a = device_array<unsigned char>(int64_t{s.m} * s.k * bytes);
    auto* b = device_array<unsigned char>(int64_t{s.n} * s.k * bytes);
    auto* residual = device_array<__nv_bfloat16>(int64_t{s.m} * s.n);
    auto* out = device_array<__nv_bfloat16>(int64_t{s.m} * s.n);
    auto* scales = device_array<float>(s.m + 2 * s.n);
    owned = {a, b, residual, out, scales};
    fill<<<1024, 256>>>(a, int64_t{s.m} * s.k, elem, seed);
    fill<<<1024, 256>>>(b, int64_t{s.n} * s.k, elem, seed + 77);
    fill<<<1024, 256>>>(reinterpret_cast<unsigned char*>(residual), int64_t{s.m} * s.n,
                        GemmElem::kBf16, seed + 5);
    fill_scales<<<(s.m + 2 * s.n + 255) / 256, 256>>>(scales, s.m + 2 * s.n, seed);
    cuda_check(cudaMemset(out, 0xff, static_cast<size_t>(s.m) * s.n * 2), "poisoning");
    args = {.elem = elem,
            .fast_accum = false,
            .a = a,
            .b = b,
            .a_stride = s.k,
            .a_scale = scales,
            .b_scale = scales + s.m,
            .bias = with_extras ? scales + s.m + s.n : nullptr,
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

const char* name_of(GemmElem elem, bool fast) {
  if (elem == GemmElem::kS8) return "int8";
  if (elem == GemmElem::kBf16) return "bf16";
  return fast ? "e4m3 fast" : "e4m3 two-level";
}

bool check_one(GemmElem elem, bool fast, Shape s) {
  Problem problem(elem, s, true, 11);
  problem.args.fast_accum = fast;
  gemm__sm90(problem.args, nullptr);
  cuda_check(cudaDeviceSynchronize(), "running the GEMM");
  float* worst = device_array<float>(1);
  double* squares = device_array<double>(2);
  cudaMemset(worst, 0, 4);
  cudaMemset(squares, 0, 16);
  const double unit = elem == GemmElem::kE4M3 ? (fast ? 1.0 / 1024 : 1.0 / 16384) : 1.0 / (1 << 20);
  compare<<<2048, 128>>>(problem.args, unit, worst, squares);
  float host_worst = 0;
  double host_squares[2];
  cuda_check(cudaMemcpy(&host_worst, worst, 4, cudaMemcpyDeviceToHost), "comparing");
  cudaMemcpy(host_squares, squares, 16, cudaMemcpyDeviceToHost);
  cudaFree(worst);
  cudaFree(squares);
  const bool ok = host_worst <= 1;
  std::printf(
      "{\"check\":\"%s\",\"m\":%d,\"n\":%d,\"k\":%d,\"worst_ratio\":%.3f,\"rms_rel\":%.3e,\"ok\":%"
      "s}\n",
      name_of(elem, fast), s.m, s.n, s.k, host_worst,
      std::sqrt(host_squares[0] / std::max(host_squares[1], 1e-30)), ok ? "true" : "false");
  return ok;
}

void time_one(GemmElem elem, bool fast, Shape s) {
  const int64_t bytes =
      (int64_t{s.m} * s.k + int64_t{s.n} * s.k) * (elem == GemmElem::kBf16 ? 2 : 1);
  const int sets = static_cast<int>(std::clamp<int64_t>((int64_t{160} << 20) / bytes, 1, 8));
  std::vector<Problem*> problems;
  for (int i = 0; i < sets; ++i) {
    problems.push_back(new Problem(elem, s, false, 100 + i));
    problems.back()->args.fast_accum = fast;
  }
  const double flop = 2.0 * s.m * s.n * s.k;
  // A graph of several launches, so that a launch costs what it costs in a model.
  const int launches = static_cast<int>(std::clamp(2e-3 / (flop / 1.2e15), 2.0, 24.0));
  cudaStream_t stream;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  gemm__sm90(problems[0]->args, stream);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing");
  for (int i = 0; i < launches; ++i) gemm__sm90(problems[i % sets]->args, stream);
  cuda_check(cudaStreamEndCapture(stream, &graph), "capturing");
  cuda_check(cudaGraphInstantiate(&exec, graph, 0), "instantiating the graph");
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<float> times;
  for (int i = 0; i < 23; ++i) {
    cudaEventRecord(begin, stream);
    cudaGraphLaunch(exec, stream);
    cudaEventRecord(end, stream);
    cuda_check(cudaEventSynchronize(end), "timing");
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    if (i >= 3) times.push_back(ms * 1000 / static_cast<float>(launches));
  }
  std::sort(times.begin(), times.end());
  const double p50 = times[times.size() / 2];
  std::printf(
      "{\"gemm\":\"%s\",\"m\":%d,\"n\":%d,\"k\":%d,\"p10_us\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,"
      "\"tflops\":%.0f}\n",
      name_of(elem, fast), s.m, s.n, s.k, times[times.size() / 10], p50,
      times[times.size() * 9 / 10], flop / p50 * 1e-6);
  std::fflush(stdout);
  for (Problem* p : problems) delete p;
}

}  // namespace
}  // namespace mantissa::cuda

int main(int argc, char** argv) {
  using namespace mantissa::cuda;
  const bool time = argc < 2 || std::strcmp(argv[1], "--check") != 0;
  try {
    bool ok = true;
    for (const auto& [elem, fast] : {std::pair{GemmElem::kE4M3, true},
                                     {GemmElem::kE4M3, false},
                                     {GemmElem::kS8, false},
                                     {GemmElem::kBf16, false}}) {
      for (const Shape& s : kOdd) ok = check_one(elem, fast, s) && ok;
      std::fflush(stdout);
      if (!time || !ok) continue;
      for (const Shape& s : kLlama) time_one(elem, fast, s);
    }
    return ok ? 0 : 1;
  } catch (const mantissa::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
