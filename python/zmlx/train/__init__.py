# SPDX-License-Identifier: MIT
"""Training over mlx_lm: ``train(TrainConfig(...))``, its losses and its callback.

``zmlx.train(model, tokenizer, dataset, ...)`` is zmlx.api.train.
"""

import importlib

from zmlx._callable import make_callable

_NAMES = {
    "TrainConfig": "config",
    "ZMLXCallback": "callbacks",
    "export": "exporting",
    "fused_cross_entropy": "losses",
    "fused_loss": "losses",
    "standard_cross_entropy": "losses",
    "train": "runner",
}
__all__ = sorted(_NAMES)


def __getattr__(name):
    if name not in _NAMES:
        raise AttributeError(f"module 'zmlx.train' has no attribute {name!r}")
    return getattr(importlib.import_module(f"zmlx.train.{_NAMES[name]}"), name)


def __dir__():
    return __all__


def _train(model, tokenizer=None, dataset=None, **options):
    """zmlx.api.train, or train(config) of this package."""
    from zmlx.train.config import TrainConfig

    if isinstance(model, TrainConfig):
        from zmlx.train.runner import train

        return train(model, **options)
    from zmlx import api

    return api.train(model, tokenizer, dataset, **options)


make_callable(__name__, _train)
