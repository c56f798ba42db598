// Differences between CPython's str and utf8proc: generated, see tools/make_python_tables.py.
#pragma once

#include <string_view>

namespace mantissa::python {

struct PointRange {
  char32_t first, last;
};
extern const PointRange kUnassigned[32];  // in Python's Unicode
extern const PointRange kDigit[20];       // str.isdigit() but not isdecimal()
extern const PointRange kNumeric[151];    // str.isnumeric() but not isdigit()
extern const PointRange kLower[24];       // str.islower() but not of category Ll
extern const PointRange kUpper[5];        // str.isupper() but not of category Lu

struct SpecialCase {
  char32_t from;
  std::string_view to;
};
extern const SpecialCase kSpecialUpper[102];
extern const SpecialCase kSpecialLower[1];
extern const SpecialCase kSpecialTitle[48];
extern const SpecialCase kSpecialFold[298];

}  // namespace mantissa::python
