// Operands of the GPU tests: host tensors with copies on the device, through Ops alone.
#pragma once

#include <algorithm>
#include <vector>

#include "../kernels/compare.h"
#include "../kernels/op_fixture.h"
#include "kernels/cuda/ops.h"

namespace mantissa {

// Device memory with a copy of host bytes.
class OnGpu {
 public:
  OnGpu(const Device& gpu, const void* host, int64_t bytes)
      : gpu_(gpu), bytes_(bytes), data_(gpu.ops.allocate(bytes + 64, "a test", gpu.queue())) {
    gpu_.ops.upload(data_, host, bytes, gpu_.queue());
  }
  ~OnGpu() { gpu_.ops.release(data_, bytes_ + 64, gpu_.queue()); }
  OnGpu(const OnGpu&) = delete;
  OnGpu& operator=(const OnGpu&) = delete;
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  void download(void* host) const { gpu_.ops.download(host, data_, bytes_, gpu_.queue()); }

 private:
  const Device& gpu_;
  int64_t bytes_;
  std::byte* data_;
};

// A tensor on the device; reads of the result are by fetch().
class GpuTensor {
 public:
  GpuTensor(const Device& gpu, const Tensor& host)
      : host_(host), memory_(gpu, host.data(), host.size()) {}
  View view() const { return {memory_.as<std::byte>(), host_.elem(), host_.rows(), host_.cols()}; }
  Tensor fetch() const {
    Tensor out(host_);
    memory_.download(out.data());
    return out;
  }

 private:
  Tensor host_;
  OnGpu memory_;
};

// Every byte 0xff: NaN in the run dtypes.
inline Tensor poisoned(const Elem& elem, int64_t rows, int64_t cols) {
  Tensor out(elem, rows, cols);
  std::fill_n(out.data(), out.size(), std::byte{0xff});
  return out;
}

// A quantized form on the device.
class GpuCodes {
 public:
  GpuCodes(const Device& gpu, const Codes& host)
      : host_(host),
        codes_(gpu, host.codes.data(), static_cast<int64_t>(host.codes.size())),
        scales_(gpu, host.scales.data(), static_cast<int64_t>(host.scales.size() * 4)),
        zeros_(gpu, host.zeros.data(), static_cast<int64_t>(host.zeros.size() * 4)),
        global_(gpu, &host.global, sizeof host.global) {}
  QuantizedActivation view() {
    QuantizedActivation out = host_.view();
    out.codes.data = codes_.as<uint8_t>();
    out.scales.data = scales_.as<float>();
    if (host_.spec.asymmetric) out.zero_points.data = zeros_.as<int32_t>();
    if (host_.spec.global_scale) out.global_scale = global_.as<float>();
    return out;
  }
  Codes fetch() const {
    Codes out(host_);
    codes_.download(out.codes.data());
    scales_.download(out.scales.data());
    zeros_.download(out.zeros.data());
    global_.download(&out.global);
    return out;
  }

 private:
  Codes host_;
  OnGpu codes_, scales_, zeros_, global_;
};

// Whether there is a GPU to test on; the tests are skipped elsewhere.
inline std::string missing_gpu() {
  try {
    kCudaOps.close(kCudaOps.open({}));
    return {};
  } catch (const Error& e) {
    return e.what();
  }
}

class GpuTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = missing_gpu(); !why.empty()) GTEST_SKIP() << why;
  }
};

}  // namespace mantissa
