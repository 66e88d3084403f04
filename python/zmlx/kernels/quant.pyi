# SPDX-License-Identifier: MIT
# Written by tools/make_stubs.py.
import mlx.core as mx

def quantized_matmul(x: mx.array, words: mx.array, scales: mx.array, biases: mx.array, bits: float, group_size: float, *, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> mx.array:
    """x times the transpose of a matrix in MLX's affine packing.

    x: (..., cols) float
    words: (rows, cols * bits / 32) uint32
    scales: (rows, cols / group_size) float
    biases: as scales
    bits: 2, 3, 4, 5, 6 or 8
    group_size: 32, 64 or 128
    Returns: (..., rows) in x's type; float32 accumulation
    Differentiable in: nothing
    Runs on the CPU only.
    """
