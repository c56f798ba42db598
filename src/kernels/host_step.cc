#include "kernels/host_step.h"

#include <algorithm>

namespace mantissa {
namespace {

void mark_seen(const Seats& seats, const StepSequence& s, std::span<const int32_t> ids) {
  if (s.sampling.repetition_penalty == 1) return;
  const std::span<uint32_t> seen = seats.seen.row(s.seat);
  if (s.position == 0) std::fill(seen.begin(), seen.end(), 0);
  for (const int32_t id : ids) seen[static_cast<size_t>(id / 32)] |= 1u << (id % 32);
}

void prepare_sequence(const BatchArrays& out, const StepInput& in, const Seats& seats, int32_t s) {
  const StepSequence& q = in.sequence[s];
  const std::span<int32_t> table = seats.tables.row(q.seat);
  std::copy_n(in.pages + q.page_at, q.pages, table.begin() + q.page_col);
  const int32_t end = q.position + q.tokens;
  const int32_t pages = (end + seats.page_tokens - 1) / seats.page_tokens;
  std::copy_n(table.begin(), pages, out.block_table.row(s).begin());
  for (int32_t i = 0; i < q.tokens; ++i) {
    const int32_t t = q.first_token + i, position = q.position + i;
    const int32_t id = in.token_ids[t];
    out.token_ids[t] = id == kSampledId ? seats.sampled_ids[q.seat] : id;
    out.positions[t] = position;
    const int32_t page = table[static_cast<size_t>(position / seats.page_tokens)];
    out.slots[t] =
        q.padding != 0 ? seats.spare_slot : page * seats.page_tokens + position % seats.page_tokens;
  }
  mark_seen(seats, q, {out.token_ids + q.first_token, static_cast<size_t>(q.tokens)});
  out.query_start[s] = q.first_token;
  out.context_len[s] = end;
}

const StepSequence& owner_of(const SampleCall& call, int64_t row) {
  return call.sequence[call.owners != nullptr ? call.owners[row] : row];
}

}  // namespace

void prepare_host(const BatchArrays& out, const StepInput& in, const Seats& seats, Queue*) {
  for (int32_t s = 0; s < in.sequences; ++s) prepare_sequence(out, in, seats, s);
  out.query_start[in.sequences] = in.tokens;
}

void sample_host_row(const SampleCall& call, int64_t row, SamplerScratch& scratch) {
  const StepSequence& q = owner_of(call, row);
  if (q.padding != 0) return;
  const uint32_t* seen =
      q.sampling.repetition_penalty != 1 ? call.seats.seen.row(q.seat).data() : nullptr;
  const SampledRow sampled =
      sample_row(call.logits.row(row), seen, q.position + q.tokens, q.sampling, scratch);
  call.out[q.result] = sampled;
  if (sampled.status == SampleStatus::kChosen) call.seats.sampled_ids[q.seat] = sampled.id;
}

void logprobs_host_row(const SampleCall& call, int64_t row, SamplerScratch& scratch) {
  const StepSequence& q = owner_of(call, row);
  const SampledRow& sampled = call.out[q.result];
  if (q.padding == 0 && sampled.status == SampleStatus::kChosen)
    call.logprobs[q.result] = logprob_row(call.logits.row(row), sampled.id, scratch);
}

void sample_host(const SampleCall& call, SamplerScratch& scratch) {
  for (int64_t r = 0; r < call.logits.rows; ++r) sample_host_row(call, r, scratch);
}
void logprobs_host(const SampleCall& call, SamplerScratch& scratch) {
  for (int64_t r = 0; r < call.logits.rows; ++r) logprobs_host_row(call, r, scratch);
}

void set_mark_host(int, Queue*) {}
void wait_mark_host(int, Queue*) {}

}  // namespace mantissa
