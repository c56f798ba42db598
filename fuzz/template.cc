// A chat template and its inputs, both hostile: the bytes up to the first 0xFF are the template,
// the rest is JSON: messages, or an object of variables (0xFF occurs in no valid UTF-8). Either one
// is refused with an Error, or the output is valid UTF-8 and the same a second time.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"
#include "text/utf8.h"

namespace {

using namespace mantissa;

void require(bool condition) {
  if (!condition) std::abort();
}

jinja::Value value_of(const json::Value& v) {
  if (v.is_string()) return jinja::Value::string(v.as_string());
  if (v.is_integer()) return v.as_int();
  if (v.is_number()) return v.as_number();
  if (v.kind() == json::Kind::kBool) return v.as_bool();
  if (v.is_array()) {
    jinja::Values items;
    for (size_t i = 0; i < v.size(); ++i) items.push_back(value_of(v[i]));
    return jinja::Value::sequence(std::move(items));
  }
  if (!v.is_object()) return {};
  jinja::Members members;
  for (size_t i = 0; i < v.size(); ++i) {
    members.emplace_back(jinja::Value::string(v.member(i).first), value_of(v.member(i).second));
  }
  return jinja::Value::dict(std::move(members));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(bytes.find('\xFF'), bytes.size());
  const std::string_view text = bytes.substr(std::min(end + 1, bytes.size()));
  try {
    const jinja::Template code = jinja::parse_template(bytes.substr(0, end), "fuzz");
    jinja::Inputs inputs;
    inputs.work_max = 100'000;
    if (!text.empty()) {
      const json::Document document = json::parse(text, "inputs");
      const jinja::Value value = value_of(document.root());
      inputs.variables.emplace_back(jinja::Value::string("messages"), value);
      if (value.as_dict()) inputs.variables = value.as_dict()->members;
    }
    const std::string out = jinja::Interpreter(code, inputs).run();
    require(is_valid_utf8(out));
    require(jinja::Interpreter(code, inputs).run() == out);
  } catch (const Error&) {  // the template or the inputs are refused
  }
  return 0;
}
