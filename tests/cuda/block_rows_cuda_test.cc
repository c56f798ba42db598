// add_rows, norm_heads and cap_logits on the GPU: within a rounding of the reference.
#include "gpu.h"

namespace mantissa {
namespace {

constexpr const Elem* kRun[] = {&kBF16, &kF16, &kF32};

class BlockRowsCuda : public GpuTest {};

Tensor wide_of(const Tensor& x) {
  Tensor wide(kF32, x.rows(), x.cols());
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t c = 0; c < x.cols(); ++c) wide.set(r, c, x.at(r, c));
  return wide;
}

void expect_close(const Tensor& got, const Tensor& want) {
  std::vector<double> values, bound;
  for (int64_t r = 0; r < want.rows(); ++r) {
    for (int64_t c = 0; c < want.cols(); ++c) {
      values.push_back(want.at(r, c));
      bound.push_back(std::abs(values.back()) * (compare::unit_roundoff(got.elem()) * 1.01 + 1e-5) +
                      1e-5);
    }
  }
  EXPECT_TRUE(compare::within(got.view(), values, bound)) << got.elem().name;
}

std::vector<float> some_gain(int64_t size) {
  std::vector<float> gain(static_cast<size_t>(size));
  for (size_t i = 0; i < gain.size(); ++i) gain[i] = 0.5f + static_cast<float>(i % 7) * 0.25f;
  return gain;
}

TEST_F(BlockRowsCuda, AddRows) {
  const Device ref(kRefOps), gpu(kCudaOps, {});
  for (const Elem* run : kRun) {
    for (const auto& [m, k] : {std::pair{1, 1}, {3, 100}, {5, 4096}, {33, 2306}}) {
      Tensor x(*run, m, k), delta(*run, m, k);
      x.fill(3, 2);
      delta.fill(4, 5);
      const std::vector<float> gain = some_gain(k);
      const OnGpu gpu_gain(gpu, gain.data(), k * 4);
      for (const bool normed : {false, true}) {
        Tensor want = wide_of(x);
        const Tensor wide = wide_of(delta);
        const GpuTensor on_gpu(gpu, x), added(gpu, delta);
        AddParams params{.gain = normed ? gain.data() : nullptr, .eps = 1e-5f, .multiplier = 0.22f};
        ref.ops.add_rows(want.view(), wide.view(), params, ref.queue());
        params.gain = normed ? gpu_gain.as<float>() : nullptr;
        gpu.ops.add_rows(on_gpu.view(), added.view(), params, gpu.queue());
        expect_close(on_gpu.fetch(), want);
      }
    }
  }
}

TEST_F(BlockRowsCuda, NormHeads) {
  const Device ref(kRefOps), gpu(kCudaOps, {});
  struct Heads {
    int32_t heads, kv_heads, dim;
  };
  for (const Elem* run : kRun) {
    for (const Heads h : {Heads{1, 1, 2}, Heads{4, 2, 20}, Heads{32, 8, 128}, Heads{8, 4, 256}}) {
      const int64_t cols = int64_t{h.heads + 2 * h.kv_heads} * h.dim;
      const std::vector<float> gain = some_gain(cols);
      const OnGpu gpu_gain(gpu, gain.data(), cols * 4);
      for (const bool each : {true, false}) {
        Tensor qkv(*run, 5, cols);
        qkv.fill(5, 3);
        Tensor want = wide_of(qkv);
        const GpuTensor on_gpu(gpu, qkv);
        HeadNormParams params{.q_gain = gain.data(),
                              .k_gain = gain.data() + 1,
                              .heads = h.heads,
                              .kv_heads = h.kv_heads,
                              .head_dim = h.dim,
                              .each_head = each,
                              .eps = 1e-6f};
        ref.ops.norm_heads(want.view(), params, ref.queue());
        params.q_gain = gpu_gain.as<float>();
        params.k_gain = gpu_gain.as<float>() + 1;
        gpu.ops.norm_heads(on_gpu.view(), params, gpu.queue());
        expect_close(on_gpu.fetch(), want);
      }
    }
  }
}

TEST_F(BlockRowsCuda, CapLogits) {
  const Device ref(kRefOps), gpu(kCudaOps, {});
  for (const float cap : {0.0f, 1.5f, 30.0f}) {
    Tensor z(kF32, 3, 32003);
    z.fill(6, 50);
    Tensor want = z;
    const GpuTensor on_gpu(gpu, z);
    ref.ops.cap_logits(want.view().as<float>(), 0.5f, cap, ref.queue());
    gpu.ops.cap_logits(on_gpu.view().as<float>(), 0.5f, cap, gpu.queue());
    expect_close(on_gpu.fetch(), want);
  }
}

}  // namespace
}  // namespace mantissa
