// Filters of lists, dicts and other things that can be iterated: one row each.
#include <algorithm>

#include "base/error.h"
#include "text/jinja/format.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/registry.h"
#include "text/python_text.h"

namespace mantissa::jinja {
namespace {

// "user.name" as jinja2 reads it: parts of digits are indices.
Values attribute_path(Interpreter& in, const Value& attribute) {
  Values out;
  const String* s = attribute.as_string();
  if (s == nullptr) return {attribute};
  for (std::string_view part : python::split(s->text, ".", -1, false)) {
    const bool digits =
        !part.empty() && part.size() < 10 && part.find_first_not_of("0123456789") == part.npos;
    out.push_back(digits ? Value(int64_t{std::stoll(std::string(part))}) : in.string(part));
  }
  return out;
}
Value follow(Interpreter& in, Value item, const Values& path, const Value* otherwise = nullptr) {
  for (const Value& part : path) {
    item = in.item(item, part);
    if (otherwise && item.is_undefined()) item = *otherwise;
  }
  return item;
}

Value without_case(Interpreter& in, const Value& v, bool case_sensitive) {
  const String* s = v.as_string();
  return s && !case_sensitive ? in.string(python::lower(s->text)) : v;
}

bool flag(const Bound& args, size_t i) {
  return args.given(i) && args[i].truth();
}

struct Keyed {
  Value key, item;
};
Values sorted(Interpreter& in, std::vector<Keyed> rows, bool reverse) {
  in.charge(rows.size() * 20);
  std::stable_sort(rows.begin(), rows.end(), [&](const Keyed& a, const Keyed& b) {
    return reverse ? in.less(b.key, a.key) : in.less(a.key, b.key);
  });
  Values out;
  for (Keyed& row : rows) out.push_back(std::move(row.item));
  return out;
}

Value length(Interpreter& in, const Value& self, const Bound&) {
  if (const String* s = self.as_string()) return static_cast<int64_t>(s->length);
  if (const Dict* d = self.as_dict()) return std::ssize(d->members);
  if (Loop* loop = self.as_loop()) return in.loop_length(*loop);
  const Sequence* list = self.as_sequence();
  if (list && list->kind != SequenceKind::kIterator) return std::ssize(list->items);
  if (self.is_undefined()) return std::ssize(in.items_of(self));
  in.fail(text("object of type '", self.type_name(), "' has no len()"));
}

Value to_list(Interpreter& in, const Value& self, const Bound&) {
  return in.list(in.items_of(self));
}

Value join(Interpreter& in, const Value& self, const Bound& args) {
  const std::string between = args.given(0) ? to_text(args[0], in) : "";
  const Values path = args.set(1) ? attribute_path(in, args[1]) : Values();
  std::string out;
  bool first = true;
  for (const Value& item : in.items_of(self)) {
    if (!first) out += between;
    first = false;
    out += to_text(follow(in, item, path), in);
    if (out.size() > kTextBytesMax) in.fail("a text exceeds the limit of its length");
  }
  return in.string(out);
}

Value first_item(Interpreter& in, const Value& self, const Bound&) {
  const Values items = in.items_of(self);
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}
Value last_item(Interpreter& in, const Value& self, const Bound&) {
  if (self.is_sequence(SequenceKind::kIterator)) in.fail("'generator' object is not reversible");
  const Values items = in.items_of(self);
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value reverse(Interpreter& in, const Value& self, const Bound&) {
  Values items = in.items_of(self);
  std::reverse(items.begin(), items.end());
  if (self.as_string() == nullptr) return in.iterator(std::move(items));
  std::string out;
  for (const Value& item : items) out += item.as_string()->text;
  return in.string(out);
}

Value items(Interpreter& in, const Value& self, const Bound&) {
  if (self.is_undefined()) return in.iterator(in.items_of(self));
  const Dict* dict = self.as_dict();
  if (dict == nullptr) in.fail("Can only get item pairs from a mapping.");
  Values out;
  for (const auto& [key, value] : dict->members)
    out.push_back(in.list({key, value}, SequenceKind::kTuple));
  return in.iterator(std::move(out));
}

Value dict_sort(Interpreter& in, const Value& self, const Bound& args) {
  const Dict* dict = in.defined(self).as_dict();
  if (dict == nullptr) in.fail(text("dictsort needs a mapping, not ", self.type_name()));
  const std::string by = args.given(1) ? to_text(args[1], in) : "key";
  if (by != "key" && by != "value") in.fail("You can only sort by either \"key\" or \"value\"");
  std::vector<Keyed> rows;
  for (const auto& [key, value] : dict->members) {
    rows.push_back({without_case(in, by == "key" ? key : value, flag(args, 0)),
                    in.list({key, value}, SequenceKind::kTuple)});
  }
  return in.list(sorted(in, std::move(rows), flag(args, 2)));
}

Value sort(Interpreter& in, const Value& self, const Bound& args) {
  std::vector<Values> paths;
  if (args.set(2) && args[2].as_string()) {
    for (std::string_view path : python::split(args[2].as_string()->text, ",", -1, false)) {
      paths.push_back(attribute_path(in, in.string(path)));
    }
  } else {
    paths.push_back(args.set(2) ? Values{args[2]} : Values());
  }
  std::vector<Keyed> rows;
  for (const Value& item : in.items_of(self)) {
    Values key;
    for (const Values& path : paths) {
      key.push_back(without_case(in, follow(in, item, path), flag(args, 1)));
    }
    rows.push_back({in.list(std::move(key)), item});
  }
  return in.list(sorted(in, std::move(rows), flag(args, 0)));
}

Value unique(Interpreter& in, const Value& self, const Bound& args) {
  const Values path = args.set(1) ? attribute_path(in, args[1]) : Values();
  Values out, seen;
  for (const Value& item : in.items_of(self)) {
    Value key = without_case(in, follow(in, item, path), flag(args, 0));
    if (!key.hashable()) in.fail(text("unhashable type: '", key.type_name(), "'"));
    in.charge(seen.size());
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& v) { return equal(v, key); }))
      continue;
    seen.push_back(std::move(key));
    out.push_back(item);
  }
  return in.iterator(std::move(out));
}

Value extreme(Interpreter& in, const Value& self, const Bound& args, bool largest) {
  const Values path = args.set(1) ? attribute_path(in, args[1]) : Values();
  const Values all = in.items_of(self);
  if (all.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  Value best = all[0];
  Value best_key = without_case(in, follow(in, all[0], path), flag(args, 0));
  for (size_t i = 1; i < all.size(); ++i) {
    Value key = without_case(in, follow(in, all[i], path), flag(args, 0));
    if (!(largest ? in.less(best_key, key) : in.less(key, best_key))) continue;
    best = all[i];
    best_key = std::move(key);
  }
  return best;
}
Value smallest(Interpreter& in, const Value& self, const Bound& args) {
  return extreme(in, self, args, false);
}
Value largest(Interpreter& in, const Value& self, const Bound& args) {
  return extreme(in, self, args, true);
}

Value sum(Interpreter& in, const Value& self, const Bound& args) {
  const Values path = args.set(0) ? attribute_path(in, args[0]) : Values();
  Value total = args.get(1, int64_t{0});
  for (const Value& item : in.items_of(self)) {
    total = in.binary(Operator::kAdd, total, follow(in, item, path));
  }
  return total;
}

// The rest of the arguments: those of the filter or test that is named.
Arguments behind(const Arguments& all, size_t count) {
  Arguments out;
  if (all.positional.size() > count) {
    out.positional.assign(all.positional.begin() + static_cast<std::ptrdiff_t>(count),
                          all.positional.end());
  }
  out.named = all.named;
  return out;
}
const Value* named(const Arguments& all, std::string_view name) {
  for (const auto& [key, value] : all.named) {
    if (key == name) return &value;
  }
  return nullptr;
}
std::string name_at(Interpreter& in, const Arguments& all, size_t i, const char* what) {
  if (i >= all.positional.size() || !all.positional[i].as_string())
    in.fail(text(what, " needs a name"));
  return all.positional[i].as_string()->text;
}

Value map(Interpreter& in, const Value& self, const Bound& args) {
  const Arguments& all = args.all();
  Values out;
  if (!self.truth()) return in.iterator({});  // also of None
  if (const Value* attribute = all.positional.empty() ? named(all, "attribute") : nullptr) {
    const Values path = attribute_path(in, *attribute);
    const Value* otherwise = named(all, "default");
    if (all.named.size() > (otherwise ? 2u : 1u))
      in.fail("map() got an unexpected keyword argument");
    for (const Value& item : in.items_of(self)) out.push_back(follow(in, item, path, otherwise));
    return in.iterator(std::move(out));
  }
  const std::string name = name_at(in, all, 0, "map()");
  const FilterRow* row = find_filter(name);
  if (row == nullptr) in.fail(text("the filter '", name, "' is not supported"));
  const Arguments rest = behind(all, 1);
  for (const Value& item : in.items_of(self)) out.push_back(in.filter(*row, item, rest));
  return in.iterator(std::move(out));
}

template <bool Attribute, bool Wanted>
Value select(Interpreter& in, const Value& self, const Bound& args) {
  constexpr size_t kTest = Attribute ? 1 : 0;
  if (!self.truth()) return in.iterator({});  // also of None
  const Arguments& all = args.all();
  const Values path =
      Attribute ? attribute_path(in, in.string(name_at(in, all, 0, "an attribute"))) : Values();
  const TestRow* row = nullptr;
  if (all.positional.size() > kTest) {
    const std::string name = name_at(in, all, kTest, "a test");
    row = find_test(name);
    if (row == nullptr) in.fail(text("the test '", name, "' is not supported"));
  }
  const Arguments rest = behind(all, kTest + 1);
  Values out;
  for (const Value& item : in.items_of(self)) {
    const Value subject = follow(in, item, path);
    if ((row ? in.test(*row, subject, rest) : subject.truth()) == Wanted) out.push_back(item);
  }
  return in.iterator(std::move(out));
}

Value batch(Interpreter& in, const Value& self, const Bound& args) {
  const auto count = in.defined(args[0]).as_integer();
  if (!count || *count < 1) in.fail("batch needs a number of at least 1");
  Values out, row;
  const Values all = in.items_of(self);
  for (size_t i = 0; i < all.size(); ++i) {
    row.push_back(all[i]);
    const bool last = i + 1 == all.size();
    if (last && args.set(1)) {
      in.charge(static_cast<size_t>(*count));
      row.resize(std::max(row.size(), static_cast<size_t>(*count)), args[1]);
    }
    if (last || std::ssize(row) == *count) out.push_back(in.list(std::exchange(row, {})));
  }
  return in.iterator(std::move(out));
}

Value slice(Interpreter& in, const Value& self, const Bound& args) {
  const auto count = in.defined(args[0]).as_integer();
  if (!count || *count < 1) in.fail("slice needs a number of at least 1");
  in.charge(static_cast<size_t>(*count));
  const Values all = in.items_of(self);
  const size_t slices = static_cast<size_t>(*count), each = all.size() / slices,
               longer = all.size() % slices;
  Values out;
  size_t at = 0;
  for (size_t i = 0; i < slices; ++i) {
    const size_t end = at + each + (i < longer ? 1 : 0);
    Values part(all.begin() + static_cast<std::ptrdiff_t>(at),
                all.begin() + static_cast<std::ptrdiff_t>(end));
    if (args.set(1) && i >= longer) part.push_back(args[1]);
    out.push_back(in.list(std::move(part)));
    at = end;
  }
  return in.iterator(std::move(out));
}

constexpr FilterRow kFilters[] = {
    {"batch", "linecount / fill_with", batch},
    {"count", "", length},
    {"dictsort", "case_sensitive by reverse", dict_sort},
    {"first", "", first_item},
    {"items", "", items},
    {"join", "d attribute", join},
    {"last", "", last_item},
    {"length", "", length},
    {"list", "", to_list},
    {"map", "*", map},
    {"max", "case_sensitive attribute", largest},
    {"min", "case_sensitive attribute", smallest},
    {"reject", "*", select<false, false>},
    {"rejectattr", "*", select<true, false>},
    {"reverse", "", reverse},
    {"select", "*", select<false, true>},
    {"selectattr", "*", select<true, true>},
    {"slice", "slices / fill_with", slice},
    {"sort", "reverse case_sensitive attribute", sort},
    {"sum", "attribute start", sum},
    {"unique", "case_sensitive attribute", unique},
};

}  // namespace

std::span<const FilterRow> sequence_filters() {
  return kFilters;
}

}  // namespace mantissa::jinja
