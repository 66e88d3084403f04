# SPDX-License-Identifier: MIT
"""Losses over logits: cross entropy in one pass, and as MLX composes it."""

import mlx.core as mx
import mlx.nn as nn

from zmlx.kernels.loss import softmax_cross_entropy


def _reduced(losses, reduction):
    if reduction == "mean":
        return losses.mean()
    return losses.sum() if reduction == "sum" else losses


def fused_cross_entropy(
    logits, targets, *, threadgroup=256, compute_dtype=None, reduction="mean"
):
    """Cross entropy of logits (..., classes) and targets (...) in one pass each way;
    a target of -100 counts 0. reduction: "mean", "sum", or else none."""
    losses = softmax_cross_entropy(
        logits, targets, threadgroup=threadgroup, compute_dtype=compute_dtype
    )
    return _reduced(losses, reduction)


def standard_cross_entropy(logits, targets, *, reduction="mean"):
    """The same of MLX's operations."""
    losses = nn.losses.cross_entropy(logits.astype(mx.float32), targets)
    return _reduced(losses, reduction)


def fused_loss(model, batch, lengths):
    """mlx_lm's loss, (loss, tokens), its cross entropy in one pass over the
    logits."""
    inputs, targets = batch[:, :-1], batch[:, 1:]
    losses = softmax_cross_entropy(model(inputs), targets)
    steps = mx.arange(1, targets.shape[1] + 1)
    mask = mx.logical_and(steps >= lengths[:, 0:1], steps <= lengths[:, 1:])
    tokens = mask.sum()
    return (losses * mask).sum() / tokens, tokens
