# SPDX-License-Identifier: MIT
"""Fine-tuning of patched models: LoRA, DoRA or every weight, over mlx_lm's trainer.

``zmlx.train(model, tokenizer, dataset)`` is zmlx.api.train; ``zmlx.train.train`` and
the command ``zmlx train`` take a TrainConfig from load to saved adapters.
"""

from zmlx._callable import make_callable_as
from zmlx.train.config import TrainConfig
from zmlx.train.loss import fused_cross_entropy, standard_cross_entropy

__all__ = [
    "TrainConfig",
    "ZMLXCallback",
    "export",
    "fused_cross_entropy",
    "standard_cross_entropy",
    "train",
]


def train(config):
    """Trains as a TrainConfig says and returns {"final_loss", "steps",
    "adapter_path"}."""
    from zmlx.train.runner import run

    return run(config)


def export(model, adapter_path, output_path=None, verbose=False):
    """Merges trained adapters into the model's weights; see zmlx.train.export."""
    from zmlx.train.merge import merge

    return merge(model, adapter_path, output_path, verbose)


def __getattr__(name):
    if name == "ZMLXCallback":
        from zmlx.train.runner import ZMLXCallback

        return ZMLXCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


make_callable_as(__name__, "zmlx.api", "train")
