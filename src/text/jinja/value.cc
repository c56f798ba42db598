// Values of the template language: see value.h.
#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/utf8.h"

namespace mantissa::jinja {
namespace {

struct Extent {
  int depth = 0;
  size_t weight = 0;
  void add(const Value& v) {
    depth = std::max(depth, v.depth());
    weight = std::min(weight + v.weight(), kWeightMax + 1);
  }
  void check() const {
    if (depth < kDepthMax && weight <= kWeightMax) return;
    throw Error(text("the chat template makes a value of more than ", kDepthMax, " levels or ",
                     kWeightMax, " parts"),
                "use another template (--chat-template FILE)");
  }
};

template <class... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

}  // namespace

Value Value::undefined(std::string message, bool forbidden) {
  Value out;
  out.data_ = std::make_shared<const Undefined>(Undefined{std::move(message), forbidden});
  return out;
}

Value Value::string(std::string_view text, bool markup) {
  Value out;
  const auto continues = [](char c) { return (static_cast<uint8_t>(c) & 0xC0) == 0x80; };
  const auto more = static_cast<size_t>(std::count_if(text.begin(), text.end(), continues));
  out.data_ = std::make_shared<const String>(String{std::string(text), text.size() - more, markup});
  return out;
}

Value Value::sequence(Values items, SequenceKind kind, std::string name) {
  Extent inside;
  for (const Value& item : items) inside.add(item);
  inside.check();
  Value out;
  out.data_ = std::make_shared<const Sequence>(
      Sequence{std::move(items), kind, std::move(name), inside.depth + 1, inside.weight + 1});
  return out;
}

Value Value::dict(Members members) {
  Extent inside;
  for (const auto& [key, value] : members) {
    inside.add(key);
    inside.add(value);
  }
  inside.check();
  Value out;
  out.data_ =
      std::make_shared<const Dict>(Dict{std::move(members), inside.depth + 1, inside.weight + 1});
  return out;
}

std::optional<int64_t> Value::as_integer() const {
  if (const bool* b = get<bool>()) return *b ? 1 : 0;
  if (const int64_t* i = get<int64_t>()) return *i;
  return std::nullopt;
}

std::optional<double> Value::as_number() const {
  if (const double* d = get<double>()) return *d;
  if (const auto i = as_integer()) return static_cast<double>(*i);
  return std::nullopt;
}

int Value::depth() const {
  if (const Sequence* s = as_sequence()) return s->depth;
  if (const Dict* d = as_dict()) return d->depth;
  return 0;
}

size_t Value::weight() const {
  if (const String* s = as_string()) return 1 + s->text.size() / 8;
  if (const Sequence* s = as_sequence()) return s->weight;
  if (const Dict* d = as_dict()) return d->weight;
  return 1;
}

bool Value::truth() const {
  return std::visit(Overloaded{[](None) { return false; },
                               [](const UndefinedRef&) { return false; }, [](bool v) { return v; },
                               [](int64_t v) { return v != 0; }, [](double v) { return v != 0; },
                               [](const StringRef& v) { return !v->text.empty(); },
                               [](const SequenceRef& v) {
                                 return v->kind == SequenceKind::kIterator || !v->items.empty();
                               },
                               [](const DictRef& v) { return !v->members.empty(); },
                               [](Namespace*) { return true; }, [](const LoopRef&) { return true; },
                               [](const FunctionRef&) { return true; }},
                    data_);
}

const char* Value::type_name() const {
  return std::visit(
      Overloaded{[](None) { return "NoneType"; }, [](const UndefinedRef&) { return "Undefined"; },
                 [](bool) { return "bool"; }, [](int64_t) { return "int"; },
                 [](double) { return "float"; },
                 [](const StringRef& v) { return v->markup ? "Markup" : "str"; },
                 [](const SequenceRef& v) {
                   switch (v->kind) {
                     case SequenceKind::kList:
                       return "list";
                     case SequenceKind::kTuple:
                       return "tuple";
                     case SequenceKind::kRange:
                       return "range";
                     default:
                       return v->name.c_str();
                   }
                 },
                 [](const DictRef&) { return "dict"; }, [](Namespace*) { return "Namespace"; },
                 [](const LoopRef&) { return "LoopContext"; },
                 [](const FunctionRef&) { return "function"; }},
      data_);
}

bool Value::hashable() const {
  if (as_dict() != nullptr) return false;
  const Sequence* s = as_sequence();
  if (s == nullptr) return true;
  if (s->kind == SequenceKind::kTuple) {
    return std::all_of(s->items.begin(), s->items.end(),
                       [](const Value& v) { return v.hashable(); });
  }
  return s->kind == SequenceKind::kRange || s->kind == SequenceKind::kIterator;
}

namespace {

bool equal_dicts(const Dict& a, const Dict& b) {
  if (a.members.size() != b.members.size()) return false;
  return std::all_of(a.members.begin(), a.members.end(), [&](const auto& member) {
    const Value* other = find_member(b.members, member.first);
    return other != nullptr && equal(member.second, *other);
  });
}

int compare_numbers(const Value& a, const Value& b) {
  if (!a.is_float() && !b.is_float()) {
    const int64_t x = *a.as_integer(), y = *b.as_integer();
    return x < y ? -1 : x > y ? 1 : 0;
  }
  const double x = *a.as_number(), y = *b.as_number();
  return x < y ? -1 : x > y ? 1 : 0;
}
bool not_a_number(const Value& v) {
  return v.is_float() && std::isnan(*v.get<double>());
}

}  // namespace

bool equal(const Value& a, const Value& b) {
  if (a.is_undefined() || b.is_undefined()) return a.is_undefined() && b.is_undefined();
  if (a.is_none() || b.is_none()) return a.is_none() && b.is_none();
  if (a.as_number() && b.as_number()) {
    return !not_a_number(a) && !not_a_number(b) && compare_numbers(a, b) == 0;
  }
  if (a.as_string() && b.as_string()) return a.as_string()->text == b.as_string()->text;
  if (a.as_dict() && b.as_dict()) return equal_dicts(*a.as_dict(), *b.as_dict());
  const Sequence* s = a.as_sequence();
  const Sequence* t = b.as_sequence();
  if (s && t) {
    if (s == t) return true;
    if (s->kind != t->kind || s->kind == SequenceKind::kIterator) return false;
    return std::equal(s->items.begin(), s->items.end(), t->items.begin(), t->items.end(), equal);
  }
  if (a.as_namespace() && b.as_namespace()) return a.as_namespace() == b.as_namespace();
  if (a.as_loop() && b.as_loop()) return a.as_loop() == b.as_loop();
  return a.as_function() && a.as_function() == b.as_function();
}

std::optional<int> order(const Value& a, const Value& b) {
  if (a.as_number() && b.as_number()) return compare_numbers(a, b);
  if (a.as_string() && b.as_string()) {  // the order of UTF-8 is that of code points
    return a.as_string()->text.compare(b.as_string()->text);
  }
  const Sequence* s = a.as_sequence();
  const Sequence* t = b.as_sequence();
  const bool ordered = s && t && s->kind == t->kind &&
                       (s->kind == SequenceKind::kList || s->kind == SequenceKind::kTuple);
  if (!ordered) return std::nullopt;
  const size_t shared = std::min(s->items.size(), t->items.size());
  for (size_t i = 0; i < shared; ++i) {
    if (!equal(s->items[i], t->items[i])) return order(s->items[i], t->items[i]);
  }
  return s->items.size() < t->items.size() ? -1 : s->items.size() > t->items.size() ? 1 : 0;
}

const Value* find_member(const Members& members, const Value& key) {
  for (const auto& [k, v] : members) {
    if (equal(k, key)) return &v;
  }
  return nullptr;
}

const Value* find_member(const Members& members, std::string_view key) {
  for (const auto& [k, v] : members) {
    if (k.as_string() && k.as_string()->text == key) return &v;
  }
  return nullptr;
}

void set_member(Members& members, const Value& key, Value value) {
  for (auto& [k, v] : members) {
    if (!equal(k, key)) continue;
    v = std::move(value);
    return;
  }
  members.emplace_back(key, std::move(value));
}

}  // namespace mantissa::jinja
