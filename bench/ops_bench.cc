// Speed of the CPU's operations other than `linear`, at the sizes of Llama-3.2-1B: time a call,
// GB/s of what it must read and write, GFLOP/s of attention, and the share of this machine's
// float32 multiply-add rate in the same moments. One thread: its processor time, so that other
// loads on the machine do not count. More: the wall clock, and the memory's read bandwidth by as
// many threads at the end.
//   ops_bench [isa] [filter] [threads]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/ops.h"
#include "kernels/cpu/peaks_abi.h"
#include "kernels/cpu/queue.h"

namespace mantissa {
namespace {

double now(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}
double best_seconds(const std::function<void()>& work, clockid_t clock = CLOCK_THREAD_CPUTIME_ID) {
  double best = 1e9, spent = 0;
  work();
  for (int i = 0; i < 200 && spent < 0.4; ++i) {
    const double start = now(clock);
    work();
    const double seconds = now(clock) - start;
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

struct Bench {
  Queue* queue;
  std::string filter;
  double peak_flops;
  clockid_t clock;

  void run(const std::string& name, double bytes, double flops,
           const std::function<void()>& work) const {
    if (name.find(filter) == std::string::npos) return;
    const double s = best_seconds(work, clock);
    std::printf("{\"op\":\"%s\",\"us\":%.2f,\"gb_per_s\":%.2f", name.c_str(), s * 1e6,
                bytes / s / 1e9);
    if (flops > 0)
      std::printf(",\"gflop_per_s\":%.1f,\"pct_f32_peak\":%.1f", flops / s / 1e9,
                  100 * flops / s / peak_flops);
    std::printf("}\n");
    std::fflush(stdout);
  }
};

std::vector<std::byte> random_values(const Elem& elem, int64_t count) {
  std::vector<std::byte> out(static_cast<size_t>(count * elem.bits() / 8));
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t code = encode(elem, uniform(random), false);
    std::memcpy(out.data() + i * elem.bits() / 8, &code, static_cast<size_t>(elem.bits() / 8));
  }
  return out;
}

constexpr int32_t kHeads = 32, kKvHeads = 8, kDim = 64, kPage = 16;

struct Form {
  const char* name;
  const Elem* elem;  // nullptr: the run dtype
};
constexpr Form kCaches[] = {{"run", nullptr}, {"e4m3", &kE4M3}, {"int8", &kInt[7]}};

void bench_attention(const Bench& b, const Elem& run, int32_t sequences, int32_t query,
                     int32_t context) {
  const int32_t tokens = sequences * query, pages = context / kPage;
  const int64_t cols = (kHeads + 2 * kKvHeads) * kDim;
  std::vector<std::byte> qkv = random_values(run, tokens * cols);
  std::vector<std::byte> result(static_cast<size_t>(tokens * kHeads * kDim * run.bits() / 8));
  std::vector<int32_t> positions, slots, starts = {0}, contexts, table;
  for (int32_t s = 0; s < sequences; ++s) {
    for (int32_t i = 0; i < query; ++i) {
      positions.push_back(context - query + i);
      slots.push_back(s * context + positions.back());
    }
    starts.push_back((s + 1) * query);
    contexts.push_back(context);
    for (int32_t p = 0; p < pages; ++p) table.push_back(s * pages + p);
  }
  Batch batch;
  batch.tokens = tokens;
  batch.sequences = sequences;
  batch.positions = positions.data();
  batch.slots = slots.data();
  batch.query_start = starts.data();
  batch.context_len = contexts.data();
  batch.block_table = table.data();
  batch.block_table_stride = pages;
  const AttentionParams params{.heads = kHeads, .scale = 0.125f};
  std::vector<float> inv_freq(kDim / 2, 0.01f);
  for (const Form& cache : kCaches) {
    KvLayer layer;
    layer.shape = {.layers = 1, .kv_heads = kKvHeads, .head_dim = kDim, .page_tokens = kPage};
    layer.shape.elem = cache.elem == nullptr ? &run : cache.elem;
    layer.shape.scaled = cache.elem != nullptr;
    layer.page_bytes = kCpuOps.kv_page_bytes(layer.shape);
    const int64_t bytes = layer.page_bytes * pages * sequences;
    layer.pages = kCpuOps.allocate(bytes, "the cache", b.queue);
    std::memset(layer.pages, 0, static_cast<size_t>(bytes));
    const View rows(qkv.data(), run, tokens, cols);
    const std::string name = std::string(run.name) + "/" + cache.name +
                             " S=" + std::to_string(sequences) + " T=" + std::to_string(tokens) +
                             " L=" + std::to_string(context);
    const double row_bytes = static_cast<double>(cols * run.bits() / 8);
    b.run("rope_write " + name, tokens * row_bytes * 2, 0, [&] {
      kCpuOps.rope_write(rows, {.inv_freq = inv_freq.data(), .rotary_dim = kDim}, params, batch,
                         layer, b.queue);
    });
    Activation out;
    out.high = View(result.data(), run, tokens, kHeads * kDim);
    double keys = 0;
    for (int32_t i = 0; i < query; ++i) keys += context - i;
    b.run("attention " + name, static_cast<double>(layer.page_bytes * pages * sequences),
          4.0 * kDim * kHeads * keys * sequences,
          [&] { kCpuOps.attention(out, rows, params, batch, layer, b.queue); });
    kCpuOps.release(layer.pages, bytes, b.queue);
  }
}

void bench_rows(const Bench& b, const Elem& run, int64_t m) {
  constexpr int64_t kHidden = 2048, kInner = 8192;
  const std::string suffix = std::string(run.name) + " M=" + std::to_string(m);
  std::vector<std::byte> x = random_values(run, m * kHidden), y = x;
  const std::vector<float> gain(kHidden, 1.0f);
  const double bytes = static_cast<double>(run.bits()) / 8;
  Activation out;
  out.high = View(y.data(), run, m, kHidden);
  const ConstView in(x.data(), run, m, kHidden);
  const double hidden = static_cast<double>(m * kHidden), inner = static_cast<double>(m * kInner);
  b.run("rms_norm " + suffix, 2 * hidden * bytes, 0,
        [&] { kCpuOps.rms_norm(out, in, gain.data(), 1e-5f, b.queue); });
  std::vector<uint8_t> codes(static_cast<size_t>(m * kInner));
  std::vector<float> scales(static_cast<size_t>(m * kInner / 128));
  for (const char* scheme : {"ptpc_fp8", "int8", "fp8", "fp8_block"}) {
    QuantizedActivation& form = out.quantized[0];
    form.spec = parse_scheme(scheme).activation;
    const int64_t columns = form.spec.block.cols == kAll ? 1 : kHidden / form.spec.block.cols;
    form.codes = {codes.data(), m, kHidden};
    form.scales = {scales.data(), form.spec.block.rows == kAll ? 1 : m, columns};
    out.quantized_count = 1;
    b.run(std::string("quantize_rows ") + scheme + " " + suffix, hidden * (bytes + 1), 0,
          [&] { kCpuOps.quantize_rows(out, b.queue); });
    b.run(std::string("rms_norm ") + scheme + " " + suffix, hidden * (2 * bytes + 1), 0,
          [&] { kCpuOps.rms_norm(out, in, gain.data(), 1e-5f, b.queue); });
    out.quantized_count = 0;
  }
  const std::vector<std::byte> wide = random_values(run, m * 2 * kInner);
  std::vector<std::byte> gated(static_cast<size_t>(inner * bytes));
  Activation narrow;
  narrow.high = View(gated.data(), run, m, kInner);
  const ConstView gate_up(wide.data(), run, m, 2 * kInner);
  b.run("gate silu " + suffix, 3 * inner * bytes, 0,
        [&] { kCpuOps.gate(narrow, gate_up, GateFn::kSilu, b.queue); });
}

int run(int argc, char** argv) {
  const std::string isa = argc > 1 ? argv[1] : "auto";
  const int threads = argc > 3 ? std::atoi(argv[3]) : 1;
  Queue* queue = kCpuOps.open({.threads = threads, .isa = isa, .scratch_tokens = 2048});
  const cpu::Isa chosen = cpu::cpu_queue(queue).isa;
  const cpu::IsaPeakLoops& loops = chosen == cpu::Isa::kAvx512 ? cpu::kPeaksAvx512
                                   : chosen == cpu::Isa::kAvx2 ? cpu::kPeaksAvx2
                                                               : cpu::kPeaksPortable;
  constexpr int64_t kRounds = 2000000;
  const double peak = kRounds * loops.f32.ops_per_round /
                      best_seconds([&] { static_cast<void>(loops.f32.run(kRounds)); });
  const Bench bench{queue, argc > 2 ? argv[2] : "", peak * threads,
                    threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC};
  std::printf("{\"isa\":\"%s\",\"f32_gflop_per_s\":%.1f}\n", std::string(cpu::name(chosen)).c_str(),
              peak / 1e9);
  for (const Elem* run : {&kBF16, &kF32}) {
    bench_attention(bench, *run, 1, 1024, 1024);
    bench_attention(bench, *run, 1, 1, 4096);
    bench_attention(bench, *run, 16, 1, 1024);
    bench_attention(bench, *run, 4, 1, 8192);
    for (const int64_t m : {1, 512}) bench_rows(bench, *run, m);
  }
  if (threads > 1) std::printf("{\"read_gb_s\":%.1f}\n", kCpuOps.read_gb_s(queue));
  kCpuOps.close(queue);
  return 0;
}

}  // namespace
}  // namespace mantissa

int main(int argc, char** argv) {
  return mantissa::run(argc, argv);
}
