# SPDX-License-Identifier: MIT
"""A training run over mlx_lm's trainer, as a TrainConfig says."""

import json
import types
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from zmlx.train.config import FORMATS, TrainConfig


def train(config, *, callback=None):
    """Runs it. Adapters, their adapter_config.json and checkpoints go to
    config.output_dir, where mlx_lm finds them; returns a dict with output_dir,
    final_loss, val_loss and patch_result."""
    if not isinstance(config, TrainConfig):
        raise TypeError(
            f"[train] config must be a TrainConfig, got {type(config).__name__}."
        )
    config.validate()
    from mlx_lm.tuner import trainer

    from zmlx.train.callbacks import ZMLXCallback
    from zmlx.train.losses import fused_loss

    np.random.seed(config.seed)
    mx.random.seed(config.seed)
    model, tokenizer = _load(config)
    training, validation = datasets_of(config, tokenizer)
    result = None
    if config.patch:
        from zmlx.patch import patch

        patch(model, mode="training", verbose=config.patch_verbose)
        result = model._zmlx_patch_result
    parameters = adapt(model, config)
    _resume(model, config)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _write_adapter_config(folder, config, model, parameters)
    callback = callback or ZMLXCallback(result, config.verbose)
    trainer.train(
        model,
        optimizer_of(config),
        training,
        validation,
        args=trainer.TrainingArgs(
            batch_size=config.batch_size,
            iters=config.iters,
            val_batches=config.val_batches,
            steps_per_report=config.log_interval,
            steps_per_eval=config.eval_interval,
            steps_per_save=config.save_interval,
            max_seq_length=config.max_seq_length,
            adapter_file=str(folder / "adapters.safetensors"),
            grad_checkpoint=config.grad_checkpoint,
            grad_accumulation_steps=config.grad_accum_steps,
        ),
        loss=fused_loss if config.fused_loss else trainer.default_loss,
        training_callback=callback,
    )
    losses = getattr(callback, "val_losses", [])
    return {
        "output_dir": str(folder),
        "final_loss": getattr(callback, "final_loss", None),
        "val_loss": losses[-1][1] if losses else None,
        "patch_result": result,
    }


def _load(config):
    from mlx_lm.utils import load_tokenizer

    from zmlx import _lm

    folder = _lm.folder_of(config.model)
    model, tokenizer, _ = _lm.load(folder)
    if config.tokenizer:
        tokenizer = load_tokenizer(_lm.folder_of(config.tokenizer))
    if tokenizer is None:
        raise ValueError(f"[train] tokenizer must be given: {folder} has none.")
    if config.model_dtype:
        _lm.cast(model, _lm.DTYPES[config.model_dtype])
    packed = any("scales" in module for _, module in model.named_modules())
    if config.quantize and not packed:
        nn.quantize(model, config.q_group_size, config.q_bits)
    if packed and not config.lora:
        raise ValueError(
            "[train] a model with packed weights must be trained with lora, got"
            f" {config.model}."
        )
    return model, tokenizer


def datasets_of(config, tokenizer):
    """(training, validation) of mlx_lm's kinds; validation may be None."""
    from mlx_lm.tuner.datasets import CacheDataset, create_dataset

    made = []
    for split in (config.train_split, config.val_split):
        records = _records(config, split)
        if config.data_format != "auto" and records:
            wanted = FORMATS[config.data_format]
            if not wanted <= set(records[0]):
                raise ValueError(
                    f"[train] records of {split} must have"
                    f" {', '.join(sorted(wanted))} for data_format"
                    f" {config.data_format}, got {', '.join(sorted(records[0]))}."
                )
        options = types.SimpleNamespace(mask_prompt=config.mask_prompt)
        made.append(
            CacheDataset(create_dataset(records, tokenizer, options))
            if records
            else None
        )
    training, validation = made
    if training is None or len(training) < config.batch_size:
        count = 0 if training is None else len(training)
        raise ValueError(
            f"[train] {config.train_split} of {config.dataset} must have at least"
            f" batch_size = {config.batch_size} records, got {count}."
        )
    if validation is not None and len(validation) < config.batch_size:
        validation = None
    return training, validation


def _records(config, split):
    folder = Path(config.dataset)
    if folder.is_dir():
        path = folder / f"{split}.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    import datasets

    known = datasets.get_dataset_split_names(config.dataset)
    return (
        list(datasets.load_dataset(config.dataset, split=split))
        if (split in known)
        else []
    )


def adapt(model, config):
    """Freezes the model and adds adapters, or leaves all of it to be trained.
    Returns mlx_lm's lora_parameters."""
    if not (config.lora or config.dora):
        model.unfreeze()
        return {}
    from mlx_lm.tuner.utils import linear_to_lora_layers

    targets = set(config.lora_targets)
    # Of every layer: they differ in hybrid models.
    keys = {
        path
        for layer in model.layers
        for path, module in layer.named_modules()
        if path.rsplit(".", 1)[-1] in targets and "weight" in module
    }
    if not keys:
        raise ValueError(
            "[train] lora_targets must match at least one layer, got"
            f" {', '.join(sorted(targets))}."
        )
    parameters = {
        "rank": config.lora_rank,
        "scale": config.lora_alpha / config.lora_rank,
        "dropout": config.lora_dropout,
        "keys": sorted(keys),
    }
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), parameters, use_dora=config.dora)
    return parameters


def _resume(model, config):
    if config.resume_from is None:
        return
    path = Path(config.resume_from)
    path = path / "adapters.safetensors" if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"[train] resume_from must be there, got {path}.")
    model.load_weights(str(path), strict=False)


def _write_adapter_config(folder, config, model, parameters):
    """What mlx_lm needs to load the adapters again."""
    kind = "dora" if config.dora else "lora" if config.lora else "full"
    values = {
        "fine_tune_type": kind,
        "model": config.model,
        "num_layers": len(model.layers),
        "lora_parameters": parameters,
        "zmlx": vars(config),
    }
    (folder / "adapter_config.json").write_text(json.dumps(values, indent=2) + "\n")


def schedule_of(config):
    """The learning rate, or a function of the step."""
    rate = config.learning_rate
    steps = max(config.iters // config.grad_accum_steps - config.warmup_steps, 1)
    if config.lr_schedule == "cosine":
        after = optim.cosine_decay(rate, steps)
    elif config.lr_schedule == "linear":
        after = optim.linear_schedule(rate, 0.0, steps)
    elif config.warmup_steps:
        after = lambda step: mx.array(rate)  # noqa: E731
    else:
        return rate
    if not config.warmup_steps:
        return after
    up = optim.linear_schedule(0.0, rate, config.warmup_steps)
    return optim.join_schedules([up, after], [config.warmup_steps])


def optimizer_of(config):
    kinds = {
        "adam": optim.Adam,
        "adamw": optim.AdamW,
        "muon": optim.Muon,
        "sgd": optim.SGD,
        "adafactor": optim.Adafactor,
    }
    options = {}
    if config.weight_decay is not None and config.optimizer != "adam":
        options["weight_decay"] = config.weight_decay
    made = kinds[config.optimizer](learning_rate=schedule_of(config), **options)
    if config.max_grad_norm is not None:
        _clip(made, config.max_grad_norm)
    return made


def _clip(optimizer, most):
    """Scales gradients to a norm of at most `most` before each update."""
    kind = type(optimizer)

    class Clipped(kind):
        def update(self, model, gradients):
            super().update(model, optim.clip_grad_norm(gradients, most)[0])

    Clipped.__name__ = kind.__name__
    optimizer.__class__ = Clipped
