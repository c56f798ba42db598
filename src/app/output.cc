#include "app/output.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "text/utf8.h"

namespace mantissa {
namespace {

bool write_to(std::FILE* file, std::string_view what) noexcept {
  return std::fwrite(what.data(), 1, what.size(), file) == what.size() && std::fflush(file) == 0;
}

void write_result(std::string_view what) {
  if (write_to(stdout, what)) return;
  if (errno == EPIPE) throw OutputClosed{};
  throw Error(text("cannot write to standard output: ", std::strerror(errno)),
              "free some space, or write elsewhere", Error::Kind::kRuntime);
}

// A note that nobody can read ends nothing.
void write_note(std::string_view what) noexcept {
  static_cast<void>(write_to(stderr, what));
}

std::string number_text(double value) {
  if (!std::isfinite(value)) return "null";
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  check(error == std::errc{}, "number_text: a double fits");
  return {buffer, end};
}

// JSON is UTF-8, also where a path or a command line is not.
std::string string_text(std::string_view string) {
  std::string valid;
  if (append_valid_utf8(valid, string) > 0) valid += kReplacement;
  return boost::json::serialize(boost::json::string_view(valid));
}

void append_json(std::string& out, const boost::json::value& value) {
  if (const boost::json::object* object = value.if_object()) {
    out += '{';
    for (const boost::json::key_value_pair& member : *object) {
      if (out.back() != '{') out += ", ";
      out += string_text(member.key());
      out += ": ";
      append_json(out, member.value());
    }
    out += '}';
  } else if (const boost::json::array* array = value.if_array()) {
    out += '[';
    for (size_t i = 0; i < array->size(); ++i) {
      if (i > 0) out += ", ";
      append_json(out, (*array)[i]);
    }
    out += ']';
  } else if (const boost::json::string* string = value.if_string()) {
    out += string_text(*string);
  } else if (const double* number = value.if_double()) {
    out += number_text(*number);
  } else {
    out += boost::json::serialize(value);
  }
}

// Columns on a terminal: code points, which is right for all that tables here hold.
size_t width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

bool is_number(std::string_view cell) {
  double value = 0;
  if (cell.starts_with('+')) cell.remove_prefix(1);
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  return error == std::errc{} && (end == cell.data() + cell.size() || *end == ' ' || *end == '%');
}

std::string padded(const std::string& cell, size_t to, bool right) {
  const std::string space(to - width(cell), ' ');
  return right ? space + cell : cell + space;
}

}  // namespace

void print_text(std::string_view text) {
  write_result(text);
}

void print_line(std::string_view line) {
  write_result(std::string(line) + '\n');
}

void print_json(const boost::json::value& value) {
  std::string out;
  append_json(out, value);
  print_line(out);
}

// Names from files may hold control characters: a terminal must never see them.
void print_prompt(std::string_view text) {
  write_note(text);
}

void note(std::string_view lines) {
  std::string out;
  while (!lines.empty()) {
    const size_t end = std::min(lines.find('\n'), lines.size());
    out += printable(lines.substr(0, end), std::string::npos) + '\n';
    lines.remove_prefix(std::min(end + 1, lines.size()));
  }
  write_note(out.empty() ? "\n" : out);
}

void warn(std::string_view line) {
  note(text("warning: ", line));
}

void print_error(std::string_view found, std::string_view fix) {
  note(text("mantissa: ", found, "\n  fix: ", fix));
}

bool progress_wanted(const Args& args) {
  return isatty(STDERR_FILENO) == 1 && !args.flag("no-progress");
}

Progress::Progress(const Args& args, std::string label, Unit unit)
    : wanted_(progress_wanted(args)), label_(std::move(label)), unit_(unit), start_(Clock::now()) {}

Progress::~Progress() {
  clear();
}

void Progress::clear() noexcept {
  if (drawn_) write_note("\r\x1b[K");
  drawn_ = false;
}

void Progress::update(int64_t done, int64_t total) {
  constexpr std::chrono::milliseconds kRedraw{100};
  constexpr int kBar = 30;
  const Clock::time_point now = Clock::now();
  if (!wanted_ || total <= 0 || now - last_ < kRedraw) return;
  last_ = now;
  const double part = std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0);
  const double seconds = std::chrono::duration<double>(now - start_).count();
  std::string bar(static_cast<size_t>(part * kBar), '#');
  bar.resize(kBar, '.');
  std::string line = text("\r\x1b[K", label_, " ", fixed(100 * part, 0), "% [", bar, "] ");
  line += unit_ == Unit::kBytes ? text(human_bytes(done), "/", human_bytes(total))
                                : text(done, "/", total);
  if (part > 0.02) line += text(", ", human_seconds(seconds / part - seconds), " left");
  drawn_ = true;
  write_note(line);
}

namespace {

struct Columns {
  std::vector<size_t> widths;
  std::vector<bool> right;  // numbers
};

Columns columns_of(const Table& table) {
  const size_t count = table.header.size();
  Columns out{std::vector<size_t>(count, 3), std::vector<bool>(count, false)};
  for (size_t c = 0; c < count; ++c) {
    bool numbers = true, any = false;
    out.widths[c] = std::max(out.widths[c], width(table.header[c]));
    for (const std::vector<std::string>& row : table.rows) {
      check(row.size() == count, "markdown: rows as long as the header");
      out.widths[c] = std::max(out.widths[c], width(row[c]));
      if (row[c].empty() || row[c] == "-") continue;
      any = true;
      numbers = numbers && is_number(row[c]);
    }
    out.right[c] = any && numbers;
  }
  return out;
}

}  // namespace

std::string markdown(const Table& table) {
  const Columns columns = columns_of(table);
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string out;
    for (size_t c = 0; c < cells.size(); ++c)
      out += "| " + padded(cells[c], columns.widths[c], columns.right[c]) + ' ';
    return out + "|\n";
  };
  std::string out = line(table.header);
  for (size_t c = 0; c < table.header.size(); ++c)
    out += "| " + std::string(columns.widths[c] - 1, '-') + (columns.right[c] ? ": " : "- ");
  out += "|\n";
  for (const std::vector<std::string>& row : table.rows) out += line(row);
  return out;
}

std::string tight_markdown(const Table& table) {
  const Columns columns = columns_of(table);
  std::string out, rule;
  for (size_t c = 0; c < table.header.size(); ++c) {
    const size_t space = columns.widths[c] - width(table.header[c]);
    out +=
        '|' + std::string(space / 2, ' ') + table.header[c] + std::string(space - space / 2, ' ');
    rule += '|' + std::string(columns.widths[c] - 1, '-') + (columns.right[c] ? ':' : '-');
  }
  out += "|\n" + rule + "|\n";
  for (const std::vector<std::string>& row : table.rows) {
    for (size_t c = 0; c < row.size(); ++c)
      out += '|' + padded(row[c], columns.widths[c], columns.right[c]);
    out += "|\n";
  }
  return out;
}

std::string join(const std::vector<std::string>& parts, std::string_view between) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += between;
    out += parts[i];
  }
  return out;
}

}  // namespace mantissa
