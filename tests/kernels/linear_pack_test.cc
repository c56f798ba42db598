// Packed weights: round trip, exact sizes, any band, gathered rows, refusals.
#include <sstream>

#include "kernels/cpu/plan.h"
#include "linear_problem.h"

namespace mantissa::linear_test {
namespace {

const char* const kSchemes[] = {
    "bf16",
    "fp8",
    "ptpc_fp8",
    "fp8_weight_only",
    "int8",
    "int8_weight_only",
    "int8_weight_only:g64",
    "int4_weight_only:g32",
    "int4_weight_only:g128:asym",
    "int4_weight_only:channel",
    "int3_weight_only:g64:asym",
    "int8_weight_only:g64:asym",
    "int1_weight_only:g32",
    "int2_weight_only:g32",
    "int3_weight_only:g32",
    "int5_weight_only:g32",
    "int8:asym",
    "int4_int8:g32",
    "int4_int8:g32:asym",
    "int8_int1:g32",
    "int8_int3:g64",
    "int8_int5:g32:asym",
    "int8_int8:g32:asym",
    "int5_weight_only:g64:asym",
    "int6_weight_only:g128",
    "int7_weight_only:g32:asym",
    "fp8_block",
    "mxfp8_weight_only",
    "mxfp6_weight_only",
    "mxfp4_weight_only",
    "nvfp4_weight_only",
    "codebook2:g32",
    "codebook3:g64",
    "codebook4",
};
const Shape kShapes[] = {
    {0, 1, 1, "one code"},
    {0, 70, 37, "nothing a multiple of anything"},
    {0, 64, 256, "whole tiles"},
    {0, 17, 300, "a strip and a row; a short last group"},
};

TEST(LinearPack, RoundTrip) {
  CpuDevice device("auto");
  for (const char* scheme : kSchemes) {
    for (const Shape& shape : kShapes) {
      for (const int64_t band : {1, 5, 64}) {
        SCOPED_TRACE(text(scheme, ", bands of ", band, ": ", shape.why));
        Problem p(parse_scheme(scheme), kBF16, shape, {});
        const Weight w = p.pack(device.queue(), band);
        QuantRows back;
        cpu::unpack_rows(w, 0, shape.n, back, device.queue());
        EXPECT_EQ(*back.elem, *p.weight.elem);
        EXPECT_EQ(back.block, p.weight.block);
        EXPECT_EQ(back.codes, p.weight.codes);
        EXPECT_EQ(back.scales, p.weight.scales);
        EXPECT_EQ(back.zero_points, p.weight.zero_points);
        EXPECT_EQ(back.codebook, p.weight.codebook);
        EXPECT_EQ(back.global_scale, p.weight.global_scale);
        const int64_t last = shape.n - 1;
        cpu::unpack_rows(w, last, 1, back, device.queue());
        const auto row_bytes = p.weight.codes.size() / static_cast<size_t>(shape.n);
        EXPECT_TRUE(std::equal(back.codes.begin(), back.codes.end(),
                               p.weight.codes.end() - static_cast<int64_t>(row_bytes)));
      }
    }
  }
}

// codes + scales + padding: N to 16, K to a dword, sections to 64 bytes, 4 bytes a row for a scale
// in float32, 4 more for column sums.
TEST(LinearPack, PlannedBytesAreCodesAndScales) {
  CpuDevice device("auto");
  struct Size {
    const char* scheme;
    int64_t bytes;
  };
  const int64_t n = 128, k = 1024;
  const Size sizes[] = {
      {"bf16", n * k * 2},
      {"ptpc_fp8", n * k + n * 4},
      {"int8", n * k + n * 4},
      {"int8:asym", n * k + n * 8},
      {"int4_weight_only:g64", n * k / 2 + n * k / 64 * 2},
      {"int4_weight_only:g64:asym", n * k / 2 + n * k / 64 * 3},
      {"int4_int8:g32", n * k / 2 + n * k / 32 * 2},
      {"int4_int8:g32:asym", n * k / 2 + n * k / 32 * 3},
      {"int8_int5:g32", n * k / 8 * 5 + n * k / 32 * 2},
      {"int8_int1:g128", n * k / 8 + n * k / 128 * 3},
      {"int8_int8:g32", n * k + n * k / 32 * 4},
      {"int1_weight_only:g128", n * k / 8 + n * k / 128 * 3},
      {"int2_weight_only:g64", n * k / 4 + n * k / 64 * 2},
      {"int3_weight_only:g64", n * k * 3 / 8 + n * k / 64 * 2},
      {"int5_weight_only:g64", n * k * 5 / 8 + n * k / 64 * 2},
      {"int6_weight_only:g64", n * k * 6 / 8 + n * k / 64 * 2},
      {"int7_weight_only:g64:asym", n * k * 7 / 8 + n * k / 64 * 3},
      {"mxfp6_weight_only", n * k * 6 / 8 + n * k / 32},
      {"mxfp4_weight_only", n * k / 2 + n * k / 32},
      {"fp8_block", n * k + n * k / 128 * 4},
      {"codebook4:g128", n * k / 2 + n * k / 128 * 32},
  };
  for (const Size& size : sizes) {
    const Weight w = cpu::plan_weight({.name = "w",
                                       .scheme = parse_scheme(size.scheme),
                                       .run_dtype = &kBF16,
                                       .rows = n,
                                       .cols = k},
                                      device.queue());
    EXPECT_EQ(w.bytes, size.bytes) << size.scheme;
  }
}

TEST(LinearPack, EmbedGathersDequantizedRows) {
  CpuDevice device("auto");
  for (const char* scheme : kSchemes) {
    for (const Elem* run : {&kBF16, &kF16, &kF32}) {
      SCOPED_TRACE(text(scheme, " ", run->name));
      const Shape shape{0, 70, 300, "ragged"};
      Problem p(parse_scheme(scheme), *run, shape, {});
      const Weight w = p.pack(device.queue());
      const std::vector<int32_t> ids{69, 0, 17, 17, 63};
      Batch batch;
      batch.tokens = static_cast<int32_t>(ids.size());
      batch.token_ids = ids.data();
      Buffer out(*run, batch.tokens, shape.k);
      const float multiplier = 0.75f;
      cpu::embed(out.view(), w, multiplier, batch, device.queue());
      for (size_t t = 0; t < ids.size(); ++t) {
        for (int64_t k = 0; k < shape.k; ++k) {
          const double want = compare::rounded(*run, p.weight_value(ids[t], k) * multiplier);
          ASSERT_EQ(compare::value_at(out.view(), static_cast<int64_t>(t), k), want)
              << t << " " << k;
        }
      }
    }
  }
}

// Every row of the scheme table, with each of its options alone and each pair of them.
TEST(LinearPack, EverySchemeIsPlannedOnEveryInstructionSet) {
  int planned = 0;
  for (const SchemeRow& row : scheme_rows()) {
    std::vector<std::string> names{std::string(row.name)}, options;
    std::istringstream list{std::string(row.options)};
    for (std::string option; std::getline(list, option, ',');) options.push_back(option);
    for (const std::string& first : options) {
      names.push_back(text(row.name, ":", first));
      for (const std::string& second : options)
        if (first < second) names.push_back(text(row.name, ":", first, ":", second));
    }
    for (const std::string& name : names) {
      WeightRequest request{.name = name, .scheme = {}, .rows = 192, .cols = 512};
      try {
        request.scheme = parse_scheme(name);
      } catch (const Error&) {  // two options of one kind, or a recipe that lacks the other
        continue;
      }
      for (const cpu::IsaRow& isa : cpu::isa_rows()) {
        if (!cpu::missing(isa.isa).empty()) continue;
        CpuDevice device{std::string(isa.name)};
        for (const Elem* run : {&kBF16, &kF16, &kF32}) {
          request.run_dtype = run;
          EXPECT_NO_THROW(cpu::plan_weight(request, device.queue())) << name << " " << isa.name;
          ++planned;
        }
      }
    }
  }
  EXPECT_GT(planned, 1000);
}

// Every code of every element of up to 8 bits, in every channel and input of a K block.
TEST(LinearPack, EveryCodeOfEveryElementComesBack) {
  CpuDevice device("auto");
  for (const Elem* elem : all_elems()) {
    if (elem->bits() > 8 || *elem == kE8M0) continue;
    WeightRequest request{.name = "w", .scheme = {}, .run_dtype = &kBF16, .rows = 16, .cols = 512};
    request.scheme.weight = {.elem = elem, .block = per_row(), .when = When::kAtLoad};
    for (const bool integers : {false, true}) {
      if (integers && elem->is_float()) continue;
      if (integers)
        request.scheme.activation = {
            .elem = &int_elem(8), .block = per_row(), .when = When::kPerCall};
      Weight w = cpu::plan_weight(request, device.queue());
      std::vector<std::byte> memory(static_cast<size_t>(w.bytes) + 64);
      w.data = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
      QuantRows q, back;
      q.elem = elem;
      q.block = per_row();
      q.rows = request.rows;
      q.cols = request.cols;
      for (int64_t i = 0; i < q.rows * q.cols; ++i)
        q.codes.push_back(static_cast<uint8_t>((i + i / q.cols) & code_mask(*elem)));
      q.scales.assign(static_cast<size_t>(q.rows), 1.0f);
      cpu::pack_rows(w, 0, q, device.queue());
      cpu::unpack_rows(w, 0, q.rows, back, device.queue());
      EXPECT_EQ(back.codes, q.codes) << elem->name << (integers ? " beside int8" : "");
    }
  }
}

TEST(LinearPack, RefusalsNameTheWeightAndTheReasons) {
  CpuDevice device("auto");
  struct Refused {
    const char* scheme;
    Block weight, activation;
    const char* reason;
  };
  const Refused cases[] = {
      {"int5_weight_only", per_group(48), {}, "groups of 48 of int5 are no multiple of 32"},
      {"mxfp8", per_group(32), per_group(16), "activation groups that are the weight's"},
  };
  for (const Refused& c : cases) {
    WeightRequest request{.name = "layers.0.qkv",
                          .scheme = parse_scheme(c.scheme),
                          .run_dtype = &kBF16,
                          .rows = 64,
                          .cols = 256};
    request.scheme.weight.block = c.weight;
    if (request.scheme.activation.quantized()) request.scheme.activation.block = c.activation;
    try {
      cpu::plan_weight(request, device.queue());
      ADD_FAILURE() << c.scheme << " was planned";
    } catch (const Error& e) {
      EXPECT_NE(e.found.find("layers.0.qkv"), std::string::npos);
      EXPECT_NE(e.found.find(c.scheme), std::string::npos);
      EXPECT_NE(e.found.find(c.reason), std::string::npos) << e.found;
    }
  }
}

TEST(LinearPack, ForcedInstructionSetsAreForced) {
  EXPECT_THROW(cpu::resolve_isa("sse9"), Error);
  EXPECT_EQ(cpu::resolve_isa("portable"), cpu::Isa::kPortable);
  for (const cpu::IsaRow& row : cpu::isa_rows()) {
    if (cpu::missing(row.isa).empty()) {
      EXPECT_EQ(cpu::resolve_isa(row.name), row.isa);
    } else {
      EXPECT_THROW(cpu::resolve_isa(row.name), Error);
    }
  }
}

// Every kernel of the table is one of an instruction set, with a name after the grammar.
TEST(LinearPack, KernelNamesEndInTheirInstructionSet) {
  for (const cpu::CpuLinear& kernel : cpu::linear_table()) {
    const std::string end = text("__", cpu::name(kernel.isa));
    EXPECT_TRUE(kernel.base.name.ends_with(end)) << kernel.base.name;
    EXPECT_TRUE(kernel.base.name.starts_with("linear_")) << kernel.base.name;
  }
}

}  // namespace
}  // namespace mantissa::linear_test
