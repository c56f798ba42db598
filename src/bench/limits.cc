#include "bench/limits.h"

#include "base/error.h"
#include "model/architecture.h"

namespace mantissa {

int64_t weights_read(const Model& model) {
  const Architecture& row = find_architecture(model.config().id, "config.json");
  const std::string embed = text(row.prefix, row.embed);
  int64_t bytes = 0;
  for (const PlanRow& planned : model.plan().rows)
    if (planned.module != embed) bytes += planned.bytes;
  return bytes;
}

double prefill_operations(const Model& model, int64_t tokens) {
  const ModelConfig& config = model.config();
  const Architecture& row = find_architecture(config.id, "config.json");
  double weights = 0;  // of one layer
  for (const LinearRow& linear : row.linears)
    for (const PartRow& part : linear.parts)
      if (!part.name.empty())
        weights += static_cast<double>(size_of(part.rows, config)) *
                   static_cast<double>(size_of(linear.cols, config));
  const double t = static_cast<double>(tokens);
  // Token i reads i + 1 keys and as many values.
  const double keys = t * (t + 1) / 2;
  const double attention = 4 * keys * static_cast<double>(size_of(Size::kQueries, config));
  const double head = 2 * static_cast<double>(config.vocab_size * config.hidden_size);
  return static_cast<double>(config.num_hidden_layers) * (2 * t * weights + attention) + head;
}

}  // namespace mantissa
