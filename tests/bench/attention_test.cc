// bench attention's sampled rows against ref: a slot, page or row in the wrong place shows.
#include "bench/attention.h"

#include <gtest/gtest.h>

#include "kernels/open_queue.h"

namespace mantissa {
namespace {

struct Shape {
  bool prefill;
  int64_t batch, context;
  const char* cache;
  const char* why;
};
constexpr Shape kShapes[] = {
    {false, 1, 1, "auto", "one key"},
    {false, 3, 37, "auto", "the last page is short"},
    {false, 2, 700, "fp8", "more tokens than the band of random rows; 8-bit cache"},
    {true, 1, 1, "auto", "one token"},
    {true, 2, 45, "auto", "two sequences in one pass"},
    {true, 1, 530, "int8", "more tokens than the band; 8-bit cache"},
};

TEST(BenchAttention, RowsEqualRef) {
  const Ops& ops = find_ops("cpu");
  const OpenQueue queue = open_queue(ops, DeviceConfig{.threads = 2, .scratch_tokens = 1024});
  for (const Shape& shape : kShapes) {
    const AttentionResult r = measure_attention(ops, queue.get(),
                                                {.prefill = shape.prefill,
                                                 .batch = shape.batch,
                                                 .context = shape.context,
                                                 .heads = 4,
                                                 .kv_heads = 2,
                                                 .head_dim = 32,
                                                 .run_dtype = &kBF16,
                                                 .cache = &parse_kv_format(shape.cache)},
                                                1);
    EXPECT_LT(r.rms_error, 1.0 / 128) << shape.why;  // two roundings to bf16 and P in bf16
    EXPECT_EQ(r.sampled, (shape.prefill ? 3 : 1) * 4 * 32) << shape.why;
    EXPECT_GT(r.times.p50_us, 0);
    EXPECT_LE(r.times.p10_us, r.times.p90_us);
    const double pairs = shape.prefill
                             ? 0.5 * static_cast<double>(shape.context * (shape.context + 1))
                             : static_cast<double>(shape.context);
    EXPECT_EQ(r.operations, 4 * static_cast<double>(shape.batch) * pairs * 4 * 32);
  }
}

}  // namespace
}  // namespace mantissa
