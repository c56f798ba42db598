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

void OperationTimes::add(const char* operation, int64_t n, int64_t k, double seconds) {
  Total& total = totals_[{operation, n, k}];
  ++total.calls;
  total.seconds += seconds;
}

std::vector<OperationTime> OperationTimes::rows() const {
  std::vector<OperationTime> out;
  for (const auto& [key, total] : totals_) {
    const auto& [operation, n, k] = key;
    std::string name(operation);
    if (n > 0) name += text(" ", n, "x", k);
    out.push_back({std::move(name), total.calls, total.seconds});
  }
  return out;
}

}  // namespace mantissa::cpu
