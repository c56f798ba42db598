// SentencePiece models (tokenizer.model): a protobuf message with pieces, scores and the rules of
// normalization. Untrusted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mantissa {

struct TokenizerData;

struct SentencePieceModel {
  enum class Type : uint8_t {  // of a piece
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  struct Piece {
    std::string text;
    float score = 0;
    Type type = Type::kNormal;
  };
  std::vector<Piece> pieces;  // [id]
  // trainer_spec
  int64_t model_type = 1;  // 1: unigram, 2: BPE
  int64_t bos_id = 1, eos_id = 2, pad_id = -1;
  bool byte_fallback = false, space_as_suffix = false;
  // normalizer_spec
  std::string charsmap;
  bool dummy_prefix = true, remove_extra_spaces = true, escape_spaces = true;
};

// Both throw Error naming the file and what is wrong or not supported.
SentencePieceModel parse_sentencepiece(std::string_view bytes, const std::string& name);
// As sentencepiece encodes. Control and user-defined pieces written out in a text become their ids;
// the text between them is normalized for itself, as transformers does.
void read_sentencepiece(std::string_view bytes, const std::string& name, TokenizerData& out);

}  // namespace mantissa
