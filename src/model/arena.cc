#include "model/arena.h"

#include <sys/mman.h>

#include <utility>

#include "base/error.h"

namespace mantissa {

Arena::Arena(int64_t bytes, const char* what) : bytes_(bytes) {
  if (bytes == 0) return;
  void* at = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    throw Error(text("cannot allocate ", bytes >> 20, " MiB for ", what),
                "use a smaller model, another scheme, or a smaller --max-model-len, --max-num-seqs "
                "or --max-num-batched-tokens",
                Error::Kind::kRuntime);
  }
  data_ = static_cast<std::byte*>(at);
  constexpr int64_t kHugePage = 2 << 20;
  if (bytes >= 2 * kHugePage) madvise(at, static_cast<size_t>(bytes), MADV_HUGEPAGE);
}

Arena::~Arena() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

Arena::Arena(Arena&& other) noexcept {
  *this = std::move(other);
}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(used_, other.used_);
  return *this;
}

std::byte* Arena::take(int64_t bytes) {
  check(bytes >= 0 && padded(bytes) <= bytes_ - used_, "Arena::take within the plan");
  std::byte* at = data_ + used_;
  used_ += padded(bytes);
  return at;
}

}  // namespace mantissa
