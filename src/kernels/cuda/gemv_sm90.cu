// Small-batch linear on Hopper: the copy engine streams 2 KiB of each of 16 rows of weights at a
// time into a ring in shared memory, sixteen warps multiply them with up to 8 tokens on mma.sync.
// The ring fills, and what it cannot hold goes to L2, before the kernel that makes x has ended: the
// memory does not idle between kernels. docs/kernels/cuda-gemv.md.
#include <algorithm>

#include "kernels/cuda/gemv_tile.cuh"
#include "kernels/cuda/launch.cuh"

namespace mantissa::cuda {
namespace {

constexpr int kWarps = 16, kThreads = kWarps * 32;  // that multiply; one more warp loads
constexpr int kUnitLines = 1;                       // of 128 bytes, that a warp takes of a stage
constexpr int kPieceMax = kWarps * kUnitLines * kLine;  // bytes of a row in a stage
constexpr int kRowPad = 64;  // so that two rows that a quarter of a warp reads never share a bank
constexpr int kStagesMax = 16;
// A block has a multiprocessor to itself. Where two fit, the hardware deals a grid out by groups of
// multiprocessors: some get two blocks, others none (int8_weight_only 31 -> 47 us).
constexpr int kSharedMax = 227 << 10, kSharedLeast = 116 << 10;
constexpr int kBarriers = 4 + 2 * kStagesMax;

// Where things lie in shared memory (bytes), and how a block goes through its tiles.
struct Ring {
  int stages, stage_bytes;
  int piece, pieces, pitch;  // bytes of a row in a stage, stages of a row, bytes between rows
  int tiles_a_turn;          // between two barriers of the warps
  int ahead;                 // stages that go to L2 before x is there
  int x, x_sums, params, params_bytes, zeros, parts, barriers, bytes;
};

// The tiles of a block.
struct Share {
  int first, end;
};
__device__ Share share_of(int n) {
  const int tiles = (n + kRows - 1) / kRows;
  const auto at = [&](unsigned block) {
    return static_cast<int>(int64_t{tiles} * block / gridDim.x);
  };
  return {at(blockIdx.x), at(blockIdx.x + 1)};
}

struct Barriers {
  uint64_t *full, *empty, *params_full, *params_empty;  // [stages], [stages], [2], [2]
  __device__ explicit Barriers(unsigned char* at)
      : full(reinterpret_cast<uint64_t*>(at)),
        empty(full + kStagesMax),
        params_full(empty + kStagesMax),
        params_empty(params_full + 2) {}
  __device__ void init(int stages) const {
    for (int s = 0; s < stages; ++s) {
      ptx::mbarrier_init(full + s, 1);
      ptx::mbarrier_init(empty + s, kWarps);
    }
    for (int half = 0; half < 2; ++half) {
      ptx::mbarrier_init(params_full + half, 1);
      ptx::mbarrier_init(params_empty + half, kWarps);
    }
    ptx::fence_barrier_init();
  }
};

// ---- the warp that loads

// Group scales and zero points of the tiles of a turn, into half `half` of the parameters.
template <class F>
__device__ void fetch_params(const GemvArgs& a, const Plan& p, const Ring& ring,
                             unsigned char* shared, uint64_t* barrier, int tile, int end,
                             int half) {
  const int rows = min(a.n, min(end, tile + ring.tiles_a_turn) * kRows) - tile * kRows;
  const int64_t first = int64_t{tile} * kRows * p.groups;
  const auto round = [](int bytes) { return static_cast<uint32_t>(bytes + 15) & ~15u; };
  const uint32_t scale_bytes = round(rows * p.groups * 2);
  const uint32_t zero_bytes = F::kZeros ? round(rows * p.groups) : 0;
  unsigned char* to = shared + ring.params + half * ring.params_bytes;
  ptx::mbarrier_expect_bytes(barrier, scale_bytes + zero_bytes);
  ptx::bulk_load(to, static_cast<const uint16_t*>(a.w_scale) + first, scale_bytes, barrier);
  if (F::kZeros) ptx::bulk_load(to + ring.zeros, a.w_zero + first, zero_bytes, barrier);
}

// The stages of a block in order; lane r moves row r.
template <class F>
__device__ void produce(const GemvArgs& a, const Plan& p, const Ring& ring, unsigned char* shared,
                        const Barriers& barriers, const Share& share) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int count = (share.end - share.first) * ring.pieces;
  const auto row_bytes = static_cast<int>(a.row_bytes);
  const auto source = [&](int tile, int piece) {
    return a.w + (int64_t{tile} * kRows + lane) * a.row_bytes + piece * ring.piece;
  };
  int slot = 0, turn_tile = 0, piece = 0;
  uint32_t parity = 1;  // of the phase in which a slot is free: at first all are
  for (int i = 0, tile = share.first; i < count; ++i) {
    if (F::kSubs > 0 && piece == 0 && turn_tile == 0) {
      const int turn = (tile - share.first) / ring.tiles_a_turn;
      if (turn >= 2) ptx::mbarrier_wait(barriers.params_empty + turn % 2, (turn / 2 + 1) % 2);
      if (lane == 0) {
        fetch_params<F>(a, p, ring, shared, barriers.params_full + turn % 2, tile, share.end,
                        turn % 2);
      }
    }
    if (i == ring.stages) {
      // The ring is full: what follows goes to L2 meanwhile.
      for (int j = 0; j < ring.ahead && i + j < count; ++j) {
        const int t = share.first + (i + j) / ring.pieces, at = (i + j) % ring.pieces;
        if (lane < kRows && t * kRows + lane < a.n) {
          ptx::bulk_prefetch_l2(source(t, at), min(ring.piece, row_bytes - at * ring.piece));
        }
      }
    }
    if (i >= ring.stages) ptx::mbarrier_wait(barriers.empty + slot, parity);
    const int rows = min(kRows, a.n - tile * kRows);
    const int bytes = min(ring.piece, row_bytes - piece * ring.piece);
    if (lane == 0) ptx::mbarrier_expect_bytes(barriers.full + slot, rows * bytes);
    __syncwarp();  // the bytes are expected
    if (lane < rows) {
      ptx::bulk_load(shared + slot * ring.stage_bytes + lane * ring.pitch, source(tile, piece),
                     bytes, barriers.full + slot);
    }
    if (++slot == ring.stages) {
      slot = 0;
      parity ^= 1;
    }
    if (++piece == ring.pieces) {
      piece = 0;
      ++tile;
      if (++turn_tile == ring.tiles_a_turn) turn_tile = 0;
    }
  }
}

// ---- the warps that multiply

// `bytes`: of the row that are there from `line` on.
template <class F>
__device__ void read_line(Line<F>& to, const unsigned char* stage, const Ring& ring, int line,
                          int bytes, int lane) {
#pragma unroll
  for (int b = 0; b < 2; ++b) {
    const int at = b * 64 + lane % 4 * 16;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const unsigned char* from = stage + (lane / 4 + r * 8) * ring.pitch + line * kLine + at;
      to.codes[b][r] = at < bytes ? *reinterpret_cast<const uint4*>(from) : uint4{0, 0, 0, 0};
    }
  }
}

template <class F>
__device__ void read_groups(Line<F>& to, const Plan& p, const Ring& ring,
                            const unsigned char* params, int row, int line) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int first = (row + r * 8) * p.groups;
    const auto* scales = reinterpret_cast<const uint16_t*>(params) + first;
    const auto* zeros = reinterpret_cast<const int8_t*>(params + ring.zeros) + first;
#pragma unroll
    for (int b = 0; b < 2; ++b)
      to.groups[b][r] = load_groups<F>(scales, zeros, p, min(line * 2 + b, p.blocks - 1));
  }
}

// A warp's share of a stage: one line of the piece.
template <class F>
__device__ void multiply_stage(Sums<F, kUnitLines>& sums, const GemvArgs& a, const Plan& p,
                               const Ring& ring, const unsigned char* shared,
                               const unsigned char* stage, const unsigned char* params, int row,
                               int piece, uint64_t* empty) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int in_piece = warp * kUnitLines, line = piece * (ring.piece / kLine) + in_piece;
  const int bytes = static_cast<int>(a.row_bytes) - line * kLine;
  const bool mine = in_piece * kLine < ring.piece && bytes > 0;
  Line<F> lines[kUnitLines];
  if (mine) {
#pragma unroll
    for (int i = 0; i < kUnitLines; ++i) {
      // Lines beyond the piece are another stage's: nothing of them.
      const bool in = in_piece + i < ring.piece / kLine;
      read_line(lines[i], stage, ring, in_piece + i, in ? bytes - i * kLine : 0, lane);
      if constexpr (F::kSubs > 0) read_groups(lines[i], p, ring, params, row, line + i);
    }
  }
  __syncwarp();  // the stage has been read
  if (lane == 0) ptx::mbarrier_arrive(empty);
  if (!mine) return;
  const unsigned char* x = shared + ring.x + min(lane / 4, a.m - 1) * p.token_bytes +
                           lane % 4 * (F::kWide ? 32 : 16) + line * 2 * F::kXBlock;
  const auto* x_sums = reinterpret_cast<const float*>(shared + ring.x_sums);
  multiply(sums, lines, x, x_sums + x_sum_count<F>(line) + lane % 4 * 2,
           F::kIntegers && a.x_zero != nullptr);
}

template <class F>
__device__ void consume(const GemvArgs& a, const Plan& p, const Ring& ring, unsigned char* shared,
                        const Barriers& barriers, const Share& share) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int part_size = a.m * kRows, turn_size = ring.tiles_a_turn * kWarps * part_size;
  const int of_part = static_cast<int>(threadIdx.x) % part_size;
  const int of_tile = static_cast<int>(threadIdx.x) / part_size;
  int slot = 0;
  uint32_t parity = 0;
  for (int turn = 0, tile0 = share.first; tile0 < share.end; ++turn, tile0 += ring.tiles_a_turn) {
    const int tiles = min(ring.tiles_a_turn, share.end - tile0);
    // This thread's result of the turn.
    const int row = (tile0 + of_tile) * kRows + of_part % kRows;
    const bool stores = of_tile < tiles && row < a.n;
    Finish finish;
    if (stores) finish = load_finish<F>(a, of_part / kRows, row);
    if (F::kSubs > 0) ptx::mbarrier_wait(barriers.params_full + turn % 2, turn / 2 % 2);
    const unsigned char* params = shared + ring.params + turn % 2 * ring.params_bytes;
    auto* parts = reinterpret_cast<typename F::Sum*>(shared + ring.parts) + turn % 2 * turn_size;
    for (int t = 0; t < tiles; ++t) {
      Sums<F, kUnitLines> sums;
      for (int piece = 0; piece < ring.pieces; ++piece) {
        ptx::mbarrier_wait(barriers.full + slot, parity);
        multiply_stage(sums, a, p, ring, shared, shared + slot * ring.stage_bytes, params,
                       t * kRows + lane / 4, piece, barriers.empty + slot);
        if (++slot == ring.stages) {
          slot = 0;
          parity ^= 1;
        }
      }
      put_part(a, sums, parts + (t * kWarps + warp) * part_size, lane / 4);
    }
    if (F::kSubs > 0 && lane == 0) ptx::mbarrier_arrive(barriers.params_empty + turn % 2);
    ptx::named_barrier(1, kThreads);  // every warp's part is there
    if (stores) {
      typename F::Sum sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += parts[(of_tile * kWarps + w) * part_size + of_part];
      store<F>(a, of_part / kRows, row, sum, finish);
    }
  }
}

template <class F>
__global__ void __launch_bounds__(kThreads + 32, 1)
    gemv_kernel__sm90(const __grid_constant__ GemvArgs a, const __grid_constant__ Plan p,
                      const __grid_constant__ Ring ring) {
  extern __shared__ __align__(128) unsigned char shared[];
  const Barriers barriers(shared + ring.barriers);
  const Share share = share_of(a.n);
  ptx::grid_dependency_launch();  // the next grid waits for room
  if (threadIdx.x == kThreads) barriers.init(ring.stages);
  __syncthreads();  // the barriers exist
  if (threadIdx.x >= kThreads) return produce<F>(a, p, ring, shared, barriers, share);
  ptx::grid_dependency_wait();  // x is written, and what reads out is done
  stage_input<F>(a, shared + ring.x, reinterpret_cast<float*>(shared + ring.x_sums), p.token_bytes,
                 p.aligned, kThreads);
  ptx::copy_wait<0>();
  ptx::named_barrier(1, kThreads);  // x is there
  consume<F>(a, p, ring, shared, barriers, share);
}

// ---- launch

template <class F>
Ring ring_of(const GemvArgs& a, const Plan& p, int piece, int limit) {
  const auto round = [](int bytes, int to) { return (bytes + to - 1) / to * to; };
  Ring r{};
  const int row_bytes = static_cast<int>(a.row_bytes);
  r.pieces = (row_bytes + piece - 1) / piece;
  r.piece = round((row_bytes + r.pieces - 1) / r.pieces, kLine);
  r.pieces = (row_bytes + r.piece - 1) / r.piece;
  r.pitch = r.piece + kRowPad;
  r.stage_bytes = kRows * r.pitch;
  r.tiles_a_turn = std::max(1, std::min(F::kSubs > 0 ? 2 : 1, kWarps * 2 / a.m));
  r.ahead = a.ahead >= 0 ? a.ahead : 0;
  r.zeros = round(r.tiles_a_turn * kRows * p.groups * 2, 16);
  r.params_bytes = F::kSubs == 0 ? 0 : r.zeros + (F::kZeros ? round(r.zeros / 2, 16) : 0);
  const int part_bytes = 2 * r.tiles_a_turn * kWarps * a.m * kRows * 4;
  const int fixed = a.m * p.token_bytes + x_sum_count<F>(p.lines) * 4 + 2 * r.params_bytes +
                    part_bytes + kBarriers * 8;
  r.stages = std::clamp((limit - fixed) / r.stage_bytes, 0, kStagesMax);
  if (a.stages > 0) r.stages = std::min(r.stages, a.stages);
  r.x = r.stages * r.stage_bytes;
  r.x_sums = r.x + a.m * p.token_bytes;
  r.params = r.x_sums + x_sum_count<F>(p.lines) * 4;
  r.parts = r.params + 2 * r.params_bytes;
  r.barriers = r.parts + part_bytes;
  r.bytes = r.barriers + kBarriers * 8;
  return r;
}
// Rows in pieces of 2 KiB, or smaller ones where x leaves no room for two stages.
template <class F>
Ring ring_of(const GemvArgs& a, const Plan& p) {
  Ring r{};
  for (int piece = a.piece > 0 ? a.piece : kPieceMax; r.stages < 2 && piece >= kLine; piece /= 2)
    r = ring_of<F>(a, p, piece, a.shared_kib > 0 ? a.shared_kib << 10 : kSharedMax);
  r.bytes = std::max(r.bytes, kSharedLeast);
  return r;
}

template <class F>
void launch_format(const GemvArgs& a, cudaStream_t stream) {
  void (*const kernel)(GemvArgs, Plan, Ring) = gemv_kernel__sm90<F>;
  static const bool configured = [&] {
    cuda_check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedMax),
        "giving the small-batch linear its shared memory");
    return true;
  }();
  (void)configured;
  Plan p = plan_of<F>(a);
  p.lines = (p.lines + kUnitLines - 1) / kUnitLines * kUnitLines;
  p.token_bytes = p.lines * 2 * F::kXBlock + F::kXPad;
  const Ring ring = ring_of<F>(a, p);
  const int tiles = (a.n + kRows - 1) / kRows;
  launch("launching gemv_kernel__sm90", kernel,
         {.grid = dim3(static_cast<unsigned>(std::min(tiles, multiprocessors()))),
          .block = dim3(kThreads + 32),
          .shared_bytes = static_cast<size_t>(ring.bytes)},
         stream, a, p, ring);
}

template <class T, int kSubs>
void launch_zeros(const GemvArgs& a, cudaStream_t stream) {
  if (a.w_zero != nullptr) return launch_format<Format<GemvWeight::kS4, T, kSubs, true>>(a, stream);
  launch_format<Format<GemvWeight::kS4, T, kSubs, false>>(a, stream);
}
template <class T>
void launch_groups(const GemvArgs& a, cudaStream_t stream) {
  if (a.group_cols == 32) return launch_zeros<T, 4>(a, stream);
  if (a.group_cols == 64) return launch_zeros<T, 2>(a, stream);
  launch_zeros<T, 1>(a, stream);
}
// Codes against codes are multiplied as f16.
template <class T>
void launch_values(const GemvArgs& a, cudaStream_t stream) {
  if (a.weight == GemvWeight::kRun) launch_format<Format<GemvWeight::kRun, T>>(a, stream);
  if (a.weight == GemvWeight::kE4M3) launch_format<Format<GemvWeight::kE4M3, T>>(a, stream);
  if (a.weight == GemvWeight::kS8) launch_format<Format<GemvWeight::kS8, T>>(a, stream);
  if (a.weight == GemvWeight::kS4) launch_groups<T>(a, stream);
}

}  // namespace

std::string gemv_sm90_why_not(const GemvArgs& a) {
  if (a.m > kGemvRowsMax) return "more than 8 rows";
  const int64_t groups = a.weight == GemvWeight::kS4 ? a.k / std::max(1, a.group_cols) : 0;
  // Two stages of 256 bytes a row, parameters and parts of two tiles twice, K in whole units.
  if (gemv_input_bytes(a) + 2 * 2 * kRows * groups * 3 + 2 * kRows * (256 + kRowPad) +
          2 * 2 * kWarps * a.m * kRows * 4 + 2048 >
      kSharedMax)
    return "the activations do not fit in shared memory";
  if (a.k == 0) return "K is 0";
  return weights_why_not(a);
}

void gemv__sm90(const GemvArgs& a, cudaStream_t stream) {
  if (a.m == 0 || a.n == 0) return;
  if (a.weight == GemvWeight::kS8 && a.input == GemvInput::kS8) {
    launch_format<Format<GemvWeight::kS8, int8_t>>(a, stream);
  } else if (a.input != GemvInput::kRun || a.run_is_f16) {
    launch_values<__half>(a, stream);
  } else {
    launch_values<__nv_bfloat16>(a, stream);
  }
}

}  // namespace mantissa::cuda
