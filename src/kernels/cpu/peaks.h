// The machine's peaks (device/peaks.h) measured with the loops of the queue's instruction set.
#pragma once

#include "device/peaks.h"
#include "kernels/ops.h"

namespace mantissa::cpu {

// What the figures belong to: "AMD EPYC, 2 cores, avx512".
std::string machine_name(Queue* queue);
// From the cache, or measured (under 10 s) and cached; `again`: measured in any case.
Peaks machine_peaks(Queue* queue, bool again = false);

// Read bandwidth now, by the queue's threads: what a bench measures just before and after.
double machine_read_gb_s(Queue* queue);

}  // namespace mantissa::cpu
