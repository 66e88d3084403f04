# SPDX-License-Identifier: MIT
"""Fused kernels, kernel authoring and verified model patching for MLX.

``import zmlx`` loads nothing but a check of MLX's version; each name loads what
it needs when it is first used.
"""

import importlib
import re

from zmlx._built_with import MLX_VERSION as _mlx_wanted
from zmlx._built_with import ZMLX_VERSION as __version__


def _check_mlx():
    """Raises ImportError unless the MLX that the extension needs is here."""
    advice = (
        f"Try: pip install 'mlx[cpu]=={_mlx_wanted}' (or mlx[cuda13], mlx[cuda12];"
        " on macOS plain mlx)."
    )
    try:
        import mlx.core as mx
    except ImportError as error:
        raise ImportError(
            f"[zmlx] zmlx {__version__} needs MLX {_mlx_wanted} with a backend, but"
            f" mlx.core cannot be imported: {error}. {advice}"
        ) from error
    # A local or development suffix does not change the version.
    found = re.match(r"[0-9.]*[0-9]", mx.__version__)
    if not found or found.group() != _mlx_wanted:
        raise ImportError(
            f"[zmlx] zmlx {__version__} was built with MLX {_mlx_wanted}, got MLX"
            f" {mx.__version__}. {advice}"
        )


_check_mlx()

# Submodules that are attributes without an import of their own.
_MODULES = {
    "api",
    "autograd",
    "autotune",
    "bench",
    "cache",
    "codegen",
    "decode",
    "device",
    "device_profile",
    "elementwise",
    "ir",
    "ir_build",
    "kernels",
    "metal",
    "msl",
    "nn",
    "optimizers",
    "patch",
    "profile",
    "registry",
    "rowwise",
    "testing",
    "train",
    "validate",
}
# Names of a submodule that are attributes too.
_NAMES = {
    "BackendError": "_core",
    "CompileError": "_core",
    "FileError": "_core",
    "KernelCheckError": "_core",
    "generate": "api",
    "jit": "api",
    "load": "api",
    "lora": "api",
    "map_reduce": "api",
    "reduce": "api",
    "set_checked_kernels": "_core",
    "smart_patch": "patch",
    "unpatch": "patch",
}

__all__ = ["__version__", *sorted(_MODULES | _NAMES.keys())]


def __getattr__(name):
    if name in _NAMES:
        value = getattr(importlib.import_module(f"zmlx.{_NAMES[name]}"), name)
    elif name in _MODULES:
        return importlib.import_module(f"zmlx.{name}")
    else:
        raise AttributeError(f"module 'zmlx' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return __all__
