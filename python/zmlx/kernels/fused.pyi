# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
from collections.abc import Callable

import mlx.core as mx

def add(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array, mx.array], mx.array]:
    """A function of a, b: a + b.

    a: any shape, float
    b: broadcasts with a, float
    Returns: the type that both promote to; float32 inside
    Differentiable in: a, b
    """

def mul(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array, mx.array], mx.array]:
    """A function of a, b: a b.

    a: any shape, float
    b: broadcasts with a, float
    Returns: the type that both promote to; float32 inside
    Differentiable in: a, b
    """

def silu_mul_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array, mx.array], mx.array]:
    """A function of a, b: silu(a) b.

    a: any shape, float
    b: broadcasts with a, float
    Returns: the type that both promote to; float32 inside
    Differentiable in: a, b
    """

def add_bias(*, c: float = 0, compute_dtype: mx.Dtype | None = None) -> Callable[[mx.array, mx.array], mx.array]:
    """A function of x, bias: x + bias along the last axis.

    x: (..., dim) float
    bias: (dim) float
    c: the length of bias, which is known already
    Returns: the type that both promote to; float32 inside
    Differentiable in: x, bias
    """

def bias_gelu_tanh(*, c: float = 0, compute_dtype: mx.Dtype | None = None) -> Callable[[mx.array, mx.array], mx.array]:
    """A function of x, bias: gelu_tanh(x + bias).

    x: (..., dim) float
    bias: (dim) float
    c: the length of bias, which is known already
    Returns: the type that both promote to; float32 inside
    Differentiable in: x, bias
    """

def bias_silu(*, c: float = 0, compute_dtype: mx.Dtype | None = None) -> Callable[[mx.array, mx.array], mx.array]:
    """A function of x, bias: silu(x + bias).

    x: (..., dim) float
    bias: (dim) float
    c: the length of bias, which is known already
    Returns: the type that both promote to; float32 inside
    Differentiable in: x, bias
    """
