// Attention over the paged cache on the GPU, through Ops: decode in GB/s of the cache as stored, of
// the read bandwidth measured in the same run (pages dealt out of order, several layers in turn so
// that L2 holds none), alone and behind rope_write; prefill in TFLOP/s (the causal half counted).
//   attention_bench [decode|prefill]  -> JSON lines on standard output
#include <algorithm>
#include <cstdio>
#include <cstring>
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

constexpr int kHeads = 32, kKvHeads = 8, kPage = 16;
constexpr int64_t kRotatedBytes = 256 << 20;  // several times L2

struct Case {
  int sequences, query, context, dim;
  const Elem* cell;
};
const Case kDecode[] = {
    {1, 1, 256, 128, &kBF16},         {1, 1, 512, 128, &kBF16},    {1, 1, 2048, 128, &kBF16},
    {1, 1, 8192, 128, &kBF16},        {1, 1, 131072, 128, &kBF16}, {16, 1, 512, 128, &kBF16},
    {16, 1, 2048, 128, &kBF16},       {16, 1, 8192, 128, &kBF16},  {128, 1, 256, 128, &kBF16},
    {128, 1, 512, 128, &kBF16},       {128, 1, 2048, 128, &kBF16}, {1, 1, 512, 128, &kE4M3},
    {1, 1, 8192, 128, &kE4M3},        {16, 1, 512, 128, &kE4M3},   {16, 1, 8192, 128, &kE4M3},
    {128, 1, 512, 128, &kE4M3},       {128, 1, 2048, 128, &kE4M3}, {16, 1, 8192, 128, &kE5M2},
    {16, 1, 8192, 128, &int_elem(8)}, {16, 1, 8192, 64, &kBF16},   {16, 1, 8192, 64, &kE4M3},
    {16, 4, 8192, 128, &kBF16},       {16, 4, 8192, 128, &kE4M3},
};
const Case kPrefill[] = {
    {1, 2048, 2048, 128, &kBF16},         {1, 4096, 4096, 128, &kBF16},
    {1, 8192, 8192, 128, &kBF16},         {1, 16384, 16384, 128, &kBF16},
    {1, 32768, 32768, 128, &kBF16},       {1, 4096, 4096, 64, &kBF16},
    {1, 16384, 16384, 64, &kBF16},        {1, 16384, 16384, 128, &kE4M3},
    {1, 16384, 16384, 128, &int_elem(8)}, {8, 1024, 1024, 128, &kBF16},
    {2, 4096, 4096, 128, &kBF16},         {1, 2048, 32768, 128, &kBF16},
};

class Memory {
 public:
  Memory(Queue* q, int64_t bytes)
      : q_(q), bytes_(bytes), data(kCudaOps.allocate(bytes, "bench", q)) {}
  template <class T>
  Memory(Queue* q, const std::vector<T>& v)
      : Memory(q, static_cast<int64_t>(v.size() * sizeof(T))) {
    kCudaOps.upload(data, v.data(), bytes_, q);
  }
  ~Memory() { kCudaOps.release(data, bytes_, q_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  const int32_t* ints() const { return reinterpret_cast<const int32_t*>(data); }
  // The same random words over and over: of bf16, codes and float32 scales alike.
  void fill(const std::vector<uint16_t>& words) {
    for (int64_t at = 0; at < bytes_; at += static_cast<int64_t>(words.size() * 2)) {
      kCudaOps.upload(data + at, words.data(),
                      std::min<int64_t>(bytes_ - at, static_cast<int64_t>(words.size() * 2)), q_);
    }
  }

 private:
  Queue* q_;
  int64_t bytes_;

 public:
  std::byte* data;
};

struct Timing {
  double alone = 0, behind_rope = 0, rope = 0;
};

class Problem {
 public:
  Problem(Queue* q, const Case& c, const std::vector<uint16_t>& words) : q_(q), c_(c) {
    shape_.layers = 1;
    shape_.kv_heads = kKvHeads;
    shape_.head_dim = c.dim;
    shape_.page_tokens = kPage;
    shape_.elem = c.cell;
    shape_.scaled = c.cell->bits() == 8;
    page_bytes_ = kCudaOps.kv_page_bytes(shape_);
    const int pages_each = c.context / kPage, pages = pages_each * c.sequences;
    cache_bytes = pages * page_bytes_;
    const int layers =
        c.query > 16 ? 1
                     : static_cast<int>(std::clamp<int64_t>(kRotatedBytes / cache_bytes, 2, 24));
    for (int i = 0; i < layers; ++i) {
      caches_.push_back(std::make_unique<Memory>(q, cache_bytes));
      caches_.back()->fill(words);
    }
    std::vector<int32_t> starts, positions, slots;
    std::vector<int32_t> contexts(static_cast<size_t>(c.sequences), c.context);
    std::vector<int32_t> table(static_cast<size_t>(pages));
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937(3));
    for (int s = 0; s < c.sequences; ++s) {
      for (int p = c.context - c.query; p < c.context; ++p) {
        positions.push_back(p);
        slots.push_back(table[static_cast<size_t>(s * pages_each + p / kPage)] * kPage + p % kPage);
      }
    }
    for (int s = 0; s <= c.sequences; ++s) starts.push_back(s * c.query);
    const std::vector<float> inv_freq(static_cast<size_t>(c.dim / 2), 0.01f);
    for (const auto* v : {&starts, &contexts, &table, &positions, &slots})
      arrays_.push_back(std::make_unique<Memory>(q, *v));
    arrays_.push_back(std::make_unique<Memory>(q, inv_freq));
    width_ = (kHeads + 2 * kKvHeads) * c.dim;
    qkv_ = std::make_unique<Memory>(q, tokens() * width_ * 2);
    qkv_->fill(words);
    out_ = std::make_unique<Memory>(q, tokens() * kHeads * c.dim * 2);
    batch_.tokens = static_cast<int32_t>(tokens());
    batch_.sequences = c.sequences;
    batch_.query_max = c.query;
    batch_.query_start = arrays_[0]->ints();
    batch_.context_len = arrays_[1]->ints();
    batch_.block_table = arrays_[2]->ints();
    batch_.positions = arrays_[3]->ints();
    batch_.slots = arrays_[4]->ints();
    batch_.block_table_stride = pages_each;
  }

  int64_t tokens() const { return int64_t{c_.query} * c_.sequences; }
  void attention(int i) {
    Activation result;
    result.high = View(out_->data, kBF16, tokens(), kHeads * c_.dim);
    kCudaOps.attention(result, ConstView(qkv_->data, kBF16, tokens(), width_), params(), batch_,
                       layer(i), q_);
  }
  void rope_write(int i) {
    const RopeParams rope{.inv_freq = reinterpret_cast<const float*>(arrays_[5]->data),
                          .rotary_dim = c_.dim,
                          .attention_factor = 1};
    kCudaOps.rope_write(View(qkv_->data, kBF16, tokens(), width_), rope, params(), batch_, layer(i),
                        q_);
  }
  Timing time() {
    const cudaStream_t stream = cuda_queue(q_).stream.get();
    const int launches = c_.query > 16 ? 2 : 24;
    attention(0);
    rope_write(0);
    Timing t;
    t.alone = time_graph(stream, launches, 15, [&](int i) { attention(i); }).p50;
    t.behind_rope = time_graph(stream, launches, 15, [&](int i) {
                      rope_write(i);
                      attention(i);
                    }).p50;
    t.rope = time_graph(stream, launches, 15, [&](int i) { rope_write(i); }).p50;
    return t;
  }

  int64_t cache_bytes = 0;

 private:
  AttentionParams params() const {
    return {.heads = kHeads, .scale = c_.dim == 128 ? 0.088f : 0.125f, .window = 0, .soft_cap = 0};
  }
  KvLayer layer(int i) const {
    KvLayer layer;
    layer.shape = shape_;
    layer.pages = caches_[static_cast<size_t>(i) % caches_.size()]->data;
    layer.page_bytes = page_bytes_;
    return layer;
  }

  Queue* q_;
  Case c_;
  KvShape shape_;
  int64_t page_bytes_ = 0, width_ = 0;
  std::vector<std::unique_ptr<Memory>> caches_, arrays_;
  std::unique_ptr<Memory> qkv_, out_;
  Batch batch_;
};

void time_one(Queue* q, const Case& c, double bandwidth, const std::vector<uint16_t>& words) {
  Problem problem(q, c, words);
  const Timing t = problem.time();
  const double flop =
      4.0 * kHeads * c.dim * c.query * c.sequences * (c.context - 0.5 * (c.query - 1));
  const double gb_s = static_cast<double>(problem.cache_bytes) / t.alone * 1e-3;
  std::printf(
      "{\"attention\":\"%s\",\"head_dim\":%d,\"sequences\":%d,\"query\":%d,\"context\":%d,"
      "\"p50_us\":%.1f,\"with_rope_us\":%.1f,\"rope_us\":%.1f,",
      std::string(c.cell->name).c_str(), c.dim, c.sequences, c.query, c.context, t.alone,
      t.behind_rope, t.rope);
  if (c.query <= 16) {
    std::printf("\"gb_per_s\":%.0f,\"percent\":%.1f}\n", gb_s, gb_s / bandwidth * 100);
  } else {
    std::printf("\"tflops\":%.1f}\n", flop / t.alone * 1e-6);
  }
  std::fflush(stdout);
}

void run(const char* which) {
  Queue* q = kCudaOps.open({});
  const double bandwidth = kCudaOps.read_gb_s(q);
  std::printf("{\"device\":\"%s\",\"read_gb_s\":%.0f}\n", kCudaOps.describe(q).c_str(), bandwidth);
  std::mt19937 random(1);
  std::vector<uint16_t> words(16 << 20);
  for (uint16_t& v : words) v = static_cast<uint16_t>((random() & 0x807f) | 0x3f00);
  if (std::strcmp(which, "prefill") != 0)
    for (const Case& c : kDecode) time_one(q, c, bandwidth, words);
  if (std::strcmp(which, "decode") != 0)
    for (const Case& c : kPrefill) time_one(q, c, bandwidth, words);
  kCudaOps.close(q);
}

}  // namespace
}  // namespace mantissa::cuda

int main(int count, char** arguments) {
  try {
    mantissa::cuda::run(count > 1 ? arguments[1] : "");
    return 0;
  } catch (const mantissa::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
