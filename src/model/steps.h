// Steps on their way to the device and back: the arrays of a batch, a ring of staging memory so
// that the host may prepare the next steps while the device runs, and decode steps captured as
// graphs, one for each of some batch sizes.
#pragma once

#include <span>
#include <vector>

#include "model/arena.h"
#include "model/model.h"
#include "model/transformer.h"

namespace mantissa {

// Batch sizes that get a graph, ascending; the last one is sequences_max where that is within
// kGraphRowsMax. Few, since each costs memory and time to capture; near enough to each other that
// padding costs little.
inline constexpr int64_t kGraphRowsMax = 512;
// Of one graph, for each layer: 0.8 MiB was measured for 32 on an H200. And of all together: the
// driver's allocator goes in steps of 2 MiB.
inline constexpr int64_t kGraphLayerBytes = 32 << 10, kGraphStepBytes = 2 << 20;
std::vector<int32_t> graph_sizes(int64_t sequences_max);

// Throws Error for an id outside [0, vocab).
void check_token(int32_t id, int64_t vocab);

// Memory that the device reads and writes while the host goes on.
class Staging {
 public:
  Staging() = default;
  Staging(int64_t bytes, std::string_view what, const Ops& ops, Queue* queue)
      : ops_(&ops), queue_(queue), bytes_(bytes), data_(ops.allocate_staging(bytes, what, queue)) {}
  ~Staging() {
    if (data_ != nullptr) ops_->release_staging(data_, bytes_, queue_);
  }
  Staging(Staging&& other) noexcept { *this = std::move(other); }
  Staging& operator=(Staging&& other) noexcept {
    std::swap(ops_, other.ops_);
    std::swap(queue_, other.queue_);
    std::swap(bytes_, other.bytes_);
    std::swap(data_, other.data_);
    return *this;
  }
  std::byte* data() const { return data_; }

 private:
  const Ops* ops_ = nullptr;
  Queue* queue_ = nullptr;
  int64_t bytes_ = 0;
  std::byte* data_ = nullptr;
};

class Steps {
 public:
  // No memory is taken before place(). spare_page: a page of the cache that no sequence gets, for
  // the padding of captured batches. transformer must outlive this.
  Steps(const Model::Limits& limits, int64_t table_cols, int64_t spare_page,
        Transformer& transformer);
  ~Steps();
  Steps(const Steps&) = delete;
  Steps& operator=(const Steps&) = delete;

  int64_t workspace_bytes() const;
  void place(Arena& arena, std::span<const KvLayer> kv_layers, const Ops& ops, Queue* queue);

  // Runs a decode step of each of these sizes, then captures it. Returns the graphs' bytes.
  int64_t capture(std::span<const int32_t> sizes);

  // Model::launch and wait.
  int64_t launch(const Model::StepRequest& request);
  Model::StepResult wait(int64_t ticket);
  // The pass alone, for Transformer::logits.
  void forward(const Model::StepRequest& request);

 private:
  struct InputLayout;
  struct Captured {
    int32_t rows = 0;
    Graph* graph = nullptr;
  };

  std::byte* slot_of(int64_t ticket) const;
  SampledRow* results(int64_t ticket) const;
  LogprobRow* logprobs(int64_t ticket) const;
  void check_request(const Model::StepRequest& request) const;
  const Captured* graph_for(const Model::StepRequest& request) const;
  void upload(const Model::StepRequest& request, int32_t rows);
  void pad(StepSequence* sequences, int32_t* token_ids, int32_t count, int32_t rows) const;
  // query_max: the most tokens of one sequence.
  void run_pass(int64_t tokens, int64_t sequences, int32_t query_max);
  SampleCall sample_call(int64_t tokens, int64_t sequences, int64_t first,
                         Matrix<float> logits) const;
  void sample(int64_t tokens, int64_t sequences, std::span<const int32_t> rows, bool logprobs);

  Model::Limits limits_;
  int64_t table_cols_, spare_page_, pages_max_;
  Transformer& transformer_;
  std::span<const KvLayer> kv_layers_;
  const Ops* ops_ = nullptr;
  Queue* queue_ = nullptr;

  BatchArrays arrays_;
  Seats seats_;
  std::byte* input_ = nullptr;  // on the device, laid out as the staged one
  Staging staging_;             // kRing inputs, then results, then logprobs
  std::vector<Captured> captured_;
  int64_t next_ticket_ = 0;
  std::vector<int32_t> counts_;       // rows sampled, of each ticket of the ring
  std::vector<bool> with_logprobs_;   // likewise
  std::vector<int32_t> sample_rows_;  // token rows of the step that is launched
};

}  // namespace mantissa
