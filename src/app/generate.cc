// `mantissa generate`: one or many prompts in one continuous batch; text streams as it comes.
#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <chrono>

#include "app/answer.h"
#include "app/chat.h"
#include "app/command.h"
#include "app/load.h"
#include "app/output.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/engine.h"

namespace mantissa {
namespace {

constexpr int64_t kPromptsBytesMax = int64_t{1} << 30;
constexpr double kMany = 1e15;

// clang-format off
constexpr Option kOptions[] = {
    {"--prompt", OptionType::kList, "", "TEXT", "what to continue; may be given several times"},
    {"--prompts-file", OptionType::kText, "", "F", "a file with one prompt a line; -: standard input"},
    {"--max-tokens", OptionType::kInteger, "", "N", "most tokens of an answer; unset: the model's max_new_tokens, else 256, fewer where the context ends before; in a conversation what the context holds", "", 1, kMany},
    {"--temperature", OptionType::kReal, "", "T", "0: always the most likely token; unset: the model's, else 1", "", 0, 1e6},
    {"--top-p", OptionType::kReal, "", "P", "only the likeliest tokens that reach this mass; unset: the model's, else 1"},
    {"--top-k", OptionType::kInteger, "", "K", "only the K likeliest tokens, 0 for all; unset: the model's, else 0", "", -1, kMany},
    {"--min-p", OptionType::kReal, "", "P", "only tokens with this share of the likeliest one's probability; unset: the model's, else 0", "", 0, 1},
    {"--repetition-penalty", OptionType::kReal, "", "R", "above 1: tokens seen before become less likely; unset: the model's, else 1"},
    {"--stop", OptionType::kList, "", "S", "ends an answer, and is not part of it; may be given several times"},
    {"--stop-token-id", OptionType::kList, "", "ID", "ends an answer, besides the model's own end tokens; may be given several times"},
    {"--ignore-eos", OptionType::kFlag, "", "", "the model's end tokens do not end an answer"},
    {"--chat", OptionType::kFlag, "", "", "through the model's chat template: a conversation in the terminal (or one message a line), or --prompt as one message"},
    {"--system", OptionType::kText, "", "TEXT", "with --chat: the system message"},
    {"--chat-template", OptionType::kText, "", "FILE", "with --chat: this template instead of the model's"},
    {"--logprobs", OptionType::kInteger, "", "N", "with --json: each token's log-probability, and that of the N likeliest ones", "", 0, kLogprobsMax},
};
// clang-format on

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Whether standard input gives the messages.
bool is_conversation(const Args& args) {
  return args.flag("chat") && !args.given("prompt") && !args.given("prompts-file");
}

std::vector<std::string> prompts_of(const Args& args) {
  for (const char* name : {"system", "chat-template"}) {
    if (args.given(name) && !args.flag("chat")) {
      throw Error(text("--", name, " has no effect without --chat"), "add --chat, or leave it out");
    }
  }
  std::vector<std::string> prompts = args.list("prompt");
  for (const std::string& prompt : prompts) check_utf8(args, "--prompt", prompt);
  if (args.flag("chat")) check_utf8(args, "--system", args.text("system"));
  if (args.given("prompts-file")) {
    const std::string content = read_text(args, args.text("prompts-file"), kPromptsBytesMax);
    for (size_t at = 0; at < content.size();) {
      const size_t end = std::min(content.find('\n', at), content.size());
      std::string line = content.substr(at, end - at);
      if (line.ends_with('\r')) line.pop_back();
      prompts.push_back(std::move(line));
      at = end + 1;
    }
    if (content.empty()) throw Error(text(args.text("prompts-file"), " is empty"), "add a prompt");
  }
  if (prompts.empty()) {
    throw Error("there is no prompt", "give --prompt TEXT, --prompts-file FILE or --chat");
  }
  return prompts;
}

int32_t token_id_of(const std::string& word) {
  int32_t id = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
  if (error != std::errc{} || end != word.data() + word.size()) {
    throw Error(text("--stop-token-id ", quoted(word), " is no token id"), "give a whole number");
  }
  return id;
}

SamplingOptions sampling_of(const Args& args) {
  const auto real = [&](const char* name) {
    return args.given(name) ? std::optional(args.real(name)) : std::nullopt;
  };
  const auto integer = [&](const char* name) {
    return args.given(name) ? std::optional(args.integer(name)) : std::nullopt;
  };
  SamplingOptions o;
  o.max_tokens = integer("max-tokens");
  o.temperature = real("temperature");
  o.top_p = real("top-p");
  o.min_p = real("min-p");
  o.repetition_penalty = real("repetition-penalty");
  o.top_k = integer("top-k");
  o.seed = static_cast<uint64_t>(args.integer("seed"));
  o.stop = args.list("stop");
  for (const std::string& id : args.list("stop-token-id")) {
    o.stop_token_ids.push_back(token_id_of(id));
  }
  o.ignore_eos = args.flag("ignore-eos");
  if (args.given("logprobs")) {
    if (!args.flag("json")) throw Error("--logprobs shows in JSON only", "add --json");
    o.logprobs = static_cast<int>(args.integer("logprobs"));
  }
  return o;
}

// "[2] "The city of"", on one line.
std::string heading(size_t number, const std::string& prompt) {
  std::string line = text("[", number, "] ", quoted(prompt));
  for (size_t at = line.find('\n'); at != std::string::npos; at = line.find('\n', at)) {
    line.replace(at, 1, "\\n");
  }
  return line;
}

// Prints answers in the order of their prompts: JSON when one is complete, text as it comes. What
// later prompts have said meanwhile waits.
class Printer {
 public:
  Printer(const Args& args, size_t prompts)
      : json_(args.flag("json")), logprobs_(args.given("logprobs")), many_(prompts > 1) {}

  void show(const std::vector<Answer>& answers) {
    for (; next_ < answers.size(); ++next_, shown_ = 0) {
      const Answer& answer = answers[next_];
      const bool done = answer.finish != FinishReason::kNone;
      if (!json_) show_text(answer, done);
      if (!done) return;
      if (json_) print_json(json_of(answer, logprobs_));
      started_ = false;
    }
  }

 private:
  void show_text(const Answer& answer, bool done) {
    if (many_ && !started_) {
      if (next_ > 0) print_line("");
      print_line(heading(next_ + 1, answer.prompt));
    }
    started_ = true;
    if (answer.text.size() > shown_) print_text(std::string_view(answer.text).substr(shown_));
    shown_ = answer.text.size();
    if (done) print_line("");
  }

  bool json_, logprobs_, many_;
  size_t next_ = 0;       // the prompt whose answer comes now
  size_t shown_ = 0;      // bytes of its text
  bool started_ = false;  // its heading is printed
};

struct Totals {
  double first_token_seconds = 0, seconds = 0;
  int64_t prompt_tokens = 0, tokens = 0;
};

Totals run_batch(const Args& args, Engine& engine, const SamplingOptions& sampling,
                 std::vector<Answer>& answers, std::vector<std::vector<int32_t>>& prompts) {
  const Clock::time_point start = Clock::now();
  Totals totals;
  for (size_t i = 0; i < answers.size(); ++i) {
    const SequenceId id = engine.submit({std::move(prompts[i]), sampling});
    check(id == static_cast<SequenceId>(i), "ids count the prompts");
    totals.prompt_tokens += answers[i].prompt_tokens;
  }
  Printer printer(args, answers.size());
  Progress progress(args, "generating");
  size_t done = 0;
  while (!engine.idle()) {
    for (const OutputDelta& delta : engine.step()) {
      if (delta.error) throw *delta.error;
      Answer& answer = answers[static_cast<size_t>(delta.id)];
      add(answer, delta);
      answer.seconds = seconds_since(start);
      if (totals.tokens == 0) totals.first_token_seconds = answer.seconds;
      totals.tokens += static_cast<int64_t>(delta.token_ids.size());
      done += delta.finish != FinishReason::kNone ? 1 : 0;
    }
    if (args.flag("json")) progress.clear();
    printer.show(answers);
    if (args.flag("json")) {
      progress.update(static_cast<int64_t>(done), static_cast<int64_t>(answers.size()));
    }
  }
  totals.seconds = seconds_since(start);
  return totals;
}

// Before anything is loaded: parameters out of range, prompts that do not fit. code: nullptr
// without --chat.
std::vector<std::vector<int32_t>> encode_prompts(const Args& args, const Tokenizer& tokenizer,
                                                 const ChatTemplate* code,
                                                 const ModelConfig& config, int64_t context,
                                                 std::vector<Answer>& answers) {
  const SchedulerLimits limits{
      .step_tokens_max = {}, .page = {1}, .pages = {context}, .context_max = {context}};
  const int64_t max_tokens = args.given("max-tokens") ? args.integer("max-tokens") : 1;
  std::vector<std::vector<int32_t>> prompts;
  for (size_t i = 0; i < answers.size(); ++i) {
    Answer& answer = answers[i];
    try {
      prompts.push_back(code ? chat_prompt(*code, tokenizer, args.text("system"), answer.prompt).ids
                             : tokenizer.encode(answer.prompt, /*add_special_tokens=*/true));
      answer.prompt_tokens = std::ssize(prompts.back());
      if (prompts.back().empty()) {
        throw Error("the prompt has no tokens", "give a text; this tokenizer adds no first token");
      }
      check_vocabulary(tokenizer, config, prompts.back());
      check_fits({answer.prompt_tokens}, {max_tokens}, limits);
    } catch (const Error& e) {
      if (answers.size() == 1) throw;
      throw Error(text("prompt ", i + 1, ": ", e.found), e.fix);
    }
  }
  return prompts;
}

// A chat model's turn ends with the tokenizer's eos_token, whatever its config.json calls the end.
void add_turn_end(const Tokenizer& tokenizer, SamplingOptions& sampling) {
  if (tokenizer.eos_id() && !sampling.ignore_eos) {
    sampling.stop_token_ids.push_back(*tokenizer.eos_id());
  }
}

void note_totals(const Engine& engine, const Totals& totals, int64_t prompts) {
  const EngineStats stats = engine.stats();
  note(text(counted(prompts, "prompt"), " of ", counted(totals.prompt_tokens, "token"), ", ",
            totals.tokens, " generated in ", human_seconds(totals.seconds), ", ",
            fixed(static_cast<double>(totals.tokens) / totals.seconds, 1),
            " tokens/s; the first after ", human_seconds(totals.first_token_seconds),
            stats.preemptions > 0 ? text("; ", stats.preemptions,
                                         " times a sequence was computed again: the KV "
                                         "cache is small")
                                  : ""));
}

void run(const Args& args) {
  ModelOptions options = model_options_of(args);
  set_limit_options(args, options);
  SamplingOptions sampling = sampling_of(args);
  const bool conversation = is_conversation(args);
  std::vector<Answer> answers;
  if (!conversation) {
    for (std::string& prompt : prompts_of(args)) answers.emplace_back().prompt = std::move(prompt);
  }
  const ModelConfig config = config_of(options);
  const EngineDefaults defaults = engine_defaults(config, options.seed);
  const int64_t context = context_of(options, config);
  const Tokenizer tokenizer = open_tokenizer(args, options.folder);
  std::optional<ChatTemplate> code;
  if (args.flag("chat")) {
    code.emplace(chat_template_for(args, tokenizer, /*tools=*/false));
    add_turn_end(tokenizer, sampling);
  }
  if (conversation && !sampling.max_tokens) sampling.max_tokens = context;
  const std::string parameters = describe_params(sampling, defaults);
  std::vector<std::vector<int32_t>> prompts =
      encode_prompts(args, tokenizer, code ? &*code : nullptr, config, context, answers);
  options.max_num_seqs = std::min(options.max_num_seqs, std::max<int64_t>(std::ssize(answers), 1));
  Model model = open_model(args, options);
  note(parameters);
  Engine engine(engine_model(model), engine_text(tokenizer), defaults);
  if (conversation) {
    return run_chat({args, engine, tokenizer, *code, sampling, args.text("system")});
  }
  const Totals totals = run_batch(args, engine, sampling, answers, prompts);
  note_totals(engine, totals, std::ssize(answers));
}

}  // namespace

const Verb kGenerateVerb = {
    .name = "generate",
    .summary = "continue one prompt, or many in one batch",
    .details =
        "Prints the text that follows each prompt. Parameters that are not given come from the "
        "model's generation_config.json and are shown. A token depends on --seed, its position and "
        "the model alone: a prompt gets the same answer whatever else is in the batch (but with "
        "the scheme fp8, whose activation scale spans the batch).",
    .examples =
        "mantissa generate models/wiki-6m --prompt \"The history of\" -q ptpc_fp8\n"
        "mantissa generate models/wiki-6m --prompt \"The city\" --max-tokens 40 --temperature 0\n"
        "mantissa generate models/wiki-6m --prompts-file prompts.txt --json --max-tokens 64\n"
        "mantissa generate MODEL --chat --system \"You are terse.\"",
    .groups = kModelOptions | kLimitOptions,
    .options = kOptions,
    .run = run,
};

}  // namespace mantissa
