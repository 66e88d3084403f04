# SPDX-License-Identifier: MIT
"""What a fused call reads of its module, as C++ takes it."""

import mlx.core as mx

from zmlx import _core
from zmlx.patch import adapters
from zmlx.patch.stock import stock_class

# Group size and bits where a module, as mlx_lm's stacks do, leaves them to MLX.
_PACKINGS = {"affine": (64, 4), "mxfp4": (32, 4), "nvfp4": (16, 4), "mxfp8": (32, 8)}
LINEARS = {
    "mlx.nn.layers.linear.Linear",
    "mlx.nn.layers.quantized.QuantizedLinear",
    "switch_layers.SwitchLinear",
    "switch_layers.QuantizedSwitchLinear",
}


class Refusal(Exception):
    """Why a module stays stock."""


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
        plain = known in LINEARS or (
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
