// Whole tokenizers against the reference library: WikiText-2, random strings, chosen texts, ids
// back to text. The demo model's run everywhere, the others where ../shared is.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "base/file.h"
#include "golden.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "text_paths.h"

namespace mantissa {
namespace {

using json::Value;

constexpr const char* kNames[] = {"llama-3",  "llama-2", "qwen2.5",  "gpt-2",      "phi-3-mini",
                                  "minimind", "wiki-6m", "wiki-29m", "stories260K"};

class Reference : public testing::TestWithParam<const char*> {
 protected:
  // The folder of a golden file's row.
  static std::filesystem::path folder(const Value& row) {
    const std::string_view name = row.at("folder").as_string();
    return name == "models/wiki-6m" ? demo_model() : shared_path(std::string(name).c_str());
  }
  static bool missing(const Value& row) {
    return !std::filesystem::exists(folder(row) / "tokenizer.json");
  }
};
INSTANTIATE_TEST_SUITE_P(Tokenizers, Reference, testing::ValuesIn(kNames), [](const auto& info) {
  std::string name = info.param;
  std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
  return name;
});

std::string from_hex(std::string_view hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    out.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return out;
}

TEST_P(Reference, ChosenTexts) {
  const json::Document golden = read_golden("cases.json");
  const Value texts = golden.root().at("texts");
  const Value row = golden.root().at("tokenizers").at(GetParam());
  if (missing(row)) GTEST_SKIP() << "no " << folder(row);
  const Tokenizer tokenizer = Tokenizer::load(folder(row));
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string_view text = texts[i].as_string();
    EXPECT_EQ(tokenizer.encode(text, false), ids_of(row.at("plain")[i])) << quoted(text);
    EXPECT_EQ(tokenizer.encode(text, true), ids_of(row.at("special")[i])) << quoted(text);
  }
}

TEST_P(Reference, IdsToText) {
  const json::Document golden = read_golden("cases.json");
  const Value row = golden.root().at("tokenizers").at(GetParam());
  if (missing(row)) GTEST_SKIP() << "no " << folder(row);
  const Tokenizer tokenizer = Tokenizer::load(folder(row));
  const Value cases = row.at("decode");
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::vector<int32_t> ids = ids_of(cases[i].at("ids"));
    for (const bool skip : {false, true}) {
      const std::string_view want = cases[i].at(skip ? "skipped" : "text").as_string();
      EXPECT_EQ(tokenizer.decode(ids, skip), want) << i << cases[i].at("ids").to_json();
      Detokenizer stream(tokenizer, skip);
      std::string streamed;
      for (int32_t id : ids) {
        const std::string part = stream.push(id);
        EXPECT_TRUE(is_valid_utf8(part)) << quoted(part);
        streamed += part;
      }
      EXPECT_EQ(streamed + stream.flush(), want) << i;
    }
  }
}

TEST_P(Reference, RandomStrings) {
  const json::Document corpora = read_golden("corpora.json");
  const json::Document golden = read_golden("fuzz.json");
  const Value row = corpora.root().at("tokenizers").at(GetParam());
  if (missing(row)) GTEST_SKIP() << "no " << folder(row);
  const Tokenizer tokenizer = Tokenizer::load(folder(row));
  const Value texts = golden.root().at("hex");
  const std::string_view want = golden.root().at("crc").at(GetParam()).as_string();
  ASSERT_EQ(want.size(), texts.size() * 8);
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string text = from_hex(texts[i].as_string());
    EXPECT_EQ(crc(tokenizer.encode(text, i % 2 == 1)), want.substr(8 * i, 8)) << quoted(text);
  }
}

TEST_P(Reference, WholeWikiText) {
  const json::Document golden = read_golden("corpora.json");
  const Value row = golden.root().at("tokenizers").at(GetParam());
  const std::filesystem::path file = shared_path("data/wikitext-2-raw/wiki.test.raw");
  if (missing(row) || !std::filesystem::exists(file)) GTEST_SKIP() << "no " << file;
  const Tokenizer tokenizer = Tokenizer::load(folder(row));
  const std::string text = read_file(file, 1 << 30);
  const std::vector<int32_t> ids = tokenizer.encode(text, false);
  EXPECT_EQ(static_cast<int64_t>(ids.size()), row.at("count").as_int());
  EXPECT_EQ(crc(ids), row.at("crc").as_string());
  const std::vector<int32_t> special = tokenizer.encode(text, true);
  EXPECT_EQ(static_cast<int64_t>(special.size()), row.at("count_special").as_int());
  EXPECT_EQ(crc(special), row.at("crc_special").as_string());
  EXPECT_EQ(tokenizer.decode(special, true), text);
}

// ggml's vectors: strings with a separator line between them, and their ids, a line each.
struct Vectors {
  const char* name;
  const char* folder;
};
class GgmlVectors : public testing::TestWithParam<Vectors> {};
INSTANTIATE_TEST_SUITE_P(Files, GgmlVectors,
                         testing::Values(Vectors{"llama-bpe", "tokenizers/llama3"},
                                         Vectors{"llama-spm", "tokenizers/llama2"},
                                         Vectors{"qwen2", "tokenizers/qwen2.5"},
                                         Vectors{"gpt-2", "tokenizers/gpt2"},
                                         Vectors{"deepseek-r1-qwen", "tokenizers/qwen2.5"}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(GgmlVectors, SameIds) {
  const std::string base =
      std::string("tokenizers/vectors/ggml-vocab-") + GetParam().name + ".gguf";
  const std::filesystem::path in = shared_path((base + ".inp").c_str());
  if (!std::filesystem::exists(in)) GTEST_SKIP() << "no " << in;
  const Tokenizer tokenizer = Tokenizer::load(shared_path(GetParam().folder));
  const std::string texts = read_file(in, 1 << 20);
  std::ifstream out(shared_path((base + ".out").c_str()));
  const std::string separator = "\n__ggml_vocab_test__\n";
  size_t count = 0;
  for (size_t begin = 0; begin < texts.size(); ++count) {
    const size_t end = std::min(texts.find(separator, begin), texts.size());
    const std::string text = texts.substr(begin, end - begin);
    begin = end + separator.size();
    std::string line;
    ASSERT_TRUE(std::getline(out, line));
    std::istringstream numbers(line);
    std::vector<int32_t> want;
    for (int32_t id; numbers >> id;) want.push_back(id);
    EXPECT_EQ(tokenizer.encode(text, false), want) << quoted(text);
  }
  EXPECT_GT(count, 40u);
  RecordProperty("strings", static_cast<int>(count));
}

}  // namespace
}  // namespace mantissa
