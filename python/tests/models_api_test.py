# SPDX-License-Identifier: MIT
"""load, lora, train and generate on a tiny model and on the demo model."""

from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama

from zmlx import api

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"


class Letters:
    """A tokenizer: one letter a token."""

    eos_token_id = 0

    def encode(self, text, **_):
        return [ord(letter) % 32 for letter in text]


def tiny():
    mx.random.seed(3)
    return llama.Model(
        llama.ModelArgs(
            model_type="llama",
            hidden_size=32,
            num_hidden_layers=2,
            intermediate_size=64,
            num_attention_heads=2,
            num_key_value_heads=1,
            rms_norm_eps=1e-5,
            vocab_size=32,
        )
    )


class Reports(list):
    """The losses that the trainer reports."""

    def on_train_loss_report(self, report):
        self.append(report["train_loss"])

    def on_val_loss_report(self, report):
        pass


def test_training_lowers_the_loss_of_what_lora_left_free(tmp_path):
    losses = {}
    for fused in (True, False):
        model = api.lora(tiny(), r=4, alpha=8.0)
        free = [name for name, _ in tree_flatten(model.trainable_parameters())]
        assert free and all("lora" in name for name in free)
        losses[fused] = Reports()
        api.train(
            model,
            Letters(),
            ["abcabcabcabcabcabc"],
            iters=6,
            batch_size=1,
            learning_rate=1e-2,
            output_dir=tmp_path / str(fused),
            use_fused_loss=fused,
            optimizer="adamw",
            log_interval=1,
            training_callback=losses[fused],
        )
        assert len(losses[fused]) == 6 and losses[fused][-1] < losses[fused][0]
        assert (tmp_path / str(fused) / "adapters.safetensors").exists()
    assert losses[True] == pytest.approx(losses[False], abs=1e-4)


def test_what_cannot_be_trained_is_said():
    with pytest.raises(ValueError, match="r must be 1 or more, got 0"):
        api.lora(tiny(), r=0)
    with pytest.raises(ValueError, match="must match at least one layer"):
        api.lora(tiny(), target_modules=["nothing"])
    with pytest.raises(TypeError, match="got epochs"):
        api.train(tiny(), Letters(), ["abc"], epochs=3)
    with pytest.raises(ValueError, match="optimizer must be one of"):
        api.train(tiny(), Letters(), ["abc"], optimizer="sgdx")
    with pytest.raises(ValueError, match="at least one record"):
        api.train(tiny(), Letters(), [])


def test_load_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="quantize must be '4bit'"):
        api.load(DEMO, quantize="3bit")
    with pytest.raises(ValueError, match="dtype must be one of"):
        api.load(DEMO, dtype="float64")


def test_a_loaded_model_generates():
    model, tokenizer = api.load(DEMO, patch=False, dtype="float32")
    floats = {
        str(value.dtype)
        for name, value in tree_flatten(model.parameters())
        if mx.issubdtype(value.dtype, mx.floating) and not name.endswith(("s",))
    }
    assert floats == {"mlx.core.float32"}
    first = api.generate(model, tokenizer, "Once upon a time", max_tokens=4, temp=0.0)
    assert first == api.generate(
        model, tokenizer, "Once upon a time", max_tokens=4, temp=0.0
    )
