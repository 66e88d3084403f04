# SPDX-License-Identifier: MIT
"""Descriptions of raw kernels as data: to text, to JSON and back."""

import dataclasses
import enum

from zmlx import codegen


class PatternKind(enum.Enum):
    ELEMENTWISE_UNARY = "elementwise_unary"
    ELEMENTWISE_BINARY = "elementwise_binary"
    ROWWISE_REDUCTION = "rowwise_reduction"
    ROWWISE_PARALLEL_REDUCTION = "rowwise_parallel_reduction"
    ROWWISE_MAPREDUCE = "rowwise_mapreduce"
    TILED_2D = "tiled_2d"
    RAW = "raw"


@dataclasses.dataclass(frozen=True)
class VJPSpec:
    """The backward kernel's body, of the inputs and cotan, which fills d<input>;
    and what goes in front of it."""

    source: str
    prelude: str = ""

    def to_source(self):
        return f"{self.prelude}\n{self.source}" if self.prelude else self.source


@dataclasses.dataclass(frozen=True)
class _Node:
    def _arguments(self):
        skip = ("vjp", "tags")
        fields = dataclasses.fields(self)
        return {f.name: getattr(self, f.name) for f in fields if f.name not in skip}


@dataclasses.dataclass(frozen=True)
class ElementwiseUnaryIR(_Node):
    expr: str
    input_name: str = "inp"
    output_name: str = "out"
    vjp: VJPSpec | None = None
    tags: frozenset = frozenset()
    kind = PatternKind.ELEMENTWISE_UNARY

    @property
    def input_names(self):
        return [self.input_name]

    def to_source(self):
        return codegen.elementwise_unary_source(**self._arguments())


@dataclasses.dataclass(frozen=True)
class ElementwiseBinaryIR(_Node):
    expr: str
    lhs_name: str = "lhs"
    rhs_name: str = "rhs"
    output_name: str = "out"
    vjp: VJPSpec | None = None
    tags: frozenset = frozenset()
    kind = PatternKind.ELEMENTWISE_BINARY

    @property
    def input_names(self):
        return [self.lhs_name, self.rhs_name]

    def to_source(self):
        return codegen.elementwise_binary_source(**self._arguments())


@dataclasses.dataclass(frozen=True)
class RowwiseReductionIR(_Node):
    init: str
    update: str
    finalize: str = "acc"
    d: int | None = None
    input_name: str = "inp"
    output_name: str = "out"
    vjp: VJPSpec | None = None
    tags: frozenset = frozenset()
    kind = PatternKind.ROWWISE_REDUCTION

    @property
    def input_names(self):
        return [self.input_name]

    def to_source(self):
        return codegen.rowwise_reduction_source(**self._arguments())


@dataclasses.dataclass(frozen=True)
class RowwiseParallelReductionIR(_Node):
    init: str
    update: str
    reduce: str
    finalize: str = "s"
    d: int | None = None
    threadgroup: int = 256
    input_name: str = "inp"
    output_name: str = "out"
    vjp: VJPSpec | None = None
    tags: frozenset = frozenset()
    kind = PatternKind.ROWWISE_PARALLEL_REDUCTION

    @property
    def input_names(self):
        return [self.input_name]

    def to_source(self):
        return codegen.rowwise_parallel_reduction_source(**self._arguments())


@dataclasses.dataclass(frozen=True)
class RowwiseMapReduceIR(_Node):
    pass1_init: str
    pass1_update: str
    pass1_reduce: str
    pass2_init: str
    pass2_update: str
    pass2_reduce: str
    write_expr: str
    d: int | None = None
    threadgroup: int = 256
    input_name: str = "inp"
    output_name: str = "out"
    vjp: VJPSpec | None = None
    tags: frozenset = frozenset()
    kind = PatternKind.ROWWISE_MAPREDUCE

    @property
    def input_names(self):
        return [self.input_name]

    def to_source(self):
        return codegen.rowwise_mapreduce_source(**self._arguments())


@dataclasses.dataclass(frozen=True)
class RawIR(_Node):
    """Any body."""

    source: str
    input_names: tuple = ("inp",)
    output_names: tuple = ("out",)
    vjp: VJPSpec | None = None
    tags: frozenset = frozenset()
    kind = PatternKind.RAW

    def to_source(self):
        return self.source


@dataclasses.dataclass(frozen=True)
class Tiled2DIR(RawIR):
    """A body that works on tiles of tile_m by tile_n."""

    tile_m: int = 16
    tile_n: int = 16
    kind = PatternKind.TILED_2D


_NODES = {
    node.kind.value: node
    for node in (
        ElementwiseUnaryIR,
        ElementwiseBinaryIR,
        RowwiseReductionIR,
        RowwiseParallelReductionIR,
        RowwiseMapReduceIR,
        RawIR,
        Tiled2DIR,
    )
}


def output_names_of(node):
    """The outputs of a node, as a list."""
    one = getattr(node, "output_name", None)
    return [one] if one else list(node.output_names)


def ir_to_json(node):
    """A dict that json can write; _kind says which node it is."""
    content = {"_kind": node.kind.value}
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if isinstance(value, VJPSpec):
            value = dataclasses.asdict(value)
        elif isinstance(value, frozenset):
            value = sorted(value)
        elif isinstance(value, tuple):
            value = list(value)
        content[field.name] = value
    return content


def ir_from_json(content):
    """The node of a dict from ir_to_json(); KeyError for a kind that is not one."""
    values = dict(content)
    kind = values.pop("_kind")
    if kind not in _NODES:
        raise KeyError(f"[ir_from_json] kinds must be {sorted(_NODES)}, got {kind!r}.")
    if values.get("vjp") is not None:
        values["vjp"] = VJPSpec(**values["vjp"])
    for name in ("input_names", "output_names"):
        if name in values:
            values[name] = tuple(values[name])
    values["tags"] = frozenset(values.get("tags", ()))
    return _NODES[kind](**values)
