// prepare, sample, staging memory and marks of backends whose device is the host: everything is
// done when a function returns.
#pragma once

#include "kernels/ops.h"

namespace mantissa {

void prepare_host(const BatchArrays& out, const StepInput& in, const Seats& seats, Queue*);
// One row of the call's logits; different rows may run at once, each with its own scratch.
void sample_host_row(const SampleCall& call, int64_t row, SamplerScratch& scratch);
void logprobs_host_row(const SampleCall& call, int64_t row, SamplerScratch& scratch);
// All rows, one after another.
void sample_host(const SampleCall& call, SamplerScratch& scratch);
void logprobs_host(const SampleCall& call, SamplerScratch& scratch);
void set_mark_host(int index, Queue*);
void wait_mark_host(int index, Queue*);

}  // namespace mantissa
