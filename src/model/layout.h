// What a model is made of once the options are known: every weight with its scheme, kernel, packed
// size and the checkpoint tensors it comes from. Made from headers alone, so the plan that is
// printed before loading is the one that is carried out.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/config.h"
#include "io/safetensors.h"
#include "io/stored_weight.h"
#include "kernels/ops.h"
#include "model/architecture.h"
#include "model/model.h"
#include "model/rope.h"
#include "model/stored.h"
#include "quant/static_scale.h"

namespace mantissa {

// A tensor [rows, K] that fills rows [row0, row0 + rows) of a weight.
struct WeightPart {
  std::string tensor, bias_tensor;  // bias_tensor is empty where there is none
  int64_t row0 = 0, rows = 0;
  std::shared_ptr<const StoredWeight> stored = {};  // where the checkpoint has codes and scales
};

// One resident weight and where its outputs go in its slot.
struct PlannedWeight {
  Weight weight;
  std::vector<WeightPart> parts;
  int64_t col0 = 0;       // first output column in the slot's result
  float* bias = nullptr;  // [N] on the device; set by the loader
  bool has_bias = false;
};

// The scale of a static form. It belongs to the slot: all readers of the form share it.
struct StaticInput {
  Spec spec;
  StaticScale value;
  float *scale = nullptr, *global_scale = nullptr;  // on the device; set by the loader
  int32_t* zero_point = nullptr;
};

// The forms of its input that a slot's weights read.
struct Formats {
  bool high = false;  // the run dtype
  std::vector<Spec> quantized;
  std::vector<StaticInput> statics;  // one for each static spec of `quantized`
  void add(const Spec& spec);
};

// The linears that read one input: usually one fused weight, more where --ignore splits it.
struct Slot {
  std::string module;  // "model.layers.0.self_attn.qkv_proj"
  std::vector<PlannedWeight> weights;
  Formats input;
  int64_t rows = 0, cols = 0;  // N of all, K
  float* observed = nullptr;   // calibration: [2] on the device, as Ops::observe keeps it
};

// A float32 vector on the device: a norm's gain, offset + the tensor. Size 0: there is none.
struct Vector {
  std::string tensor;
  int64_t size = 0;
  float offset = 0;
  float* data = nullptr;
};

struct Layer {
  Slot linears[kLinearRoles];
  Vector norms[kNormRoles];
  Vector q_norm, k_norm;
};

struct ModelLayout {
  const Architecture* architecture = nullptr;
  const Elem* run_dtype = nullptr;
  GateFn gate = GateFn::kSilu;
  PlannedWeight embed;  // without data where the head is tied: then the head is gathered from
  Slot head;
  bool tied = false;
  bool observes = false;  // every slot has a range (calibration)
  Vector final_norm;
  std::vector<Layer> layers;
  RopeFrequencies rope, local_rope;           // local_rope: of layers that ask for it, else empty
  std::shared_ptr<const StoredModel> stored;  // what `parts` refer to
  std::vector<KvScale> kv_scales;             // of each layer, from the checkpoint; or empty
  std::string scheme, head_scheme;            // what --quantization, --lm-head-scheme became
  std::vector<std::string> notices;

  const Weight& embed_table() const { return tied ? head.weights[0].weight : embed.weight; }
};

// Decides schemes, fuses parts, asks the backend for kernels. checkpoint is nullptr for dummy
// weights; else every tensor is looked up and its shape and dtype checked, and tensors that nothing
// reads are refused or noted. Throws Error.
ModelLayout make_layout(const ModelConfig& config, const ModelOptions& options,
                        const Elem& run_dtype, const Ops& ops, Queue* queue,
                        const Checkpoint* checkpoint);

// Every weight and every vector once, in loading order; `visit` gets a reference to change.
template <class Visit>
void for_each_weight(ModelLayout& layout, const Visit& visit) {
  if (!layout.tied) visit(layout.embed);
  for (Layer& layer : layout.layers) {
    for (Slot& slot : layer.linears) {
      for (PlannedWeight& w : slot.weights) visit(w);
    }
  }
  for (PlannedWeight& w : layout.head.weights) visit(w);
}
template <class Visit>
void for_each_slot(ModelLayout& layout, const Visit& visit) {
  for (Layer& layer : layout.layers) {
    for (Slot& slot : layer.linears) visit(slot);
  }
  visit(layout.head);
}
template <class Visit>
void for_each_vector(ModelLayout& layout, const Visit& visit) {
  for (Layer& layer : layout.layers) {
    for (Vector& norm : layer.norms) {
      if (norm.size > 0) visit(norm);
    }
    for (Vector* norm : {&layer.q_norm, &layer.k_norm}) {
      if (norm->size > 0) visit(*norm);
    }
  }
  visit(layout.final_norm);
}

// The weights' part of the plan: rows by kind of layer, sizes, notices.
MemoryPlan plan_weights(ModelLayout& layout);

}  // namespace mantissa
