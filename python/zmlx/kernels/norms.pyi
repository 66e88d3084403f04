# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
import mlx.core as mx

def rmsnorm(x: mx.array, weight: mx.array, *, eps: float = 1e-06, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """RMS normalisation over the last axis, scaled by weight.

    x: (..., dim) float
    weight: (dim) float
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside
    Differentiable in: x, weight
    """

def rmsnorm_grad(x: mx.array, weight: mx.array, cotan: mx.array, *, eps: float = 1e-06, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Gradient of rms_norm in x, from its cotangent g.

    x: (..., dim) float
    weight: (dim) float
    cotan: as x
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside
    Differentiable in: x, weight, cotan
    """

def rms_norm_no_weight(x: mx.array, *, eps: float = 1e-06, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """RMS normalisation over the last axis.

    x: (..., dim) float
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def layernorm(x: mx.array, gamma: mx.array, beta: mx.array, *, eps: float = 1e-05, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Layer normalisation over the last axis, scaled and shifted.

    x: (..., dim) float
    gamma: (dim) float
    beta: (dim) float
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside
    Differentiable in: x, gamma, beta
    """

def layer_norm_no_weight(x: mx.array, *, eps: float = 1e-05, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Layer normalisation over the last axis.

    x: (..., dim) float
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def layer_norm_dropout(x: mx.array, gamma: mx.array, beta: mx.array, p: float, seed: float = 0, *, eps: float = 1e-05, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Layer normalisation, then dropout.

    x: (..., dim) float
    gamma: (dim) float
    beta: (dim) float
    p: how many become 0, 0 to below 1
    seed: which ones, a whole number
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside
    Differentiable in: x, gamma, beta
    """

def residual_rmsnorm(x: mx.array, residual: mx.array, weight: mx.array, *, eps: float = 1e-06, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """RMS normalisation of x + residual.

    x: (..., dim) float
    residual: as x
    weight: (dim) float
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside
    Differentiable in: x, residual, weight
    """

def add_rms_norm(x: mx.array, residual: mx.array, weight: mx.array, *, eps: float = 1e-06, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> tuple[mx.array, mx.array]:
    """RMS normalisation of x + residual, and that sum.

    x: (..., dim) float
    residual: as x
    weight: (dim) float
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside; x + residual, as out
    Differentiable in: x, residual, weight
    """
