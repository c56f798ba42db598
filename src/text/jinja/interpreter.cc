// Expressions of templates, scopes and calls: see interpreter.h.
#include "text/jinja/interpreter.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "text/jinja/format.h"
#include "text/jinja/lexer.h"
#include "text/jinja/scoped.h"

namespace mantissa::jinja {

Interpreter::Interpreter(const Template& code, const Inputs& inputs)
    : code_(code),
      inputs_(inputs),
      work_left_(inputs.work_max +
                 16 * static_cast<int64_t>(std::min(inputs.bytes, size_t{1} << 32))),
      loop_name_(name_id("loop")),
      caller_name_(name_id("caller")),
      kwargs_name_(name_id("kwargs")),
      varargs_name_(name_id("varargs")) {
  scope_ = push_scope(nullptr);
  for (const auto& [name, value] : inputs.variables) {
    const NameId id = name_id(name.as_string()->text);
    if (id >= 0) scope_->variables.emplace_back(id, value);
  }
}
Interpreter::~Interpreter() = default;

std::string Interpreter::run() {
  std::string out;
  out_ = &out;
  exec(code_.body);
  return out;
}

void Interpreter::fail(const std::string& what) const {
  fail_at(code_.source_name, line_, what);
}

void Interpreter::charge(size_t units) const {
  work_left_ -= static_cast<int64_t>(std::min(units, size_t{1} << 40));
  if (work_left_ < 0) fail("the template does more work than the limit allows");
}

Value Interpreter::string(std::string_view text, bool markup) const {
  if (text.size() > kTextBytesMax) fail("a text exceeds the limit of its length");
  charge(1 + text.size() / 8);
  return Value::string(text, markup);
}

Value Interpreter::list(Values items, SequenceKind kind, std::string name) const {
  charge(1 + items.size());
  return Value::sequence(std::move(items), kind, std::move(name));
}
Value Interpreter::iterator(Values items) const {
  return list(std::move(items), SequenceKind::kIterator, "generator");
}

const Value& Interpreter::defined(const Value& value) const {
  if (const UndefinedRef* u = value.get<UndefinedRef>()) fail((*u)->message);
  return value;
}

// ---- scopes

NameId Interpreter::name_id(std::string_view name) const {
  const auto at = std::find(code_.names.begin(), code_.names.end(), name);
  return at == code_.names.end() ? -1 : static_cast<NameId>(at - code_.names.begin());
}

Scope* Interpreter::push_scope(Scope* parent) {
  charge(1);
  if (free_scopes_.empty()) {
    scopes_.emplace_back();
    free_scopes_.push_back(&scopes_.back());
  }
  Scope* scope = free_scopes_.back();
  free_scopes_.pop_back();
  scope->parent = parent;
  return scope;
}

void Interpreter::pop_scope(Scope* scope, Scope* back_to) {
  scope_ = back_to;
  if (scope->captured) return;
  scope->variables.clear();
  free_scopes_.push_back(scope);
}

const Value* Interpreter::find_variable(NameId name) const {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    for (const auto& [id, value] : scope->variables) {
      if (id == name) return &value;
    }
  }
  return nullptr;
}

void Interpreter::set_variable(NameId name, Value value) {
  for (auto& [id, there] : scope_->variables) {
    if (id != name) continue;
    there = std::move(value);
    return;
  }
  scope_->variables.emplace_back(name, std::move(value));
}

// ---- expressions

Value Interpreter::eval(ExprId id) {
  const Expr& expr = code_.exprs[static_cast<size_t>(id)];
  const Depth depth(*this);
  charge(1);
  line_ = expr.line;
  return std::visit([&](const auto& node) { return eval(node); }, expr.node);
}

Value Interpreter::eval(const Name& e) {
  if (const Value* value = find_variable(e.name)) return *value;
  const std::string& name = code_.names[static_cast<size_t>(e.name)];
  if (const GlobalRow* row = find_global(name)) {
    return std::make_shared<const Function>(Function{row});
  }
  return Value::undefined(string_repr(name) + " is undefined");
}

Value Interpreter::eval(const Attribute& e) {
  const Value object = eval(e.object);
  if (Loop* loop = object.as_loop()) {
    Value found = loop_attribute(*loop, e.name);
    if (!found.is_undefined() || e.name == "previtem" || e.name == "nextitem") return found;
  }
  return attribute(object, e.name);
}

Value Interpreter::eval(const Item& e) {
  const Value object = eval(e.object);
  const Value key = eval(e.key);
  const String* name = key.as_string();
  if (Loop* loop = object.as_loop(); loop && name) return loop_attribute(*loop, name->text);
  return item(object, key);
}

Value Interpreter::eval(const Slice& e) {
  const Value object = eval(e.object);
  const Value begin = eval_or_none(e.begin), end = eval_or_none(e.end), step = eval_or_none(e.step);
  return slice(object, begin, end, step);
}

Arguments Interpreter::arguments_of(const CallArguments& list) {
  Arguments out;
  for (ExprId id : list.positional) out.positional.push_back(eval(id));
  for (const auto& [name, id] : list.named) out.named.emplace_back(name, eval(id));
  if (list.more_positional >= 0) {
    for (Value& value : items_of(eval(list.more_positional))) {
      out.positional.push_back(std::move(value));
    }
  }
  if (list.more_named < 0) return out;
  const Value more = eval(list.more_named);
  if (more.as_dict() == nullptr) fail("what stands behind ** must be a mapping");
  for (const auto& [key, value] : more.as_dict()->members) {
    if (key.as_string() == nullptr) fail("keywords must be strings");
    out.named.emplace_back(key.as_string()->text, value);
  }
  return out;
}

Value Interpreter::eval(const Call& e) {
  const Value callee = eval(e.callee);
  const int line = line_;
  const Arguments arguments = arguments_of(e.arguments);
  line_ = line;
  return call(callee, arguments);
}

Value Interpreter::eval(const Filter& e) {
  const Value input = e.input < 0 ? block_text_ : eval(e.input);
  const Arguments arguments = arguments_of(e.arguments);
  if (e.row == nullptr) fail("the filter '" + e.name + "' is not supported");
  return filter(*e.row, input, arguments);
}

Value Interpreter::filter_text(ExprId id, const Value& input) {
  const Value before = std::exchange(block_text_, input);
  Value out = eval(id);
  block_text_ = before;
  return out;
}

Value Interpreter::eval(const Test& e) {
  const Value input = eval(e.input);
  const Arguments arguments = arguments_of(e.arguments);
  if (e.row == nullptr) fail("the test '" + e.name + "' is not supported");
  return test(*e.row, input, arguments);
}

Value Interpreter::eval(const Binary& e) {
  const Value left = eval(e.left);
  const Value right = eval(e.right);
  return binary(e.op, left, right);
}

Value Interpreter::eval(const Compare& e) {
  Value left = eval(e.first);
  for (const auto& [op, id] : e.rest) {
    Value right = eval(id);
    if (!compare(op, left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::eval(const Logic& e) {
  Value left = eval(e.left);
  return left.truth() == e.is_and ? eval(e.right) : left;
}

Value Interpreter::eval(const Not& e) {
  return !eval(e.operand).truth();
}

Value Interpreter::eval(const Sign& e) {
  const Value value = defined(eval(e.operand));
  if (const double* d = value.get<double>()) return e.negative ? -*d : *d;
  const auto i = value.as_integer();
  if (!i)
    fail(
        text("bad operand type for unary ", e.negative ? "-" : "+", ": '", value.type_name(), "'"));
  if (e.negative && *i == std::numeric_limits<int64_t>::min())
    fail("a number needs more than 64 bits");
  return e.negative ? -*i : *i;
}

Value Interpreter::eval(const Concat& e) {
  std::string out;
  for (ExprId id : e.parts) out += to_text(eval(id), *this);
  return string(out);
}

Value Interpreter::eval(const Conditional& e) {
  if (eval(e.test).truth()) return eval(e.then);
  if (e.otherwise >= 0) return eval(e.otherwise);
  return Value::undefined(
      "the inline if-expression evaluated to false and no else section was defined.");
}

Value Interpreter::eval(const ListDisplay& e) {
  Values items;
  for (ExprId id : e.items) items.push_back(eval(id));
  return list(std::move(items), e.tuple ? SequenceKind::kTuple : SequenceKind::kList);
}

Value Interpreter::eval(const DictDisplay& e) {
  Members members;
  for (const auto& [key_id, value_id] : e.members) {
    const Value key = eval(key_id);
    if (!key.hashable()) fail(text("unhashable type: '", key.type_name(), "'"));
    charge(members.size());
    set_member(members, key, eval(value_id));
  }
  return Value::dict(std::move(members));
}

// ---- calls

Value Interpreter::filter(const FilterRow& row, const Value& input, const Arguments& arguments) {
  return row.run(*this, input, bind(*this, row.name, row.parameters, arguments));
}
bool Interpreter::test(const TestRow& row, const Value& input, const Arguments& arguments) {
  return row.run(*this, input, bind(*this, row.name, row.parameters, arguments));
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  const Depth depth(*this);
  defined(callee);
  if (const Loop* loop = callee.as_loop()) {
    if (!loop->node->recursive || !loop->running || arguments.positional.size() != 1) {
      fail("The loop must have the 'recursive' marker to be called recursively.");
    }
    return recurse(*loop, arguments.positional[0]);
  }
  const Function* function = callee.as_function();
  if (function == nullptr) fail(text("'", callee.type_name(), "' object is not callable"));
  if (const auto* macro = std::get_if<MacroClosure>(&function->code)) {
    return call_macro(*macro, arguments);
  }
  if (const auto* method = std::get_if<BoundMethod>(&function->code)) {
    return method->row->run(*this, method->self,
                            bind(*this, method->row->name, method->row->parameters, arguments));
  }
  const GlobalRow& row = *std::get<const GlobalRow*>(function->code);
  return row.run(*this, Value(), bind(*this, row.name, row.parameters, arguments));
}

Value Interpreter::call_macro(const MacroClosure& macro, const Arguments& arguments) {
  const MacroCode& code = *macro.code;
  const Counted counted(calls_);
  if (calls_ > kCallDepthMax)
    fail(text("macros call each other deeper than ", kCallDepthMax, " levels"));
  Scope* const before = scope_;
  Scope* const scope = push_scope(macro.scope);
  const Restored<Scope*> restored(scope_, scope);
  std::vector<std::pair<std::string, Value>> named = arguments.named;
  const auto take = [&](const std::string& name) -> std::optional<Value> {
    for (auto at = named.begin(); at != named.end(); ++at) {
      if (at->first != name) continue;
      Value value = std::move(at->second);
      named.erase(at);
      return value;
    }
    return std::nullopt;
  };
  for (size_t i = 0; i < code.parameters.size(); ++i) {
    const Parameter& parameter = code.parameters[i];
    const std::string& name = code_.names[static_cast<size_t>(parameter.name)];
    std::optional<Value> value =
        i < arguments.positional.size() ? arguments.positional[i] : take(name);
    if (!value) {
      value = parameter.fallback >= 0
                  ? eval(parameter.fallback)
                  : Value::undefined("parameter " + string_repr(name) + " was not provided");
    }
    set_variable(parameter.name, std::move(*value));
  }
  if (code.uses_caller) {
    const std::optional<Value> caller = take("caller");
    set_variable(caller_name_, caller ? *caller : Value::undefined("No caller defined"));
  }
  if (code.uses_kwargs) {
    Members members;
    for (auto& [name, value] : named) members.emplace_back(string(name), std::move(value));
    set_variable(kwargs_name_, Value::dict(std::move(members)));
  } else if (!named.empty()) {
    fail(text("macro '", code.name, "' takes no keyword argument '", named[0].first, "'"));
  }
  const size_t taken = std::min(code.parameters.size(), arguments.positional.size());
  const Values more(arguments.positional.begin() + static_cast<std::ptrdiff_t>(taken),
                    arguments.positional.end());
  if (code.uses_varargs) {
    set_variable(varargs_name_, list(more, SequenceKind::kTuple));
  } else if (!more.empty()) {
    fail(text("macro '", code.name, "' takes not more than ", code.parameters.size(),
              " argument(s)"));
  }
  std::string out;
  {
    const Restored<std::string*> output(out_, &out);
    exec(code.body);
  }
  pop_scope(scope, before);
  return string(out);
}

}  // namespace mantissa::jinja
