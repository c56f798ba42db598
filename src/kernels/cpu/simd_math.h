// Functions and format conversions over the sixteen lanes of whichever simd_*.h was included
// before. For per-ISA sources only: no standard library, everything internal.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention_abi.h"

namespace mantissa::cpu {
namespace {

MANTISSA_SIMD F magnitude(F x) {
  return floats(andi(bits(x), set1i(0x7fffffff)));
}

// Several vectors step by step: chains of operations one behind the other would wait, because the
// processor's schedulers hold only a few of them.
template <int kCount>
struct Many {
  F v[kCount];
};
template <int kCount, class Step>
MANTISSA_SIMD Many<kCount> each_of(const Step& step) {
  Many<kCount> out;
#pragma GCC unroll 4
  for (int i = 0; i < kCount; ++i) out.v[i] = step(i);
  return out;
}

// e^x within 2 ulp; 0 and infinity beyond float32's range, subnormals kept, NaN stays. Polynomial:
// Cephes expf (S. Moshier), on |r| <= ln(2) / 2 after the two-step reduction r = x - n ln 2.
template <int kCount>
MANTISSA_SIMD Many<kCount> exp(Many<kCount> x) {
  using M = Many<kCount>;
  // The second operand of min and max where x is NaN.
  x = each_of<kCount>([&](int i) { return min(set1(89.0f), max(set1(-105.0f), x.v[i])); });
  const M n =
      each_of<kCount>([&](int i) { return nearest(mul(x.v[i], set1(1.44269504088896341f))); });
  M r = each_of<kCount>([&](int i) { return fma(n.v[i], set1(-0.693359375f), x.v[i]); });
  r = each_of<kCount>([&](int i) { return fma(n.v[i], set1(2.12194440e-4f), r.v[i]); });
  M p = each_of<kCount>([&](int) { return set1(1.9875691500e-4f); });
  constexpr float kTerms[] = {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                              1.6666665459e-1f, 5.0000001201e-1f};
#pragma GCC unroll 5
  for (const float term : kTerms)
    p = each_of<kCount>([&](int i) { return fma(p.v[i], r.v[i], set1(term)); });
  p = each_of<kCount>([&](int i) { return fma(mul(r.v[i], r.v[i]), p.v[i], r.v[i]); });
  return each_of<kCount>([&](int i) { return scale2(add(p.v[i], set1(1.0f)), n.v[i]); });
}
MANTISSA_SIMD F exp(F x) {
  return exp(Many<1>{{x}}).v[0];
}

// 2^x for x <= 0 within 2^-18, exactly 1 at 0; at least 2^-127. Polynomial: least maximum of the
// relative error on |r| <= 1/2, constant term 1.
MANTISSA_SIMD F exp2_weight(F x) {
  x = max(set1(-127.0f), x);  // the second operand where NaN
  const F n = nearest(x);
  const F r = sub(x, n);
  F p = set1(9.58285e-3f);
  p = fma(p, r, set1(5.590643e-2f));
  p = fma(p, r, set1(2.4024099e-1f));
  p = fma(p, r, set1(6.9312419e-1f));
  p = fma(p, r, set1(1.0f));
  return scale2(p, n);
}

// 1 / (1 + e^-x) without cancellation or overflow on either side.
template <int kCount>
MANTISSA_SIMD Many<kCount> sigmoid(const Many<kCount>& x) {
  const Many<kCount> e =
      exp(each_of<kCount>([&](int i) { return sub(zero(), magnitude(x.v[i])); }));
  return each_of<kCount>([&](int i) {
    return div(select(less(x.v[i], zero()), e.v[i], set1(1.0f)), add(set1(1.0f), e.v[i]));
  });
}
MANTISSA_SIMD F sigmoid(F x) {
  return sigmoid(Many<1>{{x}}).v[0];
}

// Within 3 ulp. Polynomial below 0.625: Cephes tanhf.
MANTISSA_SIMD F tanh(F x) {
  const F a = magnitude(x);
  const F z = mul(x, x);
  F p = set1(-5.70498872745e-3f);
  p = fma(p, z, set1(2.06390887954e-2f));
  p = fma(p, z, set1(-5.37397155531e-2f));
  p = fma(p, z, set1(1.33314422036e-1f));
  p = fma(p, z, set1(-3.33332819422e-1f));
  const F small = fma(mul(p, z), x, x);
  const F e = exp(mul(a, set1(-2.0f)));
  const F large = div(sub(set1(1.0f), e), add(set1(1.0f), e));
  const I sign = andi(bits(x), set1i(static_cast<int32_t>(0x80000000)));
  return select(less(a, set1(0.625f)), small, floats(ori(bits(large), sign)));
}

// To nearest even; a NaN stays one.
MANTISSA_SIMD I code_bf16(F v) {
  const I b = bits(v);
  const I upper = shr<16>(b);
  const I rounded = shr<16>(addi(addi(b, set1i(0x7fff)), andi(upper, set1i(1))));
  return selecti(is_nan(v), ori(upper, set1i(0x40)), rounded);
}

// One code in the low bits of each lane, to nearest even, saturating; as encode() of base/elem.h.
// kShift: mantissa bits that go; kBits: of the code; min_normal: the least normal value; unit: 2^23
// times the least subnormal, so that adding it rounds there.
template <int kShift, int kBias, int kBits>
MANTISSA_SIMD I code_float(F v, float max, float min_normal, float unit, I nan) {
  const I sign = shr<32 - kBits>(andi(bits(v), set1i(static_cast<int32_t>(0x80000000))));
  const F a = min(set1(max), magnitude(v));
  const I b = bits(a);
  const I odd = andi(shr<kShift>(b), set1i(1));
  const I rounded = shr<kShift>(addi(addi(b, set1i((1 << (kShift - 1)) - 1)), odd));
  const I normal = subi(rounded, set1i((127 - kBias) << (23 - kShift)));
  const I small = subi(bits(add(a, set1(unit))), bits(set1(unit)));
  const I code = selecti(less(a, set1(min_normal)), small, normal);
  return ori(selecti(is_nan(v), nan, code), sign);
}
MANTISSA_SIMD I code_e4m3(F v) {
  return code_float<20, 7, 8>(v, 448.0f, 0x1p-6f, 0x1p14f, set1i(0x7f));
}
MANTISSA_SIMD I code_e5m2(F v) {
  return code_float<21, 15, 8>(v, 57344.0f, 0x1p-14f, 0x1p7f, set1i(0x7e));
}
// These have no NaN: the largest value.
MANTISSA_SIMD I code_e3m2(F v) {
  return code_float<21, 3, 6>(v, 28.0f, 0x1p-2f, 0x1p19f, set1i(0x1f));
}
MANTISSA_SIMD I code_e2m3(F v) {
  return code_float<20, 1, 6>(v, 7.5f, 1.0f, 0x1p20f, set1i(0x1f));
}
MANTISSA_SIMD I code_e2m1(F v) {
  return code_float<22, 1, 4>(v, 6.0f, 1.0f, 0x1p22f, set1i(0x7));
}
// NaN becomes 0, as the caches' contract says.
MANTISSA_SIMD I code_i8(F v) {
  const F kept = select(is_nan(v), zero(), v);
  return to_int(min(set1(127.0f), max(set1(-128.0f), kept)));
}

// ---- storage formats: Code is the stored type. kPairs: whether its values can be dotted as bf16
// pairs here; widen(): 64 codes to bf16 (widen_bytes). load32(): two vectors.
struct AsF32 {
  using Code = float;
  static constexpr bool kEight = false, kPairs = false;
  MANTISSA_SIMD F load16(const Code* p) { return load(p); }
  MANTISSA_SIMD void store16(Code* p, F v) { store(p, v); }
  MANTISSA_SIMD void load32(const Code* p, F& a, F& b) {
    a = load16(p);
    b = load16(p + kLanes);
  }
};
struct AsBf16 {
  using Code = uint16_t;
  static constexpr bool kEight = false, kPairs = kDotBf16;
  MANTISSA_SIMD F load16(const Code* p) { return load_bf16(p); }
  MANTISSA_SIMD void store16(Code* p, F v) {
    if (!try_store_bf16(p, v)) [[unlikely]]
      store_u16(p, code_bf16(v));
  }
  MANTISSA_SIMD void load32(const Code* p, F& a, F& b) {
    a = load16(p);
    b = load16(p + kLanes);
  }
};
struct AsF16 {
  using Code = uint16_t;
  static constexpr bool kEight = false, kPairs = false;
  MANTISSA_SIMD F load16(const Code* p) { return load_f16(p); }
  MANTISSA_SIMD void store16(Code* p, F v) { store_f16(p, v); }
  MANTISSA_SIMD void load32(const Code* p, F& a, F& b) {
    a = load16(p);
    b = load16(p + kLanes);
  }
};
struct AsE4m3 {
  using Code = uint8_t;
  static constexpr bool kEight = true, kPairs = kDotBf16;
  MANTISSA_SIMD F load16(const Code* p) { return load_e4m3(p); }
  MANTISSA_SIMD void store16(Code* p, F v) { store_u8(p, code_e4m3(v)); }
#if defined(__AVX512BF16__)
  MANTISSA_SIMD void widen(I codes, I& first, I& second) {
    widen_float8(codes, kE4m3Bytes, first, second);
  }
  MANTISSA_SIMD void load32(const Code* p, F& a, F& b) {
    split_pairs(pairs_e4m3(p, p + kLanes), a, b);
  }
#else
  MANTISSA_SIMD void load32(const Code* p, F& a, F& b) {
    a = load16(p);
    b = load16(p + kLanes);
  }
#endif
};
struct AsE5m2 {
  using Code = uint8_t;
  static constexpr bool kEight = true, kPairs = kDotBf16;
  MANTISSA_SIMD F load16(const Code* p) { return load_e5m2(p); }
  MANTISSA_SIMD void store16(Code* p, F v) { store_u8(p, code_e5m2(v)); }
#if defined(__AVX512BF16__)
  MANTISSA_SIMD void widen(I codes, I& first, I& second) {
    widen_float8(codes, kE5m2Bytes, first, second);
  }
  MANTISSA_SIMD void load32(const Code* p, F& a, F& b) {
    split_pairs(pairs_e5m2(p, p + kLanes), a, b);
  }
#else
  MANTISSA_SIMD void load32(const Code* p, F& a, F& b) {
    a = load16(p);
    b = load16(p + kLanes);
  }
#endif
};
struct AsI8 {
  using Code = uint8_t;
  static constexpr bool kEight = true, kPairs = kDotBf16;
  MANTISSA_SIMD F load16(const Code* p) { return load_i8(p); }
  MANTISSA_SIMD void store16(Code* p, F v) { store_u8(p, code_i8(v)); }
  MANTISSA_SIMD void load32(const Code* p, F& a, F& b) {
    a = load16(p);
    b = load16(p + kLanes);
  }
#if defined(__AVX512BF16__)
  MANTISSA_SIMD void widen(I codes, I& first, I& second) {
    widen_i8(codes, first, second);
  }
#endif
};

// Rows of any length: the last vector goes through a buffer, its missing lanes 0 or dropped.
template <class As>
MANTISSA_SIMD F load_tail(const typename As::Code* p, int64_t count) {
  typename As::Code buffer[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) buffer[i] = p[i];
  return As::load16(buffer);
}
template <class As>
MANTISSA_SIMD void store_tail(typename As::Code* p, int64_t count, F v) {
  typename As::Code buffer[kLanes];
  As::store16(buffer, v);
  for (int64_t i = 0; i < count; ++i) p[i] = buffer[i];
}
template <class As>
MANTISSA_SIMD F load_some(const typename As::Code* p, int64_t count) {
  return count >= kLanes ? As::load16(p) : load_tail<As>(p, count);
}
template <class As>
MANTISSA_SIMD void store_some(typename As::Code* p, int64_t count, F v) {
  if (count >= kLanes)
    As::store16(p, v);
  else
    store_tail<As>(p, count, v);
}

// Calls op(As{}) for the format: one branch a row, the loops inside know their types.
template <class Op>
MANTISSA_SIMD void with_run_format(Format format, const Op& op) {
  if (format == Format::kBf16)
    op(AsBf16{});
  else if (format == Format::kF16)
    op(AsF16{});
  else
    op(AsF32{});
}
template <class Op>
MANTISSA_SIMD void with_format(Format format, const Op& op) {
  if (format == Format::kE4m3)
    op(AsE4m3{});
  else if (format == Format::kE5m2)
    op(AsE5m2{});
  else if (format == Format::kI8)
    op(AsI8{});
  else
    with_run_format(format, op);
}

}  // namespace
}  // namespace mantissa::cpu
