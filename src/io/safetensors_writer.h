// Writing safetensors checkpoints: declare the tensors, then stream their bytes. Files appear under
// their names only when everything is written; a failure leaves nothing behind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/dtype.h"

namespace mantissa {

struct TensorSpec {
  std::string name;
  const Dtype* dtype = nullptr;
  std::vector<int64_t> shape;
};

struct SafetensorsWriterOptions {
  // Tensor bytes of one file; a larger tensor gets a file of its own. More than one file are named
  // model-00001-of-0000N.safetensors and listed in model.safetensors.index.json.
  int64_t shard_bytes_max = std::numeric_limits<int64_t>::max();
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
};

class SafetensorsWriter {
 public:
  // folder is created where it is missing. Throws Error where it already has a model, names are not
  // unique, or a size overflows.
  SafetensorsWriter(const std::filesystem::path& folder, std::vector<TensorSpec> tensors,
                    const SafetensorsWriterOptions& options = {});
  ~SafetensorsWriter();  // without finish(): removes what was written
  SafetensorsWriter(SafetensorsWriter&&) noexcept;

  // Appends to a tensor; tensors may be written in any order, in declared order is sequential.
  void write(std::string_view name, std::span<const std::byte> bytes);
  // One more file of the folder, whole.
  void add_file(const std::string& name, std::string_view content);
  // Every tensor must be complete. Syncs the files and gives them their names: first those of
  // add_file, the index last.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mantissa
