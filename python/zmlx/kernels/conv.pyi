# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
import mlx.core as mx

def gated_short_conv(projected: mx.array, before: mx.array, weight: mx.array, bias: mx.array, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> tuple[mx.array, mx.array]:
    """LFM2's gated causal depthwise convolution, with its state.

    projected: (batch, length, 3 dim) float32: B, C, x
    before: (batch, taps - 1, dim) float32: the last products B x
    weight: (dim, taps, 1) float
    bias: (dim) float, or none
    Returns: (batch, length, dim) float32; as before, after the new ones
    Differentiable in: nothing
    Runs on the CPU only.
    """
