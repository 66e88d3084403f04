# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
from collections.abc import Callable

import mlx.core as mx

def exp(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: exp(x).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def exp_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: exp(x).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def log(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: Natural logarithm.

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def log_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: Natural logarithm.

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def tanh(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: tanh(x).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def tanh_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: tanh(x).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def sigmoid(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: 1 / (1 + exp(-x)).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def sigmoid_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: 1 / (1 + exp(-x)).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def relu(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: max(x, 0).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def relu_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: max(x, 0).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def relu2(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: max(x, 0)^2.

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def relu2_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: max(x, 0)^2.

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def silu(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: x sigmoid(x).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def silu_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: x sigmoid(x).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def gelu(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: x Phi(x), exact.

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def gelu_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: x Phi(x), exact.

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def gelu_tanh(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: x Phi(x) by its tanh approximation.

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def gelu_tanh_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: x Phi(x) by its tanh approximation.

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def softplus(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: log(1 + exp(x)) without overflow.

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def softplus_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: log(1 + exp(x)) without overflow.

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def mish(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: x tanh(softplus(x)).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def mish_grad(*, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: x tanh(softplus(x)).

    x: any shape, float
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def elu(alpha: float = 1.0, *, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: x where x > 0, else alpha (exp(x) - 1).

    x: any shape, float
    alpha: the limit for large negative x, negated
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """

def elu_grad(alpha: float = 1.0, *, compute_dtype_key: str = 'float32') -> Callable[[mx.array], mx.array]:
    """A function of x: x where x > 0, else alpha (exp(x) - 1).

    x: any shape, float
    alpha: the limit for large negative x, negated
    Returns: x's shape and type; float32 inside
    Differentiable in: x
    """
