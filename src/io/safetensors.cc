#include "io/safetensors.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace mantissa {

namespace fs = std::filesystem;

namespace {

constexpr char kSingleName[] = "model.safetensors";
constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr char kSuffix[] = ".safetensors";

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// What the folder has instead of a checkpoint, for the error message.
std::string other_weights(const fs::path& folder) {
  std::string found;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const std::string extension = entry.path().extension().string();
    if (extension != kSuffix && extension != ".bin" && extension != ".pth" &&
        extension != ".gguf") {
      continue;
    }
    found += text(found.empty() ? "; it has " : ", ", quoted(name));
    if (found.size() > 300) break;
  }
  return found;
}

// The reference library's parser and writer know no folders: a shard is a plain file name.
void expect_plain_name(const json::Value& shard) {
  const std::string_view name = shard.as_string();
  const bool plain = name.find('/') == name.npos && name.find('\\') == name.npos &&
                     name.find('\0') == name.npos && name.size() > sizeof(kSuffix) - 1 &&
                     name.ends_with(kSuffix);
  if (!plain) shard.fail("the plain name of a .safetensors file in the same folder");
}

// tensor -> shard of model.safetensors.index.json.
using WeightMap = std::map<std::string, std::string, std::less<>>;

WeightMap read_index(const fs::path& path) {
  const json::Document document = json::parse_file(path);
  const json::Value root = document.root();
  const json::Value map = root.at("weight_map");
  if (!map.is_object()) map.fail("an object of tensor names and files");
  WeightMap shard_of;
  for (size_t i = 0; i < map.size(); ++i) {
    const auto& [tensor, shard] = map.member(i);
    expect_plain_name(shard);
    shard_of.emplace(tensor, shard.as_string());
  }
  return shard_of;
}

[[noreturn]] void fail_index(const fs::path& index, const std::string& problem) {
  throw Error(text(printable(index.string()), ": ", problem),
              "download the whole model again: index and shards must belong together");
}

// The edits that turn a into b (Levenshtein).
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] != b[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j + 1] + 1, row[j] + 1, replaced});
    }
  }
  return row[b.size()];
}

// The bytes of `count` rows; throws where a row of a packed type is not a whole number of bytes.
int64_t bytes_of_rows(const TensorInfo& tensor, int64_t count) {
  const int64_t rows = tensor.rows();
  if (count == 0 || rows == 0) return 0;
  if (count == rows) return tensor.bytes;
  if (tensor.bytes % rows != 0) {
    throw Error(text("tensor ", quoted(tensor.name), ": a row of ", tensor.cols(), " ",
                     tensor.dtype->name, " is not a whole number of bytes"),
                "read the tensor as a whole");
  }
  return tensor.bytes / rows * count;
}

}  // namespace

Checkpoint Checkpoint::open(const fs::path& folder_or_file) {
  Checkpoint checkpoint;
  std::error_code ignored;
  if (!is_there(folder_or_file)) {
    throw Error(text("there is no ", quoted(folder_or_file.string(), 400)),
                "name a model folder, or a .safetensors file");
  }
  if (!fs::is_directory(folder_or_file, ignored)) {
    checkpoint.add_file(File(folder_or_file));
    checkpoint.index_names();
    return checkpoint;
  }
  const fs::path single = folder_or_file / kSingleName, index = folder_or_file / kIndexName;
  if (is_there(single) && is_there(index)) {
    throw Error(
        text(printable(folder_or_file.string()), " has both ", kSingleName, " and ", kIndexName),
        "remove the one that is not meant");
  }
  if (is_there(single)) {
    checkpoint.add_file(File(single));
    checkpoint.index_names();
  } else if (is_there(index)) {
    checkpoint.add_shards(index);
  } else {
    throw Error(text(printable(folder_or_file.string()), " has neither ", kSingleName, " nor ",
                     kIndexName, other_weights(folder_or_file)),
                is_there(folder_or_file / "config.json")
                    ? "download the model's safetensors files (other formats are not read), or run "
                      "on random weights with --load-format dummy"
                    : "name a Hugging Face model folder: config.json, tokenizer.json, "
                      "*.safetensors");
  }
  return checkpoint;
}

void Checkpoint::add_shards(const fs::path& index) {
  const WeightMap shard_of = read_index(index);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : shard_of) shards.insert(shard);
  if (shards.empty()) fail_index(index, "weight_map names no tensor");
  for (const std::string& shard : shards) {
    const fs::path path = index.parent_path() / shard;
    if (!is_there(path)) {
      fail_index(index, text("the shard ", quoted(shard), " is missing from the folder"));
    }
    const size_t first = tensors_.size();
    add_file(File(path));
    // So no tensor is in two shards either.
    for (size_t i = first; i < tensors_.size(); ++i) {
      const TensorInfo& tensor = tensors_[i];
      const auto listed = shard_of.find(tensor.name);
      if (listed == shard_of.end()) {
        fail_index(index, text("tensor ", quoted(tensor.name), " of ", quoted(shard),
                               " is not in weight_map"));
      }
      if (listed->second != shard) {
        fail_index(index, text("tensor ", quoted(tensor.name), " is in ", quoted(shard),
                               ", but weight_map says ", quoted(listed->second)));
      }
    }
  }
  index_names();
  for (const auto& [tensor, shard] : shard_of) {
    if (find(tensor) == nullptr) {
      fail_index(index, text("tensor ", quoted(tensor), " is not in ", quoted(shard),
                             ", where weight_map says it is"));
    }
  }
}

void Checkpoint::add_file(File file) {
  std::byte first[8];
  const int64_t first_bytes = std::min<int64_t>(file.size(), sizeof(first));
  const std::span<std::byte> start(first, static_cast<size_t>(first_bytes));
  file.read(0, start);
  const int64_t header_bytes = safetensors_header_bytes(file.path(), start, file.size());
  std::string json(static_cast<size_t>(header_bytes), '\0');
  file.read(sizeof(first), std::as_writable_bytes(std::span(json)));
  SafetensorsHeader header = parse_safetensors_header(file.path(), json, file.size());
  file.expect_sequential();
  for (TensorInfo& tensor : header.tensors) {
    tensor.file = static_cast<int>(files_.size());
    tensors_.push_back(std::move(tensor));
  }
  metadata_.merge(header.metadata);
  files_.push_back(std::move(file));
}

void Checkpoint::index_names() {
  by_name_.reserve(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
  check(by_name_.size() == tensors_.size(), "tensor names are unique: duplicates were refused");
  was_read_ = std::make_unique<std::atomic<bool>[]>(tensors_.size());
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

const TensorInfo& Checkpoint::at(std::string_view name) const {
  if (const TensorInfo* tensor = find(name)) return *tensor;
  constexpr size_t kNames = 3, kCompared = 5'000, kNameBytes = 200;
  std::vector<std::pair<size_t, const TensorInfo*>> near;
  for (size_t i = 0; i < std::min(tensors_.size(), kCompared); ++i) {
    const std::string_view other = tensors_[i].name;
    near.emplace_back(distance(name.substr(0, kNameBytes), other.substr(0, kNameBytes)),
                      &tensors_[i]);
  }
  const size_t shown = std::min(kNames, near.size());
  std::partial_sort(near.begin(), near.begin() + static_cast<std::ptrdiff_t>(shown), near.end());
  std::string names;
  for (size_t i = 0; i < shown; ++i) {
    names += text(names.empty() ? "; the nearest names are " : ", ", quoted(near[i].second->name));
  }
  throw Error(
      text("the checkpoint ", printable(files_[0].path()), " has no tensor ", quoted(name), names),
      "check that config.json and the weights belong together");
}

int64_t Checkpoint::tensor_bytes() const {
  int64_t bytes = 0;
  for (const TensorInfo& tensor : tensors_) bytes += tensor.bytes;
  return bytes;
}

void Checkpoint::read_rows(const TensorInfo& tensor, int64_t row0, std::span<std::byte> out) const {
  check(0 <= row0 && row0 <= tensor.rows(), "Checkpoint::read_rows in range");
  read_bytes(tensor, bytes_of_rows(tensor, row0), out);
}

void Checkpoint::read_bytes(const TensorInfo& tensor, int64_t begin,
                            std::span<std::byte> out) const {
  mark_read(tensor);
  const auto bytes = static_cast<int64_t>(out.size());
  check(0 <= begin && begin <= tensor.bytes && bytes <= tensor.bytes - begin,
        "Checkpoint::read_bytes in range");
  files_[static_cast<size_t>(tensor.file)].read(tensor.offset + begin, out);
}

void Checkpoint::read_rows_f32(const TensorInfo& tensor, int64_t row0, Matrix<float> out) const {
  if (tensor.dtype->to_f32 == nullptr) {
    throw Error(text("tensor ", quoted(tensor.name), " is ", tensor.dtype->name,
                     ", which is not a type of floating-point weights"),
                "use a checkpoint in BF16, F16 or F32");
  }
  mark_read(tensor);
  check(0 <= row0 && 0 <= out.rows && row0 + out.rows <= tensor.rows(),
        "Checkpoint::read_rows_f32 in range");
  check(out.rows == 0 || out.cols == tensor.cols(), "out has the tensor's columns");
  // In chunks that fit the L2 cache with their float32 values; whole rows at once where out allows.
  constexpr int64_t kChunk = 32768;
  const int64_t elem_bytes = tensor.dtype->bits / 8;
  const bool dense = out.stride == out.cols;
  const int64_t runs = dense ? 1 : out.rows, run = dense ? out.rows * out.cols : out.cols;
  std::vector<std::byte> stored(static_cast<size_t>(std::min(run, kChunk) * elem_bytes));
  for (int64_t r = 0; r < runs; ++r) {
    const int64_t first = tensor.offset + (row0 + r) * out.cols * elem_bytes;
    for (int64_t i = 0; i < run; i += kChunk) {
      const size_t count = static_cast<size_t>(std::min(run - i, kChunk));
      const std::span<std::byte> chunk =
          std::span(stored).first(count * static_cast<size_t>(elem_bytes));
      files_[static_cast<size_t>(tensor.file)].read(first + i * elem_bytes, chunk);
      tensor.dtype->to_f32(chunk, {out.data + r * out.stride + i, count});
    }
  }
}

std::vector<const TensorInfo*> Checkpoint::unread() const {
  std::vector<const TensorInfo*> left;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!was_read_[i].load(std::memory_order_relaxed)) left.push_back(&tensors_[i]);
  }
  return left;
}

void Checkpoint::mark_read(const TensorInfo& tensor) const {
  const std::ptrdiff_t i = &tensor - tensors_.data();
  check(0 <= i && i < std::ssize(tensors_), "the tensor is of this checkpoint");
  was_read_[static_cast<size_t>(i)].store(true, std::memory_order_relaxed);
}

}  // namespace mantissa
