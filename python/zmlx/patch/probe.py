# SPDX-License-Identifier: MIT
"""The probe: a fused module against its stock call, on the model's own weights."""

import mlx.core as mx
from mlx.utils import tree_flatten

from zmlx.patch.fused import stock_class

# Rounding of a float32 sum of 10^4 terms is below 1e-5 of its size. Probes are in
# float32 whatever the weights' type: both sides then compute the same function.
ALLOWED = 1e-4

# Stock quantised products take 0.1 s for 30 MB of weights on a slow CPU.
_CHEAP_BYTES = 2 << 20
_SEEDS = (1, 2)


def error_of(module, fused, call=None):
    """The largest difference over the stock output's largest value; call: what
    the fused side runs, by default fused.run().

    A near tie in a router may send a token to another expert on one side,
    rightly; so one of two inputs must agree.
    """
    stock = getattr(stock_class(module), fused.method)
    made = fused.ready(module)

    def run(x):
        given = fused.arguments(module, x)
        return call(*given) if call else fused.run(module, made, stock, *given)

    def expected_of(x):
        return stock(module, *fused.arguments(module, x))

    sizes = [value.nbytes for _, value in tree_flatten(module.parameters())]
    cheap = sum(sizes) < _CHEAP_BYTES
    packed = any(value.dtype == mx.uint32 for _, value in tree_flatten(module))
    error = float("inf")
    for seed in _SEEDS:
        # Enough rows for the path of many tokens.
        rows = 5 if packed and not cheap else 17
        x = mx.random.normal((1, rows, fused.width(module)), key=mx.random.key(seed))
        many = run(x)
        if not fused.rowwise:
            error = difference(expected_of(x), many)
            if error <= ALLOWED:
                break
            continue
        one = run(x[:, :1])
        stock_rows = rows if cheap else 1
        expected = expected_of(x[:, :stock_rows])
        error = max_of(
            difference(expected, many[:, :stock_rows]),
            difference(expected[:, :1], one),
            difference(many[:, 3:4], run(x[:, 3:4])),
        )
        if error <= ALLOWED:
            break
    return error


def difference(expected, got):
    if expected.shape != got.shape:
        return float("inf")
    size = mx.abs(expected).max().item()
    return mx.abs(got - expected).max().item() / max(size, 1e-30)


def max_of(*errors):
    """Of all, NaN if there is one, which Python's max() may hide."""
    return float("nan") if any(e != e for e in errors) else max(errors)
