#!/usr/bin/env bash
# Installs what the project needs from apt, if anything is missing: `tools/setup.sh` for building
# and testing, `tools/setup.sh ci` also for the format, clang-tidy and fuzzing checks.
set -euo pipefail

packages=(g++ cmake ninja-build ccache git pkg-config python3 binutils
          libboost1.81-dev libboost-json1.81-dev libcli11-dev
          libpcre2-dev libutf8proc-dev libgtest-dev)
if [[ "${1:-build}" == ci ]]; then
  packages+=(clang clang-format clang-tidy libclang-rt-14-dev)
fi

if ! command -v apt-get >/dev/null; then
  echo "setup: no apt-get here; these must be there already: ${packages[*]}" >&2
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ "$status" == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

as_root=()
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || {
    echo "setup: missing packages: ${missing[*]}; run as root: apt-get install ${missing[*]}" >&2
    exit 1
  }
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}" >&2
"${as_root[@]}" apt-get update -q >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
