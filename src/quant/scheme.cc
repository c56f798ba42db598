// Scheme names: parsing, suggestions, descriptions, sizes.
#include "quant/scheme.h"

#include <algorithm>
#include <cctype>
#include <iterator>

#include "base/error.h"
#include "quant/recipe.h"
#include "quant/scheme_table.h"

namespace mantissa {
namespace {

constexpr std::string_view kRecipeNames[] = {"vllm",     "autofp8", "torchao", "ct",
                                             "modelopt", "rceil",   "even",    "floor"};

// Case-insensitive Levenshtein distance; both strings are short.
size_t distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = diagonal + (lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string joined(const std::vector<std::string_view>& items) {
  std::string out;
  for (const std::string_view item : items) out += text(out.empty() ? "" : ", ", item);
  return out;
}

// The up to three names nearest to `name`, or that start with it; empty when none is near.
std::string nearest(std::string_view name, std::vector<std::string_view> names) {
  name = name.substr(0, 64);
  const auto far = [&](std::string_view n) {
    return n.size() > name.size() && n.starts_with(name) ? 0 : distance(name, n);
  };
  std::ranges::stable_sort(names, {}, far);
  const size_t near_enough = std::max<size_t>(1, name.size() / 3);
  size_t count = 0;
  while (count < names.size() && count < 3 && far(names[count]) <= near_enough) ++count;
  names.resize(name.empty() ? 0 : count);
  return joined(names);
}

// A printable piece of what the user wrote.
std::string quoted(std::string_view name) {
  constexpr size_t kShown = 60;
  std::string out = "\"";
  for (const char c : name.substr(0, kShown))
    out += std::isprint(static_cast<unsigned char>(c)) ? c : '?';
  return out + (name.size() > kShown ? "...\"" : "\"");
}

struct Found {
  const SchemeRow* row;
  std::string_view option;  // that the alias stands for
};

Found find_row(std::string_view name) {
  std::vector<std::string_view> rows, names;
  for (const SchemeRow& row : scheme_rows()) {
    if (row.name == name) return {&row, {}};
    rows.push_back(row.name);
    names.push_back(row.name);
    Found found{nullptr, {}};
    any_item(row.aliases, [&](std::string_view alias) {
      const size_t equals = alias.find('=');
      names.push_back(alias.substr(0, equals));
      if (alias.substr(0, equals) != name) return false;
      found.row = &row;
      if (equals != std::string_view::npos) found.option = alias.substr(equals + 1);
      return true;
    });
    if (found.row != nullptr) return found;
  }
  const std::string near = nearest(name, names);
  throw Error(text("there is no scheme ", quoted(name)),
              near.empty() ? text("use one of ", joined(rows))
                           : text("did you mean ", near, "? `mantissa schemes` lists all"));
}

const OptionRow& find_option(const SchemeRow& row, std::string_view option) {
  const bool offered = any_item(row.options, [&](std::string_view o) { return o == option; });
  for (const OptionRow& known : option_rows())
    if (offered && known.name == option) return known;
  throw Error(text("scheme ", row.name, " has no option ", quoted(option)),
              row.options.empty() ? text("write ", row.name, " alone; it has no options")
                                  : text("its options are ", row.options));
}

std::string option_list(const std::vector<const OptionRow*>& options) {
  std::string out;
  for (const OptionRow* option : options) out += text(":", option->name);
  return out;
}

// Options that change the row, in the row's order.
Scheme build(const SchemeRow& row, const std::vector<const OptionRow*>& wanted) {
  Scheme scheme{std::string(row.name), row.weight, row.activation};
  any_item(row.options, [&](std::string_view name) {
    for (const OptionRow* option : wanted) {
      if (option->name != name) continue;
      const Scheme before = scheme;
      option->apply(scheme);
      if (!(scheme.weight == before.weight && scheme.activation == before.activation)) {
        scheme.name += text(":", name);
      }
    }
    return false;
  });
  return scheme;
}

std::string describe_block(const Spec& spec) {
  const bool weight = spec.when == When::kAtLoad;
  if (spec.block == per_tensor()) return "per-tensor";
  if (spec.block == per_row()) return weight ? "per-channel" : "per-token";
  if (spec.block.rows == 1) return text("per-group ", spec.block.cols);
  return text("per-tile ", spec.block.rows, "x", spec.block.cols);
}

Recipe default_recipe(const Spec& spec) {
  if (*spec.scale == kE8M0) return Recipe::kFloor;
  return spec.global_scale ? Recipe::kTorchao : Recipe::kVllm;
}

}  // namespace

std::string_view recipe_name(Recipe recipe) {
  const auto index = static_cast<size_t>(recipe);
  check(index < std::size(kRecipeNames), "a recipe has a name");
  return kRecipeNames[index];
}

Scheme parse_scheme(std::string_view name) {
  size_t colon = name.find(':');
  const auto [row, implied] = find_row(name.substr(0, colon));
  std::vector<const OptionRow*> options;
  if (!implied.empty()) options.push_back(&find_option(*row, implied));
  while (colon != std::string_view::npos) {
    const size_t next = name.find(':', colon + 1);
    const std::string_view word = name.substr(colon + 1, next - colon - 1);
    const OptionRow& option = find_option(*row, word);
    for (const OptionRow* other : options) {
      if (other->axis != option.axis || other == &option) continue;
      throw Error(text("scheme ", row->name, option_list(options), ":", option.name, ": ",
                       other->name, " and ", option.name, " exclude each other"),
                  text("choose one ", option.axis));
    }
    options.push_back(&option);
    colon = next;
  }
  Scheme scheme = build(*row, options);
  for (const Spec* spec : {&scheme.weight, &scheme.activation})
    if (spec->quantized()) find_recipe(*spec);  // throws where the combination is not defined
  return scheme;
}

std::string scheme_name_of(const Spec& weight, const Spec& activation) {
  const auto plain = [](Spec spec) {
    spec.recipe = Recipe::kVllm;
    if (*spec.scale == kBF16) spec.scale = &kF32;
    return spec;
  };
  const auto is_it = [&](const Scheme& scheme) {
    return plain(scheme.weight) == plain(weight) && plain(scheme.activation) == plain(activation);
  };
  for (const SchemeRow& row : scheme_rows()) {
    std::vector<const OptionRow*> options = {nullptr};
    for (const OptionRow& option : option_rows()) {
      if (option.axis != "recipe" && list_contains(row.options, option.name)) {
        options.push_back(&option);
      }
    }
    for (const OptionRow* first : options) {
      for (const OptionRow* second : options) {
        std::vector<const OptionRow*> wanted;
        if (first != nullptr) wanted.push_back(first);
        if (second != nullptr && second != first) wanted.push_back(second);
        if (const Scheme scheme = build(row, wanted); is_it(scheme)) return scheme.name;
      }
    }
  }
  return "";
}

std::vector<OptionHelp> option_help() {
  std::vector<OptionHelp> out;
  for (const OptionRow& row : option_rows()) out.push_back({row.name, row.help});
  return out;
}

double bits_per_weight(const Spec& weight, int64_t rows, int64_t cols, const Elem& run_dtype) {
  check(rows >= 0 && cols >= 0, "bits_per_weight: a shape");
  if (!weight.quantized() || rows == 0 || cols == 0) return run_dtype.bits();
  const auto blocks_along = [](int64_t size, int block) -> int64_t {
    return block == kAll ? 1 : (size + block - 1) / block;
  };
  const double blocks = static_cast<double>(blocks_along(rows, weight.block.rows)) *
                        static_cast<double>(blocks_along(cols, weight.block.cols));
  const int bits = weight.elem->bits();
  double block_bits = weight.codebook ? kBF16.bits() << bits : weight.scale->bits();
  if (weight.asymmetric) block_bits += bits;
  const double elements = static_cast<double>(rows) * static_cast<double>(cols);
  const double global_bits = weight.global_scale ? kF32.bits() : 0;
  return bits + (blocks * block_bits + global_bits) / elements;
}

std::string describe(const Spec& spec, const Elem& run_dtype) {
  if (!spec.quantized()) return std::string(run_dtype.name);
  std::string out = text(spec.elem->name, " ", describe_block(spec));
  if (spec.codebook) {
    out += text(", codebook of ", 1 << spec.elem->bits(), " ", spec.scale->name);
  } else {
    out += text(", ", spec.scale->name, " scale");
  }
  if (spec.asymmetric) out += ", zero point";
  if (spec.global_scale) out += ", f32 global scale";
  if (spec.when == When::kPerCall) out += ", dynamic";
  if (spec.when == When::kStatic) out += ", static";
  if (spec.recipe != default_recipe(spec)) out += text(", recipe ", recipe_name(spec.recipe));
  return out;
}

const KvFormatRow& parse_kv_format(std::string_view name) {
  std::vector<std::string_view> names;
  for (const KvFormatRow& row : kv_format_rows()) {
    names.push_back(row.name);
    if (row.name == name || any_item(row.aliases, [&](auto alias) { return alias == name; })) {
      return row;
    }
  }
  throw Error(text("there is no KV cache format ", quoted(name)),
              text("use one of ", joined(names)));
}

}  // namespace mantissa
