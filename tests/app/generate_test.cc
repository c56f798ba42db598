// `mantissa generate` as a user and a script see it.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/file.h"
#include "base/json.h"
#include "run_binary.h"

namespace mantissa {
namespace {

std::vector<std::string> generate(std::vector<std::string> options) {
  std::vector<std::string> words = {"generate", demo_model(), "--threads", "2"};
  words.insert(words.end(), options.begin(), options.end());
  return words;
}

std::vector<std::string> lines_of(const std::string& out) {
  std::vector<std::string> lines;
  std::istringstream stream(out);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string string_at(const std::string& line, std::string_view key) {
  const json::Document document = json::parse(line, "line");
  return std::string(document.root().at(key).as_string());
}

TEST(Generate, JsonHasTheFieldsThatScriptsRelyOn) {
  const RunResult result = run_mantissa(
      generate({"--prompt", "The history of", "--json", "--max-tokens", "5", "--ignore-eos"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::vector<std::string> lines = lines_of(result.out);
  ASSERT_EQ(lines.size(), 1u);
  const json::Document document = json::parse(lines[0], "line");
  const json::Value root = document.root();
  EXPECT_EQ(root.size(), 7u);
  EXPECT_EQ(root.at("prompt").as_string(), "The history of");
  EXPECT_FALSE(root.at("text").as_string().empty());
  EXPECT_EQ(root.at("token_ids").size(), 5u);
  EXPECT_EQ(root.at("finish_reason").as_string(), "length");
  EXPECT_EQ(root.at("prompt_tokens").as_int(), 4);
  EXPECT_EQ(root.at("completion_tokens").as_int(), 5);
  EXPECT_GT(root.at("seconds").as_number(), 0);
  EXPECT_NE(result.err.find("temperature 0.8 (generation_config.json)"), std::string::npos);
}

TEST(Generate, StreamsTheSameTextThatJsonHolds) {
  const std::vector<std::string> options = {"--prompt",      "The city of", "--max-tokens", "20",
                                            "--temperature", "0",           "-q",           "int8"};
  std::vector<std::string> with_json = options;
  with_json.emplace_back("--json");
  const RunResult as_text = run_mantissa(generate(options));
  const RunResult as_json = run_mantissa(generate(with_json));
  ASSERT_EQ(as_text.exit_code, 0) << as_text.err;
  EXPECT_EQ(as_text.out, string_at(lines_of(as_json.out).at(0), "text") + "\n");
}

TEST(Generate, AFileHasOnePromptALineAndAnswersKeepTheirOrder) {
  const std::string path = testing::TempDir() + "mantissa_prompts.txt";
  std::ofstream(path, std::ios::binary) << "The river\r\n\nThe history of the town\n";
  const RunResult result =
      run_mantissa(generate({"--prompt", "First", "--prompts-file", path, "--json", "--max-tokens",
                             "6", "--max-num-seqs", "2", "--seed", "3"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::vector<std::string> lines = lines_of(result.out);
  const std::vector<std::string> prompts = {"First", "The river", "", "The history of the town"};
  ASSERT_EQ(lines.size(), prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(string_at(lines[i], "prompt"), prompts[i]);
    const RunResult alone = run_mantissa(
        generate({"--prompt", prompts[i], "--json", "--max-tokens", "6", "--seed", "3"}));
    EXPECT_EQ(string_at(lines_of(alone.out).at(0), "text"), string_at(lines[i], "text"));
  }
}

TEST(Generate, ManyPromptsHaveHeadings) {
  const RunResult result =
      run_mantissa(generate({"--prompt", "One\ntwo", "--prompt", "Three", "--max-tokens", "3"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(result.out.starts_with("[1] \"One\\ntwo\"\n")) << result.out;
  EXPECT_NE(result.out.find("\n\n[2] \"Three\"\n"), std::string::npos) << result.out;
}

TEST(Generate, StopStringsEndTheText) {
  const std::vector<std::string> base = {
      "--prompt", "The history of", "--max-tokens", "30", "--temperature", "0", "--json"};
  const std::string whole = string_at(run_mantissa(generate(base)).out, "text");
  ASSERT_GT(whole.size(), 20u);
  std::vector<std::string> stopped = base;
  const std::string stop = whole.substr(9, 4);
  stopped.insert(stopped.end(), {"--stop", "not there", "--stop", stop});
  const std::string line = run_mantissa(generate(stopped)).out;
  EXPECT_EQ(string_at(line, "text"), whole.substr(0, whole.find(stop)));
  EXPECT_EQ(string_at(line, "finish_reason"), "stop");
}

TEST(Generate, LogprobsAreBesideTheirTokens) {
  const RunResult result =
      run_mantissa(generate({"--prompt", "The", "--json", "--max-tokens", "3", "--ignore-eos",
                             "--temperature", "0", "--logprobs", "2"}));
  const json::Document document = json::parse(result.out, "line");
  const json::Value tokens = document.root().at("logprobs");
  ASSERT_EQ(tokens.size(), 3u);
  for (size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_EQ(tokens[i].at("id").as_int(), document.root().at("token_ids")[i].as_int());
    ASSERT_EQ(tokens[i].at("top").size(), 2u);
    EXPECT_EQ(tokens[i].at("top")[0].at("logprob").as_number(),
              tokens[i].at("logprob").as_number());
  }
}

TEST(Generate, PromptsThatAreNoUtf8GiveJsonThatIs) {
  const RunResult result =
      run_mantissa(generate({"--prompt", "a\xFF\xC3", "--json", "--max-tokens", "1"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(string_at(result.out, "prompt"), "a\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_NE(result.err.find("notice: --prompt is no valid UTF-8 at byte 1"), std::string::npos);
}

struct Refusal {
  std::vector<std::string> options;
  const char* found;
  const char* fix;
};

TEST(Generate, RefusesBeforeAnythingIsLoaded) {
  const std::string empty = testing::TempDir() + "mantissa_empty.txt";
  std::ofstream(empty, std::ios::binary).flush();
  const Refusal refusals[] = {
      {{}, "there is no prompt", "--prompts-file"},
      {{"--prompts-file", empty}, "is empty", "add a prompt"},
      {{"--prompts-file", "/nowhere.txt"}, "/nowhere.txt", "path"},
      {{"--prompt", "a", "--max-tokens", "600"},
       "the prompt has 2 tokens and max_tokens is 600, together more than the context of 512",
       "at most 510"},
      {{"--prompt", "a", "--prompt", "b", "--max-tokens", "600"}, "prompt 1: ", "at most 510"},
      {{"--prompt", "abc def", "--max-model-len", "2"}, "and the context ends at 2", "shorter"},
      {{"--prompt", "a", "--top-p", "0"}, "top_p is 0", "at most 1"},
      {{"--prompt", "a", "--top-p", "2"}, "top_p is 2", "more than 0, at most 1"},
      {{"--prompt", "a", "--temperature", "-1"}, "--temperature is \"-1\"", "0"},
      {{"--prompt", "a", "--repetition-penalty", "0"}, "repetition_penalty is 0", "more than 0"},
      {{"--prompt", "a", "--stop", ""}, "a stop string is empty", "leave it out"},
      {{"--prompt", "a", "--stop-token-id", "x"}, "\"x\" is no token id", "whole number"},
      {{"--prompt", "a", "--stop-token-id", "8192"}, "stop token id 8192", "0 to 8191"},
      {{"--prompt", "a", "--logprobs", "2"}, "--logprobs", "--json"},
      {{"--prompt", "a", "-q", "fp99"}, "fp99", "fix"},
  };
  for (const Refusal& refusal : refusals) {
    const RunResult result = run_mantissa(generate(refusal.options));
    EXPECT_EQ(result.exit_code, 2) << refusal.found;
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(result.err.find("plan for"), std::string::npos) << result.err;
    EXPECT_NE(result.err.find(refusal.found), std::string::npos) << result.err;
    EXPECT_NE(result.err.find(refusal.fix), std::string::npos) << result.err;
  }
}

TEST(Generate, ThePublishedStory) {
  const std::filesystem::path stories =
      std::filesystem::path(MANTISSA_SHARED_DIR) / "models" / "stories260K";
  if (!std::filesystem::exists(stories)) GTEST_SKIP() << "needs the shared folder's stories260K";
  const RunResult result =
      run_mantissa({"generate", stories.string(), "--prompt", "", "--max-tokens", "256",
                    "--temperature", "0", "--dtype", "float32"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, read_file(stories / "expected_greedy.txt", 1 << 20));
}

}  // namespace
}  // namespace mantissa
