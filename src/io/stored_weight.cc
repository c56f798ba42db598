#include "io/stored_weight.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/list.h"

namespace mantissa {
namespace {

constexpr std::string_view kScaleDtypes = "F32,BF16,F16";

// Two's complement.
int32_t signed_value(std::byte b) {
  const int value = std::to_integer<int>(b);
  return value < 128 ? value : value - 256;
}

int64_t blocks_along(int64_t size, int block) {
  return block == kAll ? 1 : (size + block - 1) / block;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string out;
  for (const int64_t size : shape) out += text(out.empty() ? "" : ", ", size);
  return "[" + out + "]";
}

// Element i of a dense stream of b-bit values, low bits first, in 32-bit words.
uint32_t bits_at(const uint32_t* words, int64_t i, int bits) {
  const int64_t at = i * bits;
  const int shift = static_cast<int>(at % 32);
  uint32_t value = words[at / 32] >> shift;
  if (shift + bits > 32) value |= words[at / 32 + 1] << (32 - shift);
  return value & ((1u << bits) - 1);
}
int64_t words_of(int64_t values, int bits) {
  return (values * bits + 31) / 32;
}

}  // namespace

void StoredWeight::refuse(const TensorInfo& tensor, const std::string& problem) const {
  const File& file = checkpoint_->files()[static_cast<size_t>(tensor.file)];
  throw Error(text("tensor ", printable(tensor.name), " in ",
                   printable(std::filesystem::path(file.path()).filename().string()), ": ", problem,
                   " (", stored_->dialect->name, ")"),
              "get a good copy of the checkpoint, with the config.json that belongs to it");
}

const TensorInfo& StoredWeight::find(std::string_view suffix, std::string_view why) {
  const std::string name = text(module_, ".", suffix);
  const TensorInfo* tensor = checkpoint_->find(name);
  if (tensor == nullptr) {
    throw Error(text("tensor ", printable(name), " is missing in ",
                     printable(std::filesystem::path(checkpoint_->files()[0].path())
                                   .parent_path()
                                   .filename()
                                   .string()),
                     ": ", why, " (", stored_->dialect->name, ")"),
                text("use the config.json that belongs to these weights; a module that is not "
                     "quantized belongs in its ignore list"));
  }
  tensors_.push_back(tensor);
  return *tensor;
}

void StoredWeight::expect(const TensorInfo& tensor, std::string_view dtypes,
                          const std::vector<int64_t>& shape) const {
  if (!list_contains(dtypes, tensor.dtype->name)) {
    refuse(tensor,
           text("dtype is ", tensor.dtype->name, ", but quantization_config asks for ", dtypes));
  }
  if (tensor.shape != shape) {
    refuse(tensor, text("shape is ", tensor.shape_text(),
                        ", but quantization_config and "
                        "config.json ask for ",
                        shape_text(shape)));
  }
}

StoredWeight::StoredWeight(const Checkpoint& checkpoint, const std::string& module,
                           const StoredScheme& stored, int64_t rows, int64_t cols)
    : checkpoint_(&checkpoint),
      stored_(&stored),
      module_(module),
      rows_(rows),
      cols_(cols),
      spec_(stored.scheme.weight) {
  find_codes();
  find_scales();
  find_zero_points();
  find_inputs();
}

std::string_view StoredWeight::role(const TensorInfo& tensor) const {
  const DialectRow& dialect = *stored_->dialect;
  const std::string_view suffix = std::string_view(tensor.name).substr(module_.size() + 1);
  const std::pair<std::string_view, std::string_view> roles[] = {
      {dialect.codes, "codes"},
      {dialect.scale, "scales"},
      {dialect.global_scale, "global scale"},
      {dialect.shape, "shape"},
      {dialect.input_scale, "input scale"},
      {dialect.input_zero_point, "input zero point"}};
  for (const auto& [name, what] : roles)
    if (suffix == name) return what;
  return "zero points";
}

void StoredWeight::find_codes() {
  const DialectRow& dialect = *stored_->dialect;
  const int bits = spec_.elem->bits();
  const TensorInfo& codes =
      find(dialect.codes, text("quantization_config says that ", module_, " is quantized"));
  codes_ = &codes;
  std::string_view dtypes = dialect.dtypes;
  // naive-quantized holds integers or floats: the scheme says which.
  if (dialect.packing == Packing::kBytes && !spec_.elem->is_float()) dtypes = "I8";
  if (dialect.packing == Packing::kBytes && spec_.elem->is_float()) dtypes = "F8_E4M3,F8_E4M3FNUZ";
  int64_t stored_cols = cols_;
  if (dialect.packing == Packing::kWords) stored_cols = words_of(cols_, bits);
  if (dialect.packing == Packing::kNibbles) {
    if (cols_ % 2 != 0) refuse(codes, text("an odd number of inputs, ", cols_));
    stored_cols = cols_ / 2;
  }
  expect(codes, dtypes, {rows_, stored_cols});
  fnuz_ = codes.dtype->elem != nullptr && *codes.dtype->elem == kE4M3Fnuz;
  if (dialect.shape.empty()) return;
  const TensorInfo& shape = find(dialect.shape, "packed weights carry their shape");
  expect(shape, "I64", {2});
  int64_t size[2];
  checkpoint_->read_rows(shape, 0, std::as_writable_bytes(std::span(size)));
  if (size[0] != rows_ || size[1] != cols_) {
    refuse(shape, text("says [", size[0], ", ", size[1], "], but config.json asks for [", rows_,
                       ", ", cols_, "]"));
  }
}

void StoredWeight::find_scales() {
  const DialectRow& dialect = *stored_->dialect;
  const TensorInfo& scale =
      find(dialect.scale, text("quantization_config says that ", module_, " is quantized"));
  scale_ = &scale;
  scale_rows_ = blocks_along(rows_, spec_.block.rows);
  scale_cols_ = blocks_along(cols_, spec_.block.cols);
  std::string_view dtypes = kScaleDtypes;
  if (*spec_.scale == kE8M0) dtypes = "U8,F8_E8M0";
  if (*spec_.scale == kE4M3) dtypes = "F8_E4M3";
  std::vector<int64_t> shape = {scale_rows_, scale_cols_};
  const bool one = scale_rows_ * scale_cols_ == 1 && scale.elements() == 1;
  if (one || (scale_cols_ == 1 && scale.shape == std::vector<int64_t>{scale_rows_})) {
    shape = scale.shape;  // [], [1], [1, 1]; [N] for [N, 1]
  }
  expect(scale, dtypes, shape);
  const bool narrow = !spec_.elem->is_float() && spec_.elem->bits() < 8;
  if (*spec_.scale == kF32 && narrow && *scale.dtype->elem == kBF16) spec_.scale = &kBF16;
  if (!spec_.global_scale) return;
  const TensorInfo& global = find(dialect.global_scale, "two-level scales have a global one");
  global_ = one_scale(global);
  if (dialect.global_is_divisor) global_ = 1 / global_;
  if (!usable_scale(global_)) refuse(global, "its reciprocal is no normal number");
}

void StoredWeight::find_zero_points() {
  const DialectRow& dialect = *stored_->dialect;
  if (!spec_.asymmetric) return check_zeros("weight_zero_point");
  if (dialect.zero_point.empty()) {
    throw Error(text(module_, ": ", dialect.name,
                     " has no zero points, but quantization_config "
                     "says that its weights are asymmetric"),
                "use the config.json that belongs to these weights");
  }
  const TensorInfo& zero = find(dialect.zero_point, "its weights are asymmetric");
  zero_ = &zero;
  const bool words = dialect.packing == Packing::kWords;
  const int64_t stored_rows = words ? words_of(scale_rows_, spec_.elem->bits()) : scale_rows_;
  std::vector<int64_t> shape = {stored_rows, scale_cols_};
  if (scale_cols_ == 1 && zero.shape.size() < 2 && zero.elements() == stored_rows) {
    shape = zero.shape;
  }
  expect(zero, words ? "I32" : "I8", shape);
}

// Older files keep the zero points of symmetric schemes; they must say nothing.
void StoredWeight::check_zeros(std::string_view suffix) {
  const TensorInfo* tensor = checkpoint_->find(text(module_, ".", suffix));
  if (tensor == nullptr || stored_->dialect->method == "fp8") return;
  std::vector<std::byte> bytes(static_cast<size_t>(tensor->bytes));
  checkpoint_->read_rows(*tensor, 0, bytes);
  if (std::ranges::any_of(bytes, [](std::byte b) { return b != std::byte{0}; })) {
    refuse(*tensor, "holds zero points, but quantization_config says symmetric");
  }
  tensors_.push_back(tensor);
}

float StoredWeight::one_value(const TensorInfo& tensor) const {
  if (tensor.elements() != 1 || tensor.shape.size() > 2) {
    refuse(tensor, text("shape is ", tensor.shape_text(), ", but one value is asked for"));
  }
  float value = 0;
  if (tensor.dtype->name == "I8" || tensor.dtype->name == "I32") {
    int32_t whole = 0;
    std::byte bytes[4] = {};
    checkpoint_->read_rows(tensor, 0, std::span(bytes).first(static_cast<size_t>(tensor.bytes)));
    std::memcpy(&whole, bytes, sizeof whole);
    if (tensor.bytes == 1) whole = signed_value(bytes[0]);
    return static_cast<float>(whole);
  }
  if (!list_contains(kScaleDtypes, tensor.dtype->name)) {
    refuse(tensor, text("dtype is ", tensor.dtype->name, ", but a scale is ", kScaleDtypes));
  }
  checkpoint_->read_rows_f32(tensor, 0, Matrix<float>(&value, 1, 1));
  return value;
}

float StoredWeight::one_scale(const TensorInfo& tensor) const {
  const float value = one_value(tensor);
  if (!usable_scale(value)) {
    refuse(tensor, text("is ", value, ", but a scale is a normal number above 0"));
  }
  return value;
}

void StoredWeight::find_inputs() {
  const DialectRow& dialect = *stored_->dialect;
  const Spec& activation = stored_->scheme.activation;
  if (!activation.asymmetric) check_zeros("input_zero_point");
  if (!needs_calibration(stored_->scheme)) return;
  const TensorInfo& scale =
      find(dialect.input_scale, "its activations are static, so they need a scale");
  const float value = one_scale(scale);
  if (activation.global_scale) {
    input_.global_scale = dialect.global_is_divisor ? 1 / value : value;
    if (!usable_scale(input_.global_scale)) refuse(scale, "its reciprocal is no normal number");
    return;
  }
  input_.scale = fnuz_ ? value / 2 : value;
  if (!activation.asymmetric) return;
  const TensorInfo& zero = find(dialect.input_zero_point, "its activations are asymmetric");
  const float point = one_value(zero);
  if (!(point >= min_value(*activation.elem) && point <= max_value(*activation.elem))) {
    refuse(zero, text("is ", point, ", but a zero point is a code of ", activation.elem->name));
  }
  input_.zero_point = static_cast<int32_t>(point);
}

void StoredWeight::read_codes(int64_t row0, QuantRows& q) const {
  const int bits = spec_.elem->bits();
  const auto mask = static_cast<uint8_t>(code_mask(*spec_.elem));
  const auto values = static_cast<size_t>(q.rows * q.cols);
  q.codes.resize(values);
  const Packing packing = stored_->dialect->packing;
  if (packing == Packing::kWords) {
    const int64_t width = words_of(cols_, bits);
    std::vector<uint32_t> words(static_cast<size_t>(q.rows * width));
    checkpoint_->read_rows(*codes_, row0, std::as_writable_bytes(std::span(words)));
    const uint32_t offset = 1u << (bits - 1);
    for (int64_t r = 0; r < q.rows; ++r) {
      uint8_t* to = q.codes.data() + r * cols_;
      for (int64_t c = 0; c < cols_; ++c)
        to[c] = static_cast<uint8_t>((bits_at(words.data() + r * width, c, bits) - offset) & mask);
    }
    return;
  }
  if (packing == Packing::kNibbles) {
    std::vector<uint8_t> bytes(values / 2);
    checkpoint_->read_rows(*codes_, row0, std::as_writable_bytes(std::span(bytes)));
    for (size_t i = 0; i < bytes.size(); ++i) {
      q.codes[2 * i] = bytes[i] & 15;
      q.codes[2 * i + 1] = bytes[i] >> 4;
    }
    return;
  }
  checkpoint_->read_rows(*codes_, row0, std::as_writable_bytes(std::span(q.codes)));
  int64_t bad = 0;
  if (spec_.elem->is_float()) {
    // e4m3fn: S.1111.111 is NaN. e4m3fnuz: -0 is NaN, S.1111.111 is 240, which e4m3fn at half the
    // scale would need 480 for.
    const int minus_zero = fnuz_ ? 0x80 : 0x7f;
    for (const uint8_t code : q.codes) bad += ((code & 0x7f) == 0x7f) | (code == minus_zero);
  } else if (bits < 8) {
    for (uint8_t& code : q.codes) {
      const auto value = static_cast<int8_t>(code);
      bad += value < min_value(*spec_.elem) || value > max_value(*spec_.elem);
      code &= mask;
    }
  }
  if (bad == 0) return;
  refuse(*codes_, spec_.elem->is_float()
                      ? text(bad, fnuz_ ? " codes have no equal in e4m3fn" : " codes are NaN")
                      : text(bad, " codes are beyond ", spec_.elem->name));
}

void StoredWeight::read_scales(int64_t row0, QuantRows& q) const {
  const int64_t first = spec_.block.rows == kAll ? 0 : row0 / spec_.block.rows;
  const int64_t count = blocks_along(q.rows, spec_.block.rows);
  q.scales.resize(static_cast<size_t>(count * scale_cols_));
  if (*spec_.scale == kE8M0) {
    std::vector<uint8_t> bytes(q.scales.size());
    checkpoint_->read_rows(*scale_, first, std::as_writable_bytes(std::span(bytes)));
    for (size_t i = 0; i < bytes.size(); ++i)
      q.scales[i] = static_cast<float>(decode(kE8M0, bytes[i]));
  } else if (scale_->rows() == scale_rows_) {
    checkpoint_->read_rows_f32(*scale_, first, {q.scales.data(), count, scale_cols_});
  } else {  // [N] for [N, 1]
    std::vector<float> all(static_cast<size_t>(scale_rows_));
    checkpoint_->read_rows_f32(*scale_, 0, {all.data(), 1, scale_rows_});
    std::copy_n(all.begin() + first, count, q.scales.begin());
  }
  for (float& scale : q.scales) {
    const bool usable = usable_scale(scale) || (*spec_.scale == kE8M0 && scale == 0x1p-127f);
    if (!usable) refuse(*scale_, text("holds ", scale, ", but a scale is a normal number above 0"));
    if (fnuz_) scale /= 2;
  }
}

void StoredWeight::read_zero_points(int64_t row0, QuantRows& q) const {
  if (zero_ == nullptr) return;
  const int bits = spec_.elem->bits();
  const int64_t first = spec_.block.rows == kAll ? 0 : row0 / spec_.block.rows;
  const int64_t count = blocks_along(q.rows, spec_.block.rows);
  q.zero_points.resize(q.scales.size());
  std::vector<std::byte> bytes(static_cast<size_t>(zero_->bytes));
  checkpoint_->read_rows(*zero_, 0, bytes);
  const bool words = stored_->dialect->packing == Packing::kWords;
  std::vector<uint32_t> column(words ? static_cast<size_t>(words_of(scale_rows_, bits)) : 0);
  for (int64_t g = 0; g < scale_cols_; ++g) {
    for (size_t i = 0; i < column.size(); ++i) {
      const size_t at = i * static_cast<size_t>(scale_cols_) + static_cast<size_t>(g);
      std::memcpy(&column[i], bytes.data() + 4 * at, 4);
    }
    for (int64_t r = 0; r < count; ++r) {
      int32_t zero = 0;
      if (words) {
        zero = static_cast<int32_t>(bits_at(column.data(), first + r, bits)) - (1 << (bits - 1));
      } else {
        zero = signed_value(bytes[static_cast<size_t>((first + r) * scale_cols_ + g)]);
      }
      if (zero < min_value(*spec_.elem) || zero > max_value(*spec_.elem)) {
        refuse(*zero_, text("holds ", zero, ", which is no code of ", spec_.elem->name));
      }
      q.zero_points[static_cast<size_t>(r * scale_cols_ + g)] = zero;
    }
  }
}

void StoredWeight::read_rows(int64_t row0, int64_t rows, QuantRows& q) const {
  check(0 <= row0 && row0 + rows <= rows_, "StoredWeight::read_rows: rows in range");
  check(spec_.block.rows == kAll || row0 % spec_.block.rows == 0,
        "StoredWeight::read_rows: a band starts at a block");
  std::vector<uint8_t> codes = std::move(q.codes);  // their memory serves again
  q = {};
  q.codes = std::move(codes);
  q.elem = spec_.elem;
  q.block = spec_.block;
  q.rows = rows;
  q.cols = cols_;
  q.global_scale = global_;
  read_codes(row0, q);
  read_scales(row0, q);
  read_zero_points(row0, q);
}

}  // namespace mantissa
