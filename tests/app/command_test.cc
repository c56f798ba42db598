// The binary's manners: help, exit codes, refusals that say what to do, JSON that parses.
#include "app/command.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/json.h"
#include "run_binary.h"

namespace mantissa {
namespace {

using Words = std::vector<std::string>;

Words words_of(std::string_view line) {
  Words words;
  for (size_t at = 0; at < line.size();) {
    const size_t end = std::min(line.find(' ', at), line.size());
    words.emplace_back(line.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

std::string tiny_text() {
  std::string path = testing::TempDir() + "mantissa_tiny.txt";
  std::ofstream(path) << "The history of the river begins in the mountains of the north .\n";
  return path;
}

class Help : public testing::TestWithParam<const Verb*> {};

TEST_P(Help, TeachesTheVerb) {
  const Verb& verb = *GetParam();
  Words words = words_of(verb.name);
  words.emplace_back("--help");
  const RunResult result = run_mantissa(words);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
  EXPECT_NE(result.out.find(verb.summary), std::string::npos);
  EXPECT_NE(result.out.find("Examples\n  mantissa " + std::string(verb.name)), std::string::npos);
  for (const Option& option : verb.options)
    EXPECT_NE(result.out.find(option.names.substr(0, option.names.find(','))), std::string::npos)
        << option.names;
  for (const Option& option : common_options()) EXPECT_FALSE(option.help.empty());
  EXPECT_NE(result.out.find("--json"), std::string::npos);
  size_t line_start = 0;
  for (size_t end; (end = result.out.find('\n', line_start)) != std::string::npos;) {
    const std::string line = result.out.substr(line_start, end - line_start);
    EXPECT_TRUE(line.size() <= 100 || line.starts_with("  mantissa ")) << line;
    line_start = end + 1;
  }
}
INSTANTIATE_TEST_SUITE_P(Verbs, Help, testing::ValuesIn(all_verbs().begin(), all_verbs().end()),
                         [](const auto& verb) {
                           std::string name(verb.param->name);
                           for (char& c : name) c = c == ' ' ? '_' : c;
                           return name;
                         });

TEST(Overview, ListsEveryVerb) {
  for (const Words& words : {Words{"--help"}, Words{"-h"}, Words{"help"}}) {
    const RunResult result = run_mantissa(words);
    EXPECT_EQ(result.exit_code, 0);
    for (const Verb* verb : all_verbs())
      EXPECT_NE(result.out.find("\n  " + std::string(verb->name)), std::string::npos);
  }
  const RunResult bench = run_mantissa({"bench", "--help"});
  EXPECT_EQ(bench.exit_code, 0);
  EXPECT_NE(bench.out.find("bench latency"), std::string::npos);
  EXPECT_EQ(bench.out.find("perplexity  "), std::string::npos);
}

TEST(Version, SaysWhatTheBinaryIs) {
  const RunResult result = run_mantissa({"--version"});
  EXPECT_EQ(result.exit_code, 0);
  for (const char* part : {"mantissa 0.", "compiler: ", "CUDA: ", "device ref", "device cpu"})
    EXPECT_NE(result.out.find(part), std::string::npos) << part;
  const RunResult as_json = run_mantissa({"--version", "--json"});
  const json::Document document = json::parse(as_json.out, "standard output");
  for (const char* name : {"version", "commit", "compiler", "cuda", "instruction_sets"})
    EXPECT_FALSE(document.root().at(name).as_string().empty()) << name;
}

// What a user may get wrong: the message must hold `found` and the fix `fix`.
struct Refusal {
  const char* line;  // MODEL: the demo model, TEXT: a small text file, SHAPE: a config.json alone
  const char* found;
  const char* fix;
};
void PrintTo(const Refusal& refusal, std::ostream* out) {  // NOLINT: GoogleTest's name
  *out << "mantissa " << refusal.line;
}
constexpr Refusal kRefusals[] = {
    {"", "no command", "--help"},
    {"frobnicate", "no command \"frobnicate\"", "one of"},
    {"serv --help", "no command \"serv\"", "one of"},
    {"bench serve --help", "no command \"bench serve\"", "bench latency"},
    {"--nope", "`mantissa` has no option --nope", "name a command"},
    {"perplxity", "no command \"perplxity\"", "did you mean `mantissa perplexity`"},
    {"bench", "`bench` needs to know what", "mantissa bench --help"},
    {"bench latenci", "no command \"bench latenci\"", "did you mean `mantissa bench latency`"},
    {"bench serve", "no command \"bench serve\"", "fix: one of bench latency"},
    {"bench foo", "no command \"bench foo\"", "fix: one of bench latency"},
    {"tokenize", "`tokenize` needs MODEL", "--help"},
    {"tokenize MODEL", "there is no text", "--text"},
    {"tokenize MODEL --text a --file TEXT", "both --text and --file", "either"},
    {"tokenize MODEL --text a b", "unexpected argument \"b\"", "quote"},
    {"tokenize MODEL --text a -- b", "unexpected argument \"b\"", "quote"},
    {"schemes fp8", "unexpected argument \"fp8\" for `schemes`", "fix: see `mantissa schemes"},
    {"tokenize MODEL --decode --text 5,8192 --strict", "1 id of 2 no token", "--strict"},
    {"tokenize MODEL --txt a", "no option --txt", "did you mean --text"},
    {"tokenize MODEL --text a --text b", "--text is given 2 times", "once"},
    {"tokenize MODEL --text", "--text", "mantissa tokenize --help"},
    {"tokenize MODEL --decode --text 1,x", "\"x\" is no token id", "whole numbers"},
    {"tokenize MODEL --text a --threads many", "--threads is \"many\"", "whole number"},
    {"tokenize MODEL --text a --threads -1", "--threads is \"-1\"", "0 to 1024"},
    {"tokenize MODEL --text a --device tpu", "--device is \"tpu\"", "auto, cpu, cuda, ref"},
    {"tokenize MODEL --text a --device cuda", "no cuda backend", "--device cpu"},
    {"tokenize /nowhere --text a", "/nowhere", "fix:"},
    {"perplexity MODEL", "no text to score", "--file"},
    {"perplexity MODEL --file /nowhere.txt", "/nowhere.txt", "fix:"},
    {"perplexity MODEL --file TEXT -q fp99", "fp99", "fix:"},
    {"perplexity MODEL --file TEXT --ctx 100000", "--ctx 100000", "--ctx 512"},
    {"perplexity MODEL --file TEXT --ctx 8 --stride 9", "--stride 9", "1 to 8"},
    {"perplexity MODEL --file TEXT --ctx 1.5", "--ctx is \"1.5\"", "whole number"},
    {"perplexity MODEL --file TEXT --fast-accum", "--fast-accum has no effect", "leave out"},
    {"perplexity MODEL --file TEXT --gpu-memory-utilization 0.5", "--gpu-memory-utilization",
     "leave out"},
    {"perplexity MODEL --file TEXT --dtype int3", "--dtype is \"int3\"", "bfloat16"},
    {"perplexity MODEL --file TEXT --max-model-len 9999", "9999", "512"},
    {"perplexity MODEL --file TEXT --attention-backend x", "--attention-backend x", "auto"},
    {"perplexity MODEL --file TEXT --kv-cache-dtype x", "x", "fix:"},
    {"perplexity MODEL --file TEXT --max-num-seqs 0", "--max-num-seqs is \"0\"", "1 to 65536"},
    {"perplexity MODEL --file TEXT --max-num-batched-tokens 0", "is \"0\"", "1 to 1048576"},
    {"perplexity MODEL --file TEXT --kld-against bf16@cuda", "no cuda backend", "use bf16@cpu"},
    {"perplexity MODEL --file TEXT --kld-against bf16@x", "--kld-against bf16@x", "bf16@ref"},
    {"perplexity MODEL --file TEXT -q int8 --ignore re:.*norm", "no linear layer",
     "0.self_attn.q_proj"},
    {"perplexity MODEL --file TEXT --ignore re:.*o_proj", "has no effect: no linear", "add -q"},
    {"generate MODEL --prompt a -q bf16 --ignore re:.*o_proj", "has no effect: no linear",
     "add -q"},
    {"perplexity MODEL --file TEXT -q int8 --ignore lm_head --lm-head-scheme int8",
     "--ignore names lm_head", "leave out one"},
    {"perplexity MODEL --file TEXT --calibrate-samples 3", "no effect without --calibrate",
     "add --calibrate"},
    {"quantize MODEL /nowhere --scheme ptpc_fp8 --samples 0",
     "--samples or --calibrate-samples is \"0\"", "1 to 1000000"},
    {"generate MODEL --prompt a --max-tokens 0", "--max-tokens is \"0\"", "1 to 1000000000000000"},
    {"quantize MODEL /nowhere --scheme ptpc_fp8 --samples 3", "no effect without --calibrate",
     "add --calibrate"},
    {"eval MODEL --tasks ,", "no task", "wikitext"},
    {"eval MODEL", "no tasks", "--tasks wikitext"},
    {"eval MODEL --tasks gsm8k", "no task \"gsm8k\"", "wikitext"},
    {"eval MODEL --tasks wikitext,wikitext", "names wikitext twice", "once"},
    {"eval MODEL --tasks wikitext --num-fewshot 5", "--num-fewshot 5", "leave out"},
    {"eval MODEL --tasks wikitext --data /nowhere", "/nowhere", "fix:"},
    {"inspect /nowhere", "/nowhere", "fix:"},
    {"inspect SHAPE", "has neither model.safetensors", "--load-format dummy"},
    {"inspect /dev", "has neither model.safetensors", "name a Hugging Face model folder"},
    {"bench latency MODEL --input-len 500 --output-len 500", "1000 tokens", "at most 512"},
    {"bench latency MODEL -q int8,int8", "-q names int8 twice", "once"},
    {"bench latency MODEL -q int8,int99", "int99", "fix:"},
    {"bench latency MODEL -q ,", "-q has an empty scheme", "mantissa schemes"},
    {"bench gemm --device cpu -q int8,,fp8", "--schemes has an empty scheme", "mantissa schemes"},
    {"perplexity MODEL --file TEXT -q int8,bf16", "\"int8,bf16\": one scheme is taken here",
     "run it once for each"},
    {"perplexity MODEL --file TEXT --lm-head-scheme foo", "--lm-head-scheme: there is no scheme",
     "use one of"},
    {"perplexity MODEL --file TEXT --kld-against foo", "--kld-against: there is no scheme",
     "use one of"},
    {"quantize MODEL /nowhere --scheme foo", "--scheme: there is no scheme", "use one of"},
    {"compare MODEL --schemes int8,, --file TEXT", "--schemes has an empty scheme",
     "mantissa schemes"},
    {"eval MODEL --tasks wikitext --load-format dummy", "random weights have no accuracy",
     "bench latency"},
    {"bench latency MODEL --batch-size 999", "--batch-size 999", "smaller batch"},
    {"bench throughput MODEL --input-len 500 --output-len 500", "1000 tokens", "at most 512"},
    {"bench gemm --device ref", "--device ref is not timed", "--device cpu"},
    {"bench gemm --device cpu --layers 64", "'64' has no x", "4096x14336"},
    {"bench gemm --device cpu --tokens 1 -q bf16 --layers 1048576x1048576",
     "a linear layer of 1048576 x 1048576 with 1 tokens needs", "smaller sizes"},
    {"bench attention --device cpu --phases decode --batch 1000000 --context 1000000",
     "attention of batch 1000000 x context 1000000 needs", "smaller sizes"},
    {"tokenize MODEL --text a --pieces --json", "--pieces has no effect with --json", "leave one"},
    {"bench gemm --device cpu --tokens 1,x", "'x' is no size", "use 1 to"},
    {"bench gemm --device cpu --fast-accum", "--fast-accum has no effect", "leave it out"},
    {"bench gemm --device cpu -q int9", "int9", "fix:"},
    {"bench roofline --device cpu --sizes 0", "'0' is no size", "use 1 to"},
};

class Refused : public testing::TestWithParam<Refusal> {};

TEST_P(Refused, SaysWhatWasFoundAndWhatToDo) {
  Words words = words_of(GetParam().line);
  for (std::string& word : words) {
    if (word == "MODEL") word = demo_model();
    if (word == "TEXT") word = tiny_text();
    if (word == "SHAPE") word = MANTISSA_SOURCE_DIR "/models/shapes/Llama-3.2-1B";
  }
  const RunResult result = run_mantissa(words);
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err.find("mantissa: "), 0u) << result.err;
  EXPECT_NE(result.err.find("\n  fix: "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find(GetParam().found), std::string::npos) << result.err;
  EXPECT_NE(result.err.find(GetParam().fix), std::string::npos) << result.err;
}
INSTANTIATE_TEST_SUITE_P(Lines, Refused, testing::ValuesIn(kRefusals));

TEST(Output, AClosedPipeEndsQuietly) {
  // true does not read: the write fails once the pipe is closed.
  const RunResult result = run_shell("{ sleep 0.2; $MANTISSA schemes; echo code $? >&2; } | true");
  EXPECT_EQ(result.err, "code 0\n");
}

TEST(Output, AFullDiskIsAFailure) {
  const RunResult result = run_shell("$MANTISSA schemes > /dev/full");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("cannot write to standard output: No space left"), std::string::npos);
}

TEST(Output, NotesThatNobodyReadsEndNothing) {
  const RunResult result =
      run_shell("$MANTISSA inspect " + demo_model() + " 2>&- ; $MANTISSA frobnicate 2>/dev/full");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.out.find("56 tensors in 1 file"), std::string::npos);
}

TEST(Output, InterruptEndsAtOnce) {
  const RunResult result =
      run_shell("timeout --preserve-status -s INT 2 $MANTISSA perplexity " + demo_model() +
                " --device ref --file " MANTISSA_SOURCE_DIR "/data/wikitext-2-test-4-articles.txt");
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_EQ(result.out, "");
}

TEST(Tokenize, GoesThereAndBack) {
  const std::string text = "The history of [brackets] -- and \xc3\xa9t\xc3\xa9";
  const RunResult ids =
      run_mantissa({"tokenize", demo_model(), "--text", text, "--no-special-tokens"});
  ASSERT_EQ(ids.exit_code, 0) << ids.err;
  const RunResult back = run_mantissa({"tokenize", demo_model(), "--decode", "--text", ids.out});
  EXPECT_EQ(back.out, text + "\n");
  const RunResult as_json = run_mantissa({"tokenize", demo_model(), "--json", "--text=" + text});
  const json::Document document = json::parse(as_json.out, "standard output");
  const json::Value list = document.root().at("ids");
  EXPECT_EQ(list[0].as_int(), 0);  // BOS
  const Words plain = words_of(ids.out.substr(0, ids.out.size() - 1));
  ASSERT_EQ(list.size(), plain.size() + 1);
  for (size_t i = 0; i < plain.size(); ++i)
    EXPECT_EQ(std::to_string(list[i + 1].as_int()), plain[i]);
}

TEST(Tokenize, ReadsStandardInputAndPipes) {
  const std::string wanted = run_mantissa({"tokenize", demo_model(), "--text", "The river"}).out;
  for (const char* from : {"-", "/dev/stdin", "/dev/fd/0"}) {
    const RunResult piped =
        run_shell("printf 'The river' | $MANTISSA tokenize " + demo_model() + " --file " + from);
    EXPECT_EQ(piped.exit_code, 0) << piped.err;
    EXPECT_EQ(piped.out, wanted) << from;
  }
  const RunResult closed = run_shell("$MANTISSA tokenize " + demo_model() + " --file - <&-");
  EXPECT_EQ(closed.exit_code, 2);
  EXPECT_NE(closed.err.find("cannot read /dev/stdin: "), std::string::npos) << closed.err;
}

TEST(Tokenize, AnEmptyTextHasNoIds) {
  for (const Words& form : {Words{"--text", ""}, Words{"--text="}}) {
    Words words = {"tokenize", demo_model(), "--no-special-tokens", "--json"};
    words.insert(words.end(), form.begin(), form.end());
    const RunResult result = run_mantissa(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out, "{\"ids\": []}\n");
  }
}

TEST(Tokenize, SaysWhatATextOrAnIdLost) {
  const RunResult ids = run_mantissa({"tokenize", demo_model(), "--decode", "--text", "415 8192"});
  EXPECT_EQ(ids.exit_code, 0);
  EXPECT_NE(ids.err.find("notice: 1 id of 2 no token"), std::string::npos) << ids.err;
  const std::string path = testing::TempDir() + "mantissa_invalid.txt";
  std::ofstream(path, std::ios::binary) << "ab\xff c";
  const RunResult text = run_mantissa({"tokenize", demo_model(), "--file", path});
  EXPECT_EQ(text.exit_code, 0);
  EXPECT_NE(text.err.find("no valid UTF-8 at byte 2"), std::string::npos) << text.err;
  const RunResult words = run_mantissa({"tokenize", demo_model(), "--text", "\xff"});
  EXPECT_NE(words.err.find("notice: --text is no valid UTF-8 at byte 0"), std::string::npos);
}

TEST(Devices, SaysWhereNothingIsKept) {
  const RunResult result =
      run_shell("XDG_CACHE_HOME=/dev/null HOME=/dev/null $MANTISSA devices --threads 1 --json");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("not kept: \"/dev/null/mantissa/peaks-"), std::string::npos)
      << result.err;
  EXPECT_NE(result.out.find("\"kept_in\": null"), std::string::npos);
}

TEST(Ignore, TheHeadMayBeNamedAsElsewhere) {
  const RunResult result =
      run_mantissa({"inspect", demo_model(), "-q", "int8", "--ignore", "re:.*lm_head"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST(Inspect, OneFileHasNoPlanToChange) {
  const std::string file = demo_model() + "/model.safetensors";
  EXPECT_EQ(run_mantissa({"inspect", file}).exit_code, 0);
  for (const Words& words : {Words{"-q", "int8"}, Words{"--kv-cache-dtype", "fp8"},
                             Words{"--max-num-seqs", "2"}, Words{"--load-format", "dummy"}}) {
    Words all = {"inspect", file};
    all.insert(all.end(), words.begin(), words.end());
    const RunResult result = run_mantissa(all);
    EXPECT_EQ(result.exit_code, 2) << words.front();
    EXPECT_NE(result.err.find("has no effect on one file"), std::string::npos) << result.err;
  }
}

TEST(Plan, NamesTheModelAlsoOfADot) {
  for (const char* folder : {".", "./", "../wiki-6m//"}) {
    const RunResult result = run_shell("cd " + demo_model() + " && $MANTISSA inspect " + folder);
    EXPECT_NE(result.out.find("plan for wiki-6m: "), std::string::npos) << folder;
  }
}

TEST(Json, TablesAreListsOfRows) {
  for (const char* verb : {"schemes", "kernels", "devices"}) {
    const RunResult result = run_mantissa({verb, "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1) << "one line";
    const json::Document document = json::parse(result.out, verb);
    ASSERT_TRUE(document.root().is_array());
    EXPECT_GE(document.root().size(), 2u) << verb;
    EXPECT_TRUE(document.root()[0].is_object());
  }
}

TEST(Json, SchemesSayWhichRunHere) {
  const RunResult result = run_mantissa({"schemes", "--json"});
  const json::Document document = json::parse(result.out, "schemes");
  bool found = false;
  for (size_t i = 0; i < document.root().size(); ++i) {
    const json::Value row = document.root()[i];
    if (row.at("name").as_string() != "ptpc_fp8") continue;
    found = true;
    EXPECT_TRUE(row.at("on_cpu").as_string().starts_with("linear_")) << row.to_json();
    EXPECT_NEAR(row.at("bits_per_weight").as_number(), 8, 0.1);
    EXPECT_NE(row.at("aliases").as_string().find("float8_rowwise"), std::string_view::npos);
  }
  EXPECT_TRUE(found);
}

TEST(Json, PerplexityHasTheFieldsThatScriptsRelyOn) {
  const RunResult result =
      run_mantissa({"perplexity", demo_model(), "--file", tiny_text(), "--json", "-q",
                    "int8_weight_only", "--kld-against", "bf16"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::Document document = json::parse(result.out, "perplexity");
  const json::Value root = document.root();
  for (const char* name : {"perplexity", "nll", "stderr", "tokens", "windows", "seconds",
                           "kld_mean", "kld_median", "kld_p999", "top1_agreement", "rms_delta_p"})
    EXPECT_TRUE(root.at(name).is_number()) << name;
  for (const char* name : {"scheme", "device", "version", "commit"})
    EXPECT_TRUE(root.at(name).is_string()) << name;
  EXPECT_EQ(root.at("windows").as_int(), 1);
  EXPECT_NEAR(root.at("perplexity").as_number(), std::exp(root.at("nll").as_number()), 1e-6);
  EXPECT_NE(result.err.find("plan for wiki-6m: int8_weight_only"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("loaded "), std::string::npos);
  EXPECT_EQ(result.err.find('\r'), std::string::npos) << "no progress bar in a file";
}

TEST(Json, EvalHasResultsByTask) {
  const RunResult result = run_mantissa({"eval", demo_model(), "--tasks", "wikitext", "--limit",
                                         "1", "--json", "--data", MANTISSA_SOURCE_DIR "/data"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::Document document = json::parse(result.out, "eval");
  const json::Value metrics = document.root().at("results").at("wikitext");
  for (const char* name : {"word_perplexity", "byte_perplexity", "bits_per_byte"})
    EXPECT_GT(metrics.at(name).as_number(), 0) << name;
}

TEST(Json, InspectShowsTensorsAndThePlan) {
  const RunResult result = run_mantissa({"inspect", demo_model(), "--json", "-q", "W8A16"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::Document document = json::parse(result.out, "inspect");
  EXPECT_GT(document.root().at("checkpoint").at("tensors").size(), 10u);
  EXPECT_GT(document.root().at("plan").at("weights_bytes").as_int(), 1'000'000);
  EXPECT_EQ(document.root().at("scheme").as_string(), "int8_weight_only");
}

TEST(Json, BenchLatencyHasTheFieldsThatScriptsRelyOn) {
  const RunResult result =
      run_mantissa({"bench", "latency", demo_model(), "--load-format", "dummy", "--input-len", "4",
                    "--output-len", "4", "--iterations", "2", "--operations", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::Document document = json::parse(result.out, "bench latency");
  for (const char* phase : {"prefill", "decode"}) {
    const json::Value operations = document.root().at("operations_ms").at(phase);
    for (const char* name : {"attention", "sample", "rms_norm", "between them"})
      EXPECT_GE(operations.at(name).as_number(), 0) << phase << " " << name;
  }
  for (const char* name : {"decode_tok_s", "decode_tok_s_std", "prefill_tok_s", "weights_gb_s",
                           "pct_of_read_bandwidth", "threads"})
    EXPECT_GE(document.root().at(name).as_number(), 0) << name;
  for (const char* name : {"scheme", "device", "version", "commit"})
    EXPECT_FALSE(document.root().at(name).as_string().empty()) << name;
}

TEST(Json, BenchLatencyBySeveralSchemesIsAnArray) {
  const RunResult result = run_mantissa(
      {"bench", "latency", demo_model(), "--load-format", "dummy", "-q", "bf16,int8,int4_int8:g32",
       "--input-len", "4", "--output-len", "4", "--iterations", "2", "--warmup", "0", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::Document document = json::parse(result.out, "bench latency");
  const char* schemes[] = {"bf16", "int8", "int4_int8:g32"};
  ASSERT_EQ(document.root().size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const json::Value row = document.root()[i];
    EXPECT_EQ(row.at("scheme").as_string(), schemes[i]);
    EXPECT_GT(row.at("decode_tok_s").as_number(), 0);
  }
}

TEST(Json, PerplexityOfOneTokenHasNoError) {
  const std::string path = testing::TempDir() + "mantissa_token.txt";
  std::ofstream(path) << "the";
  const RunResult result = run_mantissa({"perplexity", demo_model(), "--file", path, "--json", "-q",
                                         "int8", "--kld-against", "bf16"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::Document document = json::parse(result.out, "perplexity");
  ASSERT_EQ(document.root().at("tokens").as_int(), 1);
  for (const char* name : {"stderr", "perplexity_difference_stderr", "kld_stderr"})
    EXPECT_TRUE(document.root().at(name).is_null()) << name;
  const RunResult table = run_mantissa({"perplexity", demo_model(), "--file", path});
  EXPECT_NE(table.out.find("n/a"), std::string::npos) << table.out;
}

TEST(Json, AnUnquantizedModelIsNamedByItsDtype) {
  const std::string path = testing::TempDir() + "mantissa_two_words.txt";
  std::ofstream(path) << "the river";
  const RunResult result =
      run_mantissa({"perplexity", demo_model(), "--file", path, "--dtype", "float32", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("plan for wiki-6m: f32, float32"), std::string::npos) << result.err;
  const json::Document document = json::parse(result.out, "perplexity");
  EXPECT_EQ(document.root().at("scheme").as_string(), "f32");
}

// The demo model with another config.json.
std::string model_with_config(const std::string& config) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(testing::TempDir()) / "mantissa_other_config";
  fs::remove_all(folder);
  fs::create_directories(folder);
  for (const fs::directory_entry& entry : fs::directory_iterator(demo_model()))
    if (entry.path().filename() != "config.json")
      fs::create_symlink(fs::absolute(entry.path()), folder / entry.path().filename());
  std::ofstream(folder / "config.json", std::ios::binary) << config;
  return folder.string();
}

TEST(Model, DamagedConfigsAreNamedWithTheirFolder) {
  std::string config = read_file(demo_model() + "/config.json", 1 << 20);
  const std::string folder = model_with_config("\xef\xbb\xbf" + config);
  RunResult result = run_mantissa({"inspect", folder});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find(folder + "/config.json: not valid JSON: begins with a byte order mark"),
            std::string::npos)
      << result.err;
  const std::string heads = "\"num_attention_heads\": 8";
  config.replace(config.find(heads), heads.size(), "\"num_attention_heads\": -8");
  model_with_config(config);
  result = run_mantissa({"inspect", folder});
  EXPECT_NE(result.err.find(folder + "/config.json: num_attention_heads: "), std::string::npos)
      << result.err;
}

TEST(Model, ATokenizerOfAnotherModelIsFoundBeforeLoading) {
  std::string config = read_file(demo_model() + "/config.json", 1 << 20);
  const std::string size = "\"vocab_size\": 8192";
  config.replace(config.find(size), size.size(), "\"vocab_size\": 270");
  const std::string folder = model_with_config(config);
  for (const Words& words : {Words{"generate", folder, "--prompt", "The history"},
                             Words{"perplexity", folder, "--file", tiny_text()}}) {
    const RunResult result = run_mantissa(words);
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_NE(result.err.find("but the model has 270 tokens"), std::string::npos) << result.err;
    EXPECT_EQ(result.err.find("plan for"), std::string::npos) << result.err;
  }
}

TEST(Json, BenchThroughputCountsEveryToken) {
  const RunResult result = run_mantissa({"bench", "throughput", demo_model(), "--num-prompts", "3",
                                         "--input-len", "5", "--output-len", "4", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::Document document = json::parse(result.out, "bench throughput");
  EXPECT_EQ(document.root().at("num_requests").as_int(), 3);
  EXPECT_EQ(document.root().at("total_num_tokens").as_int(), 3 * 9);
}

TEST(Json, BenchGemmNamesKernelSpeedAndError) {
  const RunResult result = run_mantissa({"bench", "gemm", "--device", "cpu", "-q", "int8",
                                         "--tokens", "3", "--layers", "64x128", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::Document document = json::parse(result.out, "bench gemm");
  for (const char* name : {"p10_us", "p50_us", "p90_us", "tflops", "gb_s"})
    EXPECT_GT(document.root().at(name).as_number(), 0) << name;
  EXPECT_TRUE(document.root().at("pct_mem_peak").is_null());  // 192 copies fit into caches
  for (const char* name : {"scheme", "kernel", "device", "version", "commit"})
    EXPECT_FALSE(document.root().at(name).as_string().empty()) << name;
  EXPECT_LT(document.root().at("rms_error").as_number(), 0x1p-8);  // a rounding to bf16
  EXPECT_GT(document.root().at("sampled").as_int(), 0);
}

TEST(Json, BenchRooflineHasExpectedAndObserved) {
  const RunResult result = run_mantissa(
      {"bench", "roofline", "--device", "cpu", "-q", "int8", "--sizes", "64", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json::Document document = json::parse(result.out, "bench roofline");
  EXPECT_GT(document.root().at("r_gemm_and_ovhd_spdp").as_number(), 1);
  EXPECT_GT(document.root().at("b_e2e_spdp").as_number(), 0);
}

TEST(Eval, PrintsLmEvalsTable) {
  const RunResult result = run_mantissa({"eval", demo_model(), "--tasks", "wikitext", "--limit",
                                         "1", "--data", MANTISSA_SOURCE_DIR "/data"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out.find("| Tasks  |Version|Filter|n-shot|    Metric     |   |"), 0u)
      << result.out;
  EXPECT_NE(result.out.find("\n|--------|------:|------|-----:|---------------|---|"),
            std::string::npos);
  EXPECT_NE(result.out.find("\n|wikitext|      2|none  |     0|bits_per_byte  |↓  |"),
            std::string::npos);
  EXPECT_NE(result.out.find("|±  |   N/A|\n"), std::string::npos);
}

}  // namespace
}  // namespace mantissa
