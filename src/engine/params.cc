// Sampling options over the model's defaults over vLLM's: a table, one row for each parameter.
#include <cmath>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/stop_strings.h"

namespace mantissa {
namespace {

template <class T>
struct ParamRow {
  const char* name;
  std::optional<T> SamplingOptions::*option;
  std::optional<T> GenerationConfig::*file;
  T SamplingParams::*result;  // holds vLLM's default
};
constexpr ParamRow<double> kRealRows[] = {
    {"temperature", &SamplingOptions::temperature, &GenerationConfig::temperature,
     &SamplingParams::temperature},
    {"top_p", &SamplingOptions::top_p, &GenerationConfig::top_p, &SamplingParams::top_p},
    {"min_p", &SamplingOptions::min_p, &GenerationConfig::min_p, &SamplingParams::min_p},
    {"repetition_penalty", &SamplingOptions::repetition_penalty,
     &GenerationConfig::repetition_penalty, &SamplingParams::repetition_penalty},
};
constexpr ParamRow<int64_t> kIntegerRows[] = {
    {"top_k", &SamplingOptions::top_k, &GenerationConfig::top_k, &SamplingParams::top_k},
};

constexpr const char* kFromFile = " (generation_config.json)";
constexpr const char* kNotSampled = " (do_sample is false in generation_config.json)";

// A value and, as text, where it came from; nothing for what the caller said.
template <class T>
struct Sourced {
  T value;
  const char* source = "";
};

template <class T>
Sourced<T> pick(const ParamRow<T>& row, const SamplingOptions& options,
                const GenerationConfig& file) {
  if (options.*row.option) return {*(options.*row.option)};
  if (row.file == nullptr) return {SamplingParams{}.*row.result, " (default)"};
  if (std::is_same_v<T, double> && std::string_view(row.name) == "temperature" &&
      file.do_sample == false) {
    return {T{0}, kNotSampled};
  }
  if (file.*row.file) return {*(file.*row.file), kFromFile};
  return {SamplingParams{}.*row.result, " (default)"};
}

Sourced<std::optional<int64_t>> pick_max_tokens(const SamplingOptions& options,
                                                const GenerationConfig& file) {
  if (options.max_tokens) return {options.max_tokens};
  if (file.max_new_tokens) return {file.max_new_tokens, kFromFile};
  return {std::nullopt, " (default)"};
}

}  // namespace

EngineDefaults engine_defaults(const ModelConfig& config, uint64_t seed) {
  return {config.generation, config.eos_token_ids, seed, config.vocab_size};
}

EffectiveParams effective_params(const SamplingOptions& options, const EngineDefaults& defaults) {
  EffectiveParams result;
  for (const auto& row : kRealRows) {
    result.sampling.*row.result = pick(row, options, defaults.generation).value;
  }
  for (const auto& row : kIntegerRows) {
    result.sampling.*row.result = pick(row, options, defaults.generation).value;
  }
  result.sampling.seed = options.seed.value_or(defaults.seed);
  result.sampling.logprobs = options.logprobs.value_or(-1);
  check_sampling(result.sampling);
  if (options.max_tokens && *options.max_tokens < 1) {
    throw Error(text("max_tokens is ", *options.max_tokens), "use a max_tokens of at least 1");
  }
  result.max_tokens = pick_max_tokens(options, defaults.generation).value;
  check_stop_strings(options.stop);
  for (const int32_t id : options.stop_token_ids) {
    if (id < 0 || (defaults.vocab > 0 && id >= defaults.vocab)) {
      throw Error(text("stop token id ", id, ": the model has ", defaults.vocab, " tokens"),
                  text("use ids from 0 to ", defaults.vocab - 1));
    }
  }
  result.stop = options.stop;
  result.stop_token_ids = options.stop_token_ids;
  if (!options.ignore_eos) {
    result.stop_token_ids.insert(result.stop_token_ids.end(), defaults.eos_ids.begin(),
                                 defaults.eos_ids.end());
  }
  return result;
}

std::string describe_params(const SamplingOptions& options, const EngineDefaults& defaults) {
  const EffectiveParams effective = effective_params(options, defaults);
  std::string out;
  for (const auto& row : kRealRows) {
    const auto [value, source] = pick(row, options, defaults.generation);
    out += text(row.name, " ", value, source, ", ");
  }
  for (const auto& row : kIntegerRows) {
    const auto [value, source] = pick(row, options, defaults.generation);
    out += text(row.name, " ", value, source, ", ");
  }
  out += text("seed ", effective.sampling.seed, options.seed ? ", " : " (default), ");
  const auto [max_tokens, source] = pick_max_tokens(options, defaults.generation);
  out += text("max_tokens ", max_tokens.value_or(kMaxTokensDefault), source);
  if (!options.max_tokens) out += ", fewer where the context ends before";
  for (const std::string& stop : options.stop) out += text(", stop \"", stop, "\"");
  if (options.ignore_eos) out += ", end tokens ignored";
  return out;
}

}  // namespace mantissa
