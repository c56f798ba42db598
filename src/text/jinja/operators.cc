// What Python's operators, subscripts and iteration do with values: see interpreter.h.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/file.h"
#include "text/jinja/format.h"
#include "text/jinja/interpreter.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace mantissa::jinja {
namespace {

// "'dict object'", as jinja2 names what lacks an attribute.
std::string described(const Value& value) {
  return value.is_none() ? "None" : std::string(value.type_name()) + " object";
}

// Markup + text: the text is escaped, as markupsafe does.
std::string escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out.push_back(c);
    }
  }
  return out;
}

const char* symbol(Operator op) {
  constexpr const char* kSymbols[] = {"+",  "-", "*",  "/", "//", "%",  "** or pow()", "==",
                                      "!=", "<", "<=", ">", ">=", "in", "not in"};
  return kSymbols[static_cast<size_t>(op)];
}

// add, subtract or multiply: true where the result does not fit.
template <class Operation>
int64_t checked(const Interpreter& in, Operation operation) {
  int64_t out = 0;
  if (operation(&out)) in.fail("a number needs more than 64 bits");
  return out;
}

int64_t power(const Interpreter& in, int64_t base, int64_t exponent) {
  int64_t out = 1;
  bool lost = false;  // base is no longer right
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) {
      out = checked(in, [&](int64_t* p) { return __builtin_mul_overflow(out, base, p) || lost; });
    }
    lost = __builtin_mul_overflow(base, base, &base) || lost;
  }
  return out;
}

Value integer_arithmetic(const Interpreter& in, Operator op, int64_t a, int64_t b) {
  switch (op) {
    case Operator::kAdd:
      return checked(in, [&](int64_t* p) { return __builtin_add_overflow(a, b, p); });
    case Operator::kSubtract:
      return checked(in, [&](int64_t* p) { return __builtin_sub_overflow(a, b, p); });
    case Operator::kMultiply:
      return checked(in, [&](int64_t* p) { return __builtin_mul_overflow(a, b, p); });
    case Operator::kPower:
      if (b >= 0) return power(in, a, b);
      if (a == 0) in.fail("0.0 cannot be raised to a negative power");
      return std::pow(static_cast<double>(a), static_cast<double>(b));
    default:
      break;
  }
  if (b == 0)
    in.fail(op == Operator::kDivide ? "division by zero" : "integer division or modulo by zero");
  if (op == Operator::kDivide) return static_cast<double>(a) / static_cast<double>(b);
  if (b == -1)
    return op == Operator::kModulo
               ? 0
               : checked(in, [&](int64_t* p) { return __builtin_sub_overflow(int64_t{0}, a, p); });
  const int64_t rest = a % b;
  const bool floor = rest != 0 && (rest < 0) != (b < 0);
  return op == Operator::kModulo ? rest + (floor ? b : 0) : a / b - (floor ? 1 : 0);
}

Value real_arithmetic(const Interpreter& in, Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return a + b;
    case Operator::kSubtract:
      return a - b;
    case Operator::kMultiply:
      return a * b;
    case Operator::kPower:
      return std::pow(a, b);
    default:
      break;
  }
  if (b == 0) in.fail("float division by zero");
  if (op == Operator::kDivide) return a / b;
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  if (op == Operator::kModulo) return rest == 0 ? std::copysign(0.0, b) : rest;
  const double quotient = (a - rest) / b;
  const double floor = std::floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

Value add(const Interpreter& in, const Value& a, const Value& b) {
  const String* s = a.as_string();
  const String* t = b.as_string();
  if (s && t) {
    if (s->text.size() + t->text.size() > kTextBytesMax)
      in.fail("a text exceeds the limit of its length");
    const bool markup = s->markup || t->markup;
    return in.string((markup && !s->markup ? escaped(s->text) : s->text) +
                         (markup && !t->markup ? escaped(t->text) : t->text),
                     markup);
  }
  const Sequence* x = a.as_sequence();
  const Sequence* y = b.as_sequence();
  const bool same = x && y && x->kind == y->kind &&
                    (x->kind == SequenceKind::kList || x->kind == SequenceKind::kTuple);
  if (same) {
    Values items = x->items;
    items.insert(items.end(), y->items.begin(), y->items.end());
    return in.list(std::move(items), x->kind);
  }
  if (s) in.fail(text("can only concatenate str (not \"", b.type_name(), "\") to str"));
  in.fail(
      text("unsupported operand type(s) for +: '", a.type_name(), "' and '", b.type_name(), "'"));
}

Value repeat(const Interpreter& in, const Value& what, int64_t times) {
  const auto count = static_cast<size_t>(std::max<int64_t>(times, 0));
  if (const String* s = what.as_string()) {
    if (!s->text.empty() && count > kTextBytesMax / s->text.size())
      in.fail("a text exceeds the limit of its length");
    std::string out;
    for (size_t i = 0; i < count && !s->text.empty(); ++i) out += s->text;
    return in.string(out, s->markup);
  }
  const Sequence& list = *what.as_sequence();
  Values out;
  if (!list.items.empty())
    in.charge(count > (size_t{1} << 40) / list.items.size() ? size_t{1} << 40
                                                            : count * list.items.size());
  for (size_t i = 0; i < count && !list.items.empty(); ++i) {
    out.insert(out.end(), list.items.begin(), list.items.end());
  }
  return in.list(std::move(out), list.kind);
}
bool repeats(const Value& v) {
  return v.as_string() || v.is_sequence(SequenceKind::kList) || v.is_sequence(SequenceKind::kTuple);
}

}  // namespace

Value Interpreter::binary(Operator op, const Value& left, const Value& right) const {
  defined(left);
  defined(right);
  if (left.as_number() && right.as_number()) {
    if (left.is_float() || right.is_float()) {
      return real_arithmetic(*this, op, *left.as_number(), *right.as_number());
    }
    return integer_arithmetic(*this, op, *left.as_integer(), *right.as_integer());
  }
  if (op == Operator::kAdd) return add(*this, left, right);
  if (op == Operator::kMultiply && repeats(left) && right.as_integer()) {
    return repeat(*this, left, *right.as_integer());
  }
  if (op == Operator::kMultiply && repeats(right) && left.as_integer()) {
    return repeat(*this, right, *left.as_integer());
  }
  if (const String* format = left.as_string(); format && op == Operator::kModulo) {
    if (format->markup) fail("% of a text that |safe has marked is not supported");
    return string(format_percent(format->text, right, *this));
  }
  fail(text("unsupported operand type(s) for ", symbol(op), ": '", left.type_name(), "' and '",
            right.type_name(), "'"));
}

bool Interpreter::less(const Value& a, const Value& b) const {
  return compare(Operator::kLess, a, b);
}

bool Interpreter::compare(Operator op, const Value& left, const Value& right) const {
  charge(std::min(left.weight(), right.weight()));
  switch (op) {
    case Operator::kEqual:
      return equal(left, right);
    case Operator::kNotEqual:
      return !equal(left, right);
    case Operator::kIn:
      return contains(right, left);
    case Operator::kNotIn:
      return !contains(right, left);
    default:
      break;
  }
  const auto is_nan = [](const Value& v) { return v.is_float() && std::isnan(*v.as_number()); };
  const std::optional<int> c = order(defined(left), defined(right));
  if (!c) {
    fail(text("'", symbol(op), "' not supported between instances of '", left.type_name(),
              "' and '", right.type_name(), "'"));
  }
  if (is_nan(left) || is_nan(right)) return false;
  switch (op) {
    case Operator::kLess:
      return *c < 0;
    case Operator::kLessEqual:
      return *c <= 0;
    case Operator::kGreater:
      return *c > 0;
    default:
      return *c >= 0;
  }
}

bool Interpreter::contains(const Value& container, const Value& value) const {
  if (const String* s = container.as_string()) {
    const String* part = value.as_string();
    if (part == nullptr) {
      fail(text("'in <string>' requires string as left operand, not ", value.type_name()));
    }
    charge(s->text.size() / 8);
    return s->text.find(part->text) != s->text.npos;
  }
  if (const Dict* dict = container.as_dict()) {
    if (!value.hashable()) fail(text("unhashable type: '", value.type_name(), "'"));
    charge(dict->members.size());
    return find_member(dict->members, value) != nullptr;
  }
  if (!container.is_undefined() && container.as_sequence() == nullptr) {
    fail(text("argument of type '", container.type_name(), "' is not iterable"));
  }
  const Values items = items_of(container);
  return std::any_of(items.begin(), items.end(), [&](const Value& item) {
    charge(std::min(item.weight(), value.weight()));
    return equal(item, value);
  });
}

Values Interpreter::items_of(const Value& value) const {
  Values out;
  if (const Sequence* list = value.as_sequence()) {
    charge(list->items.size());
    if (list->kind == SequenceKind::kIterator && std::exchange(list->used, true)) return {};
    return list->items;
  }
  if (const Dict* dict = value.as_dict()) {
    charge(dict->members.size());
    for (const auto& [key, member] : dict->members) out.push_back(key);
    return out;
  }
  if (const String* s = value.as_string()) {
    charge(2 * s->length);
    for (size_t pos = 0; pos < s->text.size();) {
      const size_t bytes = utf8_bytes(s->text[pos]);
      out.push_back(Value::string(std::string_view(s->text).substr(pos, bytes), s->markup));
      pos += bytes;
    }
    return out;
  }
  if (const UndefinedRef* u = value.get<UndefinedRef>()) {
    if ((*u)->forbidden) fail((*u)->message);
    return out;
  }
  fail(text("'", value.type_name(), "' object is not iterable"));
}

Value Interpreter::new_namespace(Members members) {
  charge(20);
  for (const auto& [key, value] : members) {
    if (key.as_string() && key.as_string()->text.starts_with("_")) {
      fail("names with an underscore in front cannot be attributes of a namespace");
    }
  }
  namespaces_.push_back(Namespace{std::move(members)});
  return &namespaces_.back();
}

Value Interpreter::attribute(const Value& object, const std::string& name) const {
  defined(object);
  if (const Namespace* space = object.as_namespace()) {
    charge(space->members.size());
    if (const Value* value = find_member(space->members, name)) return *value;
  }
  if (is_forbidden_method(object, name)) {
    return Value::undefined(text("access to attribute ", string_repr(name), " of '",
                                 object.type_name(), "' object is unsafe."),
                            true);
  }
  if (const MethodRow* row = find_method(object, name)) {
    const int depth = object.as_function() ? object.as_function()->depth : object.depth();
    if (depth >= kDepthMax) fail("values nest too deeply");
    return std::make_shared<const Function>(Function{BoundMethod{row, object}, depth + 1});
  }
  if (const Dict* dict = object.as_dict()) {
    charge(dict->members.size());
    if (const Value* value = find_member(dict->members, name)) return *value;
  }
  return Value::undefined(text("'", described(object), "' has no attribute ", string_repr(name)));
}

namespace {
// The index within [0, size) that Python means; nullopt where there is none.
std::optional<size_t> index_of(const Value& key, size_t size) {
  const auto i = key.as_integer();
  const auto n = static_cast<int64_t>(size);
  if (!i || *i < -n || *i >= n) return std::nullopt;
  return static_cast<size_t>(*i < 0 ? *i + n : *i);
}
}  // namespace

Value Interpreter::item(const Value& object, const Value& key) const {
  defined(object);
  if (const Dict* dict = object.as_dict(); dict && key.hashable()) {
    charge(dict->members.size());
    if (const Value* value = find_member(dict->members, key)) return *value;
  }
  const Sequence* list = object.as_sequence();
  if (list && list->kind != SequenceKind::kView && list->kind != SequenceKind::kIterator) {
    if (const auto i = index_of(key, list->items.size())) return list->items[*i];
  }
  if (const String* s = object.as_string()) {
    if (const auto i = index_of(key, s->length)) {
      charge(s->ascii() ? 1 : s->text.size() / 8);
      const size_t at = s->ascii() ? *i : python::byte_of_point(s->text, *i);
      return string(std::string_view(s->text).substr(at, utf8_bytes(s->text[at])), s->markup);
    }
  }
  if (const String* name = key.as_string()) return attribute(object, name->text);
  return Value::undefined(text(described(object), " has no element ", to_repr(key, *this)));
}

Value Interpreter::slice(const Value& object, const Value& begin, const Value& end,
                         const Value& step) const {
  defined(object);
  const auto number = [&](const Value& v, int64_t otherwise) {
    if (v.is_none()) return otherwise;
    const auto i = defined(v).as_integer();
    if (!i) fail("slice indices must be integers or None or have an __index__ method");
    return *i;
  };
  const String* s = object.as_string();
  const Sequence* list = object.as_sequence();
  const bool sliceable =
      list && list->kind != SequenceKind::kView && list->kind != SequenceKind::kIterator;
  if (!s && !sliceable) return Value::undefined(described(object) + " has no element slice");
  const int64_t by = number(step, 1);
  if (by == 0) fail("slice step cannot be zero");
  const auto size = static_cast<int64_t>(s ? s->length : list->items.size());
  const auto clamp = [&](int64_t i, int64_t least, int64_t most) {
    if (i < 0) i = i < -size ? -1 - size : i;
    return std::clamp(i < 0 ? i + size : i, least, most);
  };
  const int64_t least = by > 0 ? 0 : -1, most = by > 0 ? size : size - 1;
  const int64_t from =
      begin.is_none() ? (by > 0 ? least : most) : clamp(number(begin, 0), least, most);
  const int64_t to = end.is_none() ? (by > 0 ? most : least) : clamp(number(end, 0), least, most);
  if (s && by == 1) {
    charge(s->text.size() / 8);
    const std::string_view text(s->text);
    const auto at = [&](int64_t i) {
      return s->ascii() ? static_cast<size_t>(i)
                        : python::byte_of_point(text, static_cast<size_t>(i));
    };
    return from < to ? string(text.substr(at(from), at(to) - at(from)), s->markup)
                     : string("", s->markup);
  }
  const Values all = s ? items_of(object) : list->items;
  Values items;
  for (int64_t i = from; by > 0 ? i < to : i > to; i += by) {
    items.push_back(all[static_cast<size_t>(i)]);
    if (by > 0 ? by > to - i : by < to - i) break;
  }
  if (!s) return this->list(std::move(items), list->kind);
  std::string joined;
  for (const Value& item : items) joined += item.as_string()->text;
  return string(joined, s->markup);
}

}  // namespace mantissa::jinja
