// From token strings to text, in steps that work on a stream: decoders of tokenizer.json.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/pattern.h"

namespace mantissa {

struct ByteLettersDecode {};   // letters of byte_letters.h to bytes; a token with others stays
struct ByteFallbackDecode {};  // runs of <0xXX> to characters
struct FuseDecode {};          // from here on, all tokens are one
struct StripDecode {           // of each token
  std::string content;         // one character
  size_t start, stop;          // at most so many at its start and end
};
struct ReplaceDecode {
  Pattern pattern;
  std::string content;
};
struct MetaspaceDecode {
  std::string replacement;  // one character; becomes a space
  bool drop_in_first;       // or nothing, in the first token
};
struct JoinDecode {};  // a space between tokens: what the reference does without a decoder

using DecodeStep = std::variant<ByteLettersDecode, ByteFallbackDecode, FuseDecode, StripDecode,
                                ReplaceDecode, MetaspaceDecode, JoinDecode>;

// Whether what leaves the step is one token, whatever enters it.
bool fuses(const DecodeStep& step);

// The state of one text on its way through the steps, which must outlive it.
class DecodeStream {
 public:
  explicit DecodeStream(const std::vector<DecodeStep>& steps);

  // Both append what is certain by now to out: valid UTF-8.
  void push(std::string_view token, std::string& out);
  void flush(std::string& out);  // the end of the text; ready for the next one

 private:
  struct State {
    bool fused = false;       // what enters the step is parts of one token
    bool started = false;     // a token has entered
    std::string held;         // bytes or text that may still change
    size_t count = 0;         // StripDecode: characters dropped at the start; ByteFallbackDecode:
                              // byte tokens of a run that is no UTF-8
    bool past_start = false;  // StripDecode: what may be dropped at the start has passed
  };
  void enter(size_t stage, std::string_view text);  // a token, or a part of it where fused
  void end(size_t stage);
  // Overloads for each step.
  void step(const ByteLettersDecode&, State&, size_t stage, std::string_view text);
  void step(const ByteFallbackDecode&, State&, size_t stage, std::string_view text);
  void step(const FuseDecode&, State&, size_t stage, std::string_view text);
  void step(const StripDecode&, State&, size_t stage, std::string_view text);
  void step(const ReplaceDecode&, State&, size_t stage, std::string_view text);
  void step(const MetaspaceDecode&, State&, size_t stage, std::string_view text);
  void step(const JoinDecode&, State&, size_t stage, std::string_view text);

  const std::vector<DecodeStep>* steps_;
  std::vector<State> states_;
  std::string* out_ = nullptr;
};

// <0xXX> as the byte XX; -1 for any other token.
int byte_of_token(std::string_view token);

}  // namespace mantissa
