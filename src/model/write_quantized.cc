#include "model/write_quantized.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>

#include "base/convert.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/list.h"
#include "base/thread_pool.h"
#include "io/safetensors.h"
#include "io/stored_writer.h"
#include "model/architecture.h"
#include "model/names.h"
#include "model/quant_report_lines.h"
#include "quant/static_scale.h"

namespace mantissa {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBandBytesMax = 4 << 20;  // of float32 rows in a worker's hands
constexpr int64_t kShardBytesMax = int64_t{5} << 30;
constexpr int64_t kSideFileBytesMax = 256 << 20;

struct Linear {
  std::string module;
  int64_t rows = 0, cols = 0;
  StaticScale input;
  // Tensors that share a two-level scheme's global scale: engines fuse them (q, k, v; gate, up).
  std::vector<std::string> fused;
};

class Job {
 public:
  explicit Job(const WriteQuantized& job)
      : job_(job),
        config_(read_config(job.from)),
        checkpoint_(Checkpoint::open(job.from)),
        dialect_(dialect_for(job.format, job.scheme)),
        run_dtype_(config_.dtype != nullptr ? *config_.dtype : kBF16),
        pool_(job.threads) {}
  WriteReport run(const LoadProgress& progress);

 private:
  void find_linears();
  StaticScale input_of(const std::string& slot) const;
  Matrix<const float> read(const TensorInfo& tensor, int64_t row0, int64_t rows,
                           std::vector<float>& values) const;
  void observe(WeightQuantizer& quantizer, const std::string& name, int64_t band);
  void write_linear(SafetensorsWriter& out, const Linear& linear, WriteReport& report);
  void copy_tensor(SafetensorsWriter& out, const TensorInfo& tensor) const;
  void write_side_files(SafetensorsWriter& out, const std::vector<std::string>& ignored) const;

  const WriteQuantized& job_;
  ModelConfig config_;
  Checkpoint checkpoint_;
  const DialectRow& dialect_;
  const Elem& run_dtype_;
  ThreadPool pool_;
  std::map<std::string, Linear> linears_;  // by the name of the tensor that they replace
  std::vector<std::string> ignored_;       // linears that stay
};

StaticScale Job::input_of(const std::string& slot) const {
  if (!needs_calibration(job_.scheme)) return {};
  const auto seen = std::ranges::find(job_.input_ranges, slot, &InputRange::module);
  if (seen == job_.input_ranges.end()) {
    throw Error(text("scheme ", job_.scheme.name, " needs calibrated activation scales"),
                "add --calibrate FILE with a text like those the model will see");
  }
  return static_scale_of(job_.scheme.activation, seen->min, seen->max);
}

void Job::find_linears() {
  const Architecture& a = find_architecture(config_.id, "config.json");
  IgnoreList ignore(job_.ignore);
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    const std::string prefix = text(a.prefix, a.layer_prefix, i, ".");
    for (const LinearRow& row : a.linears) {
      const StaticScale input = input_of(prefix + std::string(row.module));
      std::vector<std::string> fused;
      for (const PartRow& part : row.parts) {
        if (part.name.empty()) continue;
        const std::string module = prefix + std::string(part.name);
        if (ignore.matches(module)) {
          ignored_.push_back(module);
          continue;
        }
        fused.push_back(module + ".weight");
        linears_[fused.back()] = {.module = module,
                                  .rows = size_of(part.rows, config_),
                                  .cols = size_of(row.cols, config_),
                                  .input = input,
                                  .fused = {}};
      }
      for (const std::string& name : fused) linears_[name].fused = fused;
    }
  }
  const std::string head = text(a.prefix, a.head);
  (void)ignore.matches(head);  // may be named; it stays in any case
  ignored_.push_back(head);
  for (const std::string& pattern : ignore.unused()) {
    throw Error(
        text("--ignore ", pattern, ": no linear has this name"),
        text("names look like ", a.prefix, a.layer_prefix, "0.", a.linears[0].parts[0].name));
  }
  if (linears_.empty()) throw Error("--ignore leaves nothing to quantize", "leave some of it out");
  for (const auto& [name, linear] : linears_) {
    const TensorInfo& tensor = checkpoint_.at(name);
    if (tensor.shape != std::vector<int64_t>{linear.rows, linear.cols} ||
        tensor.dtype->to_f32 == nullptr || tensor.dtype->bits < 16) {
      throw Error(
          text("tensor ", name, ": ", tensor.dtype->name, " ", tensor.shape_text(),
               ", but an unquantized weight [", linear.rows, ", ", linear.cols, "] is asked for"),
          "use an original, unquantized checkpoint with its own config.json");
    }
  }
}

// Rows of a tensor in the run dtype.
Matrix<const float> Job::read(const TensorInfo& tensor, int64_t row0, int64_t rows,
                              std::vector<float>& values) const {
  values.resize(static_cast<size_t>(rows * tensor.cols()));
  checkpoint_.read_rows_f32(tensor, row0, {values.data(), rows, tensor.cols()});
  for (float& v : values) v = round_to(run_dtype_, v);
  return {values.data(), rows, tensor.cols()};
}

void Job::observe(WeightQuantizer& quantizer, const std::string& name, int64_t band) {
  const TensorInfo& tensor = checkpoint_.at(name);
  pool_.parallel_for((tensor.rows() + band - 1) / band, 1, [&](int, int64_t first, int64_t last) {
    std::vector<float> values;
    for (int64_t i = first; i < last; ++i) {
      quantizer.observe(read(tensor, i * band, std::min(band, tensor.rows() - i * band), values));
    }
  });
}

void Job::write_linear(SafetensorsWriter& out, const Linear& linear, WriteReport& report) {
  const std::string name = linear.module + ".weight";
  const TensorInfo& tensor = checkpoint_.at(name);
  WeightQuantizer quantizer(job_.scheme.weight, linear.rows, linear.cols, run_dtype_);
  StoredWriter writer(dialect_, job_.scheme, linear.module, linear.rows, linear.cols);
  const int64_t multiple = std::max<int64_t>(quantizer.band_multiple(), 16);
  const int64_t wanted = kBandBytesMax / (4 * linear.cols);
  const int64_t band = std::max(multiple, wanted / multiple * multiple);
  const int64_t bands = (linear.rows + band - 1) / band;
  if (job_.scheme.weight.global_scale) {
    for (const std::string& other : linear.fused) observe(quantizer, other, band);
  } else if (quantizer.needs_observe()) {
    observe(quantizer, name, band);
  }
  QuantReport met;
  const int64_t at_once = pool_.threads();
  for (int64_t start = 0; start < bands; start += at_once) {
    const int64_t count = std::min(at_once, bands - start);
    std::vector<QuantRows> made(static_cast<size_t>(count));
    std::vector<QuantReport> reports(static_cast<size_t>(count));
    pool_.parallel_for(count, 1, [&](int, int64_t first, int64_t last) {
      std::vector<float> values;
      for (int64_t i = first; i < last; ++i) {
        const auto at = static_cast<size_t>(i);
        const int64_t row0 = (start + i) * band, rows = std::min(band, linear.rows - row0);
        reports[at] = quantizer.quantize(row0, read(tensor, row0, rows, values), made[at]);
      }
    });
    for (const QuantRows& rows : made) writer.write(out, rows);
    for (const QuantReport& r : reports) met.add(r);
  }
  writer.finish(out, linear.input);
  for (std::string& line : report_lines(met, linear.module, true))
    report.warnings.push_back(std::move(line));
}

void Job::copy_tensor(SafetensorsWriter& out, const TensorInfo& tensor) const {
  const int64_t row_bytes =
      std::max<int64_t>(1, tensor.bytes / std::max<int64_t>(tensor.rows(), 1));
  const int64_t band = std::max<int64_t>(1, (int64_t{16} << 20) / row_bytes);
  for (int64_t row = 0; row < tensor.rows() && tensor.bytes > 0; row += band) {
    const int64_t rows = std::min(band, tensor.rows() - row);
    std::vector<std::byte> some(static_cast<size_t>(rows * row_bytes));
    checkpoint_.read_rows(tensor, row, some);
    out.write(tensor.name, some);
  }
}

// config.json with its quantization_config, and everything else that makes the folder a model.
void Job::write_side_files(SafetensorsWriter& out, const std::vector<std::string>& ignored) const {
  const json::Document document = json::parse_file(job_.from / "config.json");
  std::string config = document.root().to_json();
  check(config.size() > 2 && config.back() == '}', "config.json is an object");
  config.pop_back();
  config += text(
      ", \"quantization_config\": ", quantization_config_of(dialect_, job_.scheme, ignored), "}\n");
  (void)QuantizationConfig::parse(quantization_config_of(dialect_, job_.scheme, ignored));
  out.add_file("config.json", config);
  for (const fs::directory_entry& entry : fs::directory_iterator(job_.from)) {
    const std::string name = entry.path().filename().string();
    const std::string extension = entry.path().extension().string();
    const bool weights = name.ends_with(".safetensors.index.json") || name == "config.json";
    if (!entry.is_regular_file() || weights) continue;
    if (!list_contains(".json,.jinja,.model,.txt,.md", extension)) continue;
    out.add_file(name, read_file(entry.path(), kSideFileBytesMax));
  }
}

WriteReport Job::run(const LoadProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  if (!config_.quantization_config.empty()) {
    throw Error("config.json: this checkpoint is already quantized",
                "quantize the original, unquantized one");
  }
  find_linears();
  WriteReport report;
  report.dialect = std::string(dialect_.name);
  std::vector<TensorSpec> specs;
  for (const TensorInfo& tensor : checkpoint_.tensors()) {
    report.bytes_before += tensor.bytes;
    const auto linear = linears_.find(tensor.name);
    if (linear == linears_.end()) {
      specs.push_back({tensor.name, tensor.dtype, tensor.shape});
      ++report.copied;
      continue;
    }
    const Linear& l = linear->second;
    const StoredWriter writer(dialect_, job_.scheme, l.module, l.rows, l.cols);
    for (TensorSpec& spec : writer.tensors()) specs.push_back(std::move(spec));
    ++report.quantized;
  }
  for (const TensorSpec& spec : specs) {
    int64_t elements = 1;
    for (const int64_t size : spec.shape) elements *= size;
    report.bytes += elements * spec.dtype->bits / 8;
  }
  if (job_.dry_run) return report;
  SafetensorsWriter out(job_.to, specs, {.shard_bytes_max = kShardBytesMax});
  int64_t done = 0;
  for (const TensorInfo& tensor : checkpoint_.tensors()) {
    const auto linear = linears_.find(tensor.name);
    if (linear == linears_.end()) {
      copy_tensor(out, tensor);
    } else {
      write_linear(out, linear->second, report);
    }
    done += tensor.bytes;
    if (progress) progress(done, report.bytes_before);
  }
  if (job_.strict && !report.warnings.empty())
    throw Error(report.warnings.front(), "leave out --strict to write it all the same");
  write_side_files(out, ignored_);
  out.finish();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace

WriteReport write_quantized(const WriteQuantized& job, const LoadProgress& progress) {
  return Job(job).run(progress);
}

}  // namespace mantissa
