#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Makes a bare Debian, Ubuntu or macOS machine able to build and test zmlx:
# system packages, then .venv with pinned wheels. Safe to run again at any time;
# when nothing is missing it takes well under a second.
#   ZMLX_MLX=cpu|cuda13|cuda12|metal   the build of MLX (default: metal on
#                                      macOS, else cpu)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
log=build/setup.log
stamp=.venv/zmlx-setup.txt

apt_packages=(
  ca-certificates git g++ cmake ninja-build pkg-config ccache python3-venv
  libhwy-dev libfmt-dev nlohmann-json3-dev libcli11-dev libpcre2-dev
  libutf8proc-dev libxxhash-dev libgtest-dev libbenchmark-dev)
brew_packages=(
  cmake ninja pkgconf ccache python@3.12 highway fmt nlohmann-json cli11 pcre2
  utf8proc xxhash googletest google-benchmark)

say() { printf 'setup: %s\n' "$*"; }

fail() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

# logged WHAT COMMAND...: runs quietly; on failure shows the end of the log.
logged() {
  local what=$1
  shift
  say "$what"
  printf '\n== %s\n' "$*" >>"$log"
  if ! "$@" >>"$log" 2>&1; then
    tail -n 25 "$log" >&2
    fail "failed: $what" "the whole log is in $log; run the same command again to go on"
  fi
}

# as_root COMMAND...: the command itself for root, else through sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

can_be_root() {
  [ "$(id -u)" = 0 ] && return
  command -v sudo >/dev/null || return
  sudo -n true 2>/dev/null && return
  [ -t 0 ] && sudo -v # asks for the password here, not inside the log
}

missing_apt_packages() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
      printf '%s\n' "$package"
  done
}

install_apt_packages() {
  local missing=()
  while IFS= read -r package; do
    missing+=("$package")
  done < <(missing_apt_packages "$@")
  [ ${#missing[@]} = 0 ] && return
  can_be_root || fail "these system packages are missing, and neither root nor sudo is at hand:" \
    "  ${missing[*]}" "install them, then run the same command again:" \
    "  apt-get install ${missing[*]}"
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -y)
  as_root dpkg --configure -a >>"$log" 2>&1 || true # after an interrupted run
  logged "asking for the list of system packages" as_root "${apt[@]}" update
  logged "installing ${#missing[@]} system packages: ${missing[*]}" \
    as_root "${apt[@]}" install --no-install-recommends "${missing[@]}"
}

install_system_packages() {
  if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    install_apt_packages "${apt_packages[@]}"
  elif [ "$(uname)" = Darwin ] && command -v brew >/dev/null; then
    local have package missing=()
    have=" $(brew list --formula -1 | tr '\n' ' ') "
    for package in "${brew_packages[@]}"; do
      [[ $have == *" $package "* ]] || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] ||
      logged "installing with brew: ${missing[*]}" brew install "${missing[@]}"
  else
    say "no apt-get and no brew here: going on with what is installed"
    say "Debian's names of what is needed: ${apt_packages[*]}"
  fi
}

# The first Python of at least 3.11; Ubuntu 22.04 has it beside its own 3.10.
new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

choose_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if new_enough "$name"; then
      python=$name
      return
    fi
  done
  if command -v apt-get >/dev/null; then
    install_apt_packages python3.11-venv
    new_enough python3.11 && python=python3.11 && return
  fi
  fail "Python 3.11 or later is needed, got $(python3 --version 2>&1)."
}

# The extension module needs Python's headers, which Debian has in a package of
# their own.
need_headers() {
  local found
  found=$("$1" -c 'import os, sysconfig as s, sys
print(os.path.exists(os.path.join(s.get_path("include"), "Python.h")), "%d.%d" % sys.version_info[:2])')
  [ "${found% *}" = True ] && return
  command -v apt-get >/dev/null ||
    fail "Python's headers are needed: $1 has no Python.h."
  install_apt_packages "python${found#* }-dev"
}

# What .venv was made from: any change makes setup go through pip again.
stamp_text() {
  printf '%s\n' "mlx $variant" "$(cat tools/requirements.txt tools/setup.sh | cksum)" \
    "$(cd .venv && pwd -P)"
}

make_venv() {
  # A .venv that was moved, cut short or made for another MLX is made anew.
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1 ||
    { [ -f "$stamp" ] && [ "$(sed -n '1p;$p' "$stamp")" != "$(stamp_text | sed -n '1p;$p')" ]; }; then
    [ -L .venv ] && rm .venv
    choose_python
    logged "making .venv with $($python --version)" "$python" -m venv --clear .venv
  fi
  echo "interrupted" >"$stamp" # until the end, when stamp_text replaces it
  local mlx
  mlx=$(sed -n 's/^mlx==//p' tools/requirements.txt)
  [ "$variant" = metal ] && mlx="mlx==$mlx" || mlx="mlx[$variant]==$mlx"
  logged "installing wheels into .venv (MLX: $variant)" .venv/bin/python -m pip \
    install --disable-pip-version-check -r tools/requirements.txt "$mlx"
}

# Ubuntu 22.04's CMake is too old; PyPI has it too.
add_cmake() {
  local version
  version=$(cmake --version 2>/dev/null | sed -n 's/^cmake version //p')
  [ "$(printf '%s\n' 3.25 "$version" | sort -V | head -n 1)" = 3.25 ] ||
    logged "installing CMake into .venv" .venv/bin/python -m pip \
      install --disable-pip-version-check cmake==3.31.10
}

mkdir -p build
variant=${ZMLX_MLX:-cpu}
[ "$(uname)" = Darwin ] && variant=metal
case $variant in
  cpu | cuda12 | cuda13 | metal) ;;
  *) fail "ZMLX_MLX must be cpu, cuda12, cuda13 or metal, got $variant." ;;
esac
install_system_packages
if [ -d .venv ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(stamp_text)" ] &&
  .venv/bin/python -c '' 2>/dev/null; then
  exit 0
fi
make_venv
need_headers .venv/bin/python
add_cmake
stamp_text >"$stamp"
say "done"
