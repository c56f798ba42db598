// Reads SentencePiece models: see sentencepiece.h.
#include "text/sentencepiece.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "text/tokenizer_data.h"
#include "text/utf8.h"

namespace mantissa {
namespace {

constexpr size_t kPiecesMax = size_t{1} << 22;

// The fields of one protobuf message.
class Message {
 public:
  struct Field {
    uint32_t number = 0;
    uint64_t value = 0;      // a varint, or the bits of a fixed number
    std::string_view bytes;  // of a string or message
    bool flag() const { return value != 0; }
    int64_t integer() const { return static_cast<int64_t>(value); }
    float real() const {
      const auto bits = static_cast<uint32_t>(value);
      float out = 0;
      std::memcpy(&out, &bits, sizeof out);
      return out;
    }
  };
  Message(std::string_view bytes, const std::string& name) : rest_(bytes), name_(name) {}

  bool next(Field& field) {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    field = {.number = static_cast<uint32_t>(key >> 3), .value = 0, .bytes = {}};
    switch (key & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.value = fixed(4);
        break;
      default:
        fail();
    }
    return true;
  }

 private:
  [[noreturn]] void fail() const {
    throw Error(name_ + " is cut, or no SentencePiece model", "get the file anew");
  }
  std::string_view take(uint64_t size) {
    if (size > rest_.size()) fail();
    const std::string_view out = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return out;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      if (shift < 64) value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }
  uint64_t fixed(size_t size) {
    uint64_t value = 0;
    std::memcpy(&value, take(size).data(), size);
    return value;
  }

  std::string_view rest_;
  const std::string& name_;
};

using Model = SentencePieceModel;
using Type = Model::Type;

Model::Piece read_piece(std::string_view bytes, const std::string& name) {
  Model::Piece piece;
  Message message(bytes, name);
  for (Message::Field field; message.next(field);) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2) piece.score = field.real();
    if (field.number == 3) {
      if (field.value < 1 || field.value > 6) {
        throw Error(text(name, ": a piece of type ", field.value), "use types 1 to 6");
      }
      piece.type = static_cast<Type>(field.value);
    }
  }
  return piece;
}

void read_trainer(std::string_view bytes, const std::string& name, Model& out) {
  Message message(bytes, name);
  for (Message::Field field; message.next(field);) {
    switch (field.number) {
      case 3:
        out.model_type = field.integer();
        break;
      case 24:
        out.space_as_suffix = field.flag();
        break;
      case 35:
        out.byte_fallback = field.flag();
        break;
      case 41:
        out.bos_id = static_cast<int32_t>(field.integer());
        break;
      case 42:
        out.eos_id = static_cast<int32_t>(field.integer());
        break;
      case 43:
        out.pad_id = static_cast<int32_t>(field.integer());
        break;
      default:
        break;  // how it was trained
    }
  }
}

void read_normalizer_spec(std::string_view bytes, const std::string& name, Model& out) {
  Message message(bytes, name);
  for (Message::Field field; message.next(field);) {
    switch (field.number) {
      case 2:
        out.charsmap = field.bytes;
        break;
      case 3:
        out.dummy_prefix = field.flag();
        break;
      case 4:
        out.remove_extra_spaces = field.flag();
        break;
      case 5:
        out.escape_spaces = field.flag();
        break;
      default:
        break;
    }
  }
}

void require(bool condition, const std::string& name, const std::string& what) {
  if (!condition) throw Error(name + ": " + what, "use a model that sentencepiece itself has made");
}

void check_model(const Model& model, const std::string& name) {
  require(!model.pieces.empty(), name, "a SentencePiece model without pieces");
  require(model.model_type == 1 || model.model_type == 2, name,
          "a SentencePiece model that is neither unigram nor BPE");
  require(!model.space_as_suffix, name, "treat_whitespace_as_suffix is not supported");
  size_t unknown = 0;
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const Model::Piece& piece = model.pieces[id];
    require(is_valid_utf8(piece.text) && !piece.text.empty(), name,
            text("piece ", id, " is empty or no UTF-8"));
    require(std::abs(piece.score) < 1e30F, name, text("piece ", id, " has no finite score"));
    unknown += piece.type == Type::kUnknown ? 1 : 0;
    require(piece.type != Type::kUnused || model.model_type == 1, name,
            "unused pieces of a BPE model are not supported");
  }
  require(unknown == 1, name, "there must be one unknown piece");
}

bool usable(const Model::Piece& piece) {
  return piece.type == Type::kNormal;
}

// Every pair of pieces that makes a piece joins, the better score of the result first; equal scores
// are one rank, so that the leftmost pair comes first.
void add_merges(const Model& model, Bpe& bpe) {
  std::vector<float> scores;
  for (const Model::Piece& piece : model.pieces) {
    if (usable(piece)) scores.push_back(piece.score);
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  const auto is_usable = [&](std::string_view part) {
    const int32_t id = bpe.token_id(part);
    return id >= 0 && usable(model.pieces[static_cast<size_t>(id)]);
  };
  for (const Model::Piece& piece : model.pieces) {
    if (!usable(piece)) continue;
    const auto rank = std::lower_bound(scores.begin(), scores.end(), piece.score, std::greater<>());
    const std::string_view whole(piece.text);
    for (size_t cut = utf8_bytes(whole[0]); cut < whole.size(); cut += utf8_bytes(whole[cut])) {
      const std::string_view left = whole.substr(0, cut), right = whole.substr(cut);
      if (!is_usable(left) || !is_usable(right)) continue;
      const auto missing = bpe.add_merge(static_cast<uint32_t>(rank - scores.begin()), left, right);
      check(!missing, "a merge of pieces that are there");
    }
  }
}

// Two pieces of one spelling would make ids ambiguous.
void require_unique(const std::vector<std::string_view>& tokens, const std::string& name) {
  StringTable seen(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    require(seen.insert(tokens[id], static_cast<int32_t>(id)), name,
            text("piece ", id, ", ", quoted(tokens[id]), ", is there twice"));
  }
}

size_t count_merges(const Model& model) {
  size_t count = 0;
  for (const Model::Piece& piece : model.pieces) {
    if (usable(piece)) count += piece.text.size();
  }
  return count;
}

void add_special_pieces(const Model& model, TokenizerData& out) {
  for (size_t id = 0; id < model.pieces.size(); ++id) {
    const Model::Piece& piece = model.pieces[id];
    const bool special = piece.type == Type::kControl || piece.type == Type::kUnknown;
    if (!special && piece.type != Type::kUserDefined) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = piece.text;
    token.normalized = false;
    token.special = special;
    out.added.push_back(std::move(token));
  }
}

}  // namespace

SentencePieceModel parse_sentencepiece(std::string_view bytes, const std::string& name) {
  Model out;
  Message message(bytes, name);
  for (Message::Field field; message.next(field);) {
    if (field.number == 1) {
      require(out.pieces.size() < kPiecesMax, name, "too many pieces");
      out.pieces.push_back(read_piece(field.bytes, name));
    } else if (field.number == 2) {
      read_trainer(field.bytes, name, out);
    } else if (field.number == 3) {
      read_normalizer_spec(field.bytes, name, out);
    }
  }
  check_model(out, name);
  return out;
}

void read_sentencepiece(std::string_view bytes, const std::string& name, TokenizerData& out) {
  const Model model = parse_sentencepiece(bytes, name);
  size_t total = 0;
  for (const Model::Piece& piece : model.pieces) total += piece.text.size();
  out.arena.reserve(total);  // exactly: the views must not move
  for (const Model::Piece& piece : model.pieces) {
    const size_t begin = out.arena.size();
    out.arena += piece.text;
    out.tokens.push_back(std::string_view(out.arena).substr(begin));
  }
  const auto unknown = std::find_if(model.pieces.begin(), model.pieces.end(),
                                    [](const auto& p) { return p.type == Type::kUnknown; });
  require_unique(out.tokens, name);
  if (model.model_type == 2) {
    BpeOptions options;
    options.unk_token = unknown->text;
    options.fuse_unk = true;
    options.byte_fallback = model.byte_fallback;
    auto& bpe = out.model.emplace<Bpe>(out.tokens, std::move(options), count_merges(model));
    add_merges(model, bpe);
  } else {
    std::vector<double> scores;
    std::vector<bool> may_be;
    for (const Model::Piece& piece : model.pieces) {
      scores.push_back(static_cast<double>(piece.score));
      may_be.push_back(usable(piece));
    }
    const auto unk_id = static_cast<int32_t>(unknown - model.pieces.begin());
    out.model.emplace<Unigram>(out.tokens, std::move(scores), may_be,
                               UnigramOptions{unk_id, model.byte_fallback, true});
  }
  SentencePieceStep step{nullptr, model.dummy_prefix, model.remove_extra_spaces,
                         model.escape_spaces};
  if (!model.charsmap.empty()) step.map = std::make_shared<const CharsMap>(model.charsmap, name);
  out.normalizer.emplace_back(std::move(step));
  out.decoder.emplace_back(ReplaceDecode{Pattern::literal("▁", name), " "});
  out.decoder.emplace_back(ByteFallbackDecode{});
  out.decoder.emplace_back(FuseDecode{});
  if (model.dummy_prefix) out.decoder.emplace_back(StripDecode{" ", 1, 0});
  add_special_pieces(model, out);
  index_added_tokens(out);
  out.sentencepiece = true;
  const auto id_or_none = [&](int64_t id) {
    const bool there = id >= 0 && id < std::ssize(model.pieces);
    return there ? std::optional(static_cast<int32_t>(id)) : std::nullopt;
  };
  out.bos_id = id_or_none(model.bos_id);
  out.eos_id = id_or_none(model.eos_id);
  out.pad_id = id_or_none(model.pad_id);
}

void add_sentencepiece_ends(TokenizerData& out) {
  if (out.add_bos && out.bos_id) out.ids_before = {*out.bos_id};
  if (out.add_eos && out.eos_id) out.ids_behind = {*out.eos_id};
}

}  // namespace mantissa
