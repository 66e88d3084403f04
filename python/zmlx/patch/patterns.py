# SPDX-License-Identifier: MIT
"""The patterns: which modules each may fuse, and how."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from zmlx.patch import adapters, fused_qkv
from zmlx.patch import fused_layers as layers
from zmlx.patch.binding import Refusal
from zmlx.patch.fused_moe import FusedMoe
from zmlx.patch.stock import stock_class


@dataclass(frozen=True)
class Options:
    """What patterns must know of the call of patch()."""

    on_gpu: bool = False
    max_moe_tokens: int | None = None
    #: Modules must have gradients in all that they read.
    training: bool = False


@dataclass(frozen=True)
class Pattern:
    name: str
    #: Fused for a module, None where it is not of the kind; raises Refusal.
    match: Callable | None = None
    #: Instead, for the whole model: the module that has install() and remove().
    whole: str | None = None
    #: Whether it can help on a CPU, a GPU.
    cpu: bool = True
    gpu: bool = False


def _key(module, method="__call__"):
    return adapters.name_of(stock_class(module), method)


def _training():
    return importlib.import_module("zmlx.patch.training")


def _trained(pattern, module, options):
    return _training().matched(pattern, module, options)


def _no_adapter(module):
    return Refusal(f"no adapter for {_key(module)}")


def _moe(module, options):
    if options.training:
        return _trained("moe_mlp", module, options)
    row = adapters.MOE.get(_key(module))
    if row is not None:
        return FusedMoe(row, options)
    children = [module.get("switch_mlp"), module.get("experts")]
    if any(_is_experts(child) for child in children):
        raise _no_adapter(module)
    return None


def _is_experts(child):
    return isinstance(child, list) or (
        isinstance(child, nn.Module)
        and _key(child) in ("switch_layers.SwitchGLU", "switch_layers.SwitchMLP")
    )


def _mlp(of_pattern):
    def match(module, options):
        if options.training:
            return _trained(of_pattern, module, options)
        row = adapters.MLP.get(_key(module))
        if row is not None:
            ours = row.activation.startswith("gelu") == (of_pattern == "geglu_mlp")
            return layers.FusedMlp(row, options) if ours else None
        looks = {"gate_proj", "up_proj", "down_proj"} <= module.keys()
        if looks and of_pattern == "swiglu_mlp" and not _is_experts(module):
            raise _no_adapter(module)
        return None

    return match


def _of_class(classes, make):
    """Modules of these classes, or their subclasses that keep __call__."""

    def match(module, options):
        return make(None, options) if _key(module) in classes else None

    return match


def _linear(packed):
    name, embedding = (
        ("quantized.QuantizedLinear", "quantized.QuantizedEmbedding")
        if packed
        else ("linear.Linear", "embedding.Embedding")
    )

    def match(module, options):
        if _key(module) == f"mlx.nn.layers.{name}":
            if options.training:
                return _training().TrainedLinear(None, options)
            return layers.FusedLinear(None, options)
        if _key(module, "as_linear") == f"mlx.nn.layers.{embedding}":
            if options.training:
                return _training().TrainedHead(None, options)
            return layers.FusedHead(None, options)
        return None

    return match


def _rmsnorm(module, options):
    row = adapters.NORMS.get(_key(module))
    return layers.FusedRmsNorm(row, options) if row else None


def _residual_norm(module, options):
    row = adapters.BLOCKS.get(_key(module))
    return layers.FusedBlock(row, options) if row else None


# In the order of patching a module: whole blocks before their parts.
PATTERNS = (
    Pattern("moe_mlp", _moe, gpu=True),
    Pattern("swiglu_mlp", _mlp("swiglu_mlp"), gpu=True),
    Pattern("geglu_mlp", _mlp("geglu_mlp"), gpu=True),
    Pattern("quantized_linear", _linear(packed=True)),
    Pattern("linear", _linear(packed=False)),
    Pattern("rmsnorm", _rmsnorm),
    Pattern(
        "layernorm",
        _of_class({"mlx.nn.layers.normalization.LayerNorm"}, layers.FusedLayerNorm),
    ),
    Pattern(
        "softmax",
        _of_class({"mlx.nn.layers.activations.Softmax"}, layers.FusedSoftmax),
    ),
    Pattern("norm_qkv", fused_qkv.match, cpu=False),
    Pattern("residual_norm", _residual_norm, cpu=False),
    Pattern("decode_step", whole="zmlx.decode", gpu=True),
)
BY_NAME = {pattern.name: pattern for pattern in PATTERNS}

FUSED_ACTIVATIONS = ["swiglu_mlp", "geglu_mlp", "moe_mlp"]
TRAINING_RECOMMENDED = [
    "moe_mlp",
    "swiglu_mlp",
    "geglu_mlp",
    "rmsnorm",
    "layernorm",
    "residual_norm",
    "quantized_linear",
    "linear",
]
ALL_PATTERNS = [pattern.name for pattern in PATTERNS]


def on_gpu():
    return mx.default_device() == mx.Device(mx.gpu)


def defaults():
    """The patterns that can help on the default device."""
    gpu = on_gpu()
    return [p.name for p in PATTERNS if (p.gpu if gpu else p.cpu)]


def training_defaults():
    """Those of TRAINING_RECOMMENDED that the default device has."""
    missing = {"linear", "quantized_linear"} if on_gpu() else set()
    return [name for name in TRAINING_RECOMMENDED if name not in missing]


def whole_model(pattern):
    return importlib.import_module(pattern.whole)
