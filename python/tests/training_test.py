# SPDX-License-Identifier: MIT
"""mode="training": a patched model has stock's gradients in every parameter, and
mlx_lm trains it along the same losses."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import patch_models
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.trainer import default_loss
from mlx_lm.tuner.utils import linear_to_lora_layers

from zmlx.patch import TRAINING_RECOMMENDED, patch, unpatch

BATCH = mx.random.randint(1, 90, (2, 20), key=mx.random.key(4))
LENGTHS = mx.array([[0, 19], [3, 12]])


def slopes(model):
    """The loss and its gradients in all parameters."""
    grad = nn.value_and_grad(model, default_loss)
    (loss, _), grads = grad(model, BATCH, LENGTHS)
    mx.eval(loss, grads)
    return loss.item(), dict(tree_flatten(grads))


@pytest.mark.parametrize("name", patch_models.CASES)
def test_a_patched_family_has_the_gradients_of_stock(name):
    model = patch_models.tiny(name)
    model.train()
    wanted_loss, wanted = slopes(model)
    patch(model, mode="training")
    result = model._zmlx_patch_result
    assert result.patched_count > 0
    got_loss, got = slopes(model)
    assert got_loss == pytest.approx(wanted_loss, rel=1e-5)
    assert got.keys() == wanted.keys()
    largest = max(mx.abs(value).max().item() for value in wanted.values())
    for key, value in wanted.items():
        off = mx.abs(got[key] - value).max().item()
        size = mx.abs(value).max().item()
        assert off <= 1e-4 * size + 1e-6 * largest, key


def curve(name, steps, patched, quantised=False, target=None, loss=default_loss):
    """Losses of so many steps of mlx_lm's LoRA."""
    model = patch_models.tiny(name)
    if quantised:
        nn.quantize(model, 32, 4)
    if patched:
        patch(model, mode="training")
    model.freeze()
    mx.random.seed(1)
    options = {"rank": 4, "scale": 4.0, "dropout": 0.0}
    linear_to_lora_layers(model, 2, options | ({"keys": target} if target else {}))
    model.train()
    optimizer = optim.Adam(5e-4)
    grad = nn.value_and_grad(model, loss)
    losses = []
    for step in range(steps):
        batch = mx.random.randint(1, 9, (2, 20), key=mx.random.key(step % 5))
        (value, _), grads = grad(model, batch, LENGTHS)
        optimizer.update(model, grads)
        mx.eval(model.parameters(), optimizer.state)
        losses.append(value.item())
    return losses


EXPERTS = {f"mlp.switch_mlp.{part}_proj" for part in ("gate", "up", "down")}


@pytest.mark.parametrize(
    "name, quantised, target",
    [
        ("llama", False, None),
        ("gemma2", False, None),
        ("qwen3_moe", False, None),
        ("qwen3_moe", True, None),
        ("qwen3_moe", False, EXPERTS | {"self_attn.q_proj"}),
        ("lfm2_moe", False, None),
        ("deepseek_v3", False, None),
    ],
)
def test_lora_follows_the_losses_of_stock_for_50_steps(name, quantised, target):
    stock = curve(name, 50, False, quantised, target)
    ours = curve(name, 50, True, quantised, target)
    assert stock[-1] < stock[0] - 0.1
    assert ours == pytest.approx(stock, rel=1e-3, abs=1e-3)


def test_the_fused_loss_follows_mlx_lms():
    from zmlx.train import fused_loss

    stock = curve("llama", 20, False)
    assert curve("llama", 20, True, loss=fused_loss) == pytest.approx(stock, rel=1e-4)


def test_projections_that_become_lora_layers_train_inside_the_fused_module():
    model = patch_models.tiny("llama")
    patch(model, mode="training")
    block = model.model.layers[0].mlp
    linear_to_lora_layers(
        model, 2, {"rank": 4, "scale": 4.0, "dropout": 0.0, "keys": {"mlp.up_proj"}}
    )
    from zmlx.patch.stock import fused_of

    assert type(block.up_proj).__name__ == "LoRALinear"
    assert fused_of(block).ready(block) is not None
    _, grads = slopes(model)
    assert mx.abs(grads["model.layers.0.mlp.up_proj.lora_b"]).max().item() > 0


def test_modes_replace_each_other_and_unpatch_restores_stock():
    model = patch_models.tiny("qwen3_moe")
    stock = model(BATCH)
    patch(model)
    assert not model._zmlx_patch_result.training
    patch(model, mode="training")
    first = model._zmlx_patch_result
    assert first.training
    assert set(first.pattern_counts) <= set(TRAINING_RECOMMENDED)
    slopes(model)
    patch(model, mode="training")
    assert model._zmlx_patch_result.pattern_counts == first.pattern_counts
    unpatch(model)
    assert mx.array_equal(model(BATCH), stock)


def test_a_module_with_a_wrong_gradient_is_refused(monkeypatch):
    from zmlx.patch import training

    def wrong(gate, up):  # the right value
        return nn.silu(gate) * mx.stop_gradient(up)

    monkeypatch.setitem(training._GATED, "silu", wrong)
    model = patch_models.tiny("llama")
    patch(model, mode="training")
    result = model._zmlx_patch_result
    assert "swiglu_mlp" not in result.pattern_counts
    assert "the probe must differ" in result.skipped[0]


def test_narrow_types_train_too():
    # MLX's CPU has no products of experts in narrow types.
    model = patch_models.tiny("gemma2")
    model.set_dtype(mx.bfloat16)
    wanted, _ = slopes(model)
    patch(model, mode="training")
    got, grads = slopes(model)
    assert got == pytest.approx(wanted, rel=2e-2)
    assert all(value.dtype == mx.bfloat16 for value in grads.values())
