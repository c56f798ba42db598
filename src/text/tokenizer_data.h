// What a Tokenizer consists of, and the reader of tokenizer.json that fills it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/steps.h"
#include "text/tokenizer.h"
#include "text/unigram.h"

namespace mantissa {

struct TokenizerData {
  std::string arena;                     // of the vocabulary's strings
  std::vector<std::string_view> tokens;  // [id]: the model's; empty: a gap
  std::variant<std::monostate, Bpe, Unigram> model;
  std::vector<AddedToken> added;
  std::vector<int32_t> added_index;         // [id]: of added, or -1; its size is the vocabulary's
  std::vector<std::string> added_spelling;  // [index]: what decoding sees
  AddedTokenMatcher raw_matcher, normalized_matcher;
  std::vector<Step> normalizer, pre_tokenizer;
  std::vector<int32_t> ids_before, ids_behind;  // what the post-processor adds
  std::vector<DecodeStep> decoder;

  bool sentencepiece = false;  // made from tokenizer.model: no file says what is added to a text
  bool add_bos = true, add_eos = false;  // of tokenizer_config.json, for such a one

  // Of tokenizer_config.json.
  std::optional<int32_t> bos_id, eos_id, pad_id;
  SpecialTokens special_tokens;
  std::vector<ChatTemplateSource> chat_templates;
  std::vector<std::string> notes;

  const AddedToken* added_token(int32_t id) const {
    if (id < 0 || static_cast<size_t>(id) >= added_index.size()) return nullptr;
    const int32_t index = added_index[static_cast<size_t>(id)];
    return index < 0 ? nullptr : &added[static_cast<size_t>(index)];
  }
  std::optional<int32_t> find(std::string_view token) const;
  int32_t model_id(std::string_view token) const;  // -1: not in the model's own vocabulary
  void encode(const Pieces& pieces, std::vector<int32_t>& out) const;
};

// From `added` on: finds the tokens by id, fills the matchers.
void index_added_tokens(TokenizerData& out);
// All throw Error, naming the place in the file.
void read_tokenizer_json(std::string_view json, const std::string& name, TokenizerData& out);
void read_tokenizer_config(std::string_view json, const std::string& name, TokenizerData& out);
// ids_before and ids_behind of a tokenizer.model.
void add_sentencepiece_ends(TokenizerData& out);
// Special tokens and chat templates that the config does not name, of the folder's other files.
void read_chat_files(const std::filesystem::path& folder, TokenizerData& out);

}  // namespace mantissa
