// Runs a Template. No input, no output but the text; memory and time are bounded: what a template
// does is charged against a budget, and reaching a limit is an Error that names the line.
#pragma once

#include <ctime>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/registry.h"
#include "text/jinja/value.h"

namespace mantissa::jinja {

inline constexpr size_t kTextBytesMax = size_t{64} << 20;  // of the output, and of each string
inline constexpr int kEvaluationDepthMax = 1000;
inline constexpr int kCallDepthMax = 100;        // macros and recursive loops
inline constexpr int64_t kWorkMax = 20'000'000;  // units: a node evaluated, 8 bytes made
inline constexpr int64_t kRangeMax = 100'000;    // as jinja2's sandbox

struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<NameId, Value>> variables;
  bool captured = false;  // by a macro: stays until the end
};

struct MacroClosure {
  const MacroCode* code;
  Scope* scope;  // where it was defined
};
struct BoundMethod {
  const MethodRow* row;
  Value self;
};
struct Function {
  std::variant<MacroClosure, BoundMethod, const GlobalRow*> code;
  int depth = 0;  // of a BoundMethod's self
};

struct Loop {
  const For* node = nullptr;
  Scope* scope = nullptr;  // where the loop stands
  int depth0 = 0;          // of recursion
  bool running = true;
  Values items;
  size_t next = 0;        // of items
  bool filtered = false;  // whether items[next..] have passed the loop's condition
  std::optional<Value> peeked, previous, current, changed;
  int64_t index0 = -1;
};

// What a template sees.
struct Inputs {
  Members variables;
  std::tm now{};  // local time, of strftime_now
  int now_microseconds = 0;
  size_t bytes = 0;  // of all inputs: the budget grows with them
  int64_t work_max = kWorkMax;
};

class Interpreter {
 public:
  Interpreter(const Template& code, const Inputs& inputs);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Once. Throws Error "NAME: line N: ...".
  std::string run();

  // ---- for filters, tests, methods and functions

  // "NAME: line N: what".
  [[noreturn]] void fail(const std::string& what) const;
  void charge(size_t units) const;
  Value string(std::string_view text, bool markup = false) const;
  Value list(Values items, SequenceKind kind = SequenceKind::kList, std::string name = {}) const;
  // A generator's items: they can be taken once.
  Value iterator(Values items) const;
  // The items that iterating gives; fails where that is not possible.
  Values items_of(const Value& value) const;
  // Fails, as any use of an undefined value does; other values pass.
  const Value& defined(const Value& value) const;
  Value attribute(const Value& object, const std::string& name) const;
  Value item(const Value& object, const Value& key) const;
  Value call(const Value& callee, const Arguments& arguments);
  Value filter(const FilterRow& row, const Value& input, const Arguments& arguments);
  bool test(const TestRow& row, const Value& input, const Arguments& arguments);
  bool less(const Value& a, const Value& b) const;  // fails where there is no order
  bool contains(const Value& container, const Value& value) const;
  Value binary(Operator op, const Value& left, const Value& right) const;
  bool compare(Operator op, const Value& left, const Value& right) const;
  Value slice(const Value& object, const Value& begin, const Value& end, const Value& step) const;
  Value new_namespace(Members members);
  std::optional<Value> pull(Loop& loop);  // its next item
  int64_t loop_length(Loop& loop);
  const Inputs& inputs() const { return inputs_; }

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };
  class Depth;

  // ---- expressions (interpreter.cc)
  Value eval(ExprId id);
  Value eval_or_none(ExprId id) { return id < 0 ? Value() : eval(id); }
  Value eval(const Constant& e) { return e.value; }
  Value eval(const Name& e);
  Value eval(const Attribute& e);
  Value eval(const Item& e);
  Value eval(const Slice& e);
  Value eval(const Call& e);
  Value eval(const Filter& e);
  Value eval(const Test& e);
  Value eval(const Binary& e);
  Value eval(const Compare& e);
  Value eval(const Logic& e);
  Value eval(const Not& e);
  Value eval(const Sign& e);
  Value eval(const Concat& e);
  Value eval(const Conditional& e);
  Value eval(const ListDisplay& e);
  Value eval(const DictDisplay& e);
  Arguments arguments_of(const CallArguments& list);
  Value call_macro(const MacroClosure& macro, const Arguments& arguments);
  Value filter_text(ExprId id, const Value& input);

  // ---- statements (statements.cc)
  Flow exec(BlockId id);
  Flow exec(const Text& s);
  Flow exec(const Output& s);
  Flow exec(const If& s);
  Flow exec(const For& s);
  Flow exec(const Set& s);
  Flow exec(const SetBlock& s);
  Flow exec(const FilterBlock& s);
  Flow exec(const MacroDefinition& s);
  Flow exec(const CallBlock& s);
  Flow exec(const With& s);
  Flow exec(const Scoped& s);
  Flow exec(const Break&) { return Flow::kBreak; }
  Flow exec(const Continue&) { return Flow::kContinue; }
  Flow run_loop(const std::shared_ptr<Loop>& loop);
  Value recurse(const Loop& loop, const Value& iterable);
  void write(std::string_view text);
  // Runs a block of its own scope into a text of its own.
  Flow captured_text(BlockId body, std::string& out);
  void assign(const Target& target, const Value& value);
  Value closure(MacroId id);
  Value loop_attribute(Loop& loop, const std::string& name);

  // ---- scopes
  Scope* push_scope(Scope* parent);
  void pop_scope(Scope* scope, Scope* back_to);
  const Value* find_variable(NameId name) const;
  void set_variable(NameId name, Value value);
  NameId name_id(std::string_view name) const;  // -1: the template does not use it

  const Template& code_;
  const Inputs& inputs_;
  std::deque<Scope> scopes_;
  std::vector<Scope*> free_scopes_;
  std::deque<Namespace> namespaces_;
  Scope* scope_ = nullptr;
  std::string* out_ = nullptr;
  mutable int64_t work_left_;
  int line_ = 1;
  int depth_ = 0, calls_ = 0;
  NameId loop_name_, caller_name_, kwargs_name_, varargs_name_;
  Value block_text_;  // the input of a filter block
};

}  // namespace mantissa::jinja
