#include "kernels/cpu/isa.h"

#include "base/error.h"
#include "device/cpu_features.h"

namespace mantissa::cpu {
namespace {

constexpr IsaRow kIsas[] = {
    {Isa::kPortable, "portable", "any processor"},
    {Isa::kAvx2, "avx2", "AVX2, FMA, F16C"},
    {Isa::kAvx512, "avx512", "AVX2, FMA, F16C, AVX-512 F, BW, VL, DQ, VNNI, BF16, VBMI"},
};

struct Need {
  Isa least;
  bool CpuFeatures::*have;
  std::string_view name;
};
constexpr Need kNeeds[] = {
    {Isa::kAvx2, &CpuFeatures::avx2, "avx2"},
    {Isa::kAvx2, &CpuFeatures::fma, "fma"},
    {Isa::kAvx2, &CpuFeatures::f16c, "f16c"},
    {Isa::kAvx512, &CpuFeatures::avx512f, "avx512f"},
    {Isa::kAvx512, &CpuFeatures::avx512bw, "avx512bw"},
    {Isa::kAvx512, &CpuFeatures::avx512vl, "avx512vl"},
    {Isa::kAvx512, &CpuFeatures::avx512dq, "avx512dq"},
    {Isa::kAvx512, &CpuFeatures::avx512_vnni, "avx512_vnni"},
    {Isa::kAvx512, &CpuFeatures::avx512_bf16, "avx512_bf16"},
    {Isa::kAvx512, &CpuFeatures::avx512_vbmi, "avx512_vbmi"},
};

}  // namespace

std::span<const IsaRow> isa_rows() {
  return kIsas;
}

std::string_view name(Isa isa) {
  return kIsas[static_cast<size_t>(isa)].name;
}

std::string missing(Isa isa) {
  const CpuFeatures features = read_cpu_features();
  std::string list;
  for (const Need& need : kNeeds) {
    if (need.least > isa || features.*need.have) continue;
    list += (list.empty() ? "" : ", ") + std::string(need.name);
  }
  return list;
}

Isa resolve_isa(std::string_view wanted) {
  std::string known, runs;
  Isa best = Isa::kPortable;
  for (const IsaRow& row : kIsas) {
    const std::string lack = missing(row.isa);
    if (row.name == wanted) {
      if (lack.empty()) return row.isa;
      throw Error(text("instruction set ", wanted, ": this processor lacks ", lack),
                  text("use --isa auto (here: ", name(best), ")"));
    }
    known += text(", ", row.name);
    if (lack.empty()) best = row.isa;
  }
  if (wanted == "auto") return best;
  throw Error(text("unknown instruction set '", wanted, "'"), text("use auto", known));
}

}  // namespace mantissa::cpu
