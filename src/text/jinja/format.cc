// str(), repr() and json.dumps(): see format.h.
#include "text/jinja/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/jinja/interpreter.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace mantissa::jinja {

// The shortest digits that read back, as repr(float) lays them out: an exponent below 1e-4 and from
// 1e16 on.
std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view all(buffer, static_cast<size_t>(end - buffer));
  const size_t e = all.find('e');
  int exponent = 0;
  const char* digits_of_exponent = all.data() + e + (all[e + 1] == '+' ? 2 : 1);
  std::from_chars(digits_of_exponent, end, exponent);
  if (exponent < -4 || exponent >= 16) {
    std::string out(all.substr(0, e));
    const int size = std::abs(exponent);
    return out + (exponent < 0 ? "e-" : "e+") + (size < 10 ? "0" : "") + std::to_string(size);
  }
  const auto plain =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr;
  std::string out(buffer, plain);
  return out.find('.') == out.npos ? out + ".0" : out;
}

namespace {

void append_hex(std::string& out, const char* prefix, uint32_t value, int width) {
  constexpr char kDigits[] = "0123456789abcdef";
  out += prefix;
  for (int i = width - 1; i >= 0; --i) out.push_back(kDigits[(value >> (4 * i)) & 15]);
}

void append_string_repr(std::string& out, std::string_view text) {
  const bool single = text.find('\'') != text.npos, both = text.find('"') != text.npos;
  const char quote = single && !both ? '"' : '\'';
  out.push_back(quote);
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = next_code_point(text, pos);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (python::is_printable(c)) {
      out += text.substr(begin, pos - begin);
    } else if (c < 0x100) {
      append_hex(out, "\\x", c, 2);
    } else {
      append_hex(out, c < 0x10000 ? "\\u" : "\\U", c, c < 0x10000 ? 4 : 8);
    }
  }
  out.push_back(quote);
}

class Writer {
 public:
  explicit Writer(const Interpreter& in) : in_(in) {}

  void repr(const Value& v) {
    if (out.size() > kTextBytesMax) in_.fail("a text exceeds the limit of its length");
    if (const String* s = v.as_string()) {
      if (s->markup) out += "Markup(";
      append_string_repr(out, s->text);
      if (s->markup) out += ")";
    } else if (const Sequence* list = v.as_sequence()) {
      sequence(*list);
    } else if (const Dict* dict = v.as_dict()) {
      members(dict->members);
    } else if (const Namespace* space = v.as_namespace()) {
      if (++namespaces_ > kDepthMax) in_.fail("a namespace that holds itself has no text");
      out += "<Namespace ";
      members(space->members);
      out += ">";
      --namespaces_;
    } else {
      scalar(v);
    }
  }

  std::string out;

 private:
  void scalar(const Value& v) {
    if (v.is_undefined()) {
      out += "Undefined";
    } else if (v.is_none()) {
      out += "None";
    } else if (const bool* b = v.get<bool>()) {
      out += *b ? "True" : "False";
    } else if (const int64_t* i = v.get<int64_t>()) {
      out += std::to_string(*i);
    } else if (const double* d = v.get<double>()) {
      out += float_repr(*d);
    } else {
      in_.fail(text("a ", v.type_name(), " as text, which would be an address of memory"));
    }
  }
  void sequence(const Sequence& list) {
    if (list.kind == SequenceKind::kRange) {
      if (list.name.empty()) in_.fail("a part of a range() as text (add |list)");
      out += list.name;
      return;
    }
    if (list.kind == SequenceKind::kIterator) {
      in_.fail(text("a ", list.name, " as text (add |list)"));
    }
    const bool tuple = list.kind == SequenceKind::kTuple;
    if (list.kind == SequenceKind::kView) out += list.name + "(";
    out += tuple ? "(" : "[";
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out += ", ";
      repr(list.items[i]);
    }
    out += tuple ? list.items.size() == 1 ? ",)" : ")" : "]";
    if (list.kind == SequenceKind::kView) out += ")";
  }
  void members(const Members& members) {
    out += "{";
    bool first = true;
    for (const auto& [key, value] : members) {
      if (!first) out += ", ";
      first = false;
      repr(key);
      out += ": ";
      repr(value);
    }
    out += "}";
  }

  const Interpreter& in_;
  int namespaces_ = 0;
};

}  // namespace

std::string string_repr(std::string_view text) {
  std::string out;
  append_string_repr(out, text);
  return out;
}

std::string to_repr(const Value& value, const Interpreter& in) {
  Writer writer(in);
  writer.repr(value);
  return std::move(writer.out);
}

std::string to_text(const Value& value, const Interpreter& in) {
  if (const String* s = value.as_string()) return s->text;
  if (value.is_undefined()) {
    const Undefined& u = **value.get<UndefinedRef>();
    if (u.forbidden) in.fail(u.message);
    return "";
  }
  return to_repr(value, in);
}

// ---- JSON

namespace {

void append_json_string(std::string& out, std::string_view text, bool ascii) {
  constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
  out.push_back('"');
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = next_code_point(text, pos);
    const size_t known = c < 0x80 ? kEscaped.find(static_cast<char>(c)) : kEscaped.npos;
    if (known != kEscaped.npos) {
      out.push_back('\\');
      out.push_back(kLetters[known]);
    } else if (c < 0x20 || (ascii && c > 0x7E && c < 0x10000)) {
      append_hex(out, "\\u", c, 4);
    } else if (ascii && c >= 0x10000) {
      append_hex(out, "\\u", 0xD800 + ((c - 0x10000) >> 10), 4);
      append_hex(out, "\\u", 0xDC00 + ((c - 0x10000) & 0x3FF), 4);
    } else {
      out += text.substr(begin, pos - begin);
    }
  }
  out.push_back('"');
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, const Interpreter& in) : style_(style), in_(in) {}

  void write(const Value& v) {
    if (out.size() > kTextBytesMax) in_.fail("a text exceeds the limit of its length");
    if (const String* s = v.as_string()) {
      append_json_string(out, s->text, style_.ascii);
    } else if (const Sequence* list = v.as_sequence(); list && is_array(*list)) {
      array(*list);
    } else if (const Dict* dict = v.as_dict()) {
      object(*dict);
    } else if (!scalar(v)) {
      in_.fail(text("Object of type ", v.type_name(), " is not JSON serializable"));
    }
  }

  std::string out;

 private:
  static bool is_array(const Sequence& list) {
    return list.kind == SequenceKind::kList || list.kind == SequenceKind::kTuple;
  }
  // Also as keys of objects.
  bool scalar(const Value& v) {
    if (v.is_none()) {
      out += "null";
    } else if (const bool* b = v.get<bool>()) {
      out += *b ? "true" : "false";
    } else if (const int64_t* i = v.get<int64_t>()) {
      out += std::to_string(*i);
    } else if (const double* d = v.get<double>()) {
      out += std::isnan(*d)   ? "NaN"
             : std::isinf(*d) ? *d < 0 ? "-Infinity" : "Infinity"
                              : float_repr(*d);
    } else {
      return false;
    }
    return true;
  }
  void line() {
    if (!style_.pretty) return;
    out.push_back('\n');
    for (int i = 0; i < level_; ++i) out += style_.indent;
  }
  // json.dumps ends items in a line with "," alone where it indents.
  void begin_item(size_t index) {
    if (index > 0) out += style_.item_separator;
    line();
  }
  void array(const Sequence& list) {
    if (list.items.empty()) {
      out += "[]";
      return;
    }
    out.push_back('[');
    ++level_;
    for (size_t i = 0; i < list.items.size(); ++i) {
      begin_item(i);
      write(list.items[i]);
    }
    --level_;
    line();
    out.push_back(']');
  }
  void object(const Dict& dict) {
    if (dict.members.empty()) {
      out += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> members;
    for (const auto& member : dict.members) members.push_back(&member);
    if (style_.sorted) {
      std::stable_sort(members.begin(), members.end(), [&](const auto* a, const auto* b) {
        const auto c = order(a->first, b->first);
        if (!c) in_.fail("keys of a dict that have no order");
        return *c < 0;
      });
    }
    out.push_back('{');
    ++level_;
    for (size_t i = 0; i < members.size(); ++i) {
      begin_item(i);
      key(members[i]->first);
      out += style_.key_separator;
      write(members[i]->second);
    }
    --level_;
    line();
    out.push_back('}');
  }
  void key(const Value& k) {
    if (const String* s = k.as_string()) return append_json_string(out, s->text, style_.ascii);
    out.push_back('"');
    if (!scalar(k)) {
      in_.fail(text("keys must be str, int, float, bool or None, not ", k.type_name()));
    }
    out.push_back('"');
  }

  const JsonStyle& style_;
  const Interpreter& in_;
  int level_ = 0;
};

}  // namespace

std::string to_json(const Value& value, const JsonStyle& style, const Interpreter& in) {
  JsonWriter writer(style, in);
  writer.write(value);
  return std::move(writer.out);
}

}  // namespace mantissa::jinja
