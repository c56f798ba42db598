// One allocation of device memory for many arrays whose sizes are known up front, handed back when
// the arena goes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/ops.h"

namespace mantissa {

class Arena {
 public:
  Arena() = default;
  // ops and queue must outlive the arena. Throws Error (run-time) when the device refuses.
  Arena(int64_t bytes, std::string_view what, const Ops& ops, Queue* queue);
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;

  // The next `bytes`, 64-byte aligned; going beyond the size is a bug.
  std::byte* take(int64_t bytes);
  template <class T>
  T* take_array(int64_t count) {
    return reinterpret_cast<T*>(take(count * static_cast<int64_t>(sizeof(T))));
  }
  int64_t bytes() const { return bytes_; }

  static constexpr int64_t kAlign = 64;
  static constexpr int64_t padded(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

 private:
  const Ops* ops_ = nullptr;
  Queue* queue_ = nullptr;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0, used_ = 0;
};

}  // namespace mantissa
