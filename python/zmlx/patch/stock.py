# SPDX-License-Identifier: MIT
"""A module's stock class: told, swapped for a subclass that calls what is fused, put
back; and stock copies of a module."""

import functools

from mlx.utils import tree_flatten

from zmlx import _core

_KEY = "_zmlx_fused"
_STOCK = "_zmlx_unfused"


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


def stock_copy(module):
    """A stock module with the same children and settings."""
    stock = stock_class(module)
    copy = stock.__new__(stock)
    dict.update(copy, module)
    vars(copy).update({k: v for k, v in vars(module).items() if k != _KEY})
    return copy


def changed(module, path, change):
    """A stock module like this one, in which change() has replaced what lies at a
    dotted path; None where there is nothing."""
    if not path:
        return change(module)
    name, _, rest = path.partition(".")
    inner = module.get(name)
    other = changed(inner, rest, change) if inner is not None else None
    if other is None:
        return None
    copy = stock_copy(module)
    dict.__setitem__(copy, name, other)
    return copy


def with_rows(module, step, path=""):
    """The same of which the product at the path gives every step-th row only."""

    def thin(product):
        sample = stock_copy(product)
        for name in ("weight", "scales", "biases"):
            if name in product:
                dict.__setitem__(sample, name, product[name][..., ::step, :])
        if "bias" in product:
            dict.__setitem__(sample, "bias", product["bias"][..., ::step])
        return sample

    return changed(module, path, thin)


def columns(linear):
    """Columns of a linear layer's weight."""
    words = linear["weight"].shape[-1]
    return words * 32 // linear.bits if "scales" in linear else words
