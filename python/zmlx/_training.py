# SPDX-License-Identifier: MIT
"""train() of zmlx.api, over mlx_lm's trainer."""

import types
from pathlib import Path

import mlx.optimizers as optim

# Keyword arguments of train(), with what they are when not given.
_DEFAULTS = {
    "use_fused_loss": True,
    "max_seq_length": 2048,
    "eval_interval": 200,
    "log_interval": 10,
    "save_interval": 100,
    "val_batches": 25,
    "grad_accum_steps": 1,
    "grad_checkpoint": False,
    "mask_prompt": False,
    "optimizer": "adam",
    "optimizer_config": None,
    "lr_schedule": None,
    # mlx_lm's: an object whose on_train_loss_report() takes each report.
    "training_callback": None,
}


def _optimizer(name, rate, config):
    from zmlx.optimizers import AdamW

    kinds = {
        "adam": optim.Adam,
        "adamw": AdamW,
        "muon": optim.Muon,
        "sgd": optim.SGD,
        "adafactor": optim.Adafactor,
    }
    if name not in kinds:
        raise ValueError(
            f"[train] optimizer must be one of {', '.join(kinds)}, got {name!r}."
        )
    return kinds[name](learning_rate=rate, **(config or {}))


def _datasets(dataset, tokenizer, mask_prompt):
    """(training, validation) that mlx_lm's trainer takes, from a folder of
    train.jsonl and valid.jsonl, a list of records or texts, or a pair of them."""
    from mlx_lm.tuner.datasets import CacheDataset, create_dataset, load_local_dataset

    config = types.SimpleNamespace(mask_prompt=mask_prompt)
    if isinstance(dataset, str | Path):
        parts = load_local_dataset(Path(dataset), tokenizer, config)[:2]
        return [CacheDataset(part) if len(part) else None for part in parts]

    def made(part):
        if not part:
            return None
        if isinstance(part[0], str):
            part = [{"text": text} for text in part]
        if isinstance(part[0], dict):
            part = create_dataset(part, tokenizer, config)
        return CacheDataset(part)

    parts = dataset if isinstance(dataset, tuple) else (dataset, None)
    return [made(part) for part in parts]


def train(
    model, tokenizer, dataset, *, iters, batch_size, learning_rate, output_dir, kwargs
):
    unknown = sorted(kwargs.keys() - _DEFAULTS.keys())
    if unknown:
        raise TypeError(
            f"[train] keyword arguments must be of {', '.join(_DEFAULTS)}, got"
            f" {', '.join(unknown)}."
        )
    options = {**_DEFAULTS, **kwargs}
    from mlx_lm.tuner.utils import build_schedule

    schedule = options["lr_schedule"]
    rate = build_schedule(schedule) if isinstance(schedule, dict) else schedule
    optimizer = _optimizer(
        options["optimizer"], rate or learning_rate, options["optimizer_config"]
    )
    training, validation = _datasets(dataset, tokenizer, options["mask_prompt"])
    if training is None:
        raise ValueError("[train] dataset must have at least one record, got none.")
    given = {"iters": iters, "batch_size": batch_size, "output_dir": Path(output_dir)}
    run(model, optimizer, training, validation, {**options, **given})
    return model


def run(model, optimizer, training, validation, options):
    """mlx_lm's trainer, with the options of train()."""
    from mlx_lm.tuner import trainer

    from zmlx.train.losses import fused_loss

    folder = options["output_dir"]
    folder.mkdir(parents=True, exist_ok=True)
    model.train()
    trainer.train(
        model,
        optimizer,
        training,
        validation,
        args=trainer.TrainingArgs(
            batch_size=options["batch_size"],
            iters=options["iters"],
            val_batches=options["val_batches"],
            steps_per_report=options["log_interval"],
            steps_per_eval=options["eval_interval"],
            steps_per_save=options["save_interval"],
            max_seq_length=options["max_seq_length"],
            adapter_file=str(folder / "adapters.safetensors"),
            grad_checkpoint=options["grad_checkpoint"],
            grad_accumulation_steps=options["grad_accum_steps"],
        ),
        training_callback=options["training_callback"],
        loss=fused_loss if options["use_fused_loss"] else trainer.default_loss,
    )
