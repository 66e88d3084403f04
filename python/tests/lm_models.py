# SPDX-License-Identifier: MIT
"""Small mlx_lm models for tests: the demo checkpoint and random ones."""

from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map
from mlx_lm.models import lfm2, lfm2_moe, llama, qwen2, qwen3, qwen3_moe
from mlx_lm.utils import load_model

DEMO = Path(__file__).parents[2] / "models" / "demo"
LAYERS = ["conv", "full_attention", "conv", "full_attention"]


def demo(dtype=mx.float32):
    model, _ = load_model(DEMO)
    if dtype is not None:
        model.set_dtype(dtype)
    mx.eval(model.parameters())
    return model


def randomised(model, seed=0, scale=0.05):
    """Replaces every parameter by random values; norms stay near 1."""
    key = mx.random.key(seed)

    def draw(value):
        nonlocal key
        key, one = mx.random.split(key)
        noise = mx.random.normal(value.shape, key=one)
        return 1 + scale * noise if value.ndim == 1 else 2 * scale * noise

    model.update(tree_map(draw, model.parameters()))
    model.eval()
    mx.eval(model.parameters())
    return model


def tiny_lfm2(**changes):
    args = dict(
        model_type="lfm2",
        vocab_size=120,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        norm_eps=1e-5,
        conv_bias=False,
        conv_L_cache=3,
        block_dim=64,
        block_ff_dim=96,
        block_multiple_of=32,
        block_ffn_dim_multiplier=1.0,
        block_auto_adjust_ff_dim=True,
        rope_theta=10000.0,
        layer_types=LAYERS,
    )
    return randomised(lfm2.Model(lfm2.ModelArgs(**(args | changes))))


def tiny_lfm2_moe(**changes):
    args = dict(
        model_type="lfm2_moe",
        vocab_size=120,
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=64,
        num_hidden_layers=4,
        num_experts=8,
        num_experts_per_tok=3,
        norm_topk_prob=True,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        use_expert_bias=True,
        num_dense_layers=1,
        norm_eps=1e-5,
        conv_bias=True,
        conv_L_cache=3,
        rope_theta=10000.0,
        layer_types=LAYERS,
    )
    return randomised(lfm2_moe.Model(lfm2_moe.ModelArgs(**(args | changes))))


def tiny_llama(**changes):
    args = dict(
        model_type="llama",
        vocab_size=120,
        hidden_size=64,
        num_hidden_layers=3,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=True,
    )
    return randomised(llama.Model(llama.ModelArgs(**(args | changes))))


def tiny_qwen2(**changes):
    args = dict(
        model_type="qwen2",
        vocab_size=120,
        hidden_size=64,
        num_hidden_layers=3,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    return randomised(qwen2.Model(qwen2.ModelArgs(**(args | changes))))


def tiny_qwen3(**changes):
    args = dict(
        model_type="qwen3",
        vocab_size=120,
        hidden_size=64,
        num_hidden_layers=3,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # not hidden_size / heads
        rms_norm_eps=1e-6,
        max_position_embeddings=512,
        rope_theta=10000.0,
        tie_word_embeddings=False,
    )
    return randomised(qwen3.Model(qwen3.ModelArgs(**(args | changes))))


def tiny_qwen3_moe(**changes):
    args = dict(
        model_type="qwen3_moe",
        vocab_size=120,
        hidden_size=64,
        num_hidden_layers=4,
        intermediate_size=96,
        moe_intermediate_size=64,
        num_experts=8,
        num_experts_per_tok=3,
        decoder_sparse_step=1,
        mlp_only_layers=[2],
        norm_topk_prob=True,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        rms_norm_eps=1e-6,
        max_position_embeddings=512,
        rope_theta=10000.0,
        tie_word_embeddings=True,
    )
    return randomised(qwen3_moe.Model(qwen3_moe.ModelArgs(**(args | changes))))


def quantised(model, bits=4):
    nn.quantize(
        model,
        group_size=32,
        bits=bits,
        class_predicate=lambda path, module: hasattr(module, "to_quantized"),
    )
    mx.eval(model.parameters())
    return model
