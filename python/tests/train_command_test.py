# SPDX-License-Identifier: MIT
"""zmlx.train: runs, their configuration, and the commands train, export, profile."""

import json
import shutil

import lm_models
import mlx.core as mx
import mlx.optimizers as optim
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama

import zmlx
from zmlx import cli
from zmlx.train import TrainConfig, fused_cross_entropy, standard_cross_entropy, train
from zmlx.train.cli import config_of
from zmlx.train.runner import optimizer_of, schedule_of

FILES = ("tokenizer.json", "tokenizer_config.json")
SIZES = dict(
    model_type="llama",
    hidden_size=64,
    num_hidden_layers=2,
    intermediate_size=96,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small model, with the demo model's tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    for name in FILES:
        shutil.copy(lm_models.DEMO / name, folder / name)
    vocabulary = json.loads((lm_models.DEMO / "config.json").read_text())["vocab_size"]
    sizes = SIZES | {"vocab_size": vocabulary}
    (folder / "config.json").write_text(json.dumps(sizes))
    model = lm_models.randomised(llama.Model(llama.ModelArgs(**sizes)))
    mx.save_safetensors(
        str(folder / "model.safetensors"), dict(tree_flatten(model.parameters()))
    )
    return str(folder)


@pytest.fixture
def data(tmp_path, checkpoint):
    folder = tmp_path / "data"
    folder.mkdir()
    lines = [json.dumps({"text": f"the cat sat on mat {i % 3}"}) for i in range(8)]
    (folder / "train.jsonl").write_text("\n".join(lines))
    (folder / "valid.jsonl").write_text("\n".join(lines[:4]))
    (tmp_path / "model").symlink_to(checkpoint)
    return folder


def config(data, tmp_path, **changes):
    values = dict(
        model=str(tmp_path / "model"),
        dataset=str(data),
        lora=True,
        iters=4,
        batch_size=2,
        max_seq_length=32,
        log_interval=2,
        eval_interval=4,
        val_batches=1,
        output_dir=str(tmp_path / "out"),
    )
    return TrainConfig(**(values | changes))


def test_a_run_writes_adapters_that_mlx_lm_loads_and_export_merges(
    data, tmp_path, capsys
):
    done = train(config(data, tmp_path, learning_rate=1e-3))
    assert done["final_loss"] > 0 and done["val_loss"] > 0
    assert done["patch_result"].training
    out = tmp_path / "out"
    assert json.loads((out / "adapter_config.json").read_text())["num_layers"] > 0
    from mlx_lm.utils import load

    model = str(tmp_path / "model")
    tokens = mx.array([[5, 6, 7, 8]])
    adapted = load(model, adapter_path=str(out))[0](tokens)
    assert cli.main(["export", "--model", model, "--adapter-path", str(out)]) == 0
    merged = load(str(out / "merged"))[0](tokens)
    assert mx.abs(adapted - load(model)[0](tokens)).max() > 1e-3
    assert mx.abs(merged - adapted).max() < 1e-4
    assert "Exported to" in capsys.readouterr().out


def test_patching_and_the_fused_loss_do_not_change_the_losses(data, tmp_path):
    ours = train(config(data, tmp_path))
    stock = train(config(data, tmp_path, patch=False, fused_loss=False))
    assert ours["final_loss"] == pytest.approx(stock["final_loss"], rel=1e-4)
    assert stock["patch_result"] is None


def test_a_run_resumes_and_a_seed_repeats_it(data, tmp_path):
    first = train(config(data, tmp_path, learning_rate=1e-3, lora_dropout=0.1))
    again = train(config(data, tmp_path, learning_rate=1e-3, lora_dropout=0.1))
    assert first["final_loss"] == pytest.approx(again["final_loss"], rel=1e-5)
    other = train(
        config(
            data,
            tmp_path,
            resume_from=str(tmp_path / "out"),
            output_dir=str(tmp_path / "next"),
        )
    )
    assert other["final_loss"] < first["final_loss"]


def test_flags_go_before_the_file_and_the_file_before_defaults(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: M\ndataset: D\niters: 7\nlora: true\n")
    made = config_of(["--config", str(path), "--iters", "9", "--no-patch"])
    assert (made.model, made.iters, made.lora, made.patch) == ("M", 9, True, False)
    assert made.batch_size == 4
    path.write_text("modell: M\n")
    with pytest.raises(ValueError, match="got modell"):
        config_of(["--config", str(path)])


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(model=""), "model is required"),
        (dict(dataset=""), "dataset is required"),
        (dict(dora=True), "Cannot use both LoRA and DoRA"),
        (dict(batch_size=0), "batch_size must be 1 or more, got 0"),
        (dict(iters=0), "iters must be 1 or more, got 0"),
        (dict(optimizer="adan"), "optimizer must be one of"),
        (dict(weight_decay=0.1), "weight_decay must be 0 with adam"),
        (dict(q_bits=7), "q_bits must be"),
        (dict(lora=False, quantize=True), "quantize must come with lora"),
        (dict(data_format="chat"), "records of train must have messages"),
        (dict(lora_targets=["nothing"]), "must match at least one layer"),
        (dict(train_split="other"), "must have at least batch_size = 2"),
    ],
)
def test_what_cannot_be_run_is_refused(data, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        train(config(data, tmp_path, **changes))


def test_train_takes_a_configuration_only():
    with pytest.raises(TypeError, match="got dict"):
        train({})
    assert callable(zmlx.train)


def test_the_learning_rate_warms_up_and_decays():
    made = TrainConfig(
        learning_rate=1.0, warmup_steps=10, iters=110, lr_schedule="cosine"
    )
    rate = schedule_of(made)
    steps = [rate(mx.array(step)).item() for step in (0, 5, 10, 60, 109)]
    assert steps[:3] == pytest.approx([0, 0.5, 1], abs=1e-6)
    assert steps[3] == pytest.approx(0.5, abs=1e-3) and steps[4] < 0.01
    flat = schedule_of(TrainConfig(learning_rate=2.0, warmup_steps=4))
    assert [flat(mx.array(step)).item() for step in (2, 50)] == [1.0, 2.0]
    assert schedule_of(TrainConfig(learning_rate=2.0)) == 2.0


def test_gradients_are_clipped_and_weights_decay():
    clipped = optimizer_of(
        TrainConfig(optimizer="sgd", learning_rate=1.0, max_grad_norm=1.0)
    )
    assert isinstance(clipped, optim.SGD)
    weights = {"w": mx.zeros((4,))}
    clipped.update(weights, {"w": mx.full((4,), 10.0)})
    assert mx.abs(weights["w"] + 0.5).max() < 1e-5
    decaying = optimizer_of(TrainConfig(optimizer="adamw", weight_decay=0.25))
    assert decaying.weight_decay == 0.25


def test_cross_entropies_agree_and_reduce():
    logits = mx.random.normal((3, 5, 7))
    targets = mx.random.randint(0, 7, (3, 5))
    for reduction in ("mean", "sum", "none"):
        ours = fused_cross_entropy(logits, targets, reduction=reduction)
        stock = standard_cross_entropy(logits, targets, reduction=reduction)
        assert ours.shape == stock.shape
        assert mx.allclose(ours, stock, 1e-5, 1e-6)


def test_commands_run_and_report_wrong_use(data, tmp_path, capsys):
    model = str(tmp_path / "model")
    out = str(tmp_path / "out")
    flags = ["--lora", "--iters", "2", "--batch-size", "2", "--output-dir", out]
    flags += ["--max-seq-length", "32", "--val-batches", "1"]
    assert cli.main(["train", "--model", model, "--dataset", str(data), *flags]) == 0
    text = capsys.readouterr().out
    assert f"[zmlx] Training {model}" in text
    assert f"[zmlx] Training complete. Output: {out}" in text
    assert cli.main(["train", "--model", model]) == 2
    assert "dataset is required" in capsys.readouterr().err
    assert cli.main(["export", "--model", model, "--adapter-path", str(data)]) == 2
    capsys.readouterr()
    profile = ["profile", "--model", model, "--iters", "2", "--patch", "--analyze"]
    assert cli.main(profile) == 0
    text = capsys.readouterr().out
    assert "Median time: " in text and "Module" in text and "Share" in text
