// The machine's measured peaks: plausible, and cached per machine.
#include "kernels/cpu/peaks.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "base/thread_pool.h"

namespace mantissa {
namespace {

class PeaksTest : public testing::Test {
 protected:
  PeaksTest() {
    folder_ =
        std::filesystem::temp_directory_path() / ("mantissa-peaks-" + std::to_string(getpid()));
    setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
  }
  ~PeaksTest() override {
    unsetenv("XDG_CACHE_HOME");
    std::filesystem::remove_all(folder_);
  }
  std::filesystem::path folder_;
};

TEST_F(PeaksTest, AreMeasuredOnceAndThenRead) {
  const Ops& cpu = find_ops("cpu");
  Queue* queue = cpu.open({.threads = 1, .isa = "auto", .scratch_tokens = 1});
  const Peaks first = cpu::machine_peaks(queue);
  ASSERT_EQ(first.read_gb_s.size(), 1u);
  EXPECT_GT(first.read_gb_s[0], 0.05);
  EXPECT_LT(first.read_gb_s[0], 2000);
  EXPECT_GT(first.f32_gflops, 0.05);
  const auto started = std::chrono::steady_clock::now();
  const Peaks again = cpu::machine_peaks(queue);
  EXPECT_LT(std::chrono::steady_clock::now() - started, std::chrono::seconds(1));
  cpu.close(queue);
  EXPECT_EQ(again.machine, first.machine);
  EXPECT_NEAR(again.read_gb_s[0], first.read_gb_s[0], 1e-3 * first.read_gb_s[0]);
}

TEST(ThreadTimes, ArePlausible) {
  const ThreadTimes times = measure_threads(2);
  for (const double us : {times.fork_join_us, times.fork_join_slept_us, times.fork_join_woken_us}) {
    EXPECT_GT(us, 0.01);
    EXPECT_LT(us, 1e6);
  }
  if (usable_cores() < 2) {
    EXPECT_EQ(times.round_trip_ns, 0);
  } else {
    EXPECT_GT(times.round_trip_ns, 1);
  }
}

TEST(MergedPeaks, ABusyMachineLowersNothing) {
  const Peaks kept{
      .machine = "m", .read_gb_s = {30, 60}, .f32_gflops = 100, .bf16_gflops = 0, .int8_gops = 870};
  const Peaks busy{
      .machine = "m", .read_gb_s = {20, 25}, .f32_gflops = 90, .bf16_gflops = 0, .int8_gops = 280};
  std::vector<std::string> far_below;
  const Peaks out = merged_peaks(kept, busy, far_below);
  EXPECT_EQ(far_below, std::vector<std::string>{"int8 GOP/s: 280 now, 870 kept"});
  EXPECT_EQ(out.int8_gops, 870);
  EXPECT_EQ(out.f32_gflops, 100);
  EXPECT_EQ(out.read_gb_s, busy.read_gb_s);
  far_below.clear();
  EXPECT_EQ(merged_peaks(busy, kept, far_below).int8_gops, 870);
  EXPECT_TRUE(far_below.empty());
}

TEST_F(PeaksTest, ADamagedCacheIsMeasuredAnew) {
  const Peaks peaks{
      .machine = "m", .read_gb_s = {1, 2}, .f32_gflops = 3, .bf16_gflops = 0, .int8_gops = 4};
  ASSERT_TRUE(save_peaks(peaks));
  ASSERT_TRUE(load_peaks("m").has_value());
  EXPECT_EQ(load_peaks("m")->read_gb_s, peaks.read_gb_s);
  EXPECT_FALSE(load_peaks("another").has_value());
  std::ofstream(peaks_file("m")) << "{\"machine\": 7";
  EXPECT_FALSE(load_peaks("m").has_value());
}

}  // namespace
}  // namespace mantissa
