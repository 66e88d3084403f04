# SPDX-License-Identifier: MIT
"""A training run: load, wrap, patch, train, save."""

import json
import sys
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map

from zmlx import _models, _training
from zmlx.train.config import DECAYING, TrainConfig


class ZMLXCallback:
    """Keeps the losses of a run; with verbose says at the start what was patched."""

    def __init__(self, model=None, log_interval=10, verbose=False):
        self.losses, self.validation = [], []
        result = getattr(model, "_zmlx_patch_result", None)
        if verbose and result is not None:
            print(result.summary(), file=sys.stderr)

    def on_train_loss_report(self, report):
        self.losses.append((report["iteration"], report["train_loss"]))

    def on_val_loss_report(self, report):
        self.validation.append((report["iteration"], report["val_loss"]))


def _keys(model, targets):
    """Paths in a layer of the modules that end in a target, over all layers."""
    found = {
        name
        for layer in model.layers
        for name, module in layer.named_modules()
        if name.endswith(tuple(targets)) and hasattr(module, "weight")
    }
    if not found:
        raise ValueError(
            "[train] lora_target_modules must match at least one layer, got"
            f" {', '.join(targets)}."
        )
    return sorted(found)


def _wrap(model, config):
    """Freezes the model but for its adapters; what mlx_lm needs to load them."""
    kind = "dora" if config.dora else "lora" if config.lora else "full"
    details = {"fine_tune_type": kind, "num_layers": len(model.layers)}
    if kind != "full":
        from mlx_lm.tuner.utils import linear_to_lora_layers

        details["lora_parameters"] = {
            "rank": config.lora_rank,
            "scale": config.lora_alpha / config.lora_rank,
            "dropout": config.lora_dropout,
            "keys": _keys(model, config.lora_target_modules),
        }
        model.freeze()
        linear_to_lora_layers(
            model, len(model.layers), details["lora_parameters"], config.dora
        )
    return details


def _rate(config):
    if config.lr_schedule:
        from mlx_lm.tuner.utils import build_schedule

        return build_schedule(config.lr_schedule)
    warmup = config.warmup_steps
    if not 0 < warmup < config.iters:
        return config.learning_rate
    start = optim.linear_schedule(0.0, config.learning_rate, warmup)
    rate = config.learning_rate
    return optim.join_schedules([start, lambda _: mx.array(rate)], [warmup + 1])


def _clipped(optimizer, most):
    """The optimizer with gradients of a norm of at most `most`."""
    apply = optimizer.apply_gradients

    def apply_gradients(gradients, parameters):
        return apply(optim.clip_grad_norm(gradients, most)[0], parameters)

    optimizer.apply_gradients = apply_gradients
    return optimizer


def _optimizer(config):
    decays = config.optimizer in DECAYING
    options = {"weight_decay": config.weight_decay} if decays else {}
    made = _training._optimizer(config.optimizer, _rate(config), options)
    return _clipped(made, config.max_grad_norm) if config.max_grad_norm else made


def _records(path):
    if not path.exists():
        return []
    with open(path) as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _check_format(records, wanted):
    keys = {"text": "text", "chat": "messages", "completions": "completion"}
    if wanted != "auto" and keys[wanted] not in records[0]:
        raise ValueError(
            f"[train] records of the format {wanted} must have {keys[wanted]!r}, got"
            f" {', '.join(records[0])}."
        )


def _datasets(config, tokenizer):
    folder = Path(config.dataset)
    if folder.is_dir():
        splits = (config.train_split, config.val_split)
        parts = [_records(folder / f"{split}.jsonl") for split in splits]
        if not parts[0]:
            raise ValueError(
                f"[train] dataset must have {config.train_split}.jsonl with records,"
                f" got {folder}."
            )
        _check_format(parts[0], config.data_format)
        return _training._datasets(tuple(parts), tokenizer, config.mask_prompt)
    if (config.train_split, config.val_split) != ("train", "valid"):
        raise ValueError(
            "[train] train_split and val_split must be train and valid where dataset"
            f" is no folder, got {config.train_split} and {config.val_split}."
        )
    import types

    from mlx_lm.tuner.datasets import CacheDataset, load_dataset

    options = types.SimpleNamespace(
        data=config.dataset, train=True, test=False, mask_prompt=config.mask_prompt
    )
    parts = load_dataset(options, tokenizer)[:2]
    return [CacheDataset(part) if len(part) else None for part in parts]


def _load(config):
    _models._mlx_lm("train")
    import mlx.nn as nn
    from mlx_lm.utils import load, load_tokenizer

    model, tokenizer = load(config.model)[:2]
    if config.tokenizer:
        tokenizer = load_tokenizer(Path(config.tokenizer))
    if config.quantize and not _models._is_quantized(model):
        nn.quantize(model, group_size=config.q_group_size, bits=config.q_bits)
    if config.model_dtype:
        _models._cast(model, getattr(mx, config.model_dtype))
    return model, tokenizer


def _check_trainable(model):
    if not any(value.size for value in _leaves(model.trainable_parameters())):
        raise ValueError("[train] one parameter must be free to train, got none.")


def _leaves(tree):
    found = []
    tree_map(found.append, tree)
    return found


def run(config):
    """zmlx.train.train."""
    if not isinstance(config, TrainConfig):
        raise TypeError(
            f"[train] config must be a TrainConfig, got {type(config).__name__}."
        )
    config.validate()
    mx.random.seed(config.seed)
    np.random.seed(config.seed)  # by which mlx_lm orders batches
    model, tokenizer = _load(config)
    details = _wrap(model, config)
    _check_trainable(model)
    if config.resume_from:
        model.load_weights(config.resume_from, strict=False)
    if config.patch:
        from zmlx.patch import patch

        patch(model, mode="training", verbose=config.patch_verbose)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model": config.model, **details}
    (folder / "adapter_config.json").write_text(json.dumps(content, indent=1))
    training, validation = _datasets(config, tokenizer)
    callback = ZMLXCallback(model, config.log_interval, config.verbose)
    _training.run(
        model,
        _optimizer(config),
        training,
        validation,
        {
            "iters": config.iters,
            "batch_size": config.batch_size,
            "output_dir": folder,
            "val_batches": config.val_batches,
            "log_interval": config.log_interval,
            "eval_interval": config.eval_interval,
            "save_interval": config.save_interval,
            "max_seq_length": config.max_seq_length,
            "grad_checkpoint": config.grad_checkpoint,
            "grad_accum_steps": config.grad_accum_steps,
            "use_fused_loss": config.use_fused_loss,
            "training_callback": callback,
        },
    )
    return {
        "final_loss": callback.losses[-1][1] if callback.losses else None,
        "steps": config.iters,
        "adapter_path": str(folder / "adapters.safetensors"),
    }
