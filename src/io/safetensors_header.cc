// The rules of a safetensors header. Source: the format's README and the checks of the reference
// implementation (huggingface/safetensors, tensor.rs); duplicate keys are refused as the README
// asks.
#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "io/safetensors.h"

namespace mantissa {

namespace {

constexpr int64_t kLengthBytes = 8;
constexpr char kFix[] = "get a complete and unmodified copy of the file";

[[noreturn]] void fail(const std::string& file, const std::string& problem) {
  throw Error(text(printable(file), ": ", problem), kFix);
}
[[noreturn]] void fail(const std::string& file, std::string_view tensor,
                       const std::string& problem) {
  fail(file, text("tensor ", quoted(tensor), ": ", problem));
}

// begin and end are relative to the first byte after the header.
struct Entry {
  TensorInfo tensor;
  int64_t begin = 0, end = 0;
};

std::string dtype_names() {
  std::string names;
  for (const Dtype& dtype : all_dtypes()) names += text(names.empty() ? "" : ", ", dtype.name);
  return names;
}

// Bytes of a tensor; every product is checked, as the reference does, from the first dimension on.
int64_t size_in_bytes(const std::string& file, const TensorInfo& tensor) {
  int64_t elements = 1, bits = 0;
  for (const int64_t dim : tensor.shape) {
    if (__builtin_mul_overflow(elements, dim, &elements)) {
      fail(file, tensor.name, text("the shape ", tensor.shape_text(), " overflows 64 bits"));
    }
  }
  if (__builtin_mul_overflow(elements, int64_t{tensor.dtype->bits}, &bits)) {
    fail(file, tensor.name, text("the size of shape ", tensor.shape_text(), " overflows 64 bits"));
  }
  if (bits % 8 != 0) {
    fail(file, tensor.name,
         text("shape ", tensor.shape_text(), " of ", tensor.dtype->name, " has ", bits,
              " bits, which is not a whole number of bytes"));
  }
  return bits / 8;
}

Entry read_entry(const std::string& file, std::string_view name, const json::Value& value) {
  Entry entry;
  entry.tensor.name = name;
  const json::Value dtype = value.at("dtype");
  entry.tensor.dtype = find_dtype(dtype.as_string());
  if (entry.tensor.dtype == nullptr) dtype.fail(text("one of ", dtype_names()));
  const json::Value shape = value.at("shape");
  if (!shape.is_array()) shape.fail("an array of dimensions");
  for (size_t i = 0; i < shape.size(); ++i) entry.tensor.shape.push_back(shape[i].as_int(0));
  const json::Value offsets = value.at("data_offsets");
  if (!offsets.is_array() || offsets.size() != 2) offsets.fail("an array [begin, end]");
  entry.begin = offsets[0].as_int(0);
  entry.end = offsets[1].as_int(0);
  if (entry.end < entry.begin) {
    fail(file, name,
         text("data_offsets end at ", entry.end, ", before they begin at ", entry.begin));
  }
  const int64_t bytes = size_in_bytes(file, entry.tensor);
  if (entry.end - entry.begin != bytes) {
    fail(file, name,
         text("data_offsets span ", entry.end - entry.begin, " bytes, but shape ",
              entry.tensor.shape_text(), " of ", entry.tensor.dtype->name, " takes ", bytes));
  }
  entry.tensor.bytes = bytes;
  return entry;
}

// Tensors follow each other from byte 0 to the end of the file, without gaps and overlaps.
void expect_contiguous(const std::string& file, const std::vector<Entry>& entries,
                       int64_t data_bytes) {
  int64_t next = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != next) {
      fail(file, entry.tensor.name,
           text("its data begin at byte ", entry.begin, ", but the data before it end at ", next,
                entry.begin < next ? ": they overlap" : ": bytes that belong to no tensor"));
    }
    next = entry.end;
  }
  if (next == data_bytes) return;
  fail(file, text("the tensors take ", next, " bytes, but ", data_bytes, " follow the header: ",
                  next > data_bytes ? "the file is truncated" : "bytes that belong to no tensor"));
}

}  // namespace

int64_t TensorInfo::cols() const {
  int64_t cols = 1;  // the product of all dimensions was checked, but not this one if shape[0] is 0
  for (size_t i = shape.size() < 2 ? 0 : 1; i < shape.size(); ++i) {
    if (__builtin_mul_overflow(cols, shape[i], &cols)) {
      throw Error(text("tensor ", quoted(name), ": the shape ", shape_text(), " overflows 64 bits"),
                  kFix);
    }
  }
  return cols;
}

std::string TensorInfo::shape_text() const {
  std::string out = "[";
  for (size_t i = 0; i < shape.size() && i < 16; ++i) out += text(i == 0 ? "" : ", ", shape[i]);
  return out + (shape.size() > 16 ? ", ...]" : "]");
}

int64_t safetensors_header_bytes(const std::string& file, std::span<const std::byte> first_bytes,
                                 int64_t file_bytes) {
  if (file_bytes < kLengthBytes || first_bytes.size() < kLengthBytes) {
    fail(file, text("the file has ", file_bytes, " bytes; a safetensors file has at least 8"));
  }
  uint64_t length = 0;
  std::memcpy(&length, first_bytes.data(), kLengthBytes);
  if (length > kSafetensorsHeaderBytesMax) {
    fail(file, text("this is no safetensors file, or a damaged one: it starts with the length of a "
                    "header of ",
                    length, " bytes, and at most ", kSafetensorsHeaderBytesMax, " are allowed"));
  }
  if (static_cast<int64_t>(length) > file_bytes - kLengthBytes) {
    fail(file, text("the header says that it has ", length, " bytes, but the file ends after ",
                    file_bytes - kLengthBytes, " of them"));
  }
  return static_cast<int64_t>(length);
}

SafetensorsHeader parse_safetensors_header(const std::string& file, std::string_view json,
                                           int64_t file_bytes) {
  const json::Limits limits{.bytes_max = kSafetensorsHeaderBytesMax};
  const json::Document document = json::parse(json, file, limits);
  const json::Value root = document.root();
  if (!root.is_object()) root.fail("an object of tensors");
  SafetensorsHeader header;
  std::vector<Entry> entries;
  entries.reserve(root.size());
  for (size_t i = 0; i < root.size(); ++i) {
    const auto& [name, value] = root.member(i);
    if (name != "__metadata__") {
      entries.push_back(read_entry(file, name, value));
      continue;
    }
    if (value.is_null()) continue;
    if (!value.is_object()) value.fail("an object of strings");
    for (size_t k = 0; k < value.size(); ++k) {
      header.metadata.emplace(value.member(k).first, value.member(k).second.as_string());
    }
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(json.size());
  expect_contiguous(file, entries, file_bytes - data_begin);
  header.tensors.reserve(entries.size());
  for (Entry& entry : entries) {
    entry.tensor.offset = data_begin + entry.begin;
    header.tensors.push_back(std::move(entry.tensor));
  }
  return header;
}

}  // namespace mantissa
