# SPDX-License-Identifier: MIT
"""Keeps the weights of a patched model in blocks, as decoding reads them fastest.

A module's arrays stay in it, but they are empty-handed: what reads one (saving,
quantising, a stock call) unpacks it, to the bit, and the next token that the
network decodes drops what was unpacked. So weights are in memory once.
"""

import sys

import mlx.core as mx

from zmlx import _core
from zmlx.patch import engine
from zmlx.patch.stock import fused_of


def packable(model):
    """(module, the fused one that reads it) of the quantised modules whose weights
    fused calls alone read, their own or those of one that holds them: such calls
    need no rows."""
    return list(_read_by_fused(model, None))


def _read_by_fused(module, reader):
    reader = module if fused_of(module) is not None else reader
    if reader is not None and isinstance(module.get("scales"), mx.array):
        yield module, reader
    for _, child in engine.children_of(module):
        yield from _read_by_fused(child, reader)


def _is_ours(module):
    """Whether nobody but the module holds its arrays. A holder may look into their
    memory, as a NumPy array does, and packing frees that."""
    # One reference is the module's, one the argument's.
    return all(
        sys.getrefcount(module[name]) <= 2
        for name in ("weight", "scales", "biases")
        if name in module
    )


def pack(modules):
    """Packs what packable() gave, blocks can hold and nobody else does; returns the
    weights."""
    for _, reader in modules:
        # It holds the arrays, and binds the blocks at its next call.
        fused_of(reader).state = None
    weights = _core.PackedWeights()
    seen = set()
    for module, reader in modules:
        affine = getattr(module, "mode", "affine") == "affine"
        if id(module) in seen or not affine or not _is_ours(module):
            continue
        seen.add(id(module))
        arrays = (module["weight"], module["scales"], module.get("biases"))
        if weights.add(*arrays, module.bits, module.group_size):
            fused_of(reader).packed = True
    weights.trim()
    return weights
