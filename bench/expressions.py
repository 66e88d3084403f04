#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Times expressions on the CPU: zmlx, stock MLX and PyTorch side by side.

Usage: expressions.py EXPRESSION_BENCH [--rounds N] [--case NAME]...

EXPRESSION_BENCH is the program of that name (cmake -DZMLX_BUILD_BENCH=ON). Every
round runs each side once, in an order that turns; so all sides see the same
machine. PyTorch's columns stay empty where it is not installed.
"""

import argparse
import statistics
import subprocess
import time

try:
    import torch
    import torch.nn.functional as nn
except ImportError:
    torch = None

CASES = ["copy", "mish", "swiglu_f16", "softmax", "row_sum", "column_sum"]
SIDES = ["zmlx", "mlx", "mlx_compile", "torch", "torch_compile"]


def torch_cases():
    """(function, inputs) for each case."""
    values = torch.randn(1 << 24)
    square = torch.randn(4096, 4096)
    a, b = (torch.randn(16, 1024, 1024).half() for _ in range(2))
    return {
        "copy": (lambda x: x.clone(), [values]),
        "mish": (lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))), [values]),
        "swiglu_f16": (lambda x, y: nn.silu(x) * y, [a, b]),
        "softmax": (lambda x: torch.softmax(x, -1), [square]),
        "row_sum": (lambda x: x.sum(-1), [square]),
        "column_sum": (lambda x: x.sum(0), [square]),
    }


class Bench:
    """The C++ side, one process for all rounds."""

    def __init__(self, program):
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{program} found sides that differ.")
        self.threads = int(line.split()[1])

    def seconds(self, case, side):
        self.process.stdin.write(f"{case} {side}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def torch_runners(threads):
    """A function of no arguments for each (case, side)."""
    torch.set_num_threads(threads)
    runners = {}
    for case, (function, inputs) in torch_cases().items():
        fast = torch.compile(function)
        runners[case, "torch"] = lambda f=function, x=inputs: f(*x)
        runners[case, "torch_compile"] = lambda f=fast, x=inputs: f(*x)
    return runners


def measure(bench, runners, case, side):
    """Seconds of one run; None for a side that is not there."""
    if not side.startswith("torch"):
        return bench.seconds(case, side)
    if (case, side) not in runners:
        return None
    start = time.perf_counter()
    result = runners[case, side]()
    end = time.perf_counter()
    del result
    return end - start


def cell(seconds):
    """Median, half the distance between quartiles and best, in milliseconds."""
    seconds = [s * 1e3 for s in seconds if s is not None]
    if not seconds:
        return ""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return f"{middle:.2f} +- {(high - low) / 2:.2f} ({min(seconds):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--case", action="append", choices=CASES)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}")
    bench = Bench(options.program)
    with torch.inference_mode() if torch else open("/dev/null"):
        runners = torch_runners(bench.threads) if torch else {}
        report(bench, runners, options.case or CASES, options.rounds)


def report(bench, runners, cases, rounds):
    print(f"{bench.threads} threads, {rounds} rounds: median +- half the distance")
    print("between quartiles (best), milliseconds\n")
    print("| case | " + " | ".join(SIDES) + " |")
    print("| --- |" + " --- |" * len(SIDES))
    for case in cases:
        samples = {side: [] for side in SIDES}
        for side in SIDES:  # warm up, compile
            measure(bench, runners, case, side)
        for number in range(rounds):
            turn = number % len(SIDES)
            for side in SIDES[turn:] + SIDES[:turn]:
                time.sleep(0.005)  # until idle threads of the last one sleep
                samples[side].append(measure(bench, runners, case, side))
        print(f"| {case} | " + " | ".join(cell(samples[s]) for s in SIDES) + " |")
    first = [bench.seconds("first_call", "zmlx") for _ in range(101)]
    print(f"\nFirst call of a new expression: {cell(first)} ms.")


if __name__ == "__main__":
    main()
