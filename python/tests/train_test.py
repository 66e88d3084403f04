# SPDX-License-Identifier: MIT
"""zmlx.train, and the commands train, export and profile, on the demo model."""

import dataclasses
import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm import load

import zmlx.train
from zmlx import cli
from zmlx.train import TrainConfig, fused_cross_entropy, standard_cross_entropy

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
TEXT = {"text": "The keeper counted nine ships before the fog came in."}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "some data"
    folder.mkdir()
    for name in ("train", "valid"):
        (folder / f"{name}.jsonl").write_text(json.dumps(TEXT) + "\n")
    return folder


def settings(data, out, **more):
    return {
        "model": str(DEMO),
        "model_dtype": "float32",
        "dataset": str(data),
        "output_dir": str(out),
        "lora_target_modules": ["q_proj", "in_proj"],
        "iters": 3,
        "batch_size": 1,
        "learning_rate": 2e-3,
        "log_interval": 1,
        **more,
    }


def logits(model, tokenizer):
    return np.array(model(mx.array([tokenizer.encode("Once")])).astype(mx.float32))


def test_lora_trains_is_saved_loaded_resumed_and_merged(data, tmp_path):
    out = tmp_path / "adapters"
    config = TrainConfig(**settings(data, out, lora=True))
    done = zmlx.train.train(config)
    assert done["steps"] == 3 and Path(done["adapter_path"]).exists()
    kept = json.loads((out / "adapter_config.json").read_text())
    assert kept["fine_tune_type"] == "lora" and kept["lora_parameters"]["scale"] == 2
    # Both kinds of layers of the demo model, whichever comes first.
    keys = kept["lora_parameters"]["keys"]
    assert {key.split(".")[-1] for key in keys} == {"q_proj", "in_proj"}

    again = TrainConfig(
        **settings(data, tmp_path / "b", lora=True, resume_from=done["adapter_path"])
    )
    assert zmlx.train.train(again)["final_loss"] < done["final_loss"]

    stock, tokenizer = load(str(DEMO))
    adapted, _ = load(str(DEMO), adapter_path=str(out))
    arguments = ["--model", str(DEMO), "--adapter-path", str(out)]
    assert cli.main(["export", *arguments]) == 0
    merged, _ = load(str(out / "merged"))
    for model in (stock, adapted, merged):
        model.set_dtype(mx.float32)
    a, m, s = (logits(each, tokenizer) for each in (adapted, merged, stock))
    assert np.abs(a - s).max() > 1e-3
    # The merged weights are quantised again, each to the nearest step.
    assert np.abs(a - m).mean() < np.abs(s).mean()


def test_every_option_comes_from_the_flag_then_the_file(data, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    values = settings(data, tmp_path / "out", dora=False, iters=2, seed=7)
    lines = [f"{key.replace('_', '-')}: {json.dumps(v)}" for key, v in values.items()]
    file.write_text(
        "\n".join([*lines, "optimizer: adafactor", "weight-decay: 1e-3", "lora: true"])
    )
    assert cli.main(["train", "--config", str(file), "--iters", "1"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert json.loads(last)["steps"] == 1


def test_what_cannot_be_trained_is_said_before_anything_is_loaded(data, tmp_path):
    good = settings(data, tmp_path)
    for wrong, what in [
        ({"model": ""}, "model is required"),
        ({"dataset": ""}, "dataset is required"),
        ({"lora": True, "dora": True}, "Cannot use both LoRA and DoRA"),
        ({"iters": 0}, "iters must be 1 or more, got 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more"),
        ({"optimizer": "adamx"}, "optimizer must be one of"),
        ({"quantize": True}, "quantize must come with lora or dora"),
    ]:
        with pytest.raises(ValueError, match=what):
            zmlx.train.train(TrainConfig(**{**good, **wrong}))
    with pytest.raises(TypeError, match="must be a TrainConfig, got dict"):
        zmlx.train.train(good)
    with pytest.raises(ValueError, match="options must be of .*, got epochs"):
        TrainConfig.of({"epochs": 3})


def test_a_wrong_target_or_record_is_said(data, tmp_path):
    config = TrainConfig(
        **settings(data, tmp_path, lora=True) | {"lora_target_modules": ["nothing"]}
    )
    with pytest.raises(ValueError, match="must match at least one layer, got nothing"):
        zmlx.train.train(config)
    config = TrainConfig(**settings(data, tmp_path, lora=True, data_format="chat"))
    with pytest.raises(ValueError, match="must have 'messages', got text"):
        zmlx.train.train(config)


def test_commands_end_with_codes_that_mean_something(capsys):
    assert cli.main(["train"]) == 2
    assert "model is required" in capsys.readouterr().err
    assert cli.main(["export", "--model", "m", "--adapter-path", "none"]) == 2
    assert cli.main(["profile", "--model", str(DEMO), "--iters", "2"]) == 0
    assert "median" in capsys.readouterr().out


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_fused_and_standard_losses_agree(reduction):
    x = mx.random.normal((6, 11), key=mx.random.key(0))
    y = mx.array([0, 10, 3, 3, 2, 7])
    ours = fused_cross_entropy(x, y, reduction=reduction)
    theirs = standard_cross_entropy(x, y, reduction=reduction)
    assert mx.allclose(ours, theirs, 1e-5, 1e-5).item()
    assert ours.shape == nn.losses.cross_entropy(x, y, reduction=reduction).shape


def test_weight_decay_is_refused_where_the_optimizer_has_none():
    made = TrainConfig(model="M", dataset="D", weight_decay=0.2)
    with pytest.raises(ValueError, match="weight_decay must come with adamw"):
        made.validate()
    dataclasses.replace(made, optimizer="adafactor").validate()
