# SPDX-License-Identifier: MIT
"""A fused mixture-of-experts block."""

import mlx.core as mx

from zmlx import _core
from zmlx.patch import adapters
from zmlx.patch.binding import LINEARS, Binding, Refusal
from zmlx.patch.fused import Fused
from zmlx.patch.stock import changed, columns, stock_class, with_rows


def router_spec(binding, router, module):
    """An adapters.Router of a block as C++ takes it."""
    values = {
        name: binding.value(module, getattr(router, name))
        for name in (
            "score",
            "top_k",
            "select_on_logits",
            "groups",
            "chosen_groups",
            "group_score",
            "renormalise",
            "epsilon",
            "epsilon_is_floor",
            "scale",
            "weight_on_input",
            "jitter",
        )
    }
    # A model without groups may say so with None or 0.
    values["groups"] = values["groups"] or 1
    if values["groups"] == 1:
        values["chosen_groups"] = 1
    if values["scale"] is None:
        values["scale"] = 1.0
    if values["top_k"] == 1 and not router.renormalise_one:
        values["renormalise"] = False
    values["renormalise"] = bool(values["renormalise"])
    try:
        return _core.RouterSpec(**values)
    except (TypeError, ValueError) as error:
        raise Refusal(f"its router is not known: {error}") from None


class FusedMoe(Fused):
    """A block: router and experts in one, shared experts by their own modules."""

    #: Or router and experts are called as the modules they are, with the choice
    #: of experts between them as one kernel.
    whole = True

    def __init__(self, row, options):
        super().__init__(row, options)
        paths = (row.shared, row.shared_gate, row.before, row.after)
        self.descend = tuple(path for path in paths if path)

    def bind(self, binding, module):
        row = self.row
        if binding.item(vars(module), "sharding_group") is not None:
            raise Refusal("it is sharded")
        gate = binding.child(module, row.gate)
        bias = binding.child(module, row.bias) if row.bias else None
        spec = router_spec(binding, row.router, module)
        extras = tuple(
            binding.child(module, path) if path else None
            for path in (row.shared, row.shared_gate, row.before, row.after)
        )
        experts = binding.child(module, row.experts)
        if experts is None:
            raise Refusal("it has no experts")
        if self.whole:
            try:
                router = binding.projection(gate, "router")
                parts = _experts(binding, experts)
                return _core.MoeBlock(spec, router, bias, parts), extras
            except Refusal:
                if not self.options.on_gpu:
                    raise
        if row.router.weight_on_input:
            raise Refusal("its router's weights multiply the input")
        if row.gate not in self.descend:
            self.descend += (row.gate,)
        return spec, bias, gate, experts, extras

    def run(self, module, made, stock_call, x):
        limit = self.options.max_moe_tokens
        if limit is not None and x.size > limit * x.shape[-1]:
            return stock_call(module, x)
        shared, shared_gate, before, after = made[-1]
        rows = x if before is None else before(x)
        if len(made) == 2:
            y = _core.moe_mlp(rows, made[0])
        else:
            spec, bias, gate, experts, _ = made
            weights, chosen = _core.route(router_logits(gate, x), spec, bias)
            y = self.combined(experts(rows, chosen), weights).astype(x.dtype)
        if after is not None:
            y = after(y)
        if shared is None:
            return y
        extra = shared(x)
        if shared_gate is not None:
            extra = mx.sigmoid(shared_gate(x)) * extra
        return y + extra

    def with_outputs(self, module, step):
        row, child = self.row, Binding().child
        added = [path for path in (row.shared, row.after) if path]
        if not self.whole or any(child(module, path) is not None for path in added):
            return None
        experts = child(module, row.experts)
        last = "fc2" if "fc1" in experts else "down_proj"
        return with_rows(module, step, f"{row.experts}.{last}")

    def routing(self, module, x):
        row = self.row
        parts = (
            (row.experts, _tags),
            (row.shared, mx.zeros_like),
            (row.before, lambda x: x),
            (row.after, lambda x: x),
        )
        stock = module
        for path, part in parts:
            if path:
                without = changed(stock, path, lambda _, part=part: part)
                stock = stock if without is None else without
        binding = Binding()
        gate = binding.child(module, row.gate)
        logits = _core.linear(x, binding.projection(gate, "router"))
        bias = binding.child(module, row.bias) if row.bias else None
        spec = router_spec(binding, row.router, module)
        weights, chosen = _core.route(logits, spec, bias)
        return stock(x), self.combined(_tags(x, chosen), weights)

    @staticmethod
    def combined(outputs, weights):
        return (outputs * weights[..., None]).sum(-2)

    def width(self, module):
        gate = Binding().child(module, self.row.gate)
        return columns(gate)


def _tags(x, chosen, *_, **__):
    """In place of experts: where each one's weight will stand in the output."""
    width = x.shape[-1]
    places = mx.arange(width) == (chosen % width)[..., None]
    rows = x if x.ndim == chosen.ndim else mx.squeeze(x, -2)
    return mx.where(places, rows[..., None, :1], 0)


def router_logits(gate, x):
    """Also of a gate whose own call chooses experts, too."""
    known = adapters.name_of(stock_class(gate)) in LINEARS
    return gate(x) if known else x @ gate["weight"].T


def _experts(binding, experts):
    """A SwitchGLU or SwitchMLP as C++ takes it."""
    activation = binding.child(experts, "activation")
    shape = adapters.ACTIVATIONS.get(adapters.name_of(type(activation)))
    if shape is None:
        name = type(activation).__name__
        raise Refusal(f"its experts' activation {name} is not known")
    numbers = {
        name: binding.value(activation, at) for name, at in shape.numbers.items()
    }

    def part(path, what):
        return binding.projection(binding.child(experts, path), what)

    try:
        if "fc1" in experts:
            parts = (None, part("fc1", "up"), part("fc2", "down"))
        else:
            parts = tuple(part(f"{name}_proj", name) for name in ("gate", "up", "down"))
        return _core.Mlp(*parts, shape.name, **numbers)
    except ValueError as error:
        raise Refusal(str(error)) from None
