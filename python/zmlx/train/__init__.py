# SPDX-License-Identifier: MIT
"""Fine-tuning of patched models: LoRA, DoRA or every weight, over mlx_lm's trainer.

``zmlx.train(model, tokenizer, dataset, ...)`` is zmlx.api.train; ``train`` in here
and the command ``zmlx train`` take a TrainConfig from load to saved adapters.
"""

import importlib

from zmlx._callable import make_callable_as

_NAMES = {
    "TrainConfig": "config",
    "ZMLXCallback": "runner",
    "fused_cross_entropy": "losses",
    "fused_loss": "losses",
    "standard_cross_entropy": "losses",
}
__all__ = sorted([*_NAMES, "export", "train"])


def __getattr__(name):
    if name not in _NAMES:
        raise AttributeError(f"module 'zmlx.train' has no attribute {name!r}")
    return getattr(importlib.import_module(f"zmlx.train.{_NAMES[name]}"), name)


def __dir__():
    return __all__


def train(config):
    """Trains as a TrainConfig says and returns {"final_loss", "steps",
    "adapter_path"}."""
    from zmlx.train.runner import run

    return run(config)


def export(model, adapter_path, output_path=None, verbose=False):
    """Merges trained adapters into the model's weights; the folder written."""
    from zmlx.train.merge import merge

    return merge(model, adapter_path, output_path, verbose)


make_callable_as(__name__, "zmlx.api", "train")
