// How much of a device the KV cache gets, and whether a model fits: arithmetic alone, so that it is
// tested without a device.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/ops.h"

namespace mantissa {

inline constexpr double kGpuMemoryUtilization = 0.9;  // vLLM's default

// Bytes of everything but the cache.
struct MemoryNeeds {
  int64_t weights = 0;
  int64_t load = 0;       // on top of the weights while loading, before workspace and cache
  int64_t workspace = 0;  // activations, steps and the kernels' scratch memory
  int64_t graphs = 0;
};

// What the cache is asked to be.
struct CacheWish {
  int64_t page_bytes = 0;  // of all layers
  int64_t page_tokens = 0;
  int64_t spare_pages = 0;               // that no sequence gets
  int64_t model_len = 0, sequences = 0;  // at most `sequences` of `model_len` tokens
  int64_t tokens = 0;                    // > 0: this capacity
};

struct CachePlan {
  int64_t pages = 0;        // for sequences
  std::string misfit, fix;  // empty: it fits. Else what Model::load() refuses with
};

// utilization: the part of the device's memory that this process may use (what others use counts
// only where it leaves too little). 0: the device is the host; the cache gets 4 GiB, as vLLM's CPU
// backend, or what one sequence needs. Never more than every sequence can use.
CachePlan plan_cache(const MemoryNeeds& needs, const CacheWish& wish, const MemoryInfo& device,
                     double utilization);

}  // namespace mantissa
