#!/usr/bin/env bash
# Checks that every C++ file is as clang-format leaves it; `tools/check_format.sh --fix` formats.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=(--dry-run -Werror)
[[ "${1:-}" != --fix ]] || mode=(-i)
git ls-files -z -c -o --exclude-standard '*.h' '*.cc' '*.inc' '*.cu' '*.cuh' |
  xargs -0 -r clang-format "${mode[@]}"
