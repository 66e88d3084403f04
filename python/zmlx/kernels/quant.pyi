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

def rms_norm_qkv(x: mx.array, norm_weight: mx.array, q_words: mx.array, q_scales: mx.array, q_biases: mx.array, k_words: mx.array, k_scales: mx.array, k_biases: mx.array, v_words: mx.array, v_scales: mx.array, v_biases: mx.array, bits: float, group_size: float, *, eps: float = 1e-05, one_plus: float = 0, threadgroup: int | str = 256, compute_dtype: mx.Dtype | None = None) -> tuple[mx.array, mx.array, mx.array]:
    """RMS normalisation and three products with packed matrices.

    x: (..., dim) float
    norm_weight: (dim) float
    q_words: (rows, dim) packed, uint32
    q_scales: float, one a group
    q_biases: as scales
    k_words: (rows, dim) packed, uint32
    k_scales: float, one a group
    k_biases: as scales
    v_words: (rows, dim) packed, uint32
    v_scales: float, one a group
    v_biases: as scales
    bits: 2, 3, 4, 5, 6 or 8
    group_size: 32, 64 or 128
    eps: added to the mean of squares
    one_plus: 1: scales by 1 + norm_weight
    Returns: (..., rows of q) in x's type; float32 inside; likewise of k; likewise of v
    Differentiable in: nothing
    """
