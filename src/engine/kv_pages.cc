#include "engine/kv_pages.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace mantissa {

KvPages::KvPages(Pages total)
    : references_(static_cast<size_t>(total.n), 0), free_(static_cast<size_t>(total.n)) {
  std::iota(free_.rbegin(), free_.rend(), 0);  // page 0 is taken first
}

std::optional<int32_t> KvPages::take() {
  if (free_.empty()) return std::nullopt;
  const int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

int32_t KvPages::references(int32_t page) const {
  check(page >= 0 && page < total().n, "KvPages: page in range");
  return references_[static_cast<size_t>(page)];
}

void KvPages::share(int32_t page) {
  check(references(page) > 0, "KvPages: only a page in use can be shared");
  ++references_[static_cast<size_t>(page)];
}

void KvPages::release(int32_t page) {
  check(references(page) > 0, "KvPages: a page is released as often as it was taken");
  if (--references_[static_cast<size_t>(page)] == 0) free_.push_back(page);
}

bool KvPages::balanced(int64_t held) const {
  const int64_t references = std::accumulate(references_.begin(), references_.end(), int64_t{0});
  const int64_t unused = std::count(references_.begin(), references_.end(), 0);
  const bool all_free = std::all_of(free_.begin(), free_.end(),
                                    [&](int32_t page) { return this->references(page) == 0; });
  return references == held && unused == free().n && all_free;
}

}  // namespace mantissa
