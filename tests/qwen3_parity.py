# SPDX-License-Identifier: MIT
"""Logits of our Qwen3 and Qwen3-MoE against mlx_lm's on tiny random checkpoints."""

import pytest
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

DENSE = {
    "model_type": "qwen3",
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
MOE = {
    **DENSE,
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 64,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,
}


def hugging_face_names(weights):
    renamed = {}
    for name, value in weights.items():
        if "switch_mlp" in name:
            for e in range(value.shape[0]):
                renamed[name.replace("switch_mlp", f"experts.{e}")] = value[e]
        else:
            renamed[name] = value
    return renamed


@pytest.mark.parametrize("base", [MOE, DENSE], ids=["moe", "dense"])
@pytest.mark.parametrize(
    "quantization",
    [{"group_size": 64, "bits": 4}, {"group_size": 32, "bits": 8}, None],
)
def test_logits_equal_mlx_lm(tmp_path, base, quantization):
    check_random(tmp_path, base, 0, quantization)


@pytest.mark.parametrize("base", [MOE, DENSE], ids=["moe", "dense"])
@pytest.mark.parametrize("quantization", SMALL_FLOATS, ids=lambda q: q["mode"])
def test_small_floats_equal_mlx_lm(tmp_path, base, quantization):
    model = check_random(tmp_path, base, 6, quantization)
    check_greedy(model, tmp_path, 48)


@pytest.mark.parametrize(
    "quantization, layers",
    [
        ({"group_size": 64, "bits": 4}, ["quantized_linear", "swiglu_mlp"]),
        (None, ["linear", "swiglu_mlp"]),
    ],
)
def test_dense_models_get_every_pattern(tmp_path, quantization, layers):
    model, config = build(DENSE, 7, quantization)
    save(model, config, tmp_path)
    others = ["attention", "decode_step", "rmsnorm"]
    assert patterns_of(tmp_path) == sorted(others + layers)


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": True, "norm_topk_prob": False},
        {"mlp_only_layers": [1], "num_experts_per_tok": 1},
        {"decoder_sparse_step": 2, "num_key_value_heads": 4, "head_dim": 32},
        {"rope_scaling": {"rope_type": "default"}},
    ],
)
def test_configurations(tmp_path, changes):
    check_random(tmp_path, MOE, 2, {"group_size": 64, "bits": 4}, **changes)


@pytest.mark.parametrize("base", [MOE, DENSE], ids=["moe", "dense"])
def test_hugging_face_layout(tmp_path, base):
    model, config = build(base, 4, None)
    save(model, config, tmp_path, hugging_face_names)
    check(model, tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_experts_per_tok": 9}, "from 1 to 8, got 9"),
        ({"num_key_value_heads": 3}, "must divide num_attention_heads, got 3 and 4"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "must be of type 'default'"),
        ({"rope_theta": 0}, "'rope_theta' must be above 0, got 0"),
        ({"mlp_only_layers": ["a"]}, "must be integers"),
        ({"head_dim": 32}, "must have shape"),
    ],
)
def test_bad_configurations_are_named(tmp_path, change, message):
    check_error(tmp_path, MOE, change, message)
