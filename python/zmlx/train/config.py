# SPDX-License-Identifier: MIT
"""What a training run is made of, from code, YAML and the command line."""

import dataclasses
from pathlib import Path

OPTIMIZERS = ("adam", "adamw", "muon", "sgd", "adafactor")
DECAYING = ("adamw", "muon", "sgd", "adafactor")
DTYPES = (None, "float16", "bfloat16", "float32")


@dataclasses.dataclass
class TrainConfig:
    model: str = ""
    tokenizer: str | None = None  # a folder other than the model's
    model_dtype: str | None = None  # what unquantised weights are cast to
    dataset: str = ""  # a folder of train.jsonl, valid.jsonl, or a dataset's id
    data_format: str = "auto"  # auto, text, chat, completions: what records must be
    train_split: str = "train"  # the file's name in a folder
    val_split: str = "valid"
    max_seq_length: int = 2048
    mask_prompt: bool = False

    lora: bool = False  # neither lora nor dora: every weight is trained
    dora: bool = False
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_target_modules: list = dataclasses.field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"]
    )

    quantize: bool = False
    q_bits: int = 4
    q_group_size: int = 64

    learning_rate: float = 1e-4
    optimizer: str = "adam"
    lr_schedule: dict | None = None  # mlx_lm's; in place of warmup_steps
    warmup_steps: int = 100  # none where the run is shorter
    weight_decay: float = 0.01  # of all optimizers but adam, which has none
    max_grad_norm: float | None = None
    iters: int = 1000
    batch_size: int = 4
    grad_accum_steps: int = 1
    grad_checkpoint: bool = False
    log_interval: int = 10
    eval_interval: int = 100
    val_batches: int = 25
    save_interval: int = 500
    output_dir: str = "adapters"
    seed: int = 42
    resume_from: str | None = None  # adapters.safetensors to go on from

    patch: bool = True
    patch_verbose: bool = False
    use_fused_loss: bool = True
    verbose: bool = False

    def validate(self):
        """Raises ValueError for what cannot be trained."""

        def must(holds, what, got):
            if not holds:
                raise ValueError(f"[train] {what}, got {got!r}.")

        must(self.model, "model is required", self.model)
        must(self.dataset, "dataset is required", self.dataset)
        must(
            not (self.lora and self.dora),
            "Cannot use both LoRA and DoRA simultaneously",
            "both",
        )
        for name in ("iters", "batch_size", "grad_accum_steps", "lora_rank"):
            value = getattr(self, name)
            must(value >= 1, f"{name} must be 1 or more", value)
        must(
            self.optimizer in OPTIMIZERS,
            f"optimizer must be one of {', '.join(OPTIMIZERS)}",
            self.optimizer,
        )
        must(
            self.model_dtype in DTYPES, "model_dtype must be a float", self.model_dtype
        )
        formats = ("auto", "text", "chat", "completions")
        must(
            self.data_format in formats,
            f"data_format must be one of {', '.join(formats)}",
            self.data_format,
        )
        must(
            self.optimizer in DECAYING or self.weight_decay in (0, 0.01),
            f"weight_decay must come with {', '.join(DECAYING)}",
            self.optimizer,
        )
        full = not (self.lora or self.dora)
        must(
            not (full and self.quantize),
            "quantize must come with lora or dora",
            "full fine-tuning",
        )

    @classmethod
    def of(cls, values):
        """From a dict; TypeError for a name that is no field."""
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ValueError(
                f"[train] options must be of {', '.join(sorted(names))}, got"
                f" {', '.join(unknown)}."
            )
        return cls(**values)

    @classmethod
    def from_yaml(cls, path):
        return cls.of(read_yaml(path))


def read_yaml(path):
    """The options of a YAML file; dashes in names count as underscores. Numbers
    such as 1e-4, which YAML takes for text, are numbers."""
    import yaml

    values = yaml.safe_load(Path(path).read_text()) or {}
    if not isinstance(values, dict):
        raise ValueError(f"[train] {path} must hold options, got a list or value.")
    kinds = {field.name: field.type for field in dataclasses.fields(TrainConfig)}

    def read(name, value):
        wanted = str(kinds.get(name, ""))
        return float(value) if "float" in wanted and isinstance(value, str) else value

    named = {str(key).replace("-", "_"): value for key, value in values.items()}
    return {name: read(name, value) for name, value in named.items()}
