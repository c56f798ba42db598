// How a verb of the command line is made: a row of tables (its options with type, default and help)
// and a function that gets the parsed values. The same rows make the parser and `--help`.
// A new verb costs one file that defines its `const Verb`, one declaration below and one row in
// options.cc. Not here: what verbs share when they print (output.h) or load a model (load.h).
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mantissa {

enum class OptionType : uint8_t {
  kFlag,     // given or not
  kText,     // one string
  kInteger,  // one whole number within [least, most]
  kReal,     // one finite number within [least, most]
  kList,     // strings; the option may be repeated
};

struct Option {
  std::string_view names;  // "-q,--quantization"; without dashes it is a positional and required
  OptionType type = OptionType::kText;
  std::string_view fallback;      // the default, as text; empty: none
  std::string_view meta;          // what help calls the value: "SCHEME"
  std::string_view help;          // one sentence
  std::string_view choices = {};  // comma-separated legal values; empty: any
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
};

// The values of one invocation, by the longest name of the option without dashes
// ("quantization", "MODEL"). Asking for a name or a type that the verb's tables lack is a bug of
// ours and aborts. Everything was checked against the tables before the verb runs.
class Args {
 public:
  bool flag(std::string_view name) const;
  const std::string& text(std::string_view name) const;  // the default where not given
  int64_t integer(std::string_view name) const;
  double real(std::string_view name) const;
  const std::vector<std::string>& list(std::string_view name) const;  // in the order given
  bool given(std::string_view name) const;                            // on the command line
  // As messages name it: "--samples or --calibrate-samples".
  std::string option_name(std::string_view name) const;
  // As it was given, of any type that has one value.
  const std::string& given_text(std::string_view name) const;

 private:
  friend class ArgsBuilder;
  struct Value {
    const Option* option = nullptr;
    std::vector<std::string> texts;  // of the command line, or the default
    bool given = false;
  };
  const Value& find(std::string_view name, OptionType type) const;
  std::map<std::string, Value, std::less<>> values_;
};

// Option groups that several verbs share. Every verb has the common ones.
enum VerbGroups : unsigned {
  kCommonOnly = 0,
  kModelFlags = 1,    // MODEL, --load-format and all flags of a verb that runs a model, but no -q
  kModelOptions = 5,  // those and -q
  kLimitOptions = 2,  // --max-num-seqs, --max-num-batched-tokens (with kModelOptions)
};

struct Verb {
  std::string_view name;      // "perplexity", "bench latency"
  std::string_view summary;   // one line of `mantissa --help`
  std::string_view details;   // a paragraph of `mantissa VERB --help`
  std::string_view examples;  // lines, each a command that works
  unsigned groups = kCommonOnly;
  std::span<const Option> options;
  // Returns when done; throws Error for anything that went wrong.
  void (*run)(const Args&) = nullptr;
};

// The table of verbs, in the order of `mantissa --help`.
std::span<const Verb* const> all_verbs();
std::span<const Option> common_options();
std::span<const Option> model_options(unsigned groups);
std::span<const Option> limit_options();

// Throws Error where `device` is neither auto nor a backend that is compiled in. given_as: how the
// user named it; prefix: what stands before a device's name there.
void check_device(const std::string& device, const std::string& given_as,
                  const std::string& prefix);

// Parses and runs one command line; the exit code: 0 done, 1 the run failed, 2 wrong input.
int run_command_line(std::span<const char* const> argv);

extern const Verb kGenerateVerb, kEvalVerb, kPerplexityVerb, kCompareVerb, kInspectVerb,
    kQuantizeVerb, kBenchLatencyVerb, kBenchThroughputVerb, kBenchGemmVerb, kBenchAttentionVerb,
    kBenchRooflineVerb, kTokenizeVerb, kSchemesVerb, kKernelsVerb, kDevicesVerb;

}  // namespace mantissa
