// Attention over the paged cache on the GPU, through Ops: decode in GB/s of the cache (pages dealt
// out of order, several layers in turn so that L2 holds none), prefill in TFLOP/s (causal halves
// counted).   attention_bench -> JSON lines on standard output
#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "graph_timer.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {
namespace {

constexpr double kReadBandwidth = 4.45e12;  // of an H200, measured
constexpr int kHeads = 32, kKvHeads = 8, kDim = 128, kPage = 16;

struct Case {
  int sequences, query, context;
  const Elem* cell;
};
constexpr Case kCases[] = {
    {1, 1, 512, &kBF16},       {1, 1, 8192, &kBF16},    {16, 1, 8192, &kBF16},
    {16, 1, 8192, &kE4M3},     {64, 1, 2048, &kBF16},   {64, 1, 2048, &kE4M3},
    {128, 1, 1024, &kBF16},    {1, 4096, 4096, &kBF16}, {1, 16384, 16384, &kBF16},
    {1, 16384, 16384, &kE4M3},
};

class Memory {
 public:
  Memory(Queue* q, int64_t bytes)
      : q_(q), bytes_(bytes), data(kCudaOps.allocate(bytes, "bench", q)) {}
  Memory(Queue* q, const std::vector<int32_t>& v) : Memory(q, static_cast<int64_t>(v.size() * 4)) {
    kCudaOps.upload(data, v.data(), bytes_, q);
  }
  ~Memory() { kCudaOps.release(data, bytes_, q_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  const int32_t* ints() const { return reinterpret_cast<const int32_t*>(data); }

 private:
  Queue* q_;
  int64_t bytes_;

 public:
  std::byte* data;
};

void time_one(Queue* q, const Case& c) {
  KvShape shape;
  shape.layers = 1;
  shape.kv_heads = kKvHeads;
  shape.head_dim = kDim;
  shape.page_tokens = kPage;
  shape.elem = c.cell;
  shape.scaled = *c.cell == kE4M3;
  const int pages_each = c.context / kPage, pages = pages_each * c.sequences;
  const int tokens = c.query * c.sequences;
  const int64_t page_bytes = kCudaOps.kv_page_bytes(shape);
  const int64_t cache_bytes = pages * page_bytes;
  const int layers =
      c.query > 1 ? 1 : static_cast<int>(std::clamp<int64_t>((256 << 20) / cache_bytes, 2, 16));
  std::mt19937 random(1);
  std::vector<uint16_t> values(static_cast<size_t>(cache_bytes / 2));
  for (uint16_t& v : values) v = static_cast<uint16_t>((random() & 0x807f) | 0x3f00);
  std::vector<std::unique_ptr<Memory>> caches;
  for (int i = 0; i < layers; ++i) {
    caches.push_back(std::make_unique<Memory>(q, cache_bytes));
    kCudaOps.upload(caches.back()->data, values.data(), cache_bytes, q);
  }
  std::vector<int32_t> starts, contexts(static_cast<size_t>(c.sequences), c.context);
  std::vector<int32_t> table(static_cast<size_t>(pages));
  for (int s = 0; s <= c.sequences; ++s) starts.push_back(s * c.query);
  std::iota(table.begin(), table.end(), 0);
  std::shuffle(table.begin(), table.end(), random);
  const Memory d_starts(q, starts), d_contexts(q, contexts), d_table(q, table);
  const int64_t width = (kHeads + 2 * kKvHeads) * kDim;
  const Memory qkv(q, tokens * width * 2), out(q, int64_t{tokens} * kHeads * kDim * 2);
  std::vector<uint16_t> rows(static_cast<size_t>(tokens * width));
  for (uint16_t& v : rows) v = static_cast<uint16_t>((random() & 0x807f) | 0x3e80);
  kCudaOps.upload(qkv.data, rows.data(), tokens * width * 2, q);
  Batch batch;
  batch.tokens = tokens;
  batch.sequences = c.sequences;
  batch.query_start = d_starts.ints();
  batch.context_len = d_contexts.ints();
  batch.block_table = d_table.ints();
  batch.block_table_stride = pages_each;
  const AttentionParams params{.heads = kHeads, .scale = 0.088f, .window = 0, .soft_cap = 0};
  Activation result;
  result.high = View(out.data, kBF16, tokens, kHeads * kDim);
  const auto run = [&](int i) {
    KvLayer layer;
    layer.shape = shape;
    layer.pages = caches[static_cast<size_t>(i % layers)]->data;
    layer.page_bytes = page_bytes;
    kCudaOps.attention(result, ConstView(qkv.data, kBF16, tokens, width), params, batch, layer, q);
  };
  const cudaStream_t stream = cuda_queue(q).stream.get();
  run(0);
  const double us = time_graph(stream, c.query > 1 ? 2 : 24, 10, run).p50;
  const double flop =
      4.0 * kHeads * kDim * c.query * c.sequences * (c.context - 0.5 * (c.query - 1));
  std::printf(
      "{\"attention\":\"%s\",\"sequences\":%d,\"query\":%d,\"context\":%d,\"p50_us\":%.1f,"
      "\"gb_per_s\":%.0f,\"percent\":%.1f,\"tflops\":%.1f}\n",
      std::string(c.cell->name).c_str(), c.sequences, c.query, c.context, us,
      static_cast<double>(cache_bytes) / us * 1e-3,
      static_cast<double>(cache_bytes) / (us * 1e-6) / kReadBandwidth * 100, flop / us * 1e-6);
  std::fflush(stdout);
}

}  // namespace
}  // namespace mantissa::cuda

int main() {
  using namespace mantissa;
  try {
    Queue* q = kCudaOps.open({});
    for (const cuda::Case& c : cuda::kCases) cuda::time_one(q, c);
    kCudaOps.close(q);
    return 0;
  } catch (const Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
