#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Checks zmlx on this machine's CUDA device, then times it in C++ and in Python
# beside stock mlx_lm and llama.cpp, all in one run, on random weights of real
# models' shapes.
#   tools/bench_h100.sh OUT [SHAPE:BITS...]     (an H200 too: the JSON says which)
# By default lfm2-8b-a1b at 4 and 8 bits and qwen3-30b-a3b at 4. Leaves in OUT
# h100.json, one capsule a shape with the keys of a repro capsule, the table
# h100.md, and logs. Wants
#   ZMLX         the program (build/bin/zmlx)
#   python3      with MLX's CUDA build, mlx_lm and, for the Python side, zmlx
#   LLAMA_BENCH  a llama-bench with CUDA, for llama.cpp's side, and
#   LLAMA_GGUF   a folder with SHAPE-BITS.gguf: Q4_0 and Q8_0 cost 4.5 and 8.5
#                bits a weight as MLX's groups of 64 do.
# Run again with the same OUT it measures what has no figures yet, so that a
# machine lent for minutes, or with a small disk, can take a shape at a time.
# MLX compiles its kernels where it runs: the checks took 215 s on a new machine,
# beside others. Give it ten minutes and 32 GB of disk.
set -uo pipefail
out=$(mkdir -p "${1:?usage: bench_h100.sh OUT [SHAPE:BITS...]}/logs" && cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- lfm2-8b-a1b:4 lfm2-8b-a1b:8 qwen3-30b-a3b:4
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
zmlx=${ZMLX:-$root/build/bin/zmlx}
models=${ZMLX_BENCH_MODELS:-$out/models}
prompt=512 tokens=256 repetitions=${ZMLX_BENCH_REPETITIONS:-5}

say() { echo "bench_h100: $((SECONDS)) s: $*" >&2; }

has_figures() { # NAME: of our sides
  [ -s "$out/logs/zmlx_$1.json" ] && [ -s "$out/logs/python_$1.json" ]
}

# First and alone: a check beside programs that fill the machine's memory once saw
# a block of the step wait for more than a second.
for one in "$@"; do
  model=$models/${one%:*}-${one#*:}
  if [ ! -e "$model/config.json" ] && ! has_figures "${one/:/-}"; then
    "$zmlx" synth "${one%:*}" "$model" --bits "${one#*:}" \
      >"$out/logs/synth_${one/:/-}.txt" 2>&1 || say "synth failed: see $out/logs"
  fi
done

failed=0
for dtype in float32 bfloat16; do
  [ ! -s "$out/logs/demo_$dtype.json" ] || continue
  say "checking tokens and logits of the demo model, $dtype"
  "$zmlx" validate "$root/models/demo" --dtype "$dtype" \
    --max-tokens "${ZMLX_BENCH_CHECKED:-200}" --runs 3 --raw \
    --json "$out/logs/demo_$dtype.json" >"$out/logs/demo_$dtype.txt" 2>&1 ||
    {
      say "the check failed at $dtype: see $out/logs"
      mv "$out/logs/demo_$dtype.json" "$out/logs/demo_$dtype.failed.json"
      failed=1
    }
done

# Each side in turn; one that fails leaves its log and no figure.
side() { # NAME FILE COMMAND...
  local file=$out/logs/$2
  [ ! -s "$file.json" ] || return 0
  say "$1"
  "${@:3}" >"$file.json" 2>"$file.txt" ||
    { say "$1 failed: see $file.txt"; rm -f "$file.json"; failed=1; }
}
for one in "$@"; do
  name=${one/:/-} model=$models/${one/:/-}
  has_figures "$name" || "$zmlx" bench --model "$model" -p 16 -n 16 -r 1 \
    >"$out/logs/warm_$name.txt" 2>&1
  side "zmlx, $name" "zmlx_$name" "$zmlx" bench --model "$model" -p $prompt \
    -n $tokens -d $prompt -r "$repetitions" -o json
  side "mlx_lm and zmlx in Python, $name" "python_$name" python3 \
    "$root/tools/bench_h100.py" python "$model" $prompt $tokens "$repetitions"
  gguf=${LLAMA_GGUF:-}/$name.gguf
  if [ -n "${LLAMA_BENCH:-}" ] && [ -e "$gguf" ]; then
    side "llama.cpp, $name" "llama_$name" "$LLAMA_BENCH" -m "$gguf" -ngl 99 \
      -p $prompt -n $tokens -d $prompt -r "$repetitions" -fa 0,1 -o json
  fi
done
python3 "$root/tools/bench_h100.py" report "$out" "$@" || failed=1
exit $failed
