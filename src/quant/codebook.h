// k-means codebooks of one block of weights. Deterministic: the data seed the entries.
#pragma once

#include <cstdint>
#include <span>

namespace mantissa {

// Fills `entries` (2^bits of them, ascending, rounded to bf16) for the finite values of x, and
// codes[i] = the entry nearest to x[i], the lower one at a tie; infinities take the outermost.
// x has no NaN. Entries start at the quantiles (j + 1/2) / 2^bits of the sorted values and take at
// most 20 Lloyd steps in float64; one that nothing is nearest to stays. No values: all 0.
void fit_codebook(std::span<const float> x, std::span<float> entries, std::span<uint8_t> codes);

}  // namespace mantissa
