// One allocation for many arrays whose sizes are known up front: anonymous pages that cost nothing
// until they are touched, handed back when the arena goes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mantissa {

class Arena {
 public:
  Arena() = default;
  // Throws Error (run-time) when the system refuses; `what` is for its message. Large arenas ask
  // for huge pages.
  Arena(int64_t bytes, const char* what);
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;

  // The next `bytes`, 64-byte aligned; going beyond the size is a bug.
  std::byte* take(int64_t bytes);
  int64_t bytes() const { return bytes_; }

  static constexpr int64_t kAlign = 64;
  static constexpr int64_t padded(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0, used_ = 0;
};

}  // namespace mantissa
