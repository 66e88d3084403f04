# SPDX-License-Identifier: MIT
"""Where time and memory go."""

import statistics
import time

import mlx.core as mx
from mlx.utils import tree_flatten

from zmlx import cache
from zmlx._rules import require_callable


def time_kernel(fn, *args, warmup=5, iters=20):
    """Microseconds of a call, evaluated: median_us, mean_us, min_us, max_us,
    std_us and iters."""
    require_callable("time_kernel", fn)
    if iters < 1:
        raise ValueError(f"[time_kernel] iters must be 1 or more, got {iters}.")
    samples = []
    for number in range(warmup + iters):
        start = time.perf_counter()
        mx.eval(fn(*args))
        mx.synchronize()
        if number >= warmup:
            samples.append((time.perf_counter() - start) * 1e6)
    return {
        "median_us": statistics.median(samples),
        "mean_us": statistics.fmean(samples),
        "min_us": min(samples),
        "max_us": max(samples),
        "std_us": statistics.pstdev(samples),
        "iters": iters,
    }


def _bytes(tree):
    arrays = (value for _, value in tree_flatten(tree))
    return sum(each.nbytes for each in arrays if isinstance(each, mx.array))


def memory_usage(fn, *args):
    """input_bytes, output_bytes, total_bytes and peak_bytes of a call; the peak is
    MLX's own, above what was in use before."""
    require_callable("memory_usage", fn)
    mx.eval([value for _, value in tree_flatten(args)])
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    outputs = fn(*args)
    mx.eval(outputs)
    mx.synchronize()
    taken, given = _bytes(list(args)), _bytes(outputs)
    return {
        "input_bytes": taken,
        "output_bytes": given,
        "total_bytes": taken + given,
        "peak_bytes": max(mx.get_peak_memory() - before, 0),
    }


def dump_msl(kernel):
    """The Metal text of a raw kernel, header first, or of a jit function."""
    source = getattr(kernel, "source", None)
    if not isinstance(source, str):
        raise TypeError(
            "[dump_msl] a raw kernel or jit function must come, got"
            f" {type(kernel).__name__}."
        )
    header = getattr(kernel, "header", "")
    return f"{header}\n{source}" if header else source


def kernel_stats():
    """name, compile_time_ms, run_count and total_run_time_ms of each raw kernel."""
    return [
        {
            "name": kernel.name,
            "compile_time_ms": kernel.stats.compile_time_ms,
            "run_count": kernel.stats.run_count,
            "total_run_time_ms": kernel.stats.total_run_time_ms,
        }
        for _, kernel in cache.kernels()
    ]


def analyze_bottlenecks(fn, *args, verbose=True):
    """Time, memory and raw kernels of a call, with what may be worth a look:
    time_us, peak_bytes, kernels (name to runs) and suggestions."""
    before = {stats["name"]: stats["run_count"] for stats in kernel_stats()}
    mx.eval(fn(*args))
    runs = {
        stats["name"]: stats["run_count"] - before.get(stats["name"], 0)
        for stats in kernel_stats()
    }
    runs = {name: count for name, count in runs.items() if count}
    timing = time_kernel(fn, *args, warmup=1, iters=5)
    memory = memory_usage(fn, *args)
    suggestions = []
    if sum(runs.values()) > 50:
        suggestions.append(
            f"{sum(runs.values())} raw kernels run in one call: fuse some of them."
        )
    if timing["std_us"] > 0.5 * timing["mean_us"]:
        suggestions.append("Times vary by more than half: time it on a quiet machine.")
    if memory["peak_bytes"] > 4 * max(memory["total_bytes"], 1):
        suggestions.append(
            "The peak is over 4 times what goes in and out: intermediate results may"
            " be fused away."
        )
    result = {
        "time_us": timing["median_us"],
        "peak_bytes": memory["peak_bytes"],
        "kernels": runs,
        "suggestions": suggestions,
    }
    if verbose:
        print(f"time: {result['time_us']:.1f} us, peak: {result['peak_bytes']} bytes")
        for name, count in runs.items():
            print(f"kernel {name}: {count} runs")
        for each in suggestions:
            print(each)
    return result
