#include "model/arena.h"

#include <utility>

#include "base/error.h"

namespace mantissa {

Arena::Arena(int64_t bytes, std::string_view what, const Ops& ops, Queue* queue)
    : ops_(&ops), queue_(queue), bytes_(bytes) {
  if (bytes > 0) data_ = ops.allocate(bytes, what, queue);
}

Arena::~Arena() {
  if (data_ != nullptr) ops_->release(data_, bytes_, queue_);
}

Arena::Arena(Arena&& other) noexcept {
  *this = std::move(other);
}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(ops_, other.ops_);
  std::swap(queue_, other.queue_);
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
