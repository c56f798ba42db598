// The fork/join pool: every index once, exceptions reach the caller, no dependence on who comes.
#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <numeric>
#include <stdexcept>
#include <thread>
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

// Of 16 chunks worker 1 holds its first, number 8, until worker 0 has done all others: its own part
// in order, then again and again the second half of what worker 1 has left, each in order.
TEST(ThreadPool, PartsAreTakenInOrderAndStolenByHalves) {
  ThreadPool pool(2);
  constexpr int kChunks = 16;
  constexpr int64_t kGrain = 7;
  std::atomic<bool> held{false};
  std::atomic<int> others{0};
  std::vector<int64_t> order[2];
  pool.parallel_parts(kChunks * kGrain - 3, kGrain, [&](int worker, int64_t begin, int64_t) {
    order[worker].push_back(begin / kGrain);
    if (worker == 0) {
      while (!held) std::this_thread::yield();
      ++others;
    } else {
      held = true;
      while (others < kChunks - 1) std::this_thread::yield();
    }
  });
  EXPECT_EQ(order[0], (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 10, 11, 9}));
  EXPECT_EQ(order[1], std::vector<int64_t>{8});
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they reserve terabytes
TEST(ThreadPool, ThreadsThatCannotBeStartedAreAnError) {
  const auto few = [] {
    const rlimit limit{1 << 30, 1 << 30};  // of address space: far from a thousand stacks of 8 MiB
    if (setrlimit(RLIMIT_AS, &limit) != 0) std::exit(2);
    try {
      ThreadPool pool(1000);
    } catch (const Error& e) {
      std::fputs(e.what(), stderr);
      std::exit(3);
    }
    std::exit(0);
  };
  EXPECT_EXIT(few(), ::testing::ExitedWithCode(3), "of 1000 threads, .* could not be started");
}
#endif

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

double process_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

TEST(ThreadPool, WokenWorkersWorkAndSleepAgain) {
  ThreadPool pool(3);
  std::thread other([&] {
    for (int i = 0; i < 200; ++i) pool.wake();  // beside loops too
  });
  for (int round = 0; round < 200; ++round) {
    std::atomic<int64_t> sum{0};
    pool.parallel_for(300, 1, [&](int, int64_t begin, int64_t) { sum += begin; });
    ASSERT_EQ(sum.load(), 300 * 299 / 2);
  }
  other.join();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const double before = process_seconds();
  pool.wake();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_LT(process_seconds() - before, 0.05);  // two workers spin for 1 ms each
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
