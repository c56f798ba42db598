// What the host says of its memory.
#include "kernels/host_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace mantissa {
namespace {

TEST(HostMemory, FreeIsAPartOfTotalAndTotalOfTheMachine) {
  const MemoryInfo memory = host_memory_info(nullptr);
  EXPECT_LE(memory.total, int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE));
  EXPECT_LE(memory.free, memory.total);
  // This process runs, so there is some; a machine whose every page is free does not exist.
  EXPECT_GT(memory.free, 0);
  EXPECT_LT(memory.free, int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE));
}

}  // namespace
}  // namespace mantissa
