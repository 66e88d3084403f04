# SPDX-License-Identifier: MIT
"""Fused modules: a stock module whose class is swapped for a subclass.

Parameters, tree and children stay the module's own. A call reads them: while they
are those that were bound it goes to C++, once they are others of the same kinds it
binds those, and where a child is of another kind (a LoRALinear, say) it is the
stock call.
"""

import functools

import mlx.core as mx
from mlx.utils import tree_flatten

from zmlx import _core
from zmlx.patch import adapters

_KEY = "_zmlx_fused"
_STOCK = "_zmlx_unfused"


class Refusal(Exception):
    """Why a module stays stock."""


def fused_of(module):
    """What a patched module is fused by, or None."""
    return vars(module).get(_KEY) if hasattr(type(module), _STOCK) else None


def stock_class(module):
    return getattr(type(module), _STOCK, type(module))


def _on_rows(stock_call):
    """A stock call of a module whose weights may be packed. They are unpacked
    first and not by MLX as it computes, which two threads must not do at once."""

    @functools.wraps(stock_call)
    def call(self, *args, **kwargs):
        fused = vars(self).get(_KEY)
        if fused is not None and fused.packed:
            for _, array in tree_flatten(self.parameters()):
                _core.unpack(array)
        return stock_call(self, *args, **kwargs)

    return call


@functools.cache
def _fused_class(stock, method):
    stock_call = _on_rows(getattr(stock, method))

    @functools.wraps(stock_call)
    def call(self, *args, **kwargs):
        fused = vars(self).get(_KEY)
        state = fused.ready(self) if fused is not None else None
        if state is None:
            return stock_call(self, *args, **kwargs)
        return fused.run(self, state, stock_call, *args, **kwargs)

    # An embedding has another call beside the one that is fused.
    calls = {"__call__": _on_rows(stock.__call__), method: call}
    # Name and module stay: models and tools tell modules by them.
    made = type(stock.__name__, (stock,), {**calls, _STOCK: stock})
    made.__module__ = stock.__module__
    made.__qualname__ = stock.__qualname__
    return made


def install(module, fused):
    # Not through nn.Module's own __setattr__, which keeps no dicts.
    vars(module)[_KEY] = fused
    module.__class__ = _fused_class(stock_class(module), fused.method)


def remove(module):
    """Returns whether the module was fused."""
    if not hasattr(type(module), _STOCK):
        return False
    module.__class__ = stock_class(module)
    vars(module).pop(_KEY, None)
    return True


class Binding:
    """Collects what a fused call reads, and what must be there still for it to
    be valid: (mapping, key, value)."""

    def __init__(self):
        self.watched = []

    def item(self, mapping, key, default=None):
        value = mapping.get(key, default)
        self.watched.append((mapping, key, value))
        return value

    def child(self, module, path):
        """What lies at a dotted path, or None."""
        for key in path.split("."):
            if module is None:
                return None
            own = isinstance(module, dict) and key in module
            module = self.item(module if own else vars(module), key)
        return module

    def value(self, module, given):
        """A value, or what an At finds."""
        if not isinstance(given, adapters.At):
            return given
        found = self.child(module, given.path)
        return given.through(found) if given.through else found

    def projection(self, module, what):
        """A linear layer, or anything that has its weight, as C++ takes it."""
        if module is None:
            raise Refusal(f"it has no {what}")
        cls = stock_class(module)
        known = adapters.name_of(cls)
        plain = known in _LINEARS or (
            isinstance(module.get("weight"), mx.array) and what == "router"
        )
        if not plain:
            raise Refusal(f"{what} must be a linear layer, got {cls.__name__}")
        if self.item(module, "global_scale") is not None:
            raise Refusal(f"{what} has a global scale")
        return self.weight(module, self.item(module, "bias"))

    def weight(self, module, bias=None):
        """A module's weight, quantised or not, and a bias."""
        settings = vars(module)
        mode = self.item(settings, "mode") or "affine"
        group_size, bits = _PACKINGS.get(mode, (0, 0))
        group_size = self.item(settings, "group_size") or group_size
        bits = self.item(settings, "bits") or bits
        try:
            return _core.Projection(
                self.item(module, "weight"),
                self.item(module, "scales"),
                self.item(module, "biases"),
                bits,
                group_size,
                mode,
                bias,
            )
        except ValueError as error:
            raise Refusal(str(error).split("] ", 1)[-1].rstrip(".")) from None


# Group size and bits where a module, as mlx_lm's stacks do, leaves them to MLX.
_PACKINGS = {"affine": (64, 4), "mxfp4": (32, 4), "nvfp4": (16, 4), "mxfp8": (32, 8)}
_LINEARS = {
    "mlx.nn.layers.linear.Linear",
    "mlx.nn.layers.quantized.QuantizedLinear",
    "switch_layers.SwitchLinear",
    "switch_layers.QuantizedSwitchLinear",
}


class Fused:
    """How a module of one class is run. ``row`` is its adapter."""

    method = "__call__"
    descend = ()  # paths of children that the call still goes through
    rowwise = True  # a row of the output depends on that row of the input alone
    pattern = None  # the name of the one that made it
    packed = False  # whether zmlx.decode keeps its weights in blocks

    def __init__(self, row, options):
        self.row = row
        self.options = options
        self.state = None  # (watched, what bind() made): one assignment

    def bind(self, binding, module):
        """What run() needs; raises Refusal."""
        raise NotImplementedError

    def run(self, module, made, stock_call, x):
        raise NotImplementedError

    def width(self, module):
        """Of the last axis of the input, for the probe."""
        raise NotImplementedError

    def arguments(self, module, x):
        """What the probe calls with."""
        return (x,)

    def with_outputs(self, module, step):
        """A stock module of the same weights that gives every step-th output, or
        None where that is no less work."""
        return None

    def routing(self, module, x):
        """(stock, ours): each expert's weight for a token, a column an expert, or
        None where the module has no router."""
        return None

    def ready(self, module):
        """What bind() made, bound again where the module has changed; None: it
        cannot be."""
        state = self.state
        if state is not None:
            for mapping, key, value in state[0]:
                if mapping.get(key) is not value:
                    break
            else:
                return state[1]
            self.state = None  # keeps no arrays alive that the module has not
        try:
            return self.rebind(module)
        except Refusal:
            return None

    def rebind(self, module):
        binding = Binding()
        made = self.bind(binding, module)
        self.state = (binding.watched, made)
        return made

    # What is bound belongs to this module: a copy binds its own arrays.
    def __getstate__(self):
        return vars(self) | {"state": None}


def _stock_copy(module):
    """A stock module with the same children and settings."""
    stock = stock_class(module)
    copy = stock.__new__(stock)
    dict.update(copy, module)
    vars(copy).update({k: v for k, v in vars(module).items() if k != _KEY})
    return copy


def _changed(module, path, change):
    """A stock module like this one, in which change() has replaced what lies at a
    dotted path; None where there is nothing."""
    if not path:
        return change(module)
    name, _, rest = path.partition(".")
    inner = module.get(name)
    changed = _changed(inner, rest, change) if inner is not None else None
    if changed is None:
        return None
    copy = _stock_copy(module)
    dict.__setitem__(copy, name, changed)
    return copy


def _with_rows(module, step, path=""):
    """The same of which the product at the path gives every step-th row only."""

    def thin(product):
        sample = _stock_copy(product)
        for name in ("weight", "scales", "biases"):
            if name in product:
                dict.__setitem__(sample, name, product[name][..., ::step, :])
        if "bias" in product:
            dict.__setitem__(sample, "bias", product["bias"][..., ::step])
        return sample

    return _changed(module, path, thin)


def _tags(x, chosen, *_, **__):
    """In place of experts: where each one's weight will stand in the output."""
    width = x.shape[-1]
    places = mx.arange(width) == (chosen % width)[..., None]
    rows = x if x.ndim == chosen.ndim else mx.squeeze(x, -2)
    return mx.where(places, rows[..., None, :1], 0)


def _columns(linear):
    """Columns of a linear layer's weight."""
    columns = linear["weight"].shape[-1]
    return columns * 32 // linear.bits if "scales" in linear else columns


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
        return _with_rows(module, step, self.row.down)

    def run(self, module, made, stock_call, x):
        return _core.gated_mlp(x, made)

    def width(self, module):
        return _columns(module[self.row.up])


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
        spec = self._spec(binding, module)
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

    def _spec(self, binding, module):
        router = self.row.router
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
            weights, chosen = _core.route(_logits(gate, x), spec, bias)
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
        row = self.row
        if row.shared or row.after or not self.whole:
            return None
        experts = Binding().child(module, row.experts)
        last = "fc2" if "fc1" in experts else "down_proj"
        return _with_rows(module, step, f"{row.experts}.{last}")

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
                without = _changed(stock, path, lambda _, part=part: part)
                stock = stock if without is None else without
        binding = Binding()
        gate = binding.child(module, row.gate)
        logits = _core.linear(x, binding.projection(gate, "router"))
        bias = binding.child(module, row.bias) if row.bias else None
        weights, chosen = _core.route(logits, self._spec(binding, module), bias)
        return stock(x), self.combined(_tags(x, chosen), weights)

    @staticmethod
    def combined(outputs, weights):
        return (outputs * weights[..., None]).sum(-2)

    def width(self, module):
        gate = Binding().child(module, self.row.gate)
        return _columns(gate)


def _logits(gate, x):
    known = adapters.name_of(stock_class(gate)) in _LINEARS
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


class FusedLinear(Fused):
    """A product with a weight, quantised or not."""

    def bind(self, binding, module):
        return binding.projection(module, "the layer")

    def with_outputs(self, module, step):
        return _with_rows(module, step)

    def run(self, module, made, stock_call, x):
        return _core.linear(x, made)

    def width(self, module):
        return _columns(module)


class FusedHead(FusedLinear):
    """An embedding that is used as the output layer."""

    method = "as_linear"

    def bind(self, binding, module):
        return binding.weight(module)


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
