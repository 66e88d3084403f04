# SPDX-License-Identifier: MIT
"""The commands ``zmlx train`` and ``zmlx export``."""

import argparse
import json

from zmlx.train.config import OPTIMIZERS, TrainConfig, read_yaml

# Flags that have a value: the field, its type and what it is.
_VALUES = {
    "--model": ("model", str, "a folder or a hub id"),
    "--tokenizer": ("tokenizer", str, "a folder, where it is not the model's"),
    "--dataset": ("dataset", str, "a folder of train.jsonl and valid.jsonl"),
    "--data-format": ("data_format", str, "auto, text, chat or completions"),
    "--max-seq-length": ("max_seq_length", int, "tokens of a record at most"),
    "--lora-rank": ("lora_rank", int, ""),
    "--lora-alpha": ("lora_alpha", float, "the scale is alpha / rank"),
    "--lora-dropout": ("lora_dropout", float, ""),
    "--q-bits": ("q_bits", int, "bits of --quantize"),
    "--warmup-steps": ("warmup_steps", int, ""),
    "--weight-decay": ("weight_decay", float, "of all optimizers but adam"),
    "--iters": ("iters", int, ""),
    "--batch-size": ("batch_size", int, ""),
    "--grad-accum-steps": ("grad_accum_steps", int, ""),
    "--log-interval": ("log_interval", int, ""),
    "--eval-interval": ("eval_interval", int, ""),
    "--save-interval": ("save_interval", int, ""),
    "--output-dir": ("output_dir", str, "where adapters go"),
    "--seed": ("seed", int, ""),
    "--resume-from": ("resume_from", str, "adapters.safetensors to go on from"),
}
_SWITCHES = {
    "--lora": ("lora", True, "train LoRA adapters"),
    "--dora": ("dora", True, "train DoRA adapters"),
    "--quantize": ("quantize", True, "quantise the model first"),
    "--no-patch": ("patch", False, "train the stock model"),
    "--no-fused-loss": ("use_fused_loss", False, "mlx_lm's own loss"),
    "--patch-verbose": ("patch_verbose", True, ""),
    "--verbose": ("verbose", True, ""),
}


def parser():
    made = argparse.ArgumentParser(
        prog="zmlx train", argument_default=argparse.SUPPRESS
    )
    for flag, (name, kind, text) in _VALUES.items():
        made.add_argument(flag, dest=name, type=kind, help=text)
    for flag, (name, value, text) in _SWITCHES.items():
        made.add_argument(flag, dest=name, action="store_const", const=value, help=text)
    made.add_argument("--lr", "--learning-rate", dest="learning_rate", type=float)
    made.add_argument("--optimizer", choices=OPTIMIZERS)
    made.add_argument("--config", help="a YAML file; flags go before what it says")
    return made


def main(argv=None):
    """zmlx train: what flags and file leave out has TrainConfig's defaults."""
    flags = vars(parser().parse_args(argv))
    path = flags.pop("config", None)
    values = {**(read_yaml(path) if path else {}), **flags}
    from zmlx.train.runner import run

    print(json.dumps(run(TrainConfig.of(values))))
    return 0


def export_main(argv=None):
    """zmlx export."""
    made = argparse.ArgumentParser(prog="zmlx export")
    made.add_argument("--model", required=True)
    made.add_argument("--adapter-path", required=True)
    made.add_argument("--output-path")
    made.add_argument("--verbose", action="store_true")
    args = made.parse_args(argv)
    from zmlx.train.merge import merge

    print(merge(args.model, args.adapter_path, args.output_path, args.verbose))
    return 0
