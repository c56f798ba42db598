// The instruction sets the CPU kernels are compiled for, chosen once when a queue is opened. Files
// named *_avx512.cc and *_avx2.cc are compiled with that set's flags (kernels/CMakeLists.txt), hold
// no standard library code and no weak symbols (docs/adr/0004; a test runs nm on them).
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace mantissa::cpu {

// Worst first: a machine that has one has those before it.
enum class Isa { kPortable, kAvx2, kAvx512 };

struct IsaRow {
  Isa isa;
  std::string_view name;   // "avx512"
  std::string_view needs;  // "AVX-512 F, BW, ..."
};
std::span<const IsaRow> isa_rows();
std::string_view name(Isa isa);

// Empty when this machine runs it, else what is missing ("avx512_bf16, avx512_vbmi").
std::string missing(Isa isa);
// "auto": the best this machine runs. A name: that one, or Error when it does not run here (forced
// means forced).
Isa resolve_isa(std::string_view name);

}  // namespace mantissa::cpu
