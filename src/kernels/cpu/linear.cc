// linear: brings x into the kernel's format and spreads the output's tiles over the threads.
#include <algorithm>
#include <cstring>
#include <span>

#include "kernels/cpu/layout.h"
#include "kernels/cpu/parts.h"
#include "kernels/cpu/plan.h"
#include "kernels/cpu/queue.h"

namespace mantissa::cpu {
namespace {

const LinearIsa& kernels_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kLinearAvx512;
  if (isa == Isa::kAvx2) return kLinearAvx2;
#endif
  check(isa == Isa::kPortable, "cpu: an instruction set of this architecture");
  return kLinearPortable;
}

// Of many rows in bf16 arithmetic, or none.
const BlockIsa* block_kernels_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return &kBlocksAvx512;
#endif
  return nullptr;
}

const IntIsa& integer_kernels_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return kIntAvx512;
  if (isa == Isa::kAvx2) return kIntAvx2;
#endif
  check(isa == Isa::kPortable, "cpu: an instruction set of this architecture");
  return kIntPortable;
}

// x as the kernel reads it: [M, width] with zeros beyond K.
struct PreparedInput {
  const void* data;
  int64_t stride;
};

// Float codes or run-dtype values of a row to T.
struct RowConverter {
  const LinearIsa& isa;
  CodeRow codes{};               // of float codes: what all rows share
  Matrix<const float> folded{};  // scales that values are multiplied by, exactly: [M, groups]
  const Elem* elem = nullptr;    // of run-dtype values

  void operator()(int64_t row, const std::byte* from, float* to, int64_t count) const {
    const auto* halves = reinterpret_cast<const uint16_t*>(from);
    if (codes.table != nullptr) {
      isa.decode_f32(row_of(row, from, count), to);
    } else if (*elem == kF32) {
      std::memcpy(to, from, static_cast<size_t>(count) * 4);
    } else if (*elem == kBF16) {
      for (int64_t k = 0; k < count; ++k) to[k] = f32_from_bf16(halves[k]);
    } else {
      for (int64_t k = 0; k < count; ++k) to[k] = f32_from_f16(halves[k]);
    }
  }
  void operator()(int64_t row, const std::byte* from, uint16_t* to, int64_t count) const {
    if (codes.table != nullptr) {
      isa.decode_bf16(row_of(row, from, count), to);
    } else {
      std::memcpy(to, from, static_cast<size_t>(count) * 2);
    }
  }
  // Codes of inputs [begin, begin + count) of a row; begin: of a group.
  void decode(int64_t row, const std::byte* from, int64_t begin, uint16_t* to,
              int64_t count) const {
    CodeRow part = row_of(row, from + begin, count);
    if (part.scales != nullptr) part.scales += begin / part.group;
    isa.decode_bf16(part, to);
  }

 private:
  CodeRow row_of(int64_t row, const std::byte* from, int64_t count) const {
    CodeRow out = codes;
    out.codes = reinterpret_cast<const uint8_t*>(from);
    out.count = count;
    if (folded.data != nullptr) out.scales = folded.row(row).data();
    return out;
  }
};

struct InputRows {
  const std::byte* data;
  int64_t row_bytes, rows, cols;
};

constexpr int64_t kRowsAtOnce = 8;

template <class T>
PreparedInput convert(const InputRows& x, const RowConverter& converter, int64_t width,
                      CpuQueue& queue) {
  T* to = queue.scratch(ScratchUse::kLinearInput).get_as<T>(x.rows * width);
  queue.pool.parallel_for(x.rows, kRowsAtOnce, [&](int, int64_t begin, int64_t end) {
    for (int64_t m = begin; m < end; ++m) {
      converter(m, x.data + m * x.row_bytes, to + m * width, x.cols);
      std::fill(to + m * width + x.cols, to + (m + 1) * width, T{});
    }
  });
  return {to, width};
}

const QuantizedActivation& codes_for(const Activation& x, const Weight& w) {
  const QuantizedActivation* found = x.find(w.request.scheme.activation);
  check(found != nullptr, "cpu: linear is given the codes its weight reads");
  return *found;
}

// Whether x is given to the kernel with its group scales multiplied. NVFP4: two bits of mantissa
// times an e4m3 scale are a bf16. MX: all sums are 2^e times those of the codes, bit for bit, as
// long as no float leaves the normal range. Codes have up to 8 bits, whose products are multiples
// of 2^-32 (e5m2's subnormals, squared) and at most 2^32. |e| <= 40, as the weight's scale may be
// multiplied in too (linear_bf16.inc): 32 * 2^32 * 2^80 < 2^127, 2^-32 * 2^-80 > 2^-126. Groups of
// zeros may have any scale.
bool folds_scales(const QuantizedActivation& x) {
  if (has_folded_scales(x.spec)) return true;
  if (*x.spec.scale != kE8M0) return false;
  constexpr float kLeast = 0x1p-40f, kMost = 0x1p40f;
  for (int64_t m = 0; m < x.scales.rows; ++m) {
    const std::span<const float> scales = x.scales.row(m);
    const auto outside = [](float s) { return !(s >= kLeast && s <= kMost); };
    for (size_t g = 0; g < scales.size(); ++g) {
      if (!outside(scales[g])) continue;
      const auto group = static_cast<size_t>(x.spec.block.cols);
      const std::span<const uint8_t> codes =
          std::span<const uint8_t>(x.codes.row(m)).subspan(g * group);
      const uint32_t magnitude = code_mask(*x.spec.elem) >> 1;
      if (std::ranges::any_of(codes.first(std::min(group, codes.size())),
                              [&](uint8_t c) { return (c & magnitude) != 0; }))
        return false;
    }
  }
  return true;
}

struct InputForm {
  RowConverter converter;
  InputRows rows;
};
// x as it is given, and how it becomes what the kernel reads.
InputForm input_form(const Activation& x, const Weight& w, const Planned& plan) {
  const int64_t cols = plan.layout.cols;
  RowConverter converter{kernels_of(plan.kernel.isa)};
  if (plan.kernel.input == Input::kRunDtype) {
    converter.elem = x.high.elem;
    return {converter, {x.high.data, x.high.stride * x.high.elem_bytes(), x.high.rows, cols}};
  }
  const QuantizedActivation& form = codes_for(x, w);
  converter.codes.table = &decode_table(*form.spec.elem, Indices::kCodes);
  converter.codes.group = form.spec.block.cols;
  if (folds_scales(form)) converter.folded = form.scales;
  const Matrix<uint8_t>& codes = form.codes;
  return {converter,
          {reinterpret_cast<const std::byte*>(codes.data), codes.stride, codes.rows, cols}};
}

PreparedInput prepare(const InputForm& form, const Planned& plan, CpuQueue& queue) {
  const int64_t width = plan.layout.k_blocks * plan.layout.inputs;
  const bool bf16 = plan.kernel.arithmetic == Arithmetic::kBf16;
  const Elem* elem = form.converter.elem;
  if (elem != nullptr && *elem == (bf16 ? kBF16 : kF32) && width == form.rows.cols)
    return {form.rows.data, form.rows.row_bytes / (bf16 ? 2 : 4)};
  return bf16 ? convert<uint16_t>(form.rows, form.converter, width, queue)
              : convert<float>(form.rows, form.converter, width, queue);
}

// Inputs of a row that are decoded at once, whole groups.
int64_t block_inputs_at_once(const RowConverter& converter, int64_t width) {
  constexpr int64_t kInputsMost = 1024;
  if (converter.folded.data == nullptr) return std::min(width, kInputsMost);
  const int64_t group = converter.codes.group;
  return std::min(width, std::max<int64_t>(1, kInputsMost / group) * group);
}

// x in blocks of rows (BlockIsa).
PreparedInput prepare_blocks(const InputForm& form, const Planned& plan, const RowBlocks& in,
                             CpuQueue& queue) {
  const BlockIsa& isa = *block_kernels_of(plan.kernel.isa);
  const int64_t width = plan.layout.k_blocks * plan.layout.inputs, rows = form.rows.rows,
                cols = form.rows.cols;
  const int64_t blocks = (rows + in.rows - 1) / in.rows;
  uint16_t* to = queue.scratch(ScratchUse::kLinearInput).get_as<uint16_t>(blocks * in.rows * width);
  const bool codes = form.converter.codes.table != nullptr;
  const int64_t step = block_inputs_at_once(form.converter, width),
                steps = (width + step - 1) / step;
  const int64_t decoded = codes ? queue.pool.threads() * kBlockRowsMost * step : 0;
  uint16_t* scratch = queue.scratch(ScratchUse::kLinearWorkers).get_as<uint16_t>(decoded);
  queue.pool.parallel_for(blocks * steps, 1, [&](int worker, int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t m = piece / steps * in.rows, k = piece % steps * step;
      BlockStage s;
      s.rows = std::min(in.rows, rows - m);
      s.padded = padded_rows(s.rows, in.step);
      s.width = std::min(step, width - k);
      s.cols = std::clamp<int64_t>(cols - k, 0, s.width);
      s.to = to + m * width + k * s.padded;
      const std::byte* from = form.rows.data + m * form.rows.row_bytes;
      if (codes) {
        uint16_t* values = scratch + worker * kBlockRowsMost * step;
        for (int64_t r = 0; r < s.rows; ++r)
          form.converter.decode(m + r, from + r * form.rows.row_bytes, k, values + r * step,
                                s.cols);
        s.from = values;
        s.stride = step;
      } else {
        s.from = reinterpret_cast<const uint16_t*>(from) + k;
        s.stride = form.rows.row_bytes / 2;
      }
      isa.stage(s);
    }
  });
  return {to, width};
}

// x for the kernel that is returned.
LinearRun prepare_floats(const InputForm& form, const Planned& plan, CpuQueue& queue,
                         LinearArgs& args) {
  const LinearIsa& isa = kernels_of(plan.kernel.isa);
  const bool bf16 = plan.kernel.arithmetic == Arithmetic::kBf16;
  const BlockIsa* blocks = bf16 ? block_kernels_of(plan.kernel.isa) : nullptr;
  const RowBlocks in = blocks != nullptr ? blocks->blocks(args, form.rows.rows) : RowBlocks{};
  args.x_block = in.rows;
  args.x_row_step = in.step;
  const PreparedInput input =
      in.rows > 0 ? prepare_blocks(form, plan, in, queue) : prepare(form, plan, queue);
  args.x = input.data;
  args.x_stride = input.stride;
  return in.rows > 0 ? blocks->run : bf16 ? isa.bf16 : isa.f32;
}

// int8 codes, padded, and their sums, for the kernel that is returned. Zero points of x stay where
// they are.
LinearRun prepare_integers(const QuantizedActivation& x, const Planned& plan, CpuQueue& queue,
                           LinearArgs& args) {
  const PackedLayout& l = plan.layout;
  const int64_t width = l.k_blocks * l.inputs, rows = x.codes.rows;
  const IntIsa& isa = integer_kernels_of(plan.kernel.isa);
  IntStage s;
  s.wide = l.bits == 8 && isa.wide_bytes;
  const bool as_it_is = !s.wide && width == l.cols;
  s.from = x.codes.data;
  s.from_stride = x.codes.stride;
  s.cols = l.cols;
  s.width = width;
  if (!as_it_is)
    s.to = queue.scratch(ScratchUse::kLinearInput).get(rows * width * (s.wide ? 2 : 1));
  s.sums = queue.scratch(ScratchUse::kLinearSums).get_as<int32_t>(rows * l.parts);
  s.parts = l.parts;
  s.part = l.grouped ? l.group : kIntChunk;
  s.factor = l.asymmetric ? -1 : -l.zero_shift;
  constexpr int64_t kGrainValues = 32768;
  queue.pool.parallel_for(rows, std::max<int64_t>(1, kGrainValues / width),
                          [&](int, int64_t begin, int64_t end) { isa.stage(s, begin, end); });
  args.x = s.to;
  if (as_it_is) args.x = x.codes.data;
  args.x_stride = as_it_is ? x.codes.stride : width;
  args.x_sums = s.sums;
  args.parts = l.parts;
  if (x.spec.asymmetric) {
    args.x_zeros = x.zero_points.data;
    args.x_zero_stride = x.spec.block.rows == 1 ? x.zero_points.stride : 0;
  }
  return isa.run;
}

void describe_weight(const Weight& w, const PackedLayout& l, LinearArgs& args) {
  const auto* data = reinterpret_cast<const uint8_t*>(w.data);
  const Spec& spec = w.request.scheme.weight;
  args.codes = l.codes;
  args.order = l.order;
  args.bits = l.bits;
  args.inputs = l.inputs;
  args.block_bytes = l.block_bytes;
  args.weight = data + l.codes_at;
  args.n = l.rows;
  args.k_blocks = l.k_blocks;
  args.strips = l.strips;
  if (l.grouped) {
    args.scale_form = l.scale_form;
    args.group_scales = l.scaled ? data + l.scales_at : nullptr;
    args.books = l.book_bytes > 0 ? data + l.books_at : nullptr;
    args.book_bytes = l.book_bytes;
    args.group_blocks = l.group / l.inputs;
    args.groups = l.groups;
  }
  if (l.asymmetric) args.group_zeros = data + l.zeros_at;
  if (l.row_scales_at >= 0)
    args.row_scales = reinterpret_cast<const float*>(data + l.row_scales_at);
  if (l.column_sums) args.column_sums = data + l.sums_at;
  if (!l.integers && l.codes == Codes::kPacked) args.table = &decode_table(*spec.elem, l.indices());
  if (l.grouped && l.scale_form == Form::kE4m3)
    args.scale_table = &decode_table(kE4M3, Indices::kCodes);
}

void describe_output(View out, const Epilogue& e, LinearArgs& args) {
  args.bias = e.bias;
  if (!e.residual.empty()) {
    args.residual = e.residual.data;
    args.residual_stride = e.residual.stride;
    args.residual_form = form_of(*e.residual.elem);
  }
  args.out = out.data;
  args.out_stride = out.stride;
  args.out_form = form_of(*out.elem);
}

void describe_scales(const QuantizedActivation& codes, const PackedLayout& l, LinearArgs& args) {
  if (folds_scales(codes)) {
    if (codes.spec.global_scale) args.x_scales = codes.global_scale;
  } else if (l.grouped && codes.scales.cols > 1) {
    args.x_group_scales = codes.scales.data;
    args.x_group_stride = codes.scales.stride;
  } else {
    args.x_scales = codes.scales.data;
    args.x_scale_stride = codes.spec.block.rows == 1 ? codes.scales.stride : 0;
  }
}

}  // namespace

void linear(View out, const Activation& x, const Weight& w, const Epilogue& e, Queue* queue) {
  CpuQueue& q = cpu_queue(queue);
  const Planned plan = plan_of(w);
  check(plan.kernel.isa == q.isa, "cpu: a weight planned by this queue");
  const int64_t rows = out.rows, tiles = (plan.layout.strips + kTileStrips - 1) / kTileStrips;
  check(out.cols == plan.layout.rows, "cpu: linear's output is [M, N]");
  if (rows == 0 || tiles == 0) return;

  LinearArgs args;
  describe_weight(w, plan.layout, args);
  describe_output(out, e, args);
  const bool integers = plan.kernel.arithmetic == Arithmetic::kInt8;
  if (plan.kernel.input != Input::kRunDtype) describe_scales(codes_for(x, w), plan.layout, args);
  const LinearRun run = integers ? prepare_integers(codes_for(x, w), plan, q, args)
                                 : prepare_floats(input_form(x, w, plan), plan, q, args);

  const int threads = q.pool.threads();
  std::byte* scratch = q.scratch(ScratchUse::kLinearWorkers).get(threads * kLinearScratchBytes);
  // Tiles one by one, so that a thread whose core is shared holds up nobody; rows are cut only
  // where the tiles are too few for that. Each thread's tiles follow each other in memory.
  constexpr int64_t kPiecesPerThread = 8, kRowsLeast = 48;
  const int64_t wanted = threads == 1 ? 1 : threads * kPiecesPerThread;
  const int64_t cuts =
      std::clamp<int64_t>(rows / kRowsLeast, 1, std::max<int64_t>(1, wanted / 2 / tiles));
  int64_t row_step = (rows + cuts - 1) / cuts;
  if (args.x_block > 0) row_step = (row_step + args.x_block - 1) / args.x_block * args.x_block;
  const int64_t row_pieces = (rows + row_step - 1) / row_step;  // none of them empty
  q.pool.parallel_parts(tiles * row_pieces, 1, [&](int worker, int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t t = piece / row_pieces, m = piece % row_pieces * row_step;
      run(args, {t, t + 1, m, std::min(m + row_step, rows)},
          scratch + worker * kLinearScratchBytes);
    }
  });
}

// ScratchUse::kLinearInput, kLinearSums and kLinearWorkers.
int64_t linear_scratch_bytes(const PassLimits& limits, Queue* queue) {
  const CpuQueue& q = cpu_queue(queue);
  constexpr int64_t kBlockInputsMax = 64;  // of a layout: rows are padded to whole blocks
  const bool bf16 = q.isa == Isa::kAvx512 && *limits.run_dtype == kBF16;  // f16 is widened
  const int64_t width = (limits.cols + kBlockInputsMax - 1) / kBlockInputsMax * kBlockInputsMax;
  constexpr int64_t kGroupLeast = 16;  // of checkpoints (io/quantization_config.cc)
  return (limits.tokens + kBlockRowsMost) * width * (bf16 ? 2 : 4) +
         limits.tokens * width / kGroupLeast * 4 + q.pool.threads() * kLinearScratchBytes;
}

}  // namespace mantissa::cpu
