# SPDX-License-Identifier: MIT
"""Timing: compare() on arrays; zmlx.bench.report for capsules of models."""

import statistics
import time

import mlx.core as mx

from zmlx._rules import require_callable


def _inputs(shape, dtype, count, seed):
    keys = mx.random.split(mx.random.key(seed), max(count, 1))
    arrays = [mx.random.normal(shape, key=keys[i]).astype(dtype) for i in range(count)]
    mx.eval(arrays)
    return arrays


def _microseconds(function, inputs):
    start = time.perf_counter()
    mx.eval(function(*inputs))
    mx.synchronize()
    return (time.perf_counter() - start) * 1e6


def _difference(got, want, dtype):
    """Why got is not want, or ""."""
    got, want = (
        list(each) if isinstance(each, list | tuple) else [each] for each in (got, want)
    )
    if [each.shape for each in got] != [each.shape for each in want]:
        return "its outputs have other shapes"
    tolerance = 1e-3 if dtype == mx.float32 else 3e-2
    for a, b in zip(got, want, strict=True):
        a, b = a.astype(mx.float32), b.astype(mx.float32)
        if not mx.allclose(a, b, tolerance, tolerance, equal_nan=True).item():
            return "its values differ"
    return ""


def _time(functions, inputs, warmup, iters):
    """Medians, each side's runs spread over the same time."""
    for function in functions:
        for _ in range(warmup):
            _microseconds(function, inputs)
    samples = [[] for _ in functions]
    for number in range(iters):
        order = range(len(functions))
        for side in reversed(order) if number % 2 else order:
            samples[side].append(_microseconds(functions[side], inputs))
    return [statistics.median(each) for each in samples]


def _row(implementations, shape, dtype, n_inputs, warmup, iters, seed):
    inputs = _inputs(shape, dtype, n_inputs, seed)
    row = {"shape": tuple(shape), "dtype": str(dtype).removeprefix("mlx.core.")}
    good, expected = {}, None
    for name, function in implementations.items():
        row[f"{name}_us"] = float("nan")
        try:
            result = function(*inputs)
            mx.eval(result)
        except Exception as error:  # noqa: BLE001 - whatever it is goes into the table
            row["failure"] = f"{name}: {type(error).__name__}: {error}"
            continue
        if expected is None:
            expected = result
        why = _difference(result, expected, dtype)
        if why:
            row["failure"] = f"{name}: {why}"
        else:
            good[name] = function
    times = _time(list(good.values()), inputs, warmup, iters)
    for name, microseconds in zip(good, times, strict=True):
        row[f"{name}_us"] = microseconds
    both = [row[f"{name}_us"] for name in list(implementations)[:2]]
    row["speedup"] = both[0] / both[1] if len(both) == 2 else float("nan")
    return row


def _print(names, rows):
    heads = ["Shape", "Dtype", *names, "Speedup"]
    table = []
    for row in rows:

        def cell(value, text):
            return "ERR" if value != value else text.format(value)

        table.append(
            [
                str(row["shape"]),
                row["dtype"],
                *(cell(row[f"{name}_us"], "{:.1f} us") for name in names),
                cell(row["speedup"], "{:.2f}x"),
            ]
        )
    widths = [max(map(len, column)) for column in zip(heads, *table, strict=True)]
    for line in [heads, *table]:
        cells = (each.ljust(w) for each, w in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())
    for row in rows:
        if "failure" in row:
            print(f"WARNING: {row['shape']} {row['dtype']}: {row['failure']}.")


def compare(
    implementations,
    shapes,
    *,
    dtypes=None,
    n_inputs=1,
    warmup=5,
    iters=20,
    seed=42,
):
    """Times functions of arrays against each other and prints a table.

    implementations: name to function; each is checked against the first, and not
        timed where it differs or throws.
    dtypes: float32 and float16 by default.
    Returns a list of {"shape", "dtype", "<name>_us" (the median), "speedup"}.
    speedup is the first one's time over the second's: above 1 the second is
    faster, so put the baseline first.
    """
    if not implementations or not shapes:
        raise ValueError(
            "[bench.compare] implementations and shapes must not be empty, got"
            f" {len(implementations)} and {len(shapes)}."
        )
    for function in implementations.values():
        require_callable("bench.compare", function)
    rows = [
        _row(implementations, shape, dtype, n_inputs, warmup, iters, seed)
        for shape in shapes
        for dtype in dtypes or [mx.float32, mx.float16]
    ]
    _print(list(implementations), rows)
    return rows
