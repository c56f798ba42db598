// Tensor maps of the bulk tensor copy engine (TMA), made on the host.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace mantissa::cuda {

// [rows, cols] with rows `stride` elements apart, read or written in boxes of box_rows x 128 bytes,
// swizzled by 128 bytes in shared memory; beyond the edges reads give zeros and writes do nothing.
// elem_bytes 1 or 2. Throws Error when the driver refuses.
CUtensorMap tensor_map_k_major(const void* data, int elem_bytes, int64_t rows, int64_t cols,
                               int64_t stride, int box_rows);

// The same of bytes, in boxes of box_rows x box_bytes (64 or 128), swizzled by 128 bytes or not.
CUtensorMap tensor_map_plain(const void* data, int64_t rows, int64_t row_bytes, int box_bytes,
                             int box_rows, bool swizzled);
// Rows of heads [rows, heads, dim] of 16-bit elements, rows `stride` elements apart, read in boxes
// of rows x heads x chunk_bytes (32, 64 or 128), swizzled by that in shared memory.
struct HeadBox {
  int rows, heads, chunk_bytes;
};
CUtensorMap tensor_map_heads(const void* data, int64_t rows, int heads, int dim, int64_t stride,
                             const HeadBox& box);

}  // namespace mantissa::cuda
