// Weights that the GPU makes from raw checkpoint bytes equal, byte for byte, those that the host
// quantizes and packs: every scheme and recipe, ragged shapes, fused parts, damaged values.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/convert.h"
#include "base/list.h"
#include "gpu.h"
#include "quant/scheme.h"

namespace mantissa {
namespace {

struct Shape {
  int64_t n, k;
  const char* why;
};
constexpr Shape kShapes[] = {
    {128, 256, "whole tiles and groups"},
    {300, 520, "short tiles, a short group"},
    {17, 100, "less than a group"},
    {5, 4096, "long rows"},
    {1, 8, "one row"},
    {131, 1, "one column"},
    {260, 2050, "rows that are no multiple of 16 bytes"},
};

// A row of the table with its defaults, and with each of its options alone.
std::vector<std::string> schemes_of(const SchemeRow& row) {
  const std::string name(row.name);
  std::vector<std::string> names = {name};
  for (const std::string_view option : split_list(row.options)) {
    try {
      names.push_back(parse_scheme(name + ":" + std::string(option)).name);
    } catch (const Error&) {  // a recipe that this row's default does not have
    }
  }
  return names;
}

// Values as a checkpoint stores them. Every seventh row is zeros; some values are subnormal, huge,
// NaN or infinite.
Tensor stored_values(const Elem& elem, int64_t rows, int64_t cols, uint32_t seed, bool damaged) {
  Tensor out(elem, rows, cols);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.05f);
  std::uniform_int_distribution<int> pick(0, 400);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kOdd[] = {1e-40f, -1e-40f, 6e-8f, -0.0f, 3e38f, -3e38f, kInf, -kInf, kNan, 40.0f};
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (float& v : row) {
      v = r % 7 == 3 ? 0.0f : normal(random);
      const int odd = pick(random);
      if (damaged && r % 7 != 3 && odd < static_cast<int>(std::size(kOdd))) v = kOdd[odd];
    }
    from_f32({row.data(), 1, cols}, out.view().row_range(r, 1));
  }
  return out;
}

// Device memory of a weight, poisoned.
class WeightMemory {
 public:
  WeightMemory(const Device& gpu, const Weight& planned)
      : poison_(static_cast<size_t>(planned.bytes), std::byte{0xa5}),
        memory_(gpu, poison_.data(), planned.bytes),
        weight(planned) {
    weight.data = memory_.as<std::byte>();
  }
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> out(poison_.size());
    memory_.download(out.data());
    return out;
  }

 private:
  std::vector<std::byte> poison_;
  OnGpu memory_;

 public:
  Weight weight;
};

struct HostPart {
  Tensor values;
  int64_t row0;
};

std::vector<float> rounded_values(const HostPart& part, const Elem& run) {
  std::vector<float> out(static_cast<size_t>(part.values.rows() * part.values.cols()));
  Tensor copy(part.values);
  to_f32(copy.view(), {out.data(), copy.rows(), copy.cols()});
  for (float& v : out) v = round_to(run, v);
  return out;
}

QuantReport by_host(const Device& gpu, const Weight& w, const std::vector<HostPart>& parts) {
  const WeightRequest& r = w.request;
  WeightQuantizer quantizer(r.scheme.weight, r.rows, r.cols, *r.run_dtype);
  QuantReport report;
  for (const bool observe : {true, false}) {
    if (observe && !quantizer.needs_observe()) continue;
    for (const HostPart& part : parts) {
      std::vector<float> values = rounded_values(part, *r.run_dtype);
      const Matrix<const float> band(values.data(), part.values.rows(), r.cols);
      if (observe) {
        quantizer.observe(band);
        continue;
      }
      QuantRows rows;
      report.add(quantizer.quantize(part.row0, band, rows));
      gpu.ops.pack_rows(w, part.row0, rows, gpu.queue());
    }
  }
  gpu.ops.finish_weight(w, gpu.queue());
  return report;
}

std::vector<RawPart> raw_parts(const std::vector<HostPart>& parts) {
  std::vector<RawPart> out;
  for (const HostPart& part : parts) {
    out.push_back({.row0 = part.row0, .rows = part.values.rows(), .elem = &part.values.elem()});
  }
  return out;
}

// By two workers in turn, in pieces that end within rows.
void send(const LoadOps& ops, LoadStream* stream, const Tensor& from, std::byte* to) {
  constexpr int64_t kPiece = 4999;
  int worker = 0;
  for (int64_t at = 0; at < from.size(); at += kPiece, worker ^= 1) {
    const int64_t bytes = std::min(kPiece, from.size() - at);
    std::memcpy(ops.stage(stream, worker), static_cast<const std::byte*>(from.data()) + at,
                static_cast<size_t>(bytes));
    ops.send(stream, worker, to + at, bytes);
  }
}

QuantReport by_gpu(const Device& gpu, const Weight& w, const std::vector<HostPart>& parts) {
  const LoadOps& ops = *gpu.ops.load;
  std::vector<RawPart> raw = raw_parts(parts);
  LoadStream* stream =
      ops.open({.workers = 2, .raw_bytes = ops.raw_bytes(w, raw), .weights = 1}, gpu.queue());
  ops.begin(stream, w, raw);
  for (size_t i = 0; i < parts.size(); ++i) send(ops, stream, parts[i].values, raw[i].device);
  ops.make(stream, w, raw);
  const LoadStreamResult result = ops.finish(stream);
  ops.close(stream);
  return result.reports.at(0);
}

class LoadCuda : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped()) gpu_.emplace(kCudaOps, DeviceConfig{});
  }
  // The same weight both ways; parts may differ in how they are stored.
  void compare(const std::string& name, const Elem& run, const Shape& s,
               const std::vector<HostPart>& parts) {
    SCOPED_TRACE(text(name, ", ", run.name, " from ", parts[0].values.elem().name, ", ", s.n, " x ",
                      s.k, ": ", s.why));
    const Weight planned = gpu_->ops.plan_weight(
        {.name = "test", .scheme = parse_scheme(name), .run_dtype = &run, .rows = s.n, .cols = s.k},
        gpu_->queue());
    if (!gpu_->ops.load->refuses(planned).empty()) return;
    ++compared_;
    const WeightMemory host(*gpu_, planned), device(*gpu_, planned);
    const QuantReport want = by_host(*gpu_, host.weight, parts);
    QuantReport got;
    ASSERT_NO_THROW(got = by_gpu(*gpu_, device.weight, parts));
    EXPECT_EQ(device.bytes(), host.bytes());
    EXPECT_EQ(got.nan, want.nan);
    EXPECT_EQ(got.inf, want.inf);
    EXPECT_EQ(got.saturated, want.saturated);
    EXPECT_EQ(got.zero_blocks, want.zero_blocks);
  }
  std::vector<HostPart> one_part(const Elem& stored, const Shape& s, bool damaged) {
    return {{stored_values(stored, s.n, s.k, 5, damaged), 0}};
  }

  std::optional<Device> gpu_;
  int compared_ = 0;
};

// plan_weight refuses some activations; every weight format stands in some scheme that it takes.
bool is_planned(const Device& gpu, const std::string& name) {
  try {
    gpu.ops.plan_weight(
        {.name = "test", .scheme = parse_scheme(name), .run_dtype = &kBF16, .rows = 16, .cols = 16},
        gpu.queue());
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::vector<std::string> scheme_names() {
  std::vector<std::string> names;
  for (const SchemeRow& row : scheme_rows()) names.emplace_back(row.name);
  return names;
}
class LoadCudaScheme : public LoadCuda, public testing::WithParamInterface<std::string> {};

TEST_P(LoadCudaScheme, EveryOptionAndShape) {
  const auto row = std::ranges::find(scheme_rows(), GetParam(), &SchemeRow::name);
  for (const std::string& name : schemes_of(*row)) {
    if (!is_planned(*gpu_, name)) continue;
    for (const Shape& s : kShapes) {
      compare(name, kBF16, s, one_part(kBF16, s, true));
      if (HasFailure()) return;
    }
    compare(name, kBF16, kShapes[1], one_part(kBF16, kShapes[1], false));
  }
  if (row->weight.codebook) {
    EXPECT_EQ(compared_, 0);
  } else if (is_planned(*gpu_, GetParam())) {
    EXPECT_GE(compared_, std::ssize(kShapes));
  }
}
INSTANTIATE_TEST_SUITE_P(Rows, LoadCudaScheme, testing::ValuesIn(scheme_names()),
                         [](const auto& name) { return name.param; });

TEST_F(LoadCuda, EverySourceAndRunDtype) {
  for (const char* name :
       {"bf16", "fp8", "ptpc_fp8:recipe=ct", "fp8:recipe=autofp8", "int8",
        "int8_weight_only:asym:recipe=ct", "int4_weight_only:asym", "int4_weight_only:recipe=ct",
        "mxfp4_weight_only", "nvfp4_weight_only", "nvfp4_weight_only:recipe=ct"}) {
    for (const Elem* stored : {&kF32, &kF16, &kBF16}) {
      for (const Elem* run : {&kF32, &kF16, &kBF16}) {
        for (const Shape& s : {kShapes[1], kShapes[2], kShapes[6]}) {
          compare(name, *run, s, one_part(*stored, s, true));
        }
      }
    }
    if (HasFailure()) return;
  }
}

TEST_F(LoadCuda, FusedPartsOfDifferentDtypes) {
  for (const char* name :
       {"bf16", "fp8", "ptpc_fp8", "int4_weight_only:g64", "nvfp4_weight_only"}) {
    const Shape s{40 + 17 + 3, 200, "three parts"};
    compare(name, kBF16, s,
            {{stored_values(kBF16, 40, s.k, 1, true), 0},
             {stored_values(kF32, 17, s.k, 2, true), 40},
             {stored_values(kF16, 3, s.k, 3, true), 57}});
  }
}

TEST_F(LoadCuda, ATensorOfZeros) {
  for (const char* name : {"fp8", "ptpc_fp8", "nvfp4_weight_only", "mxfp8_weight_only", "int8"}) {
    const Shape s{33, 72, "zeros"};
    Tensor zeros(kBF16, s.n, s.k);
    std::memset(zeros.data(), 0, static_cast<size_t>(zeros.size()));
    compare(name, kBF16, s, {{zeros, 0}});
  }
}

TEST_F(LoadCuda, DummyValues) {
  const Shape s{70, 130, "dummy"};
  for (const char* name : {"bf16", "fp8", "int4_weight_only", "mxfp8_weight_only"}) {
    Tensor values(kF32, s.n, s.k);
    for (int64_t i = 0; i < s.n * s.k; ++i) {
      reinterpret_cast<float*>(values.data())[i] = dummy_value(99, static_cast<uint64_t>(i));
    }
    const Weight planned = gpu_->ops.plan_weight({.name = "test",
                                                  .scheme = parse_scheme(name),
                                                  .run_dtype = &kBF16,
                                                  .rows = s.n,
                                                  .cols = s.k},
                                                 gpu_->queue());
    const WeightMemory host(*gpu_, planned), device(*gpu_, planned);
    by_host(*gpu_, host.weight, {{values, 0}});
    const LoadOps& ops = *gpu_->ops.load;
    std::vector<RawPart> raw = {{.row0 = 0, .rows = s.n, .stream = 99}};
    EXPECT_EQ(ops.raw_bytes(planned, raw), 0);
    LoadStream* stream = ops.open({.weights = 1}, gpu_->queue());
    ops.begin(stream, device.weight, raw);
    ops.make(stream, device.weight, raw);
    ops.finish(stream);
    ops.close(stream);
    EXPECT_EQ(device.bytes(), host.bytes()) << name;
  }
}

// Codes that a checkpoint has: through staging memory, then pack_rows for the rest.
TEST_F(LoadCuda, StoredCodes) {
  const LoadOps& ops = *gpu_->ops.load;
  for (const char* name : {"ptpc_fp8", "fp8", "fp8_block", "int8", "int4_weight_only"}) {
    const Shape s{256, 4096, "stored"};
    const Weight planned = gpu_->ops.plan_weight({.name = "test",
                                                  .scheme = parse_scheme(name),
                                                  .run_dtype = &kBF16,
                                                  .rows = s.n,
                                                  .cols = s.k},
                                                 gpu_->queue());
    const WeightMemory host(*gpu_, planned), device(*gpu_, planned);
    const std::vector<HostPart> parts = one_part(kBF16, s, false);
    by_host(*gpu_, host.weight, parts);
    WeightQuantizer quantizer(planned.request.scheme.weight, s.n, s.k, kBF16);
    std::vector<float> values = rounded_values(parts[0], kBF16);
    const Matrix<const float> band(values.data(), s.n, s.k);
    if (quantizer.needs_observe()) quantizer.observe(band);
    QuantRows rows;
    quantizer.quantize(0, band, rows);
    LoadStream* stream = ops.open({.weights = 1}, gpu_->queue());
    std::byte* to = ops.codes_at(device.weight, 0);
    EXPECT_EQ(to == nullptr, planned.request.scheme.weight.elem->bits() < 8) << name;
    if (to != nullptr) {
      std::memcpy(ops.stage(stream, 0), rows.codes.data(), rows.codes.size());
      ops.send(stream, 0, to, static_cast<int64_t>(rows.codes.size()));
      rows.codes.clear();
    }
    gpu_->ops.pack_rows(device.weight, 0, rows, gpu_->queue());
    gpu_->ops.finish_weight(device.weight, gpu_->queue());
    ops.finish(stream);
    ops.close(stream);
    EXPECT_EQ(device.bytes(), host.bytes()) << name;
  }
}

}  // namespace
}  // namespace mantissa
