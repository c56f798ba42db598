// Expressions of templates: see parser.h.
#include <algorithm>

#include "base/error.h"
#include "text/jinja/parser_impl.h"
#include "text/jinja/registry.h"

namespace mantissa::jinja {

template <class Node>
ExprId Parser::make(Node node, int line) {
  out_.exprs.push_back({std::move(node), line});
  return static_cast<ExprId>(out_.exprs.size() - 1);
}

namespace {

struct OperatorRow {
  std::string_view text;
  Operator op;
};
constexpr OperatorRow kComparisons[] = {{"==", Operator::kEqual},  {"!=", Operator::kNotEqual},
                                        {"<", Operator::kLess},    {"<=", Operator::kLessEqual},
                                        {">", Operator::kGreater}, {">=", Operator::kGreaterEqual}};
constexpr OperatorRow kSums[] = {{"+", Operator::kAdd}, {"-", Operator::kSubtract}};
constexpr OperatorRow kProducts[] = {{"*", Operator::kMultiply},
                                     {"/", Operator::kDivide},
                                     {"//", Operator::kFloorDivide},
                                     {"%", Operator::kModulo}};

template <size_t N>
const OperatorRow* find_operator(const OperatorRow (&rows)[N], const Token& token) {
  if (token.kind != TokenKind::kOperator) return nullptr;
  const auto* row = std::find_if(std::begin(rows), std::end(rows),
                                 [&](const OperatorRow& r) { return r.text == token.text; });
  return row == std::end(rows) ? nullptr : row;
}

}  // namespace

ExprId Parser::expression(bool with_conditional) {
  return with_conditional ? conditional() : disjunction();
}

ExprId Parser::conditional() {
  const Nested nested(*this);
  const int line = now().line;
  const bool soft = soft_;
  const size_t unknown = unknown_.size();
  ExprId out = disjunction();
  while (skip_word("if")) {
    unknown_.resize(unknown);
    soft_ = true;
    const ExprId test = disjunction();
    const ExprId otherwise = skip_word("else") ? conditional() : -1;
    soft_ = soft;
    out = make(Conditional{test, out, otherwise}, line);
  }
  return out;
}

ExprId Parser::disjunction() {
  const int line = now().line;
  ExprId left = conjunction();
  while (skip_word("or")) {
    const ExprId right = conjunction();
    left = make(Logic{false, left, right}, line);
  }
  return left;
}

ExprId Parser::conjunction() {
  const int line = now().line;
  ExprId left = negation();
  while (skip_word("and")) {
    const ExprId right = negation();
    left = make(Logic{true, left, right}, line);
  }
  return left;
}

ExprId Parser::negation() {
  const Nested nested(*this);
  const int line = now().line;
  if (skip_word("not")) {
    const ExprId operand = negation();
    return make(Not{operand}, line);
  }
  return comparison();
}

ExprId Parser::comparison() {
  const int line = now().line;
  const ExprId first = sum();
  std::vector<std::pair<Operator, ExprId>> rest;
  for (;;) {
    if (const OperatorRow* row = find_operator(kComparisons, now())) {
      ++at_;
      rest.emplace_back(row->op, sum());
    } else if (skip_word("in")) {
      rest.emplace_back(Operator::kIn, sum());
    } else if (is_word("not") && next().kind == TokenKind::kName && next().text == "in") {
      at_ += 2;
      rest.emplace_back(Operator::kNotIn, sum());
    } else {
      break;
    }
  }
  return rest.empty() ? first : make(Compare{first, std::move(rest)}, line);
}

ExprId Parser::sum() {
  const int line = now().line;
  ExprId left = concatenation();
  while (const OperatorRow* row = find_operator(kSums, now())) {
    ++at_;
    const ExprId right = concatenation();
    left = make(Binary{row->op, left, right}, line);
  }
  return left;
}

ExprId Parser::concatenation() {
  const int line = now().line;
  const ExprId first = product();
  if (!is_operator("~")) return first;
  std::vector<ExprId> parts = {first};
  while (skip_operator("~")) parts.push_back(product());
  return make(Concat{std::move(parts)}, line);
}

ExprId Parser::product() {
  const int line = now().line;
  ExprId left = power();
  while (const OperatorRow* row = find_operator(kProducts, now())) {
    ++at_;
    const ExprId right = power();
    left = make(Binary{row->op, left, right}, line);
  }
  return left;
}

ExprId Parser::power() {
  const int line = now().line;
  ExprId left = unary();
  while (skip_operator("**")) {
    const ExprId right = unary();
    left = make(Binary{Operator::kPower, left, right}, line);
  }
  return left;
}

ExprId Parser::unary(bool with_filters) {
  const Nested nested(*this);
  const int line = now().line;
  ExprId out = -1;
  if (is_operator("-") || is_operator("+")) {
    const bool negative = skip_operator("-");
    if (!negative) ++at_;
    const ExprId operand = unary(false);
    out = make(Sign{negative, operand}, line);
  } else {
    out = primary();
  }
  out = postfix(out);
  return with_filters ? filters_and_tests(out) : out;
}

ExprId Parser::primary() {
  const Token token = now();
  switch (token.kind) {
    case TokenKind::kName: {
      ++at_;
      if (token.text == "true" || token.text == "True") return make(Constant{true}, token.line);
      if (token.text == "false" || token.text == "False") return make(Constant{false}, token.line);
      if (token.text == "none" || token.text == "None") return make(Constant{}, token.line);
      if (!specials_.empty()) {
        specials_.back().caller |= token.text == "caller";
        specials_.back().kwargs |= token.text == "kwargs";
        specials_.back().varargs |= token.text == "varargs";
      }
      return make(Name{intern(token.text)}, token.line);
    }
    case TokenKind::kString: {
      std::string all;
      for (; now().kind == TokenKind::kString; ++at_) all += now().text;
      return make(Constant{Value::string(all)}, token.line);
    }
    case TokenKind::kInteger:
      ++at_;
      return make(Constant{token.integer}, token.line);
    case TokenKind::kFloat:
      ++at_;
      return make(Constant{token.real}, token.line);
    default:
      break;
  }
  if (skip_operator("(")) {
    const ExprId out = tuple({.parentheses = true});
    expect_operator(")");
    return out;
  }
  if (is_operator("[")) return list_display();
  if (is_operator("{")) return dict_display();
  fail(text("unexpected ", describe(token)));
}

ExprId Parser::tuple(TupleRules rules) {
  const int line = now().line;
  std::vector<ExprId> items;
  bool is_tuple = false;
  for (;;) {
    const bool end = now().kind == TokenKind::kVariableEnd || now().kind == TokenKind::kBlockEnd ||
                     is_operator(")") || (!rules.end_word.empty() && is_word(rules.end_word));
    if (end) break;
    items.push_back(expression(rules.conditional));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && items.size() == 1) return items[0];
  if (!is_tuple && !rules.parentheses)
    fail(text("expected an expression, found ", describe(now())));
  return make(ListDisplay{true, std::move(items)}, line);
}

ExprId Parser::list_display() {
  const Nested nested(*this);
  const int line = now().line;
  expect_operator("[");
  std::vector<ExprId> items;
  while (!is_operator("]")) {
    if (!items.empty()) expect_operator(",");
    if (is_operator("]")) break;
    items.push_back(expression());
  }
  expect_operator("]");
  return make(ListDisplay{false, std::move(items)}, line);
}

ExprId Parser::dict_display() {
  const Nested nested(*this);
  const int line = now().line;
  expect_operator("{");
  std::vector<std::pair<ExprId, ExprId>> members;
  while (!is_operator("}")) {
    if (!members.empty()) expect_operator(",");
    if (is_operator("}")) break;
    const ExprId key = expression();
    expect_operator(":");
    members.emplace_back(key, expression());
  }
  expect_operator("}");
  return make(DictDisplay{std::move(members)}, line);
}

ExprId Parser::postfix(ExprId expr) {
  for (;;) {
    if (is_operator(".") || is_operator("[")) {
      expr = subscript(expr);
    } else if (is_operator("(")) {
      const int line = now().line;
      CallArguments list = arguments();
      expr = make(Call{expr, std::move(list)}, line);
    } else {
      return expr;
    }
  }
}

ExprId Parser::subscript(ExprId object) {
  const int line = now().line;
  if (skip_operator(".")) {
    const Token token = now();
    ++at_;
    if (token.kind == TokenKind::kName) return make(Attribute{object, token.text}, line);
    if (token.kind != TokenKind::kInteger) {
      --at_;
      fail("expected a name or a number behind '.'");
    }
    const ExprId key = make(Constant{token.integer}, line);
    return make(Item{object, key}, line);
  }
  expect_operator("[");
  const auto part = [&]() -> ExprId {
    return is_operator(":") || is_operator("]") || is_operator(",") ? -1 : expression();
  };
  const ExprId begin = part();
  ExprId out = -1;
  if (skip_operator(":")) {
    const ExprId end = part();
    const ExprId step = skip_operator(":") ? part() : -1;
    out = make(Slice{object, begin, end, step}, line);
  } else {
    if (begin < 0) fail(text("expected a key, found ", describe(now())));
    out = make(Item{object, begin}, line);
  }
  if (is_operator(",")) fail("several keys in one [] are not supported");
  expect_operator("]");
  return out;
}

CallArguments Parser::arguments() {
  const Nested nested(*this);
  CallArguments out;
  const int line = now().line;
  const auto require = [&](bool condition) {
    if (!condition) fail("invalid syntax for function call expression", line);
  };
  expect_operator("(");
  for (bool first = true; !is_operator(")"); first = false) {
    if (!first) {
      expect_operator(",");
      if (is_operator(")")) break;
    }
    if (skip_operator("*")) {
      require(out.more_positional < 0 && out.more_named < 0);
      out.more_positional = expression();
    } else if (skip_operator("**")) {
      require(out.more_named < 0);
      out.more_named = expression();
    } else if (now().kind == TokenKind::kName && next().kind == TokenKind::kOperator &&
               next().text == "=") {
      require(out.more_named < 0);
      std::string name = now().text;
      at_ += 2;
      out.named.emplace_back(std::move(name), expression());
    } else {
      require(out.more_positional < 0 && out.more_named < 0 && out.named.empty());
      out.positional.push_back(expression());
    }
  }
  expect_operator(")");
  return out;
}

ExprId Parser::filters_and_tests(ExprId expr) {
  for (;;) {
    if (is_operator("|")) {
      expr = filters(expr);
    } else if (is_word("is")) {
      expr = test(expr);
    } else if (is_operator("(")) {
      const int line = now().line;
      CallArguments list = arguments();
      expr = make(Call{expr, std::move(list)}, line);
    } else {
      return expr;
    }
  }
}

std::string Parser::dotted_name() {
  std::string name = expect_name();
  while (skip_operator(".")) name += "." + expect_name();
  return name;
}

ExprId Parser::filters(ExprId input, bool first_without_bar) {
  while (first_without_bar || skip_operator("|")) {
    first_without_bar = false;
    const int line = now().line;
    const std::string name = dotted_name();
    const FilterRow* row = find_filter(name);
    if (row == nullptr && !soft_) {
      unknown_.emplace_back(line, text("the filter '", name, "' is not supported"));
    }
    CallArguments list = is_operator("(") ? arguments() : CallArguments{};
    input = make(Filter{input, row, name, std::move(list)}, line);
  }
  return input;
}

ExprId Parser::test(ExprId input) {
  expect_word("is");
  const int line = now().line;
  const bool negated = skip_word("not");
  const std::string name = dotted_name();
  const TestRow* row = find_test(name);
  if (row == nullptr && !soft_) {
    unknown_.emplace_back(line, text("the test '", name, "' is not supported"));
  }
  CallArguments list;
  const Token& token = now();
  const bool operand = token.kind == TokenKind::kString || token.kind == TokenKind::kInteger ||
                       token.kind == TokenKind::kFloat || is_operator("[") || is_operator("{") ||
                       (token.kind == TokenKind::kName && token.text != "else" &&
                        token.text != "or" && token.text != "and");
  if (is_operator("(")) {
    list = arguments();
  } else if (operand) {
    if (is_word("is")) fail("tests with 'is' cannot be chained");
    const ExprId first = primary();
    list.positional.push_back(postfix(first));
  }
  const ExprId out = make(Test{input, row, name, std::move(list)}, line);
  return negated ? make(Not{out}, line) : out;
}

}  // namespace mantissa::jinja
