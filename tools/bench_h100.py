#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The parts of bench_h100.sh that are no shell.

bench_h100.py python MODEL PROMPT TOKENS REPETITIONS
    times stock mlx_lm and the same model patched by zmlx, JSON to stdout
bench_h100.py report OUT SHAPE:BITS...
    makes h100.json and h100.md of the logs
"""

import json
import statistics
import sys
import time
from pathlib import Path


def timed(model, prompt, tokens, repetitions):
    """Rates of prompt and new tokens of each repetition, after an untimed one."""
    from mlx_lm.generate import generate_step

    prefill, decode = [], []
    for repetition in range(repetitions + 1):
        started, first = time.perf_counter(), None
        for _ in generate_step(prompt, model, max_tokens=tokens):
            first = first or time.perf_counter()
        if repetition > 0:
            prefill.append(prompt.size / (first - started))
            decode.append((tokens - 1) / (time.perf_counter() - first))
    return {
        "median_decode": statistics.median(decode),
        "median_prefill": statistics.median(prefill),
        "decode": decode,
        "prefill": prefill,
    }


def time_python(folder, *numbers):
    import mlx.core as mx
    from mlx_lm.utils import load_model

    prompt_tokens, tokens, repetitions = map(int, numbers)
    model, config = load_model(Path(folder))
    vocab = config["vocab_size"]
    prompt = mx.array([(i * 7919) % (vocab - 8) + 4 for i in range(prompt_tokens)])
    sides = {"stock": timed(model, prompt, tokens, repetitions)}
    try:
        from zmlx.patch import patch
    except ImportError as error:
        sides["missing"] = str(error)
    else:
        started = time.perf_counter()
        patch(model, verbose=False)
        done = model._zmlx_patch_result
        sides["patched"] = {
            "seconds_to_patch": time.perf_counter() - started,
            "patterns": done.pattern_counts,
            "skipped": done.skipped,
            **timed(model, prompt, tokens, repetitions),
        }
    sides["mlx_version"] = mx.__version__
    json.dump(sides, sys.stdout)


def read(out, name):
    path = out / "logs" / f"{name}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # the side failed, or was stopped
        return None


def check_of(record):
    """What validate says of the demo model, in short."""
    demo = (record or {}).get("demo", {})
    speed = {k: demo.get(k, {}).get("median_decode") for k in ("baseline", "patched")}
    return {"fidelity": demo.get("fidelity"), "median_decode": speed}


def medians_of(rows):
    """Prompt's and new tokens' medians of llama-bench's rows, the best of kinds."""
    best = {"median_decode": None, "median_prefill": None}
    for row in rows or []:
        key = "median_decode" if row["n_gen"] > 0 else "median_prefill"
        best[key] = max(best[key] or 0, statistics.median(row["samples_ts"]))
    return best


def capsule_of(out, one):
    """What was measured of one shape; sides without figures are null."""
    name = one.replace(":", "-")
    rows, python = read(out, f"zmlx_{name}"), read(out, f"python_{name}") or {}
    stock, patched = python.get("stock"), python.get("patched")
    row = next(iter(rows or []), {})
    return {
        "model": f"random weights at the shapes of {name} bit",
        "device": row.get("gpu_info"),
        "versions": {
            "zmlx": row.get("build_commit"),
            "mlx": row.get("mlx_version"),
        },
        "baseline": stock and {"name": "mlx_lm", **stock},
        "patched": rows
        and {
            **medians_of(rows),
            "dtype": row.get("dtype"),
            "patterns": row.get("patterns"),
            "peak_mem_gb": row.get("peak_mem_gb"),
        },
        "python": patched,
        "llama_cpp": medians_of(read(out, f"llama_{name}")),
    }


def cell(value, ours=None):
    """A rate, and in brackets how many times that ours is."""
    ratio = f" ({ours / value:.2f})" if value and ours else ""
    return f"{value:.0f}{ratio}" if value else ""


def report(folder, *shapes):
    out = Path(folder)
    capsules = {one: capsule_of(out, one) for one in shapes}
    record = {
        "schema_version": 1,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "what": "256 new tokens after 512 and a prompt of 512 after 512; in Python"
        " and mlx_lm a prompt of 512 after none; medians, tokens a second",
        "checks": {
            d: check_of(read(out, f"demo_{d}")) for d in ("float32", "bfloat16")
        },
        "shapes": capsules,
    }
    (out / "h100.json").write_text(json.dumps(record, indent=2) + "\n")
    sides = ("patched", "python", "baseline", "llama_cpp")
    lines = [
        "| shape:bits, in brackets zmlx is so many times that | | zmlx | in Python"
        " | mlx_lm | llama.cpp |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one, capsule in capsules.items():
        for key, what in (("median_decode", "decode"), ("median_prefill", "prompt")):
            values = [(capsule[side] or {}).get(key) for side in sides]
            cells = [cell(values[0]), *(cell(v, values[0]) for v in values[1:])]
            lines.append(f"| {one} | {what} | " + " | ".join(cells) + " |")
    (out / "h100.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if not all(capsule["patched"] for capsule in capsules.values()):
        sys.exit("bench_h100: not every shape has a figure of zmlx")
    stepless = [
        f"{one} ({side}): {', '.join(capsule[side].get('skipped') or [])}"
        for one, capsule in capsules.items()
        for side in ("patched", "python")
        if capsule[side] and "decode_step" not in (capsule[side]["patterns"] or ())
    ]
    if stepless:
        sys.exit("bench_h100: timed without decode_step: " + "; ".join(stepless))


if __name__ == "__main__":
    verbs = {"python": time_python, "report": report}
    if len(sys.argv) < 3 or sys.argv[1] not in verbs:
        sys.exit(__doc__)
    verbs[sys.argv[1]](*sys.argv[2:])
