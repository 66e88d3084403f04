# SPDX-License-Identifier: MIT
"""Softmax as two totals of a row and what is made of them."""

import mlx.core as mx

import zmlx

softmax = zmlx.map_reduce(
    pass1={"init": "-INFINITY", "update": "max(acc1, x)", "reduce": "max(a, b)"},
    pass2={"init": "0.0f", "update": "acc2 + exp(x - s1)", "reduce": "a + b"},
    write="exp(x - s1) / s2",
    name="row_softmax",
)


def stock(x):
    return mx.softmax(x, axis=-1)


if __name__ == "__main__":
    zmlx.testing.assert_matches(softmax, stock, [(8, 1024), (3, 5), (2, 0)])
    zmlx.testing.assert_gradient_matches(softmax, stock, [(8, 33)])
    sides = {"MLX": stock, "zmlx": softmax}
    zmlx.bench.compare(sides, [(256, 1024)], dtypes=[mx.float32], iters=5)
