# SPDX-License-Identifier: MIT
"""The command ``zmlx profile``: the time of a model's step on five tokens."""

import argparse

import mlx.core as mx

from zmlx import _models, profile


def main(argv=None):
    parser = argparse.ArgumentParser(prog="zmlx profile")
    parser.add_argument("--model", required=True)
    parser.add_argument("--analyze", action="store_true", help="kernels and advice")
    parser.add_argument("--iters", type=int, default=10)
    parser.add_argument("--patch", action="store_true")
    args = parser.parse_args(argv)
    model, _ = _models._mlx_lm("profile").load(args.model)[:2]
    if args.patch:
        from zmlx.patch import patch

        patch(model, verbose=True)
    tokens = mx.array([[1, 2, 3, 4, 5]])
    timing = profile.time_kernel(model, tokens, warmup=2, iters=args.iters)
    memory = profile.memory_usage(model, tokens)
    print(f"step of {tokens.size} tokens, {timing['iters']} times:")
    for name in ("median_us", "min_us", "max_us", "std_us"):
        print(f"  {name[:-3]:<8}{timing[name] / 1e3:.3f} ms")
    print(f"  {'peak':<8}{memory['peak_bytes'] / 1e6:.2f} MB")
    if args.analyze:
        profile.analyze_bottlenecks(model, tokens)
    return 0
