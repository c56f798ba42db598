// Added tokens: see added_tokens.h.
#include "text/added_tokens.h"

#include "text/utf8.h"

namespace mantissa {

AddedTokenMatcher::AddedTokenMatcher() : word_(Pattern::char_set("#word")) {
  first_.fill(-1);
}

int32_t AddedTokenMatcher::child_of(int32_t node, char byte) const {
  int32_t child = nodes_[static_cast<size_t>(node)].child;
  while (child >= 0 && nodes_[static_cast<size_t>(child)].byte != byte) {
    child = nodes_[static_cast<size_t>(child)].sibling;
  }
  return child;
}

void AddedTokenMatcher::add(const AddedToken& token, std::string_view spelled) {
  if (spelled.empty()) return;
  const auto new_node = [&](char byte) {
    nodes_.push_back({.byte = byte});
    return static_cast<int32_t>(nodes_.size() - 1);
  };
  int32_t& first = first_[static_cast<uint8_t>(spelled[0])];
  if (first < 0) first = new_node(spelled[0]);
  int32_t node = first;
  for (char byte : spelled.substr(1)) {
    int32_t child = child_of(node, byte);
    if (child < 0) {
      child = new_node(byte);
      Node& parent = nodes_[static_cast<size_t>(node)];
      nodes_[static_cast<size_t>(child)].sibling = parent.child;
      parent.child = child;
    }
    node = child;
  }
  nodes_[static_cast<size_t>(node)].token = static_cast<int32_t>(tokens_.size());
  tokens_.push_back({token.id, token.single_word, token.lstrip, token.rstrip});
}

AddedTokenMatcher::Found AddedTokenMatcher::find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    int32_t node = first_[static_cast<uint8_t>(text[begin])];
    Found found{begin, begin, -1};
    for (size_t end = begin + 1; node >= 0; ++end) {
      const Node& here = nodes_[static_cast<size_t>(node)];
      if (here.token >= 0) found = {begin, end, here.token};
      if (end >= text.size()) break;
      node = child_of(node, text[end]);
    }
    if (found.token >= 0) return found;
  }
  return {text.size(), text.size(), -1};
}

bool AddedTokenMatcher::is_word_at(std::string_view text, size_t pos, MatchScratch& scratch) const {
  return word_.matches_at(text, pos, scratch);
}

void AddedTokenMatcher::split_piece(const Pieces& pieces, const Piece& piece, MatchScratch& scratch,
                                    std::vector<Piece>& out) const {
  const std::string_view text = pieces.of(piece);
  const auto emit = [&](size_t begin, size_t end, int32_t token) {
    out.push_back({piece.begin + begin, piece.begin + end, token, piece.at_start && begin == 0});
  };
  size_t done = 0;
  for (Found found = find(text, 0); found.token >= 0; found = find(text, found.end)) {
    const Token& token = tokens_[static_cast<size_t>(found.token)];
    size_t begin = found.begin, end = found.end;
    if (token.single_word) {
      const bool word_before = begin > 0 && is_word_at(text, previous_start(text, begin), scratch);
      const bool word_behind = end < text.size() && is_word_at(text, end, scratch);
      if (word_before || word_behind) continue;
    }
    while (token.lstrip && begin > done) {
      const size_t before = previous_start(text, begin);
      size_t pos = before;
      if (!is_white_space(next_code_point(text, pos))) break;
      begin = before;
    }
    for (size_t next = end; token.rstrip && end < text.size(); end = next) {
      if (!is_white_space(next_code_point(text, next))) break;
    }
    if (done < begin) emit(done, begin, -1);
    emit(begin, end, token.id);
    done = end;
  }
  if (done < text.size()) emit(done, text.size(), -1);
}

void AddedTokenMatcher::split(Pieces& pieces, MatchScratch& scratch) const {
  if (empty()) return;
  std::vector<Piece> out;
  for (const Piece& piece : pieces.list) {
    if (piece.token >= 0) {
      out.push_back(piece);
    } else {
      split_piece(pieces, piece, scratch, out);
    }
  }
  pieces.list = std::move(out);
}

}  // namespace mantissa
