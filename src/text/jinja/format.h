// Values as text: Python's str() and repr(), json.dumps() as transformers' |tojson calls it, and
// formatting with % and .format().
#pragma once

#include <string>
#include <string_view>

#include "text/jinja/value.h"

namespace mantissa::jinja {

class Interpreter;

std::string float_repr(double value);
std::string string_repr(std::string_view text);

// Throw Error (through the interpreter, which knows the line) where the text exceeds its limit, or
// the value has no such form.
std::string to_text(const Value& value, const Interpreter& in);
std::string to_repr(const Value& value, const Interpreter& in);

struct JsonStyle {
  bool ascii = false;   // escapes what is not ASCII
  bool sorted = false;  // keys
  bool pretty = false;
  std::string indent;  // of one level, where pretty
  std::string item_separator = ", ", key_separator = ": ";
};
std::string to_json(const Value& value, const JsonStyle& style, const Interpreter& in);

// "%s: %5.1f" % arguments: one value, a tuple, or a dict for %(name)s.
std::string format_percent(std::string_view format, const Value& arguments, const Interpreter& in);
// "{} {name:>5}".format(...)
std::string format_braces(std::string_view format, const Values& positional, const Members& named,
                          const Interpreter& in);

}  // namespace mantissa::jinja
