// What the small-batch kernels share: activations into shared memory, the product of a line of 16
// rows of weights with up to 8 tokens, a warp's part of the result.
#pragma once

#include "kernels/cuda/limbs.cuh"
#include "kernels/cuda/weight_stream.cuh"

namespace mantissa::cuda {

// ---- activations into shared memory

// Formats whose operands are f16 take bf16 activations too, each token times a power of two that
// brings its largest magnitude between 2^14 and 2^15: exact from 2^-31 of that on. 8-bit codes turn
// into f16 in half the instructions that bf16 takes.
template <class F>
inline constexpr bool kTakesScaled = std::is_same_v<typename F::Value, __half> &&
                                     (F::kWeight == GemvWeight::kE4M3 ||
                                      F::kWeight == GemvWeight::kS8);
// Of a token whose largest magnitude has these bits as float32. One that is not finite gives NaN.
struct HalfScale {
  float result, inverse;  // results are multiplied by the first, x by the second
};
__device__ inline HalfScale half_scale(uint32_t amax) {
  if (amax >= 0x7f800000u) return {__uint_as_float(0x7fffffffu), 0};
  const uint32_t exponent = max(amax >> 23, 15u);  // so that both are normal
  return {__uint_as_float((exponent - 14) << 23), __uint_as_float((268 - exponent) << 23)};
}

// Floats of x_sums: F::kLineSums a line; where x is limbs none, or a magnitude of each of 8 warps.
template <class F>
__host__ __device__ constexpr int x_sum_count(int lines) {
  return F::kLimbs > 0 ? (F::kNibbleLimbs ? 0 : 8) : lines * F::kLineSums;
}

template <class T>
__device__ float sum_of_unit(const uint4& unit) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const auto pair = from_bits<typename Pair<T>::Type>(word_of(unit, i));
    sum += to_f32(pair.x) + to_f32(pair.y);
  }
  return sum;
}

// Int4: with the sum of x over every group, [group][8 tokens]; tokens beyond M keep what is there.
template <class F>
__device__ void stage_and_sum(const GemvArgs& a, unsigned char* shared, float* x_sums, int lines,
                              int token_bytes, bool aligned, int threads) {
  using T = typename F::Value;
  constexpr int kLanes = 16 / F::kSubs;  // of 8 values each: a group
  const int units = lines * 2 * F::kXBlock / 16;
  const auto* x = static_cast<const unsigned char*>(a.x);
  for (int i = threadIdx.x; i < units * a.m; i += threads) {  // units: a multiple of 32
    const int m = i / units, u = i % units;
    uint4 unit;
    if (aligned && u * 8 + 8 <= a.k && a.input == GemvInput::kRun) {
      unit = *reinterpret_cast<const uint4*>(x + (m * a.x_stride + u * 8) * 2);
    } else if (aligned && u * 8 + 8 <= a.k && a.input == GemvInput::kE4M3) {
      unit = decode_unit(*reinterpret_cast<const uint2*>(x + m * a.x_stride + u * 8));
    } else {
      unit = gather_unit<T>(a, m, u * 8);
    }
    *reinterpret_cast<uint4*>(shared + m * token_bytes + u * 16) = unit;
    float sum = sum_of_unit<T>(unit);
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, step);
    }
    if (u % kLanes == 0) x_sums[u / kLanes * kGemvRowsMax + m] = sum;
  }
}

// All of x as operands of `lines` lines, token_bytes a token, by the first `threads` threads.
// `aligned`: units of 8 or 16 elements are 8- or 16-byte aligned. Copies are in flight until
// ptx::copy_wait.
template <class F>
__device__ void stage_input(const GemvArgs& a, unsigned char* shared, float* x_sums, int lines,
                            int token_bytes, bool aligned, int threads) {
  using T = typename F::Value;
  constexpr int kUnit = 16 / sizeof(T);
  if constexpr (F::kWeight == GemvWeight::kS4) {
    return stage_and_sum<F>(a, shared, x_sums, lines, token_bytes, aligned, threads);
  }
  const int units = lines * 2 * F::kXBlock / 16;
  const bool as_is = a.input == GemvInput::kRun || sizeof(T) == 1;
  const bool e4m3 = a.input == GemvInput::kE4M3 && sizeof(T) == 2;
  const int whole = aligned && (as_is || e4m3) ? a.k / kUnit : 0;  // units that loads may take
  const auto* x = static_cast<const unsigned char*>(a.x);
  if (as_is) {
    for (int i = threadIdx.x; i < whole * a.m; i += threads) {
      const int m = i / whole, u = i % whole;
      ptx::copy_async(shared + m * token_bytes + u * 16,
                      x + m * a.x_stride * int64_t{sizeof(T)} + u * 16, 16);
    }
  } else {
#pragma unroll 4
    for (int i = threadIdx.x; i < whole * a.m; i += threads) {
      const int m = i / whole, u = i % whole;
      *reinterpret_cast<uint4*>(shared + m * token_bytes + u * 16) =
          decode_unit(*reinterpret_cast<const uint2*>(x + m * a.x_stride + u * 8));
    }
  }
  for (int i = threadIdx.x; i < (units - whole) * a.m; i += threads) {
    const int m = i / (units - whole), u = whole + i % (units - whole);
    *reinterpret_cast<uint4*>(shared + m * token_bytes + u * 16) = gather_unit<T>(a, m, u * kUnit);
  }
  ptx::copy_commit();
}

// ---- the product of a line

// kLines lines at once: each block of them has sums of its own, so that no mma waits for the last.
template <class F, int kLines>
struct Sums {
  typename F::Accumulator d[F::kSubs > 0 ? 1 : kLines * 2][4] = {};  // mma's: (row, token), (row,
                                                                     // token + 1), (row + 8, ...)
  int32_t row_codes[2] = {};  // sum of a row's int8 codes over this lane's K
};

// A line of tiles is summed, both blocks of it: scaled. x_scale: of the lane's two tokens.
__device__ inline void add_tile(float (&d)[4], const float (&low)[4], const float (&high)[4],
                                float w_scale, float2 x_scale) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    d[i] = fmaf(low[i] + high[i], w_scale * (i % 2 == 0 ? x_scale.x : x_scale.y), d[i]);
}

// Group `sub` of a block is summed: scaled, less what the codes were raised by. x_sum: of the
// lane's two tokens.
template <class F>
__device__ void add_group(float (&d)[4], float (&group)[4], const Groups (&of)[2], int sub,
                          float2 x_sum) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const uint32_t pair = sub < 2 ? of[r].scales.x : of[r].scales.y;
    const float scale = __uint_as_float(sub % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
    float raised = -kRaisedS4;
    if (F::kZeros) raised -= static_cast<float>(static_cast<int8_t>(of[r].zeros >> (sub * 8)));
    d[2 * r] = fmaf(fmaf(raised, x_sum.x, group[2 * r]), scale, d[2 * r]);
    d[2 * r + 1] = fmaf(fmaf(raised, x_sum.y, group[2 * r + 1]), scale, d[2 * r + 1]);
    group[2 * r] = group[2 * r + 1] = 0;
  }
}

// What a block of codes meets where x is limbs: for the lower and the upper half of its nibbles.
struct LimbOperands {
  uint4 low, high;
};
// Products of a line of int4 codes with limbs, 16 times as large; of each block of its own, which
// is a group or part of one. Four bits of a word are four bytes of mma at once.
template <class F>
__device__ void multiply_limbs(int32_t (&products)[2][4], const Line<F>& line,
                               const LimbOperands (&x)[2]) {
#pragma unroll
  for (int b = 0; b < 2; ++b)
#pragma unroll
    for (int i = 0; i < 4; ++i) products[b][i] = 0;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int b = 0; b < 2; ++b) {
        uint32_t codes[4];
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          const uint32_t word = word_of(line.codes[b][r % 2], i + r / 2);
          codes[r] = (half == 0 ? word << 4 : word) & 0xf0f0f0f0u;
        }
        const uint4& of = half == 0 ? x[b].low : x[b].high;
        ptx::mma_s8(products[b], codes, word_of(of, i), word_of(of, i + 1));
      }
    }
  }
}
// Their sum; scales: of a lane's two rows, bf16 of both blocks.
template <class F, int kLines>
__device__ void add_limbs(Sums<F, kLines>& sums, const int32_t (&products)[2][4],
                          const uint32_t (&scales)[2]) {
#pragma unroll
  for (int b = 0; b < 2; ++b) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t pair = scales[i / 2];
      const float scale = __uint_as_float(b == 0 ? pair << 16 : pair & 0xffff0000u);
      sums.d[0][i] = fmaf(static_cast<float>(products[b][i]), scale, sums.d[0][i]);
    }
  }
}

// x: of the first line, at this lane's token and place. x_sums (int4): of the first line, at the
// lane's two tokens of the result. apart: lines of x from one line to the next. between(): is run
// once all of the lines have been waited for.
template <class F, int kLines, class Between>
__device__ void multiply(Sums<F, kLines>& sums, const Line<F> (&lines)[kLines],
                         const unsigned char* x, const float* x_sums, int apart,
                         bool wants_row_codes, const Between& between) {
  using T = typename F::Value;
  constexpr int kBlocks = kLines * 2;
  float group[F::kSubs > 0 ? kBlocks : 1][4] = {};
#pragma unroll
  for (int q = 0; q < F::kSteps / 2; ++q) {
    uint4 operands[kBlocks];
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      operands[b] = *reinterpret_cast<const uint4*>(x + (b / 2 * apart * 2 + b % 2) * F::kXBlock +
                                                    q * (F::kWide ? 16 : 64));
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        const uint4(&codes)[2] = lines[b / 2].codes[b % 2];
        const uint32_t x0 = word_of(operands[b], 2 * h), x1 = word_of(operands[b], 2 * h + 1);
        uint32_t w[4];
        if constexpr (F::kWeight == GemvWeight::kS4) {
#pragma unroll
          for (int i = 0; i < 4; ++i) w[i] = raise_s4<T>(word_of(codes[i % 2], q), 2 * h + i / 2);
          ptx::mma_16(group[b], w, x0, x1, T{});
        } else {
          decode<F>(codes[0], 2 * q + h, 0, w[0], w[2]);
          decode<F>(codes[1], 2 * q + h, 0, w[1], w[3]);
          if constexpr (F::kIntegers) {
            ptx::mma_s8(sums.d[b], w, x0, x1);
            if (wants_row_codes) {
              for (int i = 0; i < 4; ++i) {
                sums.row_codes[i % 2] =
                    __dp4a(static_cast<int>(w[i]), 0x01010101, sums.row_codes[i % 2]);
              }
            }
          } else {
            ptx::mma_16(F::kTiles ? group[F::kTiles ? b : 0] : sums.d[F::kTiles ? 0 : b], w, x0, x1,
                        T{});
          }
        }
      }
      if (q == 0 && h == (F::kSteps > 2 ? 1 : 0)) between();
    }
    if constexpr (F::kSubs > 0 && !F::kTiles) {
      constexpr int kPerSub = F::kSteps / 2 / F::kSubs;
      if (q % kPerSub != kPerSub - 1) continue;
      const int sub = q / kPerSub;
#pragma unroll
      for (int b = 0; b < kBlocks; ++b) {
        add_group<F>(sums.d[0], group[b], lines[b / 2].groups[b % 2], sub,
                     *reinterpret_cast<const float2*>(
                         x_sums + ((b / 2 * apart * 2 + b % 2) * F::kSubs + sub) * kGemvRowsMax));
      }
    }
  }
  if constexpr (F::kTiles) {
#pragma unroll
    for (int i = 0; i < kLines; ++i)
      add_tile(sums.d[0], group[2 * i], group[2 * i + 1], lines[i].tile_scale,
               *reinterpret_cast<const float2*>(x_sums + i * apart * F::kLineSums));
  }
}

// A warp's sums of a tile -> part [tokens][kRows]; `row`: of the tile, what this lane's first is.
// x_scale: what the warp's x was divided by, where it was (one or two tokens), else 1.
template <class F, int kLines>
__device__ void put_part(const GemvArgs& a, Sums<F, kLines>& sums, const float2& x_scale,
                         typename F::Sum* part, int row) {
  const int lane = threadIdx.x % 32;
  typename F::Accumulator d[4] = {};
#pragma unroll
  for (const auto& of_block : sums.d) {
#pragma unroll
    for (int i = 0; i < 4; ++i) d[i] += of_block[i];
  }
  if constexpr (F::kLimbs > 0) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const auto last = static_cast<float>(__shfl_down_sync(0xffffffffu, d[2 * r], 1));
      const float sum =
          join_limbs(static_cast<float>(d[2 * r]), static_cast<float>(d[2 * r + 1]), last);
      if (lane % 4 == 0) part[row + r * 8] = sum * x_scale.x;
    }
    return;
  }
  if (F::kIntegers && a.x_zero != nullptr) {  // sum w (x - zero) = sum w x - zero * sum w
    for (int r = 0; r < 2; ++r) {
      int all = sums.row_codes[r];
      all += __shfl_xor_sync(0xffffffffu, all, 1);
      all += __shfl_xor_sync(0xffffffffu, all, 2);
      for (int c = 0; c < 2; ++c) {
        const int m = lane % 4 * 2 + c;
        if (m < a.m) d[2 * r + c] -= a.x_zero[m * a.x_scale_stride] * all;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int m = lane % 4 * 2 + i % 2;
    if constexpr (kTakesScaled<F>) d[i] *= i % 2 == 0 ? x_scale.x : x_scale.y;
    if (m < a.m) part[m * kRows + row + i / 2 * 8] = d[i];
  }
}

}  // namespace mantissa::cuda
