#include "model/loader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "base/error.h"
#include "model/device_loader.h"
#include "model/quant_report_lines.h"
#include "quant/quantize.h"

namespace mantissa {
namespace {

constexpr int64_t kBandBytesMax = 1 << 20;  // of float32 rows in a worker's hands

void round_to(const Elem& run_dtype, std::span<float> values) {
  if (run_dtype == kBF16) {
    for (float& v : values) v = f32_from_bf16(bf16_from_f32(v));
  } else if (run_dtype == kF16) {
    for (float& v : values) v = f32_from_f16(f16_from_f32(v));
  }
}

class Loader {
 public:
  Loader(ModelLayout& layout, const Checkpoint* checkpoint, uint64_t seed, const Ops& ops,
         Queue* queue, ThreadPool& pool, const LoadProgress& progress)
      : checkpoint_(checkpoint),
        seed_(seed),
        ops_(ops),
        queue_(queue),
        pool_(pool),
        progress_(progress),
        workers_(static_cast<size_t>(pool.threads())) {
    for_each_weight(layout, [&](PlannedWeight& w) {
      const WeightRequest& request = w.weight.request;
      total_bytes_ += request.rows * request.cols * 2;
      if (!request.scheme.weight.quantized()) unquantized_.insert(request.name);
    });
    if (ops.load != nullptr) device_.emplace(layout, checkpoint, seed, ops, queue, pool);
  }

  void load(PlannedWeight& w);
  void load(Vector& v);
  LoadReport finish(std::chrono::steady_clock::time_point start);

 private:
  struct Worker {
    std::vector<float> band;
    QuantRows rows;
  };
  struct Band {
    const WeightPart* part;
    int64_t row0, rows;  // in the part
  };

  void read(const std::string& tensor, int64_t row0, Matrix<float> out) const;
  Matrix<const float> read_band(const PlannedWeight& w, const Band& band, Worker& worker) const;
  void load_stored(PlannedWeight& w);
  void quantize_on_host(PlannedWeight& w);
  void read_bias(PlannedWeight& w);
  void report(const std::string& name, const QuantReport& report);

  const Checkpoint* checkpoint_;
  uint64_t seed_;
  const Ops& ops_;
  Queue* queue_;
  ThreadPool& pool_;
  const LoadProgress& progress_;
  std::vector<Worker> workers_;
  std::optional<DeviceLoader> device_;
  std::map<std::string, int64_t, std::less<>>
      on_host_;  // weights that the device refused, by reason
  std::set<std::string> unquantized_;
  LoadReport report_;
  int64_t done_bytes_ = 0, total_bytes_ = 0;
};

void Loader::read(const std::string& tensor, int64_t row0, Matrix<float> out) const {
  if (checkpoint_ != nullptr) {
    checkpoint_->read_rows_f32(checkpoint_->at(tensor), row0, out);
    return;
  }
  const uint64_t stream = dummy_stream(seed_, tensor);
  for (int64_t r = 0; r < out.rows; ++r) {
    float* row = out.row(r).data();
    const auto first = static_cast<uint64_t>((row0 + r) * out.cols);
    for (int64_t c = 0; c < out.cols; ++c) {
      row[c] = dummy_value(stream, first + static_cast<uint64_t>(c));
    }
  }
}

Matrix<const float> Loader::read_band(const PlannedWeight& w, const Band& band,
                                      Worker& worker) const {
  const WeightRequest& request = w.weight.request;
  worker.band.resize(static_cast<size_t>(band.rows * request.cols));
  const Matrix<float> rows(worker.band.data(), band.rows, request.cols);
  read(band.part->tensor, band.row0, rows);
  round_to(*request.run_dtype, worker.band);
  return rows;
}

void Loader::read_bias(PlannedWeight& w) {
  std::vector<float> bias(static_cast<size_t>(w.weight.request.rows));
  for (const WeightPart& part : w.parts) {
    read(part.bias_tensor, 0, Matrix<float>(bias.data() + part.row0, 1, part.rows));
  }
  round_to(*w.weight.request.run_dtype, bias);
  ops_.upload(w.bias, bias.data(), w.weight.request.rows * 4, queue_);
}

void Loader::report(const std::string& name, const QuantReport& r) {
  for (std::string& line : report_lines(r, name, !unquantized_.contains(name)))
    report_.warnings.push_back(std::move(line));
}

void Loader::load(PlannedWeight& w) {
  const bool stored = w.parts[0].stored != nullptr;
  const std::string_view refusal = device_ && !stored ? device_->refuses(w) : "";
  if (stored) {
    load_stored(w);
  } else if (device_ && refusal.empty()) {
    device_->load(w);
  } else {
    quantize_on_host(w);
    if (device_) ++on_host_[std::string(refusal)];
  }
  if (w.has_bias) read_bias(w);
  report_.tensors += static_cast<int64_t>(w.parts.size()) * (w.has_bias ? 2 : 1);
  done_bytes_ += w.weight.request.rows * w.weight.request.cols * 2;
  if (progress_) progress_(done_bytes_, total_bytes_);
}

// Codes and scales as the checkpoint has them.
void Loader::load_stored(PlannedWeight& w) {
  const WeightRequest& request = w.weight.request;
  for (WeightPart& part : w.parts) {
    const StoredWeight& stored = *part.stored;
    const int64_t multiple = std::max(64, stored.spec().block.rows);
    const int64_t wanted = device_ ? kLoadStageBytes / std::max<int64_t>(1, request.cols)
                                   : kBandBytesMax / std::max<int64_t>(4, 4 * request.cols);
    const int64_t band = std::max(multiple, wanted / multiple * multiple);
    const int64_t bands = (part.rows + band - 1) / band;
    pool_.parallel_for(bands, 1, [&](int worker, int64_t first, int64_t last) {
      QuantRows& rows = workers_[static_cast<size_t>(worker)].rows;
      std::vector<uint8_t> codes;
      for (int64_t i = first; i < last; ++i) {
        stored.read_rows(i * band, std::min(band, part.rows - i * band), rows);
        if (rows.block != request.scheme.weight.block) {  // a part's scale for each of its rows
          rows.scales.assign(static_cast<size_t>(rows.rows), rows.scales[0]);
          rows.block = per_row();
        }
        const int64_t row0 = part.row0 + i * band;
        const bool sent = device_ && device_->send_codes(w.weight, row0, rows.codes, worker);
        if (sent) rows.codes.swap(codes);  // what is left for pack_rows
        ops_.pack_rows(w.weight, row0, rows, queue_);
        if (sent) rows.codes.swap(codes);
      }
    });
  }
  ops_.finish_weight(w.weight, queue_);
  for (WeightPart& part : w.parts) part.stored.reset();
}

void Loader::quantize_on_host(PlannedWeight& w) {
  const WeightRequest& request = w.weight.request;
  WeightQuantizer quantizer(request.scheme.weight, request.rows, request.cols, *request.run_dtype);
  const int64_t multiple = std::max<int64_t>(quantizer.band_multiple(), 16);
  const int64_t wanted = kBandBytesMax / std::max<int64_t>(4, 4 * request.cols);
  const int64_t band_rows = std::max(multiple, wanted / multiple * multiple);
  std::vector<Band> bands;
  for (const WeightPart& part : w.parts) {
    for (int64_t row = 0; row < part.rows; row += band_rows) {
      bands.push_back({&part, row, std::min(band_rows, part.rows - row)});
    }
  }
  const auto count = static_cast<int64_t>(bands.size());
  if (quantizer.needs_observe()) {
    pool_.parallel_for(count, 1, [&](int worker, int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        quantizer.observe(
            read_band(w, bands[static_cast<size_t>(i)], workers_[static_cast<size_t>(worker)]));
      }
    });
  }
  std::mutex mutex;
  QuantReport met;
  pool_.parallel_for(count, 1, [&](int worker, int64_t first, int64_t last) {
    Worker& mine = workers_[static_cast<size_t>(worker)];
    for (int64_t i = first; i < last; ++i) {
      const Band& band = bands[static_cast<size_t>(i)];
      const int64_t row0 = band.part->row0 + band.row0;
      const QuantReport r = quantizer.quantize(row0, read_band(w, band, mine), mine.rows);
      ops_.pack_rows(w.weight, row0, mine.rows, queue_);
      const std::scoped_lock lock(mutex);
      met.add(r);
    }
  });
  ops_.finish_weight(w.weight, queue_);
  report(request.name, met);
}

void Loader::load(Vector& v) {
  std::vector<float> gain(static_cast<size_t>(v.size), 1.0f);
  if (checkpoint_ != nullptr) {
    read(v.tensor, 0, Matrix<float>(gain.data(), 1, v.size));
    const auto bad = std::ranges::count_if(gain, [](float x) { return !std::isfinite(x); });
    if (bad > 0) {
      throw Error(text("tensor ", v.tensor, ": ", bad, " values are NaN or infinite"),
                  "the checkpoint is damaged; get it again");
    }
    for (float& x : gain) x += v.offset;
  }
  ops_.upload(v.data, gain.data(), v.size * 4, queue_);
  ++report_.tensors;
}

LoadReport Loader::finish(std::chrono::steady_clock::time_point start) {
  if (device_) {
    for (const auto& [name, met] : device_->finish(report_.stages)) report(name, met);
    device_.reset();
  }
  for (const auto& [reason, count] : on_host_) {
    report_.notices.push_back(text(count, " weights were quantized on the host: ", reason));
  }
  report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report_.bytes_read = checkpoint_ != nullptr ? checkpoint_->tensor_bytes() : 0;
  return std::move(report_);
}

void place_static(StaticInput& s, Arena& arena, const Ops& ops, Queue* queue) {
  s.scale = arena.take_array<float>(1);
  s.zero_point = arena.take_array<int32_t>(1);
  s.global_scale = arena.take_array<float>(1);
  ops.upload(s.scale, &s.value.scale, 4, queue);
  ops.upload(s.zero_point, &s.value.zero_point, 4, queue);
  ops.upload(s.global_scale, &s.value.global_scale, 4, queue);
}

}  // namespace

int load_threads(const Ops& ops, int threads) {
  constexpr int kReadersMax = 16;  // of a device: each has staging memory, and PCIe is the limit
  return ops.load != nullptr ? std::min(threads, kReadersMax) : threads;
}

int64_t arena_bytes(ModelLayout& layout) {
  int64_t bytes = 0;
  for_each_weight(layout, [&](PlannedWeight& w) {
    bytes += Arena::padded(w.weight.bytes);
    if (w.has_bias) bytes += Arena::padded(w.weight.request.rows * 4);
  });
  for_each_vector(layout, [&](Vector& v) { bytes += Arena::padded(v.size * 4); });
  for_each_slot(layout, [&](Slot& slot) {
    bytes += Arena::padded(layout.observes ? 2 * 4 : 0);
    bytes += static_cast<int64_t>(slot.input.statics.size()) * 3 * Arena::padded(4);
  });
  return bytes;
}

LoadReport load_weights(ModelLayout& layout, Arena& arena, const WeightSource& source,
                        const Ops& ops, Queue* queue, ThreadPool& pool,
                        const LoadProgress& progress) {
  const auto start = std::chrono::steady_clock::now();
  Loader loader(layout, source.checkpoint, source.seed, ops, queue, pool, progress);
  for_each_weight(layout, [&](PlannedWeight& w) {
    w.weight.data = arena.take(w.weight.bytes);
    if (w.has_bias) w.bias = arena.take_array<float>(w.weight.request.rows);
    loader.load(w);
  });
  for_each_vector(layout, [&](Vector& v) {
    v.data = arena.take_array<float>(v.size);
    loader.load(v);
  });
  for_each_slot(layout, [&](Slot& slot) {
    for (StaticInput& s : slot.input.statics) place_static(s, arena, ops, queue);
    if (!layout.observes) return;
    constexpr float kNothing[2] = {0, 0};
    slot.observed = arena.take_array<float>(2);
    ops.upload(slot.observed, kNothing, sizeof kNothing, queue);
  });
  return loader.finish(start);
}

}  // namespace mantissa
