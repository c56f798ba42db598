// The fork/join pool: every index once, exceptions reach the caller, no dependence on who comes.
#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "base/error.h"

namespace mantissa {
namespace {

TEST(ThreadPool, VisitsEveryIndexOnce) {
  struct Case {
    int threads;
    int64_t n, grain;
    const char* why;
  };
  const Case cases[] = {
      {1, 10, 3, "the caller alone"},
      {2, 0, 1, "nothing to do"},
      {2, 1, 1, "one index"},
      {2, 1000, 1, "smallest chunks"},
      {2, 1000, 7, "a short last chunk"},
      {2, 5, 100, "a chunk larger than the range"},
      {4, 1001, 16, "more threads than cores"},
  };
  for (const Case& c : cases) {
    ThreadPool pool(c.threads);
    std::vector<int> visits(static_cast<size_t>(c.n), 0);
    const auto visit = [&](int worker, int64_t begin, int64_t end) {
      EXPECT_LE(0, worker);
      EXPECT_LT(worker, c.threads);
      EXPECT_LE(end - begin, c.grain);
      for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
    };
    pool.parallel_for(c.n, c.grain, visit);
    EXPECT_EQ(std::count(visits.begin(), visits.end(), 1), c.n) << c.why;
    pool.parallel_parts(c.n, c.grain, visit);
    EXPECT_EQ(std::count(visits.begin(), visits.end(), 2), c.n) << c.why << ", in parts";
  }
}

TEST(ThreadPool, PartsOfThreadsThatAreLateAreTaken) {
  ThreadPool pool(4);
  for (int job = 0; job < 2000; ++job) {
    std::vector<int> visits(64, 0);
    const auto late = std::chrono::microseconds(job % 5 == 0 ? 200 : 0);
    pool.parallel_parts(64, 1, [&](int worker, int64_t begin, int64_t) {
      if (worker == job % 4 && begin % 16 == 0) std::this_thread::sleep_for(late);
      ++visits[static_cast<size_t>(begin)];
    });
    ASSERT_EQ(std::count(visits.begin(), visits.end(), 1), 64);
  }
}

TEST(ThreadPool, APartIsTakenInOrder) {
  ThreadPool pool(1);
  std::vector<int64_t> order;
  pool.parallel_parts(50, 7, [&](int, int64_t begin, int64_t) { order.push_back(begin); });
  EXPECT_EQ(order, (std::vector<int64_t>{0, 7, 14, 21, 28, 35, 42, 49}));
}

TEST(ThreadPool, JobsFollowEachOtherWithoutMixing) {
  ThreadPool pool(4);
  std::vector<int64_t> values(257);
  for (int job = 0; job < 20000; ++job) {
    pool.parallel_for(257, 16, [&](int, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] = job + i;
    });
    // Every write is visible after the join.
    ASSERT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), 257 * job + 257 * 128);
  }
}

TEST(ThreadPool, WorkersOfOneLoopHaveDifferentNumbers) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> inside(4);
  pool.parallel_for(4000, 1, [&](int worker, int64_t, int64_t) {
    EXPECT_EQ(inside[static_cast<size_t>(worker)].fetch_add(1), 0);
    inside[static_cast<size_t>(worker)].fetch_sub(1);
  });
}

TEST(ThreadPool, StaticChunksAreMultiplesAndAtMostOnePerThread) {
  ThreadPool pool(3);
  std::atomic<int> chunks{0};
  std::atomic<int64_t> covered{0};
  pool.parallel_static(100, 16, [&](int, int64_t begin, int64_t end) {
    EXPECT_EQ(begin % 16, 0);
    ++chunks;
    covered += end - begin;
  });
  EXPECT_LE(chunks.load(), 3);
  EXPECT_EQ(covered.load(), 100);
}

TEST(ThreadPool, AnExceptionReachesTheCallerAndThePoolGoesOn) {
  ThreadPool pool(4);
  for (int round = 0; round < 100; ++round) {
    EXPECT_THROW(pool.parallel_for(1000, 1,
                                   [&](int, int64_t begin, int64_t) {
                                     if (begin >= 17) throw std::runtime_error("17");
                                   }),
                 std::runtime_error);
    EXPECT_THROW(pool.parallel_parts(1000, 1,
                                     [&](int, int64_t begin, int64_t) {
                                       if (begin % 100 == 17) throw std::runtime_error("17");
                                     }),
                 std::runtime_error);
    std::atomic<int64_t> sum{0};
    pool.parallel_for(100, 1, [&](int, int64_t begin, int64_t) { sum += begin; });
    ASSERT_EQ(sum.load(), 4950);
  }
}

TEST(ThreadPool, SleepingWorkersAreWoken) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));  // beyond the spinning
    std::atomic<int64_t> sum{0};
    pool.parallel_for(300, 1, [&](int, int64_t begin, int64_t) { sum += begin; });
    ASSERT_EQ(sum.load(), 300 * 299 / 2);
  }
}

TEST(ThreadPool, RefusesImpossibleCounts) {
  EXPECT_THROW(ThreadPool(-1), Error);
  EXPECT_THROW(ThreadPool(100000), Error);
  EXPECT_EQ(ThreadPool().threads(), usable_cores());
}

TEST(ThreadPoolDeathTest, LoopsDoNotNest) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        ThreadPool pool(2);
        pool.parallel_for(4, 1, [&](int, int64_t, int64_t) {
          pool.parallel_for(4, 1, [](int, int64_t, int64_t) {});
        });
      },
      "do not nest");
}

}  // namespace
}  // namespace mantissa
