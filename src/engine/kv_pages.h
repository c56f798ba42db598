// The pool of KV cache pages: a fixed number, a free list, and a reference count for each, so that
// sequences may share pages. Knows numbers only, not what is in a page.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/counts.h"

namespace mantissa {

class KvPages {
 public:
  explicit KvPages(Pages total);

  // A page with one reference; nullopt when none is free, which is normal: the scheduler preempts.
  std::optional<int32_t> take();
  void share(int32_t page);    // one more reference to a page in use
  void release(int32_t page);  // one less; the last one frees the page

  Pages total() const { return {static_cast<int64_t>(references_.size())}; }
  Pages free() const { return {static_cast<int64_t>(free_.size())}; }
  Pages in_use() const { return total() - free(); }
  int32_t references(int32_t page) const;
  // Whether free pages and references agree, and `held` references exist in all: what the callers
  // hold. False is a leak or a page released twice.
  bool balanced(int64_t held) const;

 private:
  std::vector<int32_t> references_;  // [total] 0: free
  std::vector<int32_t> free_;        // the last released is taken first: it may be in a cache
};

}  // namespace mantissa
