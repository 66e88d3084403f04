# SPDX-License-Identifier: MIT
"""Cross entropy of rows of logits: fused, and its twin of MLX operations."""

import mlx.core as mx
import mlx.nn as nn

from zmlx._rules import check_threadgroup


def _reduced(losses, reduction):
    if reduction == "mean":
        return losses.mean()
    return losses.sum() if reduction == "sum" else losses


def fused_cross_entropy(
    logits, targets, *, threadgroup=256, compute_dtype=None, reduction="mean"
):
    """One pass over the logits, and one for their gradient; float32 inside.
    reduction: "mean", "sum", or anything else for one loss a row."""
    from zmlx.kernels.loss import softmax_cross_entropy

    check_threadgroup("fused_cross_entropy", threadgroup)
    return _reduced(softmax_cross_entropy(logits, targets), reduction)


def standard_cross_entropy(logits, targets, *, reduction="mean"):
    """The same of mlx.nn, in float32."""
    losses = nn.losses.cross_entropy(logits.astype(mx.float32), targets)
    return _reduced(losses, reduction)
