// Normalizers and pre-tokenizers of tokenizer.json, reduced to a few steps over the pieces of a
// text: some rewrite the text, one cuts it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/chars_map.h"
#include "text/normalize.h"
#include "text/pattern.h"

namespace mantissa {

// A stretch of the text. One that an added token has taken keeps its id; steps leave it alone.
struct Piece {
  size_t begin, end;  // bytes of Pieces::text
  int32_t token = -1;
  bool at_start;  // begins where the whole input begins
};
struct Pieces {
  std::string owned;      // the text, once a step has rewritten it
  std::string_view text;  // valid UTF-8
  std::vector<Piece> list;

  std::string_view of(const Piece& piece) const {
    return text.substr(piece.begin, piece.end - piece.begin);
  }
};

struct PrependStep {  // an empty piece stays empty
  std::string prefix;
  bool unless_there = false;   // not where the piece starts with it already
  bool only_at_start = false;  // not but at the start of the input
};
struct ReplaceStep {
  Pattern pattern;
  std::string content;
};
struct StripStep {  // white space
  bool left, right;
};
struct LowercaseStep {};
struct ByteLettersStep {};  // every byte as one letter: byte_letters.h

struct PrecompiledStep {  // the tokenizers library's form of SentencePiece's map
  std::shared_ptr<const CharsMap> map;
};
struct SentencePieceStep {              // all that sentencepiece does before its model
  std::shared_ptr<const CharsMap> map;  // nullptr: none
  bool dummy_prefix, remove_extra_spaces, escape_spaces;
};

enum class Behavior : uint8_t {
  kRemoved,
  kIsolated,
  kMergedWithPrevious,
  kMergedWithNext,
  kContiguous
};
struct SplitStep {
  Pattern pattern;
  Behavior behavior;
  bool invert = false;  // matches and what lies between change roles
};

using Step = std::variant<PrependStep, ReplaceStep, StripStep, LowercaseStep, UnicodeForm,
                          ByteLettersStep, PrecompiledStep, SentencePieceStep, SplitStep>;

void run_step(const Step& step, Pieces& pieces, MatchScratch& scratch);

}  // namespace mantissa
