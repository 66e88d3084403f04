#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The main job on the model that ships here: generate, then prove and time it.
# Usage: tools/demo.sh [RUNS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
zmlx=build/bin/zmlx
runs=${1:-1}

step() {
  printf '\n== %s\n' "$1"
  shift
  local word shown=
  for word in "$@"; do
    [[ $word == *' '* ]] && word="\"$word\""
    shown+=" $word"
  done
  printf '$%s\n\n' "$shown"
  "$@"
}

step "A short text from the demo model, patched" \
  "$zmlx" generate --model models/demo --prompt "Once upon a time" --max-tokens 80
step "Five prompts of 200 tokens, stock MLX against patched: same tokens, and how fast" \
  "$zmlx" validate models/demo --max-tokens 200 --runs "$runs"

cat <<'TEXT'

== What to try next
  build/bin/zmlx generate --model models/demo --prompt "The sea" --temp 0.8 --seed 7
  build/bin/zmlx bench --model models/demo --compare
  build/bin/zmlx synth lfm2-8b-a1b big-model      # real shapes, random weights: 4.7 GB
  build/bin/zmlx bench --model big-model -p 256 -n 32
  build/bin/zmlx validate FOLDER-OR-HUB-ID        # your own model
  build/bin/zmlx doctor
TEXT
