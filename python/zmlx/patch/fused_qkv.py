# SPDX-License-Identifier: MIT
"""A decoder layer's first norm with the projections that its mixer begins with."""

import mlx.core as mx

from zmlx import _core
from zmlx.patch import adapters
from zmlx.patch.binding import Refusal
from zmlx.patch.fused import Fused
from zmlx.patch.stock import stock_class, stock_copy


class FusedNormQkv(Fused):
    """A layer x + mixer(norm(x)), and so on, whose norm goes to its mixer alone, and
    the mixer uses it for its projections alone.

    A call runs the stock layer on a copy, whose norm hands on what it is given, and
    whose mixer has the results of the projections in their place. So whatever else
    the two classes do stays theirs; the probe shows whether that was all.
    """

    rowwise = False
    probed_rows = 3  # few enough for the kernel of a GPU

    def bind(self, binding, module):
        row = self.row
        self.descend = tuple(
            name for name, child in module.items() if isinstance(child, dict)
        )
        norm = binding.child(module, row.norm)
        known = adapters.NORMS.get(adapters.name_of(stock_class(norm)))
        if known is None:
            raise Refusal(f"its norm is a {type(norm).__name__}")
        found = mixer_of(row, module)
        if found is None:
            raise Refusal("it has no mixer")
        name, paths = found
        mixer = binding.child(module, name)
        parts = [binding.projection(binding.child(mixer, path), path) for path in paths]
        weight = binding.item(norm, known.weight)
        eps = float(binding.item(vars(norm), known.eps))
        try:
            made = _core.NormQkv(weight, eps, bool(known.offset), parts)
        except ValueError as error:
            raise Refusal(str(error)) from None
        kinds = {weight.dtype}
        for path in paths:
            kinds |= {
                mixer[path][part].dtype
                for part in ("scales", "bias")
                if part in mixer[path]
            }
        return made, kinds - {mx.uint8}, name, paths

    def run(self, module, made, stock_call, x, *args, **kwargs):
        norm_qkv, kinds, name, paths = made
        if x.dtype != mx.float32 and kinds != {x.dtype}:
            return stock_call(module, x, *args, **kwargs)  # has the wider type
        mixer = module[name]

        def mix(given, *args, **kwargs):
            copy = stock_copy(mixer)
            outputs = _core.rms_norm_qkv(given, norm_qkv)
            for path, output in zip(paths, outputs, strict=True):
                dict.__setitem__(copy, path, _always(output))
            return copy(given, *args, **kwargs)

        layer = stock_copy(module)
        dict.__setitem__(layer, self.row.norm, _same)
        dict.__setitem__(layer, name, mix)
        return stock_call(layer, x, *args, **kwargs)

    def arguments(self, module, x):
        return x, None, None  # mask and cache

    def inner(self, module, x):
        norm_qkv, _, name, paths = self.ready(module)
        normed = _stock(module[self.row.norm], x)
        stock = (_stock(module[name][path], normed) for path in paths)
        return zip(stock, _core.rms_norm_qkv(x, norm_qkv), strict=True)

    def width(self, module):
        norm = module[self.row.norm]
        return norm[adapters.NORMS[adapters.name_of(stock_class(norm))].weight].size


def mixer_of(row, module):
    """The name of the layer's mixer and those of its projections, or None."""
    return next((one for one in row.mixers.items() if one[0] in module), None)


def match(module, options):
    """What fuses a layer, None where it is of no such class or not quantised."""
    row = adapters.ENTRIES.get(adapters.name_of(stock_class(module)))
    found = mixer_of(row, module) if row is not None else None
    if found is None:
        return None
    mixer = module[found[0]]
    packed = all("scales" in mixer.get(path, {}) for path in found[1])
    return FusedNormQkv(row, options) if packed else None


def _stock(module, x):
    return stock_class(module).__call__(module, x)


def _same(x):
    return x


def _always(output):
    return lambda _: output
