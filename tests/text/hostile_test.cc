// Files and texts that mean harm: refused with the place named, never slow, never a crash.
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <span>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text_paths.h"

namespace mantissa {
namespace {

// A tokenizer.json with parts exchanged; "a", "b", "ab" and the byte tokens <0x41>, <0x42>.
struct File {
  std::string model = R"("type":"BPE","vocab":{"a":0,"b":1,"ab":2,"<unk>":3},"merges":["a b"])";
  std::string rest = R"("added_tokens":[])";
  std::string json() const {
    return "{\"version\":\"1.0\"," + rest + ",\"model\":{" + model + "}}";
  }
};

struct Refusal {
  const char* why;
  std::string json;
  const char* names;  // part of the message
};

std::string component(const std::string& kind, const std::string& json) {
  return File{.rest = "\"" + kind + "\":" + json}.json();
}
std::string pattern(const std::string& regex) {
  return component("pre_tokenizer", R"({"type":"Split","behavior":"Isolated","invert":false,)"
                                    R"("pattern":{"Regex":")" +
                                        regex + "\"}}");
}

void expect_refused(std::span<const Refusal> refusals) {
  for (const Refusal& refusal : refusals) {
    try {
      Tokenizer::from_json(refusal.json, "", "x.json");
      ADD_FAILURE() << refusal.why << " was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(refusal.names), std::string::npos)
          << refusal.why << ": " << error.what();
      EXPECT_NE(error.found.find("x.json"), std::string::npos) << error.what();
      EXPECT_FALSE(error.fix.empty());
    }
  }
}

TEST(Hostile, FilesAreRefusedByName) {
  const std::string deep(200, '[');
  const Refusal refusals[] = {
      {"empty", "", "x.json"},
      {"cut", R"({"version":"1.0","model":{"type":"BPE")", "x.json"},
      {"deep", deep, "x.json"},
      {"not an object", "[1]", "x.json"},
      {"no model", R"({"version":"1.0"})", "model"},
      {"version", R"({"version":"2.0","model":{}})", "version"},
      {"WordPiece", File{.model = R"("type":"WordPiece","vocab":{})"}.json(), "WordPiece"},
      {"unknown key", File{.rest = R"("pretokenizer":null)"}.json(), "pretokenizer"},
      {"model key", File{.model = R"("type":"BPE","vocab":{},"merges":[],"new":1)"}.json(),
       "model.new"},
      {"dropout", File{.model = R"("type":"BPE","dropout":0.1,"vocab":{},"merges":[])"}.json(),
       "dropout"},
      {"no merges", File{.model = R"("type":"BPE","vocab":{"a":0})"}.json(), "merges"},
      {"merge of no token", File{.model = R"("vocab":{"a":0,"b":1},"merges":["a b"])"}.json(),
       "merges[0]"},
      {"merge of three", File{.model = R"("vocab":{"a":0},"merges":["a a a"])"}.json(),
       "merges[0]"},
      {"mixed merges", File{.model = R"("vocab":{"a":0,"aa":1},"merges":["a a",["a","a"]])"}.json(),
       "merges[1]"},
      {"huge id", File{.model = R"("vocab":{"a":4000000000},"merges":[])"}.json(), "model.vocab.a"},
      {"negative id", File{.model = R"("vocab":{"a":-1},"merges":[])"}.json(), "model.vocab.a"},
      {"same id twice", File{.model = R"("vocab":{"a":0,"b":0},"merges":[])"}.json(),
       "model.vocab.b"},
      {"normalizer",
       component("normalizer", R"({"type":"Precompiled","precompiled_charsmap":"AAAA"})"),
       "precompiled_charsmap"},
      {"no base64", component("normalizer", R"({"type":"Precompiled","precompiled_charsmap":"@"})"),
       "precompiled_charsmap"},
      {"nested normalizer",
       component("normalizer", R"({"type":"Sequence","normalizers":[{"type":"X"}]})"),
       "normalizer.normalizers[0].type"},
      {"component key", component("normalizer", R"({"type":"NFC","strict":true})"),
       "normalizer.strict"},
      {"pre-tokenizer", component("pre_tokenizer", R"({"type":"UnicodeScripts"})"),
       "UnicodeScripts"},
      {"behavior", component("pre_tokenizer", R"({"type":"Punctuation","behavior":"Merged"})"),
       "Merged"},
      {"decoder", component("decoder", R"({"type":"WordPiece","prefix":"##","cleanup":true})"),
       "WordPiece"},
      {"decoder order",
       component("decoder",
                 R"({"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"ByteFallback"}]})"),
       "decoder.decoders[1]"},
      {"post-processor", component("post_processor", R"({"type":"X"})"), "post_processor"},
      {"template without text",
       component("post_processor",
                 R"({"type":"TemplateProcessing","single":[],"pair":[],"special_tokens":{}})"),
       "single"},
      {"template token",
       component(
           "post_processor",
           R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{}})"),
       "<s>"},
      {"empty literal",
       component("normalizer", R"({"type":"Replace","pattern":{"String":""},"content":"x"})"),
       "pattern"},
      {"added token", File{.rest = R"("added_tokens":[{"id":0}])"}.json(), "added_tokens[0]"},
      {"open group", pattern("(a"), "'('"},
      {"open bracket", pattern("[a"), "'['"},
      {"nothing to repeat", pattern("*a"), "quantifier"},
      {"back reference", pattern("(a)\\\\1"), "escape"},
      {"unknown property", pattern("\\\\p{Klingon}"), "property"},
      {"our own set", pattern("\\\\p{#word}"), "property"},
      {"raw byte", pattern("\\\\xff"), "\\x"},
      {"nested groups", pattern(std::string(100, '(') + std::string(100, ')')), "nested"},
      {"too large", pattern("((((a{9999}){9999}){9999}){9999})"), "pattern"},
  };
  expect_refused(refusals);
}

TEST(Hostile, UnigramFilesAreRefusedByName) {
  const Refusal refusals[] = {
      {"Unigram without tokens", File{.model = R"("type":"Unigram","vocab":[])"}.json(),
       "model.vocab"},
      {"Unigram row", File{.model = R"("type":"Unigram","vocab":[["a"]])"}.json(),
       "model.vocab[0]"},
      {"Unigram unk_id", File{.model = R"("type":"Unigram","unk_id":1,"vocab":[["a",0]])"}.json(),
       "model.unk_id"},
      {"Unigram key", File{.model = R"("type":"Unigram","nbest":1,"vocab":[["a",0]])"}.json(),
       "model.nbest"},
  };
  expect_refused(refusals);
}

TEST(Hostile, MissingFolderAndFile) {
  EXPECT_THROW(Tokenizer::load("/nowhere/at/all"), Error);
  EXPECT_THROW(Tokenizer::load(std::filesystem::path(MANTISSA_SOURCE_DIR) / "src"), Error);
}

TEST(Hostile, AnUnknownCharacterNeedsTheUnknownToken) {
  const std::string model =
      R"("vocab":{"a":0,"b":1,"ab":2,"<unk>":3},"merges":["a b"],"unk_token":)";
  const Tokenizer there = Tokenizer::from_json(File{.model = model + "\"<unk>\""}.json(), "", "x");
  EXPECT_EQ(there.encode("abxya", false), (std::vector<int32_t>{2, 3, 3, 0}));
  const Tokenizer missing = Tokenizer::from_json(File{.model = model + "\"?\""}.json(), "", "x");
  EXPECT_EQ(missing.encode("ab", false), (std::vector<int32_t>{2}));
  EXPECT_THROW(missing.encode("abx", false), Error);
}

TEST(Hostile, APatternThatExplodesIsAnError) {
  const Tokenizer tokenizer = Tokenizer::from_json(pattern("(?:a|a|aa)+c"), "", "x.json");
  try {
    tokenizer.encode(std::string(300, 'a') + "bc", false);
    FAIL() << "no limit reached";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind, Error::Kind::kRuntime);
    EXPECT_NE(error.found.find("pre_tokenizer"), std::string::npos) << error.what();
  }
}

double seconds_to_encode(const Tokenizer& tokenizer, const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<int32_t> ids = tokenizer.encode(text, false);
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
  EXPECT_FALSE(ids.empty());
  return passed.count();
}

// The bound leaves room for sanitizers and busy machines, and still finds what is quadratic. One
// character repeated is in speed_test.cc.
TEST(Hostile, NoTextIsSlow) {
  constexpr size_t kBytes = 1 << 18;
  constexpr double kSecondsMax = 60;
  const Tokenizer tokenizer = Tokenizer::load(demo_model());
  for (const std::string part : {"a", " ", "\n", " \n", "ab", "'", "<|", "9", "\xC3\xA9", "\xFF",
                                 "\xF0\x9F\xA4\x97", "a\xCC\x96\xCC\x81"}) {
    std::string text;
    while (text.size() < kBytes) text += part;
    EXPECT_LT(seconds_to_encode(tokenizer, text), kSecondsMax) << part;
    EXPECT_LT(seconds_to_encode(tokenizer, text + "x"), kSecondsMax) << part;
  }
}

// A search that fails at each start of a long run would be quadratic without PCRE2's early failure,
// which knows simple classes only.
TEST(Hostile, ARunBeforeAnEndThatIsNotThereIsNotSlow) {
  for (const char* end : {R"(\\s+$)", R"([^\\S\n]+$)", R"( +$)"}) {
    const Tokenizer tokenizer = Tokenizer::from_json(pattern(end), "", "x");
    EXPECT_LT(seconds_to_encode(tokenizer, std::string(1 << 20, ' ') + "b"), 60) << end;
  }
}

TEST(Hostile, MarksOutOfOrderAreNotSlow) {
  const Tokenizer tokenizer =
      Tokenizer::from_json(component("normalizer", R"({"type":"NFC"})"), "", "x");
  std::string text = "b";
  for (int i = 0; i < 200'000; ++i) text += i % 2 == 0 ? "\xCC\x81" : "\xCC\x96";
  EXPECT_LT(seconds_to_encode(tokenizer, text), 60);
}

}  // namespace
}  // namespace mantissa
