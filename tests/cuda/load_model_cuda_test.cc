// A whole model loaded through the GPU's quantizers equals, byte for byte, the same model quantized
// on the host.
#include <optional>

#include "gpu.h"
#include "io/config.h"
#include "model/arena.h"
#include "model/device_loader.h"
#include "model/layout.h"
#include "model/loader.h"

namespace mantissa {
namespace {

const std::filesystem::path kModel = [] {
  // On a GPU machine without the sources tools/gpu.sh puts the model beside the program.
  const std::filesystem::path here = "models/wiki-6m";
  return std::filesystem::exists(here) ? here : std::filesystem::path(MANTISSA_SOURCE_DIR) / here;
}();

class LoadModelCuda : public GpuTest {};

struct Loaded {
  std::vector<std::byte> weights;
  LoadReport report;
};
Loaded load(const std::string& scheme, bool dummy, const Ops& ops) {
  const Device gpu(ops, {});
  ModelOptions options;
  options.folder = kModel;
  options.scheme = options.lm_head_scheme = scheme;
  options.dummy = dummy;
  const ModelConfig config = read_model_config(kModel);
  std::optional<Checkpoint> checkpoint;
  if (!dummy) checkpoint = Checkpoint::open(kModel);
  const Checkpoint* from = checkpoint ? &*checkpoint : nullptr;
  ModelLayout layout = make_layout(config, options, kBF16, ops, gpu.queue(), from);
  Arena arena(arena_bytes(layout), "a test", ops, gpu.queue());
  Loaded out;
  out.weights.assign(static_cast<size_t>(arena.bytes()), std::byte{0xa5});
  std::byte* const start = arena.take(0);
  ops.upload(start, out.weights.data(), arena.bytes(), gpu.queue());
  ThreadPool pool(4);
  out.report = load_weights(layout, arena, from, 7, ops, gpu.queue(), pool, {});
  ops.download(out.weights.data(), start, arena.bytes(), gpu.queue());
  return out;
}

TEST_F(LoadModelCuda, EqualsTheHost) {
  if (!std::filesystem::exists(kModel)) GTEST_SKIP() << "needs " << kModel;
  Ops on_host = kCudaOps;
  on_host.load = nullptr;
  for (const char* scheme : {"bf16", "fp8", "ptpc_fp8", "fp8_block", "int8", "int4_weight_only:g64",
                             "mxfp4_weight_only", "nvfp4_weight_only", "codebook4"}) {
    for (const bool dummy : {false, true}) {
      const Loaded device = load(scheme, dummy, kCudaOps), host = load(scheme, dummy, on_host);
      EXPECT_EQ(device.weights, host.weights) << scheme << (dummy ? ", dummy" : "");
      EXPECT_EQ(device.report.tensors, host.report.tensors);
      EXPECT_EQ(device.report.warnings, host.report.warnings);
      EXPECT_TRUE(host.report.stages.empty());
      EXPECT_FALSE(device.report.stages.empty());
    }
  }
}

}  // namespace
}  // namespace mantissa
