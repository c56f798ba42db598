#include "kernels/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "base/error.h"

namespace mantissa {
namespace {

// The number after `key` in a file of lines "key value ..."; -1: no such file or line.
int64_t value_of(const char* file, std::string_view key) {
  std::ifstream in(file);
  std::string name;
  int64_t value = 0;
  while (in >> name) {
    if (name == key) return in >> value ? value : -1;
    in.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return -1;
}
// The number that a file holds; -1: none ("max" where a limit is not set).
int64_t value_of(const char* file) {
  std::ifstream in(file);
  int64_t value = 0;
  return in >> value ? value : -1;
}

// What this process's control group (version 2) leaves of the machine's memory; its page cache
// counts as free, as in MemAvailable.
MemoryInfo within_group(MemoryInfo machine) {
  const int64_t limit = value_of("/sys/fs/cgroup/memory.max");
  const int64_t used = value_of("/sys/fs/cgroup/memory.current");
  if (limit < 0 || used < 0) return machine;
  const char* stat = "/sys/fs/cgroup/memory.stat";
  const int64_t cache = std::max<int64_t>(0, value_of(stat, "inactive_file")) +
                        std::max<int64_t>(0, value_of(stat, "active_file"));
  return {.total = std::min(machine.total, limit),
          .free = std::min(machine.free, std::max<int64_t>(0, limit - used + cache))};
}

}  // namespace

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
  const int64_t available = value_of("/proc/meminfo", "MemAvailable:");  // KiB
  return within_group(
      {.total = bytes, .free = available < 0 ? bytes : std::min(bytes, available * 1024)});
}

void copy_host(void* to, const void* from, int64_t bytes, Queue*) {
  std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace mantissa
