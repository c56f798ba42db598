// Fills a planned model: reads the checkpoint band by band, rounds to the run dtype, quantizes,
// packs. Nothing larger than a band of rows is held besides the packed weights.
#pragma once

#include "base/thread_pool.h"
#include "model/arena.h"
#include "model/layout.h"

namespace mantissa {

// Bytes of all weights and vectors in the arena, padding included.
int64_t arena_bytes(ModelLayout& layout);

// Gives every weight its memory from `arena` and loads it. checkpoint == nullptr: random values
// drawn from `seed` (dummy weights): uniform in +-sqrt(3)/50, so of standard deviation 0.02; gains
// are 1.
LoadReport load_weights(ModelLayout& layout, Arena& arena, const Checkpoint* checkpoint,
                        uint64_t seed, const Ops& ops, Queue* queue, ThreadPool& pool,
                        const LoadProgress& progress);

}  // namespace mantissa
