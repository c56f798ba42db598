// What the processor and the operating system offer: instruction-set extensions, name, caches. Not
// here: which kernels need what (kernels/cpu/isa.h).
#pragma once

#include <cstdint>
#include <string>

namespace mantissa {

struct CpuFeatures {
  // False also where the operating system does not save the registers (xgetbv).
  bool avx2 = false, fma = false, f16c = false;
  bool avx512f = false, avx512bw = false, avx512dq = false, avx512vl = false;
  bool avx512_vnni = false, avx512_bf16 = false, avx512_vbmi = false;
  std::string vendor;  // "AuthenticAMD"; empty on other architectures than x86-64
  std::string model;   // "AMD EPYC 9654"
  int64_t l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;  // per core, core, group of cores; 0: unknown
};
CpuFeatures read_cpu_features();

}  // namespace mantissa
