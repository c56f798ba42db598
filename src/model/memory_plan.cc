#include "model/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/units.h"

namespace mantissa {
namespace {

constexpr int64_t kHostCacheBytes = int64_t{4} << 30;

int64_t pages_of(int64_t tokens, const CacheWish& wish) {
  return (tokens + wish.page_tokens - 1) / wish.page_tokens;
}

// Every sequence at full length; slots are 32-bit numbers.
int64_t pages_most(const CacheWish& wish) {
  const int64_t slots = std::numeric_limits<int32_t>::max() / wish.page_tokens - wish.spare_pages;
  const int64_t sequence = pages_of(wish.model_len, wish);
  return sequence > slots / wish.sequences ? slots : sequence * wish.sequences;
}

std::string parts_text(const MemoryNeeds& needs) {
  return text("weights ", human_bytes(needs.weights), ", workspace ", human_bytes(needs.workspace),
              needs.graphs > 0 ? ", graphs " + human_bytes(needs.graphs) : "");
}

int64_t fixed_bytes(const MemoryNeeds& needs) {
  return needs.weights + needs.workspace + needs.graphs;
}

// Whether what was decided can be allocated.
void check_machine(const MemoryNeeds& needs, const CacheWish& wish, const MemoryInfo& device,
                   CachePlan& plan) {
  const int64_t cache = (plan.pages + wish.spare_pages) * wish.page_bytes;
  const int64_t peak = std::max(fixed_bytes(needs) + cache, needs.weights + needs.load);
  if (peak <= device.free) return;
  plan.misfit = text(
      "the plan needs ", human_bytes(peak), " (", parts_text(needs), ", KV cache ",
      human_bytes(cache),
      needs.load > 0 ? text("; while loading ", human_bytes(needs.load), " more than the weights")
                     : "",
      "), but this machine has ", human_bytes(device.total));
  if (device.free < device.total)
    plan.misfit += text(", of which ", human_bytes(device.free), " are free");
  plan.fix = "choose a smaller scheme, --max-model-len, --max-num-seqs or --max-num-batched-tokens";
}

CachePlan plan_host_cache(const CacheWish& wish) {
  const int64_t affordable = kHostCacheBytes / wish.page_bytes;
  return {.pages = std::max(std::min(pages_most(wish), affordable), pages_of(wish.model_len, wish)),
          .misfit = {},
          .fix = {}};
}

// From what is left of the device's part.
CachePlan plan_device_cache(const MemoryNeeds& needs, const CacheWish& wish,
                            const MemoryInfo& device, double utilization) {
  const auto budget = static_cast<int64_t>(static_cast<double>(device.total) * utilization);
  const int64_t left = budget - fixed_bytes(needs);
  const int64_t affordable = std::max<int64_t>(0, left / wish.page_bytes - wish.spare_pages);
  const int64_t sequence = pages_of(wish.model_len, wish);
  CachePlan plan{.pages = wish.tokens > 0
                              ? pages_of(wish.tokens, wish)
                              : std::max(std::min(pages_most(wish), affordable), sequence),
                 .misfit = {},
                 .fix = {}};
  if (plan.pages <= affordable) return plan;
  const std::string rest =
      text("but ", human_bytes(std::max<int64_t>(left, 0)), " are left of ", utilization, " x ",
           human_bytes(device.total), " (", parts_text(needs), ")");
  const std::string raise = utilization < 0.95 ? ", or raise --gpu-memory-utilization" : "";
  if (wish.tokens > 0) {
    plan.misfit = text("a KV cache of ", wish.tokens, " tokens needs ",
                       human_bytes((plan.pages + wish.spare_pages) * wish.page_bytes), ", ", rest);
    plan.fix =
        text("at most ", affordable * wish.page_tokens, " tokens fit: lower --max-num-seqs, ",
             "--max-model-len or --max-num-batched-tokens", raise);
  } else {
    plan.misfit = text("one sequence of --max-model-len ", wish.model_len, " tokens needs ",
                       human_bytes(sequence * wish.page_bytes), " of KV cache, ", rest);
    plan.fix = affordable > 0 ? text("use --max-model-len ", affordable * wish.page_tokens,
                                     " or less, --kv-cache-dtype fp8, a smaller scheme", raise)
                              : text("choose a smaller scheme", raise);
  }
  return plan;
}

}  // namespace

CachePlan plan_cache(const MemoryNeeds& needs, const CacheWish& wish, const MemoryInfo& device,
                     double utilization) {
  check(wish.page_bytes > 0 && wish.page_tokens > 0 && wish.model_len > 0 && wish.sequences > 0,
        "plan_cache: a cache with pages");
  CachePlan plan;
  if (utilization > 0) {
    plan = plan_device_cache(needs, wish, device, utilization);
  } else if (wish.tokens > 0) {
    plan.pages = pages_of(wish.tokens, wish);
  } else {
    plan = plan_host_cache(wish);
  }
  int64_t bytes = 0;
  if (plan.pages > std::numeric_limits<int32_t>::max() / wish.page_tokens - wish.spare_pages ||
      __builtin_mul_overflow(plan.pages + wish.spare_pages, wish.page_bytes, &bytes)) {
    throw Error(
        text("the KV cache would have ", plan.pages, " pages of ", wish.page_bytes, " bytes"),
        "lower --max-model-len");
  }
  if (plan.misfit.empty()) check_machine(needs, wish, device, plan);
  return plan;
}

}  // namespace mantissa
