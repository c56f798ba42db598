#include "io/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cerrno>
#include <cstring>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"

namespace mantissa {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kHeaderMax = 100'000'000;
constexpr char kPartSuffix[] = ".part";  // of the name while a file is not complete

[[noreturn]] void fail_system(const char* doing, const fs::path& path, int code) {
  throw Error(text("cannot ", doing, " ", printable(path.string()), ": ", std::strerror(code)),
              "check the folder, its permissions and the free space", Error::Kind::kRuntime);
}

// A file being written under a temporary name; removed unless published.
class PartFile {
 public:
  explicit PartFile(fs::path path) : path_(std::move(path)), part_(path_.string() + kPartSuffix) {
    fd_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd_ < 0) fail_system("create", part_, errno);
  }
  ~PartFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!part_.empty()) ::unlink(part_.c_str());
  }
  PartFile(PartFile&& other) noexcept
      : path_(std::move(other.path_)),
        part_(std::exchange(other.part_, {})),
        fd_(std::exchange(other.fd_, -1)) {}
  PartFile& operator=(PartFile&&) = delete;

  void write(int64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t put = ::pwrite(fd_, bytes.data(), bytes.size(), offset);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) fail_system("write", part_, errno);
      offset += put;
      bytes = bytes.subspan(static_cast<size_t>(put));
    }
  }
  void sync() {
    if (::fsync(fd_) != 0) fail_system("write", part_, errno);
  }
  void publish() {
    if (::rename(part_.c_str(), path_.c_str()) != 0) fail_system("rename", part_, errno);
    part_.clear();
  }
  void retract() {
    if (part_.empty()) ::unlink(path_.c_str());
  }

 private:
  fs::path path_, part_;  // part_: empty once published
  int fd_ = -1;
};

struct Slot {
  int64_t bytes = 0, offset = 0, written = 0;  // offset: from the start of its file
  size_t file = 0;
};

int64_t spec_bytes(const TensorSpec& spec) {
  check(spec.dtype != nullptr, "a tensor to write has a dtype");
  int64_t bits = spec.dtype->bits;
  bool fits = true;
  for (const int64_t dim : spec.shape) {
    check(dim >= 0, "a tensor to write has no negative dimension");
    fits = fits && !__builtin_mul_overflow(bits, dim, &bits);
  }
  if (!fits || bits % 8 != 0) {
    throw Error(text("tensor ", quoted(spec.name), " of ", spec.dtype->name,
                     fits ? " is not a whole number of bytes" : " is larger than 64 bits can say"),
                "choose another shape or type");
  }
  return bits / 8;
}

std::string as_json(std::string_view s) {
  return boost::json::serialize(boost::json::string(s.data(), s.size()));
}

std::string metadata_json(const std::map<std::string, std::string>& metadata) {
  std::string out = "{";
  for (const auto& [key, value] : metadata) {
    out += text(out.size() == 1 ? "" : ",", as_json(key), ":", as_json(value));
  }
  return out + "}";
}

std::string tensor_json(const TensorSpec& spec, int64_t begin, int64_t end) {
  std::string shape;
  for (const int64_t dim : spec.shape) shape += text(shape.empty() ? "" : ",", dim);
  return text(as_json(spec.name), ":{\"dtype\":\"", spec.dtype->name, "\",\"shape\":[", shape,
              "],\"data_offsets\":[", begin, ",", end, "]}");
}

std::string shard_name(size_t i, size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", i + 1, count);
  return name;
}

void expect_no_model(const fs::path& folder) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("model") && name.find(".safetensors") != name.npos) {
      const bool unfinished = name.ends_with(kPartSuffix);
      throw Error(text(printable(folder.string()),
                       unfinished ? " has an unfinished model, of a run that was interrupted or "
                                    "still goes on: "
                                  : " already has a model: ",
                       quoted(name)),
                  "choose another folder, or remove the files");
    }
  }
}

}  // namespace

struct SafetensorsWriter::State {
  fs::path folder;
  std::vector<TensorSpec> specs;
  std::vector<Slot> slots;  // one per spec
  std::unordered_map<std::string_view, size_t> by_name;
  std::vector<PartFile> files, side_files;
  std::vector<std::string> file_names;

  size_t assign_files(int64_t shard_bytes_max);
  void place(size_t file, const std::map<std::string, std::string>& metadata);
  void write_index();  // as one more file, published last
};

// Fills files in declared order; returns how many there are (at least one).
size_t SafetensorsWriter::State::assign_files(int64_t shard_bytes_max) {
  size_t file = 0;
  int64_t bytes_here = 0;
  bool empty = true;
  for (Slot& slot : slots) {
    if (!empty && slot.bytes > shard_bytes_max - bytes_here) {
      ++file;
      bytes_here = 0;
    }
    slot.file = file;
    bytes_here += slot.bytes;
    empty = false;
  }
  return file + 1;
}

// Lays out one file and writes its header. Wide types come first, as in the reference writer: every
// tensor is aligned to its element then.
void SafetensorsWriter::State::place(size_t file,
                                     const std::map<std::string, std::string>& metadata) {
  std::vector<size_t> order;
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].file == file) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return specs[a].dtype->bits > specs[b].dtype->bits; });
  std::string json = "{";
  if (!metadata.empty()) json += text("\"__metadata__\":", metadata_json(metadata));
  int64_t end = 0;
  for (const size_t i : order) {
    const int64_t begin = end;
    if (__builtin_add_overflow(begin, slots[i].bytes, &end)) {
      throw Error("the tensors are larger than 64 bits can say", "write smaller shards");
    }
    slots[i].offset = begin;
    if (json.size() > 1) json += ",";
    json += tensor_json(specs[i], begin, end);
  }
  json += "}";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  if (static_cast<int64_t>(json.size()) > kHeaderMax) {
    throw Error(text("the header of ", file_names[file], " would have ", json.size(),
                     " bytes; at "
                     "most ",
                     kHeaderMax, " are allowed"),
                "write smaller shards");
  }
  const uint64_t length = json.size();
  files[file].write(0, std::as_bytes(std::span(&length, 1)));
  files[file].write(8, std::as_bytes(std::span(json)));
  for (const size_t i : order) slots[i].offset += 8 + static_cast<int64_t>(length);
}

void SafetensorsWriter::State::write_index() {
  std::map<std::string_view, size_t> sorted(by_name.begin(), by_name.end());
  int64_t total = 0;
  std::string json;
  for (const auto& [name, i] : sorted) {
    total += slots[i].bytes;
    json += text(json.empty() ? "" : ",\n", "    ", as_json(name), ": ",
                 as_json(file_names[slots[i].file]));
  }
  json = text("{\n  \"metadata\": {\n    \"total_size\": ", total, "\n  },\n  \"weight_map\": {\n",
              json, "\n  }\n}\n");
  files.emplace_back(folder / "model.safetensors.index.json");
  files.back().write(0, std::as_bytes(std::span(json)));
}

SafetensorsWriter::SafetensorsWriter(const fs::path& folder, std::vector<TensorSpec> tensors,
                                     const SafetensorsWriterOptions& options)
    : state_(std::make_unique<State>()) {
  check(options.shard_bytes_max > 0, "a shard may have at least one byte");
  std::error_code code;
  fs::create_directories(folder, code);
  if (code || !fs::is_directory(folder, code)) fail_system("create", folder, code.value());
  expect_no_model(folder);
  state_->folder = folder;
  state_->specs = std::move(tensors);
  for (const TensorSpec& spec : state_->specs) {
    const bool fresh = state_->by_name.emplace(spec.name, state_->slots.size()).second;
    if (!fresh || spec.name == "__metadata__") {
      throw Error(
          text("the tensor name ", quoted(spec.name), fresh ? " is reserved" : " is used twice"),
          "give every tensor a name of its own");
    }
    state_->slots.push_back({.bytes = spec_bytes(spec)});
  }
  const size_t count = state_->assign_files(options.shard_bytes_max);
  state_->files.reserve(count + 1);
  for (size_t i = 0; i < count; ++i) {
    state_->file_names.push_back(shard_name(i, count));
    state_->files.emplace_back(folder / state_->file_names[i]);
    state_->place(i, options.metadata);
  }
}

SafetensorsWriter::~SafetensorsWriter() = default;
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;

void SafetensorsWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  const auto found = state_->by_name.find(name);
  check(found != state_->by_name.end(), "a tensor to write was declared");
  Slot& slot = state_->slots[found->second];
  const int64_t count = static_cast<int64_t>(bytes.size());
  check(count <= slot.bytes - slot.written, "a tensor gets no more bytes than declared");
  state_->files[slot.file].write(slot.offset + slot.written, bytes);
  slot.written += count;
}

void SafetensorsWriter::add_file(const std::string& name, std::string_view content) {
  state_->side_files.emplace_back(state_->folder / name);
  state_->side_files.back().write(0, std::as_bytes(std::span(content)));
}

void SafetensorsWriter::finish() {
  for (const Slot& slot : state_->slots) {
    check(slot.written == slot.bytes, "every declared tensor was written completely");
  }
  if (state_->files.size() > 1) state_->write_index();
  for (std::vector<PartFile>* files : {&state_->side_files, &state_->files})
    for (PartFile& file : *files) file.sync();
  try {
    for (PartFile& file : state_->side_files) file.publish();
    for (PartFile& file : state_->files) file.publish();
  } catch (const Error&) {
    for (PartFile& file : state_->files) file.retract();
    for (PartFile& file : state_->side_files) file.retract();
    throw;
  }
}

}  // namespace mantissa
