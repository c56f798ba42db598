// Unigram models and SentencePiece's tokenizer.model against the sentencepiece and tokenizers
// libraries: random strings and WikiText-2. The small models run everywhere.
#include "text/sentencepiece.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "golden.h"
#include "text/tokenizer.h"
#include "text_paths.h"

namespace mantissa {
namespace {

using json::Value;
constexpr int64_t kBytesMax = 1 << 24;

std::filesystem::path own(std::string_view file) {
  return std::filesystem::path(MANTISSA_SOURCE_DIR) / "tests/golden/text" / file;
}

class SentencePiece : public testing::TestWithParam<const char*> {
 protected:
  static std::filesystem::path file_of(std::string_view file) {
    return file.starts_with("spm/") ? own(file) : shared_path(std::string(file).c_str());
  }
  static Tokenizer open(std::string_view file) {
    const std::string bytes = read_file(file_of(file), kBytesMax);
    return file.ends_with(".json") ? Tokenizer::from_json(bytes, "", std::string(file))
                                   : Tokenizer::from_sentencepiece(bytes, "", std::string(file));
  }
};
std::string name_of(const testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  std::erase_if(name, [](char c) { return c == '-' || c == '.'; });
  return name;
}
INSTANTIATE_TEST_SUITE_P(Models, SentencePiece,
                         testing::Values("unigram", "bpe", "llama-2", "mistral-v1", "mistral-v2",
                                         "mistral-v3", "unigram.json", "bytes.json"),
                         name_of);

std::string from_hex(std::string_view hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    out.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return out;
}

TEST_P(SentencePiece, RandomStrings) {
  const json::Document golden = read_golden("spm/spm.json");
  const json::Document strings = read_golden("fuzz.json");
  const Value row = golden.root().at("tokenizers").at(GetParam());
  const std::string_view file = row.at("file").as_string();
  if (!std::filesystem::exists(file_of(file))) GTEST_SKIP() << "no " << file_of(file);
  const Tokenizer tokenizer = open(file);
  const Value texts = strings.root().at("hex");
  const std::string_view want = row.at("crc").as_string();
  ASSERT_EQ(want.size(), texts.size() * 8);
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string text = from_hex(texts[i].as_string());
    const std::vector<int32_t> ids = tokenizer.encode(text, false);
    EXPECT_EQ(crc(ids), want.substr(8 * i, 8)) << quoted(text);
    std::string streamed;
    Detokenizer stream(tokenizer, true);
    for (int32_t id : ids) streamed += stream.push(id);
    EXPECT_EQ(streamed + stream.flush(), tokenizer.decode(ids, true)) << quoted(text);
  }
}

// Those of one model family have the same pieces: one of them is enough.
class WikiText : public SentencePiece {};
INSTANTIATE_TEST_SUITE_P(Models, WikiText,
                         testing::Values("unigram", "bpe", "mistral-v3", "unigram.json",
                                         "bytes.json"),
                         name_of);
TEST_P(WikiText, Whole) {
  const json::Document golden = read_golden("spm/spm.json");
  const Value row = golden.root().at("tokenizers").at(GetParam());
  const std::string_view file = row.at("file").as_string();
  const std::filesystem::path wiki = shared_path("data/wikitext-2-raw/wiki.test.raw");
  if (!std::filesystem::exists(file_of(file)) || !std::filesystem::exists(wiki)) {
    GTEST_SKIP() << "no " << file_of(file) << " or " << wiki;
  }
  const std::string text = read_file(wiki, kBytesMax);
  const std::vector<int32_t> ids = open(file).encode(text, false);
  EXPECT_EQ(std::ssize(ids), row.at("wiki_count").as_int());
  EXPECT_EQ(crc(ids), row.at("wiki_crc").as_string());
}

TEST(SentencePieceModel, TokensAndTextOfTheOwnModels) {
  const Tokenizer bpe =
      Tokenizer::from_sentencepiece(read_file(own("spm/bpe.model"), kBytesMax), "", "bpe");
  EXPECT_EQ(bpe.bos_id(), 1);
  EXPECT_EQ(bpe.eos_id(), 2);
  EXPECT_TRUE(bpe.adds_bos());
  const std::vector<int32_t> ids = bpe.encode("  A town é \xF0\x9F\x9A\x80 of [X]42", true);
  EXPECT_EQ(ids.front(), 1);
  EXPECT_EQ(bpe.decode(ids, true), "  A town é \xF0\x9F\x9A\x80 of [X] 42");
  EXPECT_TRUE(bpe.is_special(1));
  EXPECT_FALSE(bpe.is_special(*bpe.token_id("[X]")));
  const Tokenizer ends = Tokenizer::from_sentencepiece(
      read_file(own("spm/unigram.model"), kBytesMax),
      R"({"add_bos_token":false,"add_eos_token":true,"eos_token":"</s>"})", "unigram");
  EXPECT_EQ(ends.encode("a", true).back(), 2);
  EXPECT_FALSE(ends.adds_bos());
}

TEST(SentencePieceModel, FilesAreRefusedByName) {
  const std::string whole = read_file(own("spm/bpe.model"), kBytesMax);
  const std::string cuts[] = {"",
                              "x",
                              whole.substr(0, 1000),
                              whole.substr(0, whole.size() - 3),
                              std::string(100, '\xFF'),
                              std::string("\x0A\x02\x0A\x00", 4) + whole,
                              whole + whole,
                              "\x0A\x05\x0A\x01\xFF\x18\x01"};
  for (const std::string& cut : cuts) {
    try {
      Tokenizer::from_sentencepiece(cut, "", "x.model");
      ADD_FAILURE() << "accepted " << cut.size() << " bytes";
    } catch (const Error& error) {
      EXPECT_NE(error.found.find("x.model"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace mantissa
