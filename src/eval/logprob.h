// Log-probabilities of one row of logits [V], in float32 with sums in float64: relative error below
// 1e-6 of the exact softmax. Not here: which rows are scored (windows.h).
#pragma once

#include <cstdint>
#include <span>

namespace mantissa {

// log of the sum of exp over all logits. NaN where a logit is NaN or infinite.
double log_sum_exp(std::span<const float> logits);

// The first of the largest logits.
int32_t argmax(std::span<const float> logits);

// The largest logit minus the second largest (0 where two are equal, infinity where there is one).
float top_margin(std::span<const float> logits);

// The largest |a - b| of two rows of one length.
float largest_gap(std::span<const float> a, std::span<const float> b);

// Sum over the vocabulary of p_base (ln p_base - ln p): the Kullback-Leibler divergence in nats.
// lse: log_sum_exp of each row.
double kl_divergence(std::span<const float> base, double base_lse, std::span<const float> logits,
                     double lse);

}  // namespace mantissa
