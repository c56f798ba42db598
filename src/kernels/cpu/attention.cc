// Attention and cache writes of the CPU backend: the page layout, and how the work is cut. A unit
// is a few queries of one KV head; it runs over its context chunk by chunk. Few long units are cut
// into their chunks as well, and merged in the same order, so the cut never shows in the result.
#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cpu/attention_abi.h"
#include "kernels/cpu/parts.h"
#include "kernels/cpu/queue.h"
#include "kernels/cpu/rows.h"

namespace mantissa::cpu {
namespace {

constexpr int64_t kChunkKeys = 256;     // of a partial result, about; fixed for a page size
constexpr int64_t kTileQueryRows = 32;  // query rows of a prefill unit, about
constexpr int64_t kDecodeRows = 16;     // query rows of a decoding unit, at most about

const AttentionKernels& kernels_of(const CpuQueue& queue) {
#if defined(__x86_64__)
  if (queue.isa == Isa::kAvx512) return kAttentionAvx512;
  if (queue.isa == Isa::kAvx2) return kAttentionAvx2;
#endif
  check(queue.isa == Isa::kPortable, "cpu: an instruction set of this architecture");
  return kAttentionPortable;
}

struct FormatRow {
  const Elem* elem;
  Format format;
};
constexpr FormatRow kFormats[] = {{&kF32, Format::kF32},   {&kF16, Format::kF16},
                                  {&kBF16, Format::kBf16}, {&kE4M3, Format::kE4m3},
                                  {&kE5M2, Format::kE5m2}, {&int_elem(8), Format::kI8}};

Format format_of(const Elem& elem) {
  for (const FormatRow& row : kFormats)
    if (*row.elem == elem) return row.format;
  std::string known;
  for (const FormatRow& row : kFormats) known += text(known.empty() ? "" : ", ", row.elem->name);
  throw Error(text("the CPU has no KV cache of ", elem.name), text("use one of ", known));
}

PageLayout layout_of(const KvShape& shape) {
  check(shape.elem != nullptr && shape.head_dim > 0 && shape.kv_heads > 0 && shape.page_tokens > 0,
        "KvShape is complete");
  if (shape.head_dim > kHeadDimMax)
    throw Error(text("head size ", shape.head_dim, " is beyond the CPU's ", kHeadDimMax),
                "use --device ref");
  if (shape.elem->bits() <= 8 && shape.scaled == shape.is_static())
    throw Error(text("a KV cache of ", shape.elem->name, " with ",
                     shape.scaled ? "both online scales and a static scale" : "no scale"),
                "keep online scales, or give --kv-scale");
  const auto round_up = [](int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
  };
  PageLayout l{};
  l.page_tokens = shape.page_tokens;
  l.head_dim = shape.head_dim;
  l.even_dim = static_cast<int32_t>(round_up(shape.head_dim, 2));
  l.padded_dim = static_cast<int32_t>(round_up(shape.head_dim, 16));
  l.code_bytes = shape.elem->bits() / 8;
  l.scaled = shape.scaled && shape.elem->bits() <= 8;
  const int64_t lanes = round_up(shape.page_tokens, 16);
  l.v_offset = round_up(lanes * l.even_dim * l.code_bytes, 64);
  l.k_scales = l.v_offset + round_up(int64_t{l.page_tokens} * l.padded_dim * l.code_bytes, 64);
  l.v_scales = l.k_scales + (l.scaled ? lanes * 4 : 0);
  l.head_bytes = l.v_scales + (l.scaled ? lanes * 4 : 0);
  l.page_bytes = l.head_bytes * shape.kv_heads;
  return l;
}

CacheView view_of(const KvLayer& kv, const Elem& run) {
  const CacheView view{format_of(*kv.shape.elem), layout_of(kv.shape), kv.pages, kv.page_bytes};
  check(kv.shape.elem->bits() <= 8 || *kv.shape.elem == run,
        "a cache of more than 8 bits is in the run dtype");
  check(kv.page_bytes >= view.layout.page_bytes, "pages are as large as kv_page_bytes says");
  return view;
}

// Some queries of one KV head, and the chunks that hold their keys.
struct Unit {
  QueryTile tile;
  std::byte* out;
  int64_t chunk_first, chunks;
  int64_t rows() const { return int64_t{tile.tokens} * tile.group; }
};

struct Job {
  const AttentionKernels& kernels;
  AttentionArgs args;
  std::vector<Unit> units;
  int64_t out_stride;
  int64_t rows_max = 0;

  int64_t partial_floats(int64_t rows) const {
    return padded(rows * (args.cache.layout.padded_dim + 2) + 16);
  }
  Partial partial(float* memory, int64_t rows) const {
    return {memory, memory + rows, memory + (2 * rows + 15) / 16 * 16};
  }
  // Sections of a worker's memory, each a multiple of 64 bytes.
  static int64_t padded(int64_t floats) { return (floats + 15) / 16 * 16; }
  int64_t workspace_floats() const {
    const PageLayout& l = args.cache.layout;
    return padded(rows_max * l.even_dim) + (rows_max + 2) * padded(args.chunk + 16) +
           kBlockKeys / 2 * l.padded_dim + padded(rows_max * 4);
  }
  AttentionWorkspace workspace(float* memory) const {
    const PageLayout& l = args.cache.layout;
    AttentionWorkspace ws{};
    const auto take = [&](int64_t floats) {
      return std::exchange(memory, memory + padded(floats));
    };
    ws.q = take(rows_max * l.even_dim);
    ws.k_scales = take(args.chunk + 16);
    ws.v_scales = take(args.chunk + 16);
    ws.pairs = reinterpret_cast<uint16_t*>(take(kBlockKeys / 2 * l.padded_dim));
    ws.keys = reinterpret_cast<Keys*>(take(rows_max * 4));
    ws.scores = take(rows_max * (args.chunk + 16));
    return ws;
  }
};

void add_units(Job& job, ConstView qkv, View out, const Batch& batch, int32_t heads, int32_t s) {
  const PageLayout& layout = job.args.cache.layout;
  const int32_t kv_heads = static_cast<int32_t>(layout.page_bytes / layout.head_bytes);
  const int32_t group = heads / kv_heads;
  const int32_t begin = batch.query_start[s], count = batch.query_start[s + 1] - begin;
  const int32_t tile_tokens = static_cast<int32_t>(std::max<int64_t>(1, kTileQueryRows / group));
  const int32_t tiles = (count + tile_tokens - 1) / tile_tokens;
  for (int32_t i = tiles - 1; i >= 0; --i) {  // the longest first
    for (int32_t h = 0; h < kv_heads; ++h) {
      const int32_t token = begin + i * tile_tokens;
      Unit unit{};
      QueryTile& tile = unit.tile;
      const int64_t column = int64_t{h} * group * layout.head_dim;
      tile.q = qkv.row(token) + column * qkv.elem_bytes();
      tile.q_stride = qkv.stride;
      tile.tokens = std::min(tile_tokens, count - i * tile_tokens);
      tile.group = group;
      tile.first_position = batch.context_len[s] - count + i * tile_tokens;
      tile.kv_head = h;
      tile.blocks = batch.block_table + s * batch.block_table_stride;
      unit.out = out.row(token) + column * out.elem_bytes();
      const int64_t first =
          job.args.window > 0 ? std::max(0, tile.first_position - job.args.window + 1) : 0;
      unit.chunk_first = first / job.args.chunk;
      unit.chunks = (tile.first_position + tile.tokens - 1) / job.args.chunk - unit.chunk_first + 1;
      job.units.push_back(unit);
      job.rows_max = std::max(job.rows_max, unit.rows());
    }
  }
}

// Keys or values of a decoding unit's first pages into L2, while the unit before it is computed:
// they are a few lines each, where hardware prefetchers have no time to follow.
enum class Section : uint8_t { kKeys, kValues };
void fetch_ahead(const AttentionArgs& args, const Unit& unit, Section section) {
  constexpr int64_t kPagesMost = 4, kKeysAtOnce = 16;
  const PageLayout& l = args.cache.layout;
  const QueryTile& tile = unit.tile;
  if (tile.tokens != 1) return;
  const int64_t keys = tile.first_position + 1,
                first = unit.chunk_first * args.chunk / l.page_tokens;
  for (int64_t page = first; page < first + kPagesMost && page * l.page_tokens < keys; ++page) {
    const std::byte* base =
        args.cache.pages + tile.blocks[page] * args.cache.page_bytes + tile.kv_head * l.head_bytes;
    const int64_t count = std::min<int64_t>(l.page_tokens, keys - page * l.page_tokens);
    const bool is_keys = section == Section::kKeys;
    const int64_t lanes = (count + kKeysAtOnce - 1) / kKeysAtOnce * kKeysAtOnce;
    const int64_t begin = is_keys ? 0 : l.v_offset,
                  values = is_keys ? lanes * l.even_dim : count * l.padded_dim;
    for (int64_t at = begin; at < begin + values * l.code_bytes; at += 64)
      __builtin_prefetch(base + at, 0, 2);
  }
}

// Each unit on one worker, its chunks one after the other.
void run_whole(const Job& job, CpuQueue& queue) {
  const int64_t floats = job.workspace_floats() + 2 * job.partial_floats(job.rows_max);
  float* memory =
      queue.scratch(ScratchUse::kAttentionWorkers).get_as<float>(floats * queue.pool.threads());
  const auto units = static_cast<int64_t>(job.units.size());
  const auto run = [&](int worker, int64_t begin, int64_t end) {
    float* own = memory + worker * floats;
    const AttentionWorkspace ws = job.workspace(own);
    float* partials = own + job.workspace_floats();
    const Partial total = job.partial(partials, job.rows_max);
    const Partial part = job.partial(partials + job.partial_floats(job.rows_max), job.rows_max);
    for (int64_t i = begin; i < end; ++i) {
      const Unit& unit = job.units[static_cast<size_t>(i)];
      const Unit* next = i + 1 < units ? &unit + 1 : nullptr;
      if (next != nullptr) fetch_ahead(job.args, *next, Section::kKeys);
      job.kernels.pack_queries(job.args, unit.tile, ws);
      for (int64_t c = 0; c < unit.chunks; ++c) {
        job.kernels.chunk(job.args, unit.tile, unit.chunk_first + c, ws, c == 0 ? total : part);
        if (c > 0) job.kernels.merge(total, part, unit.rows(), job.args.cache.layout.padded_dim);
      }
      if (next != nullptr) fetch_ahead(job.args, *next, Section::kValues);
      job.kernels.finish(job.args, unit.tile, total, unit.out, job.out_stride);
    }
  };
  // Decoding units in order, for what is fetched ahead, and by the thread that wrote their last
  // keys; others dealt one by one, the longest first.
  if (job.rows_max <= kDecodeRows) {
    queue.pool.parallel_parts(units, 1, run);
  } else {
    queue.pool.parallel_for(units, 1, run);
  }
}

// Each chunk of each unit on some worker, then the merge of each unit.
void run_split(const Job& job, CpuQueue& queue) {
  struct Item {
    int64_t unit, chunk;
  };
  std::vector<Item> items;
  std::vector<int64_t> first_item;
  for (size_t u = 0; u < job.units.size(); ++u) {
    first_item.push_back(static_cast<int64_t>(items.size()));
    for (int64_t c = 0; c < job.units[u].chunks; ++c) items.push_back({static_cast<int64_t>(u), c});
  }
  const int64_t item_count = static_cast<int64_t>(items.size());
  const int64_t part_floats = job.partial_floats(job.rows_max);
  const int64_t floats = job.workspace_floats();
  float* memory =
      queue.scratch(ScratchUse::kAttentionWorkers).get_as<float>(floats * queue.pool.threads());
  float* parts = queue.scratch(ScratchUse::kAttention).get_as<float>(part_floats * item_count);
  const auto part = [&](int64_t i) { return job.partial(parts + i * part_floats, job.rows_max); };
  queue.pool.parallel_for(item_count, 1, [&](int worker, int64_t begin, int64_t end) {
    const AttentionWorkspace ws = job.workspace(memory + worker * floats);
    for (int64_t i = begin; i < end; ++i) {
      const Unit& unit = job.units[static_cast<size_t>(items[static_cast<size_t>(i)].unit)];
      job.kernels.pack_queries(job.args, unit.tile, ws);
      job.kernels.chunk(job.args, unit.tile, unit.chunk_first + items[static_cast<size_t>(i)].chunk,
                        ws, part(i));
    }
  });
  queue.pool.parallel_for(
      static_cast<int64_t>(job.units.size()), 1, [&](int, int64_t begin, int64_t end) {
        for (int64_t u = begin; u < end; ++u) {
          const Unit& unit = job.units[static_cast<size_t>(u)];
          const int64_t first = first_item[static_cast<size_t>(u)];
          for (int64_t c = 1; c < unit.chunks; ++c)
            job.kernels.merge(part(first), part(first + c), unit.rows(),
                              job.args.cache.layout.padded_dim);
          job.kernels.finish(job.args, unit.tile, part(first), unit.out, job.out_stride);
        }
      });
}

// Whether `angles` are those of these positions; else it has room for them, and they are to be
// made.
bool has_angles(RopeAngles& angles, const RopeParams& rope, const Batch& batch) {
  const std::span<const int32_t> positions(batch.positions, static_cast<size_t>(batch.tokens));
  const std::span<const float> inv_freq(rope.inv_freq, static_cast<size_t>(rope.rotary_dim / 2));
  if (angles.factor == rope.attention_factor && std::ranges::equal(angles.positions, positions) &&
      std::ranges::equal(angles.inv_freq, inv_freq))
    return true;
  angles.cos_sin.resize(std::max<size_t>(1, 2 * inv_freq.size() * positions.size()));
  angles.positions.assign(positions.begin(), positions.end());
  angles.inv_freq.assign(inv_freq.begin(), inv_freq.end());
  angles.factor = rope.attention_factor;
  return false;
}

// Of one token.
void make_angles(const RopeParams& rope, int32_t position, float* cos_sin) {
  const int64_t half = rope.rotary_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double angle = static_cast<float>(position) * rope.inv_freq[i];
    cos_sin[i] = static_cast<float>(std::cos(angle)) * rope.attention_factor;
    cos_sin[half + i] = static_cast<float>(std::sin(angle)) * rope.attention_factor;
  }
}

}  // namespace

int64_t kv_page_bytes(const KvShape& shape) {
  format_of(*shape.elem);
  return layout_of(shape).page_bytes;
}

void rope_write(View qkv, const RopeParams& rope, const AttentionParams& params, const Batch& batch,
                const KvLayer& kv, Queue* queue_handle) {
  if (batch.tokens == 0) return;
  CpuQueue& queue = cpu_queue(queue_handle);
  const KvShape& shape = kv.shape;
  check(qkv.rows == batch.tokens &&
            qkv.cols == int64_t{params.heads + 2 * shape.kv_heads} * shape.head_dim,
        "rope_write: qkv is [T, (H + 2 KV) * D]");
  check(rope.rotary_dim % 2 == 0 && rope.rotary_dim <= shape.head_dim,
        "rope_write: rotary_dim is even and at most D");
  RopeArgs args{};
  args.run = format_of(*qkv.elem);
  args.qkv = qkv.data;
  args.stride = qkv.stride;
  args.heads = params.heads;
  args.kv_heads = shape.kv_heads;
  args.half = rope.rotary_dim / 2;
  const bool known = has_angles(queue.angles, rope, batch);
  float* cos_sin = queue.angles.cos_sin.data();
  args.cos_sin = cos_sin;
  args.slots = batch.slots;
  args.k_inverse = shape.is_static() ? 1 / shape.k_scale : 0;
  args.v_inverse = shape.is_static() ? 1 / shape.v_scale : 0;
  args.cache = view_of(kv, *qkv.elem);
  const AttentionKernels& kernels = kernels_of(queue);
  constexpr int64_t kTokensAtOnce = 4;
  queue.pool.parallel_parts(batch.tokens, kTokensAtOnce, [&](int, int64_t begin, int64_t end) {
    for (int64_t t = begin; !known && t < end; ++t)
      make_angles(rope, batch.positions[t], cos_sin + t * 2 * args.half);
    kernels.rope_write(args, begin, end);
  });
}

void attention(const Activation& out, ConstView qkv, const AttentionParams& params,
               const Batch& batch, const KvLayer& kv, Queue* queue_handle) {
  if (batch.tokens == 0) return;
  CpuQueue& queue = cpu_queue(queue_handle);
  const int64_t cols = int64_t{params.heads} * kv.shape.head_dim;
  check(qkv.rows == batch.tokens && qkv.cols >= cols && params.heads % kv.shape.kv_heads == 0,
        "attention: qkv is [T, (H + 2 KV) * D], H a multiple of KV");
  View high = out.high;
  if (high.empty())
    high = View(queue.scratch(ScratchUse::kRows).get(batch.tokens * cols * qkv.elem_bytes()),
                *qkv.elem, batch.tokens, cols);
  check(high.rows == batch.tokens && high.cols == cols && *high.elem == *qkv.elem,
        "attention: out is [T, H * D] in the run dtype");
  Job job{.kernels = kernels_of(queue), .args = {}, .units = {}, .out_stride = high.stride};
  const bool is_static = kv.shape.elem->bits() <= 8 && !kv.shape.scaled;
  job.args.run = format_of(*qkv.elem);
  job.args.cache = view_of(kv, *qkv.elem);
  job.args.scale = params.scale * (is_static ? kv.shape.k_scale : 1);
  job.args.v_scale = is_static ? kv.shape.v_scale : 1;
  job.args.soft_cap = params.soft_cap;
  job.args.window = params.window;
  const int64_t page = kv.shape.page_tokens;
  job.args.chunk = static_cast<int32_t>(page * std::max<int64_t>(1, kChunkKeys / page));
  int64_t chunks = 0;
  for (int32_t s = 0; s < batch.sequences; ++s) add_units(job, qkv, high, batch, params.heads, s);
  for (const Unit& unit : job.units) chunks += unit.chunks;
  const int64_t units = static_cast<int64_t>(job.units.size()), threads = queue.pool.threads();
  if (threads > 1 && units < 4 * threads && chunks > units)
    run_split(job, queue);
  else
    run_whole(job, queue);
  quantize_forms(out, high, queue);
}

std::vector<KernelInfo> attention_kernels(Queue* queue) {
  constexpr const char* kOperations[] = {"rope_write", "attention"};
  return isa_kernels(kOperations, "_any_paged", cpu_queue(queue));
}

// ScratchUse::kAttentionWorkers and kAttention (partial results of few, long units); RopeAngles.
int64_t attention_scratch_bytes(const PassLimits& limits, Queue* queue_handle) {
  CpuQueue& queue = cpu_queue(queue_handle);
  const int64_t page = limits.kv.page_tokens, threads = queue.pool.threads();
  Job job{.kernels = kernels_of(queue), .args = {}, .units = {}, .out_stride = 0};
  job.args.cache.layout = layout_of(limits.kv);
  job.args.chunk = static_cast<int32_t>(page * std::max<int64_t>(1, kChunkKeys / page));
  job.rows_max = std::max<int64_t>(kTileQueryRows, limits.heads / limits.kv.kv_heads);
  const int64_t part = job.partial_floats(job.rows_max);
  const int64_t chunks = limits.model_len / job.args.chunk + 2;
  const int64_t parts = threads > 1 ? 4 * threads * chunks * part : 0;
  const int64_t angles = limits.tokens * limits.kv.head_dim;
  return 4 * (threads * (job.workspace_floats() + 2 * part) + parts + angles);
}

}  // namespace mantissa::cpu
