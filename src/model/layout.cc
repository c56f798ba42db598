#include "model/layout.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "base/error.h"
#include "base/list.h"
#include "model/names.h"

namespace mantissa {
namespace {

// Everything make_layout() needs while it walks over the model.
struct Builder {
  const ModelConfig& config;
  const ModelOptions& options;
  const Elem& run_dtype;
  const Ops& ops;
  Queue* queue;
  const Checkpoint* checkpoint;
  IgnoreList ignore;
  StoredModel& stored;
  Scheme unquantized, scheme, head_scheme;
  std::vector<std::string> notices;
  std::vector<std::string> modules;  // read ones, to tell forgotten tensors from foreign ones
  std::string first_linear;          // the name of one that can be quantized
  std::set<std::string> claimed;     // tensors that will be read, or left out on purpose
  int64_t widened_inputs = 0;        // static scales that differ between the parts of a slot

  // The tensor must exist with this shape and a dtype that converts.
  void check_tensor(const std::string& name, const std::vector<int64_t>& shape) {
    if (checkpoint == nullptr) return;
    const TensorInfo& tensor = checkpoint->at(name);
    claimed.insert(name);
    if (tensor.shape != shape) {
      std::string expected;
      for (int64_t s : shape) expected += (expected.empty() ? "" : ", ") + std::to_string(s);
      throw Error(text("tensor ", name, ": shape is ", tensor.shape_text(),
                       ", but config.json asks for [", expected, "]"),
                  "use the config.json that belongs to these weights");
    }
    const Elem* elem = tensor.dtype->elem;
    if (elem == nullptr || (elem != &kF32 && elem != &kF16 && elem != &kBF16)) {
      throw Error(
          text("tensor ", name, ": dtype is ", tensor.dtype->name,
               ", but an unquantized weight is BF16, F16 or F32"),
          "use the config.json that belongs to these weights: its quantization_config says which "
          "modules are quantized, and this is none of them");
    }
  }
  // Tensors that lie in `parts` must be the checkpoint's; called once per weight.
  void check_parts(const PlannedWeight& planned, int64_t cols) {
    for (const WeightPart& part : planned.parts) {
      if (part.stored == nullptr) check_tensor(part.tensor, {part.rows, cols});
      if (!part.bias_tensor.empty()) check_tensor(part.bias_tensor, {part.rows});
    }
  }

  // How a part is kept in memory: as the checkpoint has it, else as the user asked.
  struct PartPlan {
    Scheme scheme;
    std::shared_ptr<const StoredWeight> weight;
    bool fixed = false;  // the checkpoint's scheme
  };
  PartPlan plan_part(const std::string& module, int64_t rows, int64_t cols);
  PartPlan stored_part(const std::string& module, const StoredScheme& kept, int64_t rows,
                       int64_t cols);

  Slot make_slot(const LinearRow& row, const std::string& prefix);
  void add_input(Slot& slot, const Scheme& scheme, std::span<const WeightPart> parts);
  void add_kv_scales(ModelLayout& layout);
  PlannedWeight plan_weight(const std::string& name, const Scheme& weight_scheme, int64_t rows,
                            int64_t cols, bool gathered);
  bool has_bias(Bias bias) const;
  Vector make_vector(const std::string& module, int64_t size, float offset);
  Layer make_layer(const Architecture& architecture, int64_t index);
  void make_head(ModelLayout& layout);
  void refuse_unread(const Architecture& architecture);
};

// Blocks of several rows must not straddle two parts: vLLM quantizes such shards one by one.
bool fuses(const Spec& spec, int64_t part_rows) {
  return spec.block.rows == kAll || part_rows % spec.block.rows == 0;
}

void note_short_group(const WeightRequest& request, std::vector<std::string>& notices) {
  const int group = request.scheme.weight.block.cols;
  if (!request.scheme.weight.quantized() || group == kAll || request.cols % group == 0) return;
  notices.push_back(text(request.name, ": ", request.cols,
                         " inputs are no multiple of the group of ", group, "; the last group has ",
                         request.cols % group));
}

// The range of a dummy model's inputs: of normalized values, what a few thousand of them reach.
constexpr float kDummyRange = 8;

Builder::PartPlan Builder::stored_part(const std::string& module, const StoredScheme& kept,
                                       int64_t rows, int64_t cols) {
  PartPlan plan{.scheme = kept.scheme, .weight = {}, .fixed = true};
  if (options.observe_inputs) plan.scheme.activation = {};
  if (checkpoint == nullptr) return plan;
  plan.weight = std::make_shared<const StoredWeight>(*checkpoint, module, kept, rows, cols);
  plan.scheme.weight = plan.weight->spec();
  for (const TensorInfo* tensor : plan.weight->tensors()) claimed.insert(tensor->name);
  return plan;
}

Builder::PartPlan Builder::plan_part(const std::string& module, int64_t rows, int64_t cols) {
  modules.push_back(module);
  if (first_linear.empty()) first_linear = module;
  const bool ignored = ignore.matches(module);
  const StoredScheme* kept = stored.find_linear(module, ignored);
  if (kept != nullptr) return stored_part(module, *kept, rows, cols);
  return {.scheme = ignored || stored.present() ? unquantized : scheme, .weight = {}};
}

// Static forms get their scales: from the checkpoint, where the parts' differ the widest, or from
// the range that calibration saw.
void Builder::add_input(Slot& slot, const Scheme& scheme, std::span<const WeightPart> parts) {
  slot.input.add(scheme.activation);
  if (!needs_calibration(scheme)) return;
  const Spec& spec = scheme.activation;
  auto known = std::ranges::find(slot.input.statics, spec, &StaticInput::spec);
  if (!parts.empty() && parts[0].stored != nullptr) {
    for (const WeightPart& part : parts) {
      const StaticScale& given = part.stored->input();
      if (known == slot.input.statics.end()) {
        slot.input.statics.push_back({.spec = spec, .value = given});
        known = slot.input.statics.end() - 1;
      } else if (!(known->value == given)) {
        known->value = widest(spec, known->value, given);
        ++widened_inputs;
      }
    }
    return;
  }
  if (known != slot.input.statics.end()) return;
  float low = -kDummyRange, high = kDummyRange;
  if (checkpoint != nullptr) {
    const auto seen = std::ranges::find(options.input_ranges, slot.module, &InputRange::module);
    if (seen == options.input_ranges.end()) {
      throw Error(text(slot.module, ": scheme ", scheme.name,
                       " needs calibrated activation scales, and this checkpoint has none"),
                  "add --calibrate FILE with a text like those the model will see, or choose a "
                  "dynamic form: fp8, ptpc_fp8, int8 or nvfp4");
    }
    low = seen->min;
    high = seen->max;
  }
  slot.input.statics.push_back({.spec = spec, .value = static_scale_of(spec, low, high)});
}

PlannedWeight Builder::plan_weight(const std::string& name, const Scheme& weight_scheme,
                                   int64_t rows, int64_t cols, bool gathered) {
  PlannedWeight planned;
  planned.weight = ops.plan_weight({.name = name,
                                    .scheme = weight_scheme,
                                    .run_dtype = &run_dtype,
                                    .rows = rows,
                                    .cols = cols,
                                    .gathered = gathered},
                                   queue);
  return planned;
}

bool same_plan(const Builder::PartPlan& a, const Builder::PartPlan& b) {
  return a.fixed == b.fixed && a.scheme.weight == b.scheme.weight &&
         a.scheme.activation == b.scheme.activation;
}

// Consecutive parts of one scheme become one weight.
Slot Builder::make_slot(const LinearRow& row, const std::string& prefix) {
  struct Run {
    Builder::PartPlan plan;
    std::vector<WeightPart> parts;
    int64_t rows = 0;
    std::string names;
  };
  std::vector<Run> runs;
  Slot slot;
  slot.module = prefix + std::string(row.module);
  slot.input.high = options.observe_inputs;
  slot.cols = size_of(row.cols, config);
  const bool bias = has_bias(row.bias);
  int part_count = 0;
  for (const PartRow& part : row.parts) {
    if (part.name.empty()) continue;
    ++part_count;
    const std::string module = prefix + std::string(part.name);
    const int64_t rows = size_of(part.rows, config);
    const PartPlan plan = plan_part(module, rows, slot.cols);
    const bool joins = !runs.empty() && same_plan(runs.back().plan, plan) &&
                       fuses(plan.scheme.weight, runs.back().rows);
    if (!joins) runs.push_back({.plan = plan, .parts = {}, .rows = 0, .names = {}});
    Run& run = runs.back();
    run.parts.push_back({.tensor = module + ".weight",
                         .bias_tensor = bias ? module + ".bias" : "",
                         .row0 = run.rows,
                         .rows = rows,
                         .stored = plan.weight});
    run.names += (run.names.empty() ? "" : "+") + std::string(part.name);
    run.rows += rows;
  }
  for (Run& run : runs) {
    const bool whole = static_cast<int>(run.parts.size()) == part_count;
    Scheme& run_scheme = run.plan.scheme;
    // Parts that were quantized one by one keep their scales: a row takes its part's.
    const bool one_scale = run_scheme.weight.quantized() && run_scheme.weight.block == per_tensor();
    if (run.plan.weight != nullptr && run.parts.size() > 1 && one_scale) {
      run_scheme.weight.block = per_row();
    }
    PlannedWeight planned = plan_weight(prefix + (whole ? std::string(row.module) : run.names),
                                        run_scheme, run.rows, slot.cols, false);
    planned.parts = std::move(run.parts);
    planned.col0 = slot.rows;
    planned.has_bias = bias;
    check_parts(planned, slot.cols);
    slot.rows += run.rows;
    add_input(slot, run_scheme, planned.parts);
    slot.weights.push_back(std::move(planned));
  }
  return slot;
}

bool Builder::has_bias(Bias bias) const {
  return bias == Bias::kAlways || (bias == Bias::kAttentionFlag && config.attention_bias) ||
         (bias == Bias::kMlpFlag && config.mlp_bias);
}

Vector Builder::make_vector(const std::string& module, int64_t size, float offset) {
  modules.push_back(module);
  Vector v{.tensor = module + ".weight", .size = size, .offset = offset, .data = nullptr};
  check_tensor(v.tensor, {v.size});
  return v;
}

Layer Builder::make_layer(const Architecture& a, int64_t index) {
  const std::string prefix = text(a.prefix, a.layer_prefix, index, ".");
  Layer layer;
  for (size_t role = 0; role < kLinearRoles; ++role) {
    layer.linears[role] = make_slot(a.linears[role], prefix);
    if (index > 0) continue;
    for (const PlannedWeight& w : layer.linears[role].weights) {
      note_short_group(w.weight.request, notices);
    }
  }
  for (size_t role = 0; role < kNormRoles; ++role) {
    if (a.norms[role].empty()) continue;
    layer.norms[role] =
        make_vector(prefix + std::string(a.norms[role]), config.hidden_size, a.norm_offset);
  }
  if (a.head_norms != HeadNorms::kNone) {
    const bool each = a.head_norms == HeadNorms::kEachHead;
    const auto size = [&](Size all) { return each ? config.head_dim : size_of(all, config); };
    layer.q_norm = make_vector(prefix + "self_attn.q_norm", size(Size::kQueries), a.norm_offset);
    layer.k_norm = make_vector(prefix + "self_attn.k_norm", size(Size::kKeys), a.norm_offset);
  }
  return layer;
}

void Builder::make_head(ModelLayout& layout) {
  const Architecture& a = *layout.architecture;
  const std::string embed_module = text(a.prefix, a.embed), head_module = text(a.prefix, a.head);
  const int64_t vocab = config.vocab_size, hidden = config.hidden_size;
  layout.tied = config.tie_word_embeddings;
  modules.push_back(embed_module);
  modules.push_back(head_module);
  const std::string head_tensor = (layout.tied ? embed_module : head_module) + ".weight";
  // The head has an option of its own; naming it here too says what holds without that.
  if (ignore.matches(head_module) && head_scheme.weight.quantized()) {
    throw Error(text("--ignore names ", head_module, ", but --lm-head-scheme ", head_scheme.name,
                     " quantizes it"),
                "leave out one of the two");
  }
  const StoredScheme* kept = stored.find_head(head_module, layout.tied);
  PartPlan plan{.scheme = head_scheme, .weight = {}};
  if (kept != nullptr) plan = stored_part(head_module, *kept, vocab, hidden);
  PlannedWeight head = plan_weight(head_module, plan.scheme, vocab, hidden, layout.tied);
  head.parts.push_back(
      {.tensor = head_tensor, .bias_tensor = "", .row0 = 0, .rows = vocab, .stored = plan.weight});
  check_parts(head, hidden);
  layout.head.rows = vocab;
  layout.head.cols = hidden;
  layout.head.module = head_module;
  layout.head.input.high = options.observe_inputs;
  add_input(layout.head, plan.scheme, head.parts);
  layout.head_scheme = plan.scheme.name;
  layout.head.weights.push_back(std::move(head));
  if (layout.tied) {
    const TensorInfo* extra =
        checkpoint != nullptr ? checkpoint->find(head_module + ".weight") : nullptr;
    if (extra != nullptr) {
      claimed.insert(extra->name);
      notices.push_back(text(extra->name, ": not read, the head is tied to ", head_tensor));
    }
    return;
  }
  layout.embed = plan_weight(embed_module, unquantized, vocab, hidden, true);
  layout.embed.parts.push_back(
      {.tensor = embed_module + ".weight", .bias_tensor = "", .row0 = 0, .rows = vocab});
  check_parts(layout.embed, hidden);
}

// A tensor inside a module that is read (a bias that config.json denies, a scale) changes results
// if it is left out: refused. Foreign modules are named in a notice, and refused with --strict.
void Builder::refuse_unread(const Architecture& architecture) {
  if (checkpoint == nullptr) return;
  std::sort(modules.begin(), modules.end());
  int64_t foreign = 0;
  std::string first;
  for (const TensorInfo& tensor : checkpoint->tensors()) {
    const std::string& name = tensor.name;
    if (claimed.contains(name)) continue;
    const auto derived = [&](std::string_view suffix) { return name.ends_with(suffix); };
    if (any_item(architecture.derived_tensors, derived)) continue;
    const std::string module = name.substr(0, name.rfind('.'));
    if (std::binary_search(modules.begin(), modules.end(), module)) {
      throw Error(text("tensor ", name, ": config.json does not ask for it, but its module ",
                       module, " is used, so leaving it out would change the results"),
                  "use the config.json that belongs to these weights");
    }
    if (foreign++ == 0) first = name;
  }
  if (foreign == 0) return;
  const std::string found =
      text(foreign, " tensor", foreign == 1 ? "" : "s",
           " of the checkpoint not read by this architecture, first: ", first);
  if (options.strict) throw Error(found, "leave out --strict to run without them");
  notices.push_back(found);
}

// "model.layers.0.self_attn": where KV scales stand.
void Builder::add_kv_scales(ModelLayout& layout) {
  const std::string_view query = layout.architecture->linears[kQkv].parts[0].name;
  std::vector<std::string> attention, found;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    attention.push_back(text(layout.architecture->prefix, layout.architecture->layer_prefix, i, ".",
                             query.substr(0, query.rfind('.'))));
  }
  layout.kv_scales = stored.kv_scales(attention, found);
  claimed.insert(found.begin(), found.end());
}

std::string kind_of(const std::string& name, const Architecture& a) {
  const std::string prefix = text(a.prefix, a.layer_prefix);
  if (!name.starts_with(prefix)) return name;
  return name.substr(name.find('.', prefix.size()) + 1);
}

}  // namespace

void Formats::add(const Spec& spec) {
  if (!spec.quantized()) {
    high = true;
  } else if (std::ranges::find(quantized, spec) == quantized.end()) {
    quantized.push_back(spec);
  }
}

ModelLayout make_layout(const ModelConfig& config, const ModelOptions& options,
                        const Elem& run_dtype, const Ops& ops, Queue* queue,
                        const Checkpoint* checkpoint) {
  const bool from_checkpoint = !config.quantization_config.empty();
  const auto or_bf16 = [](const std::string& name) { return name == "auto" ? "bf16" : name; };
  const auto stored =
      std::make_shared<StoredModel>(config.quantization_config, options, checkpoint);
  Builder b{.config = config,
            .options = options,
            .run_dtype = run_dtype,
            .ops = ops,
            .queue = queue,
            .checkpoint = checkpoint,
            .ignore = IgnoreList(options.ignore),
            .stored = *stored,
            .unquantized = parse_scheme("bf16"),
            .scheme = parse_scheme(or_bf16(options.scheme)),
            .head_scheme = parse_scheme(or_bf16(options.lm_head_scheme)),
            .notices = {},
            .modules = {},
            .first_linear = {},
            .claimed = {}};
  if (options.observe_inputs) b.scheme.activation = b.head_scheme.activation = {};
  ModelLayout layout;
  layout.observes = options.observe_inputs;
  layout.architecture = &find_architecture(config.id, "config.json");
  const Architecture& a = *layout.architecture;
  layout.run_dtype = &run_dtype;
  layout.gate = find_gate(config.hidden_act);
  layout.rope = rope_frequencies(config, config.rope, options.max_model_len, a.rope_types);
  if (a.config.local_rope) {
    layout.local_rope =
        rope_frequencies(config, config.local_rope, options.max_model_len, a.rope_types);
  }
  const std::string rope_line = describe_rope(config, options.max_model_len);
  if (!rope_line.empty()) b.notices.push_back(rope_line);
  for (const std::string& line : config.defaults_used) b.notices.push_back(line);
  b.make_head(layout);
  layout.final_norm =
      b.make_vector(text(a.prefix, a.final_norm), config.hidden_size, a.norm_offset);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    layout.layers.push_back(b.make_layer(a, i));
  }
  for (const std::string& pattern : b.ignore.unused()) {
    throw Error(text("--ignore ", pattern, ": no linear layer has such a name"),
                text("names look like ", b.first_linear));
  }
  b.add_kv_scales(layout);
  for (const std::string& line : stored->notices()) b.notices.push_back(line);
  if (checkpoint == nullptr && !layout.layers[0].linears[0].input.statics.empty()) {
    b.notices.push_back(
        text("random weights: static scales are those of inputs within +-", kDummyRange));
  }
  if (b.widened_inputs > 0) {
    b.notices.push_back(text(b.widened_inputs,
                             " parts of fused layers have input scales that differ from their "
                             "neighbours': the widest is used"));
  }
  layout.scheme = from_checkpoint ? stored->scheme_names() : b.scheme.name;
  layout.stored = stored;
  b.refuse_unread(a);
  layout.notices = std::move(b.notices);
  return layout;
}

MemoryPlan plan_weights(ModelLayout& layout) {
  MemoryPlan plan;
  std::map<std::array<std::string, 3>, size_t> seen;
  const auto add = [&](const std::string& module, const std::string& scheme,
                       const std::string& kernel, int64_t bytes, int64_t elements) {
    const auto [at, is_new] = seen.try_emplace({module, scheme, kernel}, plan.rows.size());
    if (is_new) plan.rows.push_back({.module = module, .scheme = scheme, .kernel = kernel});
    PlanRow& row = plan.rows[at->second];
    ++row.count;
    row.bytes += bytes;
    row.bits_per_weight += static_cast<double>(elements);  // elements until the end
    plan.weights_bytes += bytes;
    plan.parameters += elements;
  };
  for_each_weight(layout, [&](PlannedWeight& w) {
    const WeightRequest& r = w.weight.request;
    const std::string kind = kind_of(r.name, *layout.architecture);
    const std::string scheme =
        r.scheme.weight.quantized() ? r.scheme.name : std::string(r.run_dtype->name);
    add(kind + (layout.tied && r.gathered ? " (tied with the embedding)" : ""), scheme,
        std::string(w.weight.kernel->name), w.weight.bytes, r.rows * r.cols);
    if (w.has_bias) add(kind + " bias", "f32", "", r.rows * 4, r.rows);
  });
  for_each_vector(layout, [&](Vector& v) {
    add(kind_of(v.tensor, *layout.architecture), "f32", "", v.size * 4, v.size);
  });
  for (PlanRow& row : plan.rows) {
    row.bits_per_weight = static_cast<double>(row.bytes) * 8 / row.bits_per_weight;
  }
  plan.bits_per_weight =
      static_cast<double>(plan.weights_bytes) * 8 / static_cast<double>(plan.parameters);
  plan.notices = layout.notices;
  if (layout.stored->present()) plan.stored = layout.stored->dialect_name();
  for_each_weight(layout, [&](PlannedWeight& w) {
    for (const WeightPart& part : w.parts) {
      if (part.stored == nullptr) continue;
      for (const TensorInfo* tensor : part.stored->tensors()) {
        plan.tensor_uses[tensor->name] =
            text(part.stored->role(*tensor), " of ", w.weight.request.scheme.name);
      }
    }
  });
  return plan;
}

}  // namespace mantissa
