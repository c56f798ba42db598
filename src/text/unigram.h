// The unigram model: of all ways to cut a text into pieces of the vocabulary, the one with the
// highest sum of scores.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/steps.h"
#include "text/string_table.h"

namespace mantissa {

struct UnigramOptions {
  std::optional<int32_t> unk_id;
  bool byte_fallback = false;
  // As sentencepiece rounds: sums are float. In long texts they start anew now and then (at a word,
  // where no piece spans two): 0.2.3 does not lose precision there either. The tokenizers library
  // keeps double.
  bool single_precision = false;
};

// A vocabulary as a trie over bytes.
class PieceTrie {
 public:
  PieceTrie();
  void add(std::string_view piece, int32_t id);
  static constexpr int32_t kRoot = 0;
  int32_t step(int32_t node, char byte) const;  // -1: no piece goes on so
  int32_t id(int32_t node) const { return nodes_[static_cast<size_t>(node)].id; }  // -1: none ends

 private:
  struct Node {
    int32_t child = -1, sibling = -1;
    int32_t id = -1;
    char byte = 0;
  };
  int32_t find(int32_t node, char byte) const;

  std::vector<Node> nodes_;
  std::vector<int32_t> first_;  // [256]: of the root, which has many children
};

class Unigram {
 public:
  // tokens[id] and scores[id]; views into tokens stay. usable[id]: whether text may become it.
  Unigram(const std::vector<std::string_view>& tokens, std::vector<double> scores,
          const std::vector<bool>& usable, UnigramOptions options);

  int32_t token_id(std::string_view token) const { return ids_.find(token); }  // -1: none
  // Throws Error where an unknown character meets a model without unk_id.
  void encode(const Pieces& pieces, std::vector<int32_t>& out) const;

 private:
  struct Best {  // path that ends at a byte
    double score = 0;
    int32_t id = -1;
    int32_t begin = -1;
  };
  void encode_piece(std::string_view text, std::vector<Best>& best,
                    std::vector<int32_t>& out) const;
  void find_best(std::string_view text, std::vector<Best>& best) const;
  void add_unknown(std::string_view text, std::vector<int32_t>& out) const;

  UnigramOptions options_;
  StringTable ids_;
  PieceTrie trie_;
  std::vector<double> scores_;
  double unk_score_ = 0;
  bool words_apart_ = true;  // no piece goes from one word into the next
  int32_t byte_ids_[256];    // of <0x00>.. <0xFF>; -1: none
};

}  // namespace mantissa
