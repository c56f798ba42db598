// `quantize`: what is written is what loading with -q makes, bit for bit where a scale spans no two
// linears; formats refuse what they cannot hold; nothing is left behind by a failure.
#include "model/write_quantized.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "run_model.h"

namespace mantissa::test {
namespace {

namespace fs = std::filesystem;

const fs::path kTiny = fs::path(MANTISSA_SOURCE_DIR) / "tests/golden/models/llama-gqa-tied";

struct Scratch {
  fs::path path = fs::temp_directory_path() / text("mantissa-written-", ::getpid());
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

ModelOptions options_of(const fs::path& folder) {
  ModelOptions options;
  options.folder = folder;
  options.device = "ref";
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 128;
  options.threads = 2;
  options.strict = true;
  return options;
}

// One range for every input of the tiny model.
std::vector<InputRange> made_up_ranges() {
  std::vector<InputRange> ranges;
  for (int layer = 0; layer < 2; ++layer) {
    for (const char* slot :
         {"self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"}) {
      ranges.push_back({text("model.layers.", layer, ".", slot), -3.0f, 2.5f});
    }
  }
  return ranges;
}

WriteQuantized job_of(const char* scheme, const char* format, const fs::path& to) {
  return {.from = kTiny,
          .to = to,
          .scheme = parse_scheme(scheme),
          .format = format,
          .ignore = {},
          .input_ranges = made_up_ranges(),
          .threads = 2};
}

struct Row {
  const char *scheme, *format, *dialect;
  bool equal;  // false: loading takes one scale over fused parts, a file has one for each
};
constexpr char kCt[] = "compressed-tensors";
constexpr Row kRows[] = {
    {"fp8", "fp8", "fp8", false},
    {"fp8_static", "fp8", "fp8", false},
    {"fp8:recipe=autofp8", "fp8", "fp8", false},
    {"fp8_block", "fp8", "fp8 block", true},
    {"fp8_static", kCt, "compressed-tensors float-quantized", false},
    {"ptpc_fp8", kCt, "compressed-tensors float-quantized", true},
    {"fp8_block", kCt, "compressed-tensors float-quantized", true},
    {"fp8_weight_only", kCt, "compressed-tensors float-quantized", true},
    {"int8", kCt, "compressed-tensors int-quantized", true},
    {"int8:asym", kCt, "compressed-tensors int-quantized", true},
    {"int8:static", kCt, "compressed-tensors int-quantized", true},
    {"int8:asym:static", kCt, "compressed-tensors int-quantized", true},
    {"int8_weight_only", kCt, "compressed-tensors pack-quantized", true},
    {"int4_weight_only:g32", kCt, "compressed-tensors pack-quantized", true},
    {"int4_weight_only:g64:asym", kCt, "compressed-tensors pack-quantized", true},
    {"int3_weight_only:g32:asym", kCt, "compressed-tensors pack-quantized", true},
    {"int7_weight_only:channel", kCt, "compressed-tensors pack-quantized", true},
    {"int4_int8:g32", kCt, "compressed-tensors pack-quantized", true},
    {"mxfp8", kCt, "compressed-tensors mxfp8-quantized", true},
    {"mxfp4_weight_only", kCt, "compressed-tensors mxfp4-pack-quantized", true},
    {"nvfp4_weight_only", kCt, "compressed-tensors nvfp4-pack-quantized", true},
    {"nvfp4:static", kCt, "compressed-tensors nvfp4-pack-quantized", true},
};

TEST(WriteQuantized, WhatIsWrittenRunsAsWhatIsQuantizedWhileLoading) {
  for (const Row& row : kRows) {
    SCOPED_TRACE(text(row.scheme, " as ", row.format));
    const Scratch scratch;
    const WriteReport report = write_quantized(job_of(row.scheme, row.format, scratch.path));
    EXPECT_EQ(report.dialect, row.dialect);
    EXPECT_EQ(report.quantized, 14);
    Model stored = load_model(options_of(scratch.path));
    EXPECT_EQ(
        parse_scheme(stored.options().scheme).name,
        parse_scheme(std::string(row.scheme).substr(0, std::string(row.scheme).find(":recipe")))
            .name);
    ModelOptions online = options_of(kTiny);
    online.scheme = row.scheme;
    online.strict = false;  // static ranges are made up: some saturate
    online.input_ranges = made_up_ranges();
    Model quantized = load_model(online);
    const std::vector<int32_t> ids = {1, 5, 9, 7, 77, 20, 3};
    const std::vector<float> got = prefill_logits(stored, ids),
                             want = prefill_logits(quantized, ids);
    if (row.equal) {
      EXPECT_EQ(got, want);
    } else {
      EXPECT_LT(relative_gap(got, want), 0.25);
    }
  }
}

TEST(WriteQuantized, IgnoredLinearsStayAndAreNamed) {
  const Scratch scratch;
  WriteQuantized job = job_of("int8", kCt, scratch.path);
  job.ignore = {"re:.*down_proj", "re:.*lm_head"};
  EXPECT_EQ(write_quantized(job).quantized, 12);
  const Model model(options_of(scratch.path));
  for (const PlanRow& row : model.plan().rows) {
    if (row.module == "mlp.down_proj") {
      EXPECT_EQ(row.scheme, "f32");
    }
    if (row.module == "mlp.gate_up_proj") {
      EXPECT_EQ(row.scheme, "int8");
    }
  }
}

std::string refusal(const WriteQuantized& job) {
  try {
    write_quantized(job);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(WriteQuantized, FormatsRefuseWhatTheyCannotHold) {
  const Scratch scratch;
  const auto says = [&](const WriteQuantized& job, const char* what) {
    EXPECT_NE(refusal(job).find(what), std::string::npos) << refusal(job);
    EXPECT_FALSE(fs::exists(scratch.path / "config.json"));
    EXPECT_FALSE(fs::exists(scratch.path / "model.safetensors"));
  };
  says(job_of("int8", "fp8", scratch.path), "--format fp8 cannot hold scheme int8");
  says(job_of("codebook4:g32", kCt, scratch.path), "cannot hold scheme codebook4:g32");
  says(job_of("int4_weight_only", kCt, scratch.path), "no multiple of the group of 128");
  says(job_of("int8", "gguf", scratch.path), "--format \"gguf\" is not written");
  WriteQuantized job = job_of("fp8_static", "fp8", scratch.path);
  job.input_ranges.clear();
  says(job, "--calibrate FILE");
  job = job_of("int8", kCt, scratch.path);
  job.ignore = {"re:.*up_prog"};
  says(job, "--ignore re:.*up_prog");
  job = job_of("int8", kCt, scratch.path);
  job.from = fs::path(MANTISSA_SOURCE_DIR) / "tests/golden/quantized/ct-w4a16";
  says(job, "already quantized");
  job = job_of("int8", kCt, scratch.path);
  job.dry_run = true;
  EXPECT_EQ(write_quantized(job).quantized, 14);
  EXPECT_FALSE(fs::exists(scratch.path));
}

TEST(WriteQuantized, AFileThatCannotBeWrittenLeavesNoModel) {
  const Scratch scratch;
  fs::create_directories(scratch.path / "config.json");  // nothing can take its name
  EXPECT_NE(refusal(job_of("int8", kCt, scratch.path)).find("cannot rename"), std::string::npos);
  EXPECT_EQ(std::distance(fs::directory_iterator(scratch.path), {}), 1);
}

// kTiny with a NaN as the first weight of one linear.
void write_damaged(const fs::path& folder, const char* name) {
  fs::copy(kTiny, folder);
  std::string file = read_file(folder / "model.safetensors", int64_t{1} << 30);
  uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof(header));
  const json::Document document = json::parse(file.substr(8, header), "the header");
  const json::Value tensor = document.root().at(name);
  ASSERT_EQ(tensor.at("dtype").as_string(), "F32");
  const auto begin = static_cast<size_t>(tensor.at("data_offsets")[0].as_int());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(file.data() + 8 + header + begin, &nan, sizeof(nan));
  std::ofstream(folder / "model.safetensors", std::ios::binary) << file;
}

TEST(WriteQuantized, WhatEndsItHalfWayLeavesNoFiles) {
  const Scratch scratch;
  struct Stop {};
  const WriteQuantized job = job_of("int8", kCt, scratch.path);
  bool parts = false;
  EXPECT_THROW(write_quantized(job,
                               [&](int64_t, int64_t) {
                                 parts = !fs::is_empty(job.to);
                                 throw Stop();
                               }),
               Stop);
  EXPECT_TRUE(parts);
  EXPECT_TRUE(fs::is_empty(job.to));
}

TEST(WriteQuantized, StrictWritesNothingOfADamagedModel) {
  const Scratch scratch;
  fs::create_directories(scratch.path);
  write_damaged(scratch.path / "from", "model.layers.1.mlp.down_proj.weight");
  WriteQuantized job = job_of("int8", kCt, scratch.path / "to");
  job.from = scratch.path / "from";
  job.strict = true;
  EXPECT_NE(refusal(job).find("model.layers.1.mlp.down_proj: 1 NaN"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(job.to));
  job.strict = false;
  EXPECT_EQ(write_quantized(job).warnings,
            std::vector<std::string>{"model.layers.1.mlp.down_proj: 1 NaN weight became 0"});
}

}  // namespace
}  // namespace mantissa::test
