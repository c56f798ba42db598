// Reads tokenizer.json and tokenizer_config.json: vocabulary, merges, added tokens, post-processor.
#include "text/tokenizer_data.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "text/byte_letters.h"
#include "text/chat_files.h"
#include "text/component_reader.h"

namespace mantissa {
namespace {

using json::Value;

constexpr int64_t kIdMax = (int64_t{1} << 22) - 1;  // bounds the table by id: 64 MiB
constexpr json::Limits kLimits{.bytes_max = int64_t{256} << 20, .values_max = 16'000'000};

bool flag(const Value& object, std::string_view key) {
  const std::optional<Value> value = object.find_set(key);
  return value && value->as_bool();
}
std::string optional_string(const Value& object, std::string_view key) {
  const std::optional<Value> value = object.find_set(key);
  return value ? std::string(value->as_string()) : std::string();
}
int32_t read_id(const Value& value) {
  return static_cast<int32_t>(value.as_int(0, kIdMax));
}

// ---- model

void read_vocabulary(const Value& vocab, TokenizerData& out) {
  size_t bytes = 0;
  int32_t id_max = -1;
  for (size_t i = 0; i < vocab.size(); ++i) {
    const auto [token, id] = vocab.member(i);
    bytes += token.size();
    id_max = std::max(id_max, read_id(id));
  }
  out.arena.reserve(bytes);  // exactly: the views below must not move
  out.tokens.assign(static_cast<size_t>(id_max) + 1, {});
  for (size_t i = 0; i < vocab.size(); ++i) {
    const auto [token, id] = vocab.member(i);
    std::string_view& slot = out.tokens[static_cast<size_t>(read_id(id))];
    if (!slot.empty()) id.fail("an id that no other token has");
    const size_t begin = out.arena.size();
    out.arena += token;
    slot = std::string_view(out.arena).substr(begin);
  }
}

// "a b" or ["a", "b"]
std::pair<std::string_view, std::string_view> read_merge(const Value& merge) {
  if (merge.is_array()) {
    if (merge.size() != 2) merge.fail("two strings");
    return {merge[0].as_string(), merge[1].as_string()};
  }
  const std::string_view both = merge.as_string();
  const size_t space = both.find(' ');
  if (space == both.npos || both.find(' ', space + 1) != both.npos) {
    merge.fail("two strings with one space between them");
  }
  return {both.substr(0, space), both.substr(space + 1)};
}

void read_merges(const Value& merges, Bpe& model) {
  uint32_t rank = 0;
  for (size_t i = 0; i < merges.size(); ++i) {
    const Value merge = merges[i];
    if (merge.is_string() && merge.as_string().starts_with("#version")) continue;
    if (merge.is_string() != merges[0].is_string()) merge.fail("what the first merge is");
    const auto [left, right] = read_merge(merge);
    if (const std::optional<std::string> missing = model.add_merge(rank++, left, right)) {
      merge.fail(text("tokens of model.vocab (", mantissa::quoted(*missing), " is none)"));
    }
  }
}

void read_bpe(const Value& model, TokenizerData& out) {
  expect_only_keys(
      model, {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
              "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
  const std::optional<Value> dropout = model.find_set("dropout");
  if (dropout && dropout->as_number() != 0) dropout->fail("null or 0 (encoding is not random)");
  read_vocabulary(model.at("vocab"), out);
  BpeOptions options;
  if (const std::optional<Value> unk = model.find_set("unk_token")) {
    options.unk_token = std::string(unk->as_string());
  }
  options.continuing_subword_prefix = optional_string(model, "continuing_subword_prefix");
  options.end_of_word_suffix = optional_string(model, "end_of_word_suffix");
  options.fuse_unk = flag(model, "fuse_unk");
  options.byte_fallback = flag(model, "byte_fallback");
  options.ignore_merges = flag(model, "ignore_merges");
  const Value merges = model.at("merges");
  read_merges(merges, out.model.emplace<Bpe>(out.tokens, std::move(options), merges.size()));
}

// [["<unk>", 0.0], ["a", -3.5], ...] in the order of ids
void read_unigram(const Value& model, TokenizerData& out) {
  expect_only_keys(model, {"type", "unk_id", "vocab", "byte_fallback"});
  const Value vocab = model.at("vocab");
  size_t bytes = 0;
  for (size_t i = 0; i < vocab.size(); ++i) bytes += vocab[i][0].as_string().size();
  out.arena.reserve(bytes);  // exactly: the views below must not move
  std::vector<double> scores;
  for (size_t i = 0; i < vocab.size(); ++i) {
    const Value row = vocab[i];
    if (row.size() != 2) row.fail("a token and its score");
    const size_t begin = out.arena.size();
    out.arena += row[0].as_string();
    out.tokens.push_back(std::string_view(out.arena).substr(begin));
    scores.push_back(row[1].as_number());
  }
  if (vocab.size() == 0 || std::ssize(out.tokens) > kIdMax) vocab.fail("1 to 4194303 tokens");
  UnigramOptions options;
  options.byte_fallback = flag(model, "byte_fallback");
  if (const auto unk = model.find_set("unk_id")) {
    options.unk_id = static_cast<int32_t>(unk->as_int(0, std::ssize(out.tokens) - 1));
  }
  out.model.emplace<Unigram>(out.tokens, std::move(scores),
                             std::vector<bool>(out.tokens.size(), true), options);
}

void read_model(const Value& model, TokenizerData& out) {
  struct Row {
    std::string_view type;
    void (*read)(const Value&, TokenizerData&);
  };
  constexpr Row kModels[] = {{"BPE", read_bpe}, {"Unigram", read_unigram}};
  // Files of the library's early versions name no type.
  (model.find("type") ? find_component(kModels, model) : kModels[0]).read(model, out);
}

// ---- added tokens

std::string normalized_content(const TokenizerData& data, std::string_view content,
                               MatchScratch& scratch) {
  Pieces pieces;
  pieces.text = content;
  pieces.list = {{0, content.size(), -1, true}};
  for (const Step& step : data.normalizer) run_step(step, pieces, scratch);
  return std::string(pieces.of(pieces.list[0]));
}

AddedToken read_added_token(const Value& token) {
  expect_only_keys(token,
                   {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
  const std::string_view content = token.at("content").as_string();
  if (content.size() > AddedTokenMatcher::kContentBytesMax) {
    token.at("content").fail(text("at most ", AddedTokenMatcher::kContentBytesMax, " bytes"));
  }
  return {.id = read_id(token.at("id")),
          .content = std::string(content),
          .single_word = token.at("single_word").as_bool(),
          .lstrip = token.at("lstrip").as_bool(),
          .rstrip = token.at("rstrip").as_bool(),
          .normalized = token.at("normalized").as_bool(),
          .special = token.at("special").as_bool()};
}

// The reference does not take the ids of the file, but gives them: that of the model's vocabulary,
// or the next free one.
void read_added_tokens(const Value& list, const std::string& file, TokenizerData& out) {
  StringTable known(list.size());  // content to index
  out.added.reserve(list.size());  // exactly: the table's views must not move
  size_t model_count = 0;
  for (std::string_view token : out.tokens) model_count += token.empty() ? 0 : 1;
  auto next_id = static_cast<int32_t>(model_count);
  for (size_t i = 0; i < list.size(); ++i) {
    AddedToken token = read_added_token(list[i]);
    if (token.content.empty()) continue;
    const int32_t before = known.find(token.content);
    const int32_t wanted = token.id;
    if (before >= 0) {
      AddedToken& there = out.added[static_cast<size_t>(before)];
      token.id = there.id;
      token.special = token.special || there.special;
      there = token;
    } else {
      const int32_t id = out.model_id(token.content);
      token.id = id >= 0 ? id : next_id++;
      out.added.push_back(token);
      known.insert(out.added.back().content, static_cast<int32_t>(out.added.size() - 1));
    }
    if (token.id != wanted) {
      out.notes.push_back(text(file, ": ", list[i].path(), ": ", mantissa::quoted(token.content),
                               " has id ", wanted, " there, but gets ", token.id,
                               " (as the reference library does)"));
    }
  }
}

// ---- post-processor

struct PostProcessor {
  std::string_view type;
  void (*read)(const Value&, TokenizerData&);
};
void read_post_processor(const Value& value, TokenizerData& out);

void read_processors(const Value& v, TokenizerData& out) {
  expect_only_keys(v, {"type", "processors"});
  const Value list = v.at("processors");
  for (size_t i = 0; i < list.size(); ++i) read_post_processor(list[i], out);
}
void read_offsets_only(const Value& v, TokenizerData&) {
  expect_only_keys(v, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
}

// Adds ids around all that is there.
void wrap(TokenizerData& out, const std::vector<int32_t>& before,
          const std::vector<int32_t>& behind) {
  out.ids_before.insert(out.ids_before.begin(), before.begin(), before.end());
  out.ids_behind.insert(out.ids_behind.end(), behind.begin(), behind.end());
}

void read_template(const Value& v, TokenizerData& out) {
  expect_only_keys(v, {"type", "single", "pair", "special_tokens"});
  const Value single = v.at("single"), special = v.at("special_tokens");
  std::vector<int32_t> around[2];  // before and behind the text
  bool seen = false;
  for (size_t i = 0; i < single.size(); ++i) {
    const Value piece = single[i];
    if (piece.size() != 1) piece.fail("a Sequence or a SpecialToken");
    const auto [kind, inside] = piece.member(0);
    expect_only_keys(inside, {"id", "type_id"});
    if (kind == "Sequence" && !seen && inside.at("id").as_string() == "A") {
      seen = true;
      continue;
    }
    if (kind != "SpecialToken") piece.fail("a SpecialToken, or the one Sequence \"A\"");
    const Value token = special.at(inside.at("id").as_string());
    expect_only_keys(token, {"id", "ids", "tokens"});
    const Value ids = token.at("ids");
    for (size_t k = 0; k < ids.size(); ++k) around[seen ? 1 : 0].push_back(read_id(ids[k]));
  }
  if (!seen) single.fail("a template that holds Sequence \"A\"");
  wrap(out, around[0], around[1]);
}

// ["[SEP]", 102]
int32_t read_named_id(const Value& pair) {
  if (pair.size() != 2) pair.fail("a token and its id");
  return read_id(pair[1]);
}
void read_cls_sep(const Value& v, TokenizerData& out) {
  expect_only_keys(v, {"type", "sep", "cls", "trim_offsets", "add_prefix_space"});
  wrap(out, {read_named_id(v.at("cls"))}, {read_named_id(v.at("sep"))});
}

constexpr PostProcessor kPostProcessors[] = {
    {"Sequence", read_processors},    {"TemplateProcessing", read_template},
    {"ByteLevel", read_offsets_only}, {"RobertaProcessing", read_cls_sep},
    {"BertProcessing", read_cls_sep},
};
void read_post_processor(const Value& value, TokenizerData& out) {
  find_component(kPostProcessors, value).read(value, out);
}

// ---- tokenizer_config.json

// A string, an object with "content", or null; nullopt where the token is not in the vocabulary.
std::optional<int32_t> read_named_token(const Value& config, std::string_view key,
                                        const std::string& file, TokenizerData& out) {
  const std::optional<Value> value = config.find_set(key);
  if (!value) return std::nullopt;
  const std::string_view content =
      value->is_object() ? value->at("content").as_string() : value->as_string();
  const std::optional<int32_t> id = out.find(content);
  if (!id) {
    out.notes.push_back(text(file, ": ", key, " is ", mantissa::quoted(content),
                             ", which the tokenizer does not have"));
  }
  return id;
}

}  // namespace

void index_added_tokens(TokenizerData& out) {
  size_t count = out.tokens.size();
  for (const AddedToken& token : out.added) {
    count = std::max(count, static_cast<size_t>(token.id) + 1);
  }
  out.added_index.assign(count, -1);
  MatchScratch scratch;
  for (size_t i = 0; i < out.added.size(); ++i) {
    const AddedToken& token = out.added[i];
    out.added_index[static_cast<size_t>(token.id)] = static_cast<int32_t>(i);
    const std::string normal =
        token.normalized ? normalized_content(out, token.content, scratch) : token.content;
    (token.normalized ? out.normalized_matcher : out.raw_matcher).add(token, normal);
    // Decoding undoes what normalizing did. Special tokens stay as they are written, so that they
    // can be told from text and left out.
    out.added_spelling.push_back(token.special ? token.content : normal);
  }
}

int32_t TokenizerData::model_id(std::string_view token) const {
  if (const Bpe* bpe = std::get_if<Bpe>(&model)) return bpe->token_id(token);
  const Unigram* unigram = std::get_if<Unigram>(&model);
  return unigram ? unigram->token_id(token) : -1;
}

void TokenizerData::encode(const Pieces& pieces, std::vector<int32_t>& out) const {
  if (const Bpe* bpe = std::get_if<Bpe>(&model)) return bpe->encode(pieces, out);
  std::get<Unigram>(model).encode(pieces, out);
}

std::optional<int32_t> TokenizerData::find(std::string_view token) const {
  for (const AddedToken& candidate : added) {
    if (candidate.content == token) return candidate.id;
  }
  const int32_t id = model_id(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

void read_tokenizer_json(std::string_view json, const std::string& name, TokenizerData& out) {
  const json::Document document = json::parse(json, name, kLimits);
  const Value root = document.root();
  expect_only_keys(root, {"version", "truncation", "padding", "added_tokens", "normalizer",
                          "pre_tokenizer", "post_processor", "decoder", "model"});
  if (const std::optional<Value> version = root.find("version")) {
    if (version->as_string() != "1.0") version->fail("\"1.0\"");
  }
  if (const auto normalizer = root.find_set("normalizer")) {
    read_normalizer(*normalizer, name, out.normalizer);
  }
  if (const auto pre_tokenizer = root.find_set("pre_tokenizer")) {
    read_pre_tokenizer(*pre_tokenizer, name, out.pre_tokenizer);
  }
  if (const auto decoder = root.find_set("decoder")) {
    read_decoder(*decoder, name, out.decoder);
  } else {
    out.decoder.emplace_back(JoinDecode{});
  }
  read_model(root.at("model"), out);
  if (const auto added = root.find_set("added_tokens")) read_added_tokens(*added, name, out);
  index_added_tokens(out);
  if (const auto post = root.find_set("post_processor")) read_post_processor(*post, out);
}

void read_tokenizer_config(std::string_view json, const std::string& name, TokenizerData& out) {
  const json::Document document = json::parse(json, name, kLimits);
  const Value root = document.root();
  for (const auto& [key, id] :
       {std::pair{"bos_token", &out.bos_id}, std::pair{"eos_token", &out.eos_id},
        std::pair{"pad_token", &out.pad_id}}) {
    if (root.find_set(key)) *id = read_named_token(root, key, name, out);
  }
  read_special_tokens(root, out);
  if (const auto chat = root.find_set("chat_template")) read_chat_templates(*chat, name, out);
  if (out.sentencepiece) {
    if (const auto add = root.find_set("add_bos_token")) out.add_bos = add->as_bool();
    if (const auto add = root.find_set("add_eos_token")) out.add_eos = add->as_bool();
    return;
  }
  struct Promise {
    std::string_view key;
    const std::optional<int32_t>& id;
    bool kept;
  };
  const bool starts = out.bos_id && !out.ids_before.empty() && out.ids_before[0] == *out.bos_id;
  const bool ends = out.eos_id && !out.ids_behind.empty() && out.ids_behind.back() == *out.eos_id;
  for (const Promise& promise :
       {Promise{"add_bos_token", out.bos_id, starts}, Promise{"add_eos_token", out.eos_id, ends}}) {
    const std::optional<Value> value = root.find_set(promise.key);
    if (!value || !promise.id || value->as_bool() == promise.kept) continue;
    out.notes.push_back(text(name, ": ", promise.key, " is ", value->as_bool() ? "true" : "false",
                             ", but the post_processor of tokenizer.json, which counts, ",
                             promise.kept ? "adds it" : "does not add it"));
  }
}

}  // namespace mantissa
