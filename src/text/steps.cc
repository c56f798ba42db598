// Steps over pieces: see steps.h.
#include "text/steps.h"

#include <algorithm>
#include <utility>

#include "text/byte_letters.h"
#include "text/utf8.h"

namespace mantissa {

namespace {
struct ByteLetter {
  char utf8[2];
  uint8_t bytes;
};
consteval std::array<ByteLetter, 256> make_letters_utf8() {
  std::array<ByteLetter, 256> out{};
  for (size_t b = 0; b < 256; ++b) {
    const char32_t c = kByteLetters[b];
    if (c < 0x80) {
      out[b] = {{static_cast<char>(c), 0}, 1};
    } else {
      out[b] = {{static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))}, 2};
    }
  }
  return out;
}
constexpr std::array<ByteLetter, 256> kLettersUtf8 = make_letters_utf8();

consteval std::array<int16_t, kByteLetterEnd> make_letter_bytes() {
  std::array<int16_t, kByteLetterEnd> out{};
  for (int16_t& byte : out) byte = -1;
  for (size_t b = 0; b < 256; ++b) out[kByteLetters[b]] = static_cast<int16_t>(b);
  return out;
}
constexpr std::array<int16_t, kByteLetterEnd> kLetterBytes = make_letter_bytes();
}  // namespace

void append_byte_letters(std::string& out, std::string_view bytes) {
  const size_t start = out.size();
  out.resize(start + 2 * bytes.size());
  char* p = out.data() + start;
  for (char byte : bytes) {
    const ByteLetter& letter = kLettersUtf8[static_cast<uint8_t>(byte)];
    p[0] = letter.utf8[0];
    if (letter.bytes == 2) p[1] = letter.utf8[1];
    p += letter.bytes;
  }
  out.resize(static_cast<size_t>(p - out.data()));
}

bool append_letter_bytes(std::string& out, std::string_view letters) {
  const size_t start = out.size();
  for (size_t pos = 0; pos < letters.size();) {
    const char32_t c = next_code_point(letters, pos);
    if (c >= kByteLetterEnd || kLetterBytes[c] < 0) return out.resize(start), false;
    out.push_back(static_cast<char>(kLetterBytes[c]));
  }
  return true;
}

namespace {

// Rewrites the text piece by piece: append(out, piece) appends the new text of one.
template <class Append>
void rewrite(Pieces& pieces, Append append) {
  std::string out;
  out.reserve(pieces.text.size() + pieces.text.size() / 8);
  for (Piece& piece : pieces.list) {
    const size_t begin = out.size();
    if (piece.token < 0) append(out, piece);
    piece.begin = begin;
    piece.end = out.size();
  }
  pieces.owned = std::move(out);
  pieces.text = pieces.owned;
}

void run(const PrependStep& step, Pieces& pieces, MatchScratch&) {
  rewrite(pieces, [&](std::string& out, const Piece& piece) {
    const std::string_view text = pieces.of(piece);
    const bool wanted = !text.empty() && !(step.unless_there && text.starts_with(step.prefix)) &&
                        (piece.at_start || !step.only_at_start);
    if (wanted) out += step.prefix;
    out += text;
  });
}

void run(const ReplaceStep& step, Pieces& pieces, MatchScratch& scratch) {
  std::vector<Part> parts;
  rewrite(pieces, [&](std::string& out, Piece& piece) {
    const std::string_view text = pieces.of(piece);
    parts.clear();
    step.pattern.split(text, scratch, parts);
    for (const Part& part : parts) {
      out += part.match ? step.content : text.substr(part.begin, part.end - part.begin);
    }
    // The first character is gone with what stood at the start of the input.
    if (step.content.empty() && !parts.empty() && parts[0].match && parts[0].end > 0) {
      piece.at_start = false;
    }
  });
}

void run(const StripStep& step, Pieces& pieces, MatchScratch&) {
  rewrite(pieces, [&](std::string& out, Piece& piece) {
    const std::string_view text = pieces.of(piece);
    size_t begin = 0, end = text.size();
    for (size_t next = 0; step.left && begin < end; begin = next) {
      if (!is_white_space(next_code_point(text, next))) break;
      piece.at_start = false;
    }
    while (step.right && end > begin) {
      const size_t last = previous_start(text, end);
      size_t pos = last;
      if (!is_white_space(next_code_point(text, pos))) break;
      end = last;
    }
    out += text.substr(begin, end - begin);
  });
}

void run(const LowercaseStep&, Pieces& pieces, MatchScratch&) {
  rewrite(pieces,
          [&](std::string& out, const Piece& piece) { out += lower_case(pieces.of(piece)); });
}

void run(const UnicodeForm& form, Pieces& pieces, MatchScratch&) {
  rewrite(pieces,
          [&](std::string& out, const Piece& piece) { out += normalized(pieces.of(piece), form); });
}

void run(const ByteLettersStep&, Pieces& pieces, MatchScratch&) {
  rewrite(pieces, [&](std::string& out, const Piece& piece) {
    append_byte_letters(out, pieces.of(piece));
  });
}

void run(const PrecompiledStep& step, Pieces& pieces, MatchScratch&) {
  rewrite(pieces, [&](std::string& out, const Piece& piece) {
    out += precompiled_text(*step.map, pieces.of(piece));
  });
}

// Appends the next character, mapped; returns how many bytes of the text it took.
size_t append_mapped(const SentencePieceStep& step, std::string_view text, std::string& out) {
  const auto found = step.map ? step.map->longest(text) : std::nullopt;
  const size_t bytes = found && found->bytes > 0 ? found->bytes : utf8_bytes(text[0]);
  out += found ? found->to : text.substr(0, bytes);
  return bytes;
}

void run(const SentencePieceStep& step, Pieces& pieces, MatchScratch&) {
  const std::string_view space = step.escape_spaces ? "\u2581" : " ";
  std::string part;
  rewrite(pieces, [&](std::string& out, const Piece& piece) {
    const std::string_view text = pieces.of(piece);
    const size_t start = out.size();
    bool after_space = step.remove_extra_spaces;       // spaces that follow go
    bool prefix = step.dummy_prefix && !text.empty();  // is still to come
    if (!step.remove_extra_spaces && std::exchange(prefix, false)) out += space;
    for (size_t pos = 0; pos < text.size();) {
      part.clear();
      pos += append_mapped(step, text.substr(pos), part);
      std::string_view rest(part);
      while (after_space && rest.starts_with(' ')) rest.remove_prefix(1);
      if (rest.empty()) continue;
      if (std::exchange(prefix, false)) out += space;
      for (char c : rest) {
        if (c == ' ') {
          out += space;
        } else {
          out.push_back(c);
        }
      }
      after_space = step.remove_extra_spaces && rest.ends_with(' ');
    }
    while (step.remove_extra_spaces && out.size() - start >= space.size() && out.ends_with(space)) {
      out.resize(out.size() - space.size());
    }
  });
}

// Joins parts as the behaviour says, in place; afterwards no part is a match but those to remove.
void join_parts(Behavior behavior, std::vector<Part>& parts) {
  if (behavior == Behavior::kRemoved) return;
  if (behavior == Behavior::kIsolated) {
    for (Part& part : parts) part.match = false;
    return;
  }
  if (behavior == Behavior::kMergedWithNext) std::reverse(parts.begin(), parts.end());
  size_t count = 0;
  bool previous = false;
  for (const Part part : parts) {
    const bool join =
        behavior == Behavior::kContiguous ? part.match == previous : part.match && !previous;
    previous = part.match;
    if (join && count > 0) {
      Part& last = parts[count - 1];
      last = {std::min(last.begin, part.begin), std::max(last.end, part.end), false};
    } else {
      parts[count++] = {part.begin, part.end, false};
    }
  }
  parts.resize(count);
  if (behavior == Behavior::kMergedWithNext) std::reverse(parts.begin(), parts.end());
}

void run(const SplitStep& step, Pieces& pieces, MatchScratch& scratch) {
  std::vector<Piece> out;
  out.reserve(pieces.list.size());
  std::vector<Part> parts;
  for (const Piece& piece : pieces.list) {
    if (piece.token >= 0) {
      out.push_back(piece);
      continue;
    }
    parts.clear();
    step.pattern.split(pieces.of(piece), scratch, parts);
    if (step.invert) {
      for (Part& part : parts) part.match = !part.match;
    }
    join_parts(step.behavior, parts);
    for (const Part& part : parts) {
      if (part.match || part.begin == part.end) continue;
      out.push_back({piece.begin + part.begin, piece.begin + part.end, -1,
                     piece.at_start && part.begin == 0});
    }
  }
  pieces.list = std::move(out);
}

}  // namespace

void run_step(const Step& step, Pieces& pieces, MatchScratch& scratch) {
  std::visit([&](const auto& s) { run(s, pieces, scratch); }, step);
}

}  // namespace mantissa
