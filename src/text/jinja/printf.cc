// % and .format(): see format.h. One description of a field serves both.
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/jinja/format.h"
#include "text/jinja/interpreter.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace mantissa::jinja {
namespace {

constexpr int kWidthMax = 10000;

struct Field {
  std::string fill = " ";
  char align = 0;  // '<' '>' '^' '='; 0: as the type does
  char sign = '-';
  bool alternate = false;  // 0x before hexadecimal digits
  bool commas = false;     // between thousands
  int width = 0;
  int precision = -1;
  char type = 0;
};

size_t points(std::string_view text) {
  size_t count = 0;
  for (char c : text) count += (static_cast<uint8_t>(c) & 0xC0) != 0x80 ? 1 : 0;
  return count;
}

std::string padded(const Field& field, std::string sign, const std::string& body, char align) {
  const size_t have = points(sign) + points(body);
  const auto width = static_cast<size_t>(field.width);
  const size_t lack = width > have ? width - have : 0;
  const size_t left = align == '<' ? 0 : align == '^' ? lack / 2 : lack;
  std::string out;
  if (align == '=') out = std::exchange(sign, {});
  for (size_t i = 0; i < left; ++i) out += field.fill;
  out += sign + body;
  for (size_t i = left; i < lack; ++i) out += field.fill;
  return out;
}

std::string with_commas(std::string digits) {
  size_t end = digits.find_first_not_of("0123456789");
  if (end == digits.npos) end = digits.size();
  for (; end > 3; end -= 3) digits.insert(end - 3, ",");
  return digits;
}

std::string format_integer(const Field& field, int64_t value) {
  const int base = field.type == 'x' || field.type == 'X' ? 16
                   : field.type == 'o'                    ? 8
                   : field.type == 'b'                    ? 2
                                                          : 10;
  const uint64_t size = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  char buffer[70];
  std::string digits(buffer, std::to_chars(buffer, buffer + sizeof buffer, size, base).ptr);
  if (field.type == 'X') digits = python::upper(digits);
  if (field.commas) digits = with_commas(digits);
  std::string sign = value < 0 ? "-" : field.sign == '-' ? "" : std::string(1, field.sign);
  if (field.alternate && base != 10) sign += std::string("0") + field.type;
  return padded(field, sign, digits, field.align != 0 ? field.align : '>');
}

std::string format_real(const Field& field, double value, const Interpreter& in) {
  const int precision = field.precision < 0 ? 6 : field.precision;
  const double size = std::abs(field.type == '%' ? value * 100 : value);
  const char kind = static_cast<char>(field.type | 0x20);
  const auto form = kind == 'e'   ? std::chars_format::scientific
                    : kind == 'g' ? std::chars_format::general
                                  : std::chars_format::fixed;
  std::string digits(400 + static_cast<size_t>(precision), '\0');
  if (std::isnan(value) || std::isinf(value)) {
    digits = std::isnan(value) ? "nan" : "inf";
  } else if (field.type == 0 && field.precision < 0) {
    digits = float_repr(size);
  } else {
    const int places = kind == 'g' && precision == 0 ? 1 : precision;
    const auto end =
        std::to_chars(digits.data(), digits.data() + digits.size(), size, form, places);
    if (end.ec != std::errc{}) in.fail("a number too long to format");
    digits.resize(static_cast<size_t>(end.ptr - digits.data()));
  }
  if (field.commas) digits = with_commas(digits);
  if (field.type == '%') digits += '%';
  if (field.type == 'E' || field.type == 'G') digits = python::upper(digits);
  const std::string sign = std::signbit(value) ? "-"
                           : field.sign == '-' ? ""
                                               : std::string(1, field.sign);
  return padded(field, sign, digits, field.align != 0 ? field.align : '>');
}

std::string format_string(const Field& field, std::string_view value) {
  if (field.precision >= 0) {
    value = value.substr(0, python::byte_of_point(value, static_cast<size_t>(field.precision)));
  }
  return padded(field, "", std::string(value), field.align != 0 ? field.align : '<');
}

int read_number(std::string_view format, size_t& pos, const Interpreter& in) {
  int value = 0;
  const auto [end, error] =
      std::from_chars(format.data() + pos, format.data() + format.size(), value);
  if (error != std::errc{} || value > kWidthMax)
    in.fail("a width or precision of a format that is too large");
  pos = static_cast<size_t>(end - format.data());
  return value;
}
bool digit_at(std::string_view format, size_t pos) {
  return pos < format.size() && format[pos] >= '0' && format[pos] <= '9';
}

// ---- %

class Percent {
 public:
  Percent(const Value& arguments, const Interpreter& in) : arguments_(arguments), in_(in) {
    tuple_ = arguments.is_sequence(SequenceKind::kTuple) ? arguments.as_sequence() : nullptr;
  }

  std::string run(std::string_view format) {
    std::string out;
    for (size_t pos = 0; pos < format.size();) {
      const size_t percent = std::min(format.find('%', pos), format.size());
      out += format.substr(pos, percent - pos);
      pos = percent;
      if (pos < format.size()) out += conversion(format, ++pos);
      if (out.size() > kTextBytesMax) in_.fail("a text exceeds the limit of its length");
    }
    const size_t there = tuple_ ? tuple_->items.size() : arguments_.as_dict() ? 0 : 1;
    if (taken_ < there && !named_) in_.fail("not all arguments converted during string formatting");
    return out;
  }

 private:
  Value next() {
    const size_t index = taken_++;
    if (tuple_ ? index >= tuple_->items.size() : index > 0) {
      in_.fail("not enough arguments for format string");
    }
    return tuple_ ? tuple_->items[index] : arguments_;
  }

  std::string conversion(std::string_view format, size_t& pos) {
    Field field;
    Value value;
    bool named = false;
    if (pos < format.size() && format[pos] == '(') {
      const size_t end = std::min(format.find(')', pos), format.size());
      const Dict* dict = arguments_.as_dict();
      const Value* member =
          dict ? find_member(dict->members, format.substr(pos + 1, end - pos - 1)) : nullptr;
      if (member == nullptr) in_.fail("a format with %(name) needs a mapping that has the name");
      value = *member;
      named = named_ = true;
      pos = end + 1;
    }
    for (; pos < format.size() &&
           std::string_view("-+ 0#").find(format[pos]) != std::string_view::npos;
         ++pos) {
      const char c = format[pos];
      if (c == '-') field.align = '<';
      if (c == '+' || (c == ' ' && field.sign != '+')) field.sign = c;
      if (c == '#') field.alternate = true;
      if (c == '0' && field.align != '<') field.fill = "0", field.align = '=';
    }
    if (field.align == '<') field.fill = " ";
    if (digit_at(format, pos)) field.width = read_number(format, pos, in_);
    if (pos < format.size() && format[pos] == '.') {
      field.precision = 0;
      if (digit_at(format, ++pos)) field.precision = read_number(format, pos, in_);
    }
    if (pos >= format.size()) in_.fail("incomplete format");
    field.type = format[pos++];
    if (field.type == '%') return "%";
    if (!named) value = next();
    return convert(field, value);
  }

  std::string convert(Field field, const Value& value) {
    switch (field.type) {
      case 's':
      case 'r':
        if (field.align == '=') field.align = '>', field.fill = " ";
        if (field.align == 0) field.align = '>';
        return format_string(field, field.type == 's' ? to_text(value, in_) : to_repr(value, in_));
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o': {
        if (const double* d = value.get<double>(); d && std::abs(*d) < 9e18 && field.type < 'o') {
          return format_integer(field, static_cast<int64_t>(*d));
        }
        const auto i = value.as_integer();
        if (!i || field.precision >= 0)
          in_.fail(text("%", field.type, " needs an integer, not ", value.type_name()));
        return format_integer(field, *i);
      }
      case 'f':
      case 'F':
      case 'e':
      case 'E':
      case 'g':
      case 'G': {
        const auto d = value.as_number();
        if (!d) in_.fail(text("must be real number, not ", value.type_name()));
        return format_real(field, *d, in_);
      }
      default:
        in_.fail(text("the conversion %", field.type, " is not supported"));
    }
  }

  const Value& arguments_;
  const Interpreter& in_;
  const Sequence* tuple_;
  size_t taken_ = 0;
  bool named_ = false;
};

// ---- {}

Field read_field(std::string_view spec, const Interpreter& in) {
  Field field;
  size_t pos = 0;
  const auto is_align = [&](size_t at) {
    return at < spec.size() && std::string_view("<>^=").find(spec[at]) != std::string_view::npos;
  };
  const size_t first = spec.empty() ? 0 : utf8_bytes(spec[0]);
  if (is_align(first)) {
    field.fill = spec.substr(0, first);
    field.align = spec[first];
    pos = first + 1;
  } else if (is_align(0)) {
    field.align = spec[pos++];
  }
  const auto take = [&](std::string_view any) {
    return pos < spec.size() && any.find(spec[pos]) != any.npos ? spec[pos++] : '\0';
  };
  if (const char sign = take("+- ")) field.sign = sign;
  if (take("#")) field.alternate = true;
  if (take("0") && field.align == 0) field.fill = "0", field.align = '=';
  if (digit_at(spec, pos)) field.width = read_number(spec, pos, in);
  if (take(",")) field.commas = true;
  if (take(".")) {
    if (!digit_at(spec, pos)) in.fail("Format specifier missing precision");
    field.precision = read_number(spec, pos, in);
  }
  field.type = take("sdxXobeEfFgG%");
  if (pos != spec.size()) in.fail(text("the format specifier \"", spec, "\" is not supported"));
  return field;
}

std::string format_field(const Value& value, std::string_view spec, const Interpreter& in) {
  if (spec.empty()) return to_text(value, in);
  const Field field = read_field(spec, in);
  constexpr std::string_view kReal = "eEfFgG%";
  const bool wants_real = field.type != 0 && kReal.find(field.type) != kReal.npos;
  if (const String* s = value.as_string()) {
    if ((field.type != 0 && field.type != 's') || field.align == '=') {
      in.fail("this format specifier is not for strings");
    }
    return format_string(field, s->text);
  }
  if (field.type == 's')
    in.fail(text("the format specifier 's' is for strings, not ", value.type_name()));
  if (value.is_float() || (wants_real && value.as_number())) {
    if (field.type != 0 && !wants_real) in.fail("this format specifier is not for floats");
    if (field.type == 0 && field.precision >= 0)
      in.fail("a precision without a type is not supported");
    return format_real(field, *value.as_number(), in);
  }
  if (const auto i = value.as_integer(); i && field.precision < 0) {
    return format_integer(field, *i);
  }
  in.fail(text("unsupported format string passed to ", value.type_name()));
}

}  // namespace

std::string format_percent(std::string_view format, const Value& arguments, const Interpreter& in) {
  return Percent(arguments, in).run(format);
}

std::string format_braces(std::string_view format, const Values& positional, const Members& named,
                          const Interpreter& in) {
  std::string out;
  size_t automatic = 0;
  for (size_t pos = 0; pos < format.size();) {
    const char c = format[pos];
    if (c != '{' && c != '}') {
      out.push_back(format[pos++]);
      continue;
    }
    if (pos + 1 < format.size() && format[pos + 1] == c) {
      out.push_back(c);
      pos += 2;
      continue;
    }
    const size_t end = c == '}' ? format.npos : format.find('}', pos);
    if (end == format.npos) in.fail(text("Single '", c, "' encountered in format string"));
    const std::string_view inside = format.substr(pos + 1, end - pos - 1);
    pos = end + 1;
    const size_t colon = std::min(inside.find(':'), inside.size());
    const std::string_view name = inside.substr(0, colon);
    const std::string_view spec = inside.substr(std::min(colon + 1, inside.size()));
    if (name.find_first_of(".[!") != name.npos || spec.find('{') != spec.npos) {
      in.fail(text("the field \"{", inside, "}\" of .format() is not supported"));
    }
    const Value* value = nullptr;
    if (name.empty() || digit_at(name, 0)) {
      size_t number = 0;
      const size_t index =
          name.empty() ? automatic++ : static_cast<size_t>(read_number(name, number, in));
      if (index < positional.size()) value = &positional[index];
    } else {
      value = find_member(named, name);
    }
    if (value == nullptr) in.fail(text("\"{", inside, "}\" of .format() has no argument"));
    out += format_field(*value, spec, in);
    if (out.size() > kTextBytesMax) in.fail("a text exceeds the limit of its length");
  }
  return out;
}

}  // namespace mantissa::jinja
