// Tokenizer and Detokenizer: see tokenizer.h.
#include "text/tokenizer.h"

#include "base/error.h"
#include "base/file.h"
#include "text/byte_letters.h"
#include "text/sentencepiece.h"
#include "text/tokenizer_data.h"
#include "text/utf8.h"

namespace mantissa {
namespace {

constexpr int64_t kFileBytesMax = int64_t{256} << 20;
constexpr size_t kTextBytesMax = size_t{1} << 30;

void drop_empty(Pieces& pieces) {
  std::erase_if(pieces.list, [](const Piece& p) { return p.token < 0 && p.begin == p.end; });
}

// What decoding sees of an id; nullopt where no token has it, or it is to be skipped.
std::optional<std::string_view> shown(const TokenizerData& data, int32_t id, bool skip_special) {
  if (const AddedToken* added = data.added_token(id)) {
    if (skip_special && added->special) return std::nullopt;
    return data.added_spelling[static_cast<size_t>(data.added_index[static_cast<size_t>(id)])];
  }
  if (id < 0 || static_cast<size_t>(id) >= data.tokens.size()) return std::nullopt;
  const std::string_view token = data.tokens[static_cast<size_t>(id)];
  return token.empty() ? std::nullopt : std::optional(token);
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const TokenizerData> data) : data_(std::move(data)) {}

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, std::string_view config_json,
                               const std::string& name) {
  auto data = std::make_shared<TokenizerData>();
  read_tokenizer_json(tokenizer_json, name, *data);
  if (!config_json.empty()) read_tokenizer_config(config_json, name + " (config)", *data);
  return Tokenizer(std::move(data));
}

namespace {

void load_sentencepiece(const std::filesystem::path& folder, TokenizerData& data) {
  constexpr const char* kNames[] = {"tokenizer.model",    "tokenizer.model.v3",
                                    "tokenizer.model.v2", "tokenizer.model.v1",
                                    "spiece.model",       "sentencepiece.bpe.model"};
  for (const char* name : kNames) {
    const std::filesystem::path path = folder / name;
    if (!std::filesystem::exists(path)) continue;
    read_sentencepiece(read_file(path, kFileBytesMax), path.string(), data);
    return;
  }
  throw Error(text("there is no tokenizer in ", folder.string()),
              "give a model folder that holds tokenizer.json or tokenizer.model (SentencePiece)");
}

}  // namespace

Tokenizer Tokenizer::from_sentencepiece(std::string_view model, std::string_view config_json,
                                        const std::string& name) {
  auto data = std::make_shared<TokenizerData>();
  read_sentencepiece(model, name, *data);
  if (!config_json.empty()) read_tokenizer_config(config_json, name + " (config)", *data);
  add_sentencepiece_ends(*data);
  return Tokenizer(std::move(data));
}

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  auto data = std::make_shared<TokenizerData>();
  const std::filesystem::path path = folder / "tokenizer.json";
  if (std::filesystem::exists(path)) {
    read_tokenizer_json(read_file(path, kFileBytesMax), path.string(), *data);
  } else {
    load_sentencepiece(folder, *data);
  }
  const std::filesystem::path config = folder / "tokenizer_config.json";
  if (std::filesystem::exists(config)) {
    read_tokenizer_config(read_file(config, kFileBytesMax), config.string(), *data);
  }
  read_chat_files(folder, *data);
  if (data->sentencepiece) add_sentencepiece_ends(*data);
  return Tokenizer(std::move(data));
}

std::vector<int32_t> Tokenizer::encode(std::string_view input, bool add_special_tokens) const {
  if (input.size() > kTextBytesMax) {
    throw Error(text("a text of ", input.size(), " bytes to encode"),
                text("split it into parts of at most ", kTextBytesMax, " bytes"));
  }
  const TokenizerData& data = *data_;
  std::string corrected;
  if (!is_valid_utf8(input)) {
    if (append_valid_utf8(corrected, input) > 0) corrected += kReplacement;
    input = corrected;
  }
  Pieces pieces;
  pieces.text = input;
  if (!input.empty()) pieces.list.push_back({0, input.size(), -1, true});
  MatchScratch scratch;
  data.raw_matcher.split(pieces, scratch);
  for (const Step& step : data.normalizer) run_step(step, pieces, scratch);
  drop_empty(pieces);
  data.normalized_matcher.split(pieces, scratch);
  for (const Step& step : data.pre_tokenizer) run_step(step, pieces, scratch);

  std::vector<int32_t> out;
  if (add_special_tokens) out = data.ids_before;
  data.encode(pieces, out);
  if (add_special_tokens) {
    out.insert(out.end(), data.ids_behind.begin(), data.ids_behind.end());
  }
  return out;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  DecodeStream stream(data_->decoder);
  std::string out;
  for (int32_t id : ids) {
    if (const auto token = shown(*data_, id, skip_special_tokens)) stream.push(*token, out);
  }
  stream.flush(out);
  return out;
}

int32_t Tokenizer::vocab_size() const {
  return static_cast<int32_t>(data_->added_index.size());
}

std::optional<int32_t> Tokenizer::token_id(std::string_view token) const {
  return data_->find(token);
}

std::string_view Tokenizer::token(int32_t id) const {
  if (const AddedToken* added = data_->added_token(id)) return added->content;
  return shown(*data_, id, false).value_or("");
}

std::string Tokenizer::token_bytes(int32_t id) const {
  const AddedToken* added = data_->added_token(id);
  if (added != nullptr) return added->content;
  std::string bytes(shown(*data_, id, false).value_or(""));
  for (const DecodeStep& step : data_->decoder) {
    if (std::holds_alternative<ByteLettersDecode>(step)) {
      std::string letters;
      return append_letter_bytes(letters, bytes) ? letters : bytes;
    }
    if (std::holds_alternative<ByteFallbackDecode>(step)) {
      const int byte = byte_of_token(bytes);
      if (byte >= 0) return std::string(1, static_cast<char>(byte));
    } else if (const auto* replace = std::get_if<ReplaceDecode>(&step)) {
      MatchScratch scratch;
      bytes = replace->pattern.replace(bytes, replace->content, scratch);
    } else if (const auto* metaspace = std::get_if<MetaspaceDecode>(&step)) {
      MatchScratch scratch;
      bytes = Pattern::literal(metaspace->replacement, "decoder").replace(bytes, " ", scratch);
    }
  }
  return bytes;
}

bool Tokenizer::is_special(int32_t id) const {
  const AddedToken* added = data_->added_token(id);
  return added != nullptr && added->special;
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return data_->bos_id;
}
std::optional<int32_t> Tokenizer::eos_id() const {
  return data_->eos_id;
}
std::optional<int32_t> Tokenizer::pad_id() const {
  return data_->pad_id;
}
bool Tokenizer::adds_bos() const {
  return data_->bos_id && !data_->ids_before.empty() && data_->ids_before[0] == *data_->bos_id;
}
const SpecialTokens& Tokenizer::special_tokens() const {
  return data_->special_tokens;
}
const std::vector<ChatTemplateSource>& Tokenizer::chat_templates() const {
  return data_->chat_templates;
}
const std::vector<std::string>& Tokenizer::notes() const {
  return data_->notes;
}

struct Detokenizer::State {
  std::shared_ptr<const TokenizerData> data;
  bool skip_special;
  DecodeStream stream;
};

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : state_(new State{tokenizer.data_, skip_special_tokens,
                       DecodeStream(tokenizer.data_->decoder)}) {}
Detokenizer::~Detokenizer() = default;
Detokenizer::Detokenizer(Detokenizer&&) noexcept = default;
Detokenizer& Detokenizer::operator=(Detokenizer&&) noexcept = default;

std::string Detokenizer::push(int32_t id) {
  std::string out;
  if (const auto token = shown(*state_->data, id, state_->skip_special)) {
    state_->stream.push(*token, out);
  }
  return out;
}

std::string Detokenizer::flush() {
  std::string out;
  state_->stream.flush(out);
  return out;
}

}  // namespace mantissa
