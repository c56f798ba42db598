// `mantissa generate --chat` and `tokenize --messages` as a user and a script see them.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/file.h"
#include "base/json.h"
#include "run_binary.h"

namespace mantissa {
namespace {

const std::string kTemplate = std::string(MANTISSA_SOURCE_DIR) + "/tests/app/chat.jinja";

// A shell line that sends the messages to a conversation.
RunResult converse(const std::string& messages, const std::string& options) {
  return run_shell("printf '" + messages + "' | $MANTISSA generate " + demo_model() +
                   " --threads 2 --chat --chat-template " + kTemplate + " --temperature 0 " +
                   options);
}

std::vector<std::string> lines_of(const std::string& out) {
  std::vector<std::string> lines;
  std::istringstream stream(out);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

struct Reply {
  std::string prompt, text, finish;
  int64_t prompt_tokens = 0;
};
std::vector<Reply> replies_of(const RunResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  std::vector<Reply> out;
  for (const std::string& line : lines_of(result.out)) {
    const json::Document document = json::parse(line, "reply");
    const json::Value root = document.root();
    out.push_back(
        {std::string(root.at("prompt").as_string()), std::string(root.at("text").as_string()),
         std::string(root.at("finish_reason").as_string()), root.at("prompt_tokens").as_int()});
  }
  return out;
}

TEST(Chat, EachLineIsAMessageAndTheHistoryGrows) {
  const auto replies = replies_of(converse("The city?\\nThe river?\\n", "--json --max-tokens 8"));
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].prompt, "The city?");
  EXPECT_EQ(replies[1].prompt, "The river?");
  EXPECT_FALSE(replies[0].text.empty());
  // The second prompt holds the first, its answer and the new message.
  EXPECT_GT(replies[1].prompt_tokens, 2 * replies[0].prompt_tokens);
}

TEST(Chat, AnAnswerDependsOnTheHistoryAlone) {
  const auto once = replies_of(converse("The city?\\n", "--json --max-tokens 8"));
  const auto again = replies_of(converse("x\\n/reset\\nThe city?\\n", "--json --max-tokens 8"));
  ASSERT_EQ(again.size(), 2u);
  EXPECT_EQ(again[1].text, once.at(0).text);
  EXPECT_EQ(again[1].prompt_tokens, once.at(0).prompt_tokens);
}

TEST(Chat, SystemMessageByCommandAndByOptionAreTheSame) {
  const auto option = replies_of(converse("Hi\\n", "--json --max-tokens 4 --system 'Be brief.'"));
  const auto command = replies_of(converse("/system Be brief.\\nHi\\n", "--json --max-tokens 4"));
  EXPECT_EQ(option.at(0).text, command.at(0).text);
  EXPECT_EQ(option.at(0).prompt_tokens, command.at(0).prompt_tokens);
}

TEST(Chat, CommandsAnswerOnStandardError) {
  const RunResult result =
      converse("Hi\\n/stats\\n/help\\n/nope\\n//x\\n/exit\\nnever\\n", "--max-tokens 4");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_GE(lines_of(result.out).size(), 2u) << result.out;
  for (const char* part : {"of 512 tokens", "last answer: 4 tokens", "/reset",
                           "there is no command /nope", "computes the whole conversation again"}) {
    EXPECT_NE(result.err.find(part), std::string::npos) << part << "\n" << result.err;
  }
}

TEST(Chat, AFullContextSaysSo) {
  const RunResult result = converse("Hi\\n", "--max-model-len 24");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("(cut: the context is full"), std::string::npos) << result.err;
  const RunResult second = converse("Hi\\nHi\\n", "--max-model-len 24");
  EXPECT_EQ(second.exit_code, 2);
  EXPECT_NE(second.err.find("the context 24"), std::string::npos) << second.err;
  EXPECT_NE(second.err.find("/reset"), std::string::npos) << second.err;
}

TEST(Chat, CtrlCStopsTheAnswerAndNotTheProgram) {
  const std::string folder = testing::TempDir() + "mantissa_chat";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directory(folder);
  // The signal is sent when the first words are there, the next message when the stop is reported.
  const RunResult result = run_shell(
      "cd " + folder + " && mkfifo in && { $MANTISSA generate " + demo_model() +
      " --device ref --chat --chat-template " + kTemplate +
      " --ignore-eos < in > out 2> err & } && "
      "p=$! && exec 3> in && echo Hi >&3 && until [ -s out ]; do sleep 0.05; done && kill -INT $p "
      "&& "
      "until grep -q stopped err; do sleep 0.05; done && echo /stats >&3 && exec 3>&- && wait $p; "
      "echo rc $?; cat err >&2");
  EXPECT_NE(result.out.find("rc 0"), std::string::npos) << result.out << result.err;
  EXPECT_NE(result.err.find("stopped"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("2 messages"), std::string::npos) << result.err;
}

TEST(Chat, APromptIsOneMessage) {
  const std::string base =
      "$MANTISSA generate " + demo_model() + " --json --temperature 0 --max-tokens 8 ";
  const RunResult chat =
      run_shell(base + "--chat --chat-template " + kTemplate + " --system S --prompt 'The city?'");
  // The same prompt, written out.
  const RunResult plain = run_shell(base + "--prompt 'System: S\nUser: The city?\nAssistant:'");
  ASSERT_EQ(chat.exit_code, 0) << chat.err;
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  const Reply a = replies_of(chat).at(0), b = replies_of(plain).at(0);
  EXPECT_EQ(a.text, b.text);
  EXPECT_EQ(a.prompt_tokens, b.prompt_tokens);
  EXPECT_EQ(a.prompt, "The city?");
}

TEST(Chat, WhatCannotWorkSaysWhatToDo) {
  struct Refusal {
    const char* options;
    const char* names;
  };
  const Refusal refusals[] = {
      {"generate MODEL --chat", "no chat template"},
      {"generate MODEL --chat --chat-template /no/such", "/no/such"},
      {"generate MODEL --prompt x --system y", "--chat"},
      {"tokenize MODEL --messages /no/such", "/no/such"},
      {"tokenize MODEL --text x --chat-template y", "--messages"},
  };
  for (const Refusal& refusal : refusals) {
    std::string line = refusal.options;
    line.replace(line.find("MODEL"), 5, demo_model());
    const RunResult result = run_shell("$MANTISSA " + line);
    EXPECT_EQ(result.exit_code, 2) << line;
    EXPECT_NE(result.err.find(refusal.names), std::string::npos) << line << "\n" << result.err;
  }
}

TEST(Chat, TokenizeShowsThePromptOfAConversation) {
  const std::string file = testing::TempDir() + "mantissa_messages.json";
  std::ofstream(file)
      << R"({"messages":[{"role":"user","content":" Hi "}],"add_generation_prompt":false})";
  const std::string command = "$MANTISSA tokenize " + demo_model() + " --messages " + file +
                              " --chat-template " + kTemplate;
  const RunResult text = run_shell(command);
  EXPECT_EQ(text.out.substr(0, text.out.rfind('\n', text.out.size() - 2)),
            "<|begin_of_text|>User: Hi\n")
      << text.err;
  const RunResult json = run_shell(command + " --json");
  const json::Document document = json::parse(json.out, "out");
  EXPECT_EQ(document.root().at("prompt").as_string(), "<|begin_of_text|>User: Hi\n");
  EXPECT_EQ(document.root().at("ids")[0].as_int(), 0);
  std::ofstream(file) << R"([{"role":"user","content":"a"},{"role":"system","content":"b"}])";
  const RunResult refused = run_shell(command);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("refused the conversation: the system message must come first"),
            std::string::npos)
      << refused.err;
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace mantissa
