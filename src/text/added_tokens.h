// Tokens that are looked for in the text itself, before the model sees it: special tokens mostly.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/pattern.h"
#include "text/steps.h"

namespace mantissa {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool single_word = false;             // not inside a word
  bool lstrip = false, rstrip = false;  // takes the white space around it along
  bool normalized = true;  // looked for, as the normalizer leaves it, in the normalized text
  bool special = false;
};

// Finds the leftmost, then longest of a set of strings.
class AddedTokenMatcher {
 public:
  static constexpr size_t kContentBytesMax = 4096;

  AddedTokenMatcher();
  // spelled: what to look for. The last one of two that are spelled alike counts.
  void add(const AddedToken& token, std::string_view spelled);
  bool empty() const { return tokens_.empty(); }
  // Cuts the pieces at the tokens found in them.
  void split(Pieces& pieces, MatchScratch& scratch) const;

 private:
  struct Node {  // of a trie over bytes
    int32_t child = -1, sibling = -1;
    int32_t token = -1;  // index, where a string ends here
    char byte = 0;
  };
  struct Found {
    size_t begin, end;
    int32_t token;  // index; -1: none
  };
  struct Token {
    int32_t id;
    bool single_word, lstrip, rstrip;
  };
  int32_t child_of(int32_t node, char byte) const;
  Found find(std::string_view text, size_t from) const;
  bool is_word_at(std::string_view text, size_t pos, MatchScratch& scratch) const;
  void split_piece(const Pieces& pieces, const Piece& piece, MatchScratch& scratch,
                   std::vector<Piece>& out) const;

  std::vector<Node> nodes_;
  std::array<int32_t, 256> first_;  // nodes of first bytes; -1: none
  std::vector<Token> tokens_;
  Pattern word_;
};

}  // namespace mantissa
