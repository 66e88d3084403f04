#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Checks format (clang-format, ruff), layers, and the house rules on files.
# Usage: tools/lint.sh [--fix]   --fix formats in place instead of complaining.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$PWD/.venv/bin
status=0

# tracked PATTERN...: files in git or about to be, NUL between them.
tracked() { git ls-files -z --cached --others --exclude-standard --deduplicate -- "$@"; }

check() {
  local what=$1
  shift
  if "$@"; then
    echo "lint: $what: good"
  else
    echo "lint: $what: FAILED" >&2
    status=1
  fi
}

cpp_format() {
  local how=(--dry-run --Werror)
  [ "$fix" = 1 ] && how=(-i)
  tracked '*.h' '*.cpp' | xargs -0 "$bin/clang-format" "${how[@]}"
}

python_format() {
  local how=(--check)
  [ "$fix" = 1 ] && how=()
  tracked '*.py' | xargs -0 "$bin/ruff" format --quiet "${how[@]+"${how[@]}"}"
}

python_rules() {
  local how=()
  [ "$fix" = 1 ] && how=(--fix)
  tracked '*.py' | xargs -0 "$bin/ruff" check --quiet "${how[@]+"${how[@]}"}"
}

fix=0
[ "${1:-}" = --fix ] && fix=1
check "C++ format" cpp_format
check "Python format" python_format
check "Python rules" python_rules
check "layers" "$bin/python" tools/check_layers.py
check "files" "$bin/python" tools/check_files.py
exit $status
