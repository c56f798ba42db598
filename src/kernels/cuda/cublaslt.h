// cuBLASLt as the peer that benchmarks time beside our kernels: found at run time (dlopen), never
// used by the engine.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <string>

namespace mantissa::cuda {

// out [M, N] bf16 = A [M, K] B [N, K]^T with scales of the kind's shape.
enum class PeerKind : uint8_t {
  kBf16,
  kFp8Tensor,  // one scale each
  kFp8Row,     // [M] and [N] (OUTER_VEC_32F)
  kFp8Block    // 1 x 128 and 128 x 128 (VEC128_32F, BLK128x128_32F)
};

struct PeerArgs {
  PeerKind kind = PeerKind::kBf16;
  bool fast_accum = false;
  int64_t m = 0, n = 0, k = 0;
  const void *a = nullptr, *b = nullptr;
  const float *a_scale = nullptr, *b_scale = nullptr;  // as many as the kind has
  void* out = nullptr;
};

class CublasLt {
 public:
  // Throws Error when the library is not there.
  CublasLt();
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  // Empty when it has an algorithm for these, else its answer.
  std::string why_not(const PeerArgs& args);
  // Its heuristic's first choice.
  void run(const PeerArgs& args, cudaStream_t stream);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mantissa::cuda
