# SPDX-License-Identifier: MIT
"""Trained adapters merged into a model's own weights."""

import sys
from pathlib import Path

from mlx.utils import tree_unflatten

from zmlx import _models


def merge(model, adapter_path, output_path=None, verbose=False):
    """Writes the model with its adapters merged, by default into
    <adapter_path>/merged, and returns that folder."""
    _models._mlx_lm("export")
    from mlx_lm.utils import load, save

    adapters = Path(adapter_path)
    if not (adapters / "adapter_config.json").exists():
        raise ValueError(
            "[export] adapter_path must have adapter_config.json and"
            f" adapters.safetensors, got {adapters}."
        )
    network, tokenizer, config = load(
        str(model), adapter_path=str(adapters), return_config=True
    )
    merged = [
        (name, module.fuse(dequantize=False))
        for name, module in network.named_modules()
        if hasattr(module, "fuse")
    ]
    network.update_modules(tree_unflatten(merged))
    folder = Path(output_path or adapters / "merged")
    save(folder, str(model), network, tokenizer, config)
    if verbose:
        print(f"merged {len(merged)} layers into {folder}", file=sys.stderr)
    return folder
