// Streams of real tokenizers: what follows a prompt, in pieces of valid UTF-8, is what decoding
// prompt and answer together shows behind the prompt.
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/engine.h"
#include "text/utf8.h"

namespace mantissa {
namespace {

struct StreamCase {
  const char* prompt;
  const char* answer;
};
constexpr StreamCase kCases[] = {
    {"", "Once upon a time"},
    {"Once upon", " a time, in a far-away land."},
    {"Grüße \xF0\x9F\x98\x80", "\xF0\x9F\x98\x80 und \xE4\xB8\xAD\xE6\x96\x87!"},
    {"line\n", "\n\nnext  two spaces"},
};

void check_folder(const std::filesystem::path& folder) {
  const Tokenizer tokenizer = Tokenizer::load(folder);
  const EngineText codec = engine_text(tokenizer);
  for (const StreamCase& c : kCases) {
    SCOPED_TRACE(folder.filename().string() + ": " + c.prompt + "|" + c.answer);
    const std::vector<int32_t> prompt = codec.encode(c.prompt);
    std::vector<int32_t> all = codec.encode(std::string(c.prompt) + c.answer);
    if (!std::equal(prompt.begin(), prompt.end(), all.begin())) {
      all = prompt;  // the answer merges with the prompt's end: take its own ids instead
      const std::vector<int32_t> more = tokenizer.encode(c.answer, false);
      all.insert(all.end(), more.begin(), more.end());
    }
    const TextStream stream = codec.stream(prompt);
    std::string got;
    for (size_t i = prompt.size(); i < all.size(); ++i) {
      const std::string piece = stream.push(all[i]);
      EXPECT_TRUE(is_valid_utf8(piece));
      got += piece;
    }
    got += stream.flush();
    EXPECT_EQ(tokenizer.decode(prompt, true) + got, tokenizer.decode(all, true));
    EXPECT_FALSE(got.empty());
  }
}

TEST(TextStream, ContinuesAByteLevelPrompt) {
  check_folder(std::filesystem::path(MANTISSA_SOURCE_DIR) / "models" / "wiki-6m");
}

TEST(TextStream, ContinuesPromptsOfOtherTokenizers) {
  const std::filesystem::path shared = MANTISSA_SHARED_DIR;
  const std::filesystem::path stories = shared / "models" / "stories260K";
  if (!std::filesystem::exists(stories)) GTEST_SKIP() << "needs the shared folder";
  check_folder(stories);
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(shared / "tokenizers")) {
    if (!std::filesystem::exists(entry.path() / "tokenizer.json")) continue;
    check_folder(entry.path());
    ++count;
  }
  EXPECT_GE(count, 4);
}

}  // namespace
}  // namespace mantissa
