// Everything a verb prints: results on standard output, notes and progress on standard error. Only
// app/ prints. Results into a closed pipe end the program quietly; any other failed write of a
// result is an Error. Notes that cannot be written are lost.
#pragma once

#include <boost/json/fwd.hpp>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "app/command.h"
#include "base/units.h"

namespace mantissa {

// Thrown when the reader of standard output has gone; nothing is left to say.
struct OutputClosed {};

// ---- standard output
void print_text(std::string_view text);  // as it is, flushed: for streamed tokens
void print_line(std::string_view line);  // with a newline
// One JSON value on one line. Numbers are shortest round-trip; NaN and infinities become null.
void print_json(const boost::json::value& value);

// ---- standard error
void note(std::string_view line);
void print_prompt(std::string_view text);                        // as it is: what waits for a line
void warn(std::string_view line);                                // "warning: ..."
void print_error(std::string_view found, std::string_view fix);  // "mantissa: ..." and "  fix: ..."
bool progress_wanted(const Args& args);                          // a terminal, and no --no-progress

// A line that redraws itself on a terminal: "label  43% [####----] 1.2/2.8 GB  0:12 left". Draws
// nothing where progress_wanted() is false. Its end clears the line.
class Progress {
 public:
  enum class Unit : uint8_t { kBytes, kItems };
  Progress(const Args& args, std::string label, Unit unit = Unit::kItems);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(int64_t done, int64_t total);
  void clear() noexcept;

 private:
  using Clock = std::chrono::steady_clock;
  bool wanted_, drawn_ = false;
  std::string label_;
  Unit unit_;
  Clock::time_point start_, last_{};
};

// ---- tables that people can paste: markdown, columns padded; numbers (all rows of a column parse
// as such) to the right.
struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // each as long as the header
};
std::string markdown(const Table& table);
// The same as lm-eval prints it: no spaces beside the bars, headers in the middle.
std::string tight_markdown(const Table& table);

// ---- formatting (numbers: base/units.h)
std::string join(const std::vector<std::string>& parts, std::string_view between);

}  // namespace mantissa
