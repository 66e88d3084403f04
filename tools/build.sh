#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Configures a preset whose folder is build/, then builds targets there.
# .venv finds the Python package of the build through zmlx-build.pth.
# Usage: tools/build.sh PRESET JOBS TARGET...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preset=$1 jobs=$2
shift 2
export PATH="$PWD/.venv/bin:$PATH" # Ubuntu 22.04 has its CMake there
log=build/configure.log
mkdir -p build
# Another CMake, or a folder that was moved, cannot go on from the old cache.
if [ -f build/CMakeCache.txt ] &&
  ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$(pwd -P)" build/CMakeCache.txt; then
  rm -rf build/CMakeCache.txt build/CMakeFiles
fi
if ! cmake --preset "$preset" >"$log" 2>&1; then
  tail -n 25 "$log" >&2
  echo "build: configuring failed; the whole log is in $log" >&2
  exit 1
fi
cmake --build build --target "$@" -j "$jobs"
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "$PWD/build/python" >"$site/zmlx-build.pth"
