// `mantissa inspect`: what is in a checkpoint, and what a load of it would do.
#include <boost/json.hpp>
#include <map>
#include <optional>

#include "app/command.h"
#include "app/help.h"
#include "app/load.h"
#include "app/output.h"
#include "base/error.h"
#include "io/safetensors.h"

namespace mantissa {
namespace {

// clang-format off
constexpr Option kOptions[] = {
    {"--tensors", OptionType::kFlag, "", "", "one line for each tensor, not only a summary"},
};
// clang-format on

struct Kind {
  int64_t tensors = 0, elements = 0, bytes = 0;
};

// By dtype, in the order of names.
std::map<std::string, Kind> kinds_of(const Checkpoint& checkpoint) {
  std::map<std::string, Kind> kinds;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    Kind& kind = kinds[std::string(tensor.dtype->name)];
    ++kind.tensors;
    kind.elements += tensor.elements();
    kind.bytes += tensor.bytes;
  }
  return kinds;
}

std::string file_name(const Checkpoint& checkpoint, const TensorInfo& tensor) {
  const File& file = checkpoint.files()[static_cast<size_t>(tensor.file)];
  return std::filesystem::path(file.path()).filename().string();
}

using Uses = std::map<std::string, std::string>;  // of stored tensors: MemoryPlan::tensor_uses

void print_checkpoint(const Args& args, const Checkpoint& checkpoint, const Uses& uses) {
  Table summary{{"dtype", "tensors", "elements", "bytes"}, {}};
  for (const auto& [name, kind] : kinds_of(checkpoint))
    summary.rows.push_back(
        {name, text(kind.tensors), human_count(kind.elements), human_bytes(kind.bytes)});
  print_line(text(counted(std::ssize(checkpoint.tensors()), "tensor"), " in ",
                  counted(std::ssize(checkpoint.files()), "file"), ", ",
                  human_bytes(checkpoint.tensor_bytes())));
  print_text(markdown(summary));
  for (const auto& [key, value] : checkpoint.metadata())
    print_line(text("metadata ", printable(key), ": ", printable(value)));
  if (!args.flag("tensors")) return;
  Table table{{"tensor", "dtype", "shape", "bytes", "file", "is"}, {}};
  for (const TensorInfo& tensor : checkpoint.tensors())
    table.rows.push_back({printable(tensor.name), std::string(tensor.dtype->name),
                          tensor.shape_text(), human_bytes(tensor.bytes),
                          file_name(checkpoint, tensor),
                          uses.contains(tensor.name) ? uses.at(tensor.name) : ""});
  print_text("\n" + markdown(table));
}

boost::json::object checkpoint_json(const Checkpoint& checkpoint, const Uses& uses) {
  boost::json::array tensors;
  for (const TensorInfo& tensor : checkpoint.tensors())
    tensors.push_back(
        boost::json::object{{"name", tensor.name},
                            {"dtype", std::string(tensor.dtype->name)},
                            {"shape", boost::json::array(tensor.shape.begin(), tensor.shape.end())},
                            {"bytes", tensor.bytes},
                            {"file", file_name(checkpoint, tensor)},
                            {"is", uses.contains(tensor.name) ? uses.at(tensor.name) : ""}});
  boost::json::object metadata;
  for (const auto& [key, value] : checkpoint.metadata()) metadata[key] = value;
  return {{"tensor_bytes", checkpoint.tensor_bytes()},
          {"files", checkpoint.files().size()},
          {"tensors", std::move(tensors)},
          {"metadata", std::move(metadata)}};
}

void print_tensors(const Args& args, const Checkpoint& checkpoint, const Uses& uses,
                   boost::json::object& object) {
  if (args.flag("json"))
    object["checkpoint"] = checkpoint_json(checkpoint, uses);
  else
    print_checkpoint(args, checkpoint, uses);
}

// Of a single file, which has no plan.
void refuse_plan_options(const Args& args) {
  for (const std::span<const Option> group : {model_options(kModelOptions), limit_options()}) {
    for (const Option& option : group) {
      if (is_positional(option) || !args.given(key_name(option))) continue;
      throw Error(text(display_name(option), " has no effect on one file, which has no plan"),
                  "leave it out, or name the model's folder");
    }
  }
}

void run(const Args& args) {
  if (std::filesystem::is_regular_file(args.text("MODEL"))) refuse_plan_options(args);
  ModelOptions options = model_options_of(args);
  set_limit_options(args, options);
  // A single file has tensors but no plan; a folder without weights (dummy) a plan only.
  const bool planned = std::filesystem::is_directory(options.folder);
  boost::json::object object{{"path", options.folder.string()}};
  std::optional<Checkpoint> checkpoint;
  if (!options.dummy) checkpoint = Checkpoint::open(options.folder);
  std::optional<Model> model;
  try {  // a plan that cannot be made must not hide the tensors
    if (planned) {
      calibrate_inputs(args, options);
      model.emplace(options);
    }
  } catch (const Error& error) {
    if (!checkpoint) throw;
    print_tensors(args, *checkpoint, {}, object);
    throw;
  }
  if (checkpoint) {
    print_tensors(args, *checkpoint, model ? model->plan().tensor_uses : Uses{}, object);
  }
  if (model) {
    if (args.flag("json"))
      object["plan"] = plan_json(*model);
    else
      print_line((options.dummy ? "" : "\n") + plan_text(*model));
    add_run_info(object, *model);
  }
  if (args.flag("json")) print_json(object);
}

}  // namespace

const Verb kInspectVerb = {
    .name = "inspect",
    .summary = "tensors, formats and sizes of a checkpoint, and what loading it would do",
    .details =
        "MODEL is a folder or one .safetensors file. For a folder the plan of a load with "
        "these options follows: schemes, kernels, memory. Nothing is loaded.",
    .examples =
        "mantissa inspect models/wiki-6m\n"
        "mantissa inspect models/wiki-6m -q int4_weight_only:g64 --max-model-len 256\n"
        "mantissa inspect models/wiki-6m/model.safetensors --tensors",
    .groups = kModelOptions | kLimitOptions,
    .options = kOptions,
    .run = run,
};

}  // namespace mantissa
