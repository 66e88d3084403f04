# SPDX-License-Identifier: MIT
"""What MLX has here."""

import mlx.core as mx


def is_metal_available():
    return mx.metal.is_available()


def _is_cuda_available():
    cuda = getattr(mx, "cuda", None)
    return bool(cuda and cuda.is_available())


def has_gpu_backend():
    return is_metal_available() or _is_cuda_available()


def detect_backend():
    """ "metal", "cuda" or "cpu": where MLX computes by default."""
    if mx.default_device().type == mx.DeviceType.gpu:
        return "metal" if is_metal_available() else "cuda"
    return "cpu"


def is_supported_host():
    """True wherever MLX runs: every kernel has a form for every device."""
    return True
