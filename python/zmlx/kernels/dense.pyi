# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
import mlx.core as mx

def dense_matmul(x: mx.array, weight: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """x times the transpose of a matrix that is not quantised.

    x: (..., cols) float
    weight: (rows, cols) float
    Returns: (..., rows) in x's type; float32 accumulation
    Differentiable in: x, weight
    Runs on the CPU only.
    """
