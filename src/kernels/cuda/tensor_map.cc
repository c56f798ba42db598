#include "kernels/cuda/tensor_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include "base/error.h"
#include "kernels/cuda/cuda_error.h"

namespace mantissa::cuda {
namespace {

// From the driver through the runtime, so that nothing links to libcuda.
PFN_cuTensorMapEncodeTiled_v12000 encode_function() {
  static const auto function = [] {
    void* symbol = nullptr;
    cudaDriverEntryPointQueryResult result{};
    cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000,
                                                cudaEnableDefault, &result),
               "asking the driver for cuTensorMapEncodeTiled");
    check(symbol != nullptr, "the driver knows tensor maps");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(symbol);
  }();
  return function;
}

struct Matrix2d {
  int64_t rows, cols, stride_bytes;
};
struct Box {
  int rows, cols;
  CUtensorMapSwizzle swizzle;
};
CUtensorMap encode(const void* data, CUtensorMapDataType type, const Matrix2d& matrix,
                   const Box& box) {
  CUtensorMap map{};
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(matrix.cols),
                               static_cast<cuuint64_t>(matrix.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(matrix.stride_bytes)};
  const cuuint32_t edges[2] = {static_cast<cuuint32_t>(box.cols),
                               static_cast<cuuint32_t>(box.rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult code =
      encode_function()(&map, type, 2, const_cast<void*>(data), sizes, strides, edges, steps,
                        CU_TENSOR_MAP_INTERLEAVE_NONE, box.swizzle,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS) {
    throw Error(text("CUDA: tensor map of [", matrix.rows, ", ", matrix.cols, "], rows ",
                     matrix.stride_bytes, " bytes apart: error ", static_cast<int>(code)),
                "report this shape: it should have been refused before", Error::Kind::kRuntime);
  }
  return map;
}

}  // namespace

CUtensorMap tensor_map_k_major(const void* data, int elem_bytes, int64_t rows, int64_t cols,
                               int64_t stride, int box_rows) {
  return encode(
      data, elem_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8,
      {.rows = rows, .cols = cols, .stride_bytes = stride * elem_bytes},
      {.rows = box_rows, .cols = 128 / elem_bytes, .swizzle = CU_TENSOR_MAP_SWIZZLE_128B});
}

CUtensorMap tensor_map_plain(const void* data, int64_t rows, int64_t row_bytes, int box_bytes,
                             int box_rows, bool swizzled) {
  return encode(data, CU_TENSOR_MAP_DATA_TYPE_UINT8,
                {.rows = rows, .cols = row_bytes, .stride_bytes = row_bytes},
                {.rows = box_rows,
                 .cols = box_bytes,
                 .swizzle = swizzled ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE});
}

CUtensorMap tensor_map_heads(const void* data, int64_t rows, int heads, int dim, int64_t stride,
                             const HeadBox& box) {
  CUtensorMap map{};
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(dim), static_cast<cuuint64_t>(heads),
                               static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(dim) * 2,
                                 static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t sides[3] = {static_cast<cuuint32_t>(box.chunk_bytes / 2),
                               static_cast<cuuint32_t>(box.heads),
                               static_cast<cuuint32_t>(box.rows)};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUtensorMapSwizzle swizzle = box.chunk_bytes == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                                     : box.chunk_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                             : CU_TENSOR_MAP_SWIZZLE_32B;
  const CUresult code =
      encode_function()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(data), sizes,
                        strides, sides, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS) {
    throw Error(text("CUDA: tensor map of [", rows, ", ", heads, ", ", dim, "], stride ", stride,
                     ": error ", static_cast<int>(code)),
                "report this shape: it should have been refused before", Error::Kind::kRuntime);
  }
  return map;
}

}  // namespace mantissa::cuda
