#include "kernels/cuda/load_stream.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "base/error.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/quantize_weights.h"
#include "kernels/cuda/queue.h"
#include "kernels/cuda/weight.h"
#include "kernels/ops.h"

namespace mantissa::cuda {
namespace {

constexpr int kBuffers = 2;  // of a worker: one is filled while the other is copied

struct HostFree {
  void operator()(std::byte* memory) const noexcept { cudaFreeHost(memory); }
};
struct EventDestroy {
  void operator()(cudaEvent_t event) const noexcept { cudaEventDestroy(event); }
};
using Event = std::unique_ptr<CUevent_st, EventDestroy>;
Event make_event() {
  cudaEvent_t event = nullptr;
  // Waiting threads sleep: there may be more of them than cores.
  cuda_check(cudaEventCreateWithFlags(&event, cudaEventBlockingSync), "creating an event");
  return Event(event);
}
Stream make_stream() {
  cudaStream_t stream = nullptr;
  cuda_check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  return Stream(stream);
}

// Something that takes a while on the device.
struct Span {
  Event start = make_event(), stop = make_event();
  double seconds() const {
    float ms = 0;
    cuda_check(cudaEventElapsedTime(&ms, start.get(), stop.get()), "timing a load");
    return ms * 1e-3;
  }
};

struct Buffer {
  std::byte* memory = nullptr;  // pinned
  Span copy;
  bool in_flight = false;
};
struct Worker {
  Buffer buffers[kBuffers];
  int current = 0;
  double copy_seconds = 0;
  int64_t copied_bytes = 0;

  void wait(Buffer& b) {
    if (!b.in_flight) return;
    cuda_check(cudaEventSynchronize(b.copy.stop.get()), "copying a weight to the GPU");
    b.in_flight = false;
    copy_seconds += b.copy.seconds();
  }
};

struct CudaLoadStream {
  CudaLoadStream(const LoadStreamConfig& config, CudaQueue& queue);
  ~CudaLoadStream() { cudaStreamSynchronize(copies.get()); }
  CudaLoadStream(const CudaLoadStream&) = delete;
  CudaLoadStream& operator=(const CudaLoadStream&) = delete;

  LoadStreamConfig config;
  cudaStream_t kernels;
  std::unique_ptr<std::byte, HostFree> staging;
  DeviceMemory raw, counters;
  std::vector<Worker> workers;
  std::mutex sending;           // a copy and its events are neighbours in the stream
  Event sent = make_event();    // the copies of a weight
  Event unused = make_event();  // the kernels that read `raw`
  std::vector<Span> made;       // one a weight
  int64_t made_bytes = 0;
  Stream copies = make_stream();

  WeightCounters* counters_of(size_t weight) const {
    return reinterpret_cast<WeightCounters*>(counters.get()) + weight;
  }
};

CudaLoadStream::CudaLoadStream(const LoadStreamConfig& given, CudaQueue& queue)
    : config(given), kernels(queue.stream.get()), workers(static_cast<size_t>(given.workers)) {
  void* pinned = nullptr;
  const int64_t bytes = kLoadStageBytes * kBuffers * config.workers;
  cuda_check(cudaMallocHost(&pinned, static_cast<size_t>(bytes)), "allocating staging memory");
  staging.reset(static_cast<std::byte*>(pinned));
  std::byte* next = staging.get();
  for (Worker& worker : workers) {
    for (Buffer& buffer : worker.buffers) {
      buffer.memory = next;
      next += kLoadStageBytes;
    }
  }
  if (config.raw_bytes > 0) raw = allocate_device(config.raw_bytes, "a weight before quantizing");
  const auto counted = config.weights * static_cast<int64_t>(sizeof(WeightCounters));
  counters = allocate_device(std::max<int64_t>(counted, 1), "a load's counters");
  cuda_check(cudaMemsetAsync(counters.get(), 0, static_cast<size_t>(counted), kernels),
             "clearing a load's counters");
  // What was written to the weights' memory before.
  cuda_check(cudaEventRecord(unused.get(), kernels), "ordering a load");
  cuda_check(cudaStreamWaitEvent(copies.get(), unused.get()), "ordering a load");
  made.reserve(static_cast<size_t>(config.weights));
}

CudaLoadStream& load_stream(LoadStream* stream) {
  return *reinterpret_cast<CudaLoadStream*>(stream);
}

// Whether the parts' bytes are the weight's own.
bool stays(const Weight& w, std::span<const RawPart> parts) {
  const WeightLayout l(w.request);
  const Elem& run = *w.request.run_dtype;
  if (w.request.scheme.weight.quantized() || l.row_bytes != l.cols * (run.bits() / 8)) return false;
  return std::ranges::all_of(parts,
                             [&](const RawPart& p) { return p.elem != nullptr && *p.elem == run; });
}

constexpr int64_t kPartAlign = 256;
int64_t padded(int64_t bytes) {
  return (bytes + kPartAlign - 1) / kPartAlign * kPartAlign;
}

std::string_view refuses(const Weight& w) {
  return w.request.scheme.weight.codebook ? "k-means codebooks are fitted on the host" : "";
}

int64_t raw_bytes(const Weight& w, std::span<const RawPart> parts) {
  int64_t bytes = 0;
  if (stays(w, parts)) return bytes;
  for (const RawPart& part : parts) bytes += padded(part.bytes(w.request.cols));
  return bytes;
}

LoadStream* open(const LoadStreamConfig& config, Queue* queue) {
  return reinterpret_cast<LoadStream*>(new CudaLoadStream(config, cuda_queue(queue)));
}
void close(LoadStream* stream) {
  delete &load_stream(stream);
}

void begin(LoadStream* stream, const Weight& w, std::span<RawPart> parts) {
  CudaLoadStream& s = load_stream(stream);
  check(static_cast<int64_t>(s.made.size()) < s.config.weights, "as many weights as announced");
  if (stays(w, parts)) {
    const WeightLayout l(w.request);
    for (RawPart& part : parts) part.device = w.data + l.codes + part.row0 * l.row_bytes;
    return;
  }
  check(raw_bytes(w, parts) <= s.config.raw_bytes, "a raw weight within what was announced");
  cuda_check(cudaStreamWaitEvent(s.copies.get(), s.unused.get()), "ordering a load");
  int64_t offset = 0;
  for (RawPart& part : parts) {
    if (part.elem != nullptr) part.device = s.raw.get() + offset;
    offset += padded(part.bytes(w.request.cols));
  }
}

std::byte* stage(LoadStream* stream, int worker) {
  CudaLoadStream& s = load_stream(stream);
  Worker& mine = s.workers[static_cast<size_t>(worker)];
  mine.current = (mine.current + 1) % kBuffers;
  Buffer& buffer = mine.buffers[mine.current];
  mine.wait(buffer);
  return buffer.memory;
}

void send(LoadStream* stream, int worker, std::byte* to, int64_t bytes) {
  CudaLoadStream& s = load_stream(stream);
  Worker& mine = s.workers[static_cast<size_t>(worker)];
  Buffer& buffer = mine.buffers[mine.current];
  const std::scoped_lock lock(s.sending);
  cuda_check(cudaEventRecord(buffer.copy.start.get(), s.copies.get()), "timing a copy");
  cuda_check(cudaMemcpyAsync(to, buffer.memory, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                             s.copies.get()),
             "copying a weight to the GPU");
  cuda_check(cudaEventRecord(buffer.copy.stop.get(), s.copies.get()), "timing a copy");
  buffer.in_flight = true;
  mine.copied_bytes += bytes;
}

void make(LoadStream* stream, const Weight& w, std::span<const RawPart> parts) {
  CudaLoadStream& s = load_stream(stream);
  WeightCounters* counters = s.counters_of(s.made.size());
  const Span& span = s.made.emplace_back();
  s.made_bytes += w.bytes;
  cuda_check(cudaEventRecord(s.sent.get(), s.copies.get()), "ordering a load");
  cuda_check(cudaStreamWaitEvent(s.kernels, s.sent.get()), "ordering a load");
  cuda_check(cudaEventRecord(span.start.get(), s.kernels), "timing a load");
  if (spans_tensor(w.request.scheme.weight)) {
    for (const RawPart& part : parts) observe_part(w, part, counters, s.kernels);
  }
  for (const RawPart& part : parts) quantize_part(w, part, counters, s.kernels);
  store_table(w, s.kernels);
  cuda_check(cudaEventRecord(span.stop.get(), s.kernels), "timing a load");
  cuda_check(cudaEventRecord(s.unused.get(), s.kernels), "ordering a load");
}

std::byte* codes_at(const Weight& w, int64_t row0) {
  const WeightLayout l(w.request);
  const bool plain = l.code_bits >= 8 && l.row_bytes == l.cols * (l.code_bits / 8);
  return plain ? w.data + l.codes + row0 * l.row_bytes : nullptr;
}

LoadStreamResult finish(LoadStream* stream) {
  CudaLoadStream& s = load_stream(stream);
  LoadStreamResult result{.reports = {}, .made_bytes = s.made_bytes};
  for (Worker& worker : s.workers) {
    for (Buffer& buffer : worker.buffers) worker.wait(buffer);
    result.copy_seconds += worker.copy_seconds;
    result.copied_bytes += worker.copied_bytes;
  }
  std::vector<WeightCounters> counters(s.made.size());
  cuda_check(
      cudaMemcpyAsync(counters.data(), s.counters.get(), counters.size() * sizeof(WeightCounters),
                      cudaMemcpyDeviceToHost, s.kernels),
      "reading a load's counters");
  cuda_check(cudaStreamSynchronize(s.kernels), "quantizing weights on the GPU");
  for (size_t i = 0; i < counters.size(); ++i) {
    const WeightCounters& c = counters[i];
    result.make_seconds += s.made[i].seconds();
    result.reports.push_back({.nan = static_cast<int64_t>(c.nan),
                              .inf = static_cast<int64_t>(c.inf),
                              .zero_blocks = static_cast<int64_t>(c.zero_blocks),
                              .saturated = static_cast<int64_t>(c.saturated)});
  }
  return result;
}

}  // namespace

const LoadOps kLoadOps{.refuses = refuses,
                       .raw_bytes = raw_bytes,
                       .open = open,
                       .close = close,
                       .begin = begin,
                       .stage = stage,
                       .send = send,
                       .make = make,
                       .codes_at = codes_at,
                       .finish = finish};

}  // namespace mantissa::cuda
