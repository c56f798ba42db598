// Reading safetensors checkpoints: one file, or shards with model.safetensors.index.json. Files are
// untrusted; every rule of the format is enforced when a checkpoint is opened, and each violation
// is an Error that names file, tensor and rule. Tensor bytes are read with pread into the caller's
// memory, never mapped: nothing of the source stays resident, a file truncated meanwhile is an
// Error.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "base/view.h"
#include "io/dtype.h"

namespace mantissa {

inline constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;

struct TensorInfo {
  std::string name;
  const Dtype* dtype = nullptr;
  std::vector<int64_t> shape;  // slowest dimension first; empty: one element
  int file = 0;                // index into Checkpoint::files()
  int64_t offset = 0;          // of the first byte, from the start of the file
  int64_t bytes = 0;

  // Read as a matrix: [shape[0], product of the others]; rank 1 is one row [1, n], rank 0 is [1,
  // 1].
  int64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  int64_t cols() const;
  int64_t elements() const { return rows() * cols(); }
  std::string shape_text() const;  // "[4096, 11008]"
};

// The header of one safetensors file. Separate from reading files, so that it can be fuzzed.
struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their bytes; file is 0
  std::map<std::string, std::string> metadata;
};
// The length of the JSON that follows the first 8 bytes of a file. Throws Error.
int64_t safetensors_header_bytes(const std::string& file, std::span<const std::byte> first_bytes,
                                 int64_t file_bytes);
// json: the header's text, without the 8 bytes before it. Throws Error.
SafetensorsHeader parse_safetensors_header(const std::string& file, std::string_view json,
                                           int64_t file_bytes);

class Checkpoint {
 public:
  // A folder with model.safetensors, or with model.safetensors.index.json and its shards; or one
  // .safetensors file. Reads headers only.
  static Checkpoint open(const std::filesystem::path& folder_or_file);

  // By file, then by position in it: reading in this order is sequential.
  // Functions that take a TensorInfo want one of these, not a copy.
  std::span<const TensorInfo> tensors() const { return tensors_; }
  const TensorInfo* find(std::string_view name) const;  // nullptr where there is none
  const TensorInfo& at(std::string_view name) const;    // throws Error that lists the nearest names
  const std::vector<File>& files() const { return files_; }
  // __metadata__ of all files; a key in several keeps the first file's value.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  int64_t tensor_bytes() const;  // sum over all tensors

  // The bytes of rows row0.. of a tensor; out.size() must be a whole number of rows, and a row of a
  // packed type a whole number of bytes. Marks the tensor as read. Thread-safe.
  void read_rows(const TensorInfo& tensor, int64_t row0, std::span<std::byte> out) const;
  // The bytes from `begin` of a tensor's on, wherever its rows end. Marks it as read. Thread-safe.
  void read_bytes(const TensorInfo& tensor, int64_t begin, std::span<std::byte> out) const;
  // Rows as float32, out [rows, tensor.cols()]. Throws Error where the dtype has no conversion
  // (Dtype::to_f32). Thread-safe.
  void read_rows_f32(const TensorInfo& tensor, int64_t row0, Matrix<float> out) const;

  // Tensors that no read or mark_read has touched, so that a loader can name what it left out.
  std::vector<const TensorInfo*> unread() const;
  void mark_read(const TensorInfo& tensor) const;  // used on purpose without reading, or ignored

 private:
  void add_file(File file);
  void add_shards(const std::filesystem::path& index);
  void index_names();

  std::vector<File> files_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
  std::unordered_map<std::string_view, size_t> by_name_;  // keys point into tensors_
  std::unique_ptr<std::atomic<bool>[]> was_read_;         // one per tensor
};

}  // namespace mantissa
