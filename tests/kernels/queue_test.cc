// What a CPU queue does besides its kernels: rows are sampled on all threads as one by one, and
// operations are timed where that was asked for.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "kernels/cpu/ops.h"
#include "kernels/host_step.h"
#include "op_fixture.h"

namespace mantissa {
namespace {

struct Sampled {
  std::vector<SampledRow> rows;
  std::vector<LogprobRow> logprobs;
  std::vector<int32_t> seats;
};

// Every kind of parameters, with padding and a row that cannot be sampled among them.
class SampleRows : public testing::Test {
 protected:
  static constexpr int32_t kRows = 37, kVocab = 5000, kWords = (kVocab + 31) / 32;

  SampleRows() : logits_(kRows * kVocab), seen_(kRows * kWords) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal(0, 3);
    for (float& v : logits_) v = normal(random);
    for (uint32_t& word : seen_) word = static_cast<uint32_t>(random());
    logits_[11 * kVocab + 3] = std::numeric_limits<float>::quiet_NaN();
    for (int32_t r = 0; r < kRows; ++r) {
      SampleParams params{.seed = static_cast<uint64_t>(r),
                          .temperature = r % 3 == 0 ? 0.0f : 1.0f};
      if (r % 3 == 2) params.top_p = 0.9;
      if (r % 4 == 3) params.top_k = 20;
      if (r % 5 == 4) params.repetition_penalty = 1.3f;
      sequences_.push_back({.seat = kRows - 1 - r,
                            .first_token = r,
                            .tokens = 1,
                            .position = r,
                            .result = r,
                            .padding = r == 20 ? 1 : 0,
                            .sampling = params});
    }
  }

  Sampled run(const auto& sample) {
    Sampled out{std::vector<SampledRow>(kRows), std::vector<LogprobRow>(kRows),
                std::vector<int32_t>(kRows, -1)};
    sample(SampleCall{.logits = {logits_.data(), kRows, kVocab},
                      .sequence = sequences_.data(),
                      .seats = {.tables = {},
                                .seen = {seen_.data(), kRows, kWords},
                                .sampled_ids = out.seats.data()},
                      .out = out.rows.data(),
                      .logprobs = out.logprobs.data()});
    return out;
  }

  std::vector<float> logits_;
  std::vector<uint32_t> seen_;
  std::vector<StepSequence> sequences_;
};

TEST_F(SampleRows, OnAllThreadsEqualOneByOne) {
  const Device cpu(kCpuOps, {.threads = 3, .isa = "auto", .scratch_tokens = 1});
  const Sampled want = run([](const SampleCall& call) {
    SamplerScratch scratch;
    sample_host(call, scratch);
    logprobs_host(call, scratch);
  });
  EXPECT_EQ(want.rows[11].status, SampleStatus::kBadLogit);
  for (int repeat = 0; repeat < 20; ++repeat) {
    const Sampled got = run([&](const SampleCall& call) {
      cpu.ops.sample(call, cpu.queue());
      cpu.ops.logprobs(call, cpu.queue());
    });
    EXPECT_EQ(got.seats, want.seats);
    for (size_t r = 0; r < kRows; ++r) {
      EXPECT_EQ(got.rows[r].id, want.rows[r].id) << r;
      EXPECT_EQ(got.rows[r].status, want.rows[r].status) << r;
      const LogprobRow &left = got.logprobs[r], &right = want.logprobs[r];
      EXPECT_EQ(left.mass, right.mass) << r;
      EXPECT_EQ(left.max, right.max) << r;
      EXPECT_EQ(left.chosen, right.chosen) << r;
      ASSERT_EQ(left.count, right.count) << r;
      EXPECT_TRUE(std::equal(left.ids, left.ids + left.count, right.ids)) << r;
      EXPECT_TRUE(std::equal(left.logits, left.logits + left.count, right.logits)) << r;
    }
  }
}

int64_t bytes_of(const SamplerScratch& s) {
  const auto bytes = [](const auto& v) {
    return static_cast<int64_t>(v.capacity() * sizeof(v[0]));
  };
  return bytes(s.logits) + bytes(s.weights) + bytes(s.candidates) + bytes(s.masses);
}

TEST_F(SampleRows, ScratchIsPlanned) {
  SamplerScratch scratch;
  run([&](const SampleCall& call) {
    sample_host(call, scratch);
    logprobs_host(call, scratch);
  });
  EXPECT_EQ(bytes_of(scratch), sampler_scratch_bytes(kVocab));

  constexpr int kThreads = 3;
  const Device cpu(kCpuOps, {.threads = kThreads, .isa = "auto", .scratch_tokens = 1});
  PassLimits limits{
      .tokens = 1,
      .sequences = 1,
      .model_len = 64,
      .cols = 64,
      .heads = 1,
      .kv = {.layers = 1, .kv_heads = 1, .head_dim = 64, .page_tokens = 16, .elem = &kBF16},
      .run_dtype = &kBF16};
  const int64_t without = cpu.ops.scratch_bytes(limits, cpu.queue());
  limits.vocab = kVocab;
  EXPECT_EQ(cpu.ops.scratch_bytes(limits, cpu.queue()) - without,
            kThreads * sampler_scratch_bytes(kVocab));
}

TEST(OperationTimes, CountCallsOfQueuesThatWereAskedTo) {
  const std::vector<float> gain(64, 1.0f);
  for (const bool timed : {false, true}) {
    const Device cpu(kCpuOps,
                     {.threads = 1, .isa = "auto", .scratch_tokens = 4, .time_operations = timed});
    Tensor x(kF32, 4, 64), out(kF32, 4, 64);
    x.fill(1, 1);
    for (int i = 0; i < 3; ++i)
      cpu.ops.rms_norm(high_only(out.view()), x.view(), gain.data(), 1e-5f, cpu.queue());
    const std::vector<OperationTime> times = cpu.ops.operation_times(cpu.queue());
    ASSERT_EQ(times.size(), timed ? 1u : 0u);
    if (!timed) continue;
    EXPECT_EQ(times[0].operation, "rms_norm");
    EXPECT_EQ(times[0].calls, 3);
    EXPECT_GT(times[0].seconds, 0);
    EXPECT_LT(times[0].seconds, 60);
  }
}

}  // namespace
}  // namespace mantissa
