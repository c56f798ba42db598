// What a model's passes need at least, so that measured speeds can be divided by the hardware's
// limits.
#pragma once

#include "model/model.h"

namespace mantissa {

// Packed bytes of weights that one decode step reads: everything but an embedding that is only
// gathered from.
int64_t weights_read(const Model& model);

// Multiplications and additions, each one operation, of a pass over one prompt of so many tokens:
// linears, causal attention, and the head for the last token. Norms and gates are left out.
double prefill_operations(const Model& model, int64_t tokens);

}  // namespace mantissa
