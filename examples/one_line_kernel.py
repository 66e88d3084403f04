# SPDX-License-Identifier: MIT
"""One line of text becomes an operation: checked against MLX, then timed."""

import mlx.core as mx

import zmlx

mish = zmlx.elementwise("x * tanh(log(1 + exp(x)))", name="mish")


def composed(x):
    return x * mx.tanh(mx.log(1 + mx.exp(x)))


if __name__ == "__main__":
    shapes = [(7,), (3, 5), (0,)]
    zmlx.testing.assert_matches(mish, composed, shapes)
    zmlx.testing.assert_gradient_matches(mish, composed, shapes)
    print("matches; d/dx =", mish.gradient_text())
    # The baseline first: a speedup above 1 means that the one line is faster.
    sides = {"composed": composed, "one line": mish}
    zmlx.bench.compare(sides, [(512, 512)], dtypes=[mx.float32], iters=5)
