#include "bench/attention.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/convert.h"
#include "base/error.h"
#include "bench/operation.h"
#include "kernels/open_queue.h"

namespace mantissa {
namespace {

constexpr int64_t kBandRows = 509;  // random tokens, repeated; prime, so that pages differ
constexpr int64_t kChunk = 2048;    // tokens written to the cache at once
constexpr int64_t kPageTokens = 16;
constexpr int64_t kSetsMax = 512;

int64_t pages_for(int64_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}

// Queries, keys and values of one token of this case.
int64_t width_of(const AttentionCase& c) {
  return (c.heads + 2 * c.kv_heads) * c.head_dim;
}

AttentionParams params_of(const AttentionCase& c) {
  return {.heads = static_cast<int32_t>(c.heads),
          .scale = 1 / std::sqrt(static_cast<float>(c.head_dim))};
}

KvShape shape_of(const AttentionCase& c) {
  return {.layers = 1,
          .kv_heads = static_cast<int32_t>(c.kv_heads),
          .head_dim = static_cast<int32_t>(c.head_dim),
          .page_tokens = static_cast<int32_t>(kPageTokens),
          .elem = c.cache->elem != nullptr ? c.cache->elem : c.run_dtype,
          .scaled = c.cache->elem != nullptr};
}

// Caches of `batch` equal sequences on one backend, and passes over them.
class Sequences {
 public:
  Sequences(const Ops& ops, Queue* queue, const AttentionCase& c, int64_t batch, int64_t sets,
            const std::vector<float>& band);

  // New tokens [first, first + count) of sequences [sequence, sequence + sequences), all with the
  // context first + count.
  struct Pass {
    Batch batch;
    View qkv, out;
    std::vector<std::unique_ptr<DeviceMemory>> memory;
  };
  Pass pass(int64_t sequence, int64_t sequences, int64_t first, int64_t count);
  void attend(const Pass& pass, int64_t set) {
    Activation out;
    out.high = pass.out;
    ops_.attention(out, pass.qkv, params_of(case_), pass.batch, layers_[static_cast<size_t>(set)],
                   queue_);
  }
  int64_t sets() const { return std::ssize(layers_); }
  int64_t page_bytes() const { return ops_.kv_page_bytes(shape_of(case_)); }
  std::vector<float> row(const Pass& pass, int64_t index) const;

 private:
  void fill(int64_t set);
  template <class T>
  const T* upload(Pass& pass, const std::vector<T>& values) {
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    pass.memory.push_back(
        std::make_unique<DeviceMemory>(ops_, queue_, std::max<int64_t>(bytes, 64)));
    ops_.upload(pass.memory.back()->data(), values.data(), bytes, queue_);
    return pass.memory.back()->as<T>();
  }

  const Ops& ops_;
  Queue* queue_;
  AttentionCase case_;
  int64_t batch_, pages_;        // sequences; pages of each
  std::vector<std::byte> band_;  // [kBandRows, width], run dtype
  std::vector<std::unique_ptr<DeviceMemory>> memory_;
  std::vector<KvLayer> layers_;  // [sets]
};

Sequences::Sequences(const Ops& ops, Queue* queue, const AttentionCase& c, int64_t batch,
                     int64_t sets, const std::vector<float>& band)
    : ops_(ops), queue_(queue), case_(c), batch_(batch), pages_(pages_for(c.context)) {
  const int64_t width = width_of(c);
  band_.resize(band.size() * static_cast<size_t>(c.run_dtype->bits() / 8));
  from_f32({band.data(), kBandRows, width}, View(band_.data(), *c.run_dtype, kBandRows, width));
  for (int64_t s = 0; s < sets; ++s) {
    memory_.push_back(std::make_unique<DeviceMemory>(ops, queue, batch * pages_ * page_bytes()));
    layers_.push_back(
        {.shape = shape_of(c), .pages = memory_.back()->data(), .page_bytes = page_bytes()});
    fill(s);
  }
}

Sequences::Pass Sequences::pass(int64_t sequence, int64_t sequences, int64_t first, int64_t count) {
  const int64_t tokens = sequences * count, width = width_of(case_);
  const auto row_bytes = static_cast<size_t>(width * case_.run_dtype->bits() / 8);
  std::vector<int32_t> positions, slots, starts = {0}, lengths, table;
  std::vector<std::byte> rows(static_cast<size_t>(tokens) * row_bytes);
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t page0 = (sequence + s) * pages_;
    for (int64_t i = first; i < first + count; ++i) {
      const auto at = static_cast<size_t>(s * count + i - first) * row_bytes,
                 from = static_cast<size_t>(i % kBandRows) * row_bytes;
      std::copy_n(band_.begin() + static_cast<std::ptrdiff_t>(from), row_bytes,
                  rows.begin() + static_cast<std::ptrdiff_t>(at));
      positions.push_back(static_cast<int32_t>(i));
      slots.push_back(static_cast<int32_t>(page0 * kPageTokens + i));
    }
    starts.push_back(static_cast<int32_t>((s + 1) * count));
    lengths.push_back(static_cast<int32_t>(first + count));
    for (int64_t page = 0; page < pages_; ++page)
      table.push_back(static_cast<int32_t>(page0 + page));
  }
  Pass out;
  const std::byte* qkv = upload(out, rows);
  out.batch = {.tokens = static_cast<int32_t>(tokens),
               .sequences = static_cast<int32_t>(sequences),
               .query_max = static_cast<int32_t>(count),
               .token_ids = upload(out, std::vector<int32_t>(static_cast<size_t>(tokens), 0)),
               .positions = upload(out, positions),
               .slots = upload(out, slots),
               .query_start = upload(out, starts),
               .context_len = upload(out, lengths),
               .block_table = upload(out, table),
               .block_table_stride = pages_};
  out.qkv = View(const_cast<std::byte*>(qkv), *case_.run_dtype, tokens, width);
  const int64_t cols = case_.heads * case_.head_dim;
  const std::byte* result = upload(
      out,
      std::vector<std::byte>(static_cast<size_t>(tokens * cols * case_.run_dtype->bits() / 8)));
  out.out = View(const_cast<std::byte*>(result), *case_.run_dtype, tokens, cols);
  return out;
}

void Sequences::fill(int64_t set) {
  for (int64_t s = 0; s < batch_; ++s) {
    for (int64_t first = 0; first < case_.context; first += kChunk) {
      Pass chunk = pass(s, 1, first, std::min(kChunk, case_.context - first));
      const RopeParams none{.inv_freq = upload(chunk, std::vector<float>(1, 0.0f))};
      ops_.rope_write(chunk.qkv, none, params_of(case_), chunk.batch,
                      layers_[static_cast<size_t>(set)], queue_);
      std::byte last;  // its memory goes: waits for the operation
      ops_.download(&last, chunk.qkv.data, 1, queue_);
    }
  }
}

std::vector<float> Sequences::row(const Pass& pass, int64_t index) const {
  const int64_t cols = pass.out.cols, bytes = cols * case_.run_dtype->bits() / 8;
  std::vector<std::byte> stored(static_cast<size_t>(bytes));
  ops_.download(stored.data(), pass.out.data + index * bytes, bytes, queue_);
  std::vector<float> out(static_cast<size_t>(cols));
  to_f32(ConstView(stored.data(), *case_.run_dtype, 1, cols), {out.data(), 1, cols});
  return out;
}

// Rows of the last sequence against ref, which gets the same tokens.
void sample(AttentionResult& result, const AttentionCase& c, const Sequences& sequences,
            const Sequences::Pass& pass, const std::vector<float>& band) {
  const Ops& ref = find_ops("ref");
  const OpenQueue queue = open_queue(ref, DeviceConfig{.scratch_tokens = 1});
  Sequences truth(ref, queue.get(), c, 1, 1, band);
  const int64_t last = c.context - 1;
  const std::vector<int64_t> rows =
      c.prefill ? std::vector<int64_t>{0, c.context / 3, last} : std::vector<int64_t>{last};
  double errors = 0, squares = 0;
  for (const int64_t r : rows) {
    const Sequences::Pass one = truth.pass(0, 1, r, 1);
    truth.attend(one, 0);
    const std::vector<float> wanted = truth.row(one, 0);
    const int64_t at = c.prefill ? (c.batch - 1) * c.context + r : c.batch - 1;
    const std::vector<float> got = sequences.row(pass, at);
    for (size_t i = 0; i < got.size(); ++i) {
      const double gap = static_cast<double>(got[i]) - static_cast<double>(wanted[i]);
      errors += gap * gap;
      squares += static_cast<double>(wanted[i]) * static_cast<double>(wanted[i]);
      ++result.sampled;
    }
  }
  result.rms_error = std::sqrt(errors / squares);
}

}  // namespace

AttentionResult measure_attention(const Ops& ops, Queue* queue, const AttentionCase& c,
                                  uint64_t seed) {
  const double page_bytes = static_cast<double>(ops.kv_page_bytes(shape_of(c)));
  const double cache_bytes = static_cast<double>(c.batch * pages_for(c.context)) * page_bytes;
  const double rows =
      static_cast<double>(c.batch) * (c.prefill ? static_cast<double>(c.context) : 1);
  const double row_bytes = static_cast<double>(width_of(c)) * c.run_dtype->bits() / 8;
  require_memory(ops, queue, cache_bytes + 3 * rows * row_bytes,
                 text("attention of batch ", c.batch, " x context ", c.context));
  const std::vector<float> band = random_rows(kBandRows, width_of(c), *c.run_dtype, 1, seed);
  const auto sets = static_cast<int64_t>(std::clamp(
      static_cast<double>(kRotatedBytes) / cache_bytes + 1, 1.0, static_cast<double>(kSetsMax)));
  // What is computed does not depend on where the cache is: a prefill needs no rotation.
  Sequences sequences(ops, queue, c, c.batch, c.prefill ? 1 : sets, band);
  const Sequences::Pass pass = c.prefill ? sequences.pass(0, c.batch, 0, c.context)
                                         : sequences.pass(0, c.batch, c.context - 1, 1);
  AttentionResult result;
  result.times = timed_runs(
      *find_bench_ops(ops), [&](int i) { sequences.attend(pass, i % sequences.sets()); }, queue,
      sequences.sets());
  result.rotated =
      c.prefill || static_cast<double>(sequences.sets()) * cache_bytes >= kRotatedBytes;
  const double context = static_cast<double>(c.context), batch = static_cast<double>(c.batch);
  const double queries = c.prefill ? context : 1;
  const double pairs = c.prefill ? context * (context + 1) / 2 : context;
  const double query_values = batch * queries * static_cast<double>(c.heads * c.head_dim);
  const KvShape shape = shape_of(c);
  const double key_bytes =
      static_cast<double>(c.head_dim * shape.elem->bits()) / 8 + (shape.scaled ? sizeof(float) : 0);
  result.operations = 4 * batch * pairs * static_cast<double>(c.heads * c.head_dim);
  result.bytes = 2 * batch * context * static_cast<double>(c.kv_heads) * key_bytes +
                 2 * query_values * c.run_dtype->bits() / 8;
  result.math_gops = find_bench_ops(ops)->math_gops(parse_scheme("bf16"), *c.run_dtype, queue);
  sequences.attend(pass, 0);
  sample(result, c, sequences, pass, band);
  return result;
}

}  // namespace mantissa
