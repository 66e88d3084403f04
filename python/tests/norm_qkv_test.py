# SPDX-License-Identifier: MIT
"""The pattern norm_qkv: a layer's first norm with the projections of its mixer."""

import copy
import importlib
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import patch_models
import pytest
from lm_models import demo
from mlx_lm.models import llama
from mlx_lm.tuner.utils import linear_to_lora_layers
from patch_models import logits, quantise, relative, result_of

from zmlx import _core
from zmlx.patch import patch, unpatch
from zmlx.patch.adapters import ENTRIES, NORMS, Entry
from zmlx.patch.stock import fused_of

PATTERN = ["norm_qkv"]
# Families whose layers all have a row; half of those of the others.
WHOLE = [
    "llama",
    "llama with biases",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "lfm2",
    "lfm2_moe",
    "qwen3_moe",
    "qwen2_moe",
    "qwen3_next",
    "gpt_oss",
    "mixtral",
    "olmoe",
    "deepseek",
    "granite",
    "granitemoe",
    "glm4",
    "glm4_moe",
    "dots1",
    "ernie4_5_moe",
    "exaone_moe",
    "mimo_v2_flash",
    "mellum",
    "phi3",
]
HALF = ["granitemoehybrid", "jamba"]


def packed(name, seed=0, bits=4):
    model = patch_models.tiny(name, seed)
    quantise(model, bits)
    return model


def count(model):
    return result_of(model).pattern_counts.get("norm_qkv", 0)


@pytest.mark.parametrize("name", WHOLE + HALF)
def test_a_family_gives_the_logits_of_stock(name):
    for seed, batch in ((0, 1), (1, 3)):
        model = packed(name, seed)
        expected = logits(model, batch)
        mx.eval(expected)
        patch(model, patterns=PATTERN)
        layers = len(model.layers)
        assert result_of(model).skipped == []
        assert count(model) == (layers // 2 if name in HALF else layers)
        assert relative(logits(model, batch), expected) < 1e-4
        unpatch(model)
        assert mx.array_equal(logits(model, batch), expected)


def test_every_row_names_a_class_of_mlx_lm_that_defines_call():
    for key, row in ENTRIES.items():
        module, name = key.split(".")
        models = importlib.import_module(f"mlx_lm.models.{module}")
        assert "__call__" in vars(getattr(models, name)), key
        assert all(1 <= len(paths) <= 3 for paths in row.mixers.values())


def test_projections_may_be_packed_each_in_its_own_way():
    model = patch_models.tiny("llama with biases")
    for name, settings in (
        ("q_proj", dict(bits=8, group_size=64)),
        ("k_proj", dict(bits=3, group_size=32)),
        ("v_proj", dict(bits=None, group_size=None, mode="mxfp4")),
    ):
        nn.quantize(model, class_predicate=lambda p, _, n=name: n in p, **settings)
    expected = logits(model, 2)
    patch(model, patterns=PATTERN)
    assert count(model) == 2
    assert relative(logits(model, 2), expected) < 1e-4


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
@pytest.mark.parametrize("name", ["llama", "gemma", "lfm2", "qwen3"])
def test_narrow_types_are_kept_and_no_further_from_float32_than_stock(dtype, name):
    stock = ours = 0
    for seed in range(4):
        model = packed(name, seed)
        exact = logits(model, 3)
        model.set_dtype(dtype)
        stock += ((logits(model, 3).astype(mx.float32) - exact) ** 2).mean().item()
        patch(model, patterns=PATTERN)
        got = logits(model, 3)
        assert got.dtype == dtype and count(model) == 2
        ours += ((got.astype(mx.float32) - exact) ** 2).mean().item()
    assert ours < stock


def refused(name, why="the probe must differ from stock by"):
    model = packed(name)
    expected = logits(model, 1)
    patch(model, patterns=PATTERN)
    done = result_of(model)
    assert count(model) == 0 and done.skipped
    assert all(why in reason for reason in done.skipped)
    assert mx.array_equal(logits(model, 1), expected)


@pytest.mark.parametrize(
    "row",
    [
        Entry(mixers={"self_attn": ("q_proj", "k_proj")}),
        Entry(norm="post_attention_layernorm"),
        Entry(mixers={"mlp": ("gate_proj", "up_proj")}),
    ],
    ids=["one left out", "another norm", "another mixer"],
)
def test_a_wrong_row_is_refused(monkeypatch, row):
    monkeypatch.setitem(ENTRIES, "llama.TransformerBlock", row)
    refused("llama")


def test_wrong_results_are_refused(monkeypatch):
    run = _core.rms_norm_qkv

    def swapped(x, made):
        q, k, v = run(x, made)
        return q, v, k

    def slightly_wrong(x, made):
        q, k, v = run(x, made)
        return q, k * 1.001, v

    for wrong in (swapped, slightly_wrong):
        monkeypatch.setattr(_core, "rms_norm_qkv", wrong)
        refused("llama")


def test_a_wrong_offset_of_the_norm_is_refused(monkeypatch):
    row = NORMS["gemma.RMSNorm"]
    monkeypatch.setitem(NORMS, "gemma.RMSNorm", replace(row, offset=0.0))
    refused("gemma")


def test_a_layer_that_uses_its_norm_elsewhere_is_refused(monkeypatch):
    class Parallel(llama.TransformerBlock):
        def __call__(self, x, mask=None, cache=None):
            normed = self.input_layernorm(x)
            return x + self.self_attn(normed, mask, cache) + self.mlp(normed)

    class Gated(llama.Attention):
        def __call__(self, x, mask=None, cache=None):
            return super().__call__(x, mask, cache) * mx.sigmoid(x)

    def made(layer_class, attention_class):
        model = packed("llama")
        for layer in model.layers:
            layer.__class__ = layer_class
            layer.self_attn.__class__ = attention_class
        return model

    key = f"{Parallel.__module__}.{Parallel.__qualname__}"
    monkeypatch.setitem(ENTRIES, key, Entry())
    for model in (
        made(Parallel, llama.Attention),
        made(llama.TransformerBlock, Gated),
    ):
        expected = logits(model, 1)
        patch(model, patterns=PATTERN)
        assert count(model) == 0 and len(result_of(model).skipped) == 2
        assert mx.array_equal(logits(model, 1), expected)


def test_a_norm_or_a_projection_of_another_kind_stays_stock(monkeypatch):
    monkeypatch.delitem(NORMS, "gemma.RMSNorm")
    refused("gemma", "its norm is a RMSNorm")
    # Floats are no failure: other patterns have them.
    model = patch_models.tiny("llama")
    patch(model, patterns=PATTERN)
    assert count(model) == 0 and result_of(model).skipped == []


def test_the_narrow_type_is_compared_too_on_a_gpu(monkeypatch):
    monkeypatch.setattr("zmlx.patch.on_gpu", lambda: True)
    run = _core.rms_norm_qkv

    def wrong_in_narrow(x, made):
        outputs = run(x, made)
        return outputs if x.dtype == mx.float32 else [-y for y in outputs]

    for wrong in (False, True):
        model = packed("qwen3")
        model.set_dtype(mx.bfloat16)
        if wrong:
            monkeypatch.setattr(_core, "rms_norm_qkv", wrong_in_narrow)
        patch(model, patterns=PATTERN)
        assert count(model) == (0 if wrong else 2)


def test_it_may_stand_beside_the_decode_step():
    model = demo()
    expected = logits(model, 1)
    patch(model, patterns=["norm_qkv", "decode_step"])
    layers = len(model.layers)
    assert result_of(model).pattern_counts == {"norm_qkv": layers, "decode_step": 1}
    assert relative(logits(model, 1), expected) < 1e-4
    unpatch(model)
    assert mx.array_equal(logits(model, 1), expected)


def test_patching_twice_is_patching_once_and_parts_have_their_own_patterns():
    model = packed("lfm2_moe")
    expected = logits(model, 2)
    patterns = ["norm_qkv", "moe_mlp", "swiglu_mlp", "rmsnorm", "quantized_linear"]
    patch(model, patterns=patterns)
    first = result_of(model)
    assert count(model) == 2 and first.skipped == []
    assert first.modules["model.layers.1.self_attn.q_proj"] == "quantized_linear"
    assert first.modules["model.layers.1.feed_forward"] == "moe_mlp"
    classes = [type(m) for m in model.modules()]
    patch(model, patterns=patterns)
    assert [type(m) for m in model.modules()] == classes
    assert result_of(model).modules == first.modules
    assert relative(logits(model, 2), expected) < 1e-4
    unpatch(unpatch(model))
    assert not any(fused_of(m) for m in model.modules())
    assert mx.array_equal(logits(model, 2), expected)


def test_weights_that_are_loaded_saved_or_quantised_anew_are_heeded(tmp_path):
    model, other = packed("qwen3"), packed("qwen3", seed=5)
    names = [k for k, _ in nn.utils.tree_flatten(model.parameters())]
    for each in (model, other):
        patch(each, patterns=PATTERN)
    assert [k for k, _ in nn.utils.tree_flatten(model.parameters())] == names
    model.save_weights(str(tmp_path / "w.safetensors"))
    other.load_weights(str(tmp_path / "w.safetensors"))
    expected = logits(model, 1)
    assert mx.array_equal(logits(other, 1), expected)
    twin = copy.deepcopy(model)
    assert mx.array_equal(logits(twin, 1), expected)
    twin.update(packed("qwen3", seed=7).parameters())
    assert mx.array_equal(logits(model, 1), expected)
    assert relative(logits(twin, 1), logits(packed("qwen3", seed=7), 1)) < 1e-4
    model.layers[0].input_layernorm.eps = 0.5
    stock = packed("qwen3")
    stock.layers[0].input_layernorm.eps = 0.5
    assert relative(logits(model, 1), logits(stock, 1)) < 1e-4


def test_a_projection_of_another_kind_makes_the_call_stock():
    model, stock = packed("llama"), packed("llama")
    patch(model, patterns=PATTERN)
    for each in (model, stock):
        mx.random.seed(1)
        linear_to_lora_layers(each, 1, dict(rank=4, scale=2.0, dropout=0.0))
        lora = each.layers[1].self_attn.q_proj
        lora.lora_b = mx.ones_like(lora.lora_b)
    assert count(model) == 2
    assert relative(logits(model, 1), logits(stock, 1)) < 1e-4
    tokens = mx.array([[1, 5, 9, 2, 7, 3]])

    def slopes(model):
        model.freeze()
        model.layers[1].self_attn.q_proj.unfreeze(keys=["lora_a", "lora_b"])

        def loss(model):
            return nn.losses.cross_entropy(
                model(tokens[:, :-1]), tokens[:, 1:], reduction="mean"
            )

        return dict(nn.utils.tree_flatten(nn.value_and_grad(model, loss)(model)[1]))

    got, wanted = slopes(model), slopes(stock)
    assert got.keys() == wanted.keys() and got
    for path, slope in wanted.items():
        assert mx.abs(got[path] - slope).max() < 1e-4 * mx.abs(slope).max(), path


def test_compiled_calls_equal_stock():
    model = packed("qwen3")
    tokens = mx.array([[3, 9, 4]])
    expected = model(tokens)
    patch(model, patterns=PATTERN)
    assert relative(mx.compile(model)(tokens), expected) < 1e-4


def test_two_threads_may_use_one_model():
    model = packed("lfm2")
    patch(model, patterns=PATTERN)
    patch_models.assert_threads_may_share(model, 2)
