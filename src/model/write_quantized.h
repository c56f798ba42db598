// `mantissa quantize`: a checkpoint's linears quantized one by one, in a format that other engines
// read too. Reads and writes band by band; every other tensor is copied as it is.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "model/model.h"

namespace mantissa {

struct WriteQuantized {
  std::filesystem::path from, to;
  Scheme scheme;
  std::string format;                    // "fp8", "compressed-tensors"
  std::vector<std::string> ignore;       // names and re: patterns; the head stays as it is anyway
  std::vector<InputRange> input_ranges;  // of static schemes
  int threads = 1;
  bool dry_run = false;  // checks and plans, writes nothing
  bool strict = false;   // refuses what would be a warning
};

struct WriteReport {
  std::string dialect;
  int64_t quantized = 0, copied = 0;    // linears; other tensors
  int64_t bytes_before = 0, bytes = 0;  // of all tensors
  std::vector<std::string> warnings;    // NaN, infinities, saturation: by name
  double seconds = 0;
};

// Throws Error; leaves no model behind then.
WriteReport write_quantized(const WriteQuantized& job, const LoadProgress& progress = {});

}  // namespace mantissa
