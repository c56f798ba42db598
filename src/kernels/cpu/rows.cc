// Row-wise operations of the CPU backend: norm, gate, gather, and the quantized forms of any
// result. A scale's arithmetic is the host quantizer's own (quant/recipe.h); the instruction set's
// code finds ranges and makes codes. Formats it does not make go through quantize_activation().
#include "kernels/cpu/rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/convert.h"
#include "kernels/cpu/parts.h"
#include "kernels/cpu/rows_abi.h"
#include "quant/recipe.h"

namespace mantissa::cpu {
namespace {

// Values below which another thread costs more than it brings.
constexpr int64_t kGrainValues = 32768;
constexpr int64_t kGrainGateValues = 8192;  // an exponential each

int64_t grain_rows(int64_t values, int64_t cols) {
  return std::max<int64_t>(1, values / std::max<int64_t>(1, cols));
}

const RowsKernels& kernels_of(const CpuQueue& queue) {
#if defined(__x86_64__)
  if (queue.isa == Isa::kAvx512) return kRowsAvx512;
  if (queue.isa == Isa::kAvx2) return kRowsAvx2;
#endif
  check(queue.isa == Isa::kPortable, "cpu: an instruction set of this architecture");
  return kRowsPortable;
}

Format run_format(const Elem& elem) {
  return elem == kBF16 ? Format::kBf16 : elem == kF16 ? Format::kF16 : Format::kF32;
}

struct CoderRow {
  const Elem* elem;
  Coder coder;
};
constexpr CoderRow kCoders[] = {{&kE4M3, Coder::kE4m3},
                                {&kE5M2, Coder::kE5m2},
                                {&kE3M2, Coder::kE3m2},
                                {&kE2M3, Coder::kE2m3},
                                {&kE2M1, Coder::kE2m1}};

// Makes the codes of a spec from values of a run dtype.
class CodeMaker {
 public:
  CodeMaker(const Spec& spec, const RecipeRow& recipe, Format run, const RowsKernels& kernels)
      : elem_(*spec.elem), kernels_(kernels) {
    made_ = !elem_.is_float();
    for (const CoderRow& row : kCoders) {
      if (!(*row.elem == elem_)) continue;
      args_.coder = row.coder;
      made_ = true;
    }
    args_.run = run;
    args_.divide = recipe.apply == Apply::kDivide;
    args_.mask = (1u << elem_.bits()) - 1;
  }
  // Whether the instruction set's code makes this element.
  bool made() const { return made_; }

  struct Factors {
    const float* of_blocks;
    int64_t block;
    int32_t zero;
  };
  void encode(const Factors& factors, const std::byte* x, int64_t count, uint8_t* codes) const {
    EncodeArgs args = args_;
    args.factors = factors.of_blocks;
    args.block = factors.block;
    args.zero = factors.zero;
    args.low = static_cast<float>(min_value(elem_) - factors.zero);
    args.high = static_cast<float>(max_value(elem_) - factors.zero);
    kernels_.encode(args, x, count, codes);
  }

 private:
  const Elem& elem_;
  const RowsKernels& kernels_;
  EncodeArgs args_{};
  bool made_ = false;
};

// One quantized form: which code makes it.
class FormWriter {
 public:
  FormWriter(const QuantizedActivation& form, const Elem& run, const CpuQueue& queue)
      : form_(form),
        kernels_(kernels_of(queue)),
        recipe_(find_recipe(form.spec)),
        run_(run),
        format_(run_format(run)),
        coder_(form.spec, recipe_, format_, kernels_) {
    const Spec& spec = form.spec;
    const bool plain = recipe_.apply == Apply::kDivide || recipe_.apply == Apply::kMultiply;
    fast_ = coder_.made() && plain && !recipe_.ties_down;
    input_ = recipe_input(spec, kF32);
    if (spec.global_scale && spec.when == When::kStatic) set_global(*form.global_scale);
  }

  // Whether a row's codes depend on other rows.
  bool spans_rows() const {
    return form_.spec.when == When::kPerCall &&
           (form_.spec.block.rows == kAll || form_.spec.global_scale);
  }

  // Rows that stand alone.
  void write_row(int64_t r, const std::byte* x, int64_t cols) const {
    const Spec& spec = form_.spec;
    if (!fast_) {
      std::vector<float> wide(static_cast<size_t>(cols));
      const Matrix<float> row(wide.data(), 1, cols);
      to_f32({x, run_, 1, cols}, row);
      const int64_t scale_row = spec.block.rows == kAll ? 0 : r;
      ActivationCodes out{.codes = form_.codes.row_range(r, 1),
                          .scales = form_.scales.row_range(scale_row, 1),
                          .zero_points = {},
                          .global_scale = form_.global_scale};
      if (spec.asymmetric) out.zero_points = form_.zero_points.row_range(scale_row, 1);
      quantize_activation(spec, row, out);
      return;
    }
    write_blocks(input_, r, x, cols);
  }

  // All rows of a form whose scale spans them.
  void write_spanning(ConstView x, CpuQueue& queue) const {
    if (!fast_) {
      std::vector<float> wide(static_cast<size_t>(x.rows * x.cols));
      const Matrix<float> values(wide.data(), x.rows, x.cols);
      to_f32(x, values);
      quantize_activation(form_.spec, values,
                          {form_.codes, form_.scales, form_.zero_points, form_.global_scale});
      return;
    }
    std::vector<Range> ranges(static_cast<size_t>(queue.pool.threads()));
    const int64_t grain = grain_rows(kGrainValues, x.cols);
    queue.pool.parallel_for(x.rows, grain, [&](int worker, int64_t begin, int64_t end) {
      Range& own = ranges[static_cast<size_t>(worker)];
      for (int64_t r = begin; r < end; ++r) {
        const Range row = kernels_.range(format_, x.row(r), x.cols);
        own = {std::min(own.min, row.min), std::max(own.max, row.max)};
      }
    });
    Range all{};
    for (const Range& range : ranges)
      all = {std::min(all.min, range.min), std::max(all.max, range.max)};
    if (form_.spec.global_scale) {
      RecipeInput input = input_;
      input.global_amax = block_range(all).amax;
      input.global_scale = *form_.global_scale = global_scale(recipe_.global, input);
      queue.pool.parallel_for(x.rows, grain, [&](int, int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) write_blocks(input, r, x.row(r), x.cols);
      });
      return;
    }
    const BlockScale scale = block_scale(recipe_.rule, input_, block_range(all));
    form_.scales.row(0)[0] = scale.scale;
    if (form_.spec.asymmetric) form_.zero_points.row(0)[0] = scale.zero;
    queue.pool.parallel_for(x.rows, grain, [&](int, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) encode_block(scale, r, 0, x.row(r), x.cols);
    });
  }

 private:
  static BlockRange block_range(const Range& range) {
    return {.amax = std::max(-range.min, range.max), .min = range.min, .max = range.max};
  }

  void set_global(float scale) {
    check(scale > 0 && std::isfinite(scale), "a global scale above 0");
    input_.global_scale = scale;
  }

  // Whether a scale is the quantizer's of its values, not given.
  bool makes_scales() const { return form_.spec.when != When::kStatic || form_.spec.global_scale; }

  // A row, block by block.
  void write_blocks(const RecipeInput& input, int64_t r, const std::byte* x, int64_t cols) const {
    if (form_.spec.block.cols != kAll && !form_.spec.asymmetric && makes_scales())
      return write_groups(input, r, x, cols);
    const int64_t block = form_.spec.block.cols == kAll ? cols : form_.spec.block.cols;
    const int64_t bytes = run_.bits() / 8;
    for (int64_t from = 0; from < cols; from += block) {
      const int64_t count = std::min(block, cols - from);
      const std::byte* piece = x + from * bytes;
      encode_block(scale_for(input, r, from / block, piece, count), r, from, piece, count);
    }
  }

  // Symmetric groups of a row, many at a time: a few of 16 values would be all calls.
  void write_groups(const RecipeInput& input, int64_t r, const std::byte* x, int64_t cols) const {
    constexpr int64_t kGroups = 64;
    float amax[kGroups], factors[kGroups];
    const int64_t block = form_.spec.block.cols, bytes = run_.bits() / 8;
    float* scales = form_.scales.row(form_.spec.block.rows == kAll ? 0 : r).data();
    for (int64_t from = 0; from < cols; from += kGroups * block) {
      const int64_t count = std::min(kGroups * block, cols - from);
      const std::byte* piece = x + from * bytes;
      kernels_.block_amax(format_, piece, count, block, amax);
      for (int64_t g = 0; g * block < count; ++g) {
        const BlockScale found =
            block_scale(recipe_.rule, input, {.amax = amax[g], .min = 0, .max = 0});
        *scales++ = found.scale;
        factors[g] = found.factor;
      }
      coder_.encode({factors, block, 0}, piece, count, form_.codes.row(r).data() + from);
    }
  }

  BlockScale scale_for(const RecipeInput& input, int64_t r, int64_t block, const std::byte* x,
                       int64_t count) const {
    const Spec& spec = form_.spec;
    const int64_t scale_row = spec.block.rows == kAll ? 0 : r;
    float& scale = form_.scales.row(scale_row)[static_cast<size_t>(block)];
    int32_t* zero =
        spec.asymmetric ? &form_.zero_points.row(scale_row)[static_cast<size_t>(block)] : nullptr;
    if (!makes_scales()) return given_scale(recipe_, scale, zero == nullptr ? 0 : *zero);
    const BlockScale found =
        block_scale(recipe_.rule, input, block_range(kernels_.range(format_, x, count)));
    scale = found.scale;
    if (zero != nullptr) *zero = found.zero;
    return found;
  }

  void encode_block(const BlockScale& scale, int64_t r, int64_t from, const std::byte* x,
                    int64_t count) const {
    coder_.encode({&scale.factor, std::max<int64_t>(count, 1), scale.zero}, x, count,
                  form_.codes.row(r).data() + from);
  }

  const QuantizedActivation& form_;
  const RowsKernels& kernels_;
  RecipeRow recipe_;
  const Elem& run_;
  Format format_;
  CodeMaker coder_;
  RecipeInput input_{};
  bool fast_ = false;
};

std::vector<FormWriter> writers_of(const Activation& out, const Elem& run, const CpuQueue& queue) {
  std::vector<FormWriter> writers;
  writers.reserve(static_cast<size_t>(out.quantized_count));
  for (int i = 0; i < out.quantized_count; ++i) writers.emplace_back(out.quantized[i], run, queue);
  return writers;
}

struct Size {
  int64_t rows, cols, grain;  // grain: rows of a task
};

// make(r, row) writes row r of a result [rows, cols]; its quantized forms follow while it is in the
// cache. Where nobody wants the high-precision value, rows live in scratch: one for each worker,
// or all of them when a form's scale spans them.
template <class Make>
void each_row(const Activation& out, const Elem& run, Size shape, CpuQueue& queue,
              const Make& make) {
  const std::vector<FormWriter> writers = writers_of(out, run, queue);
  const bool spanning = std::any_of(writers.begin(), writers.end(),
                                    [](const FormWriter& w) { return w.spans_rows(); });
  const bool passing = out.high.empty() && !spanning;
  View high = out.high;
  if (high.empty()) {
    const int64_t kept = passing ? queue.pool.threads() : shape.rows;
    const int64_t stride = (shape.cols + 31) / 32 * 32;  // workers share no cache line
    std::byte* memory = queue.scratch(ScratchUse::kRows).get(kept * stride * run.bits() / 8);
    high = View(memory, run, kept, shape.cols, stride);
  }
  check(passing || (high.rows == shape.rows && high.cols == shape.cols && *high.elem == run),
        "the result has the rows, columns and dtype of the operation");
  queue.pool.parallel_for(shape.rows, shape.grain, [&](int worker, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::byte* row = high.row(passing ? worker : r);
      make(r, row);
      for (const FormWriter& writer : writers)
        if (!writer.spans_rows()) writer.write_row(r, row, shape.cols);
    }
  });
  for (const FormWriter& writer : writers)
    if (writer.spans_rows()) writer.write_spanning(high, queue);
}

}  // namespace

void quantize_forms(const Activation& out, ConstView values, CpuQueue& queue) {
  if (out.quantized_count == 0 || values.rows == 0) return;
  const std::vector<FormWriter> writers = writers_of(out, *values.elem, queue);
  for (const FormWriter& writer : writers) {
    if (writer.spans_rows()) {
      writer.write_spanning(values, queue);
      continue;
    }
    const int64_t grain = grain_rows(kGrainValues, values.cols);
    queue.pool.parallel_for(values.rows, grain, [&](int, int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) writer.write_row(r, values.row(r), values.cols);
    });
  }
}

void quantize_rows(const Activation& out, Queue* queue) {
  quantize_forms(out, out.high, cpu_queue(queue));
}

void observe(ConstView x, float* range, Queue* queue_handle) {
  CpuQueue& queue = cpu_queue(queue_handle);
  const RowsKernels& kernels = kernels_of(queue);
  const Format run = run_format(*x.elem);
  std::vector<Range> ranges(static_cast<size_t>(queue.pool.threads()));
  queue.pool.parallel_for(x.rows, grain_rows(kGrainValues, x.cols),
                          [&](int worker, int64_t begin, int64_t end) {
                            Range& own = ranges[static_cast<size_t>(worker)];
                            for (int64_t r = begin; r < end; ++r) {
                              const Range row = kernels.range(run, x.row(r), x.cols);
                              own = {std::min(own.min, row.min), std::max(own.max, row.max)};
                            }
                          });
  for (const Range& found : ranges) {
    range[0] = std::max(range[0], -found.min);
    range[1] = std::max(range[1], found.max);
  }
}

void rms_norm(const Activation& out, ConstView x, const float* gain, float eps,
              Queue* queue_handle) {
  if (x.rows == 0) return;
  CpuQueue& queue = cpu_queue(queue_handle);
  const RowsKernels& kernels = kernels_of(queue);
  const NormArgs args{run_format(*x.elem), gain, x.cols, eps};
  each_row(out, *x.elem, {x.rows, x.cols, grain_rows(kGrainValues, x.cols)}, queue,
           [&](int64_t r, std::byte* row) { kernels.norm(args, x.row(r), row); });
}

void add_rows(View x, ConstView delta, const AddParams& params, Queue* queue_handle) {
  check(x.rows == delta.rows && x.cols == delta.cols && *x.elem == *delta.elem,
        "add_rows: both are [M, K] in one dtype");
  CpuQueue& queue = cpu_queue(queue_handle);
  const RowsKernels& kernels = kernels_of(queue);
  const AddArgs args{run_format(*x.elem), params.gain, x.cols, params.eps, params.multiplier};
  queue.pool.parallel_for(x.rows, grain_rows(kGrainValues, x.cols),
                          [&](int, int64_t begin, int64_t end) {
                            for (int64_t r = begin; r < end; ++r)
                              kernels.add(args, delta.row(r), x.row(r));
                          });
}

void norm_heads(View qkv, const HeadNormParams& params, Queue* queue_handle) {
  const int64_t dim = params.head_dim, q = params.heads * dim, k = params.kv_heads * dim;
  check(qkv.cols == q + 2 * k, "norm_heads: qkv is [T, (H + 2 KV) * D]");
  CpuQueue& queue = cpu_queue(queue_handle);
  const RowsKernels& kernels = kernels_of(queue);
  const Format run = run_format(*qkv.elem);
  const int64_t bytes = qkv.elem_bytes();
  const auto norm_part = [&](std::byte* x, int64_t cols, const float* gain) {
    const NormArgs args{run, gain, params.each_head ? dim : cols, params.eps};
    for (int64_t at = 0; at < cols; at += args.cols)
      kernels.norm(args, x + at * bytes, x + at * bytes);
  };
  queue.pool.parallel_for(qkv.rows, grain_rows(kGrainValues, q + k),
                          [&](int, int64_t begin, int64_t end) {
                            for (int64_t r = begin; r < end; ++r) {
                              norm_part(qkv.row(r), q, params.q_gain);
                              norm_part(qkv.row(r) + q * bytes, k, params.k_gain);
                            }
                          });
}

void cap_logits(Matrix<float> logits, float multiplier, float cap, Queue* queue_handle) {
  CpuQueue& queue = cpu_queue(queue_handle);
  const RowsKernels& kernels = kernels_of(queue);
  queue.pool.parallel_for(logits.rows, 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      kernels.cap(multiplier, cap, logits.row(r).data(), logits.cols);
  });
}

void gate(const Activation& out, ConstView gate_up, GateFn fn, Queue* queue_handle) {
  check(gate_up.cols % 2 == 0, "gate: the input holds gate and up of equal width");
  if (gate_up.rows == 0) return;
  CpuQueue& queue = cpu_queue(queue_handle);
  const RowsKernels& kernels = kernels_of(queue);
  const int64_t cols = gate_up.cols / 2;
  const Format run = run_format(*gate_up.elem);
  const Gate kind = fn == GateFn::kSilu ? Gate::kSilu : Gate::kGeluTanh;
  each_row(out, *gate_up.elem, {gate_up.rows, cols, grain_rows(kGrainGateValues, cols)}, queue,
           [&](int64_t r, std::byte* row) { kernels.gate(run, kind, gate_up.row(r), cols, row); });
}

void gather_rows(View out, ConstView x, std::span<const int32_t> rows, Queue* queue) {
  check(out.rows == static_cast<int64_t>(rows.size()) && out.cols == x.cols && *out.elem == *x.elem,
        "gather_rows: out is [R, K] in the dtype of x");
  const size_t bytes = static_cast<size_t>(x.cols * x.elem_bytes());
  cpu_queue(queue).pool.parallel_for(
      out.rows, grain_rows(kGrainValues, x.cols), [&](int, int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const int32_t from = rows[static_cast<size_t>(r)];
          check(0 <= from && from < x.rows, "gather_rows: row in range");
          std::memcpy(out.row(r), x.row(from), bytes);
        }
      });
}

std::vector<KernelInfo> isa_kernels(std::span<const char* const> operations, const char* takes,
                                    const CpuQueue& queue) {
  std::vector<KernelInfo> rows;
  for (const IsaRow& isa : isa_rows()) {
    const std::string lack = missing(isa.isa);
    const std::string status = queue.isa == isa.isa ? "runs"
                               : lack.empty()       ? text("not chosen: ", name(queue.isa), " is")
                                                    : text("this processor lacks ", lack);
    for (const char* operation : operations)
      rows.push_back(
          {text(operation, takes, "__", isa.name), operation, std::string(isa.needs), status});
  }
  return rows;
}

std::vector<KernelInfo> rows_kernels(Queue* queue) {
  constexpr const char* kOperations[] = {"rms_norm",      "add_rows", "norm_heads", "cap_logits",
                                         "quantize_rows", "observe",  "gate",       "gather_rows"};
  return isa_kernels(kOperations, "_any", cpu_queue(queue));
}

// ScratchUse::kRows: all rows, where a scale spans them or attention's result has no other reader.
int64_t rows_scratch_bytes(const PassLimits& limits, Queue* queue) {
  const int64_t rows = std::max<int64_t>(limits.tokens, cpu_queue(queue).pool.threads());
  const int64_t cols = std::max<int64_t>(limits.cols, int64_t{limits.heads} * limits.kv.head_dim);
  return rows * (cols + 31) / 32 * 32 * (limits.run_dtype->bits() / 8);
}

}  // namespace mantissa::cpu
