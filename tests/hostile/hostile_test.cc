// Truncated, corrupted and hostile model folders, given to the binary itself: each ends with exit
// code 2 and one message that names the problem. A row of kCases is one folder.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"

extern char** environ;

namespace mantissa {
namespace {

namespace fs = std::filesystem;

using Files = std::map<std::string, std::string>;

constexpr char kConfig[] = "config.json", kGeneration[] = "generation_config.json";
constexpr char kTokenizer[] = "tokenizer.json", kWeights[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

constexpr char kTinyConfig[] = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
  "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "vocab_size": 8192, "max_position_embeddings": 64, "rms_norm_eps": 1e-05,
  "rope_theta": 10000.0, "rope_scaling": null, "hidden_act": "silu", "attention_bias": false, "mlp_bias": false,
  "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16"})";

struct Outcome {
  int code = -1;  // exit code; 128 + number where a signal ended it
  std::string out, err;
};

// Runs argv with a time limit.
Outcome run(const fs::path& scratch, std::vector<std::string> arguments) {
  const fs::path out = scratch / "stdout", err = scratch / "stderr";
  arguments.insert(arguments.begin(), {"timeout", "--signal=KILL", "120", MANTISSA_BINARY});
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const int flags = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), flags, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), flags, 0600);
  pid_t child = 0;
  const int failed = posix_spawnp(&child, "timeout", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  check(failed == 0, "the binary can be started");
  int status = 0;
  check(waitpid(child, &status, 0) == child, "the binary can be waited for");
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {code, read_file(out, 1 << 24), read_file(err, 1 << 24)};
}

fs::path fresh_folder() {
  std::string pattern = (fs::temp_directory_path() / "mantissa-hostile-XXXXXX").string();
  check(::mkdtemp(pattern.data()) != nullptr, "a temporary folder can be made");
  return pattern;
}

// A sound tiny model: random weights, the demo model's tokenizer.
const Files& sound_model() {
  static const Files kFiles = [] {
    const fs::path folder = fresh_folder();
    std::ofstream(folder / "shape.json") << kTinyConfig;
    const std::string command = text(MANTISSA_RANDOM_CHECKPOINT, " ", folder.string(),
                                     "/shape.json ", folder.string(), "/model --seed 1");
    check(std::system(command.c_str()) == 0, "random_checkpoint runs");
    Files files;
    const fs::path demo = fs::path(MANTISSA_SOURCE_DIR) / "models/wiki-6m";
    files[kConfig] = kTinyConfig;
    files[kGeneration] = R"({"bos_token_id": 0, "eos_token_id": [1, 4]})";
    files[kWeights] = read_file(folder / "model" / kWeights, 1 << 24);
    files[kTokenizer] = read_file(demo / kTokenizer, 1 << 24);
    files["tokenizer_config.json"] = read_file(demo / "tokenizer_config.json", 1 << 20);
    fs::remove_all(folder);
    return files;
  }();
  return kFiles;
}

// ---- ways to break a file

void replace(std::string& content, std::string_view from, const std::string& to) {
  const size_t at = content.find(from);
  check(at != std::string::npos, "the text to replace is there");
  content.replace(at, from.size(), to);
}

std::string header_of(const std::string& file) {
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  return file.substr(8, length);
}

std::string with_header(const std::string& file, const std::string& header) {
  const uint64_t length = header.size();
  std::string out(reinterpret_cast<const char*>(&length), sizeof(length));
  return out + header + file.substr(8 + header_of(file).size());
}

using Change = std::function<void(Files&)>;

Change set(const char* name, const std::string& content) {
  return [=](Files& files) { files[name] = content; };
}
Change remove(const char* name) {
  return [=](Files& files) { files.erase(name); };
}
Change edit(const char* name, const char* from, const std::string& to) {
  return [=](Files& files) { replace(files[name], from, to); };
}
Change edit_header(const char* from, const char* to) {
  return [=](Files& files) {
    std::string header = header_of(files[kWeights]);
    replace(header, from, to);
    files[kWeights] = with_header(files[kWeights], header);
  };
}
Change cut(const char* name, size_t bytes) {
  return [=](Files& files) { files[name].resize(files[name].size() - bytes); };
}
// The weights as one shard with this index.
Change sharded(const char* index) {
  return [=](Files& files) {
    files["model-00001-of-00001.safetensors"] = files[kWeights];
    files.erase(kWeights);
    files[kIndex] = index;
  };
}

struct Case {
  const char* name;
  Change change;
  const char* says;                    // part of the message
  std::vector<std::string> more = {};  // further arguments
};

std::vector<Case> config_cases() {
  const std::string deep = std::string(200'000, '[');
  // clang-format off
  return {
      {"no config", remove(kConfig), "has no config.json"},
      {"empty config", set(kConfig, ""), "config.json, line 1, column 1: not valid JSON"},
      {"truncated config", cut(kConfig, 1), "config.json, line 5"},
      {"deep config", set(kConfig, deep), "not valid JSON"},
      {"huge config", set(kConfig, std::string(20 << 20, ' ')), "config.json has 20971520 bytes"},
      {"config not UTF-8", edit(kConfig, "silu", "\xff"), "not valid JSON"},
      {"config is a list", set(kConfig, "[]"), "config.json: the top level: expected an object"},
      {"size is text", edit(kConfig, "\"hidden_size\": 32", R"("hidden_size": "abc")"), "hidden_size: expected an integer from 1 to 262144, found \"abc\""},
      {"negative size", edit(kConfig, "\"hidden_size\": 32", "\"hidden_size\": -32"), "hidden_size: expected"},
      {"huge layers", edit(kConfig, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2000000000"), "num_hidden_layers: expected"},
      {"heads do not divide", edit(kConfig, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"), "no multiple of num_key_value_heads"},
      {"duplicate key", edit(kConfig, "\"hidden_size\": 32", R"("hidden_size": 32, "hidden_size": 64)"), "the key \"hidden_size\" occurs twice"},
      {"NaN", edit(kConfig, "1e-05", "NaN"), "not valid JSON"},
      {"unknown architecture", edit(kConfig, "\"llama\"", "\"gpt_bigcode\""), "gpt_bigcode"},
      {"hostile name", edit(kConfig, "\"llama\"", R"("\u001b[31mred")"), "\\x1b[31mred"},
      {"unknown activation", edit(kConfig, "silu", "magic"), "hidden_act \"magic\""},
      {"rope not implemented", edit(kConfig, "null", R"({"rope_type": "longrope", "short_factor": [1,1,1,1], "long_factor": [1,1,1,1]})"), "longrope"},
      {"rope unknown", edit(kConfig, "null", R"({"rope_type": "magic"})"), "rope_scaling.rope_type: expected one of"},
      {"quantized by config alone", edit(kConfig, "\"mlp_bias\"", R"("quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}, "mlp_bias")"), "q_proj.weight in model.safetensors: dtype is BF16"},
      {"unknown quantization", edit(kConfig, "\"mlp_bias\"", R"("quantization_config": {"quant_method": "magic"}, "mlp_bias")"), "quant_method \"magic\" is not read"},
      {"pattern made to hang", edit(kConfig, "\"mlp_bias\"", R"("quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["re:(.+)+(.+)+(.+)+(.+)+[#%]"]}, "mlp_bias")"), "gave up on the name"},
      {"eos outside", edit(kConfig, "\"eos_token_id\": 1", "\"eos_token_id\": 8192"), "eos_token_id: expected an integer from 0 to 8191"},
      {"larger than every machine", edit(kConfig, R"("hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4)",
        R"("hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 4096, "num_attention_heads": 512)"), "but this machine has", {"--load-format", "dummy"}},
      {"wrong width", edit(kConfig, "\"intermediate_size\": 64", "\"intermediate_size\": 80"), "mlp.gate_proj"},
      {"a layer too many", edit(kConfig, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"), "model.layers.2."},
      {"a layer too few", edit(kConfig, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"), "model.layers.1.", {"--strict"}},
      {"bias without tensors", edit(kConfig, "\"attention_bias\": false", "\"attention_bias\": true"), "q_proj.bias"},
      {"untied without a head", edit(kConfig, "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false"), "lm_head.weight"},
      {"broken generation_config", set(kGeneration, "{"), "generation_config.json, line 1"},
      {"negative temperature", set(kGeneration, R"({"temperature": -1})"), "generation_config.json: temperature: expected"},
  };
  // clang-format on
}

std::vector<Case> weight_cases() {
  const std::string lie(8, '\x7f');
  // clang-format off
  return {
      {"no weights", remove(kWeights), "has neither model.safetensors nor"},
      {"only a pickle", [](Files& f) { f["pytorch_model.bin"] = f[kWeights]; f.erase(kWeights); }, "pytorch_model.bin"},
      {"empty weights", set(kWeights, ""), "the file has 0 bytes"},
      {"header cut", [](Files& f) { f[kWeights].resize(100); }, "but the file ends after 92"},
      {"header length lies", [=](Files& f) { f[kWeights].replace(0, 8, lie); }, "at most 100000000"},
      {"data cut", cut(kWeights, 1), "the file is truncated"},
      {"data too long", [](Files& f) { f[kWeights] += "x"; }, "bytes that belong to no tensor"},
      {"header not JSON", edit_header("{", "["), "not valid JSON"},
      {"header not UTF-8", edit_header("model.norm", "model.\xff"), "not valid JSON"},
      {"duplicate tensor", edit_header("{\"__metadata__\"", R"({"model.norm.weight":{"dtype":"BF16","shape":[32],"data_offsets":[0,64]},"__metadata__")"), "\"model.norm.weight\" occurs twice"},
      {"overlap", edit_header("[0,524288]", "[64,524352]"), "model.embed_tokens.weight"},
      {"unknown dtype", edit_header("BF16", "BF17"), "expected one of BOOL"},
      {"wrong size", edit_header("[8192,32]", "[8192,33]"), "\"model.embed_tokens.weight\": data_offsets span 524288 bytes"},
      {"negative shape", edit_header("[8192,32]", "[-8192,-32]"), "expected an integer of at least 0"},
      {"shape overflow", edit_header("[8192,32]", "[4294967296,4294967296]"), "overflows 64 bits"},
      {"metadata with numbers", edit_header("\"pt\"", "7"), "__metadata__.format: expected a string"},
      {"integers as weights", edit_header("BF16", "I16"), "I16"},
      {"transposed", edit_header("[8192,32]", "[32,8192]"), "model.embed_tokens.weight"},
      {"tensor renamed", edit_header("layers.1.mlp.up_proj", "layers.1.mlp.up_prog"), "model.layers.1.mlp.up_proj.weight"},
      {"missing shard", sharded(R"({"weight_map":{"model.norm.weight":"model-00002-of-00002.safetensors"}})"), "the shard \"model-00002-of-00002.safetensors\" is missing"},
      {"path traversal", sharded(R"({"weight_map":{"model.norm.weight":"../../etc/passwd.safetensors"}})"), "expected the plain name"},
      {"tensor not in the index", sharded(R"({"weight_map":{"model.norm.weight":"model-00001-of-00001.safetensors"}})"), "is not in weight_map"},
      {"broken index", sharded("{\"weight_map\":"), "model.safetensors.index.json, line 1"},
      {"index of nothing", sharded("{}"), "weight_map"},
      {"both forms", set(kIndex, "{}"), "has both model.safetensors and"},
  };
  // clang-format on
}

std::vector<Case> tokenizer_cases() {
  const std::string deep = std::string(200'000, '[');
  // clang-format off
  return {
      {"no tokenizer", remove(kTokenizer), kTokenizer},
      {"empty tokenizer", set(kTokenizer, ""), "tokenizer.json"},
      {"truncated tokenizer", cut(kTokenizer, 5000), "tokenizer.json"},
      {"deep tokenizer", set(kTokenizer, deep), "tokenizer.json"},
      {"tokenizer is a list", set(kTokenizer, "[]"), "tokenizer.json"},
      {"tokenizer without a model", set(kTokenizer, R"({"version":"1.0","added_tokens":[]})"), "model"},
      {"unknown tokenizer model", edit(kTokenizer, "\"BPE\"", "\"WordLadder\""), "WordLadder"},
      {"broken tokenizer_config", set("tokenizer_config.json", "{"), "tokenizer_config.json"},
  };
  // clang-format on
}

void expect_refusal(const Case& c) {
  SCOPED_TRACE(c.name);
  const fs::path folder = fresh_folder();
  Files files = sound_model();
  c.change(files);
  fs::create_directory(folder / "model");
  for (const auto& [name, content] : files) {
    std::ofstream(folder / "model" / name, std::ios::binary) << content;
  }
  std::vector<std::string> arguments = {"generate",      (folder / "model").string(),
                                        "--prompt",      "The",
                                        "--max-tokens",  "2",
                                        "--temperature", "0"};
  arguments.insert(arguments.end(), c.more.begin(), c.more.end());
  const Outcome outcome = run(folder, arguments);
  fs::remove_all(folder);
  EXPECT_EQ(outcome.code, 2) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_NE(outcome.err.find(c.says), std::string::npos) << outcome.err;
  const size_t first = outcome.err.find("fix:");
  EXPECT_NE(first, std::string::npos) << "says what to do: " << outcome.err;
  EXPECT_EQ(outcome.err.find("fix:", first + 1), std::string::npos) << "once: " << outcome.err;
  EXPECT_EQ(outcome.err.find('\x1b'), std::string::npos) << "no control characters";
  EXPECT_LT(outcome.err.size(), 3000u);
}

TEST(Hostile, TheSoundModelRuns) {
  const fs::path folder = fresh_folder();
  for (const auto& [name, content] : sound_model()) {
    std::ofstream(folder / name, std::ios::binary) << content;
  }
  const Outcome outcome = run(folder, {"generate", folder.string(), "--prompt", "The",
                                       "--max-tokens", "2", "--temperature", "0", "--strict"});
  fs::remove_all(folder);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST(Hostile, Configs) {
  for (const Case& c : config_cases()) expect_refusal(c);
}

TEST(Hostile, Weights) {
  for (const Case& c : weight_cases()) expect_refusal(c);
}

TEST(Hostile, Tokenizers) {
  for (const Case& c : tokenizer_cases()) expect_refusal(c);
}

TEST(Hostile, NotEvenAFolder) {
  const fs::path folder = fresh_folder();
  const auto says = [&](const fs::path& model, const char* part) {
    const Outcome outcome = run(folder, {"generate", model.string(), "--prompt", "The"});
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    EXPECT_NE(outcome.err.find(part), std::string::npos) << outcome.err;
  };
  says(folder / "nowhere", "nowhere");
  std::ofstream(folder / "file") << "x";
  says(folder / "file", "is not a folder");
  says("", "");
  // Folders and pipes where files are expected: an error at once, never a wait.
  fs::create_directories(folder / "model" / kConfig);
  says(folder / "model", "is not a regular file");
  fs::remove(folder / "model" / kConfig);
  check(::mkfifo((folder / "model" / kConfig).c_str(), 0600) == 0, "a pipe can be made");
  says(folder / "model", "is not a regular file");
  fs::remove(folder / "model" / kConfig);
  fs::create_symlink(kConfig, folder / "model" / kConfig);
  says(folder / "model", kConfig);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace mantissa
