# SPDX-License-Identifier: MIT
"""What is known of mlx_lm's modules, as data: one row a class.

A class is named by its module under ``mlx_lm.models`` and its name; the row
belongs to the class that defines ``__call__``, so it also serves subclasses that
keep it. A wrong row does no harm: the probe refuses the module.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class At:
    """A value that is read from the module: a dotted path, and perhaps a function
    of what lies there."""

    path: str
    through: Callable | None = None


@dataclass(frozen=True)
class Router:
    """The fields of a RouterSpec, each a value or where it lies."""

    score: str | At = "softmax"
    top_k: int | At = At("top_k")
    select_on_logits: bool = False
    groups: int | At = 1
    chosen_groups: int | At = 1
    group_score: str = "top_two"
    renormalise: bool | At = False
    # The weight of a single expert is not divided by itself.
    renormalise_one: bool = True
    epsilon: float = 0.0
    epsilon_is_floor: bool = False
    scale: float | At = 1.0
    weight_on_input: bool = False
    jitter: float | At = 0.01


@dataclass(frozen=True)
class Moe:
    """A block: where its parts lie. Parts that are missing or None are left out."""

    router: Router
    gate: str = "gate"  # whose weight makes the logits
    bias: str | None = None  # added to the scores for the selection
    experts: str = "switch_mlp"
    shared: str | None = "shared_experts"  # an expert that sees every token
    shared_gate: str | None = None  # its weight is the sigmoid of this
    before: str | None = None  # experts work on this of the input,
    after: str | None = None  # and this takes their sum back


@dataclass(frozen=True)
class Mlp:
    """A dense layer: down(activation(gate x) * up x)."""

    activation: str
    gate: str | None = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


@dataclass(frozen=True)
class Norm:
    """RMS normalisation by weight + offset."""

    offset: float = 0.0
    weight: str = "weight"
    eps: str = "eps"


@dataclass(frozen=True)
class Block:
    """A layer h = x + attention(norm x), out = h + mlp(norm h)."""

    first_norm: str = "input_layernorm"
    attention: tuple = ("self_attn",)
    second_norm: str = "post_attention_layernorm"
    mlp: str = "mlp"


_QKV = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Entry:
    """A layer whose first norm goes to its mixer alone: what each mixer that it may
    have makes of it, and of nothing else."""

    norm: str = "input_layernorm"
    mixers: dict = field(default_factory=lambda: {"self_attn": _QKV})


def _in_gate(router, **changes):
    """The same router, its numbers in the module ``gate``."""
    return replace(
        router,
        top_k=At("gate.top_k"),
        renormalise=At("gate.norm_topk_prob"),
        renormalise_one=False,
        groups=At("gate.n_group"),
        chosen_groups=At("gate.topk_group"),
        scale=At("gate.routed_scaling_factor"),
        **changes,
    )


_SOFTMAX = Router(renormalise=At("norm_topk_prob"))
_CHOSEN = Router(score="chosen_softmax", top_k=At("num_experts_per_tok"))
_DEEPSEEK = Moe(_in_gate(Router(score="sigmoid")), bias="gate.e_score_correction_bias")
_TINY_EPSILON = replace(_DEEPSEEK, router=replace(_DEEPSEEK.router, epsilon=1e-20))
_GATED_SHARED = {"shared": "shared_expert", "shared_gate": "shared_expert_gate"}
_GRANITE = Moe(replace(_CHOSEN, top_k=At("router.top_k")), gate="router.layer")
_BAILING = Moe(
    _in_gate(
        Router(),
        score=At(
            "gate.score_function", lambda v: "sigmoid" if v == "sigmoid" else "softmax"
        ),
    ),
    gate="gate.gate_proj",
    bias="gate.expert_bias",
)


def _groups_of_greedy(gate):
    return gate.n_group if gate.topk_method == "group_limited_greedy" else 1


def _chosen_of_greedy(gate):
    return gate.topk_group if gate.topk_method == "group_limited_greedy" else 1


MOE = {
    "lfm2_moe.Lfm2MoeSparseMoeBlock": Moe(
        Router(
            score="sigmoid",
            renormalise=At("norm_topk_prob"),
            epsilon=1e-6,
            scale=At("routed_scaling_factor"),
        ),
        bias="expert_bias",
    ),
    "qwen3_moe.Qwen3MoeSparseMoeBlock": Moe(_SOFTMAX),
    "mellum.MellumSparseMoeBlock": Moe(_SOFTMAX),
    "olmoe.OlmoeSparseMoeBlock": Moe(_SOFTMAX),
    "qwen3_next.Qwen3NextSparseMoeBlock": Moe(_SOFTMAX, **_GATED_SHARED),
    "qwen2_moe.Qwen2MoeSparseMoeBlock": Moe(Router(), **_GATED_SHARED),
    "gpt_oss.MLPBlock": Moe(_CHOSEN, gate="router", experts="experts"),
    "mixtral.MixtralSparseMoeBlock": Moe(_CHOSEN),
    "jamba.JambaSparseMoeBlock": Moe(_CHOSEN, gate="router"),
    "granitemoe.GraniteMoeMoE": _GRANITE,
    "granitemoehybrid.GraniteMoeHybridMoE": _GRANITE,
    "phimoe.PhiMoESparseMoeBlock": Moe(
        Router(score="sparse_mixer", jitter=At("jitter_eps"))
    ),
    "deepseek.DeepseekMoE": Moe(Router(top_k=At("gate.top_k"))),
    "deepseek_v2.DeepseekV2MoE": Moe(
        Router(
            top_k=At("gate.top_k"),
            groups=At("gate", _groups_of_greedy),
            chosen_groups=At("gate", _chosen_of_greedy),
            group_score="largest",
            scale=At("gate.routed_scaling_factor"),
        )
    ),
    "deepseek_v3.DeepseekV3MoE": _DEEPSEEK,
    "deepseek_v32.DeepseekV32MoE": _DEEPSEEK,
    "glm4_moe.MoE": _DEEPSEEK,
    "dots1.Dots1MoE": replace(_DEEPSEEK, experts="experts"),
    "glm4_moe_lite.Glm4MoeLiteMoE": _TINY_EPSILON,
    "exaone_moe.MoE": _TINY_EPSILON,
    "mimo_v2_flash.MoE": _TINY_EPSILON,
    "nemotron_h.NemotronHMoE": replace(
        _TINY_EPSILON, before="fc1_latent_proj", after="fc2_latent_proj"
    ),
    "ernie4_5_moe.Ernie4_5_MoeMLP": Moe(
        Router(
            score=At("gate_act", lambda act: type(act).__name__.lower()),
            top_k=At("k"),
            renormalise=True,
            epsilon=1e-12,
            epsilon_is_floor=True,
        )
    ),
    "bailing_moe.BailingMoeSparseMoeBlock": replace(
        _BAILING, router=replace(_BAILING.router, epsilon=1e-20)
    ),
    "bailing_moe_linear.SparseMoeBlock": _BAILING,
    "minimax.MiniMaxSparseMoeBlock": Moe(
        Router(
            score="sigmoid",
            top_k=At("num_experts_per_tok"),
            renormalise=True,
            epsilon=1e-20,
        ),
        bias="e_score_correction_bias",
    ),
    "hunyuan.MoeBlock": Moe(Router(), gate="gate.wg", shared="shared_mlp"),
    "afmoe.AfmoeMoE": Moe(
        Router(
            score=At("score_func", lambda v: v if v == "sigmoid" else "softmax"),
            top_k=At("num_experts_per_tok"),
            renormalise=At("route_norm"),
            renormalise_one=False,
            groups=At("n_group"),
            chosen_groups=At("topk_group"),
            scale=At("route_scale"),
        ),
        gate="router.gate",
        bias="expert_bias",
        experts="experts",
    ),
    "kimi_linear.KimiSparseMoE": Moe(
        Router(
            score=At("args.moe_router_activation_func"),
            top_k=At("args.num_experts_per_token"),
            renormalise=At("args.moe_renormalize"),
            renormalise_one=False,
            epsilon=1e-20,
            groups=At("args.num_expert_group"),
            chosen_groups=At("args.topk_group"),
            scale=At("args.routed_scaling_factor"),
        ),
        bias="e_score_correction_bias",
    ),
    "mistral4.Mistral4MoE": Moe(
        Router(
            top_k=At("num_experts_per_tok"),
            renormalise=At("args.norm_topk_prob"),
            epsilon=1e-20,
            groups=At("args.n_group"),
            chosen_groups=At("args.topk_group"),
            scale=At("args.routed_scaling_factor"),
        )
    ),
    "llama4.MoE": Moe(
        Router(score="sigmoid", select_on_logits=True, weight_on_input=True),
        gate="router",
        experts="experts",
        shared="shared_expert",
    ),
}

_SILU, _GELU, _GELU_TANH = Mlp("silu"), Mlp("gelu"), Mlp("gelu_tanh")
_RELU2 = Mlp("relu2", gate=None)
_NUMBERED = Mlp("silu", gate="w1", up="w3", down="w2")

_SILU_CLASSES = [
    "Klear.KlearMLP",
    "afm7.MLP",
    "afmoe.MLP",
    "baichuan_m1.MLP",
    "bailing_hybrid.MLP",
    "bailing_moe.BailingMoeMLP",
    "bailing_moe_linear.MLP",
    "bailing_moe_v3.BailingMLP",
    "cohere.MLP",
    "cohere2.MLP",
    "deepseek.DeepseekMLP",
    "deepseek_v2.DeepseekV2MLP",
    "deepseek_v3.DeepseekV3MLP",
    "deepseek_v32.DeepseekV32MLP",
    "dots1.Dots1MLP",
    "ernie4_5.MLP",
    "ernie4_5_moe.Ernie4_5_MLP",
    "exaone4.MLP",
    "exaone_moe.MLP",
    "glm4_moe.MLP",
    "glm4_moe_lite.Glm4MoeLiteMLP",
    "granite.MLP",
    "granitemoehybrid.GraniteMoeHybridMLP",
    "helium.HeliumMLP",
    "hunyuan.MLP",
    "hunyuan_v1_dense.MLP",
    "internlm3.MLP",
    "jamba.JambaMLP",
    "kimi_linear.KimiMLP",
    "laguna.MLP",
    "lfm2_moe.MLP",
    "llama.MLP",
    "llama4.MLP",
    "llama4_text.MLP",
    "longcat_flash.LongcatFlashMLP",
    "mimo.MLP",
    "mimo_v2_flash.MLP",
    "minicpm.MLP",
    "minicpm3.MLP",
    "ministral3.MLP",
    "muse_glimmer.MLP",
    "nanbeige.MLP",
    "olmo2.MLP",
    "olmo3.Olmo3MLP",
    "olmo_hybrid.MLP",
    "plamo.MLP",
    "qwen2.MLP",
    "qwen2_moe.MLP",
    "qwen3.MLP",
    "qwen3_moe.MLP",
    "qwen3_next.Qwen3NextMLP",
    "seed_oss.MLP",
    "stablelm.MLP",
    "telechat3.Telechat3MLP",
    "youtu_llm.YoutuLLMMLP",
]

MLP = {
    **dict.fromkeys(_SILU_CLASSES, _SILU),
    "lfm2.MLP": _NUMBERED,
    "internlm2.MLP": _NUMBERED,
    "gemma.MLP": _GELU,
    "spark2_5.MLP": _GELU,
    "gemma2.MLP": _GELU_TANH,
    "gemma3_text.MLP": _GELU_TANH,
    "gemma4_text.MLP": _GELU_TANH,
    "recurrent_gemma.MLPBlock": _GELU_TANH,
    "nemotron_h.NemotronHMLP": _RELU2,
    "nemotron.MLP": _RELU2,
}

NORMS = {
    "mlx.nn.layers.normalization.RMSNorm": Norm(),
    "step3p5.ZeroCenteredRMSNorm": Norm(),
    **dict.fromkeys(
        [
            "gemma.RMSNorm",
            "gemma2.RMSNorm",
            "gemma3_text.RMSNorm",
            "recurrent_gemma.RMSNorm",
            "muse_glimmer.CenteredRMSNorm",
        ],
        Norm(offset=1.0),
    ),
}

BLOCKS = {
    **dict.fromkeys(
        ["llama.TransformerBlock", "qwen2.TransformerBlock", "qwen3.TransformerBlock"],
        Block(),
    ),
    "qwen3_moe.Qwen3MoeDecoderLayer": Block(),
    "qwen3_next.Qwen3NextDecoderLayer": Block(attention=("linear_attn", "self_attn")),
    **dict.fromkeys(
        ["lfm2.Lfm2DecoderLayer", "lfm2_moe.Lfm2DecoderLayer"],
        Block(
            first_norm="operator_norm",
            attention=("self_attn", "conv"),
            second_norm="ffn_norm",
            mlp="feed_forward",
        ),
    ),
}


_CONVOLVED = Entry("operator_norm", {"self_attn": _QKV, "conv": ("in_proj",)})

ENTRIES = {
    **dict.fromkeys(
        [
            "deepseek.DeepseekDecoderLayer",
            "dots1.Dots1DecoderLayer",
            "ernie4_5.DecoderLayer",
            "ernie4_5_moe.Ernie4_5_DecoderLayer",
            "exaone_moe.DecoderLayer",
            "gemma.TransformerBlock",
            "gemma2.TransformerBlock",
            "gemma3_text.TransformerBlock",
            "glm.GLMBlock",
            "glm4.Glm4DecoderLayer",
            "glm4_moe.DecoderLayer",
            "gpt_oss.TransformerBlock",
            "granite.TransformerBlock",
            "granitemoe.GraniteMoeDecoderLayer",
            "granitemoehybrid.GraniteMoeHybridLayer",
            "helium.HeliumDecoderLayer",
            "hunyuan_v1_dense.TransformerBlock",
            "internlm3.TransformerBlock",
            "jamba.JambaDecoderLayer",
            "llama.TransformerBlock",
            "mellum.MellumDecoderLayer",
            "mimo.TransformerBlock",
            "mimo_v2_flash.DecoderLayer",
            "minicpm.DecoderLayer",
            "mixtral.MixtralDecoderLayer",
            "olmoe.TransformerBlock",
            "qwen2.TransformerBlock",
            "qwen2_moe.Qwen2MoeDecoderLayer",
            "qwen3.TransformerBlock",
            "qwen3_moe.Qwen3MoeDecoderLayer",
            "seed_oss.TransformerBlock",
            "telechat3.Telechat3DecoderLayer",
        ],
        Entry(),
    ),
    "lfm2.Lfm2DecoderLayer": _CONVOLVED,
    "lfm2_moe.Lfm2DecoderLayer": _CONVOLVED,
    "phi3.TransformerBlock": Entry(mixers={"self_attn": ("qkv_proj",)}),
    "qwen3_next.Qwen3NextDecoderLayer": Entry(
        mixers={"self_attn": _QKV, "linear_attn": ("in_proj_qkvz", "in_proj_ba")}
    ),
}


@dataclass(frozen=True)
class Shape:
    """The activation of a stack of experts; numbers may lie in the module."""

    name: str
    numbers: dict = field(default_factory=dict)


# By the class of the experts' activation.
ACTIVATIONS = {
    "switch_layers.SwiGLU": Shape("silu"),
    "activations.SwigluOAI": Shape(
        "clamped_swiglu", {"alpha": At("_alpha"), "limit": At("_limit")}
    ),
    "gemma4_text.GeGLU": Shape("gelu_tanh"),
    "mlx.nn.layers.activations.ReLU2": Shape("relu2"),
    "mlx.nn.layers.activations.SiLU": Shape("silu"),
}


def name_of(cls, method="__call__"):
    """The class that defines a method for cls, as rows name it."""
    for base in cls.__mro__:
        if method in vars(base):
            return f"{base.__module__}.{base.__qualname__}".removeprefix(
                "mlx_lm.models."
            )
    return ""
