// `mantissa schemes` and `mantissa kernels`: the tables that everything else reads.
#include <boost/json.hpp>
#include <charconv>

#include "app/command.h"
#include "app/help.h"
#include "app/output.h"
#include "app/queue.h"
#include "base/error.h"
#include "kernels/ops.h"
#include "quant/scheme.h"

namespace mantissa {
namespace {

// Bits per weight of a layer of this size, so that scales count as they do in practice.
constexpr int64_t kRows = 4096, kCols = 4096;

// A number where the whole cell is one.
boost::json::value cell_json(const std::string& cell) {
  double number = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), number);
  if (error == std::errc{} && end == cell.data() + cell.size()) return number;
  return boost::json::value(cell);
}

void print_rows(const Args& args, const Table& table) {
  if (!args.flag("json")) return print_text(markdown(table));
  boost::json::array rows;
  for (const std::vector<std::string>& row : table.rows) {
    boost::json::object object;
    for (size_t c = 0; c < row.size(); ++c) object[table.header[c]] = cell_json(row[c]);
    rows.push_back(std::move(object));
  }
  print_json(rows);
}

// Which kernel runs the scheme on this device; why none does, or what else it needs.
struct SchemeStatus {
  std::string kernel, why_not;
};
SchemeStatus status_of(const Scheme& scheme, const Ops& ops, Queue* queue) {
  const WeightRequest request{
      .name = "a layer", .scheme = scheme, .run_dtype = &kBF16, .rows = kRows, .cols = kCols};
  try {
    return {std::string(ops.plan_weight(request, queue).kernel->name),
            needs_calibration(scheme) ? "needs calibrated activation scales" : ""};
  } catch (const Error& e) {
    return {"", e.found};
  }
}

std::string cell_of(const SchemeStatus& status, bool json) {
  if (status.kernel.empty()) return json ? "" : "none";
  if (json || status.why_not.empty()) return status.kernel;
  return status.kernel + " with --calibrate";
}

// Recipes are for those who know that they want one: JSON has them, the table does not.
std::string without_recipes(std::string_view options) {
  std::vector<std::string> kept;
  for (std::string_view option : split_list(options))
    if (!option.starts_with("recipe=")) kept.emplace_back(option);
  return join(kept, ",");
}

void run_schemes(const Args& args) {
  const std::string device = args.text("device") == "auto" ? "cpu" : args.text("device");
  const bool json = args.flag("json");
  const Ops& ops = find_ops(device);
  const OpenQueue queue = open_queue(ops, args);
  Table table{{"name", "aliases", "options", "weight", "activation", "bits_per_weight",
               text("on_", device)},
              {}};
  if (json) table.header.insert(table.header.end(), {"why_not", "source"});
  for (const SchemeRow& row : scheme_rows()) {
    const Scheme scheme = parse_scheme(row.name);
    const SchemeStatus status = status_of(scheme, ops, queue.get());
    std::vector<std::string>& cells = table.rows.emplace_back();
    cells = {std::string(row.name),
             std::string(row.aliases),
             json ? std::string(row.options) : without_recipes(row.options),
             describe(scheme.weight, kBF16),
             describe(scheme.activation, kBF16),
             fixed(bits_per_weight(scheme.weight, kRows, kCols, kBF16), 3),
             cell_of(status, json)};
    if (json) cells.insert(cells.end(), {status.why_not, std::string(row.source)});
  }
  print_rows(args, table);
}

void run_kernels(const Args& args) {
  Table table{{"device", "name", "operation", "needs", "status"}, {}};
  for (const Ops* ops : all_ops()) {
    if (args.text("device") != "auto" && args.text("device") != ops->name) continue;
    OpenQueue queue;
    try {
      queue = open_queue(*ops, args);
    } catch (const Error& e) {
      if (args.text("device") != "auto") throw;
      table.rows.push_back({std::string(ops->name), "-", "-", "-", e.found});
      continue;
    }
    for (const KernelInfo& kernel : ops->kernels(queue.get()))
      table.rows.push_back(
          {std::string(ops->name), kernel.name, kernel.operation, kernel.needs, kernel.status});
  }
  print_rows(args, table);
}

}  // namespace

const Verb kSchemesVerb = {
    .name = "schemes",
    .summary = "the table of quantization schemes, and which run here",
    .details =
        "Any name or alias can be given to -q; options follow a colon, as in "
        "int4_weight_only:g64. bits_per_weight counts scales and zero points, for a layer of "
        "4096 x 4096. --device ref runs every scheme; --json also says why a kernel is missing, "
        "and "
        "names recipes (int8:recipe=torchao) and sources.",
    .examples = "mantissa schemes\nmantissa schemes --json",
    .groups = kCommonOnly,
    .options = {},
    .run = run_schemes,
};

const Verb kKernelsVerb = {
    .name = "kernels",
    .summary = "the table of kernels: which would run here, and why others would not",
    .details =
        "Every kernel of every backend, what it needs, and whether it runs here. Which one a layer "
        "gets is in the plan that verbs print before they load a model.",
    .examples =
        "mantissa kernels\nmantissa kernels --device cpu --isa avx2\nmantissa kernels --json",
    .groups = kCommonOnly,
    .options = {},
    .run = run_kernels,
};

}  // namespace mantissa
