// `linear` of int8 activations for any processor: the codes of some steps of a strip are widened to
// int16 once for all rows.
#include "kernels/cpu/linear_blocks.h"
#include "kernels/cpu/simd_portable.h"

namespace mantissa::cpu {
namespace {

constexpr int64_t kPackedRows = 0;  // no width is unpacked in registers here

constexpr bool kSumsToOutputs = false;

#include "kernels/cpu/linear_int.inc"

constexpr int64_t kInputsAtOnce = 64;

// A step holds 8 inputs of 4 bits or 4 in bytes.
MANTISSA_SIMD int64_t step_inputs(const IntTile& tile) {
  return tile.a.bits == 4 ? 8 : 4;
}

// Steps [first, first + steps) of a strip as [inputs][16].
static void widen_codes(const IntTile& tile, int64_t strip, int64_t first, int64_t steps,
                        int16_t* out) {
  const uint8_t* block = tile.codes + first * tile.jump() + strip * kBlockBytes;
  for (; steps > 0; --steps, block += tile.jump()) {
    for (int64_t i = 0; i < step_inputs(tile); ++i, out += kStrip) {
      for (int n = 0; n < kStrip; ++n) {
        const int code = block[4 * n + i % 4];
        out[n] = static_cast<int16_t>(tile.a.bits == 4 ? code >> i / 4 * 4 & 15 : code);
      }
    }
  }
}

// sums[r][16] += steps [first, last) of a strip, sums of rows kTile apart.
static void strip_sums(const IntTile& tile, int64_t strip, int64_t first, int64_t last,
                       int32_t* sums) {
  const int64_t inputs = step_inputs(tile), at_once = kInputsAtOnce / inputs;
  for (; first < last; first += at_once) {
    const int64_t steps = least(at_once, last - first);
    int16_t codes[kInputsAtOnce * kStrip];
    widen_codes(tile, strip, first, steps, codes);
    for (int64_t r = 0; r < tile.rows; ++r) {
      const int8_t* x = tile.x() + r * tile.a.x_stride + first * inputs;
      int32_t part[kStrip] = {};
      for (int64_t k = 0; k < steps * inputs; ++k)
        for (int n = 0; n < kStrip; ++n) part[n] += codes[k * kStrip + n] * x[k];
      for (int n = 0; n < kStrip; ++n) sums[r * kTile + n] += part[n];
    }
  }
}

static void int_sums(const IntTile& tile, int32_t* sums) {
  for (int64_t s = 0; s < tile.t.strips; ++s) strip_sums(tile, s, 0, tile.steps, sums + s * kStrip);
}

static void group_sums(const IntTile& tile, int64_t strip, int64_t group, int64_t first,
                       float* totals) {
  const LinearArgs& a = tile.a;
  int32_t sums[kRowsAtOnce * kTile];
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int32_t x_sum = a.x_sums[(tile.m + r) * a.parts + group];
    for (int n = 0; n < kStrip; ++n)
      sums[r * kTile + n] =
          x_sum * (a.group_zeros == nullptr ? 1 : tile.zeros(group, strip, a.groups)[n]);
  }
  strip_sums(tile, strip, first, least(first + tile.group_steps, tile.steps), sums);
  const F scale = group_scale(a, tile.t, group, strip);
  for (int64_t r = 0; r < tile.rows; ++r) {
    float part[kStrip];
    for (int n = 0; n < kStrip; ++n) part[n] = static_cast<float>(sums[r * kTile + n]);
    float* total = totals + r * kTile + strip * kStrip;
    store(total, fma(load(part), scale, load(total)));
  }
}

static void int_groups(const IntTile& tile, float* totals) {
  for (int64_t first = 0, group = tile.group(); first < tile.steps;
       first += tile.group_steps, ++group)
    for (int64_t s = 0; s < tile.t.strips; ++s) group_sums(tile, s, group, first, totals);
}

}  // namespace

const IntIsa kIntPortable{run_int, false, stage_int};

}  // namespace mantissa::cpu
