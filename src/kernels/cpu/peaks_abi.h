// Loops that do nothing but read, or multiply and add, per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mantissa::cpu {

struct IsaPeakLoop {
  float (*run)(int64_t rounds);
  double ops_per_round;
};
struct IsaPeakLoops {
  uint64_t (*read)(const std::byte* data, int64_t bytes);
  uint64_t (*read_two)(const std::byte* data, int64_t bytes);
  IsaPeakLoop f32, bf16, int8;
};
extern const IsaPeakLoops kPeaksPortable, kPeaksAvx2, kPeaksAvx512;

}  // namespace mantissa::cpu
