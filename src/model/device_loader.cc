#include "model/device_loader.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/error.h"

namespace mantissa {
namespace {

using Clock = std::chrono::steady_clock;

std::vector<RawPart> raw_parts(const PlannedWeight& w, const Checkpoint* checkpoint,
                               uint64_t seed) {
  std::vector<RawPart> parts;
  for (const WeightPart& part : w.parts) {
    RawPart raw{.row0 = part.row0, .rows = part.rows};
    if (checkpoint != nullptr) {
      raw.elem = checkpoint->at(part.tensor).dtype->elem;
    } else {
      raw.stream = dummy_stream(seed, part.tensor);
    }
    parts.push_back(raw);
  }
  return parts;
}

// What one staging buffer takes at a time.
struct Chunk {
  const TensorInfo* tensor;
  int64_t begin, bytes;
  std::byte* to;
};

}  // namespace

uint64_t dummy_stream(uint64_t seed, const std::string& tensor) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : tensor) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return mix64(seed ^ hash);
}

int64_t device_load_bytes(ModelLayout& layout, const Checkpoint* checkpoint, const Ops& ops) {
  int64_t most = 0;
  if (ops.load == nullptr) return most;
  for_each_weight(layout, [&](PlannedWeight& w) {
    if (w.parts[0].stored != nullptr || !ops.load->refuses(w.weight).empty()) return;
    most = std::max(most, ops.load->raw_bytes(w.weight, raw_parts(w, checkpoint, 0)));
  });
  return most;
}

DeviceLoader::DeviceLoader(ModelLayout& layout, const Checkpoint* checkpoint, uint64_t seed,
                           const Ops& ops, Queue* queue, ThreadPool& pool)
    : checkpoint_(checkpoint),
      seed_(seed),
      ops_(*ops.load),
      pool_(pool),
      stream_(nullptr, Close{ops.load}) {
  LoadStreamConfig config{.workers = checkpoint != nullptr ? pool.threads() : 1,
                          .raw_bytes = device_load_bytes(layout, checkpoint, ops)};
  for_each_weight(layout, [&](PlannedWeight&) { ++config.weights; });
  stream_.reset(ops_.open(config, queue));
}

DeviceLoader::~DeviceLoader() = default;

void DeviceLoader::load(const PlannedWeight& w) {
  std::vector<RawPart> parts = raw_parts(w, checkpoint_, seed_);
  LoadStream* stream = stream_.get();
  ops_.begin(stream, w.weight, parts);
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < parts.size() && checkpoint_ != nullptr; ++i) {
    const TensorInfo& tensor = checkpoint_->at(w.parts[i].tensor);
    for (int64_t at = 0; at < tensor.bytes; at += kLoadStageBytes) {
      chunks.push_back(
          {&tensor, at, std::min(kLoadStageBytes, tensor.bytes - at), parts[i].device + at});
    }
  }
  const auto count = static_cast<int64_t>(chunks.size());
  pool_.parallel_for(count, 1, [&](int worker, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Chunk& chunk = chunks[static_cast<size_t>(i)];
      std::byte* stage = ops_.stage(stream, worker);
      const Clock::time_point start = Clock::now();
      checkpoint_->read_bytes(*chunk.tensor, chunk.begin,
                              {stage, static_cast<size_t>(chunk.bytes)});
      read_ns_ += std::chrono::nanoseconds(Clock::now() - start).count();
      read_bytes_ += chunk.bytes;
      ops_.send(stream, worker, chunk.to, chunk.bytes);
    }
  });
  ops_.make(stream, w.weight, parts);
  names_.push_back(w.weight.request.name);
}

bool DeviceLoader::send_codes(const Weight& w, int64_t row0, std::span<const uint8_t> codes,
                              int worker) {
  std::byte* to = ops_.codes_at(w, row0);
  if (to == nullptr) return false;
  for (size_t at = 0; at < codes.size(); at += kLoadStageBytes) {
    const size_t bytes = std::min<size_t>(kLoadStageBytes, codes.size() - at);
    std::memcpy(ops_.stage(stream_.get(), worker), codes.data() + at, bytes);
    ops_.send(stream_.get(), worker, to + at, static_cast<int64_t>(bytes));
  }
  return true;
}

std::vector<DeviceLoader::Met> DeviceLoader::finish(std::vector<LoadStage>& stages) {
  const LoadStreamResult result = ops_.finish(stream_.get());
  std::vector<Met> met;
  for (size_t i = 0; i < names_.size(); ++i) met.push_back({names_[i], result.reports[i]});
  if (checkpoint_ != nullptr) {
    const double read = static_cast<double>(read_ns_) * 1e-9 / pool_.threads();
    if (read_bytes_ > 0) stages.push_back({"read", read_bytes_, read});
    stages.push_back({"copy", result.copied_bytes, result.copy_seconds});
  }
  if (result.made_bytes > 0) stages.push_back({"quantize", result.made_bytes, result.make_seconds});
  return met;
}

}  // namespace mantissa
