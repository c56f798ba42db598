// The Viterbi search of sentencepiece's EncodeOptimized, which the tokenizers library shares: see
// unigram.h. Time is linear in the text, times the longest piece.
#include "text/unigram.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/file.h"
#include "text/utf8.h"

namespace mantissa {

PieceTrie::PieceTrie() : nodes_(1), first_(256, -1) {}

int32_t PieceTrie::find(int32_t node, char byte) const {
  if (node == kRoot) return first_[static_cast<uint8_t>(byte)];
  int32_t child = nodes_[static_cast<size_t>(node)].child;
  while (child >= 0 && nodes_[static_cast<size_t>(child)].byte != byte) {
    child = nodes_[static_cast<size_t>(child)].sibling;
  }
  return child;
}

int32_t PieceTrie::step(int32_t node, char byte) const {
  return find(node, byte);
}

void PieceTrie::add(std::string_view piece, int32_t id) {
  int32_t node = kRoot;
  for (char byte : piece) {
    int32_t child = find(node, byte);
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      Node& parent = nodes_[static_cast<size_t>(node)];
      Node made;
      made.byte = byte;
      made.sibling = node == kRoot ? -1 : parent.child;
      if (node == kRoot) {
        first_[static_cast<uint8_t>(byte)] = child;
      } else {
        parent.child = child;
      }
      nodes_.push_back(made);
    }
    node = child;
  }
  nodes_[static_cast<size_t>(node)].id = id;
}

namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581

// Whether a word begins here: a space, and none before it.
bool is_word_start(std::string_view text, size_t at) {
  return at > 0 && text.substr(at).starts_with(kSpace) && !text.substr(0, at).ends_with(kSpace);
}

bool spans_words(std::string_view piece) {
  for (size_t at = piece.find(kSpace); at != piece.npos; at = piece.find(kSpace, at + 1)) {
    if (is_word_start(piece, at)) return true;
  }
  return false;
}

}  // namespace

Unigram::Unigram(const std::vector<std::string_view>& tokens, std::vector<double> scores,
                 const std::vector<bool>& usable, UnigramOptions options)
    : options_(options), ids_(tokens.size()), scores_(std::move(scores)) {
  constexpr double kUnknownPenalty = 10;
  double least = 0;
  bool any = false;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].empty()) continue;
    ids_.insert(tokens[id], static_cast<int32_t>(id));
    if (!usable[id]) continue;
    least = any ? std::min(least, scores_[id]) : scores_[id];
    any = true;
    words_apart_ = words_apart_ && !spans_words(tokens[id]);
    trie_.add(tokens[id], static_cast<int32_t>(id));
  }
  unk_score_ = least - kUnknownPenalty;
  if (options_.single_precision) unk_score_ = static_cast<double>(static_cast<float>(unk_score_));
  constexpr char kHex[] = "0123456789ABCDEF";
  for (size_t b = 0; b < 256; ++b) {
    const std::array<char, 6> name = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
    byte_ids_[b] = ids_.find({name.data(), name.size()});
  }
}

void Unigram::encode(const Pieces& pieces, std::vector<int32_t>& out) const {
  std::vector<Best> best;
  for (const Piece& piece : pieces.list) {
    if (piece.token >= 0) {
      out.push_back(piece.token);
    } else {
      encode_piece(pieces.of(piece), best, out);
    }
  }
}

void Unigram::find_best(std::string_view text, std::vector<Best>& best) const {
  best.assign(text.size() + 1, {});
  const auto offer = [&](size_t begin, size_t end, int32_t id, double score) {
    Best& there = best[end];
    double sum = score + best[begin].score;
    if (options_.single_precision) sum = static_cast<double>(static_cast<float>(sum));
    if (there.begin < 0 || sum > there.score) there = {sum, id, static_cast<int32_t>(begin)};
  };
  constexpr size_t kRestartBytes = 16384;
  size_t restart = options_.single_precision && words_apart_ ? kRestartBytes : text.size();
  for (size_t begin = 0; begin < text.size();) {
    if (begin >= restart && is_word_start(text, begin)) {
      best[begin].score = 0;  // every path comes through here
      restart = begin + kRestartBytes;
    }
    const size_t one = utf8_bytes(text[begin]);
    bool single = false;  // a piece of this one character
    int32_t node = PieceTrie::kRoot;
    for (size_t end = begin; end < text.size();) {
      node = trie_.step(node, text[end++]);
      if (node < 0) break;
      const int32_t id = trie_.id(node);
      if (id < 0) continue;
      offer(begin, end, id, scores_[static_cast<size_t>(id)]);
      single = single || end - begin == one;
    }
    if (!single) {
      if (!options_.unk_id) {
        throw Error(mantissa::text("the text holds ", quoted(text.substr(begin, one)),
                                   ", which the vocabulary lacks, and there is no unknown token"),
                    "set model.unk_id of tokenizer.json");
      }
      offer(begin, begin + one, *options_.unk_id, unk_score_);
    }
    begin += one;
  }
}

void Unigram::add_unknown(std::string_view text, std::vector<int32_t>& out) const {
  const int32_t id = ids_.find(text);
  if (id >= 0) return out.push_back(id);
  const bool bytes = options_.byte_fallback && std::all_of(text.begin(), text.end(), [&](char c) {
                       return byte_ids_[static_cast<uint8_t>(c)] >= 0;
                     });
  if (!bytes) return out.push_back(*options_.unk_id);
  for (char c : text) out.push_back(byte_ids_[static_cast<uint8_t>(c)]);
}

void Unigram::encode_piece(std::string_view text, std::vector<Best>& best,
                           std::vector<int32_t>& out) const {
  find_best(text, best);
  std::vector<std::pair<size_t, size_t>> cuts;  // from the end; unknown neighbours are one
  std::vector<bool> unknown;
  for (size_t end = text.size(); end > 0;) {
    const Best& node = best[end];
    const auto begin = static_cast<size_t>(node.begin);
    const bool unk = options_.unk_id && node.id == *options_.unk_id;
    if (unk && !unknown.empty() && unknown.back()) {
      cuts.back().first = begin;
    } else {
      cuts.emplace_back(begin, end);
      unknown.push_back(unk);
    }
    end = begin;
  }
  for (size_t i = cuts.size(); i-- > 0;) {
    const auto [begin, end] = cuts[i];
    if (unknown[i]) {
      add_unknown(text.substr(begin, end - begin), out);
    } else {
      out.push_back(best[end].id);
    }
  }
}

}  // namespace mantissa
