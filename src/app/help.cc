#include "app/help.h"

#include <algorithm>
#include <boost/json.hpp>

#include "app/output.h"
#include "app/version.h"
#include "base/error.h"
#include "device/cpu_features.h"
#include "kernels/ops.h"

namespace mantissa {
namespace {

constexpr size_t kWidth = 100;
constexpr size_t kIndent = 34;  // where the texts of options start

// `text` broken at spaces so that lines end before kWidth; lines after the first start at `indent`.
std::string wrapped(std::string_view text, size_t indent) {
  std::string out;
  size_t column = indent;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find_first_of(" \n", at), text.size());
    const std::string_view word = text.substr(at, end - at);
    if (column > indent && column + 1 + word.size() > kWidth) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
    at = end + 1;
    if (end < text.size() && text[end] == '\n') {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    }
  }
  return out;
}

std::string option_help(const Option& option) {
  std::string head = "  ";
  if (is_positional(option)) {
    head += option.names;
  } else {
    const std::vector<std::string_view> names = split_list(option.names);
    head += names.front().starts_with("--") ? "    " : "";
    head += join(to_strings(names), ", ");
    if (!option.meta.empty()) head += text(" ", option.meta);
  }
  std::string help(option.help);
  if (!option.choices.empty())
    help += text(" [", join(to_strings(split_list(option.choices)), " | "), "]");
  if (!option.fallback.empty()) help += text(" (default: ", option.fallback, ")");
  if (option.type == OptionType::kList) help += " (may be repeated)";
  if (head.size() + 2 > kIndent) {
    head += '\n' + std::string(kIndent, ' ');
  } else {
    head.resize(kIndent, ' ');
  }
  return head + wrapped(help, kIndent) + '\n';
}

std::string section(std::string_view title, std::span<const Option> options) {
  if (options.empty()) return "";
  std::string out = text("\n", title, "\n");
  for (const Option& option : options) out += option_help(option);
  return out;
}

// Levenshtein distance.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

bool is_positional(const Option& option) {
  return !option.names.starts_with("-");
}

std::string key_name(const Option& option) {
  const std::string name = display_name(option);
  return is_positional(option) ? name : name.substr(2);
}

std::string display_name(const Option& option) {
  return std::string(split_list(option.names).back());
}

std::string long_names(const Option& option) {
  std::vector<std::string> names = to_strings(split_list(option.names));
  if (names.size() > 1) std::erase_if(names, [](const auto& n) { return !n.starts_with("--"); });
  return join(names, " or ");
}

std::vector<const Option*> options_of(const Verb& verb) {
  std::vector<const Option*> out;
  const auto append = [&out](std::span<const Option> options) {
    for (const Option& option : options) out.push_back(&option);
  };
  append(model_options(verb.groups));
  append(verb.options);
  if (verb.groups & kLimitOptions) append(limit_options());
  append(common_options());
  return out;
}

std::string verb_help(const Verb& verb) {
  std::string usage = text("usage: mantissa ", verb.name);
  for (const Option* option : options_of(verb))
    if (is_positional(*option)) usage += text(" ", option->names);
  std::string out = text(verb.summary, "\n\n", usage, " [options]\n");
  if (!verb.details.empty()) out += '\n' + wrapped(verb.details, 0) + '\n';
  out += section("Options", verb.options);
  out += section("Model", model_options(verb.groups));
  if (verb.groups & kLimitOptions) out += section("Batches", limit_options());
  out += section("Common", common_options());
  out += "\nExamples\n";
  for (std::string_view rest = verb.examples; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    out += text("  ", rest.substr(0, end), "\n");
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return out;
}

std::string overview_help(const std::string& group) {
  const std::string prefix = group.empty() ? "" : group + " ";
  std::string out = group.empty()
                        ? "Mantissa quantizes, runs and evaluates Hugging Face language models.\n\n"
                          "usage: mantissa COMMAND [options]\n\nCommands\n"
                        : text("usage: mantissa ", group, " COMMAND [options]\n\nCommands\n");
  for (const Verb* verb : all_verbs()) {
    if (!verb->name.starts_with(prefix)) continue;
    std::string head = text("  ", verb->name);
    head.resize(std::max<size_t>(20, head.size() + 2), ' ');
    out += head + wrapped(verb->summary, 20) + '\n';
  }
  if (!group.empty()) return out;
  return out +
         "\n`mantissa COMMAND --help` lists its options with examples; `mantissa --version` says "
         "what this binary is.\nMODEL is a folder with config.json, tokenizer.json and "
         "*.safetensors, as Hugging Face writes it.\n\nFirst steps\n"
         "  mantissa generate models/wiki-6m --prompt \"The history of\" -q ptpc_fp8\n"
         "  mantissa schemes\n"
         "  mantissa inspect models/wiki-6m -q int8_weight_only\n\n"
         "Exit codes: 0 done, 1 the run failed, 2 wrong arguments or input.\n";
}

void print_version(bool json) {
  const std::string sets = instruction_sets(read_cpu_features());
  std::vector<std::pair<std::string, std::string>> devices;
  bool cuda = false;
  for (const Ops* ops : all_ops()) {
    cuda = cuda || !ops->host_memory;
    try {
      Queue* queue = ops->open(DeviceConfig{});
      devices.emplace_back(ops->name, ops->describe(queue));
      ops->close(queue);
    } catch (const Error& e) {
      devices.emplace_back(ops->name, text("cannot run: ", e.found));
    }
  }
  if (json) {
    boost::json::object object{{"version", std::string(version())},
                               {"commit", std::string(commit())},
                               {"compiler", std::string(compiler())},
                               {"cuda", cuda ? "13" : "none"},
                               {"instruction_sets", sets}};
    boost::json::object& list = object["devices"].emplace_object();
    for (const auto& [name, description] : devices) list[name] = description;
    return print_json(object);
  }
  std::string out =
      text("mantissa ", version(), " (", commit(), ")\ncompiler: ", compiler(),
           "\nCUDA: ", cuda ? "13" : "not in this build", "\ninstruction sets: ", sets, "\n");
  for (const auto& [name, description] : devices)
    out += text("device ", name, ": ", description, "\n");
  print_text(out);
}

std::string instruction_sets(const CpuFeatures& cpu) {
  const std::pair<bool, std::string> rows[] = {{cpu.avx2, "avx2"},
                                               {cpu.fma, "fma"},
                                               {cpu.f16c, "f16c"},
                                               {cpu.avx512f, "avx512f"},
                                               {cpu.avx512bw, "avx512bw"},
                                               {cpu.avx512dq, "avx512dq"},
                                               {cpu.avx512vl, "avx512vl"},
                                               {cpu.avx512_vnni, "avx512_vnni"},
                                               {cpu.avx512_bf16, "avx512_bf16"},
                                               {cpu.avx512_vbmi, "avx512_vbmi"}};
  std::vector<std::string> names;
  for (const auto& [has, name] : rows)
    if (has) names.push_back(name);
  return names.empty() ? "none beyond the baseline" : join(names, " ");
}

std::string nearest_name(std::string_view typed, const std::vector<std::string>& names) {
  std::string nearest;
  size_t best = typed.size() / 4 + 2;  // so far away is no typing mistake
  for (const std::string& name : names) {
    const size_t far = name.starts_with(typed) && typed.size() > 2 ? 1 : distance(typed, name);
    if (far < best) {
      best = far;
      nearest = name;
    }
  }
  return nearest;
}

std::vector<std::string> to_strings(const std::vector<std::string_view>& views) {
  return {views.begin(), views.end()};
}

}  // namespace mantissa
