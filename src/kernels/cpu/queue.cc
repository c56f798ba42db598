#include "kernels/cpu/queue.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace mantissa::cpu {

void Scratch::Free::operator()(std::byte* memory) const {
  std::free(memory);  // NOLINT(cppcoreguidelines-no-malloc): aligned_alloc's counterpart
}

std::byte* Scratch::get(int64_t bytes) {
  if (bytes > bytes_) {
    constexpr int64_t kAlign = 64;
    const int64_t size = (bytes + kAlign - 1) / kAlign * kAlign;
    memory_.reset();
    bytes_ = 0;
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlign, static_cast<size_t>(size))));
    if (memory_ == nullptr) throw std::bad_alloc();
    bytes_ = size;
  }
  return memory_.get();
}

}  // namespace mantissa::cpu
