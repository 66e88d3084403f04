# SPDX-License-Identifier: MIT
"""How near the routers of a stock model come to a choice of other experts."""

import math

from zmlx import _core
from zmlx.patch import adapters
from zmlx.patch.binding import Binding, Refusal
from zmlx.patch.fused_moe import router_logits, router_spec
from zmlx.patch.stock import stock_copy


def _keeping(gate, seen):
    """The class of a gate that keeps what logits its inputs make."""
    stock, plain = type(gate), stock_copy(gate)

    def call(self, x, *args, **kwargs):
        seen.append(router_logits(plain, x))
        return stock.__call__(self, x, *args, **kwargs)

    return type(stock.__name__, (stock,), {"__call__": call})


class RouterWatch:
    """Sees the logits of a stock model's routers while it is entered: of those that
    the adapters know, so that a tie of another is none."""

    def __init__(self, model):
        self._routers = []  # specification, bias, gate, logits seen
        self._stock = []
        for _, block in model.named_modules():
            row = adapters.MOE.get(adapters.name_of(type(block)))
            if row is None:
                continue
            binding = Binding()
            gate = binding.child(block, row.gate)
            bias = binding.child(block, row.bias) if row.bias else None
            try:
                spec = router_spec(binding, row.router, block)
            except Refusal:
                continue
            if gate is not None:
                self._routers.append((spec, bias, gate, []))

    def __enter__(self):
        for _, _, gate, seen in self._routers:
            self._stock.append((gate, type(gate)))
            gate.__class__ = _keeping(gate, seen)
        return self

    def __exit__(self, *_):
        while self._stock:
            gate, stock = self._stock.pop()
            gate.__class__ = stock

    def least_gap(self):
        """Of all rows since the last call; infinite without."""
        least = math.inf
        for spec, bias, _, seen in self._routers:
            for logits in seen:
                least = min(least, _core.least_router_gap(spec, logits, bias))
            seen.clear()
        return least
