// Statements of templates and their loops: see interpreter.h.
#include <algorithm>

#include "base/error.h"
#include "text/jinja/format.h"
#include "text/jinja/scoped.h"

namespace mantissa::jinja {

Interpreter::Flow Interpreter::exec(BlockId id) {
  const Depth depth(*this);
  for (int32_t index : code_.blocks[static_cast<size_t>(id)]) {
    const Statement& statement = code_.statements[static_cast<size_t>(index)];
    charge(1);
    line_ = statement.line;
    const Flow flow = std::visit([&](const auto& node) { return exec(node); }, statement.node);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

void Interpreter::write(std::string_view text) {
  if (out_->size() + text.size() > kTextBytesMax)
    fail("the output exceeds the limit of its length");
  charge(text.size() / 8);
  out_->append(text);
}

Interpreter::Flow Interpreter::exec(const Text& s) {
  write(s.text);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::exec(const Output& s) {
  const Value value = eval(s.value);
  if (const String* text = value.as_string()) {
    write(text->text);
  } else {
    write(to_text(value, *this));
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::exec(const If& s) {
  for (const auto& [test, body] : s.branches) {
    if (eval(test).truth()) return exec(body);
  }
  return s.otherwise >= 0 ? exec(s.otherwise) : Flow::kNext;
}

void Interpreter::assign(const Target& target, const Value& value) {
  if (!target.attribute.empty()) {
    const Value* there = find_variable(target.name);
    Namespace* space = there ? there->as_namespace() : nullptr;
    if (space == nullptr) fail("cannot assign attribute on non-namespace object");
    if (target.attribute[0] == '_') {
      fail("names with an underscore in front cannot be attributes of a namespace");
    }
    for (auto& [key, old] : space->members) {
      if (key.as_string()->text != target.attribute) continue;
      old = value;
      return;
    }
    charge(space->members.size());
    space->members.emplace_back(string(target.attribute), value);
    return;
  }
  if (target.parts.empty()) return set_variable(target.name, value);
  const Values items = items_of(value);
  if (items.size() != target.parts.size()) {
    fail(text(items.size() < target.parts.size() ? "not enough" : "too many",
              " values to unpack (expected ", target.parts.size(), ")"));
  }
  for (size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i]);
}

Interpreter::Flow Interpreter::exec(const Set& s) {
  assign(s.target, eval(s.value));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::captured_text(BlockId body, std::string& out) {
  Scope* const before = scope_;
  Scope* const scope = push_scope(before);
  const Restored<Scope*> restored(scope_, scope);
  const Restored<std::string*> output(out_, &out);
  const Flow flow = exec(body);
  pop_scope(scope, before);
  return flow;
}

Interpreter::Flow Interpreter::exec(const SetBlock& s) {
  std::string out;
  const Flow flow = captured_text(s.body, out);
  if (flow != Flow::kNext) return flow;
  Value value = string(out);
  if (s.filter >= 0) value = filter_text(s.filter, value);
  assign(s.target, value);
  return Flow::kNext;
}

Interpreter::Flow Interpreter::exec(const FilterBlock& s) {
  std::string out;
  const Flow flow = captured_text(s.body, out);
  if (flow != Flow::kNext) return flow;
  write(to_text(filter_text(s.filter, string(out)), *this));
  return Flow::kNext;
}

Value Interpreter::closure(MacroId id) {
  for (Scope* scope = scope_; scope != nullptr && !scope->captured; scope = scope->parent) {
    scope->captured = true;
  }
  charge(50);
  const MacroCode* code = &code_.macros[static_cast<size_t>(id)];
  return std::make_shared<const Function>(Function{MacroClosure{code, scope_}});
}

Interpreter::Flow Interpreter::exec(const MacroDefinition& s) {
  set_variable(s.name, closure(s.macro));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::exec(const CallBlock& s) {
  const auto& node = std::get<Call>(code_.exprs[static_cast<size_t>(s.call)].node);
  const Value callee = eval(node.callee);
  Arguments arguments = arguments_of(node.arguments);
  arguments.named.emplace_back("caller", closure(s.caller));
  write(to_text(call(callee, arguments), *this));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::exec(const With& s) {
  Values values;
  for (const auto& [target, id] : s.values) values.push_back(eval(id));
  Scope* const before = scope_;
  Scope* const scope = push_scope(before);
  const Restored<Scope*> restored(scope_, scope);
  for (size_t i = 0; i < values.size(); ++i) assign(s.values[i].first, values[i]);
  const Flow flow = exec(s.body);
  pop_scope(scope, before);
  return flow;
}

Interpreter::Flow Interpreter::exec(const Scoped& s) {
  std::string out;
  const Flow flow = captured_text(s.body, out);
  write(out);
  return flow;
}

// ---- loops

Interpreter::Flow Interpreter::exec(const For& s) {
  const auto loop = std::make_shared<Loop>();
  loop->node = &s;
  loop->scope = scope_;
  loop->items = items_of(eval(s.sequence));
  return run_loop(loop);
}

Value Interpreter::recurse(const Loop& outer, const Value& iterable) {
  const Counted counted(calls_);
  if (calls_ > kCallDepthMax)
    fail(text("a loop calls itself deeper than ", kCallDepthMax, " levels"));
  const auto loop = std::make_shared<Loop>();
  loop->node = outer.node;
  loop->scope = outer.scope;
  loop->depth0 = outer.depth0 + 1;
  loop->items = items_of(iterable);
  std::string out;
  const Restored<std::string*> output(out_, &out);
  const Restored<Scope*> restored(scope_, outer.scope);
  run_loop(loop);
  return string(out);
}

std::optional<Value> Interpreter::pull(Loop& loop) {
  while (loop.next < loop.items.size()) {
    Value item = loop.items[loop.next++];
    if (loop.filtered || loop.node->condition < 0) return item;
    Scope* const before = scope_;
    Scope* const scope = push_scope(loop.scope);
    const Restored<Scope*> restored(scope_, scope);
    assign(loop.node->target, item);
    const bool wanted = eval(loop.node->condition).truth();
    pop_scope(scope, before);
    if (wanted) return item;
  }
  return std::nullopt;
}

int64_t Interpreter::loop_length(Loop& loop) {
  if (loop.node->condition >= 0 && !loop.filtered) {
    Values rest;
    while (std::optional<Value> item = pull(loop)) rest.push_back(std::move(*item));
    loop.items = std::move(rest);
    loop.next = 0;
    loop.filtered = true;
  }
  // Of an unfiltered loop, next counts what came before; of a filtered one, index0 does.
  const auto rest = static_cast<int64_t>(loop.items.size() - loop.next);
  return rest + loop.index0 + 1 + (loop.peeked ? 1 : 0);
}

Interpreter::Flow Interpreter::run_loop(const std::shared_ptr<Loop>& loop) {
  const For& node = *loop->node;
  Scope* const before = scope_;
  Flow flow = Flow::kNext;
  while (flow != Flow::kBreak) {
    std::optional<Value> item = std::exchange(loop->peeked, std::nullopt);
    if (!item) item = pull(*loop);
    if (!item) break;
    ++loop->index0;
    loop->previous = std::exchange(loop->current, *item);
    Scope* const scope = push_scope(before);
    const Restored<Scope*> restored(scope_, scope);
    assign(node.target, *item);
    if (loop_name_ >= 0) set_variable(loop_name_, loop);
    flow = exec(node.body);
    pop_scope(scope, before);
  }
  const bool none = loop->index0 < 0;
  loop->running = false;  // what a template kept of it holds nothing
  loop->items.clear();
  loop->next = 0;
  loop->peeked = loop->previous = loop->current = loop->changed = std::nullopt;
  if (none && node.otherwise >= 0) return exec(node.otherwise);
  return Flow::kNext;
}

Value Interpreter::loop_attribute(Loop& loop, const std::string& name) {
  const auto peek = [&]() -> const std::optional<Value>& {
    if (!loop.peeked) loop.peeked = pull(loop);
    return loop.peeked;
  };
  if (name == "index0") return loop.index0;
  if (name == "index") return loop.index0 + 1;
  if (name == "first") return loop.index0 == 0;
  if (name == "depth0") return int64_t{loop.depth0};
  if (name == "depth") return int64_t{loop.depth0} + 1;
  if (name == "last") return !peek();
  if (name == "length") return loop_length(loop);
  if (name == "revindex") return loop_length(loop) - loop.index0;
  if (name == "revindex0") return loop_length(loop) - loop.index0 - 1;
  if (name == "previtem") {
    return loop.previous ? *loop.previous : Value::undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return peek() ? *loop.peeked : Value::undefined("there is no next item");
  }
  return Value::undefined("'jinja2.runtime.LoopContext object' has no attribute " +
                          string_repr(name));
}

}  // namespace mantissa::jinja
