// A token for each row of logits, the same one as on the host (kernels/sampling.h): the arithmetic
// is shared text (sampling_math.h), every sum one of integers. Two kernels: `row_maxima` reads all
// rows with the whole GPU and leaves each chunk's best token; `pick` has a block for each row,
// which is done at once where the row is greedy. Otherwise it selects by mass: tokens ordered by
// (logit descending, id ascending) are counted into bins by the leading bits of that order, the bin
// where the wanted mass is reached is found, and so on within it. What a bin holds is listed in
// shared memory as soon as it fits there.
#include <cfloat>
#include <climits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/queue.h"
#include "kernels/sampling_math.h"

namespace mantissa::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kChunkThreads = 256;
// Tokens of a chunk that a thread takes: many blocks for few rows, few merges for many.
constexpr int kEachFew = 8, kEachMany = 32, kRowsFew = 8;
constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kBinBits = 11, kBins = 1 << kBinBits, kIdBits = 19;
constexpr int kListMax = 1024;
constexpr int kRun = 512;  // tokens whose mass is summed together, in order of id
static_assert(kVocabMax <= 1 << kIdBits && kVocabMax <= int64_t{kRun} * kThreads);

struct Best {
  float logit;
  int32_t id;
};
__device__ Best better(Best a, Best b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id) ? a : b;
}
// What a chunk, or a row, holds. bad: the first NaN or +infinity, INT_MAX where there is none.
struct Maxima {
  Best best;             // of penalized logits
  int32_t bad;           // of raw logits
  int32_t all_minus;     // every raw logit is -infinity
  int32_t out_of_range;  // a penalized logit is NaN or +infinity
  int32_t reserved;
};
__device__ Maxima merge(const Maxima& a, const Maxima& b) {
  return {better(a.best, b.best), min(a.bad, b.bad), a.all_minus & b.all_minus,
          a.out_of_range | b.out_of_range, 0};
}
// Ascending where logits descend; -0 is 0.
__device__ uint32_t descending(float logit) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);
  return bits >> 31 != 0 ? bits : ~(bits | 0x80000000u);
}
__device__ float logit_at(uint32_t order) {
  return __uint_as_float(order >> 31 != 0 ? order : ~order & 0x7fffffffu);
}
__device__ Maxima warp_merge(const Maxima& m) {
  const uint32_t mine = descending(m.best.logit), first = __reduce_min_sync(kAll, mine);
  const int32_t id = __reduce_min_sync(kAll, mine == first ? m.best.id : INT_MAX);
  return {{logit_at(first), id},
          __reduce_min_sync(kAll, m.bad),
          __all_sync(kAll, m.all_minus),
          __any_sync(kAll, m.out_of_range),
          0};
}
constexpr Maxima kNothing = {{-INFINITY, INT_MAX}, INT_MAX, 1, 0, 0};

// One row's logits as they are sampled from.
struct Row {
  const float* logits;
  const uint32_t* seen;  // nullptr: no penalty
  float penalty;
  int n;
  float max, factor;  // of weights

  __device__ float at(int i) const {
    const float v = logits[i];
    return seen != nullptr && sampling::seen(seen, i) ? sampling::penalized(v, penalty) : v;
  }
  __device__ float weight(float logit) const { return sampling::weight_of(logit, max, factor); }
};
__device__ const StepSequence& owner_of(const SampleCall& call, int row) {
  return call.sequence[call.owners != nullptr ? call.owners[row] : row];
}
__device__ Row row_of(const SampleCall& call, int r, const StepSequence& q) {
  const bool penalized = q.sampling.repetition_penalty != 1;
  return {.logits = call.logits.data + r * call.logits.stride,
          .seen = penalized ? call.seats.seen.data + q.seat * call.seats.seen.stride : nullptr,
          .penalty = q.sampling.repetition_penalty,
          .n = static_cast<int>(call.logits.cols),
          .max = 0,
          .factor = 0};
}

template <int kEach>
__global__ void row_maxima(SampleCall call, Maxima* out) {
  constexpr int kChunk = kChunkThreads * kEach, kPartials = kChunkThreads / 32;
  __shared__ Maxima partial[kPartials];
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  const StepSequence& q = owner_of(call, blockIdx.y);
  const Row row = row_of(call, blockIdx.y, q);
  const int begin = blockIdx.x * kChunk, end = min(row.n, begin + kChunk);
  float raw[kEach];  // all loads are under way before the first value is looked at
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const int i = begin + k * kChunkThreads + static_cast<int>(threadIdx.x);
    raw[k] = i < end ? row.logits[i] : -INFINITY;
  }
  Maxima m = kNothing;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const int i = begin + k * kChunkThreads + static_cast<int>(threadIdx.x);
    const float v = row.seen != nullptr && i < end && sampling::seen(row.seen, i)
                        ? sampling::penalized(raw[k], row.penalty)
                        : raw[k];
    if (v > m.best.logit) m.best = {v, i};  // ids ascend: the first of equal ones stays
    if (!(raw[k] < INFINITY)) m.bad = min(m.bad, i);
    if (raw[k] != -INFINITY) m.all_minus = 0;
    if (!(v < INFINITY)) m.out_of_range = 1;
  }
  m = warp_merge(m);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = m;
  __syncthreads();  // every warp's part is there
  if (threadIdx.x >= 32) return;
  m = kNothing;
  if (threadIdx.x < kPartials) m = partial[threadIdx.x];
  m = warp_merge(m);
  if (threadIdx.x == 0) out[blockIdx.y * gridDim.x + blockIdx.x] = m;
}

// ---- selection by count or by mass

// Position in the order of (logit descending, id ascending).
__device__ uint64_t order_of(uint32_t logit_order, int id) {
  return uint64_t{logit_order} << kIdBits | static_cast<uint32_t>(id);
}

// Tokens of the row that take part.
struct Filter {
  float least;     // weight, where above 0
  uint32_t worst;  // logit order
};

struct Shared {
  uint32_t count[kBins];
  uint32_t mass[3][kBins];  // 13 bits each of the masses' sum, as many tokens as there may be
  uint64_t warp_sums[kWarps];
  uint64_t list[kListMax];  // orders
  int listed;               // -1: not in use
  int bin;
  uint32_t bin_count;
  uint64_t before;
  Maxima row;
};

__device__ uint64_t warp_inclusive(uint64_t x) {
  const int lane = threadIdx.x % 32;
  for (int step = 1; step < 32; step *= 2) {
    const uint64_t other = __shfl_up_sync(kAll, x, step);
    if (lane >= step) x += other;
  }
  return x;
}
// Sum over the threads before this one; every thread gets the total.
__device__ uint64_t block_exclusive(Shared& s, uint64_t x, uint64_t& total) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint64_t inclusive = warp_inclusive(x);
  __syncthreads();  // warp_sums is no longer read
  if (lane == 31) s.warp_sums[warp] = inclusive;
  __syncthreads();  // and written
  uint64_t before = 0;
  total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += s.warp_sums[w];
    total += s.warp_sums[w];
  }
  return before + inclusive - x;
}

// visit(order, logit) for each token that takes part and whose order begins with `prefix`.
template <class Visit>
__device__ void for_each(const Shared& s, const Row& row, const Filter& filter, uint64_t prefix,
                         int shift, const Visit& visit) {
  if (s.listed >= 0) {
    for (int i = threadIdx.x; i < s.listed; i += kThreads) {
      const uint64_t order = s.list[i];
      if (order >> shift == prefix) visit(order, logit_at(static_cast<uint32_t>(order >> kIdBits)));
    }
    return;
  }
#pragma unroll 4
  for (int i = threadIdx.x; i < row.n; i += kThreads) {
    const float logit = row.at(i);
    const uint32_t logit_order = descending(logit);
    const uint64_t order = order_of(logit_order, i);
    if (logit_order > filter.worst || order >> shift != prefix) continue;
    if (filter.least > 0 && row.weight(logit) < filter.least) continue;
    visit(order, logit);
  }
}

__device__ uint64_t mass_of(const Row& row, const Filter& filter, Shared& s) {
  uint64_t sum = 0, total = 0;
  for_each(s, row, filter, 0, 63,
           [&](uint64_t, float logit) { sum += sampling::mass_of(row.weight(logit)); });
  block_exclusive(s, sum, total);
  return total;
}

__device__ void count_bins(Shared& s, const Row& row, const Filter& filter, bool by_mass,
                           uint64_t prefix, int shift, int bits) {
  for (int b = threadIdx.x; b < kBins; b += kThreads) {
    s.count[b] = 0;
    for (auto& part : s.mass) part[b] = 0;
  }
  __syncthreads();  // the bins are empty
  for_each(s, row, filter, prefix, shift + bits, [&](uint64_t order, float logit) {
    const int b = static_cast<int>(order >> shift) & ((1 << bits) - 1);
    atomicAdd(&s.count[b], 1u);
    if (!by_mass) return;
    const uint64_t mass = sampling::mass_of(row.weight(logit));
    if (mass == 0) return;
    for (int i = 0; i < 3; ++i) {
      const auto part = static_cast<uint32_t>(mass >> 13 * i) & (i < 2 ? 0x1fffu : ~0u);
      if (part != 0) atomicAdd(&s.mass[i][b], part);
    }
  });
  __syncthreads();  // the bins are full
}
__device__ uint64_t amount_of(const Shared& s, bool by_mass, int bin) {
  if (!by_mass) return s.count[bin];
  return uint64_t{s.mass[0][bin]} + (uint64_t{s.mass[1][bin]} << 13) +
         (uint64_t{s.mass[2][bin]} << 26);
}
// The bin where `wanted` is reached; false where all together are less.
__device__ bool find_bin(Shared& s, bool by_mass, uint64_t wanted) {
  constexpr int kEach = kBins / kThreads;
  uint64_t amounts[kEach], sum = 0, total = 0;
  for (int i = 0; i < kEach; ++i)
    sum += amounts[i] = amount_of(s, by_mass, threadIdx.x * kEach + i);
  uint64_t before = block_exclusive(s, sum, total);
  for (int i = 0; i < kEach; ++i) {
    if (before < wanted && wanted <= before + amounts[i]) {
      s.bin = static_cast<int>(threadIdx.x) * kEach + i;
      s.bin_count = s.count[s.bin];
      s.before = before;
    }
    before += amounts[i];
  }
  __syncthreads();  // the bin is known
  return wanted <= total;
}

struct Selected {
  bool found;
  uint64_t order;
  uint64_t before;  // count or mass of all better ones
};
// The first token, best first, up to which count or mass reaches `wanted` (at least 1).
__device__ Selected select(Shared& s, const Row& row, const Filter& filter, bool by_mass,
                           uint64_t wanted) {
  constexpr int kLevels = 5;
  constexpr int kBits[kLevels] = {11, 11, 10, 10, 9};  // of the logit's order, then of the id
  static_assert(11 + 11 + 10 == 32 && 10 + 9 == kIdBits);
  Selected out{false, 0, 0};
  int shift = 32 + kIdBits;
  __syncthreads();  // a list of the last selection is no longer read
  if (threadIdx.x == 0) s.listed = -1;
  __syncthreads();  // nor in use
  for (int level = 0; level < kLevels; ++level) {
    shift -= kBits[level];
    count_bins(s, row, filter, by_mass, out.order, shift, kBits[level]);
    if (!find_bin(s, by_mass, wanted - out.before)) return out;
    out.order = out.order << kBits[level] | static_cast<uint32_t>(s.bin);
    out.before += s.before;
    const bool fits = s.listed < 0 && s.bin_count <= kListMax;
    __syncthreads();  // bin and list are read
    if (!fits) continue;
    if (threadIdx.x == 0) s.count[0] = 0;
    __syncthreads();  // the counter of listed tokens
    for_each(s, row, filter, out.order, shift,
             [&](uint64_t order, float) { s.list[atomicAdd(&s.count[0], 1u)] = order; });
    __syncthreads();  // the list is complete
    if (threadIdx.x == 0) s.listed = static_cast<int>(s.count[0]);
    __syncthreads();  // and in use
  }
  out.found = true;
  return out;
}

// ---- one row

__device__ int32_t id_of(uint64_t order) {
  return static_cast<int32_t>(order & ((1u << kIdBits) - 1));
}

__device__ int32_t draw_filtered(Shared& s, const Row& row, const SampleParams& p,
                                 int64_t position) {
  Filter filter{p.min_p, UINT_MAX};
  if (p.top_k > 0 && p.top_k < row.n) {
    const Selected kth = select(s, row, filter, /*by_mass=*/false, static_cast<uint64_t>(p.top_k));
    if (kth.found) filter.worst = static_cast<uint32_t>(kth.order >> kIdBits);
  }
  __syncthreads();  // the list is no longer read
  if (threadIdx.x == 0) s.listed = -1;
  __syncthreads();  // nor in use
  uint64_t total = mass_of(row, filter, s);
  if (p.top_p < 1) {
    const uint64_t wanted = sampling::top_p_mass(p.top_p, total);
    const Selected last = select(s, row, filter, /*by_mass=*/true, wanted);
    const float logit = logit_at(static_cast<uint32_t>(last.order >> kIdBits));
    total = last.before + sampling::mass_of(row.weight(logit));
  }
  const uint64_t share = sampling::share_of(p.seed, position, total);
  return id_of(select(s, row, filter, /*by_mass=*/true, share + 1).order);
}

// Sums of kRun tokens by a warp each, then the run, then the token in it.
__device__ int32_t draw_any(Shared& s, const Row& row, const SampleParams& p, int64_t position) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto* sums = reinterpret_cast<uint64_t*>(s.mass);  // [kThreads]
  const int runs = (row.n + kRun - 1) / kRun;
  for (int run = warp; run < runs; run += kWarps) {
    uint64_t sum = 0;
#pragma unroll 4
    for (int i = run * kRun + lane; i < min(row.n, (run + 1) * kRun); i += 32)
      sum += sampling::mass_of(row.weight(row.at(i)));
    sum = warp_inclusive(sum);
    if (lane == 31) sums[run] = sum;
  }
  __syncthreads();  // every run's sum is there
  uint64_t total = 0;
  const uint64_t mine = static_cast<int>(threadIdx.x) < runs ? sums[threadIdx.x] : 0;
  const uint64_t before = block_exclusive(s, mine, total);
  const uint64_t share = sampling::share_of(p.seed, position, total);
  if (before <= share && share < before + mine) {
    s.bin = static_cast<int>(threadIdx.x);
    s.before = before;
  }
  __syncthreads();  // the run is known
  uint64_t left = share - s.before;
  for (int i = s.bin * kRun;; i += 32) {  // each warp on its own, with the same result
    const int at = i + lane;
    const uint64_t mass = at < row.n ? sampling::mass_of(row.weight(row.at(at))) : 0;
    const uint64_t inclusive = warp_inclusive(mass);
    const unsigned reached = __ballot_sync(kAll, left < inclusive);
    if (reached != 0) return i + __ffs(static_cast<int>(reached)) - 1;
    left -= __shfl_sync(kAll, inclusive, 31);
  }
}

__device__ Maxima merge_chunks(Shared& s, const Maxima* chunks, int count) {
  if (threadIdx.x < 32) {
    Maxima m = kNothing;
    for (int i = threadIdx.x; i < count; i += 32) m = merge(m, chunks[i]);
    m = warp_merge(m);
    if (threadIdx.x == 0) s.row = m;
  }
  __syncthreads();  // the row's maxima are there
  return s.row;
}

__global__ void __launch_bounds__(kThreads)
    pick(SampleCall call, const Maxima* chunks, int chunk_count) {
  __shared__ Shared s;
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  const StepSequence& q = owner_of(call, blockIdx.x);
  if (q.padding != 0) return;
  const Maxima m = merge_chunks(s, chunks + blockIdx.x * chunk_count, chunk_count);
  Row row = row_of(call, blockIdx.x, q);
  SampledRow out{};
  if (m.bad != INT_MAX) {
    out = {m.bad, SampleStatus::kBadLogit, row.logits[m.bad], 0};
  } else if (m.all_minus != 0) {
    out.status = SampleStatus::kAllMinusInfinity;
  } else if (m.out_of_range != 0 || m.best.logit == -INFINITY) {
    out.status = SampleStatus::kPenaltyRange;
  } else if (q.sampling.temperature == 0) {
    out.id = m.best.id;
  } else {
    row.max = m.best.logit;
    row.factor = 1.0f / q.sampling.temperature;
    const int64_t position = q.position + q.tokens;
    out.id = sampling::draws_from_all(q.sampling) ? draw_any(s, row, q.sampling, position)
                                                  : draw_filtered(s, row, q.sampling, position);
  }
  if (threadIdx.x != 0) return;
  call.out[q.result] = out;
  if (out.status == SampleStatus::kChosen) call.seats.sampled_ids[q.seat] = out.id;
}

__global__ void __launch_bounds__(kThreads) logprobs_kernel(SampleCall call) {
  __shared__ Shared s;
  ptx::grid_dependency_launch();
  ptx::grid_dependency_wait();
  const StepSequence& q = owner_of(call, blockIdx.x);
  if (q.padding != 0 || call.out[q.result].status != SampleStatus::kChosen) return;
  Row row = row_of(call, blockIdx.x, q);
  row.seen = nullptr;  // raw logits
  row.factor = 1;
  Maxima m = kNothing;
  for (int i = threadIdx.x; i < row.n; i += kThreads) m.best = better(m.best, {row.at(i), i});
  m = warp_merge(m);
  if (threadIdx.x % 32 == 0) s.list[threadIdx.x / 32] = order_of(descending(m.best.logit), 0);
  if (threadIdx.x == 0) s.listed = -1;
  __syncthreads();  // every warp's highest logit is there
  uint64_t highest = s.list[0];
  for (int w = 1; w < kWarps; ++w) highest = min(highest, s.list[w]);
  row.max = logit_at(static_cast<uint32_t>(highest >> kIdBits));

  const Filter finite{0, descending(-FLT_MAX)};
  const uint64_t mass = mass_of(row, finite, s);
  const int wanted = min(kLogprobsMax, row.n);
  const Selected last = select(s, row, finite, /*by_mass=*/false, static_cast<uint64_t>(wanted));
  __syncthreads();  // the list is no longer read
  if (threadIdx.x == 0) {
    s.listed = -1;
    s.count[0] = 0;
  }
  __syncthreads();  // nor in use
  const uint64_t worst = last.found ? last.order : ~uint64_t{0};
  for_each(s, row, finite, 0, 63, [&](uint64_t order, float) {
    if (order <= worst) s.list[atomicAdd(&s.count[0], 1u)] = order;
  });
  __syncthreads();  // at most kLogprobsMax are listed
  if (threadIdx.x != 0) return;
  LogprobRow& out = call.logprobs[q.result];
  out.mass = mass;
  out.max = row.max;
  out.chosen = row.logits[call.out[q.result].id];
  out.count = static_cast<int32_t>(s.count[0]);
  for (int i = 0; i < out.count; ++i) {
    int best = i;
    for (int j = i + 1; j < out.count; ++j)
      if (s.list[j] < s.list[best]) best = j;
    const uint64_t order = s.list[best];
    s.list[best] = s.list[i];
    out.ids[i] = id_of(order);
    out.logits[i] = logit_at(static_cast<uint32_t>(order >> kIdBits));
  }
}

}  // namespace

void sample(const SampleCall& call, Queue* queue) {
  if (call.logits.rows == 0) return;
  CudaQueue& q = cuda_queue(queue);
  const auto rows = static_cast<unsigned>(call.logits.rows);
  const bool few = rows <= kRowsFew;
  const int64_t chunk = kChunkThreads * (few ? kEachFew : kEachMany);
  const auto chunks = static_cast<unsigned>((call.logits.cols + chunk - 1) / chunk);
  auto* maxima =
      reinterpret_cast<Maxima*>(q.scratch(static_cast<int64_t>(sizeof(Maxima)) * rows * chunks));
  launch("launching row_maxima", few ? row_maxima<kEachFew> : row_maxima<kEachMany>,
         {.grid = dim3(chunks, rows), .block = dim3(kChunkThreads)}, q.stream.get(), call, maxima);
  launch("launching pick", pick, {.grid = dim3(rows), .block = dim3(kThreads)}, q.stream.get(),
         call, maxima, static_cast<int>(chunks));
}

void logprobs(const SampleCall& call, Queue* queue) {
  if (call.logits.rows == 0) return;
  launch("launching logprobs", logprobs_kernel,
         {.grid = dim3(static_cast<unsigned>(call.logits.rows)), .block = dim3(kThreads)},
         cuda_queue(queue).stream.get(), call);
}

}  // namespace mantissa::cuda
