// The conversation of `generate --chat`: see chat.h.
#include "app/chat.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <chrono>
#include <functional>

#include "app/answer.h"
#include "app/interrupts.h"
#include "app/load.h"
#include "app/output.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/utf8.h"

namespace mantissa {
namespace {

constexpr size_t kMessageBytesMax = size_t{64} << 20;
constexpr int64_t kTemplateBytesMax = int64_t{4} << 20;

using Clock = std::chrono::steady_clock;
double seconds_between(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

// Lines of standard input, of which Ctrl-C can end the wait.
class LineReader {
 public:
  enum class Result : uint8_t { kLine, kEnd, kInterrupted };

  Result next(std::string& line) {
    line.clear();
    for (;;) {
      const size_t end = held_.find('\n');
      if (end != held_.npos || (closed_ && !held_.empty())) {
        line = held_.substr(0, end);
        held_.erase(0, std::min(line.size() + 1, held_.size()));
        if (line.ends_with('\r')) line.pop_back();
        return Result::kLine;
      }
      if (closed_) return Result::kEnd;
      char buffer[4096];
      const int before = InterruptsCounted::count();
      const ssize_t count = read(STDIN_FILENO, buffer, sizeof buffer);
      if (count < 0 && errno == EINTR) {
        if (InterruptsCounted::count() == before) continue;
        held_.clear();
        return Result::kInterrupted;
      }
      if (count < 0) {
        throw Error("standard input cannot be read",
                    "run in a terminal, or pipe one message a line", Error::Kind::kRuntime);
      }
      closed_ = count == 0;
      held_.append(buffer, static_cast<size_t>(count));
      if (held_.size() > kMessageBytesMax) throw Error("a message is too long", "split it");
    }
  }

 private:
  std::string held_;
  bool closed_ = false;
};

std::string valid_text(std::string_view bytes) {
  std::string out;
  if (append_valid_utf8(out, bytes) > 0) out += kReplacement;
  return out;
}

boost::json::object message_of(std::string_view role, std::string_view content) {
  return {{"role", role}, {"content", valid_text(content)}};
}

ChatPrompt render(const ChatTemplate& code, const Tokenizer& tokenizer,
                  const boost::json::array& messages) {
  // The reader of untrusted JSON is the one way into a template.
  const json::Document document = json::parse(boost::json::serialize(messages), "the conversation");
  ChatPrompt out;
  out.text = code.render({.messages = document.root(), .now = std::chrono::system_clock::now()},
                         tokenizer.special_tokens());
  out.ids = tokenizer.encode(out.text, /*add_special_tokens=*/false);
  return out;
}

class Conversation {
 public:
  explicit Conversation(ChatSession& session)
      : s_(session),
        json_(session.args.flag("json")),
        terminal_(isatty(STDIN_FILENO) == 1 && !json_) {}

  void run() {
    const InterruptsCounted counted;
    if (terminal_) {
      note(
          "Ctrl-C stops an answer, Ctrl-D ends; /help lists the commands. A \\ at the end of a "
          "line continues the message.");
    }
    for (std::string message; read_message(message);) {
      if (message.empty()) continue;
      try {
        if (message[0] == '/' && !message.starts_with("//")) {
          if (!command(message)) return;
        } else {
          answer(message.starts_with("//") ? message.substr(1) : message);
        }
      } catch (const Error& e) {
        if (!terminal_) throw;
        print_error(e.found, e.fix);
      }
    }
  }

 private:
  struct Command {
    std::string_view name, argument, help;
    bool (Conversation::*run)(const std::string& argument);  // false: leave
  };
  static std::span<const Command> commands() {
    static constexpr Command kCommands[] = {
        {"/help", "", "these lines", &Conversation::help},
        {"/reset", "", "forgets the conversation; the system message stays", &Conversation::reset},
        {"/system", " TEXT", "sets the system message; without TEXT, shows it",
         &Conversation::set_system},
        {"/stats", "", "tokens per second, context used", &Conversation::stats},
        {"/exit", "", "ends, as Ctrl-D does", &Conversation::leave},
    };
    return kCommands;
  }

  // False at the end of the input. Two Ctrl-C in a row at the prompt are an end, too.
  bool read_message(std::string& message) {
    message.clear();
    bool interrupted = false;
    for (std::string line;;) {
      if (terminal_) print_prompt(message.empty() ? "> " : ". ");
      const LineReader::Result result = reader_.next(line);
      if (result == LineReader::Result::kInterrupted) {
        if (interrupted && message.empty()) return print_prompt("\n"), false;
        print_prompt("\n(Ctrl-C again, or Ctrl-D, ends)\n");
        interrupted = true;
        message.clear();
        continue;
      }
      if (result == LineReader::Result::kEnd) {
        if (terminal_) print_prompt("\n");
        return !message.empty();
      }
      interrupted = false;
      const bool more = terminal_ && line.ends_with('\\');
      if (more) line.back() = '\n';
      message += line;
      if (!more) return true;
    }
  }

  bool command(const std::string& line) {
    const size_t space = std::min(line.find(' '), line.size());
    const std::string_view name = std::string_view(line).substr(0, space);
    for (const Command& row : commands()) {
      if (row.name != name) continue;
      return (this->*row.run)(line.substr(std::min(space + 1, line.size())));
    }
    note(text("there is no command ", printable(name, 40),
              "; /help lists them (// sends a message that begins with a slash)"));
    return true;
  }
  bool help(const std::string&) {
    for (const Command& row : commands()) {
      std::string left = text(row.name, row.argument);
      left.resize(std::max<size_t>(left.size(), 14), ' ');
      note(text("  ", left, row.help));
    }
    return true;
  }
  bool reset(const std::string&) {
    history_.clear();
    context_used_ = 0;
    note("the conversation is forgotten");
    return true;
  }
  bool set_system(const std::string& words) {
    if (!words.empty()) s_.system = words;
    note(s_.system.empty() ? "there is no system message; /system TEXT sets one"
                           : text("system message: ", printable(s_.system, 400)));
    return true;
  }
  bool leave(const std::string&) { return false; }
  bool stats(const std::string&) {
    note(text("context: ", context_used_, " of ", context_max(), " tokens; ",
              counted(std::ssize(history_), "message")));
    if (last_.token_ids.empty()) return true;
    const double decoding = last_.seconds - first_token_seconds_;
    const auto tokens = std::ssize(last_.token_ids);
    note(text(
        "last answer: ", counted(tokens, "token"), " in ", human_seconds(last_.seconds),
        "; prompt of ", last_.prompt_tokens, " tokens in ", human_seconds(first_token_seconds_),
        " (", fixed(static_cast<double>(last_.prompt_tokens) / first_token_seconds_, 1),
        " tokens/s)",
        tokens > 1
            ? text(", then ", fixed(static_cast<double>(tokens - 1) / decoding, 1), " tokens/s")
            : ""));
    note("each answer computes the whole conversation again: it is the prompt above");
    return true;
  }

  int64_t context_max() const { return s_.engine.limits().context_max.n; }

  boost::json::array messages() const {
    boost::json::array out;
    if (!s_.system.empty()) out.push_back(message_of("system", s_.system));
    for (const boost::json::value& message : history_) out.push_back(message);
    return out;
  }

  void answer(const std::string& message) {
    check_utf8(s_.args, "the message", message);
    history_.push_back(message_of("user", message));
    ChatPrompt prompt;
    try {
      prompt = render(s_.code, s_.tokenizer, messages());
      require_room(std::ssize(prompt.ids));
    } catch (const Error&) {
      history_.pop_back();  // so that the user can say it otherwise
      throw;
    }
    generate(message, std::move(prompt.ids));
    history_.push_back(message_of("assistant", last_.text));
    context_used_ = last_.prompt_tokens + std::ssize(last_.token_ids);
  }

  void require_room(int64_t tokens) const {
    if (tokens == 0) throw Error("the chat template gives no text", "use another --chat-template");
    if (tokens < context_max()) return;
    throw Error(text("the conversation has ", tokens, " tokens with this message, and the context ",
                     context_max()),
                "/reset starts a new one; a shorter message may fit; --max-model-len raises the "
                "context where the model allows more");
  }

  void generate(const std::string& message, std::vector<int32_t> ids) {
    last_ = {};
    last_.prompt = valid_text(message);
    last_.prompt_tokens = std::ssize(ids);
    SamplingOptions sampling = s_.sampling;
    const int64_t room = context_max() - last_.prompt_tokens;
    sampling.max_tokens = std::min(sampling.max_tokens.value_or(room), room);
    const bool cut_by_context = *sampling.max_tokens == room;
    const int before = InterruptsCounted::count();
    const Clock::time_point start = Clock::now();
    const SequenceId id = s_.engine.submit({std::move(ids), sampling});
    bool stopped = false;
    while (!s_.engine.idle() && !stopped) {
      for (const OutputDelta& delta : s_.engine.step()) {
        if (delta.error) throw *delta.error;
        if (last_.token_ids.empty()) first_token_seconds_ = seconds_between(start, Clock::now());
        add(last_, delta);
        if (!json_) print_text(delta.text);
      }
      stopped = InterruptsCounted::count() != before && !s_.engine.idle();
    }
    last_.seconds = seconds_between(start, Clock::now());
    if (stopped) s_.engine.cancel(id);
    if (json_) return print_json(json_of(last_, s_.args.given("logprobs")));
    print_line("");
    if (stopped) note("(stopped; what was said stays in the conversation)");
    if (last_.finish == FinishReason::kLength) {
      note(cut_by_context ? "(cut: the context is full; /reset starts a new conversation)"
                          : text("(cut after ", *sampling.max_tokens, " tokens: --max-tokens)"));
    }
  }

  ChatSession& s_;
  bool json_, terminal_;
  LineReader reader_;
  boost::json::array history_;
  Answer last_;
  double first_token_seconds_ = 0;
  int64_t context_used_ = 0;
};

}  // namespace

ChatTemplate chat_template_for(const Args& args, const Tokenizer& tokenizer, bool tools) {
  if (!args.given("chat-template")) return chat_template_of(tokenizer, tools);
  const std::string& file = args.text("chat-template");
  return {read_file(file, kTemplateBytesMax), file};
}

ChatPrompt chat_prompt(const ChatTemplate& code, const Tokenizer& tokenizer,
                       const std::string& system, const std::string& message) {
  boost::json::array messages;
  if (!system.empty()) messages.push_back(message_of("system", system));
  messages.push_back(message_of("user", message));
  return render(code, tokenizer, messages);
}

void run_chat(ChatSession session) {
  Conversation(session).run();
}

}  // namespace mantissa
