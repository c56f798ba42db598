// Values of the template language: Python's, as far as chat templates meet them. All are immutable
// but namespaces, loops and iterators that are used up; copying one is cheap.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace mantissa::jinja {

class Value;
using Values = std::vector<Value>;
using Members = std::vector<std::pair<Value, Value>>;  // of a dict, in the order of insertion

// Containers beyond these are refused where they are made, so that no function here recurses deeper
// or visits more. JSON that comes in has at most 64 levels.
inline constexpr int kDepthMax = 100;
inline constexpr size_t kWeightMax = size_t{1} << 26;

struct None {};
struct Undefined {
  std::string message;     // what using it says
  bool forbidden = false;  // by the sandbox
};
struct String {
  std::string text;     // valid UTF-8
  size_t length = 0;    // code points
  bool markup = false;  // came from |safe or |escape: adding text to it escapes the text
  bool ascii() const { return length == text.size(); }
};
enum class SequenceKind : uint8_t { kList, kTuple, kRange, kView, kIterator };
struct Sequence {
  Values items;
  SequenceKind kind = SequenceKind::kList;
  std::string name;  // kView: "dict_items"; kRange: "range(0, 5)"; kIterator: "generator"
  int depth = 1;
  size_t weight = 1;          // of all that is inside, counted as often as it is reached
  mutable bool used = false;  // kIterator: its items have been taken
};
struct Dict {
  Members members;
  int depth = 1;
  size_t weight = 1;
};
struct Namespace {  // owned by the interpreter
  Members members;  // keys are strings
};
struct Loop;      // interpreter.h
struct Function;  // interpreter.h: what can be called

using StringRef = std::shared_ptr<const String>;
using SequenceRef = std::shared_ptr<const Sequence>;
using DictRef = std::shared_ptr<const Dict>;
using LoopRef = std::shared_ptr<Loop>;
using FunctionRef = std::shared_ptr<const Function>;
using UndefinedRef = std::shared_ptr<const Undefined>;

class Value {
 public:
  using Data = std::variant<None, UndefinedRef, bool, int64_t, double, StringRef, SequenceRef,
                            DictRef, Namespace*, LoopRef, FunctionRef>;

  Value() = default;                             // None
  Value(bool v) : data_(v) {}                    // NOLINT(google-explicit-constructor)
  Value(int64_t v) : data_(v) {}                 // NOLINT(google-explicit-constructor)
  Value(double v) : data_(v) {}                  // NOLINT(google-explicit-constructor)
  Value(Namespace* v) : data_(v) {}              // NOLINT(google-explicit-constructor)
  Value(LoopRef v) : data_(std::move(v)) {}      // NOLINT(google-explicit-constructor)
  Value(FunctionRef v) : data_(std::move(v)) {}  // NOLINT(google-explicit-constructor)
  static Value undefined(std::string message, bool forbidden = false);
  static Value string(std::string_view text, bool markup = false);
  // Both throw Error where the result is beyond kDepthMax or kWeightMax.
  static Value sequence(Values items, SequenceKind kind = SequenceKind::kList,
                        std::string name = {});
  static Value dict(Members members);

  template <class T>
  const T* get() const {
    return std::get_if<T>(&data_);
  }
  bool is_none() const { return get<None>() != nullptr; }
  bool is_undefined() const { return get<UndefinedRef>() != nullptr; }
  // nullptr for values of another kind.
  const String* as_string() const { return pointer<StringRef>(); }
  const Sequence* as_sequence() const { return pointer<SequenceRef>(); }
  const Dict* as_dict() const { return pointer<DictRef>(); }
  Loop* as_loop() const { return get<LoopRef>() ? get<LoopRef>()->get() : nullptr; }
  const Function* as_function() const { return pointer<FunctionRef>(); }
  Namespace* as_namespace() const { return get<Namespace*>() ? *get<Namespace*>() : nullptr; }
  bool is_sequence(SequenceKind kind) const {
    return as_sequence() != nullptr && as_sequence()->kind == kind;
  }
  // bool counts as an integer, as in Python.
  std::optional<int64_t> as_integer() const;
  std::optional<double> as_number() const;
  bool is_float() const { return get<double>() != nullptr; }

  int depth() const;
  size_t weight() const;  // what visiting all of it costs: 1, and more for long strings
  bool truth() const;
  const char* type_name() const;  // Python's: "str", "NoneType", ...
  // Whether it may be a key of a dict or a member of a set.
  bool hashable() const;

 private:
  template <class Ref>
  auto pointer() const -> decltype(get<Ref>()->get()) {
    const Ref* ref = get<Ref>();
    return ref ? ref->get() : nullptr;
  }
  Data data_;
};

bool equal(const Value& a, const Value& b);
// Negative, 0, positive; nullopt where Python refuses to order the two.
std::optional<int> order(const Value& a, const Value& b);

// The member of this key, or nullptr.
const Value* find_member(const Members& members, const Value& key);
const Value* find_member(const Members& members, std::string_view key);
// Replaces the value of a key that is there.
void set_member(Members& members, const Value& key, Value value);

}  // namespace mantissa::jinja
