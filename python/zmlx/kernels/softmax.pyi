# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
import mlx.core as mx

def softmax_lastdim(x: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Softmax over the last axis.

    x: (..., dim) float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def log_softmax_lastdim(x: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Logarithm of softmax over the last axis.

    x: (..., dim) float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def softmax_grad(y: mx.array, cotan: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """y (g - sum of y g) over the last axis.

    y: (..., dim) float
    cotan: as y
    Returns: y's shape and type; float32 inside
    Differentiable in: y, cotan
    """
