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

// On a GPU machine without the sources tools/gpu.sh puts models/ beside the program.
std::filesystem::path model(const char* name) {
  const std::filesystem::path here = std::filesystem::path("models") / name;
  return std::filesystem::exists(here) ? here : std::filesystem::path(MANTISSA_SOURCE_DIR) / here;
}
const std::filesystem::path kModel = model("wiki-6m");

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
  out.report = load_weights(layout, arena, {from, 7}, ops, gpu.queue(), pool, {});
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
      const bool by_host = scheme == std::string("codebook4");
      EXPECT_EQ(device.report.notices.empty(), !by_host);
      EXPECT_EQ(device.report.stages.empty(), by_host && dummy);
    }
  }
}

// What is used while and after loading is what the plan says, within 2 %.
TEST_F(LoadModelCuda, ThePlanIsRight) {
  const std::filesystem::path folder = model("shapes/Llama-3.2-1B");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "needs " << folder;
  const Device gpu(kCudaOps, {});
  const auto free_bytes = [&] { return kCudaOps.memory(gpu.queue()).free; };
  for (const double utilization : {0.0, 0.3}) {  // 0: a small cache, so that the rest shows
    ModelOptions options;
    options.folder = folder;
    options.device = "cuda";
    options.scheme = "ptpc_fp8";
    options.dummy = true;
    options.kv_tokens = utilization > 0 ? 0 : 8192;
    options.max_model_len = 8192;
    options.gpu_memory_utilization = utilization;
    const int64_t before = free_bytes();
    Model model(options);
    const MemoryPlan& plan = model.plan();
    ASSERT_EQ(plan.misfit, "");
    int64_t least = before;
    model.load([&](int64_t, int64_t) { least = std::min(least, free_bytes()); });
    EXPECT_LE(before - least, (plan.weights_bytes + plan.load_bytes) * 102 / 100 + (8 << 20));
    const int64_t planned = plan.weights_bytes + plan.kv_bytes + plan.workspace_bytes +
                            plan.scratch_bytes + plan.graph_bytes;
    const auto used = static_cast<double>(before - free_bytes());
    std::printf("utilization %g: planned %lld MiB, used %lld MiB (scratch %lld, graphs %lld)\n",
                utilization, static_cast<long long>(planned >> 20),
                static_cast<long long>(used) >> 20,
                static_cast<long long>(plan.scratch_bytes >> 20),
                static_cast<long long>(plan.graph_bytes >> 20));
    EXPECT_NEAR(used, static_cast<double>(planned), 0.02 * static_cast<double>(planned));
    if (utilization > 0) {
      const int64_t total = kCudaOps.memory(gpu.queue()).total;
      EXPECT_NEAR(used, utilization * static_cast<double>(total),
                  0.02 * static_cast<double>(total));
    }
  }
}

}  // namespace
}  // namespace mantissa
