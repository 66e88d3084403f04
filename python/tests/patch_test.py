# SPDX-License-Identifier: MIT
"""patch(): every family equals stock, wrong adapters are refused, and a patched
model can be unpatched, saved, quantised, trained and shared between threads."""

import copy
import importlib
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import patch_models
import pytest
from lm_models import demo, randomised
from mlx_lm.models import gemma, llama, switch_layers
from mlx_lm.tuner.utils import linear_to_lora_layers
from patch_models import logits, quantise, relative, result_of

from zmlx.decode import parts
from zmlx.patch import (
    ALL_PATTERNS,
    adapters,
    fused_layers,
    fused_moe,
    list_patterns,
    patch,
    probe,
    smart_patch,
    unpatch,
)
from zmlx.patch import patterns as table
from zmlx.patch.adapters import BLOCKS, MLP, MOE, NORMS, Mlp
from zmlx.patch.patterns import defaults
from zmlx.patch.stock import fused_of

LAYERS = [name for name in ALL_PATTERNS if name != "decode_step"]


def small(name="qwen3_moe", seed=0):
    return patch_models.tiny(name, seed)


PROMISED = (
    "lfm2_moe lfm2 qwen3_moe qwen3_next qwen2_moe gpt_oss mixtral phimoe olmoe deepseek"
    " deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe glm4_moe_lite granitemoe dots1"
    " ernie4_5_moe bailing_moe minimax hunyuan afmoe kimi_linear llama4 nemotron_h"
    " llama qwen3 gemma gemma2 gemma3_text"
)


def test_the_families_that_were_promised_are_tried():
    tried = {module for module, _ in patch_models.CASES.values()}
    assert set(PROMISED.split()) <= tried


@pytest.mark.parametrize("name", patch_models.CASES)
def test_a_patched_family_gives_the_logits_of_stock(name):
    for seed, batch in ((0, 1), (1, 3)):
        model = small(name, seed)
        expected = logits(model, batch)
        mx.eval(expected)
        patch(model, patterns=LAYERS)
        done = result_of(model)
        assert done.skipped == []
        sparse = "moe_mlp" in done.pattern_counts
        assert sparse == any(
            type(m).__name__.startswith("Switch") for m in model.modules()
        )
        assert relative(logits(model, batch), expected) < 1e-4
        unpatch(model)
        assert mx.array_equal(logits(model, batch), expected)


@pytest.mark.parametrize("name", ["lfm2_moe", "gpt_oss", "nemotron_h", "deepseek_v3"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_model_is_fused_in_its_packing(name, bits):
    model = small(name)
    quantise(model, bits)
    expected = logits(model, 2)
    mx.eval(expected)
    patch(model, patterns=LAYERS)
    assert result_of(model).skipped == []
    assert result_of(model).pattern_counts["quantized_linear"] > 0
    assert relative(logits(model, 2), expected) < 1e-4


def test_a_block_may_be_the_router_kernel_and_stock_experts(monkeypatch):
    monkeypatch.setattr(fused_moe.FusedMoe, "whole", False)
    for name in ("qwen3_next", "deepseek_v3 with groups", "nemotron_h", "gpt_oss"):
        model = small(name)
        expected = logits(model, 2)
        patch(model, patterns=["moe_mlp"])
        assert result_of(model).pattern_counts["moe_mlp"] > 0
        assert relative(logits(model, 2), expected) < 1e-4


def test_a_gpu_keeps_experts_that_no_kernel_knows(monkeypatch):
    monkeypatch.setattr(adapters, "ACTIVATIONS", {})
    model = small("qwen3_moe")
    expected = logits(model, 2)
    patch(model, patterns=["moe_mlp"])
    assert "moe_mlp" not in result_of(model).pattern_counts
    monkeypatch.setattr("zmlx.patch.on_gpu", lambda: True)
    patch(model, patterns=["moe_mlp"])
    assert result_of(model).pattern_counts["moe_mlp"] > 0
    assert relative(logits(model, 2), expected) < 1e-4


def test_a_gpu_must_give_the_same_rows_among_many(monkeypatch):
    monkeypatch.setattr("zmlx.patch.on_gpu", lambda: True)
    run = fused_moe.FusedMoe.run

    def shuffled(self, module, made, stock_call, x):
        y = run(self, module, made, stock_call, x)
        return y if x.shape[1] < 100 else y[:, ::-1]

    for wrong in (False, True):
        model = small()
        model.set_dtype(mx.bfloat16)
        if wrong:
            monkeypatch.setattr(fused_moe.FusedMoe, "run", shuffled)
        patch(model, patterns=["moe_mlp"])
        counts = result_of(model).pattern_counts
        assert counts.get("moe_mlp", 0) == (0 if wrong else 2)


def test_what_a_gpu_compiles_beforehand_is_what_a_probe_calls(monkeypatch):
    monkeypatch.setattr("zmlx.patch.on_gpu", lambda: True)
    called = []
    for kind in (fused_moe.FusedMoe, fused_layers.FusedMlp):

        def run(self, module, made, stock_call, x, *rest, run=kind.run):
            called.append((self.pattern, x.dtype, x.shape[1]))
            return run(self, module, made, stock_call, x, *rest)

        monkeypatch.setattr(kind, "run", run)
    built = []

    def error(proof, error=probe.Probe.error):
        called.clear()
        proof.build()
        built.append(set(called))
        called.clear()
        result = error(proof)
        assert set(called) == built[-1]
        return result

    monkeypatch.setattr(probe.Probe, "error", error)
    for name in ("qwen3_moe", "llama"):
        model = small(name)
        model.set_dtype(mx.bfloat16)
        quantise(model, 4)
        patch(model, patterns=["moe_mlp", "swiglu_mlp"])
        assert result_of(model).patched_count > 0
    assert {one[0] for calls in built for one in calls} == {"moe_mlp", "swiglu_mlp"}
    assert all(any(one[2] == 512 for one in calls) for calls in built)


def test_a_gpu_compiles_the_step_first_and_makes_it_of_fused_modules(monkeypatch):
    # Fusing a module may move its arrays, and the step knows where they lie.
    monkeypatch.setattr("zmlx.patch.on_gpu", lambda: True)
    model, done = demo(), []
    for name in ("compiled_ahead", "network_of"):
        make = getattr(parts, name)

        def noted(*given, name=name, make=make):
            fused = sum(fused_of(module) is not None for module in model.modules())
            done.append((name, fused))
            return make(*given)

        monkeypatch.setattr(parts, name, noted)
    patch(model, patterns=["moe_mlp", "decode_step"])
    assert done == [("compiled_ahead", 0), ("network_of", 5)]
    assert result_of(model).modules["model"] == "decode_step"


def test_a_gpu_leaves_layers_of_floats_stock(monkeypatch):
    monkeypatch.setattr("zmlx.patch.on_gpu", lambda: True)
    model = small("llama")
    patch(model, patterns=["swiglu_mlp"])
    assert "swiglu_mlp" not in result_of(model).pattern_counts
    assert any("must be quantised on a GPU" in why for why in result_of(model).skipped)
    quantise(model, 4)
    patch(model, patterns=["swiglu_mlp"])
    assert result_of(model).pattern_counts["swiglu_mlp"] > 0


def planted(monkeypatch, rows, key, **changes):
    monkeypatch.setitem(rows, key, replace(rows[key], **changes))


def refused(name, pattern):
    model = small(name)
    expected = logits(model, 1)
    patch(model, patterns=[pattern])
    done = result_of(model)
    assert pattern not in done.pattern_counts
    assert all("the probe must differ from stock by" in why for why in done.skipped)
    assert mx.array_equal(logits(model, 1), expected)
    return done.skipped


@pytest.mark.parametrize(
    "case, key, changes",
    [
        ("qwen3_moe", "qwen3_moe.Qwen3MoeSparseMoeBlock", dict(renormalise=False)),
        ("qwen3_moe", "qwen3_moe.Qwen3MoeSparseMoeBlock", dict(score="sigmoid")),
        ("qwen3_moe", "qwen3_moe.Qwen3MoeSparseMoeBlock", dict(top_k=2)),
        ("lfm2_moe", "lfm2_moe.Lfm2MoeSparseMoeBlock", dict(score="softmax")),
        ("lfm2_moe", "lfm2_moe.Lfm2MoeSparseMoeBlock", dict(scale=1.0)),
        ("mixtral", "mixtral.MixtralSparseMoeBlock", dict(score="softmax")),
        ("phimoe", "phimoe.PhiMoESparseMoeBlock", dict(jitter=0.01)),
        (
            "deepseek_v3 with groups",
            "deepseek_v3.DeepseekV3MoE",
            dict(group_score="largest"),
        ),
        ("llama4", "llama4.MoE", dict(weight_on_input=False)),
    ],
)
@pytest.mark.parametrize("kind", ["cheap", "dear", "dear, few rows at once"])
def test_a_wrong_router_is_refused(monkeypatch, case, key, changes, kind):
    if kind != "cheap":
        monkeypatch.setattr("zmlx.patch.probe._CHEAP_BYTES", 0)
    if "few" in kind:
        monkeypatch.setitem(probe._ROUTED_AT_ONCE, "cpu", probe._ROUTED_AT_ONCE["gpu"])
    router = replace(MOE[key].router, **changes)
    planted(monkeypatch, MOE, key, router=router)
    assert refused(case, "moe_mlp")


def test_dear_modules_are_proved_together_by_their_first_row(monkeypatch):
    monkeypatch.setattr("zmlx.patch.probe._CHEAP_BYTES", 0)
    for name in patch_models.CASES:
        model = small(name)
        quantise(model)
        expected = logits(model, 2)
        patch(model, patterns=LAYERS)
        assert result_of(model).skipped == []
        assert relative(logits(model, 2), expected) < 1e-4
    # A refused block goes on to its parts.
    planted(monkeypatch, MOE, "qwen2_moe.Qwen2MoeSparseMoeBlock", shared=None)
    model = small("qwen2_moe")
    expected = logits(model, 2)
    patch(model, patterns=LAYERS)
    done = result_of(model)
    assert len(done.skipped) == 2 and "moe_mlp" not in done.pattern_counts
    assert done.modules["model.layers.0.mlp.shared_expert"] == "swiglu_mlp"
    assert done.modules["model.layers.0.mlp.gate"] == "linear"
    assert relative(logits(model, 2), expected) < 1e-4


def test_a_block_without_its_shared_expert_or_bias_is_refused(monkeypatch):
    planted(monkeypatch, MOE, "qwen2_moe.Qwen2MoeSparseMoeBlock", shared=None)
    refused("qwen2_moe", "moe_mlp")
    planted(monkeypatch, MOE, "lfm2_moe.Lfm2MoeSparseMoeBlock", bias=None)
    refused("lfm2_moe", "moe_mlp")


def test_a_wrong_activation_or_offset_is_refused(monkeypatch):
    monkeypatch.setitem(MLP, "gemma.MLP", Mlp("silu"))
    refused("gemma", "swiglu_mlp")
    monkeypatch.setitem(MLP, "llama.MLP", Mlp("gelu_tanh"))
    refused("llama", "geglu_mlp")
    planted(monkeypatch, NORMS, "gemma.RMSNorm", offset=0.0)
    refused("gemma", "rmsnorm")


def test_what_has_no_adapter_stays_stock_and_is_named():
    class Mine(nn.Module):
        def __init__(self):
            super().__init__()
            self.switch_mlp = switch_layers.SwitchGLU(32, 32, 4)
            self.gate = nn.Linear(32, 4, bias=False)

        def __call__(self, x):
            return self.switch_mlp(x, mx.argmax(self.gate(x), -1, keepdims=True))

    model = nn.Sequential(Mine(), nn.Linear(32, 32))
    patch(model)
    assert result_of(model).pattern_counts == {"linear": 2}
    (skipped,) = [s for s in result_of(model).skipped if not s.startswith("model: d")]
    assert skipped.startswith("layers.0: no adapter for ") and "Mine" in skipped


@pytest.mark.parametrize("mode", ["mxfp4", "nvfp4", "mxfp8"])
def test_small_floats_are_fused_in_their_packing(mode):
    for name in ("gpt_oss", "qwen3_next"):
        model = small(name)
        quantise(model, bits=None, mode=mode)
        expected = logits(model, 2)
        patch(model, patterns=LAYERS)
        assert result_of(model).skipped == []
        assert result_of(model).pattern_counts["moe_mlp"] == 2
        assert relative(logits(model, 2), expected) < 1e-4


def test_a_packing_that_no_kernel_reads_stays_stock_with_the_reason():
    model = small("mixtral")
    quantise(model)
    for layer in model.layers:
        layer.block_sparse_moe.switch_mlp.up_proj.mode = "other"
    patch(model, patterns=["moe_mlp"])
    done = result_of(model)
    assert done.patched_count == 0 and len(done.skipped) == 2
    assert "mode must be affine with biases, or mxfp4" in done.skipped[0]


@pytest.mark.parametrize("rows", [MOE, MLP, BLOCKS], ids=["moe", "mlp", "blocks"])
def test_every_row_names_a_class_of_mlx_lm_that_defines_call(rows):
    for key in rows:
        module, name = key.split(".")
        models = importlib.import_module(f"mlx_lm.models.{module}")
        assert "__call__" in vars(getattr(models, name)), key


def test_modules_at_the_root_and_in_lists_and_dicts_are_found():
    mlp = randomised(
        llama.MLP(
            llama.ModelArgs.from_dict(patch_models.COMMON | {"model_type": "llama"})
        )
    )
    patch(mlp)
    assert result_of(mlp).modules == {"": "swiglu_mlp"}
    x = mx.random.normal((2, 64))
    assert (
        fused_of(mlp) and relative(mlp(x), type(mlp).__mro__[1].__call__(mlp, x)) < 1e-5
    )

    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.some = [nn.RMSNorm(8), {"deep": [nn.RMSNorm(8)]}]
            self.named = {"a": nn.Linear(8, 8)}

    model = Nested()
    patch(model, patterns=["rmsnorm", "linear"])
    assert set(result_of(model).modules) == {"some.0", "some.1.deep.0", "named.a"}
    unpatch(model)
    assert type(model.some[0]) is nn.RMSNorm and type(model.named["a"]) is nn.Linear


def test_patching_twice_is_patching_once():
    model = small()
    patch(model, patterns=LAYERS)
    first = result_of(model)
    classes = [type(m) for m in model.modules()]
    patch(model, patterns=LAYERS)
    assert [type(m) for m in model.modules()] == classes
    assert result_of(model).modules == first.modules
    assert result_of(model).pattern_counts == first.pattern_counts
    unpatch(unpatch(model))
    assert not any(fused_of(m) for m in model.modules())
    assert not hasattr(model, "_zmlx_patch_result")


def test_names_parameters_and_saved_weights_stay_as_they_were(tmp_path):
    model = small("qwen3_next")
    parameters = [k for k, _ in nn.utils.tree_flatten(model.parameters())]
    names = [type(m).__name__ for m in model.modules()]
    before = str(model)
    patch(model, patterns=LAYERS)
    assert [k for k, _ in nn.utils.tree_flatten(model.parameters())] == parameters
    assert [type(m).__name__ for m in model.modules()] == names
    assert str(model) == before
    model.save_weights(str(tmp_path / "w.safetensors"))
    expected = logits(model, 1)
    other = small("qwen3_next", seed=5)
    patch(other, patterns=LAYERS)
    other.load_weights(str(tmp_path / "w.safetensors"))
    assert mx.array_equal(logits(other, 1), expected)


def test_a_copy_runs_with_its_own_weights():
    model = small()
    patch(model, patterns=LAYERS)
    expected = logits(model, 1)
    other = copy.deepcopy(model)
    assert mx.array_equal(logits(other, 1), expected)
    other.update(small(seed=7).parameters())
    assert mx.array_equal(logits(model, 1), expected)
    assert relative(logits(other, 1), logits(small(seed=7), 1)) < 1e-4


def test_a_model_that_is_quantised_after_patching_is_right():
    model, stock = small(), small()
    patch(model, patterns=LAYERS)
    for each in (model, stock):
        quantise(each, bits=None)
    assert relative(logits(model, 2), logits(stock, 2)) < 1e-4
    patch(model, patterns=LAYERS)
    assert result_of(model).skipped == []
    assert relative(logits(model, 2), logits(stock, 2)) < 1e-4
    unpatch(model)
    assert mx.array_equal(logits(model, 2), logits(stock, 2))


@pytest.mark.parametrize("name", ["llama", "lfm2_moe"])
def test_lora_trains_a_patched_model_as_stock(name):
    def loss_and_gradients(patched):
        model = small(name)
        if patched:
            patch(model, patterns=LAYERS)
        model.freeze()
        mx.random.seed(1)
        linear_to_lora_layers(model, 2, dict(rank=4, scale=2.0, dropout=0.0))
        model.train()
        tokens = mx.array([[1, 5, 9, 2, 7, 3]])

        def loss(model):
            return nn.losses.cross_entropy(
                model(tokens[:, :-1]), tokens[:, 1:], reduction="mean"
            )

        value, gradients = nn.value_and_grad(model, loss)(model)
        return value, dict(nn.utils.tree_flatten(gradients))

    value, gradients = loss_and_gradients(True)
    expected, wanted = loss_and_gradients(False)
    assert abs(value.item() - expected.item()) < 1e-5
    assert gradients.keys() == wanted.keys() and gradients
    for path, gradient in gradients.items():
        apart = mx.abs(gradient - wanted[path]).max().item()
        assert apart < 1e-4 * max(mx.abs(wanted[path]).max().item(), 1e-3), path


def test_two_threads_may_use_one_model():
    model = small("lfm2_moe")
    patch(model, patterns=LAYERS)
    patch_models.assert_threads_may_share(model, 4)


def test_settings_that_change_afterwards_are_heeded():
    model = small()
    block = model.layers[0].mlp
    patch(model, patterns=["moe_mlp"])
    x = mx.random.normal((1, 3, 64))
    block(x)
    block.top_k = 1
    block.norm_topk_prob = False
    got = block(x)
    unpatch(model)
    assert relative(got, block(x)) < 1e-4


def test_long_calls_go_through_stock_where_told_to():
    model = small()
    x = mx.random.normal((1, 5, 64))
    expected = model.layers[0].mlp(x)
    patch(model, patterns=["moe_mlp"], moe_fused_swiglu_max_tokens=4)
    assert mx.array_equal(model.layers[0].mlp(x), expected)
    assert relative(model.layers[0].mlp(x[:, :4]), expected[:, :4]) < 1e-4


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_narrow_types_are_kept_and_no_further_from_float32_than_stock(dtype):
    # Not a mixture: there rounding may choose another expert on either side.
    model = small("lfm2")
    quantise(model)
    exact = logits(model, 1)
    model.set_dtype(dtype)
    stock = relative(logits(model, 1).astype(mx.float32), exact)
    patch(model, patterns=LAYERS)
    got = logits(model, 1)
    assert got.dtype == dtype and result_of(model).skipped == []
    assert relative(got.astype(mx.float32), exact) < 1.2 * stock


def test_a_mixture_of_narrow_experts_keeps_its_type():
    model = small("lfm2_moe")
    model.set_dtype(mx.bfloat16)
    patch(model, patterns=LAYERS)
    assert result_of(model).pattern_counts["moe_mlp"] == 1
    # Stock MLX has no such product on the CPU.
    assert logits(model, 1).dtype == mx.bfloat16


def test_residual_norm_and_softmax_have_their_patterns():
    model = small("lfm2_moe")
    expected = logits(model, 1)
    patch(model, patterns=["residual_norm"])
    assert result_of(model).pattern_counts == {"residual_norm": 2}
    assert relative(logits(model, 1), expected) < 1e-4
    model = nn.Sequential(nn.Softmax(), nn.LayerNorm(8), nn.LayerNorm(8, bias=False))
    x = mx.random.normal((3, 8))
    expected = model(x)
    patch(model)
    counts = {"softmax": 1, "layernorm": 2}
    assert result_of(model).pattern_counts == counts
    assert relative(model(x), expected) < 1e-5


def test_the_default_patterns_are_those_that_help_on_the_device(monkeypatch):
    assert "decode_step" in defaults()
    assert not {"residual_norm", "norm_qkv"} & set(defaults())
    monkeypatch.setattr(table, "on_gpu", lambda: True)
    assert defaults() == ["moe_mlp", "swiglu_mlp", "geglu_mlp", "decode_step"]
    assert list_patterns() == sorted(ALL_PATTERNS)


def test_the_demo_model_is_patched_whole():
    model = demo()
    expected = logits(model, 1)
    patch(model)
    done = result_of(model)
    assert done.modules["model"] == "decode_step" and done.skipped == []
    assert relative(logits(model, 1), expected) < 1e-4
    text = done.summary()
    assert text.startswith(f"Patched {done.patched_count} modules:\n")
    assert "\n  moe_mlp: 5" in text
    unpatch(model)
    assert mx.array_equal(logits(model, 1), expected)


def test_wrong_arguments_are_named():
    model = small("gemma")
    with pytest.raises(KeyError, match="no pattern 'rmsnrm'. Did you mean 'rmsnorm'"):
        patch(model, patterns=["rmsnrm"])
    with pytest.raises(KeyError, match="no pattern 'x'"):
        patch(model, exclude=["x"])
    with pytest.raises(ValueError, match="Unknown mode"):
        patch(model, mode="fast")
    with pytest.raises(ValueError, match="must be 0 or more, got -1"):
        patch(model, moe_fused_swiglu_max_tokens=-1)
    assert not any(fused_of(m) for m in model.modules())


def test_excluded_patterns_stay_out(capsys):
    model = small("gemma")
    patch(model, exclude=["linear", "decode_step"], verbose=True)
    assert set(result_of(model).pattern_counts) == {"geglu_mlp", "rmsnorm"}
    said = capsys.readouterr().out
    assert "geglu_mlp: model.layers.0.mlp" in said and "Patched 7 modules" in said


def test_smart_patch_keeps_what_is_faster(capsys):
    model = small("llama")
    expected = logits(model, 1)
    calls = []

    def forward(model, sample):
        calls.append(1)
        return model(sample)

    sample = mx.array([[1, 2, 3]])
    same = smart_patch(
        model,
        sample,
        patterns=["rmsnorm", "moe_mlp"],
        threshold=0.0,
        iters=2,
        warmup=0,
        forward_fn=forward,
    )
    assert same is model and len(calls) == 10
    assert result_of(model).pattern_counts == {"rmsnorm": 5}
    assert result_of(model).benchmarks["rmsnorm"] > 0
    assert relative(logits(model, 1), expected) < 1e-4
    said = capsys.readouterr().out
    assert "rmsnorm" in said and "KEEP (5 modules)" in said
    assert "moe_mlp: no modules" in said
    smart_patch(model, sample, patterns=["rmsnorm"], threshold=1e9, iters=1, warmup=0)
    assert result_of(model).patched_count == 0
    assert mx.array_equal(logits(model, 1), expected)


def test_a_probe_that_raises_leaves_the_module_stock(monkeypatch):
    monkeypatch.setitem(MLP, "gemma.MLP", Mlp("gelu", gate="missing"))
    model = small("gemma")
    patch(model, patterns=["geglu_mlp"])
    assert "it has no gate" in result_of(model).skipped[0]
    assert type(model.layers[0].mlp) is gemma.MLP
