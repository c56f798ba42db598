#include "io/stored_writer.h"

#include <algorithm>
#include <cstring>

#include "base/convert.h"
#include "base/error.h"
#include "base/file.h"

namespace mantissa {
namespace {

constexpr std::string_view kCt = "compressed-tensors";

int64_t blocks_along(int64_t size, int block) {
  return block == kAll ? 1 : (size + block - 1) / block;
}
int64_t words_of(int64_t values, int bits) {
  return (values * bits + 31) / 32;
}

const DialectRow* find_row(std::string_view method, std::string_view format) {
  for (const DialectRow& row : dialects())
    if (row.method == method && row.format == format) return &row;
  return nullptr;
}

// The format that llm-compressor gives such a scheme; empty: none.
std::string_view ct_format(const Scheme& scheme) {
  const Spec& w = scheme.weight;
  if (!w.quantized() || w.codebook) return "";
  if (w.global_scale) return "nvfp4-pack-quantized";
  if (*w.scale == kE8M0)
    return *w.elem == kE4M3 ? "mxfp8-quantized" : *w.elem == kE2M1 ? "mxfp4-pack-quantized" : "";
  if (w.elem->is_float()) return *w.elem == kE4M3 ? "float-quantized" : "";
  const Spec& a = scheme.activation;
  if (a.quantized() && a.elem->is_float()) return "";
  const bool plain = a.quantized() && w.elem->bits() == 8 && w.block.cols == kAll;
  return plain ? "int-quantized" : "pack-quantized";
}

// AutoFP8: per tensor; DeepSeek: tiles with groups of 128.
const DialectRow* fp8_row(const Scheme& scheme) {
  const Spec &w = scheme.weight, &a = scheme.activation;
  const bool e4m3 =
      w.quantized() && *w.elem == kE4M3 && *w.scale == kF32 && a.quantized() && *a.elem == kE4M3;
  if (e4m3 && w.block == per_tensor() && a.block.cols == kAll) return find_row("fp8", "");
  if (e4m3 && w.block == per_tile(128) && a.block == per_group(128))
    return find_row("fp8", "block");
  return nullptr;
}

std::string args_json(const Spec& spec, bool weight) {
  std::string strategy = "\"tensor\"", more;
  if (spec.global_scale) {
    strategy = "\"tensor_group\"";
    more = ", \"group_size\": 16, \"scale_dtype\": \"torch.float8_e4m3fn\"";
  } else if (spec.block == per_row()) {
    strategy = weight ? "\"channel\"" : "\"token\"";
  } else if (spec.block == per_tile(128)) {
    strategy = "\"block\"";
    more = ", \"block_structure\": [128, 128]";
  } else if (spec.block.rows == 1) {
    strategy = "\"group\"";
    more = text(", \"group_size\": ", spec.block.cols);
  }
  if (*spec.scale == kE8M0) more += ", \"scale_dtype\": \"torch.uint8\"";
  const bool local = !weight && spec.global_scale && spec.when == When::kStatic;
  const char* dynamic = local ? "\"local\"" : spec.when == When::kPerCall ? "true" : "false";
  return text("{\"num_bits\": ", spec.elem->bits(), ", \"type\": \"",
              spec.elem->is_float() ? "float" : "int",
              "\", \"symmetric\": ", spec.asymmetric ? "false" : "true",
              ", \"strategy\": ", strategy, more, ", \"dynamic\": ", dynamic, "}");
}

std::string names_json(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += text(out.empty() ? "\"" : ", \"", name, "\"");
  return "[" + out + "]";
}

void put_bits(std::vector<uint32_t>& words, int64_t i, int bits, uint32_t value) {
  const int64_t at = i * bits;
  const int shift = static_cast<int>(at % 32);
  words[static_cast<size_t>(at / 32)] |= value << shift;
  if (shift + bits > 32) words[static_cast<size_t>(at / 32 + 1)] |= value >> (32 - shift);
}

template <class T>
std::span<const std::byte> bytes(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

const DialectRow& dialect_for(std::string_view format, const Scheme& scheme) {
  const DialectRow* row = nullptr;
  std::string has;
  if (format == "fp8") {
    row = fp8_row(scheme);
    has = "fp8, fp8_static, fp8:act=token and fp8_block";
  } else if (format == kCt) {
    const std::string_view name = ct_format(scheme);
    if (!name.empty()) row = find_row(kCt, name);
    has = "FP8, int8 and int1 to int8 weight-only schemes, int4_int8, MXFP8, MXFP4 and NVFP4";
  } else {
    throw Error(text("--format ", quoted(format), " is not written"),
                "use fp8 or compressed-tensors");
  }
  if (row == nullptr) {
    throw Error(text("--format ", format, " cannot hold scheme ", scheme.name),
                text("choose another scheme: it has ", has));
  }
  return *row;
}

std::string quantization_config_of(const DialectRow& dialect, const Scheme& scheme,
                                   const std::vector<std::string>& ignored) {
  if (dialect.method == "fp8") {
    const bool fixed = scheme.activation.when == When::kStatic;
    return text("{\"quant_method\": \"fp8\", \"activation_scheme\": \"",
                fixed ? "static" : "dynamic", "\", ",
                dialect.format.empty() ? "" : "\"weight_block_size\": [128, 128], ",
                dialect.format.empty() ? "\"ignored_layers\": " : "\"modules_to_not_convert\": ",
                names_json(ignored), "}");
  }
  const std::string input =
      scheme.activation.quantized() ? args_json(scheme.activation, false) : "null";
  return text("{\"quant_method\": \"", dialect.method, "\", \"format\": \"", dialect.format,
              "\", \"quantization_status\": \"compressed\", \"config_groups\": {\"group_0\": "
              "{\"targets\": [\"Linear\"], \"weights\": ",
              args_json(scheme.weight, true), ", \"input_activations\": ", input,
              ", \"output_activations\": null}}, \"ignore\": ", names_json(ignored),
              ", \"kv_cache_scheme\": null}");
}

StoredWriter::StoredWriter(const DialectRow& dialect, const Scheme& scheme, std::string module,
                           int64_t rows, int64_t cols)
    : dialect_(dialect),
      scheme_(scheme),
      module_(std::move(module)),
      rows_(rows),
      cols_(cols),
      scale_rows_(blocks_along(rows, scheme.weight.block.rows)),
      scale_cols_(blocks_along(cols, scheme.weight.block.cols)) {
  const Block block = scheme.weight.block;
  const bool groups = block.rows == 1 && block.cols != kAll;
  if ((groups && cols % block.cols != 0) ||
      (dialect.packing == Packing::kNibbles && cols % 2 != 0)) {
    throw Error(text(module_, ": ", cols, " inputs are no multiple of the group of ", block.cols,
                     ", which ", dialect.name, " cannot hold"),
                "choose another group size, or leave the module out with --ignore");
  }
}

std::vector<int64_t> StoredWriter::one() const {
  return dialect_.method == "fp8" ? std::vector<int64_t>{} : std::vector<int64_t>{1};
}

std::vector<TensorSpec> StoredWriter::tensors() const {
  const Spec& w = scheme_.weight;
  const int bits = w.elem->bits();
  const bool words = dialect_.packing == Packing::kWords;
  std::vector<TensorSpec> out;
  const auto add = [&](std::string_view suffix, std::string_view dtype,
                       std::vector<int64_t> shape) {
    out.push_back({name(suffix), find_dtype(dtype), std::move(shape)});
  };
  if (words) {
    add(dialect_.codes, "I32", {rows_, words_of(cols_, bits)});
  } else if (dialect_.packing == Packing::kNibbles) {
    add(dialect_.codes, "U8", {rows_, cols_ / 2});
  } else {
    add(dialect_.codes, w.elem->is_float() ? "F8_E4M3" : "I8", {rows_, cols_});
  }
  const bool single = w.block == per_tensor();
  const std::string_view scale = *w.scale == kE8M0   ? "U8"
                                 : *w.scale == kE4M3 ? "F8_E4M3"
                                 : *w.scale == kBF16 ? "BF16"
                                                     : "F32";
  add(dialect_.scale, scale, single ? one() : std::vector<int64_t>{scale_rows_, scale_cols_});
  if (w.asymmetric) {
    const int64_t zero_rows = words ? words_of(scale_rows_, bits) : scale_rows_;
    add(dialect_.zero_point, words ? "I32" : "I8", {zero_rows, scale_cols_});
  }
  if (w.global_scale) add(dialect_.global_scale, "F32", {1});
  if (!dialect_.shape.empty()) add(dialect_.shape, "I64", {2});
  if (needs_calibration(scheme_)) {
    add(dialect_.input_scale, "F32", one());
    if (scheme_.activation.asymmetric) add(dialect_.input_zero_point, "I8", one());
  }
  return out;
}

void StoredWriter::write_codes(SafetensorsWriter& out, const QuantRows& band) const {
  const Elem& elem = *scheme_.weight.elem;
  const int bits = elem.bits();
  if (dialect_.packing == Packing::kWords) {
    const int64_t width = words_of(cols_, bits);
    std::vector<uint32_t> words(static_cast<size_t>(width)), all;
    const uint32_t mask = code_mask(elem), offset = 1u << (bits - 1);
    for (int64_t r = 0; r < band.rows; ++r) {
      std::ranges::fill(words, 0u);
      for (int64_t c = 0; c < cols_; ++c) {
        const uint32_t code = band.codes[static_cast<size_t>(r * cols_ + c)];
        put_bits(words, c, bits, (code + offset) & mask);
      }
      all.insert(all.end(), words.begin(), words.end());
    }
    return out.write(name(dialect_.codes), bytes(all));
  }
  if (dialect_.packing == Packing::kNibbles) {
    std::vector<uint8_t> packed(band.codes.size() / 2);
    for (size_t i = 0; i < packed.size(); ++i)
      packed[i] = static_cast<uint8_t>(band.codes[2 * i] | band.codes[2 * i + 1] << 4);
    return out.write(name(dialect_.codes), bytes(packed));
  }
  std::vector<uint8_t> codes = band.codes;
  if (!elem.is_float() && bits < 8) {  // sign-extended
    for (uint8_t& code : codes) code = static_cast<uint8_t>(static_cast<int>(decode(elem, code)));
  }
  out.write(name(dialect_.codes), bytes(codes));
}

void StoredWriter::write(SafetensorsWriter& out, const QuantRows& band) {
  write_codes(out, band);
  global_ = band.global_scale;
  if (scheme_.weight.block == per_tensor() && !scales_.empty()) return;
  scales_.insert(scales_.end(), band.scales.begin(), band.scales.end());
  zeros_.insert(zeros_.end(), band.zero_points.begin(), band.zero_points.end());
}

void StoredWriter::finish(SafetensorsWriter& out, const StaticScale& input) {
  const Spec& w = scheme_.weight;
  const int bits = w.elem->bits();
  check(std::ssize(scales_) == scale_rows_ * scale_cols_, "StoredWriter: every band was written");
  if (*w.scale == kF32) {
    out.write(name(dialect_.scale), bytes(scales_));
  } else {
    const auto size = static_cast<size_t>(w.scale->bits() / 8);
    std::vector<uint8_t> stored;
    for (const float scale : scales_) {
      const uint32_t code = encode(*w.scale, static_cast<double>(scale));
      for (size_t i = 0; i < size; ++i) stored.push_back(static_cast<uint8_t>(code >> (8 * i)));
    }
    out.write(name(dialect_.scale), bytes(stored));
  }
  if (w.asymmetric && dialect_.packing == Packing::kWords) {
    const int64_t height = words_of(scale_rows_, bits);
    std::vector<uint32_t> all(static_cast<size_t>(height * scale_cols_));
    std::vector<uint32_t> column(static_cast<size_t>(height));
    for (int64_t g = 0; g < scale_cols_; ++g) {
      std::ranges::fill(column, 0u);
      for (int64_t r = 0; r < scale_rows_; ++r) {
        const int32_t zero = zeros_[static_cast<size_t>(r * scale_cols_ + g)];
        put_bits(column, r, bits, static_cast<uint32_t>(zero + (1 << (bits - 1))));
      }
      for (int64_t i = 0; i < height; ++i)
        all[static_cast<size_t>(i * scale_cols_ + g)] = column[static_cast<size_t>(i)];
    }
    out.write(name(dialect_.zero_point), bytes(all));
  } else if (w.asymmetric) {
    const std::vector<int8_t> narrow(zeros_.begin(), zeros_.end());
    out.write(name(dialect_.zero_point), bytes(narrow));
  }
  const auto one_f32 = [&](std::string_view suffix, float value) {
    out.write(name(suffix), bytes(std::vector<float>{value}));
  };
  if (w.global_scale) one_f32(dialect_.global_scale, 1 / global_);
  if (!dialect_.shape.empty()) {
    out.write(name(dialect_.shape), bytes(std::vector<int64_t>{rows_, cols_}));
  }
  if (!needs_calibration(scheme_)) return;
  one_f32(dialect_.input_scale,
          scheme_.activation.global_scale ? 1 / input.global_scale : input.scale);
  if (scheme_.activation.asymmetric) {
    const auto zero = static_cast<int8_t>(input.zero_point);
    out.write(name(dialect_.input_zero_point), bytes(std::vector<int8_t>{zero}));
  }
}

}  // namespace mantissa
