# SPDX-License-Identifier: MIT
"""What a training run is made of."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

OPTIMIZERS = ("adam", "adamw", "muon", "sgd", "adafactor")
SCHEDULES = ("constant", "linear", "cosine")
FORMATS = {
    "text": {"text"},
    "chat": {"messages"},
    "completions": {"prompt", "completion"},
}
_DECAYING = ("adamw", "muon", "sgd", "adafactor")


@dataclass
class TrainConfig:
    """A run of train(). Every field does what it says, or validate() refuses it."""

    model: str = ""
    tokenizer: str | None = None  # a folder or id, if not the model's own
    model_dtype: str | None = None  # float32, float16 or bfloat16
    dataset: str = ""  # a folder of train.jsonl, or a Hugging Face id
    data_format: str = "auto"  # text, chat, completions, or whatever it is
    train_split: str = "train"
    val_split: str = "valid"
    max_seq_length: int = 2048
    mask_prompt: bool = False
    lora: bool = False
    dora: bool = False
    lora_rank: int = 8
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"]
    )
    quantize: bool = False
    q_bits: int = 4
    q_group_size: int = 64
    learning_rate: float = 1e-4
    optimizer: str = "adam"
    lr_schedule: str = "constant"  # after the warm-up
    warmup_steps: int = 0
    weight_decay: float | None = None  # None: what the optimizer does by itself
    max_grad_norm: float | None = None
    iters: int = 1000
    batch_size: int = 4
    grad_accum_steps: int = 1
    grad_checkpoint: bool = False
    eval_interval: int = 100
    val_batches: int = 25
    save_interval: int = 500
    log_interval: int = 10
    output_dir: str = "adapters"
    resume_from: str | None = None  # adapters.safetensors, or its folder
    seed: int = 42
    patch: bool = True
    fused_loss: bool = True
    patch_verbose: bool = False
    verbose: bool = False

    @classmethod
    def from_yaml(cls, path, **given):
        """The file's values, and those given in their place."""
        import yaml

        values = yaml.safe_load(Path(path).read_text()) or {}
        if not isinstance(values, dict):
            raise ValueError(f"[train] {path} must hold names and values.")
        return cls.from_dict({**values, **given})

    @classmethod
    def from_dict(cls, values):
        known = [each.name for each in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(
                f"[train] a configuration must have names of {', '.join(known)},"
                f" got {', '.join(unknown)}."
            )
        return cls(**values)

    def validate(self):
        """Raises ValueError for what cannot be run."""

        def must(holds, text, value):
            if not holds:
                raise ValueError(f"[train] {text}, got {value!r}.")

        must(self.model, "model is required", self.model)
        must(self.dataset, "dataset is required", self.dataset)
        must(
            not (self.lora and self.dora),
            "Cannot use both LoRA and DoRA simultaneously",
            "both",
        )
        for name in (
            "batch_size",
            "iters",
            "grad_accum_steps",
            "max_seq_length",
            "lora_rank",
            "eval_interval",
            "save_interval",
            "log_interval",
        ):
            value = getattr(self, name)
            must(value >= 1, f"{name} must be 1 or more", value)
        must(
            self.warmup_steps >= 0, "warmup_steps must be 0 or more", self.warmup_steps
        )
        must(
            self.learning_rate > 0, "learning_rate must be above 0", self.learning_rate
        )
        must(
            0 <= self.lora_dropout < 1,
            "lora_dropout must be 0 to below 1",
            self.lora_dropout,
        )
        for name, known in (
            ("optimizer", OPTIMIZERS),
            ("lr_schedule", SCHEDULES),
            ("data_format", ("auto", *FORMATS)),
            ("model_dtype", (None, "float32", "float16", "bfloat16")),
        ):
            value = getattr(self, name)
            must(
                value in known,
                f"{name} must be one of {', '.join(map(str, known))}",
                value,
            )
        must(
            not self.weight_decay or self.optimizer in _DECAYING,
            f"weight_decay must be 0 with {self.optimizer}, which has none",
            self.weight_decay,
        )
        must(
            self.max_grad_norm is None or self.max_grad_norm > 0,
            "max_grad_norm must be above 0",
            self.max_grad_norm,
        )
        must(
            self.q_bits in (2, 3, 4, 5, 6, 8),
            "q_bits must be 2, 3, 4, 5, 6 or 8",
            self.q_bits,
        )
        must(
            not (self.quantize and self.dora),
            "dora must have weights that are not quantised",
            "quantize",
        )
        must(
            not self.quantize or self.lora,
            "quantize must come with lora: packed weights are not trained",
            "neither",
        )
        return self
