// JSON from untrusted files, over Boost.JSON: depth, size and number of values are limited,
// duplicate keys, NaN and Infinity are refused, and every error names the file and the place in it:
//   config.json: rope_scaling.factor: expected a number from 1 to 1024, found "8"
// Doubles are rounded correctly (Boost.JSON 1.81 by itself is off by one ulp at times).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace boost::json {
class value;
}

namespace mantissa::json {

enum class Kind : uint8_t { kNull, kBool, kNumber, kString, kArray, kObject };

struct Limits {
  int64_t bytes_max = int64_t{64} << 20;
  int64_t values_max = 16'000'000;  // bounds the memory: [1,1,1,...] needs 16 bytes per 2 of text
  int depth_max = 64;
};

struct DocumentData;

// One value of a Document, as cheap as a pointer; valid while the Document lives. Every function
// that does not fit the value (as_int of a string, size of a number) throws Error with its path.
class Value {
 public:
  Value(const boost::json::value& value, const DocumentData& document)
      : value_(&value), document_(&document) {}

  Kind kind() const;
  bool is_null() const { return kind() == Kind::kNull; }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_number() const { return kind() == Kind::kNumber; }
  bool is_integer() const;  // a number without fraction and exponent that fits int64_t
  bool is_array() const { return kind() == Kind::kArray; }
  bool is_object() const { return kind() == Kind::kObject; }

  // Objects. find: nullopt where there is no such key; find_set: also where it is null.
  std::optional<Value> find(std::string_view key) const;
  std::optional<Value> find_set(std::string_view key) const;
  Value at(std::string_view key) const;  // throws Error where there is no such key

  // Objects and arrays: members in the order of the file, i < size().
  size_t size() const;
  Value operator[](size_t i) const;                           // arrays
  std::pair<std::string_view, Value> member(size_t i) const;  // objects

  bool as_bool() const;
  std::string_view as_string() const;
  int64_t as_int(int64_t least = std::numeric_limits<int64_t>::min(),
                 int64_t most = std::numeric_limits<int64_t>::max()) const;
  // Integers count as numbers.
  double as_number(double least = std::numeric_limits<double>::lowest(),
                   double most = std::numeric_limits<double>::max()) const;

  std::string path() const;     // "rope_scaling.factor", "model.merges[3]"; empty at the top
  std::string to_json() const;  // serialized again
  // Throws "FILE: PATH: expected EXPECTED, found VALUE".
  [[noreturn]] void fail(std::string_view expected) const;

 private:
  const boost::json::value* value_;
  const DocumentData* document_;
};

// Owns what its Values point to. Move-only; moving keeps Values valid.
class Document {
 public:
  explicit Document(std::unique_ptr<DocumentData> data);
  ~Document();
  Document(Document&&) noexcept;
  Document& operator=(Document&&) noexcept;

  Value root() const;

 private:
  std::unique_ptr<DocumentData> data_;
};

// name: what errors call the document, usually the file's path. Throws Error.
Document parse(std::string_view text, std::string name, const Limits& limits = {});
Document parse_file(const std::filesystem::path& path, const Limits& limits = {});

}  // namespace mantissa::json
