# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
import mlx.core as mx

def swiglu(x: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """silu(x1) x2 of the halves of the last axis.

    x: (..., 2 dim) float
    Returns: (..., dim), the inputs' type; float32 inside
    Differentiable in: x
    """

def geglu(x: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """gelu_tanh(x1) x2 of the halves of the last axis.

    x: (..., 2 dim) float
    Returns: (..., dim), the inputs' type; float32 inside
    Differentiable in: x
    """

def swiglu2(gate: mx.array, up: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """silu(gate) up.

    gate: any shape, float
    up: as gate
    Returns: (..., dim), the inputs' type; float32 inside
    Differentiable in: gate, up
    """

def geglu2(gate: mx.array, up: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """gelu_tanh(gate) up.

    gate: any shape, float
    up: as gate
    Returns: (..., dim), the inputs' type; float32 inside
    Differentiable in: gate, up
    """

def bias_swiglu(x: mx.array, bias: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """swiglu of x + bias.

    x: (..., 2 dim) float
    bias: (2 dim) float
    Returns: (..., dim), the inputs' type; float32 inside
    Differentiable in: x, bias
    """

def bias_geglu(x: mx.array, bias: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """geglu of x + bias.

    x: (..., 2 dim) float
    bias: (2 dim) float
    Returns: (..., dim), the inputs' type; float32 inside
    Differentiable in: x, bias
    """

def dropout(x: mx.array, p: float, seed: float = 0, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Zeros with probability p, the rest divided by 1 - p.

    x: any shape, float
    p: how many become 0, 0 to below 1
    seed: which ones, a whole number
    Returns: x's shape and type
    Differentiable in: x
    """

def rms_norm_dropout(x: mx.array, weight: mx.array, p: float, seed: float = 0, *, eps: float = 1e-06, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """RMS normalisation, then dropout.

    x: (..., dim) float
    weight: (dim) float
    p: how many become 0, 0 to below 1
    seed: which ones, a whole number
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside
    Differentiable in: x, weight
    """

def rmsnorm_residual(x: mx.array, residual: mx.array, weight: mx.array, *, eps: float = 1e-06, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> tuple[mx.array, mx.array]:
    """RMS normalisation of a sum, and that sum.

    x: (..., dim) float
    residual: as x
    weight: (dim) float
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside; x + residual, as out
    Differentiable in: x, residual, weight
    """

def fused_add_rmsnorm(x1: mx.array, x2: mx.array, weight: mx.array, *, eps: float = 1e-06, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """RMS normalisation of a sum.

    x1: (..., dim) float
    x2: as x1
    weight: (dim) float
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside
    Differentiable in: x1, x2, weight
    """

def layernorm_residual(x: mx.array, residual: mx.array, gamma: mx.array, beta: mx.array, *, eps: float = 1e-05, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> tuple[mx.array, mx.array]:
    """Layer normalisation of a sum, and that sum.

    x: (..., dim) float
    residual: as x
    gamma: (dim) float
    beta: (dim) float
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside; x + residual, as out
    Differentiable in: x, residual, gamma, beta
    """

def fused_add_layernorm(x1: mx.array, x2: mx.array, gamma: mx.array, beta: mx.array, *, eps: float = 1e-05, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Layer normalisation of a sum.

    x1: (..., dim) float
    x2: as x1
    gamma: (dim) float
    beta: (dim) float
    eps: added to the mean of squares
    Returns: x's shape and type; float32 inside
    Differentiable in: x1, x2, gamma, beta
    """
