// What verbs that run a model share: options -> ModelOptions, the plan printed before anything is
// loaded, progress while loading, what was loaded in how long.
#pragma once

#include <boost/json/fwd.hpp>

#include "app/command.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace mantissa {

// From kModelOptions. Refuses, with exit code 2, flags that can have no effect here (--fast-accum
// on a CPU, ...). The verb sets what it decides itself (kv_tokens, logits_rows_max, ...) before
// open_model().
ModelOptions model_options_of(const Args& args);
// The same for the first of several schemes, where the verb has its own option for them.
ModelOptions model_options_of(const Args& args, std::span<const std::string> schemes);
// From kLimitOptions.
void set_limit_options(const Args& args, ModelOptions& options);

// config.json, after checking that its architecture is known.
ModelConfig config_of(const ModelOptions& options);
// Tokens of context that a run of these options has: --max-model-len, or what config.json says.
int64_t context_of(const ModelOptions& options, const ModelConfig& config);

// Loads the tokenizer and prints its notes. With --strict a note is an Error, here and below.
Tokenizer open_tokenizer(const Args& args, const std::filesystem::path& folder);

// Throws Error where ids that this tokenizer made are none of the model's: found before the weights
// are loaded.
void check_vocabulary(const Tokenizer& tokenizer, const ModelConfig& config,
                      std::span<const int32_t> ids);

// Plans, prints the plan, loads with a progress bar, prints the load report. All on standard error.
Model open_model(const Args& args, ModelOptions options, LoadReport* report = nullptr);

// --calibrate: runs the text through the model and fills options.input_ranges. Does nothing where
// no scheme of `options` is static.
void calibrate_inputs(const Args& args, ModelOptions& options);
// Throws Error where the options of --calibrate are given, but not it.
void refuse_calibration_without_text(const Args& args);
// The same, and where none of the schemes is static or the file cannot be opened: now rather than
// after models have run.
void check_calibration(const Args& args, std::span<const std::string> schemes,
                       const std::string& lm_head_scheme);

// parse_scheme(); errors name the option.
Scheme scheme_of(std::string_view option, std::string_view name);
// Canonical names of a list of schemes; takes_auto: "auto" stays. Throws Error where `option` names
// one twice.
std::vector<std::string> scheme_names(std::string_view option, std::string_view list,
                                      bool takes_auto);

// Invalid UTF-8, which tokenizers read as U+FFFD, is a notice. name: of the text.
void check_utf8(const Args& args, const std::string& name, std::string_view content);
// A whole text file, or a stream to its end, checked so.
std::string read_text(const Args& args, const std::filesystem::path& path, int64_t bytes_max);

// Something a user should know: a line, or an Error with --strict.
void notice(const Args& args, const std::string& line);

// What tables call the model in this folder: "wiki-6m", also of "." and with a slash at the end.
std::string model_name(const std::filesystem::path& folder);

// The scheme that runs; of an unquantized model its dtype: "bf16", "f16", "f32".
std::string scheme_label(const Model& model);
// The plan as text (several lines) and as JSON.
std::string plan_text(const Model& model);
boost::json::object plan_json(const Model& model);

// Adds "version", "commit", "device", "threads", "model", "scheme", "kv_cache_dtype", "dtype".
void add_run_info(boost::json::object& object, const Model& model);

}  // namespace mantissa
