# SPDX-License-Identifier: MIT
"""Logits of our Llama, Mistral and Qwen2 against mlx_lm's on tiny random
checkpoints."""

import mlx.core as mx
import pytest
from parity import build, check, check_error, check_random, save

LLAMA = {
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
QWEN2 = {**LLAMA, "model_type": "qwen2", "rope_theta": 1000000.0}
MISTRAL = {**LLAMA, "model_type": "mistral", "head_dim": 64, "sliding_window": 4}
# With periods of 8 to 256 positions in the part that is mixed.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}


@pytest.mark.parametrize("base", [LLAMA, MISTRAL, QWEN2], ids=lambda b: b["model_type"])
@pytest.mark.parametrize(
    "quantization",
    [{"group_size": 64, "bits": 4}, {"group_size": 32, "bits": 8}, None],
)
def test_logits_equal_mlx_lm(tmp_path, base, quantization):
    check_random(tmp_path, base, 0, quantization)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": LLAMA3, "rope_theta": 500000.0},
        {"rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_scaling": {"rope_type": "default"}, "rope_theta": 300.0},
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {"num_key_value_heads": 4, "layer_types": ["full_attention"] * 3},
    ],
)
def test_configurations(tmp_path, changes):
    check_random(tmp_path, LLAMA, 2, {"group_size": 64, "bits": 4}, **changes)


def test_scaled_positions_change_the_logits(tmp_path):
    """So that the test above would see scaling that is left out."""
    plain, _ = build(LLAMA, 2, None)
    scaled, _ = build(LLAMA, 2, None, rope_scaling=LLAMA3)
    tokens = mx.array([list(range(200))])
    assert mx.abs(plain(tokens) - scaled(tokens)).max().item() > 1e-2


def test_stored_frequencies_are_ignored(tmp_path):
    model, config = build(LLAMA, 4, None)

    def with_frequencies(weights):
        name = "model.layers.0.self_attn.rotary_emb.inv_freq"
        return weights | {name: mx.ones(16)}

    save(model, config, tmp_path, with_frequencies)
    check(model, tmp_path)


def test_theta_may_stand_among_the_rope_parameters(tmp_path):
    model, config = build(LLAMA, 4, None, rope_theta=300.0)
    del config["rope_theta"]
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 300.0}
    save(model, config, tmp_path)
    check(model, tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rope_scaling": {"rope_type": "yarn"}}, "'linear' or 'llama3', got 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "'factor' must be above 0"),
        ({"rope_scaling": {"type": "llama3"}}, "must have 'factor', got none"),
        ({"rope_traditional": True}, "'rope_traditional' must be false"),
        ({"layer_types": ["sliding_attention"] * 3}, "must all be 'full_attention'"),
        ({"num_key_value_heads": 3}, "must divide num_attention_heads, got 3 and 4"),
        (
            {"num_attention_heads": 3, "num_key_value_heads": 3},
            "must divide hidden_size",
        ),
    ],
)
def test_bad_configurations_are_named(tmp_path, change, message):
    check_error(tmp_path, LLAMA, change, message)
