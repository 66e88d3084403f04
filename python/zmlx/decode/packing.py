# SPDX-License-Identifier: MIT
"""Keeps the weights of a patched model in blocks, as decoding reads them fastest.

A module's arrays stay in it, but they are empty-handed: what reads one (saving,
quantising, a stock call) unpacks it, to the bit, and the next token that the
network decodes drops what was unpacked. So weights are in memory once.
"""

import mlx.core as mx

from zmlx import _core
from zmlx.patch import engine, fused


def _packable(module, covered=False):
    """(module, the fused one that reads it) of quantised modules that are read by
    fused calls, which need no rows: itself or one that holds it."""
    covered = module if fused.fused_of(module) is not None else covered
    if covered and isinstance(module.get("scales"), mx.array):
        yield module, covered
    for _, child in engine.children_of(module):
        yield from _packable(child, covered)


def pack(model):
    """Packs what can lie in blocks; returns these weights."""
    weights = _core.PackedWeights()
    reading = list(_packable(model))
    for _, reader in reading:
        # It holds the arrays, and binds the blocks at its next call.
        fused.fused_of(reader).state = None
    seen = set()
    for module, reader in reading:
        arrays = (module["weight"], module["scales"], module.get("biases"))
        if id(module) in seen or getattr(module, "mode", "affine") != "affine":
            continue
        seen.add(id(module))
        if weights.add(*arrays, module.bits, module.group_size):
            fused.fused_of(reader).packed = True
    weights.trim()
    return weights
