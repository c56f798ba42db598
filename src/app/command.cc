// Option rows -> CLI11 -> Args -> the verb, and how every failure ends. Help stands in help.cc.
#include "app/command.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <deque>
#include <new>
#include <optional>

#include "app/help.h"
#include "app/output.h"
#include "base/error.h"
#include "base/file.h"
#include "kernels/ops.h"

namespace mantissa {
namespace {

std::optional<int64_t> integer_of(const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end) return std::nullopt;
  return value;
}

std::optional<double> real_of(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end || !std::isfinite(value)) return std::nullopt;
  return value;
}

// Whole numbers in full: 1048576, 1000000000000000.
std::string bound_text(double bound) {
  const bool whole = bound == std::floor(bound) && std::abs(bound) < 1e18;
  return whole ? text(static_cast<int64_t>(bound)) : text(bound);
}

std::string range_text(const Option& option) {
  const bool least = std::isfinite(option.least), most = std::isfinite(option.most);
  if (least && most)
    return text(" from ", bound_text(option.least), " to ", bound_text(option.most));
  if (least) return text(" of at least ", bound_text(option.least));
  if (most) return text(" of at most ", bound_text(option.most));
  return "";
}

// The value as the option's row wants it, or an Error that names the option.
void check_value(const Option& option, const std::string& value) {
  const std::string name = long_names(option);
  const auto refuse = [&](const std::string& wanted) {
    throw Error(text(name, " is ", quoted(value)), text("give ", wanted));
  };
  if (!option.choices.empty()) {
    for (std::string_view choice : split_list(option.choices))
      if (value == choice) return;
    refuse(text("one of ", join(to_strings(split_list(option.choices)), ", ")));
  }
  if (option.type != OptionType::kInteger && option.type != OptionType::kReal) return;
  const bool whole = option.type == OptionType::kInteger;
  std::optional<double> number = real_of(value);
  if (whole) {
    const std::optional<int64_t> exact = integer_of(value);
    number = exact ? std::optional<double>(static_cast<double>(*exact)) : std::nullopt;
  }
  if (!number || *number < option.least || *number > option.most)
    refuse(text(whole ? "a whole number" : "a number", range_text(option)));
}

// What CLI11 fills for one verb. Deques: CLI11 keeps pointers to the elements.
struct Slots {
  struct Slot {
    const Option* option = nullptr;
    std::vector<std::string> texts;
    bool flag = false;
  };
  const Verb* verb = nullptr;
  CLI::App* app = nullptr;
  std::deque<Slot> slots;
};

void add_option(Slots& slots, const Option& option) {
  if (key_name(option) == "help") return;  // CLI11's own, so that it wins over every error
  Slots::Slot& slot = slots.slots.emplace_back();
  slot.option = &option;
  const std::string names(option.names);
  if (option.type == OptionType::kFlag) {
    slots.app->add_flag(names, slot.flag);
    return;
  }
  CLI::Option* added = slots.app->add_option(names, slot.texts);
  // One value each time the option is given; brackets in a value are no list.
  added->expected(1, is_positional(option) ? 1 : CLI::detail::expected_max_vector_size);
  added->allow_extra_args(false);
}

// "--name=value" becomes two arguments, so that an empty value stays a value.
std::vector<std::string> normalized(std::span<const char* const> argv) {
  std::vector<std::string> out;
  for (size_t i = 1; i < argv.size(); ++i) {
    const std::string_view argument = argv[i];
    const size_t equals = argument.find('=');
    if (argument.starts_with("--") && equals != std::string_view::npos) {
      out.emplace_back(argument.substr(0, equals));
      out.emplace_back(argument.substr(equals + 1));
    } else {
      out.emplace_back(argument);
    }
  }
  if (!out.empty() && out[0] == "help") {
    out.erase(out.begin());
    out.emplace_back("--help");
  }
  return out;
}

// after_dashes: what follows "--", which CLI11 keeps apart.
void refuse_extras(const Slots& slots, const std::vector<std::string>& after_dashes) {
  std::vector<std::string> known, extras = slots.app->remaining();
  bool takes_text = false;
  for (const Slots::Slot& slot : slots.slots) {
    takes_text |= slot.option->meta == "TEXT";
    for (std::string_view name : split_list(slot.option->names)) known.emplace_back(name);
  }
  extras.insert(extras.end(), after_dashes.begin(), after_dashes.end());
  for (const std::string& extra : extras) {
    if (extra == "--") continue;
    const std::string help = text("see `mantissa ", slots.verb->name, " --help`");
    if (!extra.starts_with("-")) {
      throw Error(text("unexpected argument ", quoted(extra), " for `", slots.verb->name, "`"),
                  takes_text ? text("quote a text that has spaces; ", help) : help);
    }
    const std::string nearest = nearest_name(extra, known);
    throw Error(text("`", slots.verb->name, "` has no option ", printable(extra)),
                nearest.empty() ? help : text("did you mean ", nearest, "? ", help));
  }
}

}  // namespace

void check_device(const std::string& device, const std::string& given_as,
                  const std::string& prefix) {
  if (device == "auto") return;
  std::vector<std::string> names;
  for (const Ops* ops : all_ops()) {
    if (ops->name == device) return;
    names.push_back(text(prefix, ops->name));
  }
  throw Error(text(given_as, ": this build has no ", printable(device), " backend"),
              text("use ", join(names, " or ")));
}

class ArgsBuilder {
 public:
  static Args build(const Slots& slots) {
    Args args;
    for (const Slots::Slot& slot : slots.slots) {
      const Option& option = *slot.option;
      Args::Value value{&option, slot.texts, slot.flag || !slot.texts.empty()};
      const bool many = option.type == OptionType::kList;
      if (!many && slot.texts.size() > 1)
        throw Error(text(long_names(option), " is given ", slot.texts.size(), " times"),
                    "give it once");
      if (is_positional(option) && slot.texts.empty())
        throw Error(text("`", slots.verb->name, "` needs ", option.names, ": ", option.help),
                    text("see `mantissa ", slots.verb->name, " --help`"));
      for (const std::string& given : slot.texts) check_value(option, given);
      if (!value.given && !many && option.type != OptionType::kFlag)
        value.texts.emplace_back(option.fallback);
      args.values_.emplace(key_name(option), std::move(value));
    }
    return args;
  }
};

const Args::Value& Args::find(std::string_view name, OptionType type) const {
  const auto found = values_.find(name);
  check(found != values_.end(), "Args: an option of the verb's tables");
  check(found->second.option->type == type, "Args: an option of this type");
  return found->second;
}

bool Args::flag(std::string_view name) const {
  return find(name, OptionType::kFlag).given;
}

const std::string& Args::text(std::string_view name) const {
  return find(name, OptionType::kText).texts.front();
}

int64_t Args::integer(std::string_view name) const {
  const std::optional<int64_t> value = integer_of(find(name, OptionType::kInteger).texts.front());
  check(value.has_value(), "Args: a default that is a whole number");
  return *value;
}

double Args::real(std::string_view name) const {
  const std::optional<double> value = real_of(find(name, OptionType::kReal).texts.front());
  check(value.has_value(), "Args: a default that is a number");
  return *value;
}

const std::vector<std::string>& Args::list(std::string_view name) const {
  return find(name, OptionType::kList).texts;
}

const std::string& Args::given_text(std::string_view name) const {
  const auto found = values_.find(name);
  check(found != values_.end() && found->second.texts.size() == 1, "Args: an option with a value");
  return found->second.texts.front();
}

std::string Args::option_name(std::string_view name) const {
  const auto found = values_.find(name);
  check(found != values_.end(), "Args: an option of the verb's tables");
  return long_names(*found->second.option);
}

bool Args::given(std::string_view name) const {
  const auto found = values_.find(name);
  check(found != values_.end(), "Args: an option of the verb's tables");
  return found->second.given;
}

namespace {

// The whole command line as CLI11 sees it.
struct Parser {
  CLI::App app{"mantissa"};
  bool version = false, json = false;
  std::deque<Slots> verbs;
  std::map<std::string, CLI::App*, std::less<>> groups;  // "bench" of "bench latency"

  Parser() {
    app.allow_extras();
    app.add_flag("--version", version);
    app.add_flag("--json", json);
    for (const Verb* verb : all_verbs()) add(*verb);
  }

  void add(const Verb& verb) {
    CLI::App* parent = &app;
    std::string name(verb.name);
    if (const size_t space = name.find(' '); space != std::string::npos) {
      CLI::App*& group = groups[name.substr(0, space)];
      if (group == nullptr) group = app.add_subcommand(name.substr(0, space));
      parent = group;
      name = name.substr(space + 1);
    }
    Slots& slots = verbs.emplace_back();
    slots.verb = &verb;
    slots.app = parent->add_subcommand(name);
    for (const Option* option : options_of(verb)) add_option(slots, *option);
  }

  const Slots* chosen() const {
    for (const Slots& slots : verbs)
      if (slots.app->parsed()) return &slots;
    return nullptr;
  }

  std::string chosen_group() const {
    for (const auto& [name, group] : groups)
      if (group->parsed()) return name;
    return "";
  }

  // What stands where a command should.
  std::vector<std::string> unknown_words() const {
    const std::string group = chosen_group();
    return group.empty() ? app.remaining() : groups.find(group)->second->remaining();
  }
};

[[noreturn]] void refuse_verb(const Parser& parser) {
  const std::string group = parser.chosen_group();
  const std::vector<std::string> words = parser.unknown_words();
  const std::string prefix = group.empty() ? "" : group + " ";
  if (words.empty())
    throw Error(group.empty() ? "no command" : text("`", group, "` needs to know what"),
                text("see `mantissa ", prefix, "--help`"));
  std::vector<std::string> names;
  for (const Verb* verb : all_verbs())
    if (verb->name.starts_with(prefix)) names.emplace_back(verb->name);
  const std::string found = prefix + words.front();
  if (words.front().starts_with("-")) {
    throw Error(text("`mantissa", group.empty() ? "" : " " + group, "` has no option ",
                     printable(words.front())),
                text("name a command first: one of ", join(names, ", ")));
  }
  std::vector<std::string> endings;  // what the typed word may have meant
  endings.reserve(names.size());
  for (const std::string& name : names) endings.push_back(name.substr(prefix.size()));
  const std::string nearest = nearest_name(words.front(), endings);
  throw Error(text("there is no command ", quoted(found)),
              nearest.empty() ? text("one of ", join(names, ", "))
                              : text("did you mean `mantissa ", prefix, nearest,
                                     "`? All: ", join(names, ", ")));
}

void parse_and_run(std::span<const char* const> argv) {
  Parser parser;
  std::vector<std::string> arguments = normalized(argv);
  if (arguments.empty()) throw Error("no command", "see `mantissa --help`");
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
  try {
    parser.app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    const Slots* slots = parser.chosen();
    if (slots == nullptr && !parser.unknown_words().empty()) refuse_verb(parser);
    print_text(slots != nullptr ? verb_help(*slots->verb) : overview_help(parser.chosen_group()));
    return;
  } catch (const CLI::ParseError& e) {
    const Slots* slots = parser.chosen();
    const std::string verb = slots != nullptr ? text(" ", slots->verb->name) : "";
    throw Error(printable(e.what()), text("see `mantissa", verb, " --help`"));
  }
  const Slots* slots = parser.chosen();
  if (slots == nullptr) {
    if (!parser.version) refuse_verb(parser);
    if (!parser.app.remaining().empty())
      throw Error(text("unexpected argument ", quoted(parser.app.remaining().front())),
                  "`mantissa --version` takes --json only");
    return print_version(parser.json);
  }
  refuse_extras(*slots, parser.app.remaining());
  const Args args = ArgsBuilder::build(*slots);
  check_device(args.text("device"), "--device " + args.text("device"), "--device ");
  slots->verb->run(args);
}

}  // namespace

int run_command_line(std::span<const char* const> argv) {
  const std::string report = "please report this, with the command";
  try {
    parse_and_run(argv);
    return 0;
  } catch (const OutputClosed&) {
    return 0;
  } catch (const Error& e) {
    print_error(e.found, e.fix);
    return e.kind == Error::Kind::kInput ? 2 : 1;
  } catch (const std::bad_alloc&) {
    print_error("out of memory", "use a smaller model, context, batch or quantization");
  } catch (const std::exception& e) {
    print_error(text("unexpected failure: ", e.what()), report);
  } catch (...) {
    print_error("unexpected failure", report);
  }
  return 1;
}

}  // namespace mantissa
