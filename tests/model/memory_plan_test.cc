// Sizing the KV cache: what is left of a device, what one sequence needs, and what is said when it
// does not fit.
#include "model/memory_plan.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace mantissa {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30, kMiB = 1 << 20;

// A page of 16 tokens is 2 MiB: 8B shape, bf16.
CacheWish wish() {
  return {.page_bytes = 2 * kMiB, .page_tokens = 16, .model_len = 8192, .sequences = 256};
}
const MemoryNeeds kNeeds{.weights = 8 * kGiB, .load = kGiB, .workspace = kGiB, .graphs = 0};
const MemoryInfo kGpu{.total = 100 * kGiB, .free = 99 * kGiB};

TEST(MemoryPlan, TheCacheGetsWhatIsLeftOfTheGpu) {
  const CachePlan plan = plan_cache(kNeeds, wish(), kGpu, 0.9);
  EXPECT_EQ(plan.misfit, "");
  EXPECT_EQ(plan.pages, (90 - 9) * kGiB / (2 * kMiB));
}

TEST(MemoryPlan, GraphsAndSparePagesAreTakenOff) {
  CacheWish w = wish();
  w.spare_pages = 1;
  MemoryNeeds needs = kNeeds;
  needs.graphs = kGiB;
  EXPECT_EQ(plan_cache(needs, w, kGpu, 0.9).pages, (90 - 10) * kGiB / (2 * kMiB) - 1);
}

TEST(MemoryPlan, NoMoreThanEverySequenceCanUse) {
  CacheWish w = wish();
  w.sequences = 2;
  EXPECT_EQ(plan_cache(kNeeds, w, kGpu, 0.9).pages, 2 * 8192 / 16);
}

TEST(MemoryPlan, OneSequenceThatDoesNotFitIsRefusedWithWhatWould) {
  CacheWish w = wish();
  w.model_len = 131072;                                                       // 16 GiB
  const CachePlan plan = plan_cache(kNeeds, w, {20 * kGiB, 20 * kGiB}, 0.9);  // 9 GiB left
  EXPECT_NE(plan.misfit.find("--max-model-len 131072 tokens needs 17.2 GB"), std::string::npos)
      << plan.misfit;
  EXPECT_NE(plan.misfit.find("9.7 GB are left"), std::string::npos) << plan.misfit;
  EXPECT_NE(plan.fix.find("--max-model-len 73728 or less"), std::string::npos) << plan.fix;
  EXPECT_NE(plan.fix.find("--gpu-memory-utilization"), std::string::npos) << plan.fix;
}

TEST(MemoryPlan, WhatIsAskedForIsGivenOrRefused) {
  CacheWish w = wish();
  w.tokens = 1000;
  EXPECT_EQ(plan_cache(kNeeds, w, kGpu, 0.9).pages, 63);
  w.tokens = 1 << 20;  // 128 GiB
  const CachePlan plan = plan_cache(kNeeds, w, kGpu, 0.9);
  EXPECT_EQ(plan.pages, (1 << 20) / 16);
  EXPECT_NE(plan.misfit.find("a KV cache of 1048576 tokens"), std::string::npos) << plan.misfit;
  EXPECT_NE(plan.fix.find("at most 663552 tokens"), std::string::npos) << plan.fix;
}

TEST(MemoryPlan, MemoryThatOthersUseIsNamed) {
  const CachePlan plan = plan_cache(kNeeds, wish(), {100 * kGiB, 50 * kGiB}, 0.9);
  EXPECT_NE(plan.misfit.find("53.7 GB are free"), std::string::npos) << plan.misfit;
}

TEST(MemoryPlan, LoadingMustFitToo) {
  MemoryNeeds needs = kNeeds;
  needs.load = 95 * kGiB;
  EXPECT_NE(plan_cache(needs, wish(), kGpu, 0.9).misfit, "");
}

TEST(MemoryPlan, TheHostsCacheIsFourGigabytesOrOneSequence) {
  const MemoryInfo host{64 * kGiB, 64 * kGiB};
  CacheWish w = wish();
  EXPECT_EQ(plan_cache(kNeeds, w, host, 0).pages, 4 * kGiB / (2 * kMiB));
  w.model_len = 131072;
  EXPECT_EQ(plan_cache(kNeeds, w, host, 0).pages, 131072 / 16);
  w.tokens = 64;
  EXPECT_EQ(plan_cache(kNeeds, w, host, 0).pages, 4);
  EXPECT_NE(plan_cache(kNeeds, w, {8 * kGiB, 8 * kGiB}, 0).misfit.find("but this machine has"),
            std::string::npos);
}

TEST(MemoryPlan, SlotsAreThirtyTwoBits) {
  CacheWish w = wish();
  w.page_bytes = 64;
  w.sequences = 1 << 24;
  const CachePlan plan = plan_cache(kNeeds, w, kGpu, 0.9);
  EXPECT_EQ(plan.pages, 0x7fffffff / 16);
  w.tokens = int64_t{1} << 40;
  EXPECT_THROW(plan_cache(kNeeds, w, kGpu, 0.9), Error);
}

}  // namespace
}  // namespace mantissa
