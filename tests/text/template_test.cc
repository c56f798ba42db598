// Chat templates against jinja2 under transformers' settings: one small template per construct, the
// shared templates with all conversations; and what Python's str says of every code point.
#include <gtest/gtest.h>

#include <ctime>

#include "base/error.h"
#include "base/file.h"
#include "golden.h"
#include "sha256.h"
#include "text/chat_template.h"
#include "text/jinja/format.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/parser.h"
#include "text/python_text.h"
#include "text/utf8.h"
#include "text_paths.h"

namespace mantissa {
namespace {

using json::Value;

constexpr std::string_view kRefused = "the chat template refused the conversation: ";

// The moment of the goldens, 2024-02-09 13:05:07, wherever the test runs.
std::chrono::system_clock::time_point golden_time() {
  std::tm t{};
  t.tm_year = 124, t.tm_mon = 1, t.tm_mday = 9;
  t.tm_hour = 13, t.tm_min = 5, t.tm_sec = 7;
  t.tm_isdst = -1;
  return std::chrono::system_clock::from_time_t(std::mktime(&t));
}

json::Document read_template_golden(const char* name) {
  return json::parse_file(std::filesystem::path(MANTISSA_SOURCE_DIR) / "tests/golden/templates" /
                          name);
}

SpecialTokens tokens_of(const Value& object) {
  SpecialTokens out;
  for (size_t i = 0; i < object.size(); ++i) {
    const auto [name, value] = object.member(i);
    out.emplace_back(name, value.as_string());
  }
  return out;
}

// What `run` gives; "raised: ..." or "error: ..." where it failed.
template <class Run>
std::string outcome(Run run) {
  try {
    return run();
  } catch (const Error& error) {
    const std::string_view found = error.found;
    if (!found.starts_with(kRefused)) return "error: " + error.found;
    return "raised: " + std::string(found.substr(kRefused.size()));
  }
}

TEST(Templates, EveryConstructAsJinja2) {
  const json::Document golden = read_template_golden("constructs.json");
  const json::Document names = read_template_golden("cases.json");
  const json::Document none = json::parse("[]", "messages");
  const Value rows = golden.root().at("rows");
  ASSERT_GT(rows.size(), 120u);
  const ChatInputs inputs{.messages = none.root(),
                          .add_generation_prompt = false,
                          .variables = names.root().at("construct_variables"),
                          .now = golden_time()};
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string_view source = rows[i].at("template").as_string();
    const std::string got = outcome([&] {
      return ChatTemplate(source, "template").render(inputs, tokens_of(names.root().at("tokens")));
    });
    if (const auto text = rows[i].find("text")) {
      EXPECT_EQ(got, text->as_string()) << source;
    } else if (const auto raised = rows[i].find("raised")) {
      EXPECT_EQ(got, "raised: " + std::string(raised->as_string())) << source;
    } else {
      EXPECT_TRUE(got.starts_with("error: template: line 1: ")) << source << "\n" << got;
      // What is undefined is named as jinja2 names it.
      const std::string want(rows[i].at("error").as_string());
      if (want.starts_with("UndefinedError: ")) {
        EXPECT_NE(got.find(want.substr(want.find(' ') + 1)), got.npos) << got << "\n" << want;
      }
    }
  }
}

TEST(Templates, SharedTemplatesAsJinja2) {
  const json::Document golden = read_template_golden("shared.json");
  const json::Document names = read_template_golden("cases.json");
  const Value templates = golden.root().at("templates");
  const Value conversations = names.root().at("conversations");
  const SpecialTokens tokens = tokens_of(names.root().at("tokens"));
  ASSERT_EQ(templates.size(), 40u);
  if (!std::filesystem::exists(shared_path("chat_templates"))) {
    GTEST_SKIP() << "no " << shared_path("chat_templates");
  }
  int texts = 0, refusals = 0;
  for (size_t t = 0; t < templates.size(); ++t) {
    const auto [file, results] = templates.member(t);
    const ChatTemplate code(read_file(shared_path("chat_templates") / file, 1 << 22), "template");
    for (size_t c = 0; c < conversations.size(); ++c) {
      const auto [name, chat] = conversations.member(c);
      for (const bool prompt : {false, true}) {
        ChatInputs inputs{.messages = chat.at("messages"),
                          .tools = chat.find_set("tools"),
                          .documents = chat.find_set("documents"),
                          .add_generation_prompt = prompt,
                          .variables = chat.find_set("variables"),
                          .now = golden_time()};
        const std::string got = outcome([&] { return code.render(inputs, tokens); });
        const std::string want(
            results.at(std::string(name) + (prompt ? "+prompt" : "")).as_string());
        (want.starts_with("error: ") || want.starts_with("raised: ") ? refusals : texts) += 1;
        if (want.starts_with("error: ")) {
          EXPECT_TRUE(got.starts_with("error: "))
              << file << " with " << name << ": " << want << "\n"
              << got;
        } else if (want.starts_with("raised: ")) {
          EXPECT_EQ(got, want) << file << " with " << name;
        } else {
          EXPECT_EQ(sha256(got).substr(0, 16), want) << file << " with " << name << "\n" << got;
        }
      }
    }
  }
  // For tools/text_results.py: all of them, where the test passes.
  RecordProperty("templates", static_cast<int>(templates.size()));
  RecordProperty("texts", texts);
  RecordProperty("refusals", refusals);
}

// ---- Python's str

std::string hash_of(bool (*property)(char32_t)) {
  std::string bits;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c < 0xD800 || c >= 0xE000) bits.push_back(property(c) ? 1 : 0);
  }
  return crc(bits);
}
// Calls with every character of the planes that have case, marks and what is not printable.
template <class Use>
void for_cased_planes(Use use) {
  for (char32_t c = 0; c < 0xE0200; c = c == 0x1FFFF ? 0xE0000 : c + 1) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string one;
    append_utf8(one, c);
    use(one);
  }
}
template <class Map>
std::string hash_of_lines(Map map) {
  std::string all;
  for_cased_planes([&](const std::string& one) { all += map(one) + "\n"; });
  all.pop_back();
  return crc(all);
}

TEST(PythonText, EveryCodePointAsCPython) {
  const json::Document golden = read_template_golden("python.json");
  const Value want = golden.root().at("crc");
  EXPECT_EQ(hash_of(python::is_space), want.at("isspace").as_string());
  EXPECT_EQ(hash_of(python::is_alpha), want.at("isalpha").as_string());
  EXPECT_EQ(hash_of(python::is_decimal), want.at("isdecimal").as_string());
  EXPECT_EQ(hash_of(python::is_digit), want.at("isdigit").as_string());
  EXPECT_EQ(hash_of(python::is_numeric), want.at("isnumeric").as_string());
  EXPECT_EQ(hash_of(python::is_alnum), want.at("isalnum").as_string());
  EXPECT_EQ(hash_of(python::is_lower), want.at("islower").as_string());
  EXPECT_EQ(hash_of(python::is_upper), want.at("isupper").as_string());
  EXPECT_EQ(hash_of(python::is_printable), want.at("isprintable").as_string());
  EXPECT_EQ(hash_of_lines(python::upper), want.at("upper").as_string());
  EXPECT_EQ(hash_of_lines(python::lower), want.at("lower").as_string());
  EXPECT_EQ(hash_of_lines(python::casefold), want.at("casefold").as_string());
  EXPECT_EQ(hash_of_lines(python::capitalize), want.at("capitalize").as_string());
  EXPECT_EQ(hash_of_lines(python::title), want.at("title").as_string());
  EXPECT_EQ(hash_of_lines(python::swapcase), want.at("swapcase").as_string());
  EXPECT_EQ(hash_of_lines(jinja::string_repr), want.at("repr").as_string());
}

TEST(PythonText, SigmasBetweenLettersAndMarks) {
  const json::Document golden = read_template_golden("python.json");
  std::string mixed;
  for_cased_planes([&](const std::string& one) {
    mixed += "a" + one + "Σ Σ" + one + "b aΣ" + one + "b Σ" + one + "\n";
  });
  mixed.pop_back();
  EXPECT_EQ(crc(python::lower(mixed)), golden.root().at("crc").at("sigma").as_string());
}

// ---- what templates must not do

std::string error_of(std::string_view source) {
  try {
    const jinja::Template code = jinja::parse_template(source, "template");
    jinja::Inputs inputs;
    inputs.work_max = 1'000'000;
    return "no error: " + jinja::Interpreter(code, inputs).run().substr(0, 100);
  } catch (const Error& error) {
    return error.found;
  }
}

struct Hostile {
  const char* why;
  std::string source;
  const char* names;
};

TEST(Templates, LimitsEndWhatDoesNot) {
  const std::string many(100'000, '(');
  std::string chain = "{{ 1";
  for (int i = 0; i < 100'000; ++i) chain += "+1";
  chain += " }}";
  const Hostile cases[] = {
      {"loops in loops",
       "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
       "more work"},
      {"text that doubles",
       "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(100) %}{% set n.s = n.s + n.s %}{% "
       "endfor %}",
       "line 1"},
      {"long repetition", "{{ 'abc' * 1000000000000 }}", "limit"},
      {"list repetition", "{{ ([1] * 1000000000000) | length }}", "more work"},
      {"lists that double",
       "{% set n = namespace(l=[1]) %}{% for i in range(100) %}{% set n.l = n.l + n.l %}{% endfor "
       "%}",
       "more work"},
      {"lists that nest",
       "{% set n = namespace(l=[1]) %}{% for i in range(1000) %}{% set n.l = [n.l] %}{% endfor %}",
       "levels"},
      {"lists that share",
       "{% set n = namespace(l=[1]) %}{% for i in range(90) %}{% set n.l = [n.l, n.l] %}{% endfor "
       "%}",
       "parts"},
      {"methods that nest",
       "{% set n = namespace(l=[1]) %}{% for i in range(1000) %}{% set n.l = [n.l.count] %}{% set "
       "n.l = n.l %}{% endfor %}ok",
       "no error"},
      {"a namespace in itself", "{% set n = namespace() %}{% set n.n = n %}{{ n }}", "namespace"},
      {"macro recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deeper"},
      {"loop recursion", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "deeper"},
      {"parentheses", "{{ " + many + std::string(many.size(), ')') + " }}", "nested too deeply"},
      {"a long sum", chain, "nests too deeply"},
      {"not not", "{{ " + std::string(4000, 'x') + " }}", "no error"},
      {"width", "{{ '%999999999s' % 'x' }}", "width"},
      {"width of format", "{{ '{:999999999}'.format('x') }}", "width"},
      {"indent", "{{ 'x' | indent(99999999) }}", "no error"},
      {"center", "{{ 'x'.center(9999999999) }}", "limit"},
      {"zfill", "{{ 'x'.zfill(9999999999) }}", "limit"},
      {"batch", "{{ [1] | batch(99999999999, 0) | list }}", "more work"},
      {"slices", "{{ [1] | slice(99999999999) | list }}", "more work"},
      {"range", "{{ range(0, 9223372036854775807, 9223372036854775807) | list }}", "no error"},
      {"power", "{{ 9 ** 999999999 }}", "64 bits"},
      {"overflow", "{{ 9223372036854775807 + 1 }}", "64 bits"},
      {"least", "{{ (-9223372036854775807 - 1) // -1 }}", "64 bits"},
      {"strftime", "{{ strftime_now('%Y' * 1000) }}", "strftime"},
      {"quadratic replace", "{% set s = 'a' * 60000 %}{{ (s.replace('a', s)) | length }}",
       "more work"},
      {"capturing macros",
       "{% for i in range(99999) %}{% for j in range(99999) %}{% macro m() %}{% endmacro %}{% "
       "endfor %}{% endfor %}",
       "more work"},
      {"a kept loop",
       "{% set n = namespace(l=0) %}{% for x in [1] recursive %}{% set n.l = loop %}{% endfor %}{{ "
       "n.l([1]) }}{{ n.l.length }}",
       "recursive"},
  };
  for (const Hostile& c : cases) {
    const std::string got = error_of(c.source);
    EXPECT_NE(got.find(c.names), got.npos) << c.why << ": " << got;
  }
}

TEST(Templates, WhatIsNotSupportedIsNamedWithItsLine) {
  const Hostile cases[] = {
      {"include", "a\n{% include 'x' %}", "line 2: the tag {% include %}"},
      {"extends", "{% extends 'x' %}", "line 1: the tag {% extends %}"},
      {"import", "\n\n{% import 'x' as y %}", "line 3: the tag {% import %}"},
      {"block", "{% block x %}{% endblock %}", "line 1: the tag {% block %}"},
      {"filter", "{{ 1 }}\n{{ x | xmlattr }}", "line 2: the filter 'xmlattr'"},
      {"test", "{{ x is prime }}", "line 1: the test 'prime'"},
      {"filter when it runs", "{% if true %}\n{{ 1 | pprint }}{% endif %}",
       "line 2: the filter 'pprint'"},
      {"method", "\n{{ 'x'.encode() }}", "line 2: a method of str"},
      {"function", "{{ cycler(1) }}", "the function cycler()"},
      {"escape", "{{ '\\N{DASH}' }}", "line 1: a character by name"},
      {"end", "a\n{% if x %}\nb", "line 2 does not end: {% endif %}"},
      {"no UTF-8", "\xff", "UTF-8"},
  };
  for (const Hostile& c : cases) {
    const std::string got = error_of(c.source);
    EXPECT_NE(got.find(c.names), got.npos) << c.why << ": " << got;
  }
}

TEST(Templates, MessagesMustBeAListOfObjects) {
  const ChatTemplate code("{{ messages }}", "template");
  for (const char* wrong : {"{}", "[1]", "\"x\"", "[[]]"}) {
    const json::Document messages = json::parse(wrong, "messages.json");
    EXPECT_THROW(code.render({.messages = messages.root()}, {}), Error) << wrong;
  }
}

}  // namespace
}  // namespace mantissa
