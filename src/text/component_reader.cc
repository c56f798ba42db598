// Components of tokenizer.json as steps. Each table lists the types of one kind; a type that is
// missing here is refused by name.
#include "text/component_reader.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/error.h"
#include "text/utf8.h"

namespace mantissa {

void expect_only_keys(const json::Value& object, std::initializer_list<std::string_view> keys) {
  for (size_t i = 0; i < object.size(); ++i) {
    const auto [key, value] = object.member(i);
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      value.fail("no key of this name (this version does not know what it means)");
    }
  }
}

namespace {

using Value = json::Value;

constexpr std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
// What sentencepiece's nmt_nfkc rules remove, and what they make spaces.
constexpr std::string_view kNmtRemoved = "[\\x01-\\x08\\x0b\\x0e-\\x1f\\x7f\\x{8f}\\x{9f}]";
constexpr std::string_view kNmtSpaces =
    "[\\t\\n\\f\\r\\x{1680}\\x{200b}-\\x{200f}\\x{2028}\\x{2029}\\x{2581}\\x{feff}\\x{fffd}]";

std::string place(const Value& value, const std::string& file) {
  return file + ": " + value.path();
}

// Some of these keys may be missing; the value then is the reference's own default.
bool flag(const Value& object, std::string_view key, std::optional<bool> otherwise = {}) {
  const std::optional<Value> found = otherwise ? object.find_set(key) : object.at(key);
  return found ? found->as_bool() : *otherwise;
}

std::string one_character(const Value& value) {
  const std::string_view s = value.as_string();
  if (s.empty() || s.size() != utf8_bytes(s[0])) value.fail("one character");
  return std::string(s);
}

// {"String": "..."} or {"Regex": "..."}
Pattern read_pattern(const Value& value, const std::string& file) {
  expect_only_keys(value, {"String", "Regex"});
  if (value.size() != 1) value.fail("either \"String\" or \"Regex\"");
  const auto [kind, pattern] = value.member(0);
  const std::string where = place(value, file);
  return kind == "String" ? Pattern::literal(std::string(pattern.as_string()), where)
                          : Pattern::regex(pattern.as_string(), where);
}

Behavior read_behavior(const Value& value) {
  constexpr std::pair<std::string_view, Behavior> kNames[] = {
      {"Removed", Behavior::kRemoved},
      {"Isolated", Behavior::kIsolated},
      {"MergedWithPrevious", Behavior::kMergedWithPrevious},
      {"MergedWithNext", Behavior::kMergedWithNext},
      {"Contiguous", Behavior::kContiguous}};
  for (const auto& [name, behavior] : kNames) {
    if (value.as_string() == name) return behavior;
  }
  value.fail("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

using Steps = std::vector<Step>;
using DecodeSteps = std::vector<DecodeStep>;

// ---- normalizers

void read_normalizers(const Value& v, const std::string& file, Steps& out) {
  expect_only_keys(v, {"type", "normalizers"});
  const Value list = v.at("normalizers");
  for (size_t i = 0; i < list.size(); ++i) read_normalizer(list[i], file, out);
}
template <bool Compatible, bool Composed>
void read_form(const Value& v, const std::string&, Steps& out) {
  expect_only_keys(v, {"type"});
  out.emplace_back(UnicodeForm{Compatible, Composed});
}
void read_lowercase(const Value& v, const std::string&, Steps& out) {
  expect_only_keys(v, {"type"});
  out.emplace_back(LowercaseStep{});
}
void read_prepend(const Value& v, const std::string&, Steps& out) {
  expect_only_keys(v, {"type", "prepend"});
  out.emplace_back(PrependStep{.prefix = std::string(v.at("prepend").as_string())});
}
void read_replace(const Value& v, const std::string& file, Steps& out) {
  expect_only_keys(v, {"type", "pattern", "content"});
  out.emplace_back(
      ReplaceStep{read_pattern(v.at("pattern"), file), std::string(v.at("content").as_string())});
}
void read_strip(const Value& v, const std::string&, Steps& out) {
  expect_only_keys(v, {"type", "strip_left", "strip_right"});
  out.emplace_back(StripStep{flag(v, "strip_left"), flag(v, "strip_right")});
}
void read_strip_accents(const Value& v, const std::string&, Steps& out) {
  expect_only_keys(v, {"type"});
  out.emplace_back(ReplaceStep{Pattern::char_set("#combining"), ""});
}
void read_nmt(const Value& v, const std::string& file, Steps& out) {
  expect_only_keys(v, {"type"});
  out.emplace_back(ReplaceStep{Pattern::regex(kNmtRemoved, place(v, file)), ""});
  out.emplace_back(ReplaceStep{Pattern::regex(kNmtSpaces, place(v, file)), " "});
}
std::string from_base64(const Value& value) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string_view digits = value.as_string();
  while (digits.ends_with('=')) digits.remove_suffix(1);
  std::string out;
  uint32_t bits = 0;
  int held = 0;
  for (char c : digits) {
    const size_t digit = kDigits.find(c);
    if (digit == kDigits.npos) value.fail("base64");
    bits = bits << 6 | static_cast<uint32_t>(digit);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    out.push_back(static_cast<char>(bits >> held));
  }
  return out;
}
void read_precompiled(const Value& v, const std::string& file, Steps& out) {
  expect_only_keys(v, {"type", "precompiled_charsmap"});
  const auto map = v.find_set("precompiled_charsmap");
  if (!map || map->as_string().empty()) return;  // maps nothing
  out.emplace_back(
      PrecompiledStep{std::make_shared<const CharsMap>(from_base64(*map), place(*map, file))});
}
void read_byte_letters(const Value& v, const std::string&, Steps& out) {
  expect_only_keys(v, {"type"});
  out.emplace_back(ByteLettersStep{});
}

// ---- pre-tokenizers

void read_pre_tokenizers(const Value& v, const std::string& file, Steps& out) {
  expect_only_keys(v, {"type", "pretokenizers"});
  const Value list = v.at("pretokenizers");
  for (size_t i = 0; i < list.size(); ++i) read_pre_tokenizer(list[i], file, out);
}
void read_byte_level(const Value& v, const std::string& file, Steps& out) {
  expect_only_keys(v, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  if (flag(v, "add_prefix_space")) {
    out.emplace_back(PrependStep{.prefix = " ", .unless_there = true});
  }
  if (flag(v, "use_regex", true)) {
    out.emplace_back(SplitStep{Pattern::regex(kGpt2Pattern, place(v, file)), Behavior::kIsolated});
  }
  out.emplace_back(ByteLettersStep{});
}
void read_split(const Value& v, const std::string& file, Steps& out) {
  expect_only_keys(v, {"type", "pattern", "behavior", "invert"});
  out.emplace_back(SplitStep{read_pattern(v.at("pattern"), file), read_behavior(v.at("behavior")),
                             flag(v, "invert")});
}

enum class PrependScheme : uint8_t { kAlways, kFirst, kNever };
PrependScheme read_prepend_scheme(const Value& v) {
  PrependScheme scheme = PrependScheme::kAlways;
  if (const std::optional<Value> named = v.find("prepend_scheme")) {
    constexpr std::pair<std::string_view, PrependScheme> kNames[] = {
        {"always", PrependScheme::kAlways},
        {"first", PrependScheme::kFirst},
        {"never", PrependScheme::kNever}};
    const auto* row = std::find_if(std::begin(kNames), std::end(kNames),
                                   [&](const auto& r) { return r.first == named->as_string(); });
    if (row == std::end(kNames)) named->fail("always, first or never");
    scheme = row->second;
  }
  const std::optional<Value> legacy = v.find_set("add_prefix_space");
  if (legacy && !legacy->as_bool() && scheme != PrependScheme::kNever) {
    legacy->fail("what prepend_scheme says");
  }
  return scheme;
}
void read_metaspace(const Value& v, const std::string& file, Steps& out) {
  expect_only_keys(
      v, {"type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep"});
  const std::string mark = one_character(v.at("replacement"));
  const PrependScheme scheme = read_prepend_scheme(v);
  const std::string where = place(v, file);
  out.emplace_back(ReplaceStep{Pattern::literal(" ", where), mark});
  if (scheme != PrependScheme::kNever) {
    out.emplace_back(PrependStep{
        .prefix = mark, .unless_there = true, .only_at_start = scheme == PrependScheme::kFirst});
  }
  if (flag(v, "split", true)) {
    out.emplace_back(SplitStep{Pattern::literal(mark, where), Behavior::kMergedWithNext});
  }
}
void read_whitespace(const Value& v, const std::string&, Steps& out) {
  expect_only_keys(v, {"type"});
  // Runs of word characters, and runs of what is neither that nor white space.
  out.emplace_back(SplitStep{Pattern::char_set("White_Space", "+"), Behavior::kRemoved});
  out.emplace_back(SplitStep{Pattern::char_set("#word", "+"), Behavior::kIsolated});
}
void read_whitespace_split(const Value& v, const std::string&, Steps& out) {
  expect_only_keys(v, {"type"});
  out.emplace_back(SplitStep{Pattern::char_set("White_Space"), Behavior::kRemoved});
}
void read_digits(const Value& v, const std::string&, Steps& out) {
  expect_only_keys(v, {"type", "individual_digits"});
  out.emplace_back(SplitStep{Pattern::char_set("#numeric"), flag(v, "individual_digits")
                                                                ? Behavior::kIsolated
                                                                : Behavior::kContiguous});
}
void read_punctuation(const Value& v, const std::string&, Steps& out) {
  expect_only_keys(v, {"type", "behavior"});
  const std::optional<Value> behavior = v.find("behavior");
  out.emplace_back(SplitStep{Pattern::char_set("#punctuation"),
                             behavior ? read_behavior(*behavior) : Behavior::kIsolated});
}
void read_bert_pre_tokenizer(const Value& v, const std::string&, Steps& out) {
  expect_only_keys(v, {"type"});
  out.emplace_back(SplitStep{Pattern::char_set("White_Space"), Behavior::kRemoved});
  out.emplace_back(SplitStep{Pattern::char_set("#punctuation"), Behavior::kIsolated});
}
void read_delimiter(const Value& v, const std::string& file, Steps& out) {
  expect_only_keys(v, {"type", "delimiter"});
  out.emplace_back(SplitStep{Pattern::literal(one_character(v.at("delimiter")), place(v, file)),
                             Behavior::kRemoved});
}

// ---- decoders

void read_decoders(const Value& v, const std::string& file, DecodeSteps& out) {
  expect_only_keys(v, {"type", "decoders"});
  const Value list = v.at("decoders");
  for (size_t i = 0; i < list.size(); ++i) read_decoder(list[i], file, out);
}
// Whether the tokens are one text already where the next step starts.
bool fused(const DecodeSteps& steps) {
  return std::any_of(steps.begin(), steps.end(), fuses);
}
void refuse_fused(const Value& v, const DecodeSteps& steps) {
  if (fused(steps)) v.fail("a decoder that works on one text (this one needs single tokens)");
}
void read_byte_level_decoder(const Value& v, const std::string&, DecodeSteps& out) {
  expect_only_keys(v, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  refuse_fused(v, out);
  out.emplace_back(ByteLettersDecode{});
}
void read_byte_fallback(const Value& v, const std::string&, DecodeSteps& out) {
  expect_only_keys(v, {"type"});
  refuse_fused(v, out);
  out.emplace_back(ByteFallbackDecode{});
}
void read_fuse(const Value& v, const std::string&, DecodeSteps& out) {
  expect_only_keys(v, {"type"});
  out.emplace_back(FuseDecode{});
}
void read_strip_decoder(const Value& v, const std::string&, DecodeSteps& out) {
  constexpr int64_t kMost = 1 << 20;
  expect_only_keys(v, {"type", "content", "start", "stop"});
  out.emplace_back(StripDecode{one_character(v.at("content")),
                               static_cast<size_t>(v.at("start").as_int(0, kMost)),
                               static_cast<size_t>(v.at("stop").as_int(0, kMost))});
}
void read_replace_decoder(const Value& v, const std::string& file, DecodeSteps& out) {
  expect_only_keys(v, {"type", "pattern", "content"});
  Pattern pattern = read_pattern(v.at("pattern"), file);
  if (!pattern.is_literal()) refuse_fused(v, out);
  out.emplace_back(ReplaceDecode{std::move(pattern), std::string(v.at("content").as_string())});
}
void read_metaspace_decoder(const Value& v, const std::string&, DecodeSteps& out) {
  expect_only_keys(
      v, {"type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep"});
  out.emplace_back(MetaspaceDecode{one_character(v.at("replacement")),
                                   read_prepend_scheme(v) != PrependScheme::kNever});
}

template <class Out>
struct Component {
  std::string_view type;
  void (*read)(const Value&, const std::string&, Out&);
};

constexpr Component<Steps> kNormalizers[] = {
    {"Sequence", read_normalizers},
    {"NFC", read_form<false, true>},
    {"NFD", read_form<false, false>},
    {"NFKC", read_form<true, true>},
    {"NFKD", read_form<true, false>},
    {"Lowercase", read_lowercase},
    {"Prepend", read_prepend},
    {"Replace", read_replace},
    {"Strip", read_strip},
    {"StripAccents", read_strip_accents},
    {"Nmt", read_nmt},
    {"ByteLevel", read_byte_letters},
    {"Precompiled", read_precompiled},
};
constexpr Component<Steps> kPreTokenizers[] = {
    {"Sequence", read_pre_tokenizers},
    {"ByteLevel", read_byte_level},
    {"Split", read_split},
    {"Metaspace", read_metaspace},
    {"Whitespace", read_whitespace},
    {"WhitespaceSplit", read_whitespace_split},
    {"Digits", read_digits},
    {"Punctuation", read_punctuation},
    {"BertPreTokenizer", read_bert_pre_tokenizer},
    {"CharDelimiterSplit", read_delimiter},
};
constexpr Component<DecodeSteps> kDecoders[] = {
    {"Sequence", read_decoders},           {"ByteLevel", read_byte_level_decoder},
    {"ByteFallback", read_byte_fallback},  {"Fuse", read_fuse},
    {"Strip", read_strip_decoder},         {"Replace", read_replace_decoder},
    {"Metaspace", read_metaspace_decoder},
};

}  // namespace

void read_normalizer(const Value& value, const std::string& file, std::vector<Step>& out) {
  find_component(kNormalizers, value).read(value, file, out);
}
void read_pre_tokenizer(const Value& value, const std::string& file, std::vector<Step>& out) {
  find_component(kPreTokenizers, value).read(value, file, out);
}
void read_decoder(const Value& value, const std::string& file, std::vector<DecodeStep>& out) {
  find_component(kDecoders, value).read(value, file, out);
}

}  // namespace mantissa
