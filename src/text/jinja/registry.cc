// Looks up filters, tests, methods and functions, and binds their arguments: see registry.h.
#include "text/jinja/registry.h"

#include <algorithm>

#include "base/error.h"
#include "text/jinja/interpreter.h"

namespace mantissa::jinja {
namespace {

template <class Row>
const Row* find_row(std::span<const Row> rows, std::string_view name) {
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.name == name; });
  return row == rows.end() ? nullptr : &*row;
}

// The next of the words; empty at the end.
std::string_view next_word(std::string_view& words) {
  words.remove_prefix(std::min(words.find_first_not_of(' '), words.size()));
  const std::string_view word = words.substr(0, words.find(' '));
  words.remove_prefix(word.size());
  return word;
}

}  // namespace

const FilterRow* find_filter(std::string_view name) {
  const FilterRow* row = find_row(value_filters(), name);
  return row ? row : find_row(sequence_filters(), name);
}
const TestRow* find_test(std::string_view name) {
  return find_row(tests(), name);
}
const GlobalRow* find_global(std::string_view name) {
  return find_row(globals(), name);
}

namespace {
std::optional<Receiver> receiver_of(const Value& self) {
  if (self.as_string()) return Receiver::kString;
  if (self.as_dict()) return Receiver::kDict;
  if (self.as_loop()) return Receiver::kLoop;
  if (self.is_sequence(SequenceKind::kList) || self.is_sequence(SequenceKind::kTuple))
    return Receiver::kList;
  return std::nullopt;
}
}  // namespace

const MethodRow* find_method(const Value& self, std::string_view name) {
  const auto receiver = receiver_of(self);
  if (!receiver) return nullptr;
  for (const auto& rows : {string_methods(), container_methods()}) {
    for (const MethodRow& row : rows) {
      if (row.receiver == *receiver && row.name == name) return &row;
    }
  }
  return nullptr;
}

bool is_forbidden_method(const Value& self, std::string_view name) {
  constexpr std::string_view kOfLists[] = {"append", "clear",  "extend",  "insert",
                                           "pop",    "remove", "reverse", "sort"};
  constexpr std::string_view kOfDicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
  const auto among = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  return (self.is_sequence(SequenceKind::kList) && among(kOfLists)) ||
         (self.as_dict() && among(kOfDicts));
}

Bound bind(const Interpreter& in, std::string_view function, std::string_view parameters,
           const Arguments& arguments) {
  std::vector<std::string_view> names;
  size_t required = 0;
  bool any = false;
  for (std::string_view word; !(word = next_word(parameters)).empty();) {
    if (word == "/") {
      required = names.size();
    } else if (word == "*") {
      any = true;
    } else {
      names.push_back(word);
    }
  }
  std::vector<const Value*> values(names.size(), nullptr);
  if (any) return Bound(std::move(values), arguments);
  if (arguments.positional.size() > names.size()) {
    in.fail(text(function, "() takes at most ", names.size(), " arguments (",
                 arguments.positional.size(), " given)"));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) values[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto at =
        static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    if (at == names.size())
      in.fail(text(function, "() got an unexpected keyword argument '", name, "'"));
    if (values[at] != nullptr)
      in.fail(text(function, "() got multiple values for argument '", name, "'"));
    values[at] = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (values[i] == nullptr)
      in.fail(text(function, "() is missing its argument '", names[i], "'"));
  }
  return Bound(std::move(values), arguments);
}

}  // namespace mantissa::jinja
