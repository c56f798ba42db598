#!/usr/bin/env bash
# Builds the release preset and runs every test. Last line: `N passed, N failed[, N skipped]`.
set -euo pipefail
cd "$(dirname "$0")"
tools/setup.sh
cmake --preset release
cmake --build --preset release
exec tools/run_tests.py build/release "$@"
