// Calibration: the ranges that the inputs of a model's linears take over a text, from which static
// activation scales are made (quant/static_scale.h). The model that observes has its weights
// quantized as they will be served and its activations in the run dtype: the ranges are those of
// the model that will run, nothing is clipped while it is being measured, and no unquantized copy
// of the weights is ever held.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "eval/windows.h"
#include "model/model.h"

namespace mantissa {

// At most `samples` windows of bos and `length` - 1 tokens, spread evenly over the text; fewer
// where it has fewer (the last may be short). with_head: every position is scored, so that the
// output head sees its inputs too.
std::vector<Window> calibration_windows(std::span<const int32_t> tokens, int32_t bos,
                                        int64_t samples, int64_t length, bool with_head);

struct Calibration {
  std::vector<InputRange> ranges;
  int64_t tokens = 0;
  int64_t seen = 0;  // inputs that had values: the head has none unless it is asked for
  // How far the text was enough: inputs that met a larger value in the last tenth of the windows
  // than in all before, and by how much at most. They would have saturated without it.
  int64_t grown = 0;
  double growth_most = 1;
};

// model.options().observe_inputs is set; the model is loaded. progress: windows.
Calibration calibrate(Model& model, std::span<const Window> windows,
                      const WindowProgress& progress = {});

}  // namespace mantissa
