#include "kernels/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "base/error.h"

namespace mantissa {

std::byte* allocate_host(int64_t bytes, std::string_view what, Queue*) {
  void* at = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    throw Error(text("cannot allocate ", bytes >> 20, " MiB for ", what),
                "use a smaller model, another scheme, or a smaller --max-model-len, --max-num-seqs "
                "or --max-num-batched-tokens",
                Error::Kind::kRuntime);
  }
  constexpr int64_t kHugePage = 2 << 20;
  if (bytes >= 2 * kHugePage) madvise(at, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  return static_cast<std::byte*>(at);
}

void release_host(std::byte* memory, int64_t bytes, Queue*) {
  munmap(memory, static_cast<size_t>(bytes));
}

MemoryInfo host_memory_info(Queue*) {
  const int64_t bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  return {.total = bytes, .free = bytes};
}

void copy_host(void* to, const void* from, int64_t bytes, Queue*) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace mantissa
