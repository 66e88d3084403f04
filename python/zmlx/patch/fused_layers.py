# SPDX-License-Identifier: MIT
"""Fused layers, dense feed-forward blocks, norms and sums before a norm."""

import mlx.core as mx

from zmlx import _core
from zmlx.patch import adapters
from zmlx.patch.binding import Refusal
from zmlx.patch.fused import Fused
from zmlx.patch.stock import columns, stock_class, with_rows


class FusedLinear(Fused):
    """A product with a weight, quantised or not."""

    def bind(self, binding, module):
        return binding.projection(module, "the layer")

    def with_outputs(self, module, step):
        return with_rows(module, step)

    def run(self, module, made, stock_call, x):
        return _core.linear(x, made)

    def width(self, module):
        return columns(module)


class FusedHead(FusedLinear):
    """An embedding that is used as the output layer."""

    method = "as_linear"

    def bind(self, binding, module):
        return binding.weight(module)


class FusedMlp(Fused):
    """A dense feed-forward layer."""

    def bind(self, binding, module):
        row = self.row

        def part(path, what):
            return binding.projection(binding.child(module, path), what)

        if self.options.on_gpu and "scales" not in binding.child(module, row.up):
            raise Refusal("its weights must be quantised on a GPU")
        return _core.Mlp(
            part(row.gate, "gate") if row.gate else None,
            part(row.up, "up"),
            part(row.down, "down"),
            row.activation,
        )

    def with_outputs(self, module, step):
        return with_rows(module, step, self.row.down)

    def run(self, module, made, stock_call, x):
        return _core.gated_mlp(x, made)

    def width(self, module):
        return columns(module[self.row.up])


class FusedRmsNorm(Fused):
    def bind(self, binding, module):
        weight = binding.item(module, self.row.weight)
        if weight is None:
            raise Refusal("it has no weight")
        return weight, float(binding.item(vars(module), self.row.eps))

    def run(self, module, made, stock_call, x):
        weight, eps = made
        if x.dtype != weight.dtype and x.dtype != mx.float32:
            return stock_call(module, x)  # whose result has the wider type
        if self.row.offset:
            # Here, not in bind(): threads must not share what is not evaluated.
            weight = weight + self.row.offset
        return _core.rms_norm(x, weight, eps)

    def width(self, module):
        return module[self.row.weight].shape[-1]


class FusedLayerNorm(Fused):
    def bind(self, binding, module):
        weight = binding.item(module, "weight")
        bias = binding.item(module, "bias")
        return weight, bias, float(binding.item(vars(module), "eps"))

    def run(self, module, made, stock_call, x):
        weight, bias, eps = made
        if weight is not None and x.dtype not in (weight.dtype, mx.float32):
            return stock_call(module, x)
        return _core.layer_norm(x, weight, bias, eps)

    def width(self, module):
        return vars(module)["dims"]


class FusedSoftmax(Fused):
    def bind(self, binding, module):
        return ()

    def run(self, module, made, stock_call, x):
        return _core.softmax(x)

    def width(self, module):
        return 33


class FusedBlock(Fused):
    """A decoder layer: the second norm together with the sum before it."""

    rowwise = False

    def __init__(self, row, options):
        super().__init__(row, options)
        self.descend = (row.first_norm, *row.attention, row.mlp)

    def bind(self, binding, module):
        row = self.row
        first = binding.child(module, row.first_norm)
        attention = next(
            (module[name] for name in row.attention if name in module), None
        )
        for name in row.attention:
            binding.item(module, name)
        norm = binding.child(module, row.second_norm)
        mlp = binding.child(module, row.mlp)
        if first is None or attention is None or norm is None or mlp is None:
            raise Refusal("a part of it is missing")
        if adapters.name_of(stock_class(norm)) not in _PLAIN_NORMS:
            raise Refusal(f"its second norm is a {type(norm).__name__}")
        weight = binding.item(norm, "weight")
        return first, attention, weight, float(binding.item(vars(norm), "eps")), mlp

    def run(self, module, made, stock_call, x, mask=None, cache=None):
        first, attention, weight, eps, mlp = made
        r = attention(first(x), mask=mask, cache=cache)
        if r.dtype != x.dtype or x.dtype not in (weight.dtype, mx.float32):
            return _rest_of_block(module, self.row, x, r)
        normed, h = _core.add_rms_norm(x, r, weight, eps)
        return h + mlp(normed)

    def width(self, module):
        return module[self.row.second_norm]["weight"].shape[-1]


def _rest_of_block(module, row, x, r):
    h = x + r
    return h + module[row.mlp](module[row.second_norm](h))


_PLAIN_NORMS = {"mlx.nn.layers.normalization.RMSNorm"}
