// Scales of groups for gemm_rows_sm90.cu, and zero points.
#pragma once

#include "kernels/cuda/byte_scale.cuh"
#include "kernels/cuda/gemm_rows_mix.cuh"

namespace mantissa::cuda::gemm_rows {

// kTiles: the scale of each stage and token, with that of the tile of weights, [stage][token].
template <class F>
struct TileScales {
  // Even, so that two tokens are one load; rows of it begin in other banks.
  static constexpr int kPitch = F::kTokens + 2;
  static int bytes(int stages) { return F::kTiles ? stages * kPitch * 4 : 0; }

  float* factors;

  __device__ TileScales(const Layout& l, unsigned char* shared)
      : factors(reinterpret_cast<float*>(shared + l.scales)) {}
  // By the consumers, once x is there. Neighbouring threads read neighbouring scales of a token.
  __device__ void load(const GemvArgs& a, const Layout& l, const Tile& tile) const {
    const int stages = tile.end - tile.first, tokens = min(F::kTokens, a.m - tile.token);
    const int64_t pitch = (l.groups + 3) / 4 * 4;  // of tiles of weights (GemvArgs::w_scale)
    const float* w_scale =
        static_cast<const float*>(a.w_scale) + tile.row / kScaleRows * pitch + tile.first;
    const float* x_scale = a.x_scale + int64_t{tile.token} * a.x_scale_stride + tile.first;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < stages * tokens; i += kConsumers) {
      const int token = i / stages, k = i % stages;
      factors[k * kPitch + token] =
          x_scale[int64_t{token} * a.x_scale_stride + k] * __ldg(w_scale + k);
    }
  }
  // Of tokens 8 j + 2 (lane % 4) and the next one.
  __device__ float2 of(int stage, int j) const {
    const int token = 8 * j + static_cast<int>(threadIdx.x) % 4 * 2;
    return *reinterpret_cast<const float2*>(factors + stage * kPitch + token);
  }
};

// What decoding rows r and r + 8 takes besides codes, as pairs of bf16.
struct Decoding {
  uint32_t offset[2];  // subtracted: int4 as kRaisedS4 + zero point, int8 the zero point
  uint32_t fold[2];    // the group's scale
};

// Scales and zero points of a stage, for rows r and r + 8, on their way from memory.
template <class F>
struct StageGroups {
  uint4 scales[2];
  uint32_t zeros[2];

  template <int kBytes>
  __device__ static uint4 fetch(const void* from) {
    if constexpr (kBytes == 16) return __ldg(static_cast<const uint4*>(from));
    if constexpr (kBytes == 8) {
      const uint2 two = __ldg(static_cast<const uint2*>(from));
      return {two.x, two.y, 0, 0};
    }
    if constexpr (kBytes == 4) return {__ldg(static_cast<const uint32_t*>(from)), 0, 0, 0};
    if constexpr (kBytes == 2) return {__ldg(static_cast<const uint16_t*>(from)), 0, 0, 0};
    return {__ldg(static_cast<const uint8_t*>(from)), 0, 0, 0};
  }
  __device__ void load(const GemvArgs& a, const Layout& l, int row0, int k) {
    constexpr int kCount = F::kSubs > 0 ? F::kSubs : F::kFolds;
    const int group = kCount > 1 ? k * kCount : (k * l.group_inverse) >> kInverseBits;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = min(row0 + row_of_thread() + 8 * r, a.n - 1);
      const int64_t at = int64_t{row} * l.groups + group;
      const auto* from = static_cast<const unsigned char*>(a.w_scale);
      if constexpr (F::kByteScales) {
        scales[r] =
            fetch<kCount>(from + byte_scale_at(row, group, l.groups / kCount, 128 / kCount));
      } else if constexpr (F::kFolds > 0) {
        scales[r] = fetch<kCount * 2>(from + at * 2);
      } else {
        scales[r] =
            a.wide_scales ? fetch<kCount * 4>(from + at * 4) : fetch<kCount * 2>(from + at * 2);
        zeros[r] = a.w_zero != nullptr ? fetch<kCount>(a.w_zero + at).x : 0;
      }
    }
  }
  // Bytes that have arrived -> bf16, in order.
  __device__ void settle() {
    if constexpr (F::kByteScales) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const uint2 raw = make_uint2(scales[r].x, scales[r].y);
        if constexpr (F::kFolds == 4) {
          const uint2 pairs = e8m0_pairs(raw.x);
          scales[r] = {pairs.x, pairs.y, 0, 0};
        } else {
          scales[r] = {e4m3_pair(__byte_perm(raw.x, raw.y, 0x40)),
                       e4m3_pair(__byte_perm(raw.x, raw.y, 0x51)),
                       e4m3_pair(__byte_perm(raw.x, raw.y, 0x62)),
                       e4m3_pair(__byte_perm(raw.x, raw.y, 0x73))};
        }
      }
    }
  }
  // Group `sub` of the stage, as two bf16 (kFolds).
  __device__ uint32_t pair(int r, int sub) const {
    return __byte_perm(word_of(scales[r], sub / 2), 0, sub % 2 == 0 ? 0x1010 : 0x3232);
  }
  __device__ float scale(int r, int sub, bool wide) const {
    return __uint_as_float(wide ? word_of(scales[r], sub) : pair(r, sub) & 0xffff0000u);
  }
  __device__ int zero(int r, int sub) const {
    return static_cast<int8_t>(zeros[r] >> (8 * sub));
  }
};

// Group `sub` of a stage, for rows r and r + 8: what multiplies its sums.
struct GroupOf {
  float scale[2];
  Decoding by;
};
template <class F>
__device__ GroupOf group_of(const GemvArgs& a, const Layout& l, const unsigned char* shared,
                            const Tile& tile, int k, int sub, const StageGroups<F>& stage) {
  const int row = row_of_thread();
  const int at = F::kSubs > 1 ? k * F::kSubs + sub : (k * l.group_inverse) >> kInverseBits;
  // Codes of fewer bits are larger by the spare ones.
  const float shrink = __uint_as_float(static_cast<uint32_t>(127 - a.spare_bits) << 23);
  GroupOf g;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    int zero = 0;
    if constexpr (F::kSharedScales) {
      const auto* scales = reinterpret_cast<const uint16_t*>(shared + l.scales);
      g.scale[r] = __uint_as_float(uint32_t{scales[(row + 8 * r) * l.groups + at]} << 16);
      if (a.w_zero != nullptr && tile.row + row + 8 * r < a.n)
        zero = a.w_zero[int64_t{tile.row + row + 8 * r} * l.groups + at];
    } else {
      g.scale[r] = stage.scale(r, sub, a.wide_scales);
      zero = stage.zero(r, sub);
    }
    g.scale[r] *= shrink;
    const auto value = __float2bfloat16_rn((F::kSharedScales ? kRaisedS4 : 0.0f) +
                                           static_cast<float>(zero << a.spare_bits));
    g.by.offset[r] = bits_of(__nv_bfloat162(value, value));
  }
  return g;
}

}  // namespace mantissa::cuda::gemm_rows
