// `mantissa generate` with every tiny checkpoint of tests/golden/models: transformers' greedy
// continuation, token for token.
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "run_binary.h"

namespace mantissa {
namespace {

namespace fs = std::filesystem;
namespace bj = boost::json;

constexpr int kFirstLetter = 3;  // ids below are <unk>, <s> and </s>

// Token i is the letter U+0400 + i; the longest vocabulary here ends before U+0500.
std::string letter(int64_t id) {
  const auto code = static_cast<unsigned>(0x400 + id);
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 63))};
}

bj::object tokenizer_of(int64_t vocab) {
  bj::object ids{{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int64_t id = kFirstLetter; id < vocab; ++id) ids[letter(id)] = id;
  const auto special = [](int id, const char* content) {
    return bj::object{{"id", id},        {"content", content}, {"single_word", false},
                      {"lstrip", false}, {"rstrip", false},    {"normalized", false},
                      {"special", true}};
  };
  const bj::object bos{{"SpecialToken", bj::object{{"id", "<s>"}, {"type_id", 0}}}};
  const bj::object text{{"Sequence", bj::object{{"id", "A"}, {"type_id", 0}}}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", bj::array{special(1, "<s>"), special(2, "</s>")}},
          {"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"post_processor",
           bj::object{
               {"type", "TemplateProcessing"},
               {"single", bj::array{bos, text}},
               {"pair", bj::array{}},
               {"special_tokens", bj::object{{"<s>", bj::object{{"id", "<s>"},
                                                                {"ids", bj::array{1}},
                                                                {"tokens", bj::array{"<s>"}}}}}}}},
          {"decoder", nullptr},
          {"model", bj::object{{"type", "BPE"},
                               {"dropout", nullptr},
                               {"unk_token", "<unk>"},
                               {"continuing_subword_prefix", nullptr},
                               {"end_of_word_suffix", nullptr},
                               {"fuse_unk", false},
                               {"byte_fallback", false},
                               {"vocab", ids},
                               {"merges", bj::array{}}}}};
}

// A folder of links to a golden model's files, with a tokenizer beside them.
struct WithTokenizer {
  explicit WithTokenizer(const fs::path& model, int64_t vocab)
      : folder(fs::temp_directory_path() / ("mantissa-greedy-" + std::to_string(getpid()))) {
    fs::remove_all(folder);
    fs::create_directories(folder);
    for (const auto& file : fs::directory_iterator(model)) {
      fs::create_symlink(fs::absolute(file.path()), folder / file.path().filename());
    }
    std::ofstream(folder / "tokenizer.json") << bj::serialize(tokenizer_of(vocab));
  }
  ~WithTokenizer() { fs::remove_all(folder); }
  WithTokenizer(const WithTokenizer&) = delete;
  WithTokenizer& operator=(const WithTokenizer&) = delete;
  fs::path folder;
};

TEST(Greedy, GenerateEqualsTransformersOnEveryTinyCheckpoint) {
  const fs::path models = fs::path(MANTISSA_SOURCE_DIR) / "tests/golden/models";
  int count = 0;
  for (const auto& entry : fs::directory_iterator(models)) {
    SCOPED_TRACE(entry.path().filename().string());
    const bj::value golden = bj::parse(read_file(entry.path() / "golden.json", 1 << 24));
    const bj::value& greedy = golden.at("greedy");
    std::string prompt;
    for (const bj::value& id : greedy.at("prompt").as_array()) {
      if (id.to_number<int64_t>() >= kFirstLetter) prompt += letter(id.to_number<int64_t>());
    }
    const WithTokenizer model(entry.path(), golden.at("vocab_size").to_number<int64_t>());
    const RunResult result = run_mantissa(
        {"generate", model.folder.string(), "--device", "ref", "--dtype", "float32", "--threads",
         "2", "--temperature", "0", "--ignore-eos", "--max-tokens",
         std::to_string(greedy.at("ids").as_array().size()), "--json", "--prompt", prompt});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(bj::parse(result.out).at("token_ids"), greedy.at("ids"));
    ++count;
  }
  EXPECT_GE(count, 20);
}

}  // namespace
}  // namespace mantissa
