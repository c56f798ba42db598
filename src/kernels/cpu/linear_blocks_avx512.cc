// `linear` in bf16 dot products of packed codes with many rows: x in blocks of rows, pair by pair
// (linear_abi.h), so that one pointer reaches all rows of a block. Weights are decoded in registers
// for up to kBlockRows rows at once: decoding takes ports that dot products leave free, as long as
// nothing but permutations, logic and additions of bytes is in it (docs/kernels/linear.md).
#include <type_traits>

#include "kernels/cpu/linear_avx512.h"

namespace mantissa::cpu {
namespace {

#include "kernels/cpu/linear_common.inc"
// In this order.
#include "kernels/cpu/linear_bf16_weights.inc"

// Rows of a block are a multiple of this, up to kBlockRowsMost. Of the rarer formats there are
// fewer kernels: the compiler takes long over each.
template <class Weight>
constexpr int kRowStep = kRowsDirect<Weight> > 1 ? 2 : 8;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kRowsMost = 8;  // g++ takes minutes for more, instrumented
#else
constexpr int kRowsMost = kBlockRowsMost;
#endif
// So many sums are enough for the chains of additions to overlap; else two strips make them.
constexpr int kSumsEnough = 10;
// Weights whose decoding is hidden behind dot products; bf16 is multiplied as it stands, the others
// have masks of bytes, or more tables than registers.
template <class Weight>
constexpr bool kInBlocks = false;
template <>
constexpr bool kInBlocks<CodeInt8> = true;
template <int kBits, bool kHalf>
constexpr bool kInBlocks<CodeBytes<kBits, kHalf>> = true;
template <int kBits, bool kZeros>
constexpr bool kInBlocks<CodeWords<kBits, kZeros>> = true;
template <int kBits>
constexpr bool kInBlocks<CodeFields<kBits>> = true;
constexpr int64_t kGroupLeast = 64, kShortGroupRows = 32;
constexpr int64_t kBlockPanelInputs = 512;  // x of a block: 16 KiB, in the first-level cache

// A block of x times K blocks [begin, end) of a tile, whole groups.
struct BlockRun {
  const LinearArgs& a;
  const TileShape& t;
  int64_t begin, end;
  int64_t m, rows;    // of x that are no padding
  const uint16_t* x;  // [pairs][kRows][2] from K block `begin`
  float* sums;        // [kRows][kTile]
};

// Packed bytes that will be read next, fetched into L2 meanwhile.
struct Share {
  const uint8_t* first;
  int64_t bytes;

  // The i-th of `count` parts, and those after it.
  MANTISSA_INLINE Share part(int64_t i, int64_t count, int64_t parts = 1) const {
    return {first + bytes / count * i, bytes / count * parts};
  }
};

// The type that is multiplied where `Weight` may find a code it does not decode.
template <class Weight>
struct ExactOf {
  using Type = Weight;
};
template <>
struct ExactOf<CodeInt8Above> {
  using Type = CodeInt8;
};

// sums of strips [strip, strip + kStrips) += x * weights; groups in order.
template <class Weight, int kRows, int kStrips>
__attribute__((noinline)) static void run_block(const BlockRun& run, const Weight& packed,
                                                int64_t strip, const Share& ahead) {
  using Exact = typename ExactOf<Weight>::Type;
  constexpr int kPairs = Weight::kSteps * Weight::kOperands;  // of a K block
  const Weight weight = packed;
  const LinearArgs& a = run.a;
  const int64_t jump = run.t.strips * a.block_bytes, stride = run.t.strips * kBlockBytes;
  const bool scaled = kMantissaInOperands<Weight> || a.group_scales != nullptr;
  const int64_t group_blocks = a.group_blocks > 0 ? a.group_blocks : a.k_blocks;
  const uint8_t* w = a.weight + run.t.entry(a.k_blocks) / kStrip * a.block_bytes +
                     run.begin * jump + strip * kBlockBytes;
  const uint16_t* x = run.x;
  float* sums = run.sums + strip * kStrip;
  const uint8_t* next = ahead.first;
  const int64_t next_bytes = (ahead.bytes + run.end - run.begin - 1) / (run.end - run.begin);
  for (int64_t b = run.begin, stop = 0; b < run.end; b = stop) {
    const int64_t group = b / group_blocks;
    stop = least(run.end, (group + 1) * group_blocks);
    StripsGroup<Weight, kStrips> g(a, run.t, group, strip);
    F part[kRows][kStrips];
    each<kRows, kStrips>([&](auto r, auto s) MANTISSA_INLINE {
      part[r()][s()] = scaled ? zero() : load(sums + r() * kTile + s() * kStrip);
    });
    const uint16_t* first = x;
    for (const uint16_t* last = x + (stop - b) * kPairs * kRows * 2; x < last;
         x += kPairs * kRows * 2, w += jump) {
      for (const uint8_t* end = next + next_bytes; next < end; next += kBlockBytes)
        __builtin_prefetch(next, 0, 2);
      each<Weight::kSteps, kStrips>([&](auto step, auto s) MANTISSA_INLINE {
        I operands[Weight::kOperands];
        const LoadedBlock block{{w + s() * kBlockBytes, stride}};
        weight.template operands<step()>(block, g.states[s()], operands);
        each<Weight::kOperands, kRows>([&](auto i, auto r) MANTISSA_INLINE {
          dot_bf16_at(part[r()][s()], operands[i()],
                      x + 2 * (r() + kRows * (step() * Weight::kOperands + i())));
        });
      });
    }
    if constexpr (!std::is_same_v<Exact, Weight>) {
      bool exact = true;
      unrolled<kStrips>([&](auto s) MANTISSA_INLINE { exact &= g.states[s()].exact(); });
      if (!exact) {
        const BlockRun again{a, run.t, b, stop, run.m, run.rows, first, run.sums};
        run_block<Exact, kRows, kStrips>(again, Exact(a), strip, Share{ahead.first, 0});
        continue;
      }
    }
    if (a.x_group_scales != nullptr) {
      each<kRows, kStrips>([&](auto r, auto s) MANTISSA_INLINE {
        if (r() < run.rows) part[r()][s()] = scale_x(a, run.m + r(), group, part[r()][s()]);
      });
    }
    unrolled<kStrips>([&](auto s) MANTISSA_INLINE {
      float* to = sums + s() * kStrip;
      if (scaled) {
        const F factor = g.factor(a, run.t, group, strip + s(), s());
        unrolled<kRows>([&](auto r) MANTISSA_INLINE {
          store(to + r() * kTile, fma(part[r()][s()], factor, load(to + r() * kTile)));
        });
      } else {
        unrolled<kRows>([&](auto r) MANTISSA_INLINE { store(to + r() * kTile, part[r()][s()]); });
      }
    });
  }
}

// All strips of a tile times a block of kRows rows.
template <int kRows, class Weight>
static void run_strips(const BlockRun& run, const Weight& weight, const Share& ahead) {
  constexpr int kStrips = kRows < kSumsEnough && kRowsDirect < Weight >> 1 ? 2 : 1;
  const int64_t strips = run.t.strips;
  int64_t s = 0;
  for (; s + kStrips <= strips; s += kStrips)
    run_block<Weight, kRows, kStrips>(run, weight, s, ahead.part(s, strips, kStrips));
  for (; s < strips; ++s) run_block<Weight, kRows, 1>(run, weight, s, ahead.part(s, strips));
}

// Calls call(Index<rows>), a multiple of kStep.
template <int kStep, int kMost, class Call>
static void with_rows(int64_t rows, const Call& call) {
  if constexpr (kMost > kStep) {
    if (rows < kMost) return with_rows<kStep, kMost - kStep>(rows, call);
  }
  call(Index<kMost>{});
}

template <class Weight>
static void run_tile(const LinearArgs& a, const Weight& weight, const TileShape& t, int64_t m_begin,
                     int64_t m_end, float* sums) {
  const int64_t width = a.k_blocks * a.inputs, jump = t.strips * a.block_bytes;
  const uint8_t* tile = a.weight + t.entry(a.k_blocks) / kStrip * a.block_bytes;
  const int64_t blocks = (m_end - m_begin + a.x_block - 1) / a.x_block;
  int64_t panel = kBlockPanelInputs / a.inputs;
  if (a.group_blocks > 0)
    panel = a.group_blocks > panel ? a.group_blocks : panel / a.group_blocks * a.group_blocks;
  for (int64_t i = 0; i < blocks * a.x_block * kTile; i += kStrip) store(sums + i, zero());
  for (int64_t b = 0; b < a.k_blocks; b += panel) {
    const int64_t end = least(b + panel, a.k_blocks);
    const Share next{tile + end * jump, (end - b) * jump};
    for (int64_t m = m_begin, i = 0; m < m_end; m += a.x_block, ++i) {
      const int64_t rows = least(a.x_block, m_end - m);
      const int64_t padded = padded_rows(rows, a.x_row_step);
      const BlockRun run{a,
                         t,
                         b,
                         end,
                         m,
                         rows,
                         static_cast<const uint16_t*>(a.x) + m * width + b * a.inputs * padded,
                         sums + (m - m_begin) * kTile};
      if (end == a.k_blocks) Outputs(a, t, m).fetch(0, rows);
      with_rows<kRowStep<Weight>, kRowsMost>(padded, [&](auto count) MANTISSA_INLINE {
        run_strips<count()>(run, weight, next.part(i, blocks));
      });
      if (end == a.k_blocks) finish_rows(a, t, m, m + rows, run.sums);
    }
  }
}

template <class Call>
MANTISSA_SIMD void with_block_weight(const LinearArgs& a, const Call& call) {
  with_weight<true>(a, [&](const auto& weight) MANTISSA_INLINE {
    using Weight = std::remove_cvref_t<decltype(weight)>;
    if constexpr (std::is_same_v<Weight, CodeInt8>) {
      call(CodeInt8Above(a));
    } else if constexpr (kInBlocks<Weight>) {
      call(weight);
    }
  });
}

static void run_blocks(const LinearArgs& a, const LinearRange& range, std::byte* scratch) {
  auto* sums = reinterpret_cast<float*>(scratch);
  const int64_t at_once = kRowsAtOnce / a.x_block * a.x_block;
  with_block_weight(a, [&](const auto& weight) MANTISSA_INLINE {
    for (int64_t tile = range.tile_begin; tile < range.tile_end; ++tile)
      for (int64_t m = range.m_begin; m < range.m_end; m += at_once)
        run_tile(a, weight, tile_shape(a, tile), m, least(m + at_once, range.m_end), sums);
  });
}

// None where there is a better kernel (linear_bf16.inc): few rows are multiplied by what reads
// weights in one sequence; sums of short groups are added in registers there, so that blocks win
// only where a panel's decoding is shared by few rows.
static RowBlocks row_blocks(const LinearArgs& a, int64_t rows) {
  RowBlocks out;
  const bool short_groups = a.group_blocks > 0 && a.group_blocks * a.inputs < kGroupLeast;
  if (short_groups && (a.bits <= 4 || rows > kShortGroupRows)) return out;
  with_block_weight(a, [&](const auto& weight) MANTISSA_INLINE {
    using Weight = std::remove_cvref_t<decltype(weight)>;
    if (rows <= kRowsDirect<Weight>) return;
    const int64_t blocks = (rows + kRowsMost - 1) / kRowsMost;
    out.step = kRowStep<Weight>;
    out.rows = padded_rows((rows + blocks - 1) / blocks, out.step);
  });
  return out;
}

// A vector of each of 16 rows to 16 columns.
MANTISSA_SIMD void transpose(I (&v)[16]) {
  I t[16];
  unrolled<4>([&](auto i) MANTISSA_INLINE {
    const I* row = v + 4 * i();
    const I low01 = _mm512_unpacklo_epi32(row[0], row[1]),
            high01 = _mm512_unpackhi_epi32(row[0], row[1]),
            low23 = _mm512_unpacklo_epi32(row[2], row[3]),
            high23 = _mm512_unpackhi_epi32(row[2], row[3]);
    t[4 * i()] = _mm512_unpacklo_epi64(low01, low23);
    t[4 * i() + 1] = _mm512_unpackhi_epi64(low01, low23);
    t[4 * i() + 2] = _mm512_unpacklo_epi64(high01, high23);
    t[4 * i() + 3] = _mm512_unpackhi_epi64(high01, high23);
  });
  unrolled<4>([&](auto c) MANTISSA_INLINE {
    constexpr int kEven = 0x88, kOdd = 0xdd;  // lanes of both operands
    const I even0 = _mm512_shuffle_i32x4(t[c()], t[4 + c()], kEven),
            odd0 = _mm512_shuffle_i32x4(t[c()], t[4 + c()], kOdd),
            even1 = _mm512_shuffle_i32x4(t[8 + c()], t[12 + c()], kEven),
            odd1 = _mm512_shuffle_i32x4(t[8 + c()], t[12 + c()], kOdd);
    v[c()] = _mm512_shuffle_i32x4(even0, even1, kEven);
    v[4 + c()] = _mm512_shuffle_i32x4(odd0, odd1, kEven);
    v[8 + c()] = _mm512_shuffle_i32x4(even0, even1, kOdd);
    v[12 + c()] = _mm512_shuffle_i32x4(odd0, odd1, kOdd);
  });
}

static void stage_block(const BlockStage& s) {
  const int64_t count = s.padded;
  const auto kept = static_cast<__mmask16>((1u << count) - 1);
  for (int64_t k = 0; k < s.width; k += 2 * kLanes) {
    const int64_t inputs = s.cols - k;
    const __mmask32 there = inputs >= 2 * kLanes ? ~__mmask32{0}
                            : inputs > 0         ? (__mmask32{1} << inputs) - 1
                                                 : 0;
    I rows[16];
    unrolled<16>([&](auto r) MANTISSA_INLINE {
      rows[r()] =
          r() < s.rows ? _mm512_maskz_loadu_epi16(there, s.from + r() * s.stride + k) : set1i(0);
    });
    transpose(rows);
    uint16_t* to = s.to + k * count;
    const int64_t pairs = least(kLanes, (s.width - k + 1) / 2);
    unrolled<16>([&](auto p) MANTISSA_INLINE {
      if (p() < pairs) _mm512_mask_storeu_epi32(to + 2 * count * p(), kept, rows[p()]);
    });
  }
}

}  // namespace

const BlockIsa kBlocksAvx512{run_blocks, row_blocks, stage_block};

}  // namespace mantissa::cpu
