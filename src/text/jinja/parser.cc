// Statements of templates; expressions are in expression_parser.cc.
#include "text/jinja/parser.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "text/jinja/parser_impl.h"

namespace mantissa::jinja {

Parser::Parser(std::vector<Token> tokens, const std::string& name) : tokens_(std::move(tokens)) {
  out_.source_name = name;
}

Template Parser::run() {
  out_.body = block({});
  if (!unknown_.empty()) fail(unknown_[0].second, unknown_[0].first);
  return std::move(out_);
}

void Parser::fail(const std::string& what, int line) const {
  fail_at(out_.source_name, line > 0 ? line : now().line, what);
}

std::string Parser::describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kEnd:
      return "the end of the template";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return "a number";
    case TokenKind::kString:
      return "a string";
    default:
      return "'" + printable(token.text, 40) + "'";
  }
}

bool Parser::skip_operator(std::string_view op) {
  if (!is_operator(op)) return false;
  ++at_;
  return true;
}
bool Parser::skip_word(std::string_view word) {
  if (!is_word(word)) return false;
  ++at_;
  return true;
}
void Parser::expect_operator(std::string_view op) {
  if (!skip_operator(op)) fail(text("expected '", op, "', found ", describe(now())));
}
void Parser::expect_word(std::string_view word) {
  if (!skip_word(word)) fail(text("expected '", word, "', found ", describe(now())));
}
std::string Parser::expect_name() {
  if (now().kind != TokenKind::kName) fail(text("expected a name, found ", describe(now())));
  return tokens_[at_++].text;
}
void Parser::expect_block_end() {
  if (now().kind != TokenKind::kBlockEnd) fail(text("expected '%}', found ", describe(now())));
  ++at_;
}

NameId Parser::intern(const std::string& name) {
  const auto [row, is_new] = names_.try_emplace(name, static_cast<NameId>(out_.names.size()));
  if (is_new) out_.names.push_back(name);
  return row->second;
}

template <class Node>
void Parser::add(std::vector<int32_t>& block, Node node, int line) {
  block.push_back(static_cast<int32_t>(out_.statements.size()));
  out_.statements.push_back({std::move(node), line});
}

// Statements up to one of the words, whose tag is then the current one; no words: up to the end of
// the template.
BlockId Parser::block(const std::vector<std::string_view>& ends) {
  const Nested nested(*this);
  const int begins = tag_line_;
  std::vector<int32_t> list;
  for (;;) {
    const Token& token = now();
    if (token.kind == TokenKind::kEnd) {
      if (!ends.empty()) {
        fail(text("the block that begins at line ", begins, " does not end: {% ", ends.back(),
                  " %} is missing"));
      }
      break;
    }
    ++at_;
    if (token.kind == TokenKind::kData) {
      add(list, Text{token.text}, token.line);
    } else if (token.kind == TokenKind::kVariableBegin) {
      const ExprId value = tuple({});
      if (now().kind != TokenKind::kVariableEnd) {
        fail(text("expected '}}', found ", describe(now())));
      }
      ++at_;
      add(list, Output{value}, token.line);
    } else {
      if (std::any_of(ends.begin(), ends.end(), [&](auto word) { return is_word(word); })) break;
      statement(list);
      expect_block_end();
    }
  }
  out_.blocks.push_back(std::move(list));
  return static_cast<BlockId>(out_.blocks.size() - 1);
}

// The body of a tag: what follows its "%}", and its end word.
BlockId Parser::body(std::string_view end) {
  skip_operator(":");
  expect_block_end();
  const BlockId out = block({end});
  ++at_;
  return out;
}
// The same where filters and tests are looked up now: an unknown one is an error even if the body
// does not run.
BlockId Parser::inner_body(std::string_view end) {
  const bool soft = std::exchange(soft_, false);
  const BlockId out = body(end);
  soft_ = soft;
  return out;
}

void Parser::statement(std::vector<int32_t>& list) {
  struct Row {
    std::string_view word;
    void (Parser::*parse)(std::vector<int32_t>&, int line);
  };
  static constexpr Row kStatements[] = {{"if", &Parser::parse_if},
                                        {"for", &Parser::parse_for},
                                        {"set", &Parser::parse_set},
                                        {"macro", &Parser::parse_macro},
                                        {"call", &Parser::parse_call_block},
                                        {"filter", &Parser::parse_filter_block},
                                        {"with", &Parser::parse_with},
                                        {"generation", &Parser::parse_generation},
                                        {"print", &Parser::parse_print},
                                        {"break", &Parser::parse_break},
                                        {"continue", &Parser::parse_continue}};
  const int line = now().line;
  const std::string word = expect_name();
  const int around = std::exchange(tag_line_, line);
  for (const Row& row : kStatements) {
    if (row.word != word) continue;
    (this->*row.parse)(list, line);
    tag_line_ = around;
    return;
  }
  std::string known;
  for (const Row& row : kStatements) known += text(known.empty() ? "" : ", ", row.word);
  fail(text("the tag {% ", printable(word, 40), " %} is not supported (there are: ", known, ")"),
       line);
}

void Parser::parse_if(std::vector<int32_t>& list, int line) {
  const bool soft = std::exchange(soft_, true);
  If node{{}, -1};
  for (bool more = true; more;) {
    const ExprId test = tuple({.conditional = false});
    skip_operator(":");
    expect_block_end();
    node.branches.emplace_back(test, block({"elif", "else", "endif"}));
    const std::string word = expect_name();
    more = word == "elif";
    if (word == "else") node.otherwise = body("endif");
  }
  soft_ = soft;
  add(list, std::move(node), line);
}

void Parser::parse_for(std::vector<int32_t>& list, int line) {
  For node{};
  node.target = target(true, false, "in");
  expect_word("in");
  node.sequence = tuple({.conditional = false, .end_word = "recursive"});
  const bool soft = std::exchange(soft_, false);
  node.condition = skip_word("if") ? expression() : -1;
  node.recursive = skip_word("recursive");
  skip_operator(":");
  expect_block_end();
  ++loops_;
  node.body = block({"endfor", "else"});
  --loops_;
  node.otherwise = expect_name() == "else" ? body("endfor") : -1;
  soft_ = soft;
  add(list, std::move(node), line);
}

void Parser::parse_set(std::vector<int32_t>& list, int line) {
  Target to = target(true, true, "");
  if (skip_operator("=")) {
    add(list, Set{std::move(to), tuple({})}, line);
    return;
  }
  const ExprId filter = is_operator("|") ? filters(-1) : -1;
  const BlockId inside = inner_body("endset");
  add(list, SetBlock{std::move(to), filter, inside}, line);
}

// Parses parameters and body between here and the end word.
MacroId Parser::macro_code(std::string name, bool with_parameters, ExprId* call,
                           std::string_view end) {
  const int loops = std::exchange(loops_, 0);
  const bool soft = std::exchange(soft_, false);
  MacroCode code{.name = std::move(name), .parameters = {}, .body = -1};
  if (with_parameters) code.parameters = parameters();
  soft_ = soft;
  if (call != nullptr) {
    const int line = now().line;
    *call = expression();
    if (!std::holds_alternative<Call>(out_.exprs[static_cast<size_t>(*call)].node)) {
      fail("expected a call", line);
    }
  }
  soft_ = false;
  specials_.push_back({});
  code.body = body(end);
  const Specials used = specials_.back();
  specials_.pop_back();
  if (!specials_.empty()) specials_.back().add(used);
  const auto is_parameter = [&](std::string_view word) {
    return std::any_of(code.parameters.begin(), code.parameters.end(), [&](const Parameter& p) {
      return out_.names[static_cast<size_t>(p.name)] == word;
    });
  };
  code.uses_caller = used.caller && !is_parameter("caller");
  code.uses_kwargs = used.kwargs && !is_parameter("kwargs");
  code.uses_varargs = used.varargs && !is_parameter("varargs");
  soft_ = soft;
  loops_ = loops;
  out_.macros.push_back(std::move(code));
  return static_cast<MacroId>(out_.macros.size() - 1);
}

std::vector<Parameter> Parser::parameters() {
  std::vector<Parameter> out;
  expect_operator("(");
  while (!is_operator(")")) {
    if (!out.empty()) expect_operator(",");
    const NameId name = intern(assignable_name());
    const bool last_had_one = !out.empty() && out.back().fallback >= 0;
    const ExprId fallback = skip_operator("=") ? expression() : -1;
    if (last_had_one && fallback < 0)
      fail("a parameter without a default after one with a default");
    out.push_back({name, fallback});
  }
  expect_operator(")");
  return out;
}

void Parser::parse_macro(std::vector<int32_t>& list, int line) {
  const std::string name = assignable_name();
  const MacroId macro = macro_code(name, true, nullptr, "endmacro");
  add(list, MacroDefinition{intern(name), macro}, line);
}

void Parser::parse_call_block(std::vector<int32_t>& list, int line) {
  ExprId call = -1;
  const MacroId caller = macro_code("caller", is_operator("("), &call, "endcall");
  add(list, CallBlock{call, caller}, line);
}

void Parser::parse_filter_block(std::vector<int32_t>& list, int line) {
  const ExprId filter = filters(-1, true);
  const BlockId inside = inner_body("endfilter");
  add(list, FilterBlock{filter, inside}, line);
}

void Parser::parse_with(std::vector<int32_t>& list, int line) {
  With node{{}, -1};
  while (now().kind != TokenKind::kBlockEnd) {
    if (!node.values.empty()) expect_operator(",");
    Target to = target(true, false, "");
    expect_operator("=");
    const ExprId value = expression();
    node.values.emplace_back(std::move(to), value);
  }
  node.body = inner_body("endwith");
  add(list, std::move(node), line);
}

void Parser::parse_generation(std::vector<int32_t>& list, int line) {
  const BlockId inside = inner_body("endgeneration");
  add(list, Scoped{inside}, line);
}

void Parser::parse_print(std::vector<int32_t>& list, int line) {
  for (bool first = true; now().kind != TokenKind::kBlockEnd; first = false) {
    if (!first) expect_operator(",");
    add(list, Output{expression()}, line);
  }
}

void Parser::parse_break(std::vector<int32_t>& list, int line) {
  if (loops_ == 0) fail("{% break %} outside of a loop", line);
  add(list, Break{}, line);
}
void Parser::parse_continue(std::vector<int32_t>& list, int line) {
  if (loops_ == 0) fail("{% continue %} outside of a loop", line);
  add(list, Continue{}, line);
}

std::string Parser::assignable_name() {
  const int line = now().line;
  std::string name = expect_name();
  for (std::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name == constant) fail(text("can't assign to '", name, "'"), line);
  }
  return name;
}

// "a", "a, b", "(a, b)", "a.b" where a namespace is allowed; a tuple ends before end_word.
Target Parser::target(bool tuples, bool namespaces, std::string_view end_word) {
  const Nested nested(*this);
  Target out;
  std::vector<Target> parts;
  bool is_tuple = false;
  for (;;) {
    const bool end = now().kind == TokenKind::kBlockEnd || is_operator(")") ||
                     (!end_word.empty() && is_word(end_word)) || is_operator("=");
    if (end && is_tuple) break;
    Target part;
    if (skip_operator("(")) {
      part = target(true, namespaces, "");
      expect_operator(")");
    } else {
      part.name = intern(assignable_name());
      if (namespaces && skip_operator(".")) part.attribute = expect_name();
    }
    parts.push_back(std::move(part));
    if (!tuples || !skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) return std::move(parts.front());
  out.parts = std::move(parts);
  return out;
}

Template parse_template(std::string_view source, const std::string& name) {
  return Parser(tokenize(source, name), name).run();
}

}  // namespace mantissa::jinja
