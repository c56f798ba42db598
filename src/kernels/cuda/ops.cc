#include "kernels/cuda/ops.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/cuda/attention_sm90.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/load_stream.h"
#include "kernels/cuda/queue.h"

namespace mantissa {
namespace cuda {

DeviceMemory allocate_device(int64_t bytes, std::string_view what) {
  void* memory = nullptr;
  const cudaError_t code = cudaMalloc(&memory, static_cast<size_t>(bytes));
  if (code == cudaErrorMemoryAllocation) {
    size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    throw Error(text("cannot allocate ", bytes >> 20, " MiB for ", what, ": ", free >> 20, " of ",
                     total >> 20, " MiB of the GPU are free"),
                "use a smaller model, another scheme, or a smaller --max-model-len, --max-num-seqs "
                "or --max-num-batched-tokens",
                Error::Kind::kRuntime);
  }
  cuda_check(code, "allocating device memory");
  return DeviceMemory(static_cast<std::byte*>(memory));
}

CudaQueue::CudaQueue(const DeviceConfig& config) {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess || count == 0) {
    throw Error(text("--device cuda: no usable CUDA device (",
                     code != cudaSuccess ? cudaGetErrorString(code) : "none found", ")"),
                "use --device cpu, or a machine with an NVIDIA GPU and its driver");
  }
  if (config.isa != "auto" && config.isa != "portable") {
    throw Error(text("--isa ", config.isa, " was asked of the device cuda"),
                "use --isa auto, or portable for kernels that need no more than sm_80");
  }
  portable_only = config.isa == "portable";
  fast_accum = config.fast_accum;
  cudaDeviceProp properties{};
  cuda_check(cudaGetDeviceProperties(&properties, 0), "asking for the GPU's properties");
  capability = properties.major * 10 + properties.minor;
  device_name = properties.name;
  if (capability < 80) {
    throw Error(text("--device cuda: ", device_name, " is sm_", capability),
                "a GPU from Ampere (sm_80) on is needed; --device cpu runs without one");
  }
  cudaStream_t created = nullptr;
  cuda_check(cudaStreamCreateWithFlags(&created, cudaStreamNonBlocking), "creating a stream");
  stream.reset(created);
  for (Event& mark : marks) {
    cudaEvent_t event = nullptr;
    cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
    mark.reset(event);
  }
  amax = allocate_device(sizeof(float), "an activation's range");
  if (capability >= 90) {
    attention_state = make_attention_state();
    decode_rows = make_decode_rows();
  }
}

std::byte* CudaQueue::scratch(int64_t bytes) {
  if (bytes > scratch_bytes_) {
    cuda_check(cudaStreamSynchronize(stream.get()), "waiting before scratch memory grows");
    if (captured) outgrown_.push_back(std::move(scratch_));
    scratch_ = nullptr;
    scratch_ = allocate_device(bytes, "scratch memory");
    scratch_bytes_ = bytes;
  }
  return scratch_.get();
}

namespace {

Queue* open(const DeviceConfig& config) {
  return reinterpret_cast<Queue*>(new CudaQueue(config));
}
void close(Queue* queue) {
  delete &cuda_queue(queue);
}

std::string describe(Queue* queue) {
  const CudaQueue& q = cuda_queue(queue);
  return text("cuda ", q.device_name, " (sm_", q.capability,
              q.portable_only ? ", portable kernels" : "", ")");
}

std::vector<KernelInfo> kernels(Queue* queue) {
  std::vector<KernelInfo> rows = linear_kernels(cuda_queue(queue));
  for (const char* name :
       {"prepare", "sample", "logprobs", "embed", "rms_norm", "add_rows", "norm_heads",
        "cap_logits", "quantize_rows", "observe", "gate", "gather_rows", "rope_write"}) {
    rows.push_back({text(name, "_any__sm80"), name, "sm_80", "runs"});
  }
  for (KernelInfo& row : attention_kernels(cuda_queue(queue))) rows.push_back(std::move(row));
  rows.push_back(decode_kernel(cuda_queue(queue)));
  return rows;
}

MemoryInfo memory(Queue*) {
  size_t free = 0, total = 0;
  cuda_check(cudaMemGetInfo(&free, &total), "asking for free memory");
  return {.total = static_cast<int64_t>(total), .free = static_cast<int64_t>(free)};
}

std::byte* allocate(int64_t bytes, std::string_view what, Queue*) {
  return allocate_device(bytes, what).release();
}
void release(std::byte* memory, int64_t, Queue*) {
  cudaFree(memory);
}

void upload(void* device, const void* host, int64_t bytes, Queue* queue) {
  if (bytes == 0) return;
  cuda_check(cudaMemcpyAsync(device, host, static_cast<size_t>(bytes), cudaMemcpyHostToDevice,
                             cuda_queue(queue).stream.get()),
             "copying to the GPU");
}
void download(void* host, const void* device, int64_t bytes, Queue* queue) {
  if (bytes == 0) return;
  const cudaStream_t stream = cuda_queue(queue).stream.get();
  cuda_check(
      cudaMemcpyAsync(host, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream),
      "copying from the GPU");
  cuda_check(cudaStreamSynchronize(stream), "running on the GPU");
}

}  // namespace

// CudaQueue::scratch() has one buffer for all: of norm and gate where only codes are read, or of
// attention that is split over the context.
int64_t scratch_bytes(const PassLimits& limits, Queue*) {
  const int64_t values = limits.tokens * limits.cols * (limits.run_dtype->bits() / 8);
  const int64_t rows = (values + 63) / 64 * 64 + limits.tokens * 4;  // and the rows' ranges
  return std::max(rows, attention_scratch_bytes(limits));
}

}  // namespace cuda

const Ops kCudaOps{
    .name = "cuda",
    .open = cuda::open,
    .close = cuda::close,
    .describe = cuda::describe,
    .kernels = cuda::kernels,
    .host_memory = false,
    .memory = cuda::memory,
    .scratch_bytes = cuda::scratch_bytes,
    .allocate = cuda::allocate,
    .release = cuda::release,
    .upload = cuda::upload,
    .download = cuda::download,
    .allocate_staging = cuda::allocate_staging,
    .release_staging = cuda::release_staging,
    .upload_staged = cuda::upload_staged,
    .set_mark = cuda::set_mark,
    .wait_mark = cuda::wait_mark,
    .begin_capture = cuda::begin_capture,
    .end_capture = cuda::end_capture,
    .replay = cuda::replay,
    .release_graph = cuda::release_graph,
    .read_gb_s = cuda::read_gb_s,
    .plan_weight = cuda::plan_weight,
    .pack_rows = cuda::pack_rows,
    .finish_weight = cuda::finish_weight,
    .unpack_rows = cuda::unpack_rows,
    .load = &cuda::kLoadOps,
    .prepare = cuda::prepare,
    .sample = cuda::sample,
    .logprobs = cuda::logprobs,
    .embed = cuda::embed,
    .rms_norm = cuda::rms_norm,
    .add_rows = cuda::add_rows,
    .norm_heads = cuda::norm_heads,
    .cap_logits = cuda::cap_logits,
    .quantize_rows = cuda::quantize_rows,
    .observe = cuda::observe,
    .linear = cuda::linear,
    .rope_write = cuda::rope_write,
    .attention = cuda::attention,
    .gate = cuda::gate,
    .gather_rows = cuda::gather_rows,
    .decode_why_not = cuda::decode_why_not,
    .decode_layers = cuda::decode_layers,
    .kv_page_bytes = cuda::kv_page_bytes,
};

}  // namespace mantissa
