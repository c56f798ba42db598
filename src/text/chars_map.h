// SentencePiece's precompiled normalization: a map from strings to strings, as a double array and
// the texts behind it. Untrusted.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mantissa {

class CharsMap {
 public:
  // Throws Error naming `where` for bytes that are no such map.
  CharsMap(std::string_view bytes, const std::string& where);

  struct Match {
    size_t bytes;  // of the text that it replaces
    std::string_view to;
  };
  // Of the keys that the text starts with the longest, as sentencepiece takes, or the shortest, as
  // the tokenizers library does.
  std::optional<Match> longest(std::string_view text) const { return find(text, true); }
  std::optional<Match> shortest(std::string_view text) const { return find(text, false); }

 private:
  std::optional<Match> find(std::string_view text, bool longest) const;

  std::vector<uint32_t> units_;  // of the double array
  std::string texts_;            // each ends with a zero byte
};

// The whole text as the tokenizers library's `Precompiled` maps it: grapheme by grapheme.
std::string precompiled_text(const CharsMap& map, std::string_view text);

}  // namespace mantissa
