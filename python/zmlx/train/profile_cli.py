# SPDX-License-Identifier: MIT
"""``zmlx profile``: the time of a model's call."""

import argparse
import statistics
import time

import mlx.core as mx


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="zmlx profile", description="Times a call of a model on five tokens."
    )
    parser.add_argument("--model", required=True, help="a folder or Hugging Face id")
    parser.add_argument("--iters", type=int, default=10)
    parser.add_argument("--patch", action="store_true", help="patch it first")
    parser.add_argument(
        "--analyze", action="store_true", help="also the time of each kind of module"
    )
    args = parser.parse_args(argv)
    if args.iters < 1:
        raise ValueError(f"[profile] iters must be 1 or more, got {args.iters}.")
    from zmlx import _lm

    model = _lm.load(_lm.folder_of(args.model))[0]
    if args.patch:
        from zmlx.patch import patch

        print(patch(model)._zmlx_patch_result.summary())
    tokens = mx.array([[1, 2, 3, 4, 5]])
    times = timed(lambda: model(tokens), args.iters)
    print(f"Median time: {1e3 * statistics.median(times):.2f} ms")
    print(f"Mean time: {1e3 * statistics.fmean(times):.2f} ms")
    if args.analyze:
        print_kinds(model, tokens)
    return 0


def timed(call, iters):
    times = []
    for number in range(iters + 1):
        begin = time.perf_counter()
        mx.eval(call())
        if number:  # the first one loads and compiles
            times.append(time.perf_counter() - begin)
    return times


def print_kinds(model, tokens):
    """Seconds in each class of modules, those inside counted in theirs alone."""
    spent, stack = {}, []
    kinds = {type(module) for _, module in model.named_modules()}

    def watched(kind, call):
        def watch(self, *args, **kwargs):
            stack.append(0.0)
            begin = time.perf_counter()
            result = call(self, *args, **kwargs)
            mx.eval(result)
            seconds = time.perf_counter() - begin
            count, total = spent.get(kind.__name__, (0, 0.0))
            spent[kind.__name__] = count + 1, total + seconds - stack.pop()
            if stack:
                stack[-1] += seconds
            return result

        return watch

    own = {kind: vars(kind)["__call__"] for kind in kinds if "__call__" in vars(kind)}
    try:
        for kind, call in own.items():
            kind.__call__ = watched(kind, call)
        model(tokens)
    finally:
        for kind, call in own.items():
            kind.__call__ = call
    whole = sum(seconds for _, seconds in spent.values())
    print(f"{'Module':<28}{'Calls':>7}{'ms':>10}{'Share':>8}")
    for name, (count, seconds) in sorted(spent.items(), key=lambda each: -each[1][1]):
        print(f"{name:<28}{count:>7}{1e3 * seconds:>10.2f}{seconds / whole:>8.1%}")
