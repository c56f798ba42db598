// The public C++ API: a language model loaded from a Hugging Face folder, quantized on the way in,
// that answers prompts.
//
//   mantissa::Llm llm("models/wiki-6m", {.quantization = "ptpc_fp8"});
//   mantissa::Completion answer = llm.generate("The history of", {.max_tokens = 64});
//
// Everything that cannot work throws mantissa::Error, saying what was found and what to do. An Llm
// serves one caller at a time; several Llm objects are independent of each other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mantissa/error.h"

namespace mantissa {

// How a model is loaded. Names are those of the command line.
struct LlmOptions {
  std::string quantization = "auto";     // a row of `mantissa schemes`; auto: as the checkpoint is
  std::string device = "auto";           // auto, cpu, ref
  std::string dtype = "auto";            // auto (as the checkpoint), bfloat16, float16, float32
  std::string isa = "auto";              // auto, avx512, avx2, portable; forced means forced
  int threads = 0;                       // 0: every core this process may use
  int64_t max_model_len = 0;             // tokens of prompt and answer; 0: what the model allows
  std::string lm_head_scheme = "auto";   // as the checkpoint is: mostly the run dtype
  std::vector<std::string> ignore = {};  // modules that stay unquantized: names or "re:..."
  std::string kv_cache_dtype = "auto";   // auto (the run dtype), fp8, fp8_e4m3
  float kv_scale = 0;                    // > 0: one fixed scale of an 8-bit KV cache
  std::string attention_backend = "auto";
  int64_t max_num_seqs = 64;              // sequences of one forward pass
  int64_t max_num_batched_tokens = 2048;  // tokens of one forward pass; longer prompts go in chunks
  // Tokens of keys and values that fit into the cache; 0: max_num_seqs sequences of max_model_len
  // within 4 GiB, and at least one such sequence.
  int64_t kv_cache_tokens = 0;
  bool dummy_weights = false;  // random weights: config.json is read, no weights
  uint64_t seed = 0;           // of dummy weights
  bool strict = false;         // makes each notice of the load an Error
  // Called while loading: bytes of the checkpoint done and in all.
  std::function<void(int64_t done, int64_t total)> progress = {};
  // Receives what a user should know, one line each: defaults taken, modules left unquantized,
  // values that did not fit. Unset: the lines are in Llm::notices() only.
  std::function<void(const std::string& line)> notice = {};
};

// How an answer is made. What is not set comes from the model's generation_config.json, and where
// that says nothing from the default named here. Llm::describe() shows the result.
struct GenerateOptions {
  std::optional<int64_t> max_tokens = {};         // 256, or fewer where the context ends before
  std::optional<double> temperature = {};         // 1; 0: the most likely token, always
  std::optional<double> top_p = {};               // 1: all tokens
  std::optional<int64_t> top_k = {};              // 0: all tokens
  std::optional<double> min_p = {};               // 0: all tokens
  std::optional<double> repetition_penalty = {};  // 1: none
  std::vector<std::string> stop = {};             // ends the answer; not part of its text
  std::vector<int32_t> stop_token_ids = {};       // besides the model's own end tokens
  bool ignore_eos = false;                        // the model's end tokens do not end the answer
  // A token depends on seed, position and logits alone: not on its neighbours in the batch.
  uint64_t seed = 0;
  std::optional<int> logprobs = {};  // 0..20 alternatives besides the chosen token
};

struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0;  // natural; of the model's own distribution, before temperature and filters
};
struct TokenLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  // most likely first
};

struct Completion {
  std::string text;                     // valid UTF-8; continues the prompt
  std::vector<int32_t> token_ids;       // generated ones, with the end token if one came
  std::string finish_reason;            // "stop" or "length"
  int64_t prompt_tokens = 0;            // with those the tokenizer adds
  int64_t completion_tokens = 0;        // token_ids.size()
  double seconds = 0;                   // from the call of generate to the last token
  std::vector<TokenLogprobs> logprobs;  // [completion_tokens] where asked for
};

// A piece of an answer, as soon as it is certain.
struct StreamChunk {
  size_t prompt = 0;                   // index of the prompt
  std::string_view text;               // may be empty: a token can be part of a character
  std::span<const int32_t> token_ids;  // the tokens of this step
  std::string_view finish_reason;      // empty until the last chunk
};
// Returns whether to go on with this prompt; false ends it with finish_reason "cancelled".
using StreamCallback = std::function<bool(const StreamChunk&)>;

// What is resident, once loaded.
struct LlmInfo {
  std::string device;  // "cpu avx512, 2 threads"
  std::string quantization, dtype;
  int64_t parameters = 0;
  int64_t weights_bytes = 0, kv_bytes = 0, workspace_bytes = 0;
  double bits_per_weight = 0;
  int64_t max_model_len = 0, kv_tokens = 0;
  double load_seconds = 0;
};

class Llm {
 public:
  // Loads the folder (config.json, tokenizer.json, *.safetensors).
  explicit Llm(const std::filesystem::path& folder, const LlmOptions& options = {});
  ~Llm();
  Llm(Llm&&) noexcept;
  Llm& operator=(Llm&&) noexcept;

  // All prompts in one continuous batch; completions in the order of the prompts. Throws Error
  // before anything runs where a prompt and max_tokens do not fit into the context.
  std::vector<Completion> generate(std::span<const std::string> prompts,
                                   const GenerateOptions& options = {},
                                   const StreamCallback& stream = {});
  std::vector<Completion> generate(std::initializer_list<std::string> prompts,
                                   const GenerateOptions& options = {},
                                   const StreamCallback& stream = {});
  Completion generate(const std::string& prompt, const GenerateOptions& options = {},
                      const StreamCallback& stream = {});

  // Ids of a text, with those the tokenizer adds (BOS, mostly) if asked for; and back, without
  // special tokens.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
  std::string decode(std::span<const int32_t> ids) const;

  // The parameters that these options amount to with this model, one line.
  std::string describe(const GenerateOptions& options = {}) const;
  const LlmInfo& info() const;
  const std::vector<std::string>& notices() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mantissa
