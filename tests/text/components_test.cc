// Normalizers, pre-tokenizers, patterns and decoders one by one against the reference library;
// character sets and normalization over every code point.
#include <gtest/gtest.h>

#include "base/file.h"
#include "golden.h"
#include "text/component_reader.h"
#include "text/utf8.h"

namespace mantissa {
namespace {

using json::Value;
using Reader = void (*)(const Value&, const std::string&, std::vector<Step>&);

Pieces run(const std::vector<Step>& steps, std::string_view text) {
  Pieces pieces;
  pieces.text = text;
  pieces.list.push_back({0, text.size(), -1, true});
  MatchScratch scratch;
  for (const Step& step : steps) run_step(step, pieces, scratch);
  return pieces;
}
std::vector<Step> steps_of(const Value& json, Reader reader) {
  std::vector<Step> steps;
  reader(json, "golden", steps);
  return steps;
}
std::string joined(const Pieces& pieces) {
  std::string out;
  for (const Piece& piece : pieces.list) out += pieces.of(piece);
  return out;
}

TEST(Components, Normalizers) {
  const json::Document golden = read_golden("components.json");
  const Value rows = golden.root().at("normalizer");
  ASSERT_GT(rows.size(), 15u);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<Step> steps = steps_of(rows[i].at("json"), read_normalizer);
    const Value cases = rows[i].at("cases");
    for (size_t k = 0; k < cases.size(); ++k) {
      const std::string_view text = cases[k][0].as_string();
      EXPECT_EQ(joined(run(steps, text)), cases[k][1].as_string())
          << rows[i].at("json").to_json() << " of " << quoted(text);
    }
  }
}

void expect_pieces(const char* kind, size_t rows_least) {
  const json::Document golden = read_golden("components.json");
  const Value rows = golden.root().at(kind);
  ASSERT_GE(rows.size(), rows_least);
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<Step> steps = steps_of(rows[i].at("json"), read_pre_tokenizer);
    const Value cases = rows[i].at("cases");
    for (size_t k = 0; k < cases.size(); ++k) {
      const std::string_view text = cases[k][0].as_string();
      if (text.empty()) continue;  // a Tokenizer does not run the steps then
      std::vector<std::string> want, got;
      for (size_t j = 0; j < cases[k][1].size(); ++j) want.emplace_back(cases[k][1][j].as_string());
      const Pieces pieces = run(steps, text);
      for (const Piece& piece : pieces.list) got.emplace_back(pieces.of(piece));
      EXPECT_EQ(got, want) << rows[i].at("json").to_json() << " of " << quoted(text);
    }
  }
}
TEST(Components, PreTokenizers) {
  expect_pieces("pre_tokenizer", 50);
}
TEST(Components, OnigurumaPatterns) {
  expect_pieces("pattern", 80);
}

TEST(Components, Decoders) {
  const json::Document golden = read_golden("components.json");
  const Value rows = golden.root().at("decoder");
  ASSERT_GT(rows.size(), 10u);
  for (size_t i = 0; i < rows.size(); ++i) {
    std::vector<DecodeStep> steps;
    const Value spec = rows[i].at("json");
    if (spec.is_null()) {
      steps.emplace_back(JoinDecode{});
    } else {
      read_decoder(spec, "golden", steps);
    }
    const Value cases = rows[i].at("cases");
    DecodeStream stream(steps);  // one for all cases: flush makes it new
    for (size_t k = 0; k < cases.size(); ++k) {
      std::string out;
      const Value tokens = cases[k][0];
      for (size_t j = 0; j < tokens.size(); ++j) stream.push(tokens[j].as_string(), out);
      stream.flush(out);
      EXPECT_EQ(out, cases[k][1].as_string()) << spec.to_json() << " of " << tokens.to_json();
    }
  }
}

// All code points that are characters, ascending.
std::string every_code_point() {
  std::string out;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c < 0xD800 || c >= 0xE000) append_utf8(out, c);
  }
  return out;
}

TEST(EveryCodePoint, CharacterSets) {
  const json::Document golden = read_golden("properties.json");
  const Value rows = golden.root().at("sets");
  ASSERT_GT(rows.size(), 50u);
  const std::string text = every_code_point();
  MatchScratch scratch;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string_view pattern = rows[i].at("pattern").as_string();
    const std::string left = Pattern::regex(pattern, "golden").replace(text, "", scratch);
    EXPECT_EQ(crc(left), rows[i].at("crc").as_string()) << pattern;
  }
}

TEST(EveryCodePoint, Normalizers) {
  const json::Document golden = read_golden("properties.json");
  const Value rows = golden.root().at("normalizers");
  ASSERT_EQ(rows.size(), 7u);
  const std::string text = every_code_point();
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<Step> steps = steps_of(rows[i].at("json"), read_normalizer);
    // As the golden was made: each between a letter and two marks that are out of order.
    Pieces pieces;
    std::string all;
    for (size_t pos = 0; pos < text.size();) {
      const size_t begin = pos;
      next_code_point(text, pos);
      const size_t start = all.size();
      all += "e" + text.substr(begin, pos - begin) + "\xCC\x81\xCC\x96";
      pieces.list.push_back({start, all.size(), -1, true});
    }
    pieces.text = all;
    MatchScratch scratch;
    for (const Step& step : steps) run_step(step, pieces, scratch);
    EXPECT_EQ(crc(joined(pieces)), rows[i].at("crc").as_string()) << rows[i].at("json").to_json();
  }
}

TEST(EveryCodePoint, PreTokenizers) {
  const json::Document golden = read_golden("properties.json");
  const Value rows = golden.root().at("splits");
  ASSERT_EQ(rows.size(), 5u);
  const std::string text = every_code_point();
  for (size_t i = 0; i < rows.size(); ++i) {
    const Pieces pieces = run(steps_of(rows[i].at("json"), read_pre_tokenizer), text);
    std::string all;
    for (const Piece& piece : pieces.list) {
      if (!all.empty()) all += '\n';
      all += pieces.of(piece);
    }
    EXPECT_EQ(crc(all), rows[i].at("crc").as_string()) << rows[i].at("json").to_json();
  }
}

}  // namespace
}  // namespace mantissa
