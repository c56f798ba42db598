// A tokenizer file and a text, both hostile. A first byte 'M' means a SentencePiece model, which
// ends at the last 0xFF; otherwise the bytes up to the first 0xFF are a tokenizer.json (0xFF occurs
// in no valid UTF-8). The rest is the text. Either the file is refused with an Error, or encoding,
// decoding and streaming work and agree.
#include "text/tokenizer.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/utf8.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void use(const mantissa::Tokenizer& tokenizer, std::string_view text) {
  for (const bool special : {false, true}) {
    const std::vector<int32_t> ids = tokenizer.encode(text, special);
    for (int32_t id : ids) {
      static_cast<void>(tokenizer.token_bytes(id));
      static_cast<void>(tokenizer.is_special(id));
    }
    const std::string whole = tokenizer.decode(ids, special);
    require(mantissa::is_valid_utf8(whole));
    mantissa::Detokenizer stream(tokenizer, special);
    std::string streamed;
    for (int32_t id : ids) {
      const std::string part = stream.push(id);
      require(mantissa::is_valid_utf8(part));
      streamed += part;
    }
    require(streamed + stream.flush() == whole);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const bool model = bytes.starts_with('M');
  const size_t cut = model ? bytes.rfind('\xFF') : bytes.find('\xFF');
  const size_t end = std::min(cut, bytes.size());
  const std::string_view text = bytes.substr(std::min(end + 1, bytes.size()));
  try {
    const std::string_view file = bytes.substr(model ? 1 : 0, end - (model ? 1 : 0));
    use(model ? mantissa::Tokenizer::from_sentencepiece(file, "", "fuzz")
              : mantissa::Tokenizer::from_json(file, "", "fuzz"),
        text);
  } catch (const mantissa::Error&) {  // the file or the text is refused
  }
  return 0;
}
