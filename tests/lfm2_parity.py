# SPDX-License-Identifier: MIT
"""Logits of our LFM2 and LFM2-MoE against mlx_lm's on tiny random checkpoints.

Stock and patched, whole prompts and steps through the cache, both routers, and
both layouts of files, at float32.
"""

import mlx.core as mx
import pytest
from mlx_lm.models import lfm2_moe
from parity import (
    SMALL_FLOATS,
    build,
    check,
    check_error,
    check_greedy,
    check_random,
    patterns_of,
    save,
)

COMMON = {
    "vocab_size": 256,
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "norm_eps": 1e-5,
    "conv_bias": False,
    "conv_L_cache": 3,
    "rope_theta": 10000.0,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
}
MOE = {
    **COMMON,
    "model_type": "lfm2_moe",
    "intermediate_size": 192,
    "moe_intermediate_size": 64,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "norm_topk_prob": True,
    "use_expert_bias": True,
    "num_dense_layers": 1,
    "routed_scaling_factor": 1.25,
}
DENSE = {
    **COMMON,
    "model_type": "lfm2",
    "block_dim": 128,
    "block_ff_dim": 270,
    "block_multiple_of": 64,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": True,
}


def softmax_router(self, x):
    """The block of mlx_lm up to 0.31.3: the bias counts in the weight too."""
    scores = mx.softmax(self.gate(x), axis=-1, precise=True) + self.expert_bias
    order = mx.argpartition(scores, kth=-self.top_k, axis=-1)[..., -self.top_k :]
    weights = mx.take_along_axis(scores, order, axis=-1)
    weights = weights / (mx.sum(weights, axis=-1, keepdims=True) + 1e-20)
    y = self.switch_mlp(x, order)
    return (y * weights[..., None]).sum(axis=-2)


def hugging_face_names(weights):
    renamed = {}
    for name, value in weights.items():
        name = name.replace("gate_proj", "w1").replace("down_proj", "w2")
        name = name.replace("up_proj", "w3")
        if "switch_mlp" in name:
            for e in range(value.shape[0]):
                renamed[name.replace("switch_mlp", f"experts.{e}")] = value[e]
        else:
            if "conv.conv.weight" in name:
                value = mx.contiguous(value.transpose(0, 2, 1))
            renamed[name] = value
    return renamed


@pytest.mark.parametrize("base", [MOE, DENSE], ids=["moe", "dense"])
@pytest.mark.parametrize("quantization", SMALL_FLOATS, ids=lambda q: q["mode"])
def test_small_floats_equal_mlx_lm(tmp_path, base, quantization):
    model = check_random(tmp_path, base, 6, quantization)
    check_greedy(model, tmp_path, 48)


@pytest.mark.parametrize("base", [MOE, DENSE], ids=["moe", "dense"])
@pytest.mark.parametrize(
    "quantization",
    [
        {"group_size": 64, "bits": 4},
        {"group_size": 32, "bits": 8},
        {"group_size": 64, "bits": 3},
        None,
    ],
)
def test_logits_equal_mlx_lm(tmp_path, base, quantization):
    check_random(tmp_path, base, 0, quantization)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_topk_prob": False},
        {"conv_bias": True},
        {"num_dense_layers": 0, "num_experts_per_tok": 1},
        {"conv_L_cache": 4, "num_key_value_heads": 4},
    ],
)
def test_configurations(tmp_path, changes):
    check_random(tmp_path, MOE, 2, {"group_size": 64, "bits": 4}, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"block_ff_dim": None, "intermediate_size": 192},
        {"block_ff_dim": 100, "block_auto_adjust_ff_dim": False},
        # 1.3 * 70 is 91 in double precision and less in single.
        {
            "block_ff_dim": 105,
            "block_ffn_dim_multiplier": 1.3,
            "block_multiple_of": 1,
        },
        {"block_ffn_dim_multiplier": None, "block_multiple_of": 7},
        {"layer_types": None, "full_attn_idxs": [0, 3]},
        {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}},
        {"num_key_value_heads": None, "conv_bias": True, "conv_L_cache": 4},
        {"hidden_size": 72, "block_dim": 72},
    ],
)
def test_dense_configurations(tmp_path, changes):
    check_random(tmp_path, DENSE, 2, None, **changes)


@pytest.mark.parametrize(
    "quantization, layers",
    [
        ({"group_size": 64, "bits": 4}, ["quantized_linear", "swiglu_mlp"]),
        (SMALL_FLOATS[1], ["quantized_linear", "swiglu_mlp"]),
        (None, ["linear", "swiglu_mlp"]),
    ],
)
def test_dense_models_get_every_pattern(tmp_path, quantization, layers):
    model, config = build(DENSE, 7, quantization)
    save(model, config, tmp_path)
    others = ["attention", "decode_step", "rmsnorm", "short_conv"]
    assert patterns_of(tmp_path) == sorted(others + layers)


def test_softmax_router_of_older_files(tmp_path, monkeypatch):
    monkeypatch.setattr(lfm2_moe.Lfm2MoeSparseMoeBlock, "__call__", softmax_router)
    model, config = build(MOE, 3, {"group_size": 64, "bits": 4})
    save(model, {**config, "scoring_func": "softmax"}, tmp_path)
    check(model, tmp_path)


@pytest.mark.parametrize("base", [MOE, DENSE], ids=["moe", "dense"])
def test_hugging_face_layout(tmp_path, base):
    model, config = build(base, 4, None)
    save(model, config, tmp_path, hugging_face_names)
    check(model, tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "lfm2_mo"}, "Did you mean 'lfm2_moe'?"),
        ({"num_experts_per_tok": 9}, "from 1 to 8, got 9"),
        ({"hidden_size": 64}, "must have shape"),
        ({"num_hidden_layers": 3}, "must name each of the 3 layers"),
        ({"layer_types": ["conv"] * 3 + ["mamba"]}, 'got "mamba"'),
        ({"scoring_func": "tanh"}, "'sigmoid' or 'softmax'"),
    ],
)
def test_bad_configurations_are_named(tmp_path, change, message):
    check_error(tmp_path, MOE, change, message)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"block_dim": 64}, "'block_dim' must be 'hidden_size', 128, got 64"),
        ({"block_ff_dim": None}, "must have 'intermediate_size', got none"),
        ({"block_ff_dim": 300}, "w1.weight' must have shape (256,128), got (192,128)"),
        ({"block_ffn_dim_multiplier": "x"}, 'from 0 to 1024, got "x"'),
        ({"block_ffn_dim_multiplier": 0}, "width must be from 1 to"),
        ({"block_multiple_of": 0}, "'block_multiple_of' must be an integer from 1"),
        ({"full_attn_idxs": [4]}, "must be layers from 0 to 3, got 4"),
        ({"layer_types": None}, "'layer_types' must name each of the 4 layers"),
    ],
)
def test_bad_dense_configurations_are_named(tmp_path, change, message):
    check_error(tmp_path, DENSE, change, message)
