// One step as the device sees it: what the host sends for each sequence, what stays there from step
// to step, and the batch that Ops::prepare makes of both. A sequence has a seat while it runs: a
// row of the arrays that stay. So a step that follows another needs nothing that only the device
// knows: the ids it samples are its own next input.
#pragma once

#include <cstdint>

#include "base/view.h"
#include "kernels/batch.h"
#include "kernels/sampling.h"

namespace mantissa {

// Instead of a token id: the id that was last sampled in this seat.
inline constexpr int32_t kSampledId = -1;

struct StepSequence {
  int32_t seat = 0;
  int32_t first_token = 0, tokens = 0;  // of the step's token ids
  int32_t position = 0;                 // of the first of them
  // Pages that are new in the seat: columns [page_col, page_col + pages) of its row of the table
  // are pages[page_at...].
  int32_t page_col = 0, pages = 0, page_at = 0;
  int32_t result = 0;  // where in SampleCall::out its sampled token goes
  // A row that only fills up a captured batch: its K and V go to Seats::spare_slot, what it samples
  // goes nowhere.
  int32_t padding = 0;
  SampleParams sampling;
};

// On the device, read by prepare and sample.
struct StepInput {
  int32_t tokens = 0, sequences = 0;
  const StepSequence* sequence = nullptr;  // [S]
  const int32_t* token_ids = nullptr;      // [T]
  const int32_t* pages = nullptr;
};

// What stays on the device, a row for each seat.
struct Seats {
  Matrix<int32_t> tables;          // [seats, pages of the longest context]
  Matrix<uint32_t> seen;           // [seats, V / 32] bits: tokens that were input, where penalized
  int32_t* sampled_ids = nullptr;  // [seats]
  int32_t page_tokens = 0;
  int32_t spare_slot = 0;  // of the cache, for padding
};

// The arrays of a Batch, to be written.
struct BatchArrays {
  int32_t *token_ids = nullptr, *positions = nullptr, *slots = nullptr;  // [T]
  int32_t* query_start = nullptr;                                        // [S + 1]
  int32_t* context_len = nullptr;                                        // [S]
  Matrix<int32_t> block_table;                                           // [S, cols]
};

struct SampleCall {
  Matrix<const float> logits;              // [R, V]
  const StepSequence* sequence = nullptr;  // [S], of the step
  const int32_t* owners = nullptr;         // [R] which sequence; nullptr: row r is sequence r
  Seats seats;
  SampledRow* out = nullptr;       // in staging memory; row r goes to [sequence.result]
  LogprobRow* logprobs = nullptr;  // likewise; nullptr: not wanted
};

}  // namespace mantissa
