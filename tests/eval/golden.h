// tests/golden/eval.json, written by tools/make_eval_goldens.py.
#pragma once

#include "base/json.h"

namespace mantissa {

inline json::Document eval_golden() {
  return json::parse_file(MANTISSA_SOURCE_DIR "/tests/golden/eval.json");
}

}  // namespace mantissa
