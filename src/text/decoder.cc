// Decoders on a stream: see decoder.h.
#include "text/decoder.h"

#include <algorithm>
#include <utility>

#include "text/byte_letters.h"
#include "text/utf8.h"

namespace mantissa {

bool fuses(const DecodeStep& step) {
  return std::holds_alternative<FuseDecode>(step) ||
         std::holds_alternative<ByteLettersDecode>(step);
}

int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    // The reference reads "+A" as ten, too.
    if (digit < 0 && !(c == '+' && token[3] == '+' && value == 0 && token[4] != '+')) return -1;
    value = value * 16 + std::max(digit, 0);
  }
  return value;
}

DecodeStream::DecodeStream(const std::vector<DecodeStep>& steps)
    : steps_(&steps), states_(steps.size()) {
  bool fused = false;
  for (size_t i = 0; i < steps.size(); ++i) {
    states_[i].fused = fused;
    fused = fused || fuses(steps[i]);
  }
}

void DecodeStream::push(std::string_view token, std::string& out) {
  out_ = &out;
  enter(0, token);
}

void DecodeStream::flush(std::string& out) {
  out_ = &out;
  for (size_t stage = 0; stage < states_.size(); ++stage) {
    end(stage);
    const bool fused = states_[stage].fused;
    states_[stage] = {};
    states_[stage].fused = fused;
  }
}

void DecodeStream::enter(size_t stage, std::string_view text) {
  if (stage == states_.size()) {
    out_->append(text);
    return;
  }
  State& state = states_[stage];
  std::visit([&](const auto& s) { step(s, state, stage, text); }, (*steps_)[stage]);
  state.started = true;
}

void DecodeStream::step(const ByteLettersDecode&, State& state, size_t stage,
                        std::string_view text) {
  if (!append_letter_bytes(state.held, text)) state.held += text;
  std::string valid;
  const size_t unfinished = append_valid_utf8(valid, state.held);
  state.held.erase(0, state.held.size() - unfinished);
  if (!valid.empty()) enter(stage + 1, valid);
}

void DecodeStream::step(const ByteFallbackDecode&, State& state, size_t stage,
                        std::string_view text) {
  const int byte = byte_of_token(text);
  if (byte < 0) {
    end(stage);
    return enter(stage + 1, text);
  }
  state.held.push_back(static_cast<char>(byte));
  // One invalid byte makes every token of the run a U+FFFD; until then, nothing is certain.
  if (state.count == 0) {
    size_t pos = 0;
    while (pos < state.held.size()) {
      const Utf8Head head = utf8_head(std::string_view(state.held).substr(pos));
      if (head.kind == Utf8Head::Kind::kInvalid) break;
      pos += head.bytes;
    }
    if (pos == state.held.size()) return;
  }
  for (size_t i = 0; i < state.held.size(); ++i) enter(stage + 1, kReplacement);
  state.count += state.held.size();
  state.held.clear();
}

void DecodeStream::step(const FuseDecode&, State&, size_t stage, std::string_view text) {
  enter(stage + 1, text);
}

void DecodeStream::step(const StripDecode& strip, State& state, size_t stage,
                        std::string_view text) {
  if (!state.fused) {
    state.count = 0;
    state.past_start = false;
  }
  size_t begin = 0;
  while (!state.past_start && state.count < strip.start &&
         text.substr(begin).starts_with(strip.content)) {
    begin += strip.content.size();
    ++state.count;
  }
  if (begin < text.size()) state.past_start = true;
  std::string whole = state.held + std::string(text.substr(begin));
  size_t end = whole.size();
  for (size_t i = 0;
       i < strip.stop && std::string_view(whole).substr(0, end).ends_with(strip.content); ++i) {
    end -= strip.content.size();
  }
  if (state.fused) state.held = whole.substr(end);
  enter(stage + 1, std::string_view(whole).substr(0, end));
}

void DecodeStream::step(const ReplaceDecode& replace, State& state, size_t stage,
                        std::string_view text) {
  MatchScratch scratch;
  if (!state.fused)
    return enter(stage + 1, replace.pattern.replace(text, replace.content, scratch));
  const std::string& wanted = replace.pattern.literal_text();
  std::string whole = state.held + std::string(text);
  std::string done;
  size_t pos = 0;
  for (size_t at; (at = whole.find(wanted, pos)) != whole.npos; pos = at + wanted.size()) {
    done.append(whole, pos, at - pos).append(replace.content);
  }
  // The longest end that a match may start with waits for more.
  size_t held = std::min(wanted.size() - 1, whole.size() - pos);
  while (held > 0 && !wanted.starts_with(std::string_view(whole).substr(whole.size() - held))) {
    --held;
  }
  done.append(whole, pos, whole.size() - held - pos);
  state.held = whole.substr(whole.size() - held);
  enter(stage + 1, done);
}

void DecodeStream::step(const MetaspaceDecode& metaspace, State& state, size_t stage,
                        std::string_view text) {
  const bool first = state.fused || !state.started;
  const std::string_view space = first && metaspace.drop_in_first ? "" : " ";
  std::string done;
  size_t pos = 0;
  for (size_t at; (at = text.find(metaspace.replacement, pos)) != text.npos;
       pos = at + metaspace.replacement.size()) {
    done.append(text.substr(pos, at - pos)).append(space);
  }
  enter(stage + 1, done.append(text.substr(pos)));
}

void DecodeStream::step(const JoinDecode&, State& state, size_t stage, std::string_view text) {
  if (state.started) enter(stage + 1, " ");
  enter(stage + 1, text);
}

void DecodeStream::end(size_t stage) {
  State& state = states_[stage];
  const std::string held = std::exchange(state.held, {});
  state.count = 0;
  const DecodeStep& s = (*steps_)[stage];
  if (held.empty()) return;
  if (std::holds_alternative<ByteLettersDecode>(s)) {
    enter(stage + 1, kReplacement);  // an unfinished character
  } else if (std::holds_alternative<ByteFallbackDecode>(s)) {
    if (is_valid_utf8(held)) return enter(stage + 1, held);
    for (size_t i = 0; i < held.size(); ++i) enter(stage + 1, kReplacement);
  } else if (std::holds_alternative<ReplaceDecode>(s)) {
    enter(stage + 1, held);
  }
  // What StripDecode holds are characters to drop.
}

}  // namespace mantissa
