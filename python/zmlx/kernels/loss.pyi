# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
import mlx.core as mx

def softmax_cross_entropy(logits: mx.array, targets: mx.array, *, ignore_index: float = -100, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """Cross entropy of each row of logits and its class.

    logits: (..., classes) float
    targets: (...) integers
    ignore_index: the target of rows that count 0
    Returns: (...) float32
    Differentiable in: logits
    """

def softmax_cross_entropy_grad(logits: mx.array, targets: mx.array, cotan: mx.array, *, ignore_index: float = -100, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """(softmax - onehot) g of each row of logits.

    logits: (..., classes) float
    targets: (...) integers
    cotan: (...) float
    ignore_index: the target of rows that count 0
    Returns: logits' shape and type; float32 inside
    Differentiable in: logits, cotan
    """
