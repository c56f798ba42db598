#include "model/steps.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/error.h"

namespace mantissa {
namespace {

constexpr int64_t kRing = kMarks;  // steps whose staging memory is in use at once

}  // namespace

std::vector<int32_t> graph_sizes(int64_t sequences_max) {
  std::vector<int32_t> sizes;
  const int64_t most = std::min(sequences_max, kGraphRowsMax);
  for (int64_t rows = 1; rows < most;) {
    sizes.push_back(static_cast<int32_t>(rows));
    rows += rows < 8 ? rows : rows < 64 ? 8 : rows < 128 ? 16 : rows < 256 ? 32 : 64;
  }
  sizes.push_back(static_cast<int32_t>(most));
  return sizes;
}

void check_token(int32_t id, int64_t vocab) {
  if (id >= 0 && id < vocab) return;
  throw Error(text("token id ", id, " is outside the model's vocabulary of ", vocab),
              "use the tokenizer that belongs to this model");
}

// One input: sequences, token ids, owners of sampled rows, pages. Offsets depend on the batch's
// size alone, so that a graph finds them.
struct Steps::InputLayout {
  int64_t token_ids, owners, pages;
  InputLayout(int64_t tokens, int64_t sequences)
      : token_ids(Arena::padded(sequences * static_cast<int64_t>(sizeof(StepSequence)))),
        owners(token_ids + Arena::padded(tokens * 4)),
        pages(owners + Arena::padded(sequences * 4)) {}
  int64_t bytes(int64_t page_count) const { return Arena::padded(pages + page_count * 4); }
};

// Each page is new once in a step, but for sequences that a captured batch repeats.
Steps::Steps(const Model::Limits& limits, int64_t table_cols, int64_t spare_page,
             Transformer& transformer)
    : limits_(limits),
      table_cols_(table_cols),
      spare_page_(spare_page),
      pages_max_(limits.kv_pages + 1),
      transformer_(transformer),
      counts_(kRing),
      with_logprobs_(kRing) {}

Steps::~Steps() {
  for (const Captured& c : captured_) ops_->release_graph(c.graph, queue_);
}

int64_t Steps::workspace_bytes() const {
  const int64_t seats = limits_.sequences + 1, words = (limits_.vocab + 31) / 32;
  return 3 * Arena::padded(limits_.tokens * 4) + Arena::padded((limits_.sequences + 1) * 4) +
         Arena::padded(limits_.sequences * 4) + Arena::padded(limits_.sequences * table_cols_ * 4) +
         InputLayout(limits_.tokens, limits_.sequences).bytes(pages_max_) +
         Arena::padded(seats * table_cols_ * 4) + Arena::padded(seats * words * 4) +
         Arena::padded(seats * 4);
}

void Steps::place(Arena& arena, std::span<const KvLayer> kv_layers, const Ops& ops, Queue* queue) {
  kv_layers_ = kv_layers;
  ops_ = &ops;
  queue_ = queue;
  const auto array = [&](int64_t count) { return arena.take_array<int32_t>(count); };
  arrays_.token_ids = array(limits_.tokens);
  arrays_.positions = array(limits_.tokens);
  arrays_.slots = array(limits_.tokens);
  arrays_.query_start = array(limits_.sequences + 1);
  arrays_.context_len = array(limits_.sequences);
  arrays_.block_table = {array(limits_.sequences * table_cols_), limits_.sequences, table_cols_};
  const int64_t input_bytes = InputLayout(limits_.tokens, limits_.sequences).bytes(pages_max_);
  input_ = arena.take(input_bytes);
  const int64_t seats = limits_.sequences + 1, words = (limits_.vocab + 31) / 32;
  seats_.tables = {array(seats * table_cols_), seats, table_cols_};
  seats_.seen = {arena.take_array<uint32_t>(seats * words), seats, words};
  seats_.sampled_ids = array(seats);
  seats_.page_tokens = static_cast<int32_t>(limits_.kv_page_tokens);
  seats_.spare_slot = static_cast<int32_t>(spare_page_ * limits_.kv_page_tokens);
  const int64_t result_bytes = Arena::padded(
      limits_.sequences * static_cast<int64_t>(sizeof(SampledRow) + sizeof(LogprobRow)));
  staging_ = Staging(kRing * (input_bytes + result_bytes), "steps", ops, queue);
  sample_rows_.reserve(static_cast<size_t>(limits_.sequences));
}

std::byte* Steps::slot_of(int64_t ticket) const {
  return staging_.data() +
         ticket % kRing * InputLayout(limits_.tokens, limits_.sequences).bytes(pages_max_);
}
SampledRow* Steps::results(int64_t ticket) const {
  return reinterpret_cast<SampledRow*>(
             slot_of(kRing - 1) +
             InputLayout(limits_.tokens, limits_.sequences).bytes(pages_max_)) +
         ticket % kRing * limits_.sequences;
}
LogprobRow* Steps::logprobs(int64_t ticket) const {
  return reinterpret_cast<LogprobRow*>(results(0) + kRing * limits_.sequences) +
         ticket % kRing * limits_.sequences;
}

// Token ids come from outside; the rest comes from our scheduler, so a mistake there is a bug.
void Steps::check_request(const Model::StepRequest& r) const {
  const auto tokens = std::ssize(r.token_ids), pages = std::ssize(r.pages);
  check(tokens <= limits_.tokens && std::ssize(r.sequences) <= limits_.sequences &&
            r.sampling.size() <= r.sequences.size() && pages <= limits_.kv_pages,
        "a step within the limits");
  int64_t token = 0, page = 0;
  for (const StepSequence& s : r.sequences) {
    const int64_t end = int64_t{s.position} + s.tokens;
    check(s.first_token == token && s.tokens >= 0 && s.page_at == page && s.pages >= 0,
          "a step's sequences own its tokens and pages in order");
    check(s.seat >= 0 && s.seat < limits_.sequences && s.position >= 0 &&
              end <= limits_.model_len && s.page_col >= 0 && s.page_col + s.pages <= table_cols_,
          "a sequence within its context");
    token += s.tokens;
    page += s.pages;
  }
  check(token == tokens && page == pages, "a step's sequences own all its tokens and pages");
  for (const int32_t id : r.token_ids) {
    if (id != kSampledId) check_token(id, limits_.vocab);
  }
  for (const int32_t p : r.pages) check(p >= 0 && p < limits_.kv_pages, "a page of the cache");
  for (const int32_t s : r.sampling)
    check(s >= 0 && s < std::ssize(r.sequences) && r.sequences[static_cast<size_t>(s)].tokens > 0,
          "a sequence that samples has tokens in the step");
}

const Steps::Captured* Steps::graph_for(const Model::StepRequest& r) const {
  const size_t rows = r.sequences.size();
  if (r.sampling.size() != rows || r.token_ids.size() != rows) return nullptr;
  for (size_t s = 0; s < rows; ++s) {
    if (r.sequences[s].tokens != 1 || r.sampling[s] != static_cast<int32_t>(s)) return nullptr;
  }
  const auto at = std::lower_bound(
      captured_.begin(), captured_.end(), rows,
      [](const Captured& c, size_t wanted) { return static_cast<size_t>(c.rows) < wanted; });
  return at == captured_.end() ? nullptr : &*at;
}

// Rows [count, rows) that change nothing: of a seat of their own at position 0; where rows share
// scales, copies of row 0, whose values make no scale larger.
void Steps::pad(StepSequence* sequences, int32_t* token_ids, int32_t count, int32_t rows) const {
  const bool copy = count > 0 && transformer_.rows_share_scales();
  for (int32_t i = count; i < rows; ++i) {
    StepSequence s = copy ? sequences[0] : StepSequence{};
    if (!copy) {
      s.seat = static_cast<int32_t>(limits_.sequences);
      s.tokens = 1;
      s.sampling.temperature = 0;
    }
    s.first_token = i;
    s.padding = 1;
    sequences[i] = s;
    token_ids[i] = copy ? token_ids[0] : 0;
  }
}

// The input of the next ticket, as a batch of at least `rows` sequences.
void Steps::upload(const Model::StepRequest& r, int32_t rows) {
  const auto count = static_cast<int32_t>(r.sequences.size());
  const int64_t tokens = std::ssize(r.token_ids) + (rows - count);
  const InputLayout at(tokens, rows);
  std::byte* slot = slot_of(next_ticket_);
  ops_->wait_mark(static_cast<int>(next_ticket_ % kRing), queue_);
  auto* sequences = reinterpret_cast<StepSequence*>(slot);
  auto* token_ids = reinterpret_cast<int32_t*>(slot + at.token_ids);
  auto* owners = reinterpret_cast<int32_t*>(slot + at.owners);
  auto* pages = reinterpret_cast<int32_t*>(slot + at.pages);
  std::copy(r.sequences.begin(), r.sequences.end(), sequences);
  std::copy(r.token_ids.begin(), r.token_ids.end(), token_ids);
  std::copy(r.pages.begin(), r.pages.end(), pages);
  const auto first = static_cast<int32_t>(next_ticket_ % kRing * limits_.sequences);
  for (size_t i = 0; i < r.sampling.size(); ++i) {
    owners[i] = r.sampling[i];
    sequences[r.sampling[i]].result = first + static_cast<int32_t>(i);
  }
  pad(sequences, token_ids, count, rows);
  for (int32_t i = count; i < rows; ++i) owners[i] = i;
  ops_->upload_staged(input_, slot, at.bytes(std::ssize(r.pages)), queue_);
}

namespace {

int32_t longest_query(const Model::StepRequest& r) {
  int32_t most = 1;  // padding has one token
  for (const StepSequence& s : r.sequences) most = std::max(most, s.tokens);
  return most;
}

}  // namespace

void Steps::run_pass(int64_t tokens, int64_t sequences, int32_t query_max) {
  const InputLayout at(tokens, sequences);
  const StepInput input{.tokens = static_cast<int32_t>(tokens),
                        .sequences = static_cast<int32_t>(sequences),
                        .sequence = reinterpret_cast<const StepSequence*>(input_),
                        .token_ids = reinterpret_cast<const int32_t*>(input_ + at.token_ids),
                        .pages = reinterpret_cast<const int32_t*>(input_ + at.pages)};
  ops_->prepare(arrays_, input, seats_, queue_);
  const Batch batch{.tokens = input.tokens,
                    .sequences = input.sequences,
                    .query_max = query_max,
                    .token_ids = arrays_.token_ids,
                    .positions = arrays_.positions,
                    .slots = arrays_.slots,
                    .query_start = arrays_.query_start,
                    .context_len = arrays_.context_len,
                    .block_table = arrays_.block_table.data,
                    .block_table_stride = table_cols_};
  transformer_.forward(batch, kv_layers_, *ops_, queue_);
}

// For the sampled rows from `first` on.
SampleCall Steps::sample_call(int64_t tokens, int64_t sequences, int64_t first,
                              Matrix<float> logits) const {
  const InputLayout at(tokens, sequences);
  return {.logits = logits,
          .sequence = reinterpret_cast<const StepSequence*>(input_),
          .owners = reinterpret_cast<const int32_t*>(input_ + at.owners) + first,
          .seats = seats_,
          .out = results(0),
          .logprobs = logprobs(0)};
}

void Steps::sample(int64_t tokens, int64_t sequences, std::span<const int32_t> rows,
                   bool logprobs) {
  for (int64_t first = 0; first < std::ssize(rows); first += limits_.logits_rows) {
    const int64_t count = std::min(limits_.logits_rows, std::ssize(rows) - first);
    const Matrix<float> logits = transformer_.head(
        rows.subspan(static_cast<size_t>(first), static_cast<size_t>(count)), *ops_, queue_);
    const SampleCall call = sample_call(tokens, sequences, first, logits);
    ops_->sample(call, queue_);
    if (logprobs) ops_->logprobs(call, queue_);
  }
}

int64_t Steps::capture(std::span<const int32_t> sizes) {
  int64_t bytes = 0;
  const std::vector<int32_t> spare(1, static_cast<int32_t>(spare_page_));
  ops_->upload(seats_.tables.row(limits_.sequences).data(), spare.data(), 4, queue_);
  // The largest first: scratch memory gets its final size.
  for (size_t i = sizes.size(); i-- > 0;) {
    const int32_t rows = sizes[i];
    if (rows > std::min(limits_.tokens, limits_.logits_rows)) continue;
    sample_rows_.resize(static_cast<size_t>(rows));
    std::iota(sample_rows_.begin(), sample_rows_.end(), 0);
    const auto step = [&] {
      run_pass(rows, rows, 1);
      sample(rows, rows, sample_rows_, false);
    };
    upload({}, rows);
    step();
    ops_->set_mark(static_cast<int>(next_ticket_++ % kRing), queue_);
    ops_->begin_capture(queue_);
    step();
    const CapturedGraph captured = ops_->end_capture(queue_);
    captured_.insert(captured_.begin(), {rows, captured.graph});
    bytes += captured.bytes;
  }
  return bytes;
}

int64_t Steps::launch(const Model::StepRequest& r) {
  check_request(r);
  const Captured* graph = graph_for(r);
  const auto count = static_cast<int32_t>(r.sequences.size());
  const int32_t rows = graph != nullptr ? graph->rows : count;
  const int64_t tokens = std::ssize(r.token_ids) + (rows - count), ticket = next_ticket_;
  upload(r, rows);
  if (graph != nullptr) {
    ops_->replay(graph->graph, queue_);
    if (r.logprobs) {
      const Matrix<float> logits = transformer_.last_logits(rows);
      ops_->logprobs(sample_call(tokens, rows, 0, logits), queue_);
    }
  } else {
    sample_rows_.clear();
    for (const int32_t s : r.sampling) {
      const StepSequence& q = r.sequences[static_cast<size_t>(s)];
      sample_rows_.push_back(q.first_token + q.tokens - 1);
    }
    run_pass(tokens, rows, longest_query(r));
    sample(tokens, rows, sample_rows_, r.logprobs);
  }
  ops_->set_mark(static_cast<int>(ticket % kRing), queue_);
  counts_[static_cast<size_t>(ticket % kRing)] = static_cast<int32_t>(r.sampling.size());
  with_logprobs_[static_cast<size_t>(ticket % kRing)] = r.logprobs;
  ++next_ticket_;
  return ticket;
}

Model::StepResult Steps::wait(int64_t ticket) {
  check(ticket < next_ticket_ && ticket >= next_ticket_ - kRing, "a ticket of the last steps");
  const auto slot = static_cast<size_t>(ticket % kRing);
  ops_->wait_mark(static_cast<int>(slot), queue_);
  const auto count = static_cast<size_t>(counts_[slot]);
  return {.rows = {results(ticket), count},
          .logprobs = {logprobs(ticket), with_logprobs_[slot] ? count : 0}};
}

void Steps::forward(const Model::StepRequest& r) {
  check_request(r);
  upload(r, static_cast<int32_t>(r.sequences.size()));
  run_pass(std::ssize(r.token_ids), std::ssize(r.sequences), longest_query(r));
  ops_->set_mark(static_cast<int>(next_ticket_++ % kRing), queue_);
}

}  // namespace mantissa
