// The byte-pair-encoding model: from pieces of text to ids. Vocabulary strings are taken as they
// are; byte-level and SentencePiece-style vocabularies differ only in their steps and flags.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/steps.h"
#include "text/string_table.h"

namespace mantissa {

struct BpeOptions {
  std::optional<std::string> unk_token;
  std::string continuing_subword_prefix, end_of_word_suffix;  // empty: none
  bool fuse_unk = false, byte_fallback = false, ignore_merges = false;
};

// Pairs of ids that join, by rank: an open-addressed hash table.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t id;  // -1: the pair does not join
  };
  explicit MergeTable(size_t count = 0);
  void set(int32_t left, int32_t right, Merge merge);  // the last one for a pair counts
  Merge find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t key;
    Merge merge;
  };
  size_t find_slot(uint64_t key) const;
  std::vector<Slot> slots_;
  size_t mask_;
};

// What encoding writes to: one for each call.
struct BpeScratch {
  struct Symbol {
    int32_t id;  // -1: joined to the one before it
    int32_t previous, next;
  };
  std::vector<Symbol> symbols;
  std::vector<MergeTable::Merge> merges;  // of neighbours
  std::vector<uint64_t> heap;             // rank << 32 | position
  std::string key;
};

class Bpe {
 public:
  // tokens[id]: empty strings are gaps. Views into it stay: it must live and not move as long as
  // the model.
  Bpe(const std::vector<std::string_view>& tokens, BpeOptions options, size_t merge_count);

  int32_t token_id(std::string_view token) const { return ids_.find(token); }  // -1: none
  const BpeOptions& options() const { return options_; }
  // nullopt: fine; else the string that is in no vocabulary.
  std::optional<std::string> add_merge(uint32_t rank, std::string_view left,
                                       std::string_view right);

  // Appends the ids of all pieces. Throws Error where an unknown character meets an unk_token that
  // is not in the vocabulary.
  void encode(const Pieces& pieces, std::vector<int32_t>& out) const;

 private:
  void encode_word(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& out) const;
  void to_symbols(std::string_view word, BpeScratch& scratch) const;
  bool add_byte_tokens(std::string_view bytes, BpeScratch& scratch) const;
  int32_t character_id(std::string_view character, bool first, bool last, std::string& key) const;
  void merge_short(BpeScratch& scratch) const;
  void merge_long(BpeScratch& scratch) const;

  BpeOptions options_;
  StringTable ids_;
  std::vector<int32_t> character_ids_;  // by code point, of the first few; -1: none
  int32_t byte_ids_[256];               // of <0x00>.. <0xFF>; -1: none
  int32_t unk_id_ = -1;
  MergeTable merges_;
};

}  // namespace mantissa
