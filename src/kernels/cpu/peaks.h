// The machine's peaks (device/peaks.h) measured with the loops of the queue's instruction set.
#pragma once

#include "device/peaks.h"
#include "kernels/ops.h"

namespace mantissa::cpu {

// What the figures belong to: "AMD EPYC, 2 cores, avx512".
std::string machine_name(Queue* queue);
// From the cache, or measured and cached.
Peaks machine_peaks(Queue* queue);
// Measured now, under 10 s; not cached.
Peaks measure_machine_peaks(Queue* queue);

// Read bandwidth now, by the queue's threads: what a bench measures just before and after.
double machine_read_gb_s(Queue* queue);

}  // namespace mantissa::cpu
