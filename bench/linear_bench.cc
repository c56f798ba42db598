// Speed of `linear` on the CPU for the layers of Llama-3.2-1B: GB/s of weights and GFLOP/s, each as
// a share of what this machine reads and computes in the same moments. Weights rotate through 512
// MiB, so that caches hold none of them; best of the repetitions. The layer "cached" is one weight
// that stays in the second and third level: what the kernel alone can do with a row.
//   linear_bench [scheme,...] [M,...] [isa] [layer,...] [threads]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "kernels/cpu/parts.h"
#include "kernels/cpu/peaks.h"
#include "kernels/cpu/peaks_abi.h"
#include "kernels/cpu/queue.h"
#include "kernels/host_memory.h"

namespace mantissa {
namespace {

struct Layer {
  const char* name;
  int64_t n, k;
  bool rotates = true;  // through memory
};
constexpr Layer kLayers[] = {{"qkv", 3072, 2048},      {"o", 2048, 2048},
                             {"gate_up", 16384, 2048}, {"down", 2048, 8192},
                             {"head", 128256, 2048},   {"cached", 512, 2048, false}};
constexpr int64_t kRotate = int64_t{512} << 20;

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> items;
  std::istringstream in(list);
  for (std::string item; std::getline(in, item, ',');) items.push_back(item);
  return items;
}

// Seconds of this thread's processor time with one thread (so that other loads do not count), of
// wall time otherwise.
bool use_cpu_time = false;
double now() {
  timespec t{};
  clock_gettime(use_cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
double seconds_of(const std::function<void()>& work) {
  const double start = now();
  work();
  return now() - start;
}

// On huge pages, as the loader's.
struct HostFree {
  int64_t bytes = 0;
  void operator()(std::byte* p) const { release_host(p, bytes, nullptr); }
};
using Memory = std::unique_ptr<std::byte, HostFree>;
Memory allocate(int64_t bytes) {
  return {allocate_host(bytes, "weights", nullptr), HostFree{bytes}};
}

// 64 rows of random finite codes and scales, packed again and again.
QuantRows random_band(const Weight& w, std::mt19937& random) {
  const Spec& spec = w.request.scheme.weight;
  QuantRows q;
  q.elem = spec.quantized() ? spec.elem : w.request.run_dtype;
  q.block = spec.block;
  q.rows = 64;
  q.cols = w.request.cols;
  const int bytes = q.elem->bits() <= 8 ? 1 : q.elem->bits() / 8;
  q.codes.resize(static_cast<size_t>(q.rows * q.cols * bytes));
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (size_t i = 0; i < q.codes.size(); i += static_cast<size_t>(bytes)) {
    const uint32_t code = encode(*q.elem, uniform(random) * std::min(max_value(*q.elem), 100.0));
    std::memcpy(&q.codes[i], &code, static_cast<size_t>(bytes));
  }
  if (!spec.quantized()) return q;
  const auto blocks = [](int64_t size, int block) {
    return block == kAll ? 1 : (size + block - 1) / block;
  };
  q.scales.assign(static_cast<size_t>(blocks(q.rows, q.block.rows) * blocks(q.cols, q.block.cols)),
                  1.0f / 64);
  if (spec.asymmetric) q.zero_points.assign(q.scales.size(), -1);
  if (spec.codebook) q.codebook.assign(q.scales.size() << q.elem->bits(), 1.0f / 64);
  return q;
}

struct Input {
  std::vector<uint16_t> high;
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  float global_scale = 1;
  Activation x;
};
void fill_input(const Scheme& scheme, int64_t m, int64_t k, Input& input) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (int64_t i = 0; i < m * k; ++i) {
    input.high.push_back(bf16_from_f32(uniform(random)));
    input.codes.push_back(static_cast<uint8_t>(random() % 0x70));
  }
  input.x.high = {reinterpret_cast<std::byte*>(input.high.data()), kBF16, m, k};
  const Spec& spec = scheme.activation;
  if (!spec.quantized()) return;
  for (uint8_t& code : input.codes) code &= static_cast<uint8_t>(code_mask(*spec.elem));
  const int64_t rows = spec.block.rows == kAll ? 1 : m,
                groups = spec.block.cols == kAll ? 1 : (k + spec.block.cols - 1) / spec.block.cols;
  input.scales.assign(static_cast<size_t>(rows * groups), 1.0f / 64);
  QuantizedActivation& q = input.x.quantized[0];
  input.x.quantized_count = 1;
  q.spec = spec;
  q.codes = {input.codes.data(), m, k};
  q.scales = {input.scales.data(), rows, groups};
  q.global_scale = &input.global_scale;
}

const cpu::IsaPeakLoops& loops_of(cpu::Isa isa) {
  return isa == cpu::Isa::kAvx512 ? cpu::kPeaksAvx512
         : isa == cpu::Isa::kAvx2 ? cpu::kPeaksAvx2
                                  : cpu::kPeaksPortable;
}

void run_layer(const std::string& scheme, const Layer& layer, const std::vector<int64_t>& batches,
               Queue* queue) {
  cpu::CpuQueue& q = cpu::cpu_queue(queue);
  Weight w = cpu::plan_weight({.name = layer.name,
                               .scheme = parse_scheme(scheme),
                               .run_dtype = &kBF16,
                               .rows = layer.n,
                               .cols = layer.k},
                              queue);
  const int64_t copies = layer.rotates ? std::max<int64_t>(1, kRotate / w.bytes) : 1;
  const Memory memory = allocate(copies * w.bytes);
  std::mt19937 random(1);
  const QuantRows band = random_band(w, random);
  w.data = memory.get();
  for (int64_t row = 0; row < layer.n; row += band.rows) cpu::pack_rows(w, row, band, queue);
  cpu::finish_weight(w, queue);
  for (int64_t c = 1; c < copies; ++c)
    std::memcpy(memory.get() + c * w.bytes, memory.get(), static_cast<size_t>(w.bytes));
  const cpu::IsaPeakLoops& loops = loops_of(q.isa);
  for (const int64_t m : batches) {
    Input input;
    fill_input(w.request.scheme, m, layer.k, input);
    std::vector<uint16_t> out(static_cast<size_t>(m * layer.n));
    const View view{reinterpret_cast<std::byte*>(out.data()), kBF16, m, layer.n};
    double best = 1e9, read_best = 1e9, op_best = 1e9;
    int64_t next = 0;
    const int64_t bytes = copies * w.bytes / 1024 * 1024;
    const double flops_once = 2.0 * static_cast<double>(m * layer.n * layer.k);
    const Spec& activation = w.request.scheme.activation;
    const bool integers = activation.quantized() && !activation.elem->is_float();
    const cpu::IsaPeakLoop& loop = integers && loops.int8.run != nullptr ? loops.int8
                                   : loops.bf16.run != nullptr           ? loops.bf16
                                                                         : loops.f32;
    bool two_streams = false;
    for (double spent = 0; spent < 0.6 || !two_streams; two_streams = !two_streams) {
      const double read = seconds_of([&] {
        q.pool.parallel_for(bytes, 1 << 20, [&](int, int64_t begin, int64_t end) {
          const auto read_piece = two_streams ? loops.read_two : loops.read;
          volatile uint64_t sink = read_piece(memory.get() + begin, end - begin);
          (void)sink;
        });
      });
      read_best = std::min(read_best, read / static_cast<double>(bytes));
      constexpr int64_t kRounds = 20000;
      const double op = seconds_of([&] {
        q.pool.parallel_for(q.pool.threads(), 1, [&](int, int64_t, int64_t) {
          volatile float sink = loop.run(kRounds);
          (void)sink;
        });
      });
      op_best = std::min(op_best, op / (loop.ops_per_round * kRounds * q.pool.threads()));
      const int64_t calls =
          std::clamp<int64_t>(static_cast<int64_t>(0.05 / std::max(best < 1e8 ? best : 1e-2, 1e-6)),
                              1, layer.rotates ? copies : 100);
      const double time = seconds_of([&] {
        for (int64_t i = 0; i < calls; ++i) {
          w.data = memory.get() + next++ % copies * w.bytes;
          cpu::linear(view, input.x, w, {}, queue);
        }
      });
      best = std::min(best, time / static_cast<double>(calls));
      spent += read + time + op;
    }
    const double gb = static_cast<double>(w.bytes) / best * 1e-9, flops = flops_once / best * 1e-9;
    std::printf("%-26s %-8s M=%-4lld %9.1f us %6.1f GB/s %5.1f %%  %7.1f Gop/s %5.1f %%\n",
                scheme.c_str(), layer.name, static_cast<long long>(m), best * 1e6, gb,
                100 * gb * 1e9 * read_best, flops, 100 * flops * 1e9 * op_best);
    std::fflush(stdout);
  }
}

int run(int argc, char** argv) {
  const auto arg = [&](int i, const char* otherwise) {
    return std::string(argc > i && argv[i][0] != '\0' ? argv[i] : otherwise);
  };
  DeviceConfig config;
  config.isa = arg(3, "auto");
  config.threads = std::atoi(arg(5, "0").c_str());
  cpu::CpuQueue q(config);
  use_cpu_time = q.pool.threads() == 1;
  auto* queue = reinterpret_cast<Queue*>(&q);
  const Peaks peaks = cpu::measure_machine_peaks(queue);
  std::printf("%s", to_json(peaks).c_str());
  std::vector<int64_t> batches;
  for (const std::string& m : split(arg(2, "1,4,16,32,512"))) batches.push_back(std::stoll(m));
  const auto layers = split(arg(4, "qkv,o,gate_up,down,head"));
  for (const std::string& scheme :
       split(arg(1,
                 "bf16,fp8,ptpc_fp8,fp8_weight_only,int8,int8_weight_only,int4_weight_only:g128,"
                 "int4_weight_only:g32,int4_weight_only:g128:asym,int4_int8:g128,int4_int8:g32,"
                 "int4_int8:g32:asym"))) {
    for (const Layer& layer : kLayers)
      if (std::find(layers.begin(), layers.end(), layer.name) != layers.end())
        run_layer(scheme, layer, batches, queue);
  }
  return 0;
}

}  // namespace
}  // namespace mantissa

int main(int argc, char** argv) {
  return mantissa::run(argc, argv);
}
