// Fills a planned model: reads the checkpoint, rounds to the run dtype, quantizes, packs. Where the
// backend quantizes (Ops::load) through device_loader.h, else here, band of rows by band: then
// nothing larger than a band is held besides the packed weights.
#pragma once

#include "base/thread_pool.h"
#include "model/arena.h"
#include "model/layout.h"

namespace mantissa {

// How many threads load: all that are given, but no more than keep a device busy.
int load_threads(const Ops& ops, int threads);

// Bytes of all weights and vectors in the arena, padding included.
int64_t arena_bytes(ModelLayout& layout);

// Where weights come from. Without a checkpoint: dummy weights of `seed` (dummy_value()), gains 1.
struct WeightSource {
  const Checkpoint* checkpoint = nullptr;
  uint64_t seed = 0;
};

// Gives every weight its memory from `arena` and loads it.
LoadReport load_weights(ModelLayout& layout, Arena& arena, const WeightSource& source,
                        const Ops& ops, Queue* queue, ThreadPool& pool,
                        const LoadProgress& progress);

}  // namespace mantissa
