// The memory functions of backends whose device is the host.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/ops.h"

namespace mantissa {

// Anonymous pages that cost nothing until they are touched; large ones ask for huge pages. Throws
// Error (run-time) when the system refuses.
std::byte* allocate_host(int64_t bytes, std::string_view what, Queue*);
void release_host(std::byte* memory, int64_t bytes, Queue*);
// Free: what programs can have without swapping (MemAvailable), within the control group's limit.
MemoryInfo host_memory_info(Queue*);
void copy_host(void* to, const void* from, int64_t bytes, Queue*);

}  // namespace mantissa
