// Text to token ids and back, as a model folder's tokenizer.json or tokenizer.model says. Ids and
// texts equal those of the Hugging Face `tokenizers` library, or of `sentencepiece`. What the file
// asks for and this code does not do is refused at load, naming the place in the file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mantissa {

using SpecialTokens = std::vector<std::pair<std::string, std::string>>;  // "bos_token", "<s>"
struct ChatTemplateSource {
  std::string name;   // "default", "tool_use"
  std::string place;  // the file, for errors
  std::string text;
};

struct TokenizerData;  // everything loaded, immutable

// As cheap to copy as a pointer. All functions may be called by several threads at once.
class Tokenizer {
 public:
  // Reads tokenizer.json, or where there is none tokenizer.model (SentencePiece), and, where there
  // is one, tokenizer_config.json of the folder. Throws Error.
  static Tokenizer load(const std::filesystem::path& folder);
  // The same from the files' contents; config may be empty. name: what errors call the first.
  static Tokenizer from_json(std::string_view tokenizer_json, std::string_view config_json,
                             const std::string& name);

  // A SentencePiece model; it adds BOS and EOS as the config says (add_bos_token, add_eos_token),
  // where that says nothing BOS only, as transformers does.
  static Tokenizer from_sentencepiece(std::string_view model, std::string_view config_json,
                                      const std::string& name);

  // Invalid UTF-8 counts as U+FFFD, one for each maximal invalid part, before anything else
  // happens. Special tokens written out in the text become their ids whatever add_special_tokens
  // says; that argument is about the ids the post-processor adds (BOS, mostly). Throws Error where
  // a pattern of the file exceeds its match limit on this text.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const;
  // Always valid UTF-8: a part that is none becomes U+FFFD. Ids that no token has add nothing (a
  // model's head may have more rows than its tokenizer has tokens).
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  int32_t vocab_size() const;  // highest id + 1, added tokens included; there may be gaps
  std::optional<int32_t> token_id(std::string_view token) const;
  // As it stands in the vocabulary ("Ġthe", "<0x0A>"); empty for an id that no token has.
  std::string_view token(int32_t id) const;
  // What the token stands for: byte-level letters, <0x0A> and the metaspace undone. May be part of
  // a character. The leading space that decode strips from a text stays.
  std::string token_bytes(int32_t id) const;
  bool is_special(int32_t id) const;

  // Of tokenizer_config.json; nullopt where it names none. Unlike generation_config.json's, there
  // is one of each.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;
  // Whether encode(text, true) starts with bos_id().
  bool adds_bos() const;
  // Of tokenizer_config.json and special_tokens_map.json: what templates know by name.
  const SpecialTokens& special_tokens() const;
  // chat_template.jinja and additional_chat_templates/ of the folder, else chat_template of
  // tokenizer_config.json or chat_template.json; unread. See chat_template.h.
  const std::vector<ChatTemplateSource>& chat_templates() const;
  // What a user may want to know about the files, one line each: contradictions between them.
  const std::vector<std::string>& notes() const;

 private:
  explicit Tokenizer(std::shared_ptr<const TokenizerData> data);
  friend class Detokenizer;
  std::shared_ptr<const TokenizerData> data_;
};

// decode() in steps, for streams: the texts of all push() and of flush(), joined, are what decode()
// says of all ids; each is valid UTF-8. Text is held back while it may still change: an unfinished
// character, a run of byte tokens, a space that may be stripped at the end.
// A SentencePiece-style tokenizer drops the space before the first token: to continue a prompt,
// push the prompt's ids first and throw away what they give.
class Detokenizer {
 public:
  Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens);
  ~Detokenizer();
  Detokenizer(Detokenizer&&) noexcept;
  Detokenizer& operator=(Detokenizer&&) noexcept;

  std::string push(int32_t id);
  std::string flush();  // the end of the text; after it, push starts a new one

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mantissa
