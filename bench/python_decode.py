# SPDX-License-Identifier: MIT
"""mlx_lm on a patched model against the program zmlx on the same files, by turns.

    python bench/python_decode.py MODEL --program build/bin/zmlx --output F.json

Each round times the program (`zmlx bench`), then Python: prefill and decode through
mlx_lm.generate.generate_step, sampling included. Prints medians and their ratio.
--append adds rounds to those of the file, as of an earlier run.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import time
from pathlib import Path

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model

import zmlx
from zmlx.patch import patch

# Tokens of a run that is not timed: the program has run since the last round, and
# this process slept.
_WARM = 16


def timed(model, prompt, count):
    """Seconds to the first token of a greedy run, and of the rest."""
    tokens = mx.random.randint(0, model.args.vocab_size, (prompt,))
    mx.eval(tokens)
    start = time.perf_counter()
    steps = generate_step(tokens, model, max_tokens=count)
    next(steps)
    first = time.perf_counter()
    for _ in steps:
        pass
    return first - start, time.perf_counter() - first


def python_rates(model, prompt, count):
    """(prefill, decode) tokens a second; decoding starts from an empty context, and
    each after a short run that is not timed, as the program's do."""
    timed(model, _WARM, _WARM)
    return prompt / timed(model, prompt, 1)[0], count / timed(model, 1, count + 1)[1]


def program_rates(program, model, prompt, count):
    """The same of `zmlx bench`, and the read bandwidth that it measured."""
    command = [program, "bench", "--model", model, "-p", str(prompt), "-n", str(count)]
    out = subprocess.run(
        [*command, "-r", "1", "-o", "json"], capture_output=True, text=True, check=True
    )
    rows = json.loads(out.stdout)
    rates = {bool(row["n_gen"]): row["avg_ts"] for row in rows}
    return rates.get(False), rates[True], rows[-1]["read_bandwidth_gb_s"]


def resident():
    """GB of memory of this process now, and the most so far."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"now": pages * resource.getpagesize() / 1e9, "most": most / 1e9}


def patched(path):
    """(model, what loading, patch() and the first call took)."""
    model, _ = load_model(Path(path))
    mx.eval(model.parameters())
    start, loaded = time.perf_counter(), resident()
    patch(model)
    patch_seconds = time.perf_counter() - start
    # Which moves the weights to where they are read fastest.
    start = time.perf_counter()
    mx.eval(model(mx.array([[1]])))
    took = {
        "patch_seconds": patch_seconds,
        "first_call_seconds": time.perf_counter() - start,
        "resident_gb": {"loaded": loaded, "after the first call": resident()},
    }
    return model, took


def run_round(args, model):
    return {
        "program": program_rates(args.program, args.model, args.prompt, args.count),
        "python": python_rates(model, args.prompt, args.count),
    }


def summary(args, model, took, rounds):
    result = model._zmlx_patch_result
    median = {
        (side, i): statistics.median(one[side][i] for one in rounds)
        for side in ("program", "python")
        for i in (0, 1)
    }
    return {
        "model": args.model,
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "mlx_version": mx.__version__,
        "zmlx_version": zmlx.__version__,
        "prompt": args.prompt,
        "count": args.count,
        **took,
        "patterns": result.pattern_counts,
        "rounds": rounds,
        "median_prefill": {s: median[s, 0] for s in ("program", "python")},
        "median_decode": {s: median[s, 1] for s in ("program", "python")},
        "decode_ratio": statistics.median(
            one["python"][1] / one["program"][1] for one in rounds
        ),
        "prefill_ratio": statistics.median(
            one["python"][0] / one["program"][0] for one in rounds
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--program", default="build/bin/zmlx")
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", required=True)
    parser.add_argument("--append", action="store_true")
    args = parser.parse_args()
    output = Path(args.output)
    rounds = json.loads(output.read_text())["rounds"] if args.append else []
    model, took = patched(args.model)
    rounds += [run_round(args, model) for _ in range(args.rounds)]
    found = summary(args, model, took, rounds)
    output.write_text(json.dumps(found, indent=2) + "\n")
    print(
        f"patch() {took['patch_seconds']:.2f} s; Python over the program:"
        f" decode {found['decode_ratio']:.3f}, prefill {found['prefill_ratio']:.3f}"
    )


if __name__ == "__main__":
    main()
