// Byte-pair encoding: see bpe.h. The pair of lowest rank joins first, the leftmost of equal ones.
// Short words look for it by scanning; long ones keep a heap and a linked list, O(n log n).
#include "text/bpe.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/file.h"
#include "text/utf8.h"

namespace mantissa {
namespace {

constexpr uint64_t kNoPair = ~uint64_t{0};
constexpr uint32_t kNoRank = ~uint32_t{0};
constexpr size_t kDirectCodePoints = 0x3000;  // alphabets; the rest goes through the hash table
constexpr size_t kShortWord = 32;             // symbols: below, scanning beats a heap

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

MergeTable::MergeTable(size_t count)
    : slots_(std::bit_ceil(count * 2 + 2), Slot{kNoPair, {kNoRank, -1}}),
      mask_(slots_.size() - 1) {}

size_t MergeTable::find_slot(uint64_t key) const {
  size_t i = mix_bits(key) & mask_;
  while (slots_[i].key != key && slots_[i].key != kNoPair) i = (i + 1) & mask_;
  return i;
}
void MergeTable::set(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = pair_key(left, right);
  slots_[find_slot(key)] = {key, merge};
}
MergeTable::Merge MergeTable::find(int32_t left, int32_t right) const {
  return slots_[find_slot(pair_key(left, right))].merge;
}

Bpe::Bpe(const std::vector<std::string_view>& tokens, BpeOptions options, size_t merge_count)
    : options_(std::move(options)),
      ids_(tokens.size()),
      character_ids_(kDirectCodePoints, -1),
      merges_(merge_count) {
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    if (token.empty()) continue;
    check(ids_.insert(token, static_cast<int32_t>(id)), "no token twice");
    if (token.size() != utf8_bytes(token[0])) continue;
    size_t pos = 0;
    const char32_t c = next_code_point(token, pos);
    if (c < kDirectCodePoints) character_ids_[c] = static_cast<int32_t>(id);
  }
  constexpr char kHex[] = "0123456789ABCDEF";
  for (size_t b = 0; b < 256; ++b) {
    const char name[] = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
    byte_ids_[b] = ids_.find({name, sizeof name});
  }
  if (options_.unk_token) unk_id_ = ids_.find(*options_.unk_token);
}

std::optional<std::string> Bpe::add_merge(uint32_t rank, std::string_view left,
                                          std::string_view right) {
  const std::string_view prefix = options_.continuing_subword_prefix;
  if (right.size() < prefix.size()) return std::string(right);
  const std::string joined = std::string(left) + std::string(right.substr(prefix.size()));
  int32_t ids[3];
  const std::string_view parts[3] = {left, right, joined};
  for (int i = 0; i < 3; ++i) {
    ids[i] = ids_.find(parts[i]);
    if (ids[i] < 0) return std::string(parts[i]);
  }
  merges_.set(ids[0], ids[1], {rank, ids[2]});
  return std::nullopt;
}

namespace {

// Remembers where in the output the ids of a word stand, so that they are computed once. Bounded:
// a word takes the place of another one with the same low hash bits.
class WordCache {
 public:
  explicit WordCache(size_t words)
      : slots_(std::min(std::bit_ceil(words + 1), kSlotsMax)), mask_(slots_.size() - 1) {}

  struct Slot {
    std::string_view word;
    size_t first = 0, count = 0;  // of the output
  };
  Slot& slot(std::string_view word) { return slots_[hash_bytes(word) & mask_]; }

 private:
  static constexpr size_t kSlotsMax = 1 << 15;
  std::vector<Slot> slots_;
  size_t mask_;
};

}  // namespace

void Bpe::encode(const Pieces& pieces, std::vector<int32_t>& out) const {
  WordCache cache(pieces.list.size());
  BpeScratch scratch;
  for (const Piece& piece : pieces.list) {
    if (piece.token >= 0) {
      out.push_back(piece.token);
      continue;
    }
    const std::string_view word = pieces.of(piece);
    if (word.empty()) continue;
    WordCache::Slot& slot = cache.slot(word);
    const size_t first = out.size();
    if (slot.word == word) {
      for (size_t i = 0; i < slot.count; ++i) out.push_back(out[slot.first + i]);
    } else {
      encode_word(word, scratch, out);
    }
    slot = {word, first, out.size() - first};
  }
}

void Bpe::encode_word(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& out) const {
  if (options_.ignore_merges) {
    const int32_t id = ids_.find(word);
    if (id >= 0) return out.push_back(id);
  }
  to_symbols(word, scratch);
  if (scratch.symbols.size() <= kShortWord) {
    merge_short(scratch);
  } else {
    merge_long(scratch);
  }
  for (const BpeScratch::Symbol& symbol : scratch.symbols) {
    if (symbol.id >= 0) out.push_back(symbol.id);
  }
}

int32_t Bpe::character_id(std::string_view character, bool first, bool last,
                          std::string& key) const {
  const bool prefixed = !first && !options_.continuing_subword_prefix.empty();
  const bool suffixed = last && !options_.end_of_word_suffix.empty();
  if (!prefixed && !suffixed) {
    size_t pos = 0;
    const char32_t c = next_code_point(character, pos);
    return c < kDirectCodePoints ? character_ids_[c] : ids_.find(character);
  }
  key.assign(prefixed ? options_.continuing_subword_prefix : "");
  key += character;
  if (suffixed) key += options_.end_of_word_suffix;
  return ids_.find(key);
}

void Bpe::to_symbols(std::string_view word, BpeScratch& scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols;
  symbols.clear();
  const auto add = [&](int32_t id) {
    const auto at = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, at - 1, at + 1});
  };
  bool unknown = false;  // an unk_token waits to be added; byte tokens overtake it, as in the
                         // reference
  for (size_t begin = 0; begin < word.size();) {
    const size_t end = begin + utf8_bytes(word[begin]);
    const std::string_view character = word.substr(begin, end - begin);
    scratch.key = character;
    const int32_t id = character_id(character, begin == 0, end == word.size(), scratch.key);
    begin = end;
    if (id >= 0) {
      if (unknown) add(unk_id_);
      unknown = false;
      add(id);
      continue;
    }
    if (options_.byte_fallback && add_byte_tokens(scratch.key, scratch)) continue;
    if (!options_.unk_token) continue;
    if (unk_id_ < 0) {
      throw Error(text("the text holds ", mantissa::quoted(character),
                       ", which the vocabulary lacks, and so "
                       "does it the unknown token ",
                       mantissa::quoted(*options_.unk_token)),
                  "correct model.unk_token of tokenizer.json");
    }
    if (unknown && !options_.fuse_unk) add(unk_id_);
    unknown = true;
  }
  if (unknown) add(unk_id_);
  if (!symbols.empty()) symbols.back().next = -1;
}

bool Bpe::add_byte_tokens(std::string_view bytes, BpeScratch& scratch) const {
  for (char byte : bytes) {
    if (byte_ids_[static_cast<uint8_t>(byte)] < 0) return false;
  }
  for (char byte : bytes) {
    const auto at = static_cast<int32_t>(scratch.symbols.size());
    scratch.symbols.push_back({byte_ids_[static_cast<uint8_t>(byte)], at - 1, at + 1});
  }
  return true;
}

void Bpe::merge_short(BpeScratch& scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols;
  std::vector<MergeTable::Merge>& merges = scratch.merges;  // [i]: of symbols i and i + 1
  merges.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    merges.push_back(merges_.find(symbols[i].id, symbols[i + 1].id));
  }
  while (!merges.empty()) {
    const auto best = std::min_element(
        merges.begin(), merges.end(), [](const auto& a, const auto& b) { return a.rank < b.rank; });
    if (best->id < 0) break;
    const auto i = best - merges.begin();
    symbols[static_cast<size_t>(i)].id = best->id;
    symbols.erase(symbols.begin() + i + 1);
    merges.erase(best);
    const auto again = [&](std::ptrdiff_t left) {
      const auto at = static_cast<size_t>(left);
      merges[at] = merges_.find(symbols[at].id, symbols[at + 1].id);
    };
    if (i > 0) again(i - 1);
    if (i < static_cast<std::ptrdiff_t>(merges.size())) again(i);
  }
}

void Bpe::merge_long(BpeScratch& scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols;
  std::vector<uint64_t>& heap = scratch.heap;
  heap.clear();
  const auto entry = [&](int32_t at) {
    const BpeScratch::Symbol& left = symbols[static_cast<size_t>(at)];
    const MergeTable::Merge merge =
        left.next < 0 ? MergeTable::Merge{kNoRank, -1}
                      : merges_.find(left.id, symbols[static_cast<size_t>(left.next)].id);
    return std::pair(merge, static_cast<uint64_t>(merge.rank) << 32 | static_cast<uint32_t>(at));
  };
  for (size_t i = 0; i < symbols.size(); ++i) {
    const auto [merge, key] = entry(static_cast<int32_t>(i));
    if (merge.id >= 0) heap.push_back(key);
  }
  const auto push = [&](int32_t at) {
    const auto [merge, key] = entry(at);
    if (merge.id < 0) return;
    heap.push_back(key);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    const uint64_t top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const auto at = static_cast<int32_t>(top & 0xffffffffu);
    BpeScratch::Symbol& left = symbols[static_cast<size_t>(at)];
    if (left.id < 0) continue;
    const auto [merge, key] = entry(at);
    if (merge.id < 0 || key != top) continue;  // the pair there is another one by now
    BpeScratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = merge.id;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = at;
    if (left.previous >= 0) push(left.previous);
    push(at);
  }
}

}  // namespace mantissa
