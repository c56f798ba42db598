#include "model/quant_report_lines.h"

#include "base/error.h"
#include "base/units.h"

namespace mantissa {

std::vector<std::string> report_lines(const QuantReport& report, std::string_view name,
                                      bool quantized) {
  struct Row {
    int64_t count;
    std::string_view kind, made;  // of codes
  };
  const Row rows[] = {{report.nan, "NaN", "became 0"},
                      {report.inf, "infinite", "became the largest code"}};
  std::vector<std::string> out;
  for (const Row& row : rows) {
    if (row.count == 0) continue;
    const std::string weights = counted(row.count, text(row.kind, " weight"));
    out.push_back(text(name, ": ", weights, " ", quantized ? row.made : "stayed as read"));
  }
  if (report.saturated > 0)
    out.push_back(text(name, ": ", counted(report.saturated, "weight"), " saturated"));
  return out;
}

}  // namespace mantissa
