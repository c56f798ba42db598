// `mantissa tokenize`: text to ids, and back.
#include <boost/json.hpp>
#include <charconv>
#include <chrono>

#include "app/chat.h"
#include "app/command.h"
#include "app/load.h"
#include "app/output.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace mantissa {
namespace {

constexpr int64_t kFileBytesMax = int64_t{4} << 30;

// clang-format off
constexpr Option kOptions[] = {
    {"MODEL", OptionType::kText, "", "", "a folder with tokenizer.json"},
    {"--text", OptionType::kText, "", "TEXT", "the text; with --decode ids, between spaces or commas"},
    {"--file", OptionType::kText, "", "FILE", "a file instead of --text; -: standard input"},
    {"--messages", OptionType::kText, "", "FILE", "a conversation instead of a text: JSON, a list of messages, or an object with messages and tools, documents, chat_template_kwargs, add_generation_prompt; shows the prompt and its ids"},
    {"--chat-template", OptionType::kText, "", "FILE", "with --messages: this template instead of the model's"},
    {"--decode", OptionType::kFlag, "", "", "from ids to text"},
    {"--no-special-tokens", OptionType::kFlag, "", "", "add no BOS or EOS; with --decode, leave special tokens out of the text"},
    {"--pieces", OptionType::kFlag, "", "", "one line a token: id and the text it stands for"},
};
// clang-format on

std::string input_of(const Args& args) {
  if (args.given("text") == args.given("file"))
    throw Error(args.given("text") ? "both --text and --file are given" : "there is no text",
                "give either --text TEXT or --file FILE");
  if (args.given("file")) return read_text(args, args.text("file"), kFileBytesMax);
  check_utf8(args, "--text", args.text("text"));
  return args.text("text");
}

// "1, 2 3" or "[1,2,3]".
std::vector<int32_t> parse_ids(std::string_view text_of_ids) {
  constexpr std::string_view kBetween = ", \t\r\n[]";
  std::vector<int32_t> ids;
  for (;;) {
    text_of_ids.remove_prefix(
        std::min(text_of_ids.find_first_not_of(kBetween), text_of_ids.size()));
    if (text_of_ids.empty()) return ids;
    const std::string_view word = text_of_ids.substr(0, text_of_ids.find_first_of(kBetween));
    int32_t id = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc{} || end != word.data() + word.size() || id < 0)
      throw Error(text(quoted(word), " is no token id"), "give whole numbers of at least 0");
    ids.push_back(id);
    text_of_ids.remove_prefix(word.size());
  }
}

void decode_ids(const Args& args, const Tokenizer& tokenizer) {
  const std::vector<int32_t> ids = parse_ids(input_of(args));
  int64_t unknown = 0;
  for (int32_t id : ids) unknown += tokenizer.token(id).empty() ? 1 : 0;
  if (unknown > 0) {
    notice(args,
           text(counted(unknown, "id"), " of ", ids.size(), " no token of ", args.text("MODEL"),
                " has (ids end at ", tokenizer.vocab_size() - 1, "): left out of the text"));
  }
  const std::string decoded = tokenizer.decode(ids, args.flag("no-special-tokens"));
  if (args.flag("json"))
    print_json(boost::json::object{{"text", decoded}});
  else
    print_line(decoded);
}

void print_pieces(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  for (int32_t id : ids) print_line(text(id, "\t", quoted(tokenizer.token_bytes(id))));
}

std::string ids_line(std::span<const int32_t> ids) {
  std::string line;
  for (int32_t id : ids) line += (line.empty() ? "" : " ") + std::to_string(id);
  return line;
}

// As a server gets it: {"messages": [...], "tools": [...], ...}; or the messages alone.
void show_conversation(const Args& args, const Tokenizer& tokenizer) {
  const json::Document document = json::parse_file(args.text("messages"));
  const json::Value root = document.root();
  ChatInputs inputs{.messages = root.is_object() ? root.at("messages") : root,
                    .now = std::chrono::system_clock::now()};
  if (root.is_object()) {
    inputs.tools = root.find_set("tools");
    inputs.documents = root.find_set("documents");
    inputs.variables = root.find_set("chat_template_kwargs");
    if (const auto prompt = root.find_set("add_generation_prompt")) {
      inputs.add_generation_prompt = prompt->as_bool();
    }
  }
  const ChatTemplate code = chat_template_for(args, tokenizer, inputs.tools.has_value());
  const std::string prompt = code.render(inputs, tokenizer.special_tokens());
  const std::vector<int32_t> ids = tokenizer.encode(prompt, /*add_special_tokens=*/false);
  if (args.flag("json")) {
    print_json(boost::json::object{{"prompt", prompt},
                                   {"ids", boost::json::array(ids.begin(), ids.end())}});
  } else if (args.flag("pieces")) {
    print_pieces(tokenizer, ids);
  } else {
    print_line(prompt);
    print_line(ids_line(ids));
  }
}

void run(const Args& args) {
  const Tokenizer tokenizer = open_tokenizer(args, args.text("MODEL"));
  if (args.given("messages")) {
    for (const char* name : {"text", "file", "decode"}) {
      if (args.given(name)) {
        throw Error(text("both --messages and --", name, " are given"), "give one of them");
      }
    }
    return show_conversation(args, tokenizer);
  }
  if (args.given("chat-template")) {
    throw Error("--chat-template has no effect without --messages", "add --messages FILE");
  }
  if (args.flag("pieces") && (args.flag("decode") || args.flag("json"))) {
    throw Error(text("--pieces has no effect with --", args.flag("json") ? "json" : "decode"),
                "leave one of them out");
  }
  if (args.flag("decode")) return decode_ids(args, tokenizer);
  const std::vector<int32_t> ids =
      tokenizer.encode(input_of(args), !args.flag("no-special-tokens"));
  if (args.flag("json")) {
    print_json(boost::json::object{{"ids", boost::json::array(ids.begin(), ids.end())}});
  } else if (args.flag("pieces")) {
    print_pieces(tokenizer, ids);
  } else {
    print_line(ids_line(ids));
  }
}

}  // namespace

const Verb kTokenizeVerb = {
    .name = "tokenize",
    .summary = "text to token ids, and back",
    .details = "",
    .examples =
        "mantissa tokenize models/wiki-6m --text \"The history of\"\n"
        "mantissa tokenize models/wiki-6m --text \"The history of\" --pieces\n"
        "mantissa tokenize models/wiki-6m --file README.md --json --no-special-tokens\n"
        "mantissa tokenize MODEL --messages conversation.json\n"
        "mantissa tokenize models/wiki-6m --decode --text \"415 1503 302\"",
    .groups = kCommonOnly,
    .options = kOptions,
    .run = run,
};

}  // namespace mantissa
