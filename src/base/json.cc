#include "base/json.h"

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/monotonic_resource.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <boost/json/value_stack.hpp>
#include <charconv>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace mantissa::json {

namespace bj = boost::json;

struct DocumentData {
  std::string name;
  bj::monotonic_resource memory;
  std::optional<bj::value> root;  // in memory; never assigned, which would copy it
};

namespace {

std::string fix_for(const std::string& name) {
  return text("correct ", printable(name), ", or get a good copy of it");
}

// Receives what boost::json::basic_parser finds and builds a boost::json::value from it.
class Builder {
 public:
  // NOLINTBEGIN(readability-identifier-naming): the names that Boost asks for
  static constexpr size_t max_object_size = std::numeric_limits<size_t>::max();
  static constexpr size_t max_array_size = max_object_size;
  static constexpr size_t max_key_size = max_object_size;
  static constexpr size_t max_string_size = max_object_size;
  // NOLINTEND(readability-identifier-naming)

  Builder(const std::string& name, int64_t values_max, bj::storage_ptr memory)
      : name_(name), values_left_(values_max) {
    stack_.reset(std::move(memory));
  }
  bj::value release() { return stack_.release(); }

  bool on_document_begin(bj::error_code&) { return true; }
  bool on_document_end(bj::error_code&) { return true; }
  bool on_array_begin(bj::error_code&) { return count(); }
  bool on_array_end(size_t n, bj::error_code&) {
    stack_.push_array(n);
    return true;
  }
  bool on_object_begin(bj::error_code&) { return count(); }
  bool on_object_end(size_t n, bj::error_code&) {
    refuse_duplicates(n);
    stack_.push_object(n);
    return true;
  }
  bool on_key_part(bj::string_view part, size_t, bj::error_code&) {
    stack_.push_chars(part);
    keys_.append(part.data(), part.size());
    return true;
  }
  bool on_key(bj::string_view part, size_t n, bj::error_code&) {
    stack_.push_key(part);
    keys_.append(part.data(), part.size());
    key_lengths_.push_back(n);
    return true;
  }
  bool on_string_part(bj::string_view part, size_t, bj::error_code&) {
    stack_.push_chars(part);
    return true;
  }
  bool on_string(bj::string_view part, size_t, bj::error_code&) {
    stack_.push_string(part);
    return count();
  }
  bool on_number_part(bj::string_view part, bj::error_code&) {
    number_.append(part.data(), part.size());
    return true;
  }
  bool on_int64(int64_t value, bj::string_view, bj::error_code&) {
    number_.clear();
    stack_.push_int64(value);
    return count();
  }
  bool on_uint64(uint64_t value, bj::string_view, bj::error_code&) {
    number_.clear();
    stack_.push_uint64(value);
    return count();
  }
  bool on_double(double approximate, bj::string_view part, bj::error_code&) {
    number_.append(part.data(), part.size());
    stack_.push_double(exact_double(approximate));
    number_.clear();
    return count();
  }
  bool on_bool(bool value, bj::error_code&) {
    stack_.push_bool(value);
    return count();
  }
  bool on_null(bj::error_code&) {
    stack_.push_null();
    return count();
  }
  bool on_comment_part(bj::string_view, bj::error_code&) { return true; }
  bool on_comment(bj::string_view, bj::error_code&) { return true; }

 private:
  bool count() {
    if (--values_left_ >= 0) return true;
    throw Error(text(printable(name_), ": the JSON has too many values"), fix_for(name_));
  }

  // Boost.JSON's own conversion may be off by one ulp; the text decides.
  double exact_double(double approximate) const {
    double value = 0;
    const char* end = number_.data() + number_.size();
    const std::from_chars_result got = std::from_chars(number_.data(), end, value);
    if (got.ec == std::errc() && got.ptr == end && std::isfinite(value)) return value;
    if (got.ec == std::errc::result_out_of_range && std::abs(approximate) < 1) return 0;
    throw Error(text(printable(name_), ": the number ", quoted(number_), " is out of range"),
                fix_for(name_));
  }

  // The last n entries of key_lengths_ are the keys of the object that ends. Sorting keeps the time
  // at n log n whatever the keys; a hash table could be made to degenerate.
  void refuse_duplicates(size_t n) {
    std::vector<std::string_view> keys(n);
    size_t end = keys_.size();
    for (size_t i = n; i-- > 0;) {
      const size_t length = key_lengths_[key_lengths_.size() - n + i];
      end -= length;
      keys[i] = std::string_view(keys_).substr(end, length);
    }
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) {
      throw Error(text(printable(name_), ": the key ", quoted(*twice),
                       " occurs twice in one object; duplicate keys are not allowed"),
                  fix_for(name_));
    }
    keys_.resize(end);
    key_lengths_.resize(key_lengths_.size() - n);
  }

  const std::string& name_;
  int64_t values_left_;
  bj::value_stack stack_;
  std::string number_;               // the text of a number that is not complete yet
  std::string keys_;                 // keys of all open objects, one after the other
  std::vector<size_t> key_lengths_;  // theirs
};

constexpr std::string_view kKindNames[] = {"null",     "a boolean", "a number",
                                           "a string", "an array",  "an object"};

struct Where {
  int64_t line = 1, column = 1;
};
Where where_is(std::string_view json, size_t offset) {
  Where at;
  for (const char c : json.substr(0, offset)) {
    at.column = c == '\n' ? 1 : at.column + 1;
    at.line += c == '\n';
  }
  return at;
}

// Writes the path from `from` to `target` in front of what is in path; false where it is not below.
bool find_path(const bj::value& from, const bj::value& target, std::string& path) {
  if (&from == &target) return true;
  if (const bj::object* object = from.if_object()) {
    for (const bj::key_value_pair& member : *object) {
      if (!find_path(member.value(), target, path)) continue;
      const bool last = path.empty() || path[0] == '[';
      const std::string key(member.key().data(), std::min<size_t>(member.key().size(), 200));
      path = text(key, last ? "" : ".", path);
      return true;
    }
  }
  if (const bj::array* array = from.if_array()) {
    for (size_t i = 0; i < array->size(); ++i) {
      if (!find_path((*array)[i], target, path)) continue;
      const bool last = path.empty() || path[0] == '[';
      path = text("[", i, "]", last ? "" : ".", path);
      return true;
    }
  }
  return false;
}

// The value as the error message shows it.
std::string found_text(const bj::value& value) {
  if (const bj::string* s = value.if_string()) return quoted({s->data(), s->size()});
  if (const bj::array* a = value.if_array()) return text("an array of ", a->size());
  if (const bj::object* o = value.if_object()) return text("an object of ", o->size());
  return bj::serialize(value);
}

std::string range_text(const std::string& what, double least, double most, double lowest,
                       double highest) {
  if (least <= lowest && most >= highest) return what;
  if (most >= highest) return text(what, " of at least ", least);
  if (least <= lowest) return text(what, " of at most ", most);
  return text(what, " from ", least, " to ", most);
}

}  // namespace

Document parse(std::string_view json, std::string name, const Limits& limits) {
  if (static_cast<int64_t>(json.size()) > limits.bytes_max) {
    throw Error(text(printable(name), " has ", json.size(), " bytes of JSON; at most ",
                     limits.bytes_max, " are accepted"),
                "check that this is the right file");
  }
  if (json.starts_with("\xef\xbb\xbf")) {
    throw Error(text(printable(name), ": not valid JSON: begins with a byte order mark (BOM)"),
                text("save ", printable(name), " as UTF-8 without BOM"));
  }
  auto data = std::make_unique<DocumentData>();
  data->name = std::move(name);
  bj::parse_options options;
  options.max_depth = static_cast<size_t>(limits.depth_max);
  bj::basic_parser<Builder> parser(options, data->name, limits.values_max, &data->memory);
  bj::error_code code;
  size_t used = parser.write_some(false, json.data(), json.size(), code);
  if (!code && used < json.size()) code = bj::error::extra_data;
  if (code) {
    const Where at = where_is(json, used);
    throw Error(text(printable(data->name), ", line ", at.line, ", column ", at.column,
                     ": not valid JSON: ", code.message()),
                fix_for(data->name));
  }
  data->root.emplace(parser.handler().release());
  return Document(std::move(data));
}

Document parse_file(const std::filesystem::path& path, const Limits& limits) {
  return parse(read_file(path, limits.bytes_max), path.string(), limits);
}

Document::Document(std::unique_ptr<DocumentData> data) : data_(std::move(data)) {}
Document::~Document() = default;
Document::Document(Document&&) noexcept = default;
Document& Document::operator=(Document&&) noexcept = default;
Value Document::root() const {
  return {*data_->root, *data_};
}

Kind Value::kind() const {
  switch (value_->kind()) {
    case bj::kind::null:
      return Kind::kNull;
    case bj::kind::bool_:
      return Kind::kBool;
    case bj::kind::string:
      return Kind::kString;
    case bj::kind::array:
      return Kind::kArray;
    case bj::kind::object:
      return Kind::kObject;
    default:
      return Kind::kNumber;
  }
}

bool Value::is_integer() const {
  return value_->is_int64();
}

std::string Value::path() const {
  std::string path;
  find_path(*document_->root, *value_, path);
  return path;
}

std::string Value::to_json() const {
  return bj::serialize(*value_);
}

void Value::fail(std::string_view expected) const {
  const std::string place = path();
  throw Error(
      text(printable(document_->name), ": ", place.empty() ? "the top level" : printable(place),
           ": expected ", expected, ", found ", found_text(*value_)),
      fix_for(document_->name));
}

std::optional<Value> Value::find(std::string_view key) const {
  const bj::object* object = value_->if_object();
  if (object == nullptr) fail(kKindNames[static_cast<size_t>(Kind::kObject)]);
  const bj::value* found = object->if_contains({key.data(), key.size()});
  if (found == nullptr) return std::nullopt;
  return Value(*found, *document_);
}

std::optional<Value> Value::find_set(std::string_view key) const {
  const std::optional<Value> found = find(key);
  return found && !found->is_null() ? found : std::nullopt;
}

Value Value::at(std::string_view key) const {
  const std::optional<Value> found = find(key);
  if (!found) fail(text("an object with the key ", quoted(key)));
  return *found;
}

size_t Value::size() const {
  if (const bj::array* array = value_->if_array()) return array->size();
  if (const bj::object* object = value_->if_object()) return object->size();
  fail("an array or an object");
}

Value Value::operator[](size_t i) const {
  const bj::array* array = value_->if_array();
  if (array == nullptr) fail(kKindNames[static_cast<size_t>(Kind::kArray)]);
  check(i < array->size(), "json::Value[] in range");
  return {(*array)[i], *document_};
}

std::pair<std::string_view, Value> Value::member(size_t i) const {
  const bj::object* object = value_->if_object();
  if (object == nullptr) fail(kKindNames[static_cast<size_t>(Kind::kObject)]);
  check(i < object->size(), "json::Value::member in range");
  const bj::key_value_pair& member = object->begin()[i];
  return {std::string_view(member.key().data(), member.key().size()),
          Value(member.value(), *document_)};
}

bool Value::as_bool() const {
  if (!value_->is_bool()) fail("true or false");
  return value_->get_bool();
}

std::string_view Value::as_string() const {
  const bj::string* string = value_->if_string();
  if (string == nullptr) fail(kKindNames[static_cast<size_t>(Kind::kString)]);
  return {string->data(), string->size()};
}

int64_t Value::as_int(int64_t least, int64_t most) const {
  const int64_t* number = value_->if_int64();
  if (number != nullptr && least <= *number && *number <= most) return *number;
  using Range = std::numeric_limits<int64_t>;
  if (least == Range::min() && most == Range::max()) fail("an integer");
  if (most == Range::max()) fail(text("an integer of at least ", least));
  fail(text("an integer from ", least, " to ", most));
}

double Value::as_number(double least, double most) const {
  double number = 0;
  bool known = true;
  if (const double* d = value_->if_double()) {
    number = *d;
  } else if (const int64_t* i = value_->if_int64()) {
    number = static_cast<double>(*i);
  } else if (const uint64_t* u = value_->if_uint64()) {
    number = static_cast<double>(*u);
  } else {
    known = false;
  }
  if (known && least <= number && number <= most) return number;
  using Range = std::numeric_limits<double>;
  fail(range_text("a number", least, most, Range::lowest(), Range::max()));
}

}  // namespace mantissa::json
