// The filters, tests, methods and global functions that templates can use: one row each.
#pragma once

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace mantissa::jinja {

class Interpreter;

struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;
};

// The arguments of one call, in the order of the row's parameters.
class Bound {
 public:
  Bound(std::vector<const Value*> values, const Arguments& all)
      : values_(std::move(values)), all_(all) {}
  bool given(size_t i) const { return values_[i] != nullptr; }
  // Whether it is given and not None.
  bool set(size_t i) const { return given(i) && !values_[i]->is_none(); }
  const Value& operator[](size_t i) const { return *values_[i]; }
  Value get(size_t i, const Value& otherwise) const { return given(i) ? *values_[i] : otherwise; }
  const Arguments& all() const { return all_; }

 private:
  std::vector<const Value*> values_;  // nullptr: not given
  const Arguments& all_;
};

// parameters: names between spaces; those before "/" must be given. "*" at the end: the function
// reads Bound::all() itself.
using Function1 = Value (*)(Interpreter&, const Value& self, const Bound&);
struct FilterRow {
  std::string_view name, parameters;
  Function1 run;
};
using TestFunction = bool (*)(Interpreter&, const Value& self, const Bound&);
struct TestRow {
  std::string_view name, parameters;
  TestFunction run;
};
enum class Receiver : uint8_t { kString, kList, kDict, kLoop };
struct MethodRow {
  Receiver receiver;
  std::string_view name, parameters;
  Function1 run;
};
struct GlobalRow {
  std::string_view name, parameters;
  Function1 run;  // self is None
};

std::span<const FilterRow> value_filters();     // filters.cc
std::span<const FilterRow> sequence_filters();  // sequence_filters.cc
std::span<const TestRow> tests();
std::span<const MethodRow> string_methods();
std::span<const MethodRow> container_methods();
std::span<const GlobalRow> globals();

// nullptr where there is none.
const FilterRow* find_filter(std::string_view name);
const TestRow* find_test(std::string_view name);
const MethodRow* find_method(const Value& self, std::string_view name);
const GlobalRow* find_global(std::string_view name);
// A method of Python that would change the list or dict: the sandbox forbids it.
bool is_forbidden_method(const Value& self, std::string_view name);

// Fails, naming the function, where arguments are missing, unknown or too many.
Bound bind(const Interpreter& in, std::string_view function, std::string_view parameters,
           const Arguments& arguments);

}  // namespace mantissa::jinja
