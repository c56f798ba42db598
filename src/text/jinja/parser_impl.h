// The parser's class, for its two source files.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"
#include "text/jinja/parser.h"

namespace mantissa::jinja {

class Parser {
 public:
  Parser(std::vector<Token> tokens, const std::string& name);
  Template run();

 private:
  class Nested {  // counts how deep the source nests
   public:
    explicit Nested(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kNestingMax) parser_.fail("nested too deeply");
    }
    ~Nested() { --parser_.depth_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    Parser& parser_;
  };
  struct Specials {  // names that a macro's body uses without defining them
    bool caller = false, kwargs = false, varargs = false;
    void add(const Specials& s) {
      caller |= s.caller;
      kwargs |= s.kwargs;
      varargs |= s.varargs;
    }
  };
  struct TupleRules {
    bool conditional = true;  // may hold "a if b else c"
    std::string_view end_word = {};
    bool parentheses = false;  // stands in them, so may be empty
  };

  // ---- tokens
  const Token& now() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  bool is_operator(std::string_view op) const {
    return now().kind == TokenKind::kOperator && now().text == op;
  }
  bool is_word(std::string_view word) const {
    return now().kind == TokenKind::kName && now().text == word;
  }
  bool skip_operator(std::string_view op);
  bool skip_word(std::string_view word);
  void expect_operator(std::string_view op);
  void expect_word(std::string_view word);
  std::string expect_name();
  void expect_block_end();
  [[noreturn]] void fail(const std::string& what, int line = 0) const;  // 0: the current one
  static std::string describe(const Token& token);
  NameId intern(const std::string& name);

  // ---- statements
  template <class Node>
  void add(std::vector<int32_t>& block, Node node, int line);
  BlockId block(const std::vector<std::string_view>& ends);
  BlockId body(std::string_view end);
  BlockId inner_body(std::string_view end);
  void statement(std::vector<int32_t>& list);
  void parse_if(std::vector<int32_t>& list, int line);
  void parse_for(std::vector<int32_t>& list, int line);
  void parse_set(std::vector<int32_t>& list, int line);
  void parse_macro(std::vector<int32_t>& list, int line);
  void parse_call_block(std::vector<int32_t>& list, int line);
  void parse_filter_block(std::vector<int32_t>& list, int line);
  void parse_with(std::vector<int32_t>& list, int line);
  void parse_generation(std::vector<int32_t>& list, int line);
  void parse_print(std::vector<int32_t>& list, int line);
  void parse_break(std::vector<int32_t>& list, int line);
  void parse_continue(std::vector<int32_t>& list, int line);
  MacroId macro_code(std::string name, bool with_parameters, ExprId* call, std::string_view end);
  std::vector<Parameter> parameters();
  std::string assignable_name();
  Target target(bool tuples, bool namespaces, std::string_view end_word);

  // ---- expressions, by rising precedence
  template <class Node>
  ExprId make(Node node, int line);
  ExprId expression(bool conditional = true);
  ExprId conditional();
  ExprId disjunction();
  ExprId conjunction();
  ExprId negation();
  ExprId comparison();
  ExprId sum();
  ExprId concatenation();
  ExprId product();
  ExprId power();
  ExprId unary(bool with_filters = true);
  ExprId primary();
  ExprId postfix(ExprId expr);
  ExprId filters_and_tests(ExprId expr);
  ExprId filters(ExprId input, bool first_without_bar = false);
  ExprId test(ExprId input);
  ExprId subscript(ExprId object);
  ExprId tuple(TupleRules rules);
  ExprId list_display();
  ExprId dict_display();
  CallArguments arguments();
  std::string dotted_name();

  std::vector<Token> tokens_;
  size_t at_ = 0;
  Template out_;
  std::unordered_map<std::string, NameId> names_;
  std::vector<Specials> specials_;  // of the macros around
  // Unknown filters and tests: errors, unless a conditional expression turns out to hold them.
  std::vector<std::pair<int, std::string>> unknown_;  // line, message
  int depth_ = 0;
  int tag_line_ = 1;   // of the innermost statement
  int loops_ = 0;      // around, within the macro
  bool soft_ = false;  // within an {% if %}: unknown filters fail only when they run
};

}  // namespace mantissa::jinja
