# SPDX-License-Identifier: MIT
"""LoRA on the demo model: a few steps on one sentence, and the loss falls."""

import tempfile
from pathlib import Path

import mlx.core as mx

from zmlx import api

DEMO = Path(__file__).resolve().parent.parent / "models" / "demo"
TEXT = "The lighthouse keeper counted nine ships before the fog came in."


class Losses(list):
    """What the trainer reports."""

    def on_train_loss_report(self, report):
        self.append(report["train_loss"])

    def on_val_loss_report(self, report):
        pass


if __name__ == "__main__":
    mx.random.seed(0)
    model, tokenizer = api.load(DEMO, patch=False, dtype="float32")
    api.lora(model, r=8, alpha=16.0, target_modules=["q_proj", "v_proj"])
    losses = Losses()
    with tempfile.TemporaryDirectory() as folder:
        api.train(
            model,
            tokenizer,
            [TEXT],
            iters=6,
            batch_size=1,
            learning_rate=2e-3,
            output_dir=folder,
            log_interval=1,
            training_callback=losses,
        )
    print("losses:", " ".join(f"{each:.3f}" for each in losses))
    assert losses[-1] < losses[0]
