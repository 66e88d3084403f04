#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Checks the CUDA decode step on this machine's GPU, then times it against stock
# mlx_lm and llama.cpp at the shapes of LFM2-8B-A1B, all in one run.
#   tools/bench_h100.sh OUT [BITS]      (an H200 too; the JSON names the device)
# Leaves OUT/h100.json, one object a side, and OUT/logs. Wants the program zmlx in
# ZMLX (build/bin/zmlx), a python3 with MLX's CUDA build and mlx_lm, and, for the
# third side, LLAMA_BENCH (a llama-bench with CUDA) and LLAMA_GGUF (a model of the
# same shapes in Q4_0, which costs 4.5 bits a weight as MLX's group of 64 does).
# The first run on a machine takes minutes: MLX compiles its kernels where it runs.
set -uo pipefail
out=$(mkdir -p "${1:?usage: bench_h100.sh OUT [BITS]}/logs" && cd "$1" && pwd)
bits=${2:-4}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
zmlx=${ZMLX:-$root/build/bin/zmlx}
model=${ZMLX_BENCH_MODEL:-$out/lfm2-8b-a1b-$bits}
prompt=512 tokens=256 repetitions=5

say() { echo "bench_h100: $*" >&2; }
fail() { say "$*"; exit 1; }

say "checking: tokens and logits on the demo model"
for dtype in float32 bfloat16; do
  "$zmlx" validate "$root/models/demo" --dtype "$dtype" --max-tokens 200 \
    --runs 3 --raw --json "$out/logs/demo_$dtype.json" \
    >"$out/logs/demo_$dtype.txt" 2>&1 || fail "$dtype: see $out/logs"
done

if [ ! -e "$model/config.json" ]; then
  say "writing $model"
  "$zmlx" synth lfm2-8b-a1b "$model" --bits "$bits" >"$out/logs/synth.txt" 2>&1 ||
    fail "synth: see $out/logs"
fi

# Each side once untimed, for compilers and page tables.
say "zmlx, patched and stock"
"$zmlx" bench --model "$model" -p 16 -n 16 -r 1 >"$out/logs/warm.txt" 2>&1
"$zmlx" bench --model "$model" -p 0 -n $tokens -d $prompt -r $repetitions --compare \
  -o json >"$out/logs/zmlx.json" 2>"$out/logs/zmlx.txt" || fail "zmlx: see $out/logs"

say "mlx_lm"
python3 - "$model" $tokens $prompt $repetitions >"$out/logs/mlx_lm.json" \
  2>"$out/logs/mlx_lm.txt" <<'PYTHON' || fail "mlx_lm: see $out/logs"
import json
import statistics
import sys
import time
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model

folder, tokens, prompt_tokens, repetitions = sys.argv[1], *map(int, sys.argv[2:])
model, config = load_model(Path(folder))
vocab = config["vocab_size"]
prompt = mx.array([(i * 7919) % (vocab - 8) + 4 for i in range(prompt_tokens)])
rates = []
for repetition in range(repetitions + 1):
    first = None
    for _ in generate_step(prompt, model, max_tokens=tokens):
        first = first or time.perf_counter()
    if repetition > 0:
        rates.append((tokens - 1) / (time.perf_counter() - first))
print(json.dumps({
    "mlx_version": mx.__version__,
    "median_decode": statistics.median(rates),
    "samples": rates,
}))
PYTHON

if [ -n "${LLAMA_BENCH:-}" ] && [ -n "${LLAMA_GGUF:-}" ]; then
  say "llama.cpp"
  "$LLAMA_BENCH" -m "$LLAMA_GGUF" -ngl 99 -p 0 -n $tokens -d $prompt -r $repetitions \
    -fa 0,1 -o json >"$out/logs/llama.json" 2>"$out/logs/llama.txt" ||
    fail "llama-bench: see $out/logs"
else
  echo '[]' >"$out/logs/llama.json"
fi

python3 - "$out" <<'PYTHON'
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])


def read(name):
    return json.loads((out / "logs" / name).read_text())


def decode(rows):
    return [row for row in rows if row.get("n_gen", 0) > 0 and row.get("n_prompt", 0) == 0]


zmlx = {row["side"]: row for row in decode(read("zmlx.json"))}
llama = decode(read("llama.json"))
record = {
    "schema_version": 1,
    "device": zmlx["patched"].get("gpu_info", ""),
    "baseline": {"name": "mlx_lm", **read("mlx_lm.json")},
    "stock": {"median_decode": zmlx.get("stock", {}).get("median_ts")},
    "patched": {"median_decode": zmlx["patched"]["median_ts"], **zmlx["patched"]},
    # The better of both kinds of attention.
    "llama_cpp": {"mean_decode": max(row["avg_ts"] for row in llama)} if llama else None,
}
(out / "h100.json").write_text(json.dumps(record, indent=2) + "\n")
print(json.dumps({side: record[side] and {
    key: value for key, value in record[side].items() if key.endswith("decode")
} for side in ("baseline", "stock", "patched", "llama_cpp")}, indent=2))
PYTHON
