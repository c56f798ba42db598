// How far each linear of a scheme is from the reference's, one by one: every linear gets the input
// that the reference's linears had for the same tokens, so errors do not add up along the layers.
// What quantized activations lose is in it, not only what weights lose.
#pragma once

#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "eval/windows.h"
#include "model/model.h"

namespace mantissa {

struct LayerError {
  int64_t layer = 0;
  std::string kind;         // "self_attn.qkv_proj"
  double relative_rms = 0;  // RMS of the difference of the outputs over RMS of the reference's
  double sqnr_db() const { return -20 * std::log10(relative_rms); }  // infinity where equal
};

// The reference's inputs and outputs, kept so that its model may go.
class LayerReference {
 public:
  static constexpr int64_t kTokensMax = 32;
  // The first tokens of the window. The model must be unquantized.
  LayerReference(Model& reference, const Window& window);
  // Inputs of an unquantized model, outputs of a reference that need not be one.
  LayerReference(Model& unquantized, Model& reference, const Window& window);
  std::vector<LayerError> errors(Model& model) const;

 private:
  std::vector<Model::LinearRows> inputs_, outputs_;
};

// Of errors of any layers: as if all outputs were one vector of rows of equal weight.
double mean_relative_rms(std::span<const LayerError> errors);

}  // namespace mantissa
