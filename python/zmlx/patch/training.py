# SPDX-License-Identifier: MIT
"""Fused modules for training: what stands between the projections.

Projections stay modules of their own, called as they are, so that a LoRALinear, a
quantised layer or a trainable weight in their place trains as it would in the stock
module. Everything fused has a backward of its own.
"""

import mlx.core as mx
import mlx.nn as nn

from zmlx.kernels.activations import gelu, relu2
from zmlx.kernels.moe import moe_combine
from zmlx.kernels.transformer import geglu2, swiglu2
from zmlx.patch import adapters
from zmlx.patch.binding import LINEARS, Refusal
from zmlx.patch.fused import Fused
from zmlx.patch.fused_layers import FusedLinear
from zmlx.patch.fused_moe import FusedMoe
from zmlx.patch.stock import columns, stock_class

_gelu = gelu()
_GATED = {
    "silu": swiglu2,
    "gelu_tanh": geglu2,
    "gelu": lambda gate, up: _gelu(gate) * up,
}
_PLAIN = {"relu2": relu2()}


def _module(binding, owner, path):
    found = binding.child(owner, path)
    if not isinstance(found, nn.Module):
        raise Refusal(f"it has no {path}")
    return found


class TrainedMlp(Fused):
    """A dense feed-forward layer over its own projections."""

    def __init__(self, row, options):
        super().__init__(row, options)
        self.descend = tuple(path for path in (row.gate, row.up, row.down) if path)

    def bind(self, binding, module):
        row = self.row
        known = _GATED if row.gate else _PLAIN
        if row.activation not in known:
            raise Refusal(f"its activation {row.activation} has no gradient here")
        parts = [_module(binding, module, path) for path in self.descend]
        return known[row.activation], parts

    def run(self, module, made, stock_call, x):
        activation, (*inner, down) = made
        return down(activation(*(part(x) for part in inner)))

    def width(self, module):
        return columns(module[self.row.up])


class TrainedExperts(Fused):
    """A SwitchGLU over its own projections, its gate in one pass."""

    rowwise = False
    descend = ("gate_proj", "up_proj", "down_proj")

    def bind(self, binding, module):
        activation = binding.child(module, "activation")
        if adapters.name_of(type(activation)) != "switch_layers.SwiGLU":
            raise Refusal(f"its activation is {type(activation).__name__}")
        return [_module(binding, module, path) for path in self.descend]

    def run(self, module, made, stock_call, x, indices):
        gate, up, down = made
        indices = mx.stop_gradient(indices)
        # As many as mlx_lm sorts: products then take whole runs of an expert.
        if indices.size < 64:
            x = mx.expand_dims(x, (-2, -3))
            y = swiglu2(gate(x, indices), up(x, indices))
            return down(y, indices).squeeze(-2)
        flat = indices.flatten()
        order = mx.argsort(flat)
        chosen = flat[order]
        rows = x.flatten(0, -2)[order // indices.shape[-1]][:, None]
        y = swiglu2(
            gate(rows, chosen, sorted_indices=True),
            up(rows, chosen, sorted_indices=True),
        )
        y = down(y, chosen, sorted_indices=True)[mx.argsort(order)]
        return y.reshape(*indices.shape, -1)

    def arguments(self, module, x):
        """For the probe: rows, and two experts for each."""
        experts = module["up_proj"].num_experts
        shape = (*x.shape[:-1], min(2, experts))
        return x, mx.arange(x.size // x.shape[-1] * shape[-1]).reshape(shape) % experts

    def width(self, module):
        return module["up_proj"].input_dims


class TrainedMoe(FusedMoe):
    """A block whose router, combination and experts have gradients; router and
    experts are called as the modules they are."""

    whole = False

    def __init__(self, row, options):
        super().__init__(row, options)
        self.descend += (row.experts,)

    def bind(self, binding, module):
        made = super().bind(binding, module)
        gate = made[2]
        plain = isinstance(gate.get("weight"), mx.array) and "scales" not in gate
        if not plain and adapters.name_of(stock_class(gate)) not in LINEARS:
            raise Refusal(f"its router is a {type(gate).__name__}")
        return made

    @staticmethod
    def combined(outputs, weights):
        return moe_combine(outputs, weights)


class TrainedLinear(FusedLinear):
    """A product; its weight may be trained too where it is not packed."""

    def run(self, module, made, stock_call, x):
        kind = module.get("scales", module["weight"]).dtype
        if x.dtype not in (kind, mx.float32):
            return stock_call(module, x)  # whose result has the wider type
        return super().run(module, made, stock_call, x)


class TrainedHead(TrainedLinear):
    """An embedding as the output layer."""

    method = "as_linear"

    def bind(self, binding, module):
        return binding.weight(module)


def experts(module, options):
    """The match of a SwitchGLU."""
    known = adapters.name_of(stock_class(module)) == "switch_layers.SwitchGLU"
    return TrainedExperts(None, options) if known else None


def gradient_error(module, fused, difference):
    """How far the gradient in the input is from stock's, relative to its largest
    value: the other half of the probe."""
    stock = getattr(stock_class(module), fused.method)
    made = fused.ready(module)
    x = mx.random.normal((1, 5, fused.width(module)), key=mx.random.key(3))
    _, *rest = fused.arguments(module, x)

    def total(call):
        def value(x):
            y = call(x)
            return (y * mx.cos(mx.arange(y.size).reshape(y.shape))).sum()

        return mx.grad(value)(x)

    return difference(
        total(lambda x: stock(module, x, *rest)),
        total(lambda x: fused.run(module, made, stock, x, *rest)),
    )


def matched(pattern, module, options):
    """What a pattern's match is in training."""
    row = adapters.MLP.get(adapters.name_of(stock_class(module)))
    if pattern == "moe_mlp":
        moe = adapters.MOE.get(adapters.name_of(stock_class(module)))
        return TrainedMoe(moe, options) if moe else experts(module, options)
    if row is None:
        return None
    gelu_pattern = row.activation.startswith("gelu")
    return (
        TrainedMlp(row, options) if gelu_pattern == (pattern == "geglu_mlp") else None
    )
