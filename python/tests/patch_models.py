# SPDX-License-Identifier: MIT
"""Tiny random models of mlx_lm's own classes, one or more a family, and what tests
of patching ask of them."""

import importlib
import threading

import mlx.core as mx
import mlx.nn as nn
from lm_models import randomised
from mlx_lm.models.cache import make_prompt_cache

# What most configurations understand; from_dict() drops the rest.
COMMON = dict(
    vocab_size=97,
    hidden_size=64,
    dim=64,
    d_model=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    intermediate_size=96,
    moe_intermediate_size=32,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    norm_eps=1e-5,
    layer_norm_epsilon=1e-5,
    rope_theta=10000.0,
    tie_word_embeddings=False,
    attention_bias=False,
    mlp_bias=False,
    use_bias=False,
    hidden_act="silu",
    attention_dropout=0.0,
    rope_scaling=None,
    # experts, by all their names
    num_experts=8,
    num_local_experts=8,
    n_routed_experts=8,
    num_experts_per_tok=3,
    num_experts_per_token=3,
    norm_topk_prob=True,
    n_shared_experts=1,
    num_shared_experts=1,
    routed_scaling_factor=1.7,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=1,
    decoder_sparse_step=1,
    mlp_only_layers=[],
    shared_expert_intermediate_size=40,
    # attention of the DeepSeek kind
    q_lora_rank=24,
    kv_lora_rank=32,
    qk_rope_head_dim=8,
    qk_nope_head_dim=16,
    v_head_dim=16,
    scoring_func="sigmoid",
    topk_method="noaux_tc",
)
_MULTI_HEAD = dict(num_key_value_heads=4)
_GROUPS = dict(n_group=4, topk_group=2, num_experts_per_tok=3)
_DELTA = dict(
    linear_num_value_heads=2,
    linear_num_key_heads=2,
    linear_key_head_dim=16,
    linear_value_head_dim=16,
    linear_conv_kernel_dim=3,
    full_attention_interval=2,
    partial_rotary_factor=0.5,
)
_YARN = dict(
    type="yarn",
    factor=4.0,
    mscale=1.0,
    mscale_all_dim=1.0,
    original_max_position_embeddings=64,
    beta_fast=32,
    beta_slow=1,
)
_GEMMA = dict(
    query_pre_attn_scalar=16,
    attn_logit_softcapping=50.0,
    final_logit_softcapping=30.0,
    rope_traditional=False,
)

_SCALED = dict(
    logits_scaling=2.0,
    attention_multiplier=0.25,
    embedding_multiplier=3.0,
    residual_multiplier=0.5,
)

# Name of a case: (module of mlx_lm.models, changes).
CASES = {
    "llama": ("llama", {}),
    "llama with biases": ("llama", dict(mlp_bias=True, attention_bias=True)),
    "qwen3": ("qwen3", {}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", _GEMMA),
    "gemma3": (
        "gemma3_text",
        _GEMMA | dict(sliding_window=16, sliding_window_pattern=2),
    ),
    "lfm2": (
        "lfm2",
        dict(
            conv_bias=False,
            conv_L_cache=3,
            block_dim=64,
            block_ff_dim=96,
            block_multiple_of=32,
            block_ffn_dim_multiplier=1.0,
            block_auto_adjust_ff_dim=True,
            layer_types=["conv", "full_attention"],
        ),
    ),
    "lfm2_moe": (
        "lfm2_moe",
        dict(
            num_dense_layers=1,
            use_expert_bias=True,
            conv_bias=False,
            conv_L_cache=3,
            layer_types=["conv", "full_attention"],
        ),
    ),
    "qwen3_moe": ("qwen3_moe", {}),
    "qwen3_moe as it comes": ("qwen3_moe", dict(norm_topk_prob=False)),
    "qwen2_moe": ("qwen2_moe", {}),
    "qwen3_next": ("qwen3_next", _DELTA),
    "qwen3_5_moe": (
        "qwen3_5_moe",
        dict(
            text_config=COMMON
            | _DELTA
            | dict(
                rope_parameters=dict(
                    type="default", rope_theta=10000.0, partial_rotary_factor=0.5
                ),
            ),
        ),
    ),
    "gpt_oss": ("gpt_oss", dict(sliding_window=16)),
    "mixtral": ("mixtral", {}),
    "phimoe": ("phimoe", dict(router_jitter_noise=0.2, num_experts_per_tok=2)),
    "olmoe": ("olmoe", {}),
    "deepseek": ("deepseek", _MULTI_HEAD | dict(moe_layer_freq=1)),
    "deepseek_v2": (
        "deepseek_v2",
        dict(moe_layer_freq=1, topk_method="gready", rope_scaling=_YARN),
    ),
    "deepseek_v2 with groups": (
        "deepseek_v2",
        _GROUPS
        | dict(
            moe_layer_freq=1,
            topk_method="group_limited_greedy",
            rope_scaling=_YARN,
        ),
    ),
    "deepseek_v3": ("deepseek_v3", dict(moe_layer_freq=1)),
    "deepseek_v3 with groups": ("deepseek_v3", _GROUPS | dict(moe_layer_freq=1)),
    "deepseek_v32": (
        "deepseek_v32",
        _GROUPS
        | dict(moe_layer_freq=1, index_n_heads=2, index_head_dim=16, index_topk=64),
    ),
    "glm4_moe": (
        "glm4_moe",
        dict(use_qk_norm=True, partial_rotary_factor=0.5, max_position_embeddings=256),
    ),
    "glm4_moe_lite": ("glm4_moe_lite", dict(moe_layer_freq=1)),
    "granitemoe": ("granitemoe", _SCALED),
    "dots1": ("dots1", _GROUPS),
    "ernie4_5_moe": (
        "ernie4_5_moe",
        dict(
            moe_num_experts=8,
            moe_k=3,
            moe_layer_start_index=1,
            moe_layer_interval=1,
            moe_num_shared_experts=1,
            moe_gate_act="softmax",
        ),
    ),
    "bailing_moe": (
        "bailing_moe",
        _GROUPS
        | dict(
            first_k_dense_replace=1,
            score_function="sigmoid",
            moe_router_enable_expert_bias=True,
            moe_shared_expert_intermediate_size=40,
        ),
    ),
    "bailing_moe by softmax": ("bailing_moe", dict(score_function="softmax")),
    "minimax": (
        "minimax",
        dict(
            shared_intermediate_size=0,
            rotary_dim=8,
            scoring_func="sigmoid",
            use_qk_norm=True,
        ),
    ),
    "hunyuan": (
        "hunyuan",
        dict(
            moe_topk=2,
            num_shared_expert=1,
            use_mixed_mlp_moe=True,
            use_qk_norm=True,
            use_cla=False,
            cla_share_factor=2,
            rope_scaling=dict(factor=1.0, alpha=1000.0, type="dynamic"),
        ),
    ),
    "afmoe": (
        "afmoe",
        _GROUPS
        | dict(
            layer_types=["sliding_attention", "full_attention"],
            sliding_window=16,
            num_dense_layers=1,
            route_norm=True,
            route_scale=1.3,
            score_func="sigmoid",
            mup_enabled=True,
        ),
    ),
    "kimi_linear": (
        "kimi_linear",
        dict(
            linear_attn_config=dict(
                kda_layers=[1],
                full_attn_layers=[2],
                num_heads=2,
                head_dim=32,
                short_conv_kernel_size=3,
            ),
            moe_router_activation_func="sigmoid",
            moe_renormalize=True,
            num_expert_group=4,
            topk_group=2,
            q_lora_rank=None,
            model_max_length=256,
        ),
    ),
    "llama4": (
        "llama4",
        dict(
            text_config=COMMON
            | dict(
                model_type="llama4_text",
                attention_chunk_size=32,
                num_hidden_layers=4,
                interleave_moe_layer_step=2,
                intermediate_size_mlp=96,
                num_experts_per_tok=1,
                use_qk_norm=True,
            ),
        ),
    ),
    "nemotron_h": (
        "nemotron_h",
        dict(
            hybrid_override_pattern="M-*E",
            num_hidden_layers=4,
            mamba_num_heads=4,
            mamba_head_dim=16,
            mamba_proj_bias=False,
            ssm_state_size=16,
            conv_kernel=4,
            n_groups=2,
            mlp_hidden_act="relu2",
            mamba_hidden_act="silu",
            use_conv_bias=True,
            time_step_limit=[0.0, 100.0],
            time_step_min=0.001,
            time_step_max=0.1,
            moe_shared_expert_intermediate_size=40,
        ),
    ),
    "jamba": (
        "jamba",
        dict(
            attn_layer_offset=1,
            attn_layer_period=2,
            expert_layer_offset=1,
            expert_layer_period=2,
            mamba_d_conv=3,
            mamba_d_state=8,
            mamba_expand=2,
        ),
    ),
    "exaone_moe": (
        "exaone_moe",
        _GROUPS
        | dict(
            is_moe_layer=[False, True],
            layer_types=["full_attention", "full_attention"],
            sliding_window=16,
        ),
    ),
    "granitemoehybrid": (
        "granitemoehybrid",
        _SCALED
        | dict(
            layer_types=["mamba", "attention"],
            shared_intermediate_size=40,
            mamba_n_heads=4,
            mamba_d_head=32,
            mamba_proj_bias=False,
            mamba_d_state=16,
            mamba_d_conv=4,
            mamba_n_groups=1,
            mamba_conv_bias=True,
            position_embedding_type="rope",
        ),
    ),
    "mistral4": (
        "mistral4",
        _GROUPS | dict(rope_parameters=_YARN | dict(llama_4_scaling_beta=0.1)),
    ),
    "mimo_v2_flash": (
        "mimo_v2_flash",
        _GROUPS
        | dict(
            moe_layer_freq=[0, 1],
            hybrid_layer_pattern=[0, 1],
            layernorm_epsilon=1e-5,
            sliding_window=16,
            sliding_window_size=16,
            add_full_attention_sink_bias=False,
            add_swa_attention_sink_bias=True,
            swa_num_attention_heads=4,
            swa_num_key_value_heads=2,
            swa_head_dim=16,
            swa_v_head_dim=16,
            swa_rope_theta=10000.0,
            partial_rotary_factor=0.5,
        ),
    ),
    "bailing_moe_linear": (
        "bailing_moe_linear",
        _GROUPS
        | dict(
            layer_group_size=2,
            group_norm_size=1,
            score_function="sigmoid",
            moe_router_enable_expert_bias=True,
            partial_rotary_factor=0.5,
            use_qkv_bias=False,
            use_qk_norm=True,
            norm_head=False,
        ),
    ),
    "qwen2": ("qwen2", {}),
    "phi3": ("phi3", dict(rope_traditional=False)),
    "granite": ("granite", _SCALED),
    "glm4": ("glm4", dict(partial_rotary_factor=0.5)),
    "mellum": (
        "mellum",
        dict(
            sliding_window=16,
            layer_types=["full_attention"] * 2,
            rope_parameters={"full_attention": dict(rope_theta=10000.0)},
        ),
    ),
}


def tiny(name, seed=0):
    module, changes = CASES[name]
    models = importlib.import_module(f"mlx_lm.models.{module}")
    args = models.ModelArgs.from_dict(COMMON | {"model_type": module} | changes)
    return randomised(models.Model(args), seed, scale=0.1)


def logits(model, batch, seed=3):
    """Of a prompt and of three steps after it."""
    tokens = mx.random.randint(1, 90, (batch, 10), key=mx.random.key(seed))
    cache = make_prompt_cache(model)
    pieces = [tokens[:, :7], tokens[:, 7:8], tokens[:, 8:9], tokens[:, 9:]]
    out = [model(piece, cache=cache) for piece in pieces]
    return mx.concatenate(out, axis=1)


def assert_threads_may_share(model, count):
    """Threads that use one model at once get, each for a seed, what it gives alone."""
    expected = [logits(model, 1, seed) for seed in range(count)]
    mx.eval(expected)
    failures = []

    def work(seed):
        for _ in range(5):
            got = logits(model, 1, seed)
            mx.eval(got)
            if not mx.array_equal(got, expected[seed]).item():
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def relative(got, expected):
    return (mx.abs(got - expected).max() / mx.abs(expected).max()).item()


def result_of(model):
    return model._zmlx_patch_result


def quantise(model, bits=4, mode="affine", kind=nn.Module):
    nn.quantize(
        model,
        bits=bits,
        group_size=32 if mode == "affine" else None,
        mode=mode,
        class_predicate=lambda _, m: (
            hasattr(m, "to_quantized")
            and isinstance(m, kind)
            and m.weight.shape[-1] % 32 == 0
        ),
    )
    mx.eval(model.parameters())
