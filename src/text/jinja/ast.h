// A parsed template: nodes in one array, referring to each other by index, so that neither making
// nor dropping one recurses.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/value.h"

namespace mantissa::jinja {

using ExprId = int32_t;   // -1: none
using BlockId = int32_t;  // a list of statements
using NameId = int32_t;   // of Template::names
struct FilterRow;         // registry.h
struct TestRow;

// ---- expressions

struct Constant {
  Value value;
};
struct Name {
  NameId name;
};
struct Attribute {  // object.name
  ExprId object;
  std::string name;
};
struct Item {  // object[key]
  ExprId object, key;
};
struct Slice {  // object[begin:end:step]
  ExprId object, begin, end, step;
};
struct CallArguments {
  std::vector<ExprId> positional;
  std::vector<std::pair<std::string, ExprId>> named;
  ExprId more_positional = -1, more_named = -1;  // *args, **kwargs
};
struct Call {
  ExprId callee;
  CallArguments arguments;
};
struct Filter {
  ExprId input;          // -1: the text of the block that is filtered
  const FilterRow* row;  // nullptr: unknown, an Error when it runs
  std::string name;
  CallArguments arguments;
};
struct Test {
  ExprId input;
  const TestRow* row;  // nullptr: unknown
  std::string name;
  CallArguments arguments;
};
enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};
struct Binary {
  Operator op;
  ExprId left, right;
};
struct Compare {  // a < b <= c
  ExprId first;
  std::vector<std::pair<Operator, ExprId>> rest;
};
struct Logic {
  bool is_and;
  ExprId left, right;
};
struct Not {
  ExprId operand;
};
struct Sign {
  bool negative;
  ExprId operand;
};
struct Concat {  // a ~ b ~ c
  std::vector<ExprId> parts;
};
struct Conditional {  // then if test else otherwise
  ExprId test, then, otherwise;
};
struct ListDisplay {  // [a, b], (a, b)
  bool tuple;
  std::vector<ExprId> items;
};
struct DictDisplay {
  std::vector<std::pair<ExprId, ExprId>> members;
};

struct Expr {
  std::variant<Constant, Name, Attribute, Item, Slice, Call, Filter, Test, Binary, Compare, Logic,
               Not, Sign, Concat, Conditional, ListDisplay, DictDisplay>
      node;
  int line;
};

// ---- statements

// What a value is stored to: a name, names (a, (b, c)), or an attribute of a namespace.
struct Target {
  NameId name = -1;
  std::string attribute;      // of the namespace `name`; empty: the name itself
  std::vector<Target> parts;  // a tuple
};
struct Parameter {
  NameId name;
  ExprId fallback;  // -1: none
};
// A macro, or the body of a {% call %}.
struct MacroCode {
  std::string name;
  std::vector<Parameter> parameters;
  BlockId body;
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;
};
using MacroId = int32_t;

struct Text {
  std::string text;
};
struct Output {
  ExprId value;
};
struct If {
  std::vector<std::pair<ExprId, BlockId>> branches;
  BlockId otherwise;  // -1: none
};
struct For {
  Target target;
  ExprId sequence, condition;  // condition -1: none
  BlockId body, otherwise;     // otherwise -1: none
  bool recursive;
};
struct Set {
  Target target;
  ExprId value;
};
struct SetBlock {  // {% set x %}...{% endset %}
  Target target;
  ExprId filter;  // -1: none
  BlockId body;
};
struct FilterBlock {
  ExprId filter;
  BlockId body;
};
struct MacroDefinition {
  NameId name;
  MacroId macro;
};
struct CallBlock {
  ExprId call;  // a Call
  MacroId caller;
};
struct With {
  std::vector<std::pair<Target, ExprId>> values;
  BlockId body;
};
struct Scoped {  // a block that is written as it is: {% generation %}
  BlockId body;
};
struct Break {};
struct Continue {};

struct Statement {
  std::variant<Text, Output, If, For, Set, SetBlock, FilterBlock, MacroDefinition, CallBlock, With,
               Scoped, Break, Continue>
      node;
  int line;
};

struct Template {
  std::string source_name;  // what errors call it
  std::vector<Expr> exprs;
  std::vector<Statement> statements;
  std::vector<std::vector<int32_t>> blocks;  // indices of statements
  std::vector<MacroCode> macros;
  std::vector<std::string> names;
  BlockId body = -1;
};

}  // namespace mantissa::jinja
