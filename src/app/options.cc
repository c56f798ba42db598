// The option groups that verbs share, and the table of verbs.
#include "app/command.h"

namespace mantissa {
namespace {

constexpr OptionType kFlag = OptionType::kFlag, kText = OptionType::kText,
                     kInteger = OptionType::kInteger, kReal = OptionType::kReal,
                     kList = OptionType::kList;
constexpr double kMany = 1e15;

// clang-format off
constexpr Option kCommon[] = {
    {"-h,--help", kFlag, "", "", "this text"},
    {"--json", kFlag, "", "", "one JSON object, or JSON lines, on standard output and nothing else there"},
    {"--device", kText, "auto", "D", "where to run; auto: the cpu", "auto,cpu,cuda,ref"},
    {"--dtype", kText, "auto", "T", "format of unquantized weights, activations and KV cache; auto: the checkpoint's", "auto,bfloat16,float16,float32"},
    {"--isa", kText, "auto", "I", "instruction set of the cpu kernels; auto: the best this machine has", "auto,avx512,avx2,portable"},
    {"--threads", kInteger, "0", "N", "0: all cores this process may use", "", 0, 1024},
    {"--seed", kInteger, "0", "N", "for everything random", "", 0, kMany},
    {"--strict", kFlag, "", "", "make every notice an error: unread tensors, NaN weights, defaulted settings"},
    {"--no-progress", kFlag, "", "", "no progress bar (there is none anyway where standard error is no terminal)"},
};
constexpr Option kModel[] = {
    {"-q,--quantization", kText, "auto", "SCHEME", "how the linear layers are quantized while loading; `mantissa schemes` lists them; auto: as the checkpoint is, bf16 where it is not quantized"},
    {"MODEL", kText, "", "", "a folder with config.json, tokenizer.json and *.safetensors"},
    {"--load-format", kText, "auto", "F", "dummy: random weights, only config.json is read (for benchmarks)", "auto,dummy"},
    {"--max-model-len", kInteger, "0", "N", "longest context in tokens; 0: the model's", "", 0, kMany},
    {"--lm-head-scheme", kText, "auto", "SCHEME", "the output head's (and tied embedding's) own scheme; auto: as the checkpoint is, bf16 where it is not quantized"},
    {"--ignore", kList, "", "re:...", "linear layers that stay unquantized: a name, or re: and a regular expression"},
    {"--kv-cache-dtype", kText, "auto", "D", "KV cache format: auto, fp8, ...; auto: as --dtype"},
    {"--kv-scale", kReal, "0", "X", "one static scale for a quantized KV cache; 0: a scale per token and head", "", 0, 1e30},
    {"--calibrate", kText, "", "FILE", "make the scales of a static scheme (fp8_static, int8:static, nvfp4:static) from this text"},
    {"--calibrate-samples", kInteger, "512", "N", "samples of the text, evenly spread; fewer where it has fewer", "", 1, 1e6},
    {"--calibrate-seq-len", kInteger, "2048", "N", "tokens of a sample; at most the model's context", "", 2, 1e6},
    {"--attention-backend", kText, "auto", "B", "which attention kernels; auto: the device's first"},
    {"--decode-layers", kText, "auto", "HOW", "passes of one token: fused (all layers in one kernel, CUDA only) or separate; auto: fused where it can", "auto,fused,separate"},
    {"--fast-accum", kFlag, "", "", "FP8 products summed in the tensor cores' short accumulator (CUDA only)"},
    {"--enforce-eager", kFlag, "", "", "decode steps launched kernel by kernel instead of as CUDA graphs (CUDA only)"},
    {"--no-library-kernels", kFlag, "", "", "only Mantissa's own kernels; there are no others (libraries are timed in benchmarks)"},
    {"--gpu-memory-utilization", kReal, "0.9", "X", "part of the GPU's memory to use (CUDA only)", "", 0.01, 1},
};
constexpr Option kLimits[] = {
    {"--max-num-seqs", kInteger, "256", "N", "most sequences in one forward pass", "", 1, 65536},
    {"--max-num-batched-tokens", kInteger, "2048", "N", "most tokens in one forward pass", "", 1, 1048576},
};
// clang-format on

constexpr const Verb* kVerbs[] = {
    &kGenerateVerb,  &kEvalVerb,           &kPerplexityVerb,    &kCompareVerb,
    &kQuantizeVerb,  &kInspectVerb,        &kBenchLatencyVerb,  &kBenchThroughputVerb,
    &kBenchGemmVerb, &kBenchAttentionVerb, &kBenchRooflineVerb, &kTokenizeVerb,
    &kSchemesVerb,   &kKernelsVerb,        &kDevicesVerb,
};

}  // namespace

std::span<const Verb* const> all_verbs() {
  return kVerbs;
}
std::span<const Option> common_options() {
  return kCommon;
}
std::span<const Option> model_options(unsigned groups) {
  const std::span<const Option> all(kModel);
  if (!(groups & kModelFlags)) return {};
  return (groups & kModelOptions) == kModelOptions ? all : all.subspan(1);  // -q is the first
}
std::span<const Option> limit_options() {
  return kLimits;
}

}  // namespace mantissa
