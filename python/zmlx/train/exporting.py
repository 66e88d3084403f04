# SPDX-License-Identifier: MIT
"""Adapters merged into their model."""

from pathlib import Path


def export(model, adapter_path, output_path=None, *, dequantize=False, verbose=False):
    """Writes the model with its adapters fused, in mlx_lm's layout, and returns the
    folder: output_path, or "merged" in adapter_path."""
    from mlx.utils import tree_unflatten
    from mlx_lm.utils import load, save

    folder = Path(adapter_path)
    if not (folder / "adapter_config.json").exists():
        raise ValueError(
            f"[export] adapter_path must hold adapter_config.json, got {folder}."
        )
    out = Path(output_path) if output_path else folder / "merged"
    merged, tokenizer, config = load(
        model, adapter_path=str(folder), return_config=True
    )
    fused = [
        (path, module.fuse(dequantize=dequantize))
        for path, module in merged.named_modules()
        if hasattr(module, "fuse")
    ]
    if fused:
        merged.update_modules(tree_unflatten(fused))
    if verbose:
        print(f"[zmlx] Merged {len(fused)} adapters")
    save(out, model, merged, tokenizer, config, donate_model=False)
    return out
