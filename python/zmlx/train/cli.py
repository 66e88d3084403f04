# SPDX-License-Identifier: MIT
"""``zmlx train``: a TrainConfig from flags and a YAML file."""

import argparse

from zmlx.train.config import OPTIMIZERS, SCHEDULES, TrainConfig

# (flag, field, options of argparse); a field is set only where its flag is given,
# so that a file's values stand.
_VALUES = [
    ("--model", "model", {"metavar": "M", "help": "a folder or Hugging Face id"}),
    ("--tokenizer", "tokenizer", {"metavar": "T", "help": "if not the model's own"}),
    ("--model-dtype", "model_dtype", {"metavar": "D"}),
    ("--dataset", "dataset", {"metavar": "D", "help": "a folder of jsonl, or an id"}),
    ("--data-format", "data_format", {"help": "auto, text, chat or completions"}),
    ("--train-split", "train_split", {}),
    ("--val-split", "val_split", {}),
    ("--max-seq-length", "max_seq_length", {"type": int}),
    ("--lora-rank", "lora_rank", {"type": int}),
    ("--lora-alpha", "lora_alpha", {"type": float}),
    ("--lora-dropout", "lora_dropout", {"type": float}),
    ("--lora-targets", "lora_targets", {"nargs": "+", "metavar": "NAME"}),
    ("--q-bits", "q_bits", {"type": int}),
    ("--q-group-size", "q_group_size", {"type": int}),
    ("--optimizer", "optimizer", {"help": ", ".join(OPTIMIZERS)}),
    ("--lr-schedule", "lr_schedule", {"help": ", ".join(SCHEDULES)}),
    ("--warmup-steps", "warmup_steps", {"type": int}),
    ("--weight-decay", "weight_decay", {"type": float}),
    ("--max-grad-norm", "max_grad_norm", {"type": float}),
    ("--iters", "iters", {"type": int}),
    ("--batch-size", "batch_size", {"type": int}),
    ("--grad-accum-steps", "grad_accum_steps", {"type": int}),
    ("--eval-interval", "eval_interval", {"type": int}),
    ("--val-batches", "val_batches", {"type": int}),
    ("--save-interval", "save_interval", {"type": int}),
    ("--log-interval", "log_interval", {"type": int}),
    ("--output-dir", "output_dir", {"metavar": "D"}),
    ("--resume-from", "resume_from", {"metavar": "P"}),
    ("--seed", "seed", {"type": int}),
]
_SWITCHES = [
    ("--lora", "lora", "train LoRA adapters"),
    ("--dora", "dora", "train DoRA adapters"),
    ("--quantize", "quantize", "quantise the model first"),
    ("--mask-prompt", "mask_prompt", "no loss on prompts"),
    ("--grad-checkpoint", "grad_checkpoint", "recompute instead of keeping"),
    ("--patch-verbose", "patch_verbose", "a line for each patched module"),
    ("--verbose", "verbose", "print what patching did"),
]


def parser():
    made = argparse.ArgumentParser(
        prog="zmlx train",
        description="Trains a patched model with mlx_lm's trainer: all of it, or"
        " adapters with --lora or --dora.",
        argument_default=argparse.SUPPRESS,
    )
    for flag, dest, options in _VALUES:
        made.add_argument(flag, dest=dest, **options)
    made.add_argument("--lr", "--learning-rate", dest="learning_rate", type=float)
    for flag, dest, text in _SWITCHES:
        made.add_argument(flag, dest=dest, action="store_true", help=text)
    made.add_argument("--no-patch", dest="patch", action="store_false")
    made.add_argument("--no-fused-loss", dest="fused_loss", action="store_false")
    made.add_argument("--config", metavar="YAML", help="values for what is not given")
    return made


def config_of(argv):
    given = vars(parser().parse_args(argv))
    path = given.pop("config", None)
    if path:
        return TrainConfig.from_yaml(path, **given)
    return TrainConfig.from_dict(given)


def main(argv=None):
    config = config_of(argv).validate()
    from zmlx.train.runner import train

    print(f"[zmlx] Training {config.model}")
    print(f"[zmlx] LoRA: {config.lora}, Dataset: {config.dataset}")
    print(f"[zmlx] ZMLX patching: {config.patch}")
    done = train(config)
    print(f"[zmlx] Training complete. Output: {done['output_dir']}")
    return 0
