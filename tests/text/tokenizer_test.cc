// The Tokenizer of the demo model: ids there and back, special tokens, streaming.
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include "text_paths.h"

namespace mantissa {
namespace {

using Ids = std::vector<int32_t>;

TEST(Tokenizer, EncodesAndDecodesWithTheDemoModel) {
  const Tokenizer tokenizer = Tokenizer::load(demo_model());
  EXPECT_EQ(tokenizer.vocab_size(), 8192);
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), 1);
  EXPECT_EQ(tokenizer.pad_id(), std::nullopt);
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_TRUE(tokenizer.notes().empty());
  const Ids ids = tokenizer.encode("Hello world", true);
  EXPECT_EQ(ids, (Ids{0, 44, 487, 83, 987}));
  EXPECT_EQ(tokenizer.encode("Hello world", false), (Ids{44, 487, 83, 987}));
  EXPECT_EQ(tokenizer.decode(ids, true), "Hello world");
  EXPECT_EQ(tokenizer.decode(ids, false), "<|begin_of_text|>Hello world");
}

}  // namespace
}  // namespace mantissa
