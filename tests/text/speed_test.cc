// No text is slow: a megabyte of one repeated character encodes in under a second of processor
// time, with every tokenizer at hand.
#include <gtest/gtest.h>

#include <ctime>

#include "base/file.h"
#include "text/tokenizer.h"
#include "text_paths.h"

namespace mantissa {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(NDEBUG)
constexpr double kSecondsMax = 30;
#else
constexpr double kSecondsMax = 1;
#endif

struct Place {
  const char* name;
  const char* file;  // of the source tree or the shared folder
};
constexpr Place kPlaces[] = {
    {"wiki6m", "models/wiki-6m"},
    {"ownBpe", "tests/golden/text/spm/bpe.model"},
    {"ownUnigram", "tests/golden/text/spm/unigram.model"},
    {"unigramJson", "tests/golden/text/spm/unigram.json"},
    {"llama2", "tokenizers/llama2"},
    {"llama3", "tokenizers/llama3"},
    {"qwen25", "tokenizers/qwen2.5"},
    {"gpt2", "tokenizers/gpt2"},
    {"phi3", "tokenizers/phi-3-mini"},
    {"minimind", "tokenizers/minimind-6400"},
    {"mistral", "tokenizers/mistral/mistral_instruct_tokenizer_240323.model.v3"},
};

Tokenizer open(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) return Tokenizer::load(path);
  const std::string bytes = read_file(path, 1 << 24);
  return path.extension() == ".json" ? Tokenizer::from_json(bytes, "", path.string())
                                     : Tokenizer::from_sentencepiece(bytes, "", path.string());
}

class Speed : public testing::TestWithParam<Place> {};
INSTANTIATE_TEST_SUITE_P(Tokenizers, Speed, testing::ValuesIn(kPlaces),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(Speed, AMegabyteOfOneCharacter) {
  const std::filesystem::path own = std::filesystem::path(MANTISSA_SOURCE_DIR) / GetParam().file;
  const std::filesystem::path path =
      std::filesystem::exists(own) ? own : shared_path(GetParam().file);
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  const Tokenizer tokenizer = open(path);
  struct Case {
    std::string part;
    size_t bytes;
  };
  const Case cases[] = {{" ", 1'000'000},      {"a", 1'000'000},
                        {"\n", 250'000},       {"\xF0\x9F\x9A\x80", 250'000},
                        {"0", 250'000},        {"\xE2\x96\x81", 250'000},
                        {"\xCC\x81", 250'000}, {"'", 250'000}};
  for (const Case& c : cases) {
    std::string text;
    while (text.size() < c.bytes) text += c.part;
    const std::clock_t start = std::clock();
    const std::vector<int32_t> ids = tokenizer.encode(text, false);
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    EXPECT_LT(seconds, kSecondsMax * static_cast<double>(c.bytes) * 1e-6)
        << quoted(c.part) << ": " << ids.size() << " ids";
  }
}

}  // namespace
}  // namespace mantissa
