// Methods of str, list, dict and loop, and the global functions: one row each.
#include <algorithm>

#include "base/error.h"
#include "text/jinja/format.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/registry.h"
#include "text/python_text.h"
#include "text/utf8.h"

namespace mantissa::jinja {
namespace {

using python::Side;

const String& self_of(const Value& self) {
  return *self.as_string();
}
const std::string& text_at(Interpreter& in, const Bound& args, size_t i) {
  const String* s = in.defined(args[i]).as_string();
  if (s == nullptr) in.fail(text("a method of str needs a str, not ", args[i].type_name()));
  return s->text;
}
int64_t integer_at(Interpreter& in, const Bound& args, size_t i, int64_t otherwise) {
  if (!args.given(i)) return otherwise;
  const auto value = in.defined(args[i]).as_integer();
  if (!value) in.fail(text("a method needs an int, not ", args[i].type_name()));
  return *value;
}
Value strings(Interpreter& in, const std::vector<std::string_view>& parts, bool markup) {
  Values out;
  for (std::string_view part : parts) out.push_back(in.string(part, markup));
  return in.list(std::move(out));
}

// ---- str

template <std::string (*Function)(std::string_view)>
Value mapped(Interpreter& in, const Value& self, const Bound&) {
  return in.string(Function(self_of(self).text), self_of(self).markup);
}
template <bool (*Property)(char32_t)>
Value all_are(Interpreter& in, const Value& self, const Bound&) {
  const std::string& whole = self_of(self).text;
  in.charge(whole.size() / 8);
  for (size_t pos = 0; pos < whole.size();) {
    if (!Property(next_code_point(whole, pos))) return false;
  }
  return !whole.empty();
}
template <bool (*Property)(std::string_view)>
Value is_case(Interpreter& in, const Value& self, const Bound&) {
  in.charge(self_of(self).text.size() / 8);
  return Property(self_of(self).text);
}
Value is_ascii(Interpreter&, const Value& self, const Bound&) {
  return self_of(self).ascii();
}

template <Side Where>
Value strip(Interpreter& in, const Value& self, const Bound& args) {
  const String& s = self_of(self);
  return in.string(args.set(0) ? python::strip(s.text, Where, text_at(in, args, 0))
                               : python::strip(s.text, Where),
                   s.markup);
}
template <bool FromRight>
Value split(Interpreter& in, const Value& self, const Bound& args) {
  const String& s = self_of(self);
  const int64_t most = integer_at(in, args, 1, -1);
  if (!args.set(0)) return strings(in, python::split(s.text, most, FromRight), s.markup);
  if (text_at(in, args, 0).empty()) in.fail("empty separator");
  return strings(in, python::split(s.text, text_at(in, args, 0), most, FromRight), s.markup);
}
Value split_lines(Interpreter& in, const Value& self, const Bound& args) {
  return strings(in, python::split_lines(self_of(self).text, args.given(0) && args[0].truth()),
                 self_of(self).markup);
}
template <bool FromRight>
Value partition(Interpreter& in, const Value& self, const Bound& args) {
  const std::string_view whole(self_of(self).text);
  const std::string& by = text_at(in, args, 0);
  if (by.empty()) in.fail("empty separator");
  const size_t at = FromRight ? whole.rfind(by) : whole.find(by);
  std::vector<std::string_view> parts = {whole, "", ""};
  if (at != whole.npos) {
    parts = {whole.substr(0, at), by, whole.substr(at + by.size())};
  } else if (FromRight) {
    std::swap(parts[0], parts[2]);
  }
  Values out;
  for (std::string_view part : parts) out.push_back(in.string(part, self_of(self).markup));
  return in.list(std::move(out), SequenceKind::kTuple);
}

// The part of the text that the arguments at i and i + 1 (points) leave, and where it starts.
struct Window {
  std::string_view text;
  int64_t begin;  // points
  bool valid;     // begin <= end
};
Window window_of(Interpreter& in, const String& s, const Bound& args, size_t i) {
  const auto size = static_cast<int64_t>(s.length);
  const auto clamp = [&](int64_t v) {
    return std::clamp<int64_t>(v < 0 ? std::max<int64_t>(v, -size) + size : v, 0, size);
  };
  const int64_t raw = args.set(i) ? integer_at(in, args, i, 0) : 0;
  const int64_t begin = clamp(raw),
                end = args.set(i + 1) ? clamp(integer_at(in, args, i + 1, size)) : size;
  if (begin > end || raw > size) return {"", begin, false};
  const size_t from = python::byte_of_point(s.text, static_cast<size_t>(begin));
  const size_t to =
      end == size ? s.text.size() : python::byte_of_point(s.text, static_cast<size_t>(end));
  in.charge(s.text.size() / 8);
  return {std::string_view(s.text).substr(from, to - from), begin, true};
}
template <bool AtEnd>
Value has_affix(Interpreter& in, const Value& self, const Bound& args) {
  const Window window = window_of(in, self_of(self), args, 1);
  const auto has = [&](const Value& affix) {
    if (affix.as_string() == nullptr)
      in.fail("startswith and endswith need a str or a tuple of str");
    const std::string& s = affix.as_string()->text;
    return window.valid && (AtEnd ? window.text.ends_with(s) : window.text.starts_with(s));
  };
  in.defined(args[0]);
  if (!args[0].is_sequence(SequenceKind::kTuple)) return has(args[0]);
  const Values& any = args[0].as_sequence()->items;
  return std::any_of(any.begin(), any.end(), has);
}
template <bool FromRight, bool MustBeThere>
Value find(Interpreter& in, const Value& self, const Bound& args) {
  const Window window = window_of(in, self_of(self), args, 1);
  const std::string& part = text_at(in, args, 0);
  const size_t at = !window.valid ? window.text.npos
                    : FromRight   ? window.text.rfind(part)
                                  : window.text.find(part);
  if (at == window.text.npos) {
    if (MustBeThere) in.fail("substring not found");
    return int64_t{-1};
  }
  const Value before = in.string(window.text.substr(0, at));
  return window.begin + static_cast<int64_t>(before.as_string()->length);
}
Value count(Interpreter& in, const Value& self, const Bound& args) {
  const Window window = window_of(in, self_of(self), args, 1);
  const std::string& part = text_at(in, args, 0);
  if (!window.valid) return int64_t{0};
  if (part.empty()) return static_cast<int64_t>(in.string(window.text).as_string()->length) + 1;
  int64_t found = 0;
  for (size_t at = 0; (at = window.text.find(part, at)) != window.text.npos; at += part.size())
    ++found;
  return found;
}
Value replace(Interpreter& in, const Value& self, const Bound& args) {
  const String& s = self_of(self);
  if (s.markup) in.fail("replace() of a text that |safe has marked is not supported");
  const std::string &from = text_at(in, args, 0), &to = text_at(in, args, 1);
  in.charge(s.text.size() / 4 +
            (to.size() + 1) * (from.empty() ? s.text.size() : s.text.size() / from.size()) / 8);
  return in.string(python::replace(s.text, from, to, integer_at(in, args, 2, -1)));
}
template <bool Prefix>
Value without_affix(Interpreter& in, const Value& self, const Bound& args) {
  std::string_view whole(self_of(self).text);
  const std::string& affix = text_at(in, args, 0);
  if (Prefix && whole.starts_with(affix)) whole.remove_prefix(affix.size());
  if (!Prefix && whole.ends_with(affix)) whole.remove_suffix(affix.size());
  return in.string(whole, self_of(self).markup);
}
Value join(Interpreter& in, const Value& self, const Bound& args) {
  if (self_of(self).markup) in.fail("join() of a text that |safe has marked is not supported");
  std::string out;
  bool first = true;
  for (const Value& item : in.items_of(in.defined(args[0]))) {
    if (item.as_string() == nullptr)
      in.fail(text("join() needs items of str, found ", item.type_name()));
    if (!std::exchange(first, false)) out += self_of(self).text;
    out += item.as_string()->text;
    if (out.size() > kTextBytesMax) in.fail("a text exceeds the limit of its length");
  }
  return in.string(out);
}
// Fills up to a width; Align: '<', '>', '^'.
template <char Align>
Value fill(Interpreter& in, const Value& self, const Bound& args) {
  const String& s = self_of(self);
  const int64_t width = integer_at(in, args, 0, 0);
  const std::string with = args.given(1) ? text_at(in, args, 1) : " ";
  if (with.empty() || with.size() != utf8_bytes(with[0]))
    in.fail("The fill character must be exactly one character long");
  const int64_t lack = width - static_cast<int64_t>(s.length);
  if (lack <= 0) return self;
  if (lack > static_cast<int64_t>(kTextBytesMax / 4))
    in.fail("a text exceeds the limit of its length");
  in.charge(static_cast<size_t>(lack));
  // CPython puts the odd one to the left where the width is odd.
  const int64_t left = Align == '<' ? 0 : Align == '>' ? lack : lack / 2 + (lack & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += with;
  out += s.text;
  for (int64_t i = left; i < lack; ++i) out += with;
  return in.string(out, s.markup);
}
Value zero_fill(Interpreter& in, const Value& self, const Bound& args) {
  const String& s = self_of(self);
  const int64_t lack = integer_at(in, args, 0, 0) - static_cast<int64_t>(s.length);
  if (lack <= 0) return self;
  if (lack > static_cast<int64_t>(kTextBytesMax / 4))
    in.fail("a text exceeds the limit of its length");
  std::string out = s.text;
  const bool sign = out.starts_with('-') || out.starts_with('+');
  out.insert(sign ? 1 : 0, static_cast<size_t>(lack), '0');
  return in.string(out);
}
Value format(Interpreter& in, const Value& self, const Bound& args) {
  if (self_of(self).markup) in.fail("format() of a text that |safe has marked is not supported");
  Members named;
  for (const auto& [name, value] : args.all().named) named.emplace_back(in.string(name), value);
  return in.string(format_braces(self_of(self).text, args.all().positional, named, in));
}
Value unsupported(Interpreter& in, const Value& self, const Bound&) {
  in.fail(text("a method of ", self.type_name(), " that is not supported"));
}

constexpr MethodRow kStringMethods[] = {
    {Receiver::kString, "capitalize", "", mapped<python::capitalize>},
    {Receiver::kString, "casefold", "", mapped<python::casefold>},
    {Receiver::kString, "center", "width / fillchar", fill<'^'>},
    {Receiver::kString, "count", "sub / start end", count},
    {Receiver::kString, "encode", "*", unsupported},
    {Receiver::kString, "endswith", "suffix / start end", has_affix<true>},
    {Receiver::kString, "expandtabs", "*", unsupported},
    {Receiver::kString, "find", "sub / start end", find<false, false>},
    {Receiver::kString, "format", "*", format},
    {Receiver::kString, "format_map", "*", unsupported},
    {Receiver::kString, "index", "sub / start end", find<false, true>},
    {Receiver::kString, "isalnum", "", all_are<python::is_alnum>},
    {Receiver::kString, "isalpha", "", all_are<python::is_alpha>},
    {Receiver::kString, "isascii", "", is_ascii},
    {Receiver::kString, "isdecimal", "", all_are<python::is_decimal>},
    {Receiver::kString, "isdigit", "", all_are<python::is_digit>},
    {Receiver::kString, "isidentifier", "*", unsupported},
    {Receiver::kString, "islower", "", is_case<python::all_lower>},
    {Receiver::kString, "isnumeric", "", all_are<python::is_numeric>},
    {Receiver::kString, "isprintable", "*", unsupported},
    {Receiver::kString, "isspace", "", all_are<python::is_space>},
    {Receiver::kString, "istitle", "", is_case<python::all_title>},
    {Receiver::kString, "isupper", "", is_case<python::all_upper>},
    {Receiver::kString, "join", "iterable /", join},
    {Receiver::kString, "ljust", "width / fillchar", fill<'<'>},
    {Receiver::kString, "lower", "", mapped<python::lower>},
    {Receiver::kString, "lstrip", "chars", strip<Side::kLeft>},
    {Receiver::kString, "maketrans", "*", unsupported},
    {Receiver::kString, "partition", "sep /", partition<false>},
    {Receiver::kString, "removeprefix", "prefix /", without_affix<true>},
    {Receiver::kString, "removesuffix", "suffix /", without_affix<false>},
    {Receiver::kString, "replace", "old new / count", replace},
    {Receiver::kString, "rfind", "sub / start end", find<true, false>},
    {Receiver::kString, "rindex", "sub / start end", find<true, true>},
    {Receiver::kString, "rjust", "width / fillchar", fill<'>'>},
    {Receiver::kString, "rpartition", "sep /", partition<true>},
    {Receiver::kString, "rsplit", "sep maxsplit", split<true>},
    {Receiver::kString, "rstrip", "chars", strip<Side::kRight>},
    {Receiver::kString, "split", "sep maxsplit", split<false>},
    {Receiver::kString, "splitlines", "keepends", split_lines},
    {Receiver::kString, "startswith", "prefix / start end", has_affix<false>},
    {Receiver::kString, "strip", "chars", strip<Side::kBoth>},
    {Receiver::kString, "swapcase", "", mapped<python::swapcase>},
    {Receiver::kString, "title", "", mapped<python::title>},
    {Receiver::kString, "translate", "*", unsupported},
    {Receiver::kString, "upper", "", mapped<python::upper>},
    {Receiver::kString, "zfill", "width /", zero_fill},
};

// ---- list, dict, loop

Value list_count(Interpreter& in, const Value& self, const Bound& args) {
  const Values items = in.items_of(self);
  return std::count_if(items.begin(), items.end(),
                       [&](const Value& v) { return in.compare(Operator::kEqual, v, args[0]); });
}
Value list_index(Interpreter& in, const Value& self, const Bound& args) {
  const Values items = in.items_of(self);
  const auto at = std::find_if(items.begin(), items.end(), [&](const Value& v) {
    return in.compare(Operator::kEqual, v, args[0]);
  });
  if (at == items.end()) in.fail("the value is not in the list");
  return at - items.begin();
}
Value copy(Interpreter&, const Value& self, const Bound&) {
  return self;
}
Value get(Interpreter& in, const Value& self, const Bound& args) {
  if (!args[0].hashable()) in.fail(text("unhashable type: '", args[0].type_name(), "'"));
  in.charge(self.as_dict()->members.size());
  const Value* found = find_member(self.as_dict()->members, args[0]);
  return found ? *found : args.get(1, Value());
}
Value keys(Interpreter& in, const Value& self, const Bound&) {
  return in.list(in.items_of(self), SequenceKind::kView, "dict_keys");
}
Value values(Interpreter& in, const Value& self, const Bound&) {
  Values out;
  for (const auto& [key, value] : self.as_dict()->members) out.push_back(value);
  return in.list(std::move(out), SequenceKind::kView, "dict_values");
}
Value items(Interpreter& in, const Value& self, const Bound&) {
  Values out;
  for (const auto& [key, value] : self.as_dict()->members)
    out.push_back(in.list({key, value}, SequenceKind::kTuple));
  return in.list(std::move(out), SequenceKind::kView, "dict_items");
}
Value cycle(Interpreter& in, const Value& self, const Bound& args) {
  const Values& all = args.all().positional;
  if (all.empty()) in.fail("no items for cycling given");
  const int64_t at = std::max<int64_t>(self.as_loop()->index0, 0);
  return all[static_cast<size_t>(at) % all.size()];
}
Value changed(Interpreter& in, const Value& self, const Bound& args) {
  Loop& loop = *self.as_loop();
  const Value now = in.list(args.all().positional, SequenceKind::kTuple);
  if (!loop.running || (loop.changed && in.compare(Operator::kEqual, *loop.changed, now)))
    return false;
  loop.changed = now;
  return true;
}

constexpr MethodRow kContainerMethods[] = {
    {Receiver::kList, "copy", "", copy},
    {Receiver::kList, "count", "value /", list_count},
    {Receiver::kList, "index", "value /", list_index},
    {Receiver::kDict, "copy", "", copy},
    {Receiver::kDict, "fromkeys", "*", unsupported},
    {Receiver::kDict, "get", "key / default", get},
    {Receiver::kDict, "items", "", items},
    {Receiver::kDict, "keys", "", keys},
    {Receiver::kDict, "values", "", values},
    {Receiver::kLoop, "cycle", "*", cycle},
    {Receiver::kLoop, "changed", "*", changed},
};

// ---- global functions

Value range(Interpreter& in, const Value&, const Bound& args) {
  const bool two = args.given(1);
  const int64_t begin = two ? integer_at(in, args, 0, 0) : 0;
  const int64_t end = integer_at(in, args, two ? 1 : 0, 0), step = integer_at(in, args, 2, 1);
  if (step == 0) in.fail("range() arg 3 must not be zero");
  Values out;
  int64_t i = begin;
  while (step > 0 ? i < end : i > end) {
    if (std::ssize(out) >= kRangeMax)
      in.fail(text("Range too big. The sandbox blocks ranges larger than MAX_RANGE (", kRangeMax,
                   ")."));
    out.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  std::string name = text("range(", begin, ", ", end, step == 1 ? ")" : text(", ", step, ")"));
  return in.list(std::move(out), SequenceKind::kRange, std::move(name));
}

Members members_of(Interpreter& in, const Bound& args) {
  const Arguments& all = args.all();
  if (all.positional.size() > 1) in.fail("dict expected at most 1 argument");
  Members out;
  const auto set = [&](const Value& key, const Value& value) {
    if (!key.hashable()) in.fail(text("unhashable type: '", key.type_name(), "'"));
    in.charge(1 + out.size());
    set_member(out, key, value);
  };
  if (!all.positional.empty()) {
    const Value& from = in.defined(all.positional[0]);
    if (from.as_dict()) {
      out = from.as_dict()->members;
      in.charge(out.size());
    } else {
      for (const Value& pair : in.items_of(from)) {
        const Values two = in.items_of(pair);
        if (two.size() != 2) in.fail("a dict is made of pairs");
        set(two[0], two[1]);
      }
    }
  }
  for (const auto& [name, value] : all.named) set(in.string(name), value);
  return out;
}
Value dict(Interpreter& in, const Value&, const Bound& args) {
  return Value::dict(members_of(in, args));
}
Value make_namespace(Interpreter& in, const Value&, const Bound& args) {
  Members members = members_of(in, args);
  for (const auto& [key, value] : members) {
    if (!key.as_string()) in.fail("attributes of a namespace need names");
  }
  return in.new_namespace(std::move(members));
}
Value raise_exception(Interpreter& in, const Value&, const Bound& args) {
  throw Error("the chat template refused the conversation: " + to_text(args[0], in),
              "change the messages as it asks, or use another template (--chat-template FILE)");
}
Value strftime_now(Interpreter& in, const Value&, const Bound& args) {
  const std::string& given = text_at(in, args, 0);
  std::string format;
  for (size_t i = 0; i < given.size(); ++i) {  // what strftime does not know: a naive time's zone
    const char next = given[i] == '%' && i + 1 < given.size() ? given[i + 1] : '\0';
    if (next == 'f') {
      char digits[8];
      std::snprintf(digits, sizeof digits, "%06d", in.inputs().now_microseconds % 1000000);
      format += digits;
    } else if (next != '\0' && next != 'z' && next != 'Z') {
      format += given.substr(i, 2);
    } else if (next == '\0') {
      format += given[i] == '%' ? std::string("%%") : given.substr(i, 1);
      continue;
    }
    ++i;
  }
  if (format.find('\0') != format.npos || given.size() > 1000)
    in.fail("strftime_now() with such a format is not supported");
  std::string out(4096, '\0');
  format += ' ';  // so that an empty result is none of an error
  const size_t size = std::strftime(out.data(), out.size(), format.c_str(), &in.inputs().now);
  if (size == 0) in.fail("strftime_now() gives a text that is too long");
  return in.string(std::string_view(out).substr(0, size - 1));
}
template <int Which>
Value no_function(Interpreter& in, const Value&, const Bound&) {
  constexpr const char* kNames[] = {"cycler", "joiner", "lipsum"};
  in.fail(text("the function ", kNames[Which], "() is not supported"));
}

constexpr GlobalRow kGlobals[] = {
    {"cycler", "*", no_function<0>},       {"dict", "*", dict},
    {"joiner", "*", no_function<1>},       {"lipsum", "*", no_function<2>},
    {"namespace", "*", make_namespace},    {"raise_exception", "message /", raise_exception},
    {"range", "start / stop step", range}, {"strftime_now", "format /", strftime_now},
};

}  // namespace

std::span<const MethodRow> string_methods() {
  return kStringMethods;
}
std::span<const MethodRow> container_methods() {
  return kContainerMethods;
}
std::span<const GlobalRow> globals() {
  return kGlobals;
}

}  // namespace mantissa::jinja
