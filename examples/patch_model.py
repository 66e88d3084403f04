# SPDX-License-Identifier: MIT
"""An mlx_lm model, patched: the same text, sooner. MODEL is a folder or a hub id.

Usage: patch_model.py [MODEL] [TOKENS]
"""

import sys
import time
from pathlib import Path

import mlx_lm

from zmlx.patch import patch, unpatch

DEMO = Path(__file__).resolve().parent.parent / "models" / "demo"


def generated(model, tokenizer, tokens):
    """(the text, seconds)."""
    start = time.perf_counter()
    text = mlx_lm.generate(model, tokenizer, prompt="Once upon", max_tokens=tokens)
    return text, time.perf_counter() - start


def main(path=DEMO, tokens=32):
    model, tokenizer = mlx_lm.load(str(path))
    model.set_dtype(_wide())
    stock, before = generated(model, tokenizer, int(tokens))
    patch(model, verbose=True)
    fused, after = generated(model, tokenizer, int(tokens))
    unpatch(model)
    print(f"{fused}\n\nstock {before:.2f} s, patched {after:.2f} s")
    return int(fused != stock)


def _wide():
    """float32 on the CPU, where MLX's bfloat16 products have large errors."""
    import mlx.core as mx

    on_gpu = mx.default_device().type == mx.DeviceType.gpu
    return mx.bfloat16 if on_gpu else mx.float32


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
