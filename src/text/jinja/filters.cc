// Filters of single values, and the tests: one row each.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "text/jinja/format.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/registry.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace mantissa::jinja {
namespace {

using python::Side;

// What Python's str methods work on here: text stays Markup if it was.
struct Soft {
  std::string text;
  bool markup;
};
Soft soft(Interpreter& in, const Value& v) {
  return {to_text(v, in), v.as_string() && v.as_string()->markup};
}
const std::string& need_string(Interpreter& in, const Value& v, const char* function) {
  if (v.as_string() == nullptr)
    in.fail(text(function, " needs a str, not ", in.defined(v).type_name()));
  return v.as_string()->text;
}
int64_t need_integer(Interpreter& in, const Value& v, const char* function) {
  const auto i = in.defined(v).as_integer();
  if (!i) in.fail(text(function, " needs an int, not ", v.type_name()));
  return *i;
}

template <std::string (*Function)(std::string_view)>
Value mapped(Interpreter& in, const Value& self, const Bound&) {
  const Soft s = soft(in, self);
  return in.string(Function(s.text), s.markup);
}

// jinja2's |title: the first letter behind white space, '-' or an opening bracket.
std::string title_words(std::string_view text) {
  std::string out;
  size_t begin = 0;
  const auto flush = [&](size_t end) {
    if (begin < end) {
      const size_t first = begin + utf8_bytes(text[begin]);
      out += python::upper(text.substr(begin, first - begin));
      out += python::lower(text.substr(first, end - first));
    }
  };
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    const char32_t c = next_code_point(text, pos);
    if (!python::is_space(c) && (c >= 0x80 || std::string_view("-({[<").find(
                                                  static_cast<char>(c)) == std::string_view::npos))
      continue;
    flush(start);
    out += text.substr(start, pos - start);
    begin = pos;
  }
  flush(text.size());
  return out;
}

Value trim(Interpreter& in, const Value& self, const Bound& args) {
  const Soft s = soft(in, self);
  const std::string_view out =
      args.set(0) ? python::strip(s.text, Side::kBoth, need_string(in, args[0], "trim"))
                  : python::strip(s.text, Side::kBoth);
  return in.string(out, s.markup);
}

Value replace(Interpreter& in, const Value& self, const Bound& args) {
  const std::string whole = to_text(self, in), from = to_text(args[0], in),
                    to = to_text(args[1], in);
  const int64_t most = args.set(2) ? need_integer(in, args[2], "replace") : -1;
  in.charge(whole.size() / 4 +
            (to.size() + 1) * (from.empty() ? whole.size() : whole.size() / from.size()) / 8);
  return in.string(python::replace(whole, from, to, most));
}

Value to_string(Interpreter& in, const Value& self, const Bound&) {
  return self.as_string() ? self : in.string(to_text(self, in));
}

Value default_value(Interpreter& in, const Value& self, const Bound& args) {
  const bool use = self.is_undefined() || (args.given(1) && args[1].truth() && !self.truth());
  return use ? args.get(0, in.string("")) : self;
}

Value to_json_text(Interpreter& in, const Value& self, const Bound& args) {
  JsonStyle style;
  style.ascii = args.given(0) && args[0].truth();
  if (args.set(1)) {
    style.pretty = true;
    style.item_separator = ",";
    constexpr int64_t kIndentMax = 100;
    if (const String* s = args[1].as_string()) {
      style.indent = s->text;
    } else {
      style.indent.assign(static_cast<size_t>(std::clamp<int64_t>(
                              need_integer(in, args[1], "tojson(indent)"), 0, kIndentMax)),
                          ' ');
    }
  }
  if (args.set(2)) {
    const Values pair = in.items_of(args[2]);
    if (pair.size() != 2) in.fail("tojson(separators) needs two strings");
    style.item_separator = need_string(in, pair[0], "tojson(separators)");
    style.key_separator = need_string(in, pair[1], "tojson(separators)");
  }
  style.sorted = args.given(3) && args[3].truth();
  in.charge(self.weight());
  return in.string(to_json(self, style, in));
}

// int("  -1_000 ", base); nullopt where Python raises ValueError.
std::optional<int64_t> parse_integer(Interpreter& in, std::string_view text, int64_t base) {
  std::string digits(python::strip(text, Side::kBoth));
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.erase(0, 1);
  struct Prefix {
    char letter;
    int base;
  };
  for (const Prefix& p : {Prefix{'x', 16}, Prefix{'o', 8}, Prefix{'b', 2}}) {
    if (base == p.base && digits.size() > 2 && digits[0] == '0' && (digits[1] | 0x20) == p.letter)
      digits.erase(0, 2);
  }
  for (size_t at = 0; (at = digits.find('_', at)) != digits.npos;) {
    if (at == 0 || at + 1 == digits.size() || digits[at + 1] == '_') return std::nullopt;
    digits.erase(at, 1);
  }
  if (digits.empty() || digits[0] == '-' || base < 2 || base > 36) return std::nullopt;
  int64_t value = 0;
  if (negative) digits.insert(0, "-");
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, static_cast<int>(base));
  if (end != digits.data() + digits.size()) return std::nullopt;
  if (error != std::errc{}) in.fail("a number needs more than 64 bits");
  return value;
}

std::optional<double> parse_real(std::string_view text) {
  const std::string_view digits = python::strip(text, Side::kBoth);
  std::string plain(digits.starts_with('+') ? digits.substr(1) : digits);
  double value = 0;
  const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (end != plain.data() + plain.size() || plain.empty() || plain.find('(') != plain.npos)
    return std::nullopt;
  if (error != std::errc{}) value = std::strtod(plain.c_str(), nullptr);  // 0 or infinity
  return value;
}

std::optional<int64_t> truncated(Interpreter& in, double value) {
  if (std::isnan(value) || std::isinf(value)) return std::nullopt;
  if (std::abs(value) >= 9.2e18) in.fail("a number needs more than 64 bits");
  return static_cast<int64_t>(value);
}

Value to_integer(Interpreter& in, const Value& self, const Bound& args) {
  in.defined(self);
  const Value otherwise = args.get(0, int64_t{0});
  if (const auto i = self.as_integer()) return *i;
  std::optional<int64_t> out;
  if (const double* d = self.get<double>()) out = truncated(in, *d);
  if (const String* s = self.as_string()) {
    out = parse_integer(in, s->text, args.given(1) ? need_integer(in, args[1], "int(base)") : 10);
    if (!out) {
      if (const auto d = parse_real(s->text)) out = truncated(in, *d);
    }
  }
  return out ? Value(*out) : otherwise;
}

Value to_float(Interpreter& in, const Value& self, const Bound& args) {
  if (const auto d = in.defined(self).as_number()) return *d;
  if (const String* s = self.as_string()) {
    if (const auto d = parse_real(s->text)) return *d;
  }
  return args.get(0, 0.0);
}

Value absolute(Interpreter& in, const Value& self, const Bound&) {
  if (const double* d = self.get<double>()) return std::abs(*d);
  const int64_t i = need_integer(in, self, "abs");
  if (i == std::numeric_limits<int64_t>::min()) in.fail("a number needs more than 64 bits");
  return i < 0 ? -i : i;
}

Value round_value(Interpreter& in, const Value& self, const Bound& args) {
  const int64_t precision = args.given(0) ? need_integer(in, args[0], "round") : 0;
  const std::string method = args.given(1) ? to_text(args[1], in) : "common";
  const auto value = in.defined(self).as_number();
  if (!value) in.fail(text("round needs a number, not ", self.type_name()));
  if (precision < 0 || precision > 300) in.fail("round with this precision is not supported");
  if (method == "common") {
    if (const auto i = self.as_integer()) return *i;
    if (std::isnan(*value) || std::isinf(*value)) return *value;
    std::string digits(800, '\0');  // rounds exact ties to even, as Python does
    const int size =
        std::snprintf(digits.data(), digits.size(), "%.*f", static_cast<int>(precision), *value);
    digits.resize(static_cast<size_t>(size));
    return std::strtod(digits.c_str(), nullptr);
  }
  if (method != "ceil" && method != "floor") in.fail("method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return (method == "ceil" ? std::ceil(*value * scale) : std::floor(*value * scale)) / scale;
}

Value indent(Interpreter& in, const Value& self, const Bound& args) {
  const std::string& whole = need_string(in, self, "indent");
  std::string by(4, ' ');
  if (args.given(0)) {
    constexpr int64_t kWidthMax = 1000;
    const String* s = args[0].as_string();
    by = s ? s->text
           : std::string(static_cast<size_t>(std::clamp<int64_t>(
                             need_integer(in, args[0], "indent"), 0, kWidthMax)),
                         ' ');
  }
  const bool first = args.given(1) && args[1].truth(), blank = args.given(2) && args[2].truth();
  const std::string closed = whole + "\n";  // so that a newline at the end makes a line
  const std::vector<std::string_view> lines = python::split_lines(closed, false);
  in.charge(whole.size() / 8 + lines.size() * (1 + by.size() / 8));
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += "\n";
    if (i == 0 ? first : blank || !lines[i].empty()) out += by;
    out += lines[i];
  }
  return in.string(out, self.as_string()->markup);
}

Value truncate(Interpreter& in, const Value& self, const Bound& args) {
  const std::string& whole = need_string(in, self, "truncate");
  const int64_t length = args.given(0) ? need_integer(in, args[0], "truncate") : 255;
  const Value end = args.get(2, in.string("..."));
  const std::string& tail = need_string(in, end, "truncate");
  const int64_t leeway = args.set(3) ? need_integer(in, args[3], "truncate") : 5;
  const auto tail_points = static_cast<int64_t>(end.as_string()->length);
  if (length < tail_points) in.fail(text("expected length >= ", tail_points, ", got ", length));
  if (leeway < 0) in.fail(text("expected leeway >= 0, got ", leeway));
  if (static_cast<int64_t>(self.as_string()->length) - leeway <= length) return self;
  std::string_view cut = std::string_view(whole).substr(
      0, python::byte_of_point(whole, static_cast<size_t>(length - tail_points)));
  if (!(args.given(1) && args[1].truth()))
    cut = cut.substr(0, std::min(cut.rfind(' '), cut.size()));
  return in.string(std::string(cut) + tail);
}

Value word_count(Interpreter& in, const Value& self, const Bound&) {
  const std::string whole = to_text(self, in);
  int64_t words = 0;
  bool inside = false;
  for (size_t pos = 0; pos < whole.size();) {
    const char32_t c = next_code_point(whole, pos);
    const bool word = c == '_' || python::is_alnum(c);
    words += word && !inside ? 1 : 0;
    inside = word;
  }
  return words;
}

Value center(Interpreter& in, const Value& self, const Bound& args) {
  const Arguments only{{args.get(0, int64_t{80})}, {}};
  const Value whole = to_string(in, self, args);
  return in.call(in.attribute(whole, "center"), only);
}

Value format_value(Interpreter& in, const Value& self, const Bound& args) {
  const Arguments& all = args.all();
  if (!all.positional.empty() && !all.named.empty()) {
    in.fail("can't handle positional and keyword arguments at the same time");
  }
  Members named;
  for (const auto& [name, value] : all.named) named.emplace_back(in.string(name), value);
  const Value values = all.named.empty() ? in.list(all.positional, SequenceKind::kTuple)
                                         : Value::dict(std::move(named));
  return in.string(format_percent(to_text(self, in), values, in));
}

Value safe(Interpreter& in, const Value& self, const Bound&) {
  return in.string(to_text(self, in), true);
}
Value escape(Interpreter& in, const Value& self, const Bound&) {
  if (self.as_string() && self.as_string()->markup) return self;
  // Markup("") + text escapes the text.
  return in.binary(Operator::kAdd, in.string("", true), in.string(to_text(self, in)));
}
Value force_escape(Interpreter& in, const Value& self, const Bound&) {
  return in.binary(Operator::kAdd, in.string("", true), in.string(to_text(self, in)));
}

Value url_encode(Interpreter& in, const Value& self, const Bound&) {
  const std::string& whole = need_string(in, self, "urlencode");
  std::string out;
  for (const char c : whole) {
    const bool plain = (c >= '0' && c <= '9') ||
                       ((c | 0x20) >= 'a' && (c | 0x20) <= 'z' && static_cast<uint8_t>(c) < 0x80) ||
                       std::string_view("_.-~/").find(c) != std::string_view::npos;
    char code[4];
    std::snprintf(code, sizeof code, "%%%02X", static_cast<unsigned>(static_cast<uint8_t>(c)));
    out += plain ? std::string(1, c) : std::string(code);
  }
  return in.string(out);
}

Value attribute_of(Interpreter& in, const Value& self, const Bound& args) {
  const std::string& name = need_string(in, args[0], "attr");
  const bool is_attribute =
      self.as_namespace() || find_method(self, name) || is_forbidden_method(self, name);
  if (!is_attribute)
    return Value::undefined(
        text("'", self.type_name(), " object' has no attribute ", string_repr(name)));
  return in.attribute(self, name);
}

constexpr FilterRow kFilters[] = {
    {"abs", "", absolute},
    {"attr", "name /", attribute_of},
    {"capitalize", "", mapped<python::capitalize>},
    {"center", "width", center},
    {"d", "default_value boolean", default_value},
    {"default", "default_value boolean", default_value},
    {"e", "", escape},
    {"escape", "", escape},
    {"float", "default", to_float},
    {"forceescape", "", force_escape},
    {"format", "*", format_value},
    {"indent", "width first blank", indent},
    {"int", "default base", to_integer},
    {"lower", "", mapped<python::lower>},
    {"replace", "old new / count", replace},
    {"round", "precision method", round_value},
    {"safe", "", safe},
    {"string", "", to_string},
    {"title", "", mapped<title_words>},
    {"tojson", "ensure_ascii indent separators sort_keys", to_json_text},
    {"trim", "chars", trim},
    {"truncate", "length killwords end leeway", truncate},
    {"upper", "", mapped<python::upper>},
    {"urlencode", "", url_encode},
    {"wordcount", "", word_count},
};

// ---- tests

bool is_defined(Interpreter&, const Value& v, const Bound&) {
  return !v.is_undefined();
}
bool is_undefined(Interpreter&, const Value& v, const Bound&) {
  return v.is_undefined();
}
bool is_none(Interpreter&, const Value& v, const Bound&) {
  return v.is_none();
}
bool is_boolean(Interpreter&, const Value& v, const Bound&) {
  return v.get<bool>() != nullptr;
}
template <bool Wanted>
bool is_exactly(Interpreter&, const Value& v, const Bound&) {
  return v.get<bool>() && *v.get<bool>() == Wanted;
}
bool is_integer(Interpreter&, const Value& v, const Bound&) {
  return v.get<int64_t>() != nullptr;
}
bool is_float(Interpreter&, const Value& v, const Bound&) {
  return v.is_float();
}
bool is_number(Interpreter&, const Value& v, const Bound&) {
  return v.as_number().has_value();
}
bool is_string(Interpreter&, const Value& v, const Bound&) {
  return v.as_string() != nullptr;
}
bool is_mapping(Interpreter&, const Value& v, const Bound&) {
  return v.as_dict() != nullptr;
}
bool is_iterable(Interpreter&, const Value& v, const Bound&) {
  return v.as_string() || v.as_sequence() || v.as_dict() || v.is_undefined() || v.as_loop();
}
bool is_sequence(Interpreter&, const Value& v, const Bound&) {
  const Sequence* s = v.as_sequence();
  return v.as_string() || v.as_dict() || v.is_undefined() ||
         (s && s->kind != SequenceKind::kView && s->kind != SequenceKind::kIterator);
}
bool is_callable(Interpreter&, const Value& v, const Bound&) {
  return v.as_function() || v.as_loop() || v.is_undefined();
}
bool is_lower(Interpreter& in, const Value& v, const Bound&) {
  return python::all_lower(to_text(v, in));
}
bool is_upper(Interpreter& in, const Value& v, const Bound&) {
  return python::all_upper(to_text(v, in));
}
bool is_escaped(Interpreter&, const Value& v, const Bound&) {
  return v.as_string() && v.as_string()->markup;
}
bool is_filter(Interpreter& in, const Value& v, const Bound&) {
  return find_filter(need_string(in, v, "filter")) != nullptr;
}
bool is_test(Interpreter& in, const Value& v, const Bound&) {
  return find_test(need_string(in, v, "test")) != nullptr;
}
bool is_in(Interpreter& in, const Value& v, const Bound& args) {
  return in.compare(Operator::kIn, v, args[0]);
}
bool is_same(Interpreter& in, const Value& v, const Bound& args) {
  return std::string_view(v.type_name()) == args[0].type_name() &&
         in.compare(Operator::kEqual, v, args[0]);
}
bool remainder_is(Interpreter& in, const Value& v, const Value& by, int64_t wanted) {
  return equal(in.binary(Operator::kModulo, v, by), wanted);
}
bool is_odd(Interpreter& in, const Value& v, const Bound&) {
  return remainder_is(in, v, int64_t{2}, 1);
}
bool is_even(Interpreter& in, const Value& v, const Bound&) {
  return remainder_is(in, v, int64_t{2}, 0);
}
bool is_divisible(Interpreter& in, const Value& v, const Bound& args) {
  return remainder_is(in, v, args[0], 0);
}
template <Operator Op>
bool compares(Interpreter& in, const Value& v, const Bound& args) {
  return in.compare(Op, v, args[0]);
}

constexpr TestRow kTests[] = {
    {"boolean", "", is_boolean},
    {"callable", "", is_callable},
    {"defined", "", is_defined},
    {"divisibleby", "num /", is_divisible},
    {"escaped", "", is_escaped},
    {"even", "", is_even},
    {"false", "", is_exactly<false>},
    {"filter", "", is_filter},
    {"float", "", is_float},
    {"in", "seq /", is_in},
    {"integer", "", is_integer},
    {"iterable", "", is_iterable},
    {"lower", "", is_lower},
    {"mapping", "", is_mapping},
    {"none", "", is_none},
    {"number", "", is_number},
    {"odd", "", is_odd},
    {"sameas", "other /", is_same},
    {"sequence", "", is_sequence},
    {"string", "", is_string},
    {"test", "", is_test},
    {"true", "", is_exactly<true>},
    {"undefined", "", is_undefined},
    {"upper", "", is_upper},
    {"==", "other /", compares<Operator::kEqual>},
    {"eq", "other /", compares<Operator::kEqual>},
    {"equalto", "other /", compares<Operator::kEqual>},
    {"!=", "other /", compares<Operator::kNotEqual>},
    {"ne", "other /", compares<Operator::kNotEqual>},
    {"<", "other /", compares<Operator::kLess>},
    {"lt", "other /", compares<Operator::kLess>},
    {"lessthan", "other /", compares<Operator::kLess>},
    {"<=", "other /", compares<Operator::kLessEqual>},
    {"le", "other /", compares<Operator::kLessEqual>},
    {">", "other /", compares<Operator::kGreater>},
    {"gt", "other /", compares<Operator::kGreater>},
    {"greaterthan", "other /", compares<Operator::kGreater>},
    {">=", "other /", compares<Operator::kGreaterEqual>},
    {"ge", "other /", compares<Operator::kGreaterEqual>},
};

}  // namespace

std::span<const FilterRow> value_filters() {
  return kFilters;
}
std::span<const TestRow> tests() {
  return kTests;
}

}  // namespace mantissa::jinja
