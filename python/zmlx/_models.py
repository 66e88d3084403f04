# SPDX-License-Identifier: MIT
"""load, lora, train and generate of zmlx.api, over mlx_lm."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

_DTYPES = ("float16", "bfloat16", "float32")
_BITS = {"4bit": 4, "8bit": 8, 4: 4, 8: 8}


def _mlx_lm(op):
    try:
        import mlx_lm
    except ImportError as error:
        raise ImportError(
            f"[{op}] mlx_lm must be installed. Try: pip install 'zmlx[lm]'"
        ) from error
    return mlx_lm


def _is_quantized(model):
    return any(hasattr(module, "scales") for _, module in model.named_modules())


def _cast(model, dtype):
    """Casts what computes; scales and biases of packed weights and routers' biases
    stay as they are."""

    def cast(value):
        wide = mx.issubdtype(value.dtype, mx.floating)
        return value.astype(dtype) if wide else value

    for _, module in model.named_modules():
        if hasattr(module, "scales"):
            continue
        own = {k: v for k, v in module.items() if isinstance(v, mx.array)}
        kept = {k for k in own if "expert_bias" in k or "correction_bias" in k}
        module.update({k: v for k, v in tree_map(cast, own).items() if k not in kept})


def load(model_name, *, quantize, patch, patch_patterns, dtype, verbose):
    mlx_lm = _mlx_lm("load")
    if quantize is not None and quantize not in _BITS:
        raise ValueError(
            f"[load] quantize must be '4bit', '8bit', 4 or 8, got {quantize!r}."
        )
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(
            f"[load] dtype must be one of {', '.join(_DTYPES)}, got {dtype!r}."
        )
    model, tokenizer = mlx_lm.load(
        model_name, tokenizer_config={"trust_remote_code": True}
    )[:2]
    if quantize is not None and not _is_quantized(model):
        nn.quantize(model, group_size=64, bits=_BITS[quantize])
    if dtype is not None:
        _cast(model, getattr(mx, dtype))
    if patch:
        from zmlx.patch import patch as apply

        apply(model, patterns=patch_patterns, verbose=verbose)
    return model, tokenizer


def lora(model, *, r, alpha, dropout, target_modules, use_dora):
    _mlx_lm("lora")
    from mlx_lm.tuner.dora import DoRAEmbedding, DoRALinear
    from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear, LoRASwitchLinear

    if r <= 0:
        raise ValueError(f"[lora] r must be 1 or more, got {r}.")
    targets = tuple(target_modules or ("q_proj", "k_proj", "v_proj", "o_proj"))
    wrappers = {"SwitchLinear": LoRASwitchLinear}
    wrappers["Linear"] = DoRALinear if use_dora else LoRALinear
    wrappers["Embedding"] = DoRAEmbedding if use_dora else LoRAEmbedding
    wrapped = []
    for name, module in model.named_modules():
        kind = type(module).__name__
        plain = kind.removeprefix("Quantized")
        if plain not in wrappers or not name.endswith(targets):
            continue
        if use_dora and kind != plain:
            raise ValueError(
                f"[lora] use_dora must have weights that are not quantised, got {name}."
            )
        options = {"r": r, "scale": alpha / r, "dropout": dropout}
        wrapped.append((name, wrappers[plain].from_base(module, **options)))
    if not wrapped:
        raise ValueError(
            f"[lora] target_modules must match at least one layer, got {targets}."
        )
    from mlx.utils import tree_unflatten

    model.freeze()
    model.update_modules(tree_unflatten(wrapped))
    return model


def generate(model, tokenizer, prompt, *, max_tokens, temp):
    mlx_lm = _mlx_lm("generate")
    from mlx_lm.sample_utils import make_sampler

    return mlx_lm.generate(
        model,
        tokenizer,
        prompt=prompt,
        max_tokens=max_tokens,
        sampler=make_sampler(temp=temp),
    )


def train(model, tokenizer, dataset, **options):
    _mlx_lm("train")
    from zmlx import _training

    names = ("iters", "batch_size", "learning_rate", "output_dir")
    known = {name: options.pop(name) for name in names}
    return _training.train(model, tokenizer, dataset, **known, kwargs=options)
