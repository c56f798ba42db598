#include "device/cpu_features.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace mantissa {
namespace {

int64_t cache_bytes(int name) {
  return std::max<int64_t>(0, sysconf(name));
}

#if defined(__x86_64__)
struct Leaf {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};
Leaf cpuid(uint32_t leaf, uint32_t sub = 0) {
  Leaf r;
  if (__get_cpuid_count(leaf, sub, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}
bool bit(uint32_t word, int n) {
  return ((word >> n) & 1u) != 0;
}

// Register state that the operating system saves: XCR0.
uint64_t saved_state(const Leaf& one) {
  if (!bit(one.ecx, 27)) return 0;  // OSXSAVE
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

std::string brand() {
  char name[49] = {};
  for (uint32_t i = 0; i < 3; ++i) {
    const Leaf r = cpuid(0x80000002u + i);
    std::memcpy(name + 16 * i, &r, sizeof(r));
  }
  std::string text(name);
  text.erase(0, text.find_first_not_of(' '));
  text.erase(text.find_last_not_of(' ') + 1);
  return text;
}
#endif

}  // namespace

CpuFeatures read_cpu_features() {
  CpuFeatures f;
#if defined(__x86_64__)
  const Leaf zero = cpuid(0), one = cpuid(1), seven = cpuid(7), seven_one = cpuid(7, 1);
  char vendor[13] = {};
  std::memcpy(vendor, &zero.ebx, 4);
  std::memcpy(vendor + 4, &zero.edx, 4);
  std::memcpy(vendor + 8, &zero.ecx, 4);
  f.vendor = vendor;
  f.model = brand();
  constexpr uint64_t kYmm = 0x6, kZmm = 0xe6;  // SSE + AVX; and opmask + both ZMM halves
  const uint64_t saved = saved_state(one);
  const bool ymm = (saved & kYmm) == kYmm, zmm = (saved & kZmm) == kZmm;
  f.avx2 = ymm && bit(seven.ebx, 5);
  f.fma = ymm && bit(one.ecx, 12);
  f.f16c = ymm && bit(one.ecx, 29);
  f.avx512f = zmm && bit(seven.ebx, 16);
  f.avx512dq = zmm && bit(seven.ebx, 17);
  f.avx512bw = zmm && bit(seven.ebx, 30);
  f.avx512vl = zmm && bit(seven.ebx, 31);
  f.avx512_vbmi = zmm && bit(seven.ecx, 1);
  f.avx512_vnni = zmm && bit(seven.ecx, 11);
  f.avx512_bf16 = zmm && bit(seven_one.eax, 5);
#endif
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  f.l1d_bytes = cache_bytes(_SC_LEVEL1_DCACHE_SIZE);
  f.l2_bytes = cache_bytes(_SC_LEVEL2_CACHE_SIZE);
  f.l3_bytes = cache_bytes(_SC_LEVEL3_CACHE_SIZE);
#endif
  return f;
}

}  // namespace mantissa
