// What reading memory reaches on this machine: the limit of decoding, where every step reads all
// weights once.
#pragma once

#include <cstdint>

namespace mantissa {

// GB/s (10^9 bytes) of `threads` threads (0: all cores this process may use) that sum a buffer of
// 1 GiB (or a quarter of the memory, where that is less): the best of several passes, about a
// second in all. A shared cache larger than that would show instead of the memory.
double read_bandwidth_gb_s(int threads);

}  // namespace mantissa
