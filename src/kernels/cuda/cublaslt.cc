#include "kernels/cuda/cublaslt.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include "base/error.h"
#include "kernels/cuda/cuda_error.h"
#include "kernels/cuda/queue.h"

namespace mantissa::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{64} << 20;

void lt_check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error(text("cuBLASLt: ", what, ": status ", static_cast<int>(status)),
                "leave the peers out", Error::Kind::kRuntime);
}

void* open_library() {
  std::string seen;
  for (const char* name : {"libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13",
                           "libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so.12"}) {
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
    seen += text("\n    ", dlerror());
  }
  throw Error(text("cuBLASLt is not there:", seen),
              "put the folder of libcublasLt.so.13 into LD_LIBRARY_PATH, or leave the peers out");
}

}  // namespace

// The functions in use.
struct CublasLt::State {
  void* library = nullptr;
  cublasLtHandle_t handle = nullptr;
  DeviceMemory workspace;

  decltype(&cublasLtCreate) create = find<decltype(&cublasLtCreate)>("cublasLtCreate");
  decltype(&cublasLtDestroy) destroy = find<decltype(&cublasLtDestroy)>("cublasLtDestroy");
  decltype(&cublasLtMatmulDescCreate) desc_create =
      find<decltype(&cublasLtMatmulDescCreate)>("cublasLtMatmulDescCreate");
  decltype(&cublasLtMatmulDescDestroy) desc_destroy =
      find<decltype(&cublasLtMatmulDescDestroy)>("cublasLtMatmulDescDestroy");
  decltype(&cublasLtMatmulDescSetAttribute) desc_set =
      find<decltype(&cublasLtMatmulDescSetAttribute)>("cublasLtMatmulDescSetAttribute");
  decltype(&cublasLtMatrixLayoutCreate) layout_create =
      find<decltype(&cublasLtMatrixLayoutCreate)>("cublasLtMatrixLayoutCreate");
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy =
      find<decltype(&cublasLtMatrixLayoutDestroy)>("cublasLtMatrixLayoutDestroy");
  decltype(&cublasLtMatmulPreferenceCreate) preference_create =
      find<decltype(&cublasLtMatmulPreferenceCreate)>("cublasLtMatmulPreferenceCreate");
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy =
      find<decltype(&cublasLtMatmulPreferenceDestroy)>("cublasLtMatmulPreferenceDestroy");
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set =
      find<decltype(&cublasLtMatmulPreferenceSetAttribute)>("cublasLtMatmulPreferenceSetAttribute");
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic =
      find<decltype(&cublasLtMatmulAlgoGetHeuristic)>("cublasLtMatmulAlgoGetHeuristic");
  decltype(&cublasLtMatmul) matmul = find<decltype(&cublasLtMatmul)>("cublasLtMatmul");

  template <class F>
  F find(const char* name) {
    if (library == nullptr) library = open_library();
    void* symbol = dlsym(library, name);
    if (symbol == nullptr)
      throw Error(text("cuBLASLt has no ", name), "install cuBLASLt 13, or leave the peers out");
    return reinterpret_cast<F>(symbol);
  }
};

namespace {

// Column-major, as cuBLAS has it: out^T [N, M] = B^T' A^T.
struct Problem {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t b = nullptr, a = nullptr, out = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
};

template <class Lt, class T>
void set(const Lt& lt, const Problem& p, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  lt.desc_set(p.desc, attribute, &value, sizeof value);
}

template <class Lt>
void describe(const Lt& lt, const PeerArgs& args, Problem& p) {
  const bool fp8 = args.kind != PeerKind::kBf16;
  const cudaDataType_t type = fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
  const auto size = [](int64_t v) { return static_cast<uint64_t>(v); };
  lt_check(lt.desc_create(&p.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
  lt_check(lt.layout_create(&p.b, type, size(args.k), size(args.n), args.k), "describing B");
  lt_check(lt.layout_create(&p.a, type, size(args.k), size(args.m), args.k), "describing A");
  lt_check(lt.layout_create(&p.out, CUDA_R_16BF, size(args.n), size(args.m), args.n),
           "describing the result");
  lt_check(lt.preference_create(&p.preference), "a preference");
  const auto bytes = static_cast<size_t>(kWorkspaceBytes);
  lt.preference_set(p.preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes);
  set(lt, p, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  if (!fp8) return;
  set(lt, p, CUBLASLT_MATMUL_DESC_FAST_ACCUM, static_cast<int8_t>(args.fast_accum ? 1 : 0));
  set(lt, p, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, args.b_scale);
  set(lt, p, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, args.a_scale);
  if (args.kind == PeerKind::kFp8Tensor) return;
  const bool row = args.kind == PeerKind::kFp8Row;
  set(lt, p, CUBLASLT_MATMUL_DESC_A_SCALE_MODE,
      row ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
          : CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F);
  set(lt, p, CUBLASLT_MATMUL_DESC_B_SCALE_MODE,
      row ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F : CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F);
}

template <class Lt>
void release(const Lt& lt, const Problem& p) {
  if (p.preference != nullptr) lt.preference_destroy(p.preference);
  for (const cublasLtMatrixLayout_t layout : {p.a, p.b, p.out})
    if (layout != nullptr) lt.layout_destroy(layout);
  if (p.desc != nullptr) lt.desc_destroy(p.desc);
}

template <class Lt>
cublasStatus_t choose(const Lt& lt, const Problem& p, cublasLtMatmulHeuristicResult_t& choice) {
  int found = 0;
  const cublasStatus_t status =
      lt.heuristic(lt.handle, p.desc, p.b, p.a, p.out, p.out, p.preference, 1, &choice, &found);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  return found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : choice.state;
}

}  // namespace

CublasLt::CublasLt() : state_(std::make_unique<State>()) {
  lt_check(state_->create(&state_->handle), "opening");
  void* workspace = nullptr;
  cuda_check(cudaMalloc(&workspace, static_cast<size_t>(kWorkspaceBytes)),
             "allocating cuBLASLt's workspace");
  state_->workspace.reset(static_cast<std::byte*>(workspace));
}
CublasLt::~CublasLt() {
  if (state_->handle != nullptr) state_->destroy(state_->handle);
}

std::string CublasLt::why_not(const PeerArgs& args) {
  Problem p;
  describe(*state_, args, p);
  cublasLtMatmulHeuristicResult_t choice{};
  const cublasStatus_t status = choose(*state_, p, choice);
  release(*state_, p);
  return status == CUBLAS_STATUS_SUCCESS ? "" : text("status ", static_cast<int>(status));
}

void CublasLt::run(const PeerArgs& args, cudaStream_t stream) {
  Problem p;
  describe(*state_, args, p);
  cublasLtMatmulHeuristicResult_t choice{};
  lt_check(choose(*state_, p, choice), "choosing an algorithm");
  const float one = 1, zero = 0;
  const cublasStatus_t status = state_->matmul(
      state_->handle, p.desc, &one, args.b, p.b, args.a, p.a, &zero, args.out, p.out, args.out,
      p.out, &choice.algo, state_->workspace.get(), static_cast<size_t>(kWorkspaceBytes), stream);
  release(*state_, p);
  lt_check(status, "running a product");
}

}  // namespace mantissa::cuda
