# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
import mlx.core as mx

def sum_lastdim(x: mx.array, *, kahan: bool = False, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Sum over the last axis.

    x: (..., dim) float
    Returns: x's shape less its last axis, x's type
    Differentiable in: x
    """

def mean_lastdim(x: mx.array, *, kahan: bool = False, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Mean over the last axis.

    x: (..., dim) float
    Returns: x's shape less its last axis, x's type
    Differentiable in: x
    """

def max_lastdim(x: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Largest element of the last axis.

    x: (..., dim) float
    Returns: x's shape less its last axis, x's type
    Differentiable in: x
    """

def var_lastdim(x: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Variance of the last axis, in two passes.

    x: (..., dim) float
    Returns: x's shape less its last axis, x's type
    Differentiable in: x
    """

def std_lastdim(x: mx.array, *, eps: float = 1e-06, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """sqrt(variance + eps) of the last axis.

    x: (..., dim) float
    eps: added to the variance
    Returns: x's shape less its last axis, x's type
    Differentiable in: x
    """

def argmax_lastdim(x: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Place of the largest element of the last axis.

    x: (..., dim) float
    Returns: x's shape less its last axis, uint32
    Differentiable in: nothing
    """
