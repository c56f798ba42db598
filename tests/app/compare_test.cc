// `mantissa compare`: figures that agree with `perplexity`, failures that do not stop the others,
// mistakes found before the long work.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/json.h"
#include "run_binary.h"

namespace mantissa {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

std::string short_text() {
  std::string path = testing::TempDir() + "mantissa_compare.txt";
  std::ofstream(path)
      << "The history of the river begins in the mountains of the north , where the "
         "first people of the valley built a small town in the twelfth century .\n";
  return path;
}

// One tiny pass; speed is not what is tested.
Words compare_words(const std::string& schemes, const Words& more = {}) {
  Words words = {"compare",      demo_model(), "--schemes",    schemes, "--file",   short_text(),
                 "--input-len",  "8",          "--output-len", "2",     "--warmup", "0",
                 "--iterations", "1",          "--device",     "cpu"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::string contents(const std::string& path) {
  std::stringstream out;
  out << std::ifstream(path).rdbuf();
  return out.str();
}

TEST(Compare, AgreesWithPerplexityAndWritesAPage) {
  const std::string page = testing::TempDir() + "mantissa_compare.html";
  fs::remove(page);
  const RunResult result =
      run_mantissa(compare_words("int8_weight_only,int4_weight_only", {"--json", "--html", page}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(result.out);
  std::vector<std::string> objects;
  for (std::string line; std::getline(lines, line);) objects.push_back(line);
  ASSERT_EQ(objects.size(), 3u);
  const json::Document base = json::parse(objects[0], "bf16"), int8 = json::parse(objects[1], "8"),
                       int4 = json::parse(objects[2], "4");
  EXPECT_EQ(base.root().at("scheme").as_string(), "bf16");
  EXPECT_EQ(base.root().find("kld_mean"), std::nullopt);
  EXPECT_LT(int8.root().at("kld_mean").as_number(), int4.root().at("kld_mean").as_number());
  EXPECT_LT(int8.root().at("layer_error").as_number(), int4.root().at("layer_error").as_number());
  EXPECT_GT(int4.root().at("layer_error").as_number(), 0.02);
  EXPECT_LT(int4.root().at("weights_bytes").as_number(),
            int8.root().at("weights_bytes").as_number());
  for (const json::Document* one : {&int8, &int4})
    EXPECT_EQ(one->root().at("layers").size(), 6u * 4);
  EXPECT_GT(int8.root().at("decode_tok_s").as_number(), 0);
  // The same numbers as the two models side by side.
  const RunResult direct = run_mantissa({"perplexity", demo_model(), "--file", short_text(), "-q",
                                         "int4_weight_only", "--kld-against", "bf16", "--json"});
  ASSERT_EQ(direct.exit_code, 0) << direct.err;
  const json::Document wanted = json::parse(direct.out, "perplexity");
  for (const char* name : {"perplexity", "kld_mean", "kld_p999", "top1_agreement",
                           "perplexity_difference", "perplexity_difference_stderr"})
    EXPECT_EQ(int4.root().at(name).as_number(), wanted.root().at(name).as_number()) << name;
  const std::string html = contents(page);
  EXPECT_NE(html.find("wiki-6m: what each scheme costs and gives"), std::string::npos);
  EXPECT_NE(html.find(">int4_weight_only</text>"), std::string::npos);
  EXPECT_EQ(html.find("<script"), std::string::npos);
}

TEST(Compare, AFailingSchemeIsShownAndTheOthersGoOn) {
  const RunResult result = run_mantissa(compare_words("fp8_static,int8"));
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.out.find("| fp8_static "), std::string::npos);
  EXPECT_NE(result.out.find("`fp8_static` failed: "), std::string::npos);
  EXPECT_NE(result.out.find("  fix: add --calibrate FILE"), std::string::npos);
  EXPECT_NE(result.out.find("| int8 "), std::string::npos);
  EXPECT_NE(result.err.find("1 of 3 schemes failed: fp8_static"), std::string::npos);
}

TEST(Compare, FindsMistakesBeforeTheLongWork) {
  const struct {
    Words words;
    std::string says;
  } cases[] = {
      {{"compare", demo_model(), "--file", short_text()}, "nothing to compare"},
      {{"compare", demo_model(), "--schemes", "int8"}, "--tasks wikitext, or --file TEXT"},
      {{"compare", MANTISSA_SOURCE_DIR "/tests/golden/quantized/ct-fp8-static", "--schemes", "int8",
        "--file", short_text()},
       "this checkpoint is already quantized"},
      {compare_words("int8,W8A8"), "names int8 twice (as W8A8)"},
      {compare_words("int8,ptpc_fp9"), "ptpc_fp8"},
      {compare_words("int8", {"--tasks", "wikitext"}), "both --tasks and --file"},
      {compare_words("int8", {"--html", "/nowhere/at/all.html"}), "cannot be written"},
      {compare_words("int8", {"--html", "/tmp"}), "is no regular file"},
      {compare_words("int8", {"-q"}), ""},
      {compare_words("int8", {"--load-format", "dummy"}), "no accuracy to compare"},
      {compare_words("int8", {"--calibrate", short_text()}), "has no static scales"},
      {compare_words("int8", {"--ctx", "9999"}), "context is 512"},
  };
  for (const auto& c : cases) {
    const RunResult result = run_mantissa(c.words);
    EXPECT_EQ(result.exit_code, 2) << c.says << result.err;
    EXPECT_NE(result.err.find(c.says), std::string::npos) << result.err;
    EXPECT_EQ(result.out, "");
  }
}

TEST(Compare, NamesTheMissingTemporaryFolder) {
  const RunResult result = run_shell("TMPDIR=/nowhere $MANTISSA compare " + demo_model() +
                                     " --schemes int8 --file " + short_text());
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("set TMPDIR"), std::string::npos) << result.err;
}

TEST(Compare, AnOldPageStaysWhereTheRunFails) {
  const std::string page = testing::TempDir() + "mantissa_compare_old.html";
  std::ofstream(page) << "old";
  EXPECT_EQ(run_mantissa(compare_words("int8", {"--html", page, "--ctx", "9999"})).exit_code, 2);
  EXPECT_EQ(contents(page), "old");
  for (const fs::directory_entry& entry : fs::directory_iterator(testing::TempDir()))
    EXPECT_EQ(entry.path().string().find("mantissa_compare_old.html.part"), std::string::npos);
}

TEST(Perplexity, ComparesDevices) {
  const RunResult result = run_mantissa({"perplexity", demo_model(), "--file", short_text(),
                                         "--limit", "1", "-q", "int8", "--dtype", "float32",
                                         "--device", "cpu", "--kld-against", "int8@ref", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::Document out = json::parse(result.out, "perplexity");
  EXPECT_EQ(out.root().at("base_device").as_string(), "ref");
  EXPECT_LT(out.root().at("kld_mean").as_number(), 0.02);
  EXPECT_EQ(out.root().at("disagreements_beyond").as_number(), 0);
  // Each linear by itself: float32 sums of the same integers against float64.
  EXPECT_LT(out.root().at("linears_rms_max").as_number(), 1e-5);
  const RunResult none = run_mantissa(
      {"perplexity", demo_model(), "--file", short_text(), "--kld-against", "int8@tpu"});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_NE(none.err.find("tpu"), std::string::npos);
}

}  // namespace
}  // namespace mantissa
