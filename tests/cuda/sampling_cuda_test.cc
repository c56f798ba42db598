// Steps on the GPU against the host's: the same batch from the same input and seats, the same token
// for every row of logits, whatever the parameters.
#include <limits>
#include <random>

#include "gpu.h"
#include "kernels/host_step.h"

namespace mantissa {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Rows of logits with the parameters they are sampled by.
struct Problem {
  int64_t vocab;
  std::vector<float> logits;  // [R, V]
  std::vector<StepSequence> sequences;
  std::vector<uint32_t> seen;  // [R, V / 32]

  explicit Problem(int64_t vocab) : vocab(vocab) {}
  int64_t rows() const { return std::ssize(sequences); }
  int64_t words() const { return (vocab + 31) / 32; }
  void add(const std::vector<float>& row, const SampleParams& params, int32_t position,
           std::mt19937& random) {
    const auto r = static_cast<int32_t>(rows());
    logits.insert(logits.end(), row.begin(), row.end());
    sequences.push_back({.seat = r,
                         .first_token = r,
                         .tokens = 1,
                         .position = position,
                         .result = r,
                         .sampling = params});
    for (int64_t w = 0; w < words(); ++w)
      seen.push_back(static_cast<uint32_t>(random() & random()));
  }
};

struct Outcome {
  std::vector<SampledRow> rows;
  std::vector<LogprobRow> logprobs;
  std::vector<int32_t> seats;
};

SampleCall call_of(const Problem& p, const float* logits, const StepSequence* sequences,
                   uint32_t* seen, int32_t* seats, SampledRow* out, LogprobRow* logprobs) {
  return {.logits = {logits, p.rows(), p.vocab},
          .sequence = sequences,
          .seats = {.tables = {}, .seen = {seen, p.rows(), p.words()}, .sampled_ids = seats},
          .out = out,
          .logprobs = logprobs};
}

Outcome on_host(Problem& p) {
  const auto rows = static_cast<size_t>(p.rows());
  Outcome out{std::vector<SampledRow>(rows), std::vector<LogprobRow>(rows),
              std::vector<int32_t>(rows, -7)};
  SamplerScratch scratch;
  const SampleCall call = call_of(p, p.logits.data(), p.sequences.data(), p.seen.data(),
                                  out.seats.data(), out.rows.data(), out.logprobs.data());
  sample_host(call, scratch);
  logprobs_host(call, scratch);
  return out;
}

Outcome on_gpu(const Device& gpu, Problem& p) {
  const int64_t rows = p.rows();
  const int64_t result_bytes = rows * static_cast<int64_t>(sizeof(SampledRow)),
                logprob_bytes = rows * static_cast<int64_t>(sizeof(LogprobRow));
  Outcome out{{}, {}, std::vector<int32_t>(static_cast<size_t>(rows), -7)};
  const OnGpu logits(gpu, p.logits.data(), std::ssize(p.logits) * 4),
      sequences(gpu, p.sequences.data(), rows * static_cast<int64_t>(sizeof(StepSequence))),
      seen(gpu, p.seen.data(), std::ssize(p.seen) * 4), seats(gpu, out.seats.data(), rows * 4);
  std::byte* results =
      gpu.ops.allocate_staging(result_bytes + logprob_bytes, "a test", gpu.queue());
  std::memset(results, 0, static_cast<size_t>(result_bytes + logprob_bytes));
  auto* sampled = reinterpret_cast<SampledRow*>(results + logprob_bytes);
  auto* logprobs = reinterpret_cast<LogprobRow*>(results);
  const SampleCall call = call_of(p, logits.as<float>(), sequences.as<StepSequence>(),
                                  seen.as<uint32_t>(), seats.as<int32_t>(), sampled, logprobs);
  gpu.ops.sample(call, gpu.queue());
  gpu.ops.logprobs(call, gpu.queue());
  gpu.ops.set_mark(0, gpu.queue());
  gpu.ops.wait_mark(0, gpu.queue());
  out.rows.assign(sampled, sampled + rows);
  out.logprobs.assign(logprobs, logprobs + rows);
  seats.download(out.seats.data());
  gpu.ops.release_staging(results, result_bytes + logprob_bytes, gpu.queue());
  return out;
}

void expect_same_logprobs(const LogprobRow& got, const LogprobRow& want) {
  EXPECT_EQ(got.mass, want.mass);
  EXPECT_EQ(got.max, want.max);
  EXPECT_EQ(got.chosen, want.chosen);
  ASSERT_EQ(got.count, want.count);
  for (int i = 0; i < got.count; ++i) {
    EXPECT_EQ(got.ids[i], want.ids[i]);
    EXPECT_EQ(got.logits[i], want.logits[i]);
  }
}

void expect_equal(const Device& gpu, Problem& p, const char* what) {
  const Outcome want = on_host(p), got = on_gpu(gpu, p);
  for (size_t r = 0; r < want.rows.size(); ++r) {
    const SampleParams& s = p.sequences[r].sampling;
    SCOPED_TRACE(text(what, " V ", p.vocab, " row ", r, ": temperature ", s.temperature, " top_p ",
                      s.top_p, " top_k ", s.top_k, " min_p ", s.min_p, " penalty ",
                      s.repetition_penalty));
    ASSERT_EQ(got.rows[r].id, want.rows[r].id);
    ASSERT_EQ(got.rows[r].status, want.rows[r].status);
    ASSERT_EQ(got.seats[r], want.seats[r]);
    if (want.rows[r].status == SampleStatus::kChosen) {
      expect_same_logprobs(got.logprobs[r], want.logprobs[r]);
    } else if (want.rows[r].status == SampleStatus::kBadLogit) {
      EXPECT_EQ(std::isnan(got.rows[r].value), std::isnan(want.rows[r].value));
    }
    if (testing::Test::HasFailure()) return;
  }
}

SampleParams random_params(std::mt19937& random, int64_t vocab) {
  SampleParams p;
  p.seed = random();
  const float temperatures[] = {0, 0.01f, 0.3f, 0.7f, 1, 1, 1.5f, 100};
  p.temperature = temperatures[random() % 8];
  const double top_ps[] = {1, 1, 0.95, 0.9, 0.5, 1e-9, 0.999999};
  p.top_p = top_ps[random() % 7];
  const int32_t top_ks[] = {0, 0, 1, 2, 20, 50, 1000, static_cast<int32_t>(vocab)};
  p.top_k = top_ks[random() % 8];
  const float min_ps[] = {0, 0, 0, 0.05f, 0.5f, 1};
  p.min_p = min_ps[random() % 6];
  const float penalties[] = {1, 1, 1.3f, 0.7f};
  p.repetition_penalty = penalties[random() % 4];
  return p;
}

std::vector<float> random_logits(std::mt19937& random, int64_t vocab, float spread) {
  std::vector<float> row(static_cast<size_t>(vocab));
  std::normal_distribution<float> normal(0, spread);
  for (float& v : row) v = normal(random);
  return row;
}

class SamplingCuda : public GpuTest {};

TEST_F(SamplingCuda, ChoosesTheHostsTokenOnRandomRows) {
  const Device gpu(kCudaOps, {});
  std::mt19937 random(3);
  struct Size {
    int64_t vocab;
    int rows;
  };
  for (const Size& size :
       {Size{1, 64}, Size{2, 64}, Size{31, 256}, Size{513, 256}, Size{8192, 1500}, Size{32000, 300},
        Size{128256, 200}, Size{262208, 40}}) {
    for (const float spread : {0.0f, 0.05f, 1.0f, 5.0f}) {
      Problem p(size.vocab);
      for (int r = 0; r < size.rows / 4; ++r)
        p.add(random_logits(random, size.vocab, spread), random_params(random, size.vocab),
              static_cast<int32_t>(random() % 4096), random);
      expect_equal(gpu, p, "random");
      if (HasFailure()) return;
    }
  }
}

// Few distinct values, -0 beside 0, whole rows of -infinity but some, one token far above.
TEST_F(SamplingCuda, ChoosesTheHostsTokenOnTies) {
  const Device gpu(kCudaOps, {});
  std::mt19937 random(4);
  for (const int64_t vocab : {7, 1000, 4096, 4097, 50257, 128256}) {
    Problem p(vocab);
    for (int r = 0; r < 60; ++r) {
      std::vector<float> row(static_cast<size_t>(vocab));
      for (float& v : row) {
        const auto kind = static_cast<uint32_t>(random());
        if (r % 4 == 0) v = static_cast<float>(kind % 3) - 1;
        if (r % 4 == 1) v = kind % 2 == 0 ? 0.0f : -0.0f;
        if (r % 4 == 2) v = kind % 50 == 0 ? -100.0f + static_cast<float>(kind % 7) : -kInfinity;
        if (r % 4 == 3) v = -static_cast<float>(kind % 1000) / 16;
      }
      row[random() % row.size()] = r % 4 == 3 ? 90.0f : 0.5f;
      p.add(row, random_params(random, vocab), r, random);
    }
    expect_equal(gpu, p, "ties");
    if (HasFailure()) return;
  }
}

TEST_F(SamplingCuda, ReportsWhatTheHostReports) {
  const Device gpu(kCudaOps, {});
  std::mt19937 random(5);
  for (const int64_t vocab : {1, 40, 5000, 128256}) {
    Problem p(vocab);
    for (int r = 0; r < 40; ++r) {
      std::vector<float> row = random_logits(random, vocab, 2);
      SampleParams params = random_params(random, vocab);
      const float bad[] = {std::numeric_limits<float>::quiet_NaN(), kInfinity};
      if (r % 4 == 0) row[random() % row.size()] = bad[random() % 2];
      if (r % 4 == 1) std::fill(row.begin(), row.end(), -kInfinity);
      if (r % 4 == 2) params.repetition_penalty = std::numeric_limits<float>::denorm_min();
      p.add(row, params, r, random);
    }
    expect_equal(gpu, p, "errors");
    if (HasFailure()) return;
  }
}

// ---- prepare

constexpr int64_t kSeats = 9, kCols = 20, kVocab = 100, kPage = 16, kTokens = 400;
constexpr int64_t kWords = (kVocab + 31) / 32;

// Random steps one after the other: prompts in chunks, decodes, new sequences in old seats.
struct RandomSteps {
  std::mt19937 random{6};
  std::vector<int32_t> lengths = std::vector<int32_t>(kSeats, 0);
  std::vector<StepSequence> sequences{};
  std::vector<int32_t> tokens{}, pages{};

  void add(int32_t seat) {
    int32_t& length = lengths[static_cast<size_t>(seat)];
    const auto count = static_cast<int32_t>(random() % 2 == 0 ? 1 : 1 + random() % 40);
    if (length + count > kCols * kPage || random() % 9 == 0) length = 0;
    const auto held = static_cast<int32_t>((length + kPage - 1) / kPage),
               needed = static_cast<int32_t>((length + count + kPage - 1) / kPage);
    StepSequence s{.seat = seat,
                   .first_token = static_cast<int32_t>(tokens.size()),
                   .tokens = count,
                   .position = length,
                   .page_col = held,
                   .pages = needed - held,
                   .page_at = static_cast<int32_t>(pages.size()),
                   .padding = random() % 8 == 0 ? 1 : 0,
                   .sampling = {}};
    s.sampling.repetition_penalty = seat % 2 == 0 ? 1.0f : 1.5f;
    sequences.push_back(s);
    for (int32_t i = 1; i < count; ++i) tokens.push_back(static_cast<int32_t>(random() % kVocab));
    tokens.push_back(random() % 2 == 0 ? kSampledId : static_cast<int32_t>(random() % kVocab));
    for (int32_t i = held; i < needed; ++i) pages.push_back(static_cast<int32_t>(random() % 500));
    length += count;
  }
  void next() {
    sequences.clear();
    tokens.clear();
    pages.clear();
    for (int32_t seat = 0; seat < kSeats; ++seat)
      if (random() % 3 != 0) add(seat);
  }
  StepInput input() const {
    return {.tokens = static_cast<int32_t>(tokens.size()),
            .sequences = static_cast<int32_t>(sequences.size()),
            .sequence = sequences.data(),
            .token_ids = tokens.data(),
            .pages = pages.data()};
  }
};

// The arrays of a batch, one behind the other.
constexpr int64_t kArrays = 3 * kTokens + 2 * kSeats + 1 + kSeats * kCols;
BatchArrays arrays_at(int32_t* at) {
  return {.token_ids = at,
          .positions = at + kTokens,
          .slots = at + 2 * kTokens,
          .query_start = at + 3 * kTokens,
          .context_len = at + 3 * kTokens + kSeats + 1,
          .block_table = {at + 3 * kTokens + 2 * kSeats + 1, kSeats, kCols}};
}
Seats seats_at(int32_t* tables, uint32_t* seen, int32_t* ids) {
  return {.tables = {tables, kSeats, kCols},
          .seen = {seen, kSeats, kWords},
          .sampled_ids = ids,
          .page_tokens = kPage,
          .spare_slot = 12345};
}

TEST_F(SamplingCuda, PreparesTheHostsBatch) {
  const Device gpu(kCudaOps, {});
  std::vector<int32_t> tables(kSeats * kCols, -1), ids(kSeats, 3);
  std::vector<uint32_t> seen(kSeats * kWords, 0);
  const OnGpu gpu_tables(gpu, tables.data(), std::ssize(tables) * 4),
      gpu_ids(gpu, ids.data(), kSeats * 4), gpu_seen(gpu, seen.data(), std::ssize(seen) * 4);
  RandomSteps steps;
  for (int step = 0; step < 50; ++step) {
    steps.next();
    std::vector<int32_t> want(kArrays, -9), got(kArrays), got_tables(tables.size());
    std::vector<uint32_t> got_seen(seen.size());
    const OnGpu arrays(gpu, want.data(), kArrays * 4);
    StepInput input = steps.input();
    prepare_host(arrays_at(want.data()), input, seats_at(tables.data(), seen.data(), ids.data()),
                 nullptr);
    const OnGpu sequences(gpu, input.sequence,
                          input.sequences * static_cast<int64_t>(sizeof(StepSequence))),
        tokens(gpu, input.token_ids, input.tokens * 4),
        pages(gpu, input.pages, std::ssize(steps.pages) * 4);
    input.sequence = sequences.as<StepSequence>();
    input.token_ids = tokens.as<int32_t>();
    input.pages = pages.as<int32_t>();
    gpu.ops.prepare(
        arrays_at(arrays.as<int32_t>()), input,
        seats_at(gpu_tables.as<int32_t>(), gpu_seen.as<uint32_t>(), gpu_ids.as<int32_t>()),
        gpu.queue());
    arrays.download(got.data());
    gpu_tables.download(got_tables.data());
    gpu_seen.download(got_seen.data());
    ASSERT_EQ(got, want) << "step " << step;
    ASSERT_EQ(got_tables, tables) << "step " << step;
    ASSERT_EQ(got_seen, seen) << "step " << step;
  }
}

}  // namespace
}  // namespace mantissa
