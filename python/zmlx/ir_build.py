# SPDX-License-Identifier: MIT
"""Kernels from the descriptions of zmlx.ir."""

import mlx.core as mx

from zmlx.ir import output_names_of
from zmlx.metal import kernel


def build_kernel(name, node, *, header="", ensure_row_contiguous=True, **options):
    """The raw kernel of a node."""
    return kernel(
        name=name,
        input_names=list(node.input_names),
        output_names=output_names_of(node),
        source=node.to_source(),
        header=header,
        ensure_row_contiguous=ensure_row_contiguous,
        **options,
    )


def build_differentiable(name, node, *, header="", compute_dtype=mx.float32, **launch):
    """A function of arrays with the node's gradient: its vjp fills d<input> from the
    inputs and cotan. launch: what the forward kernel is called with, as grid."""
    if node.vjp is None:
        raise ValueError(f"[build_differentiable] {name} must have a vjp, got none.")
    inputs = list(node.input_names)
    forward = build_kernel(name, node, header=header)
    backward = kernel(
        name=f"{name}_bwd",
        input_names=[*inputs, "cotan"],
        output_names=[f"d{each}" for each in inputs],
        source=node.vjp.to_source(),
        header=header,
    )
    types = [("T", compute_dtype)]

    def vjp(arrays, cotangents, _):
        return backward(
            *arrays,
            cotangents[0],
            template=types,
            output_shapes=[each.shape for each in arrays],
            output_dtypes=[each.dtype for each in arrays],
        )

    differentiable = forward.custom_vjp(vjp)

    def function(*arrays):
        results = differentiable(*arrays, template=types, **launch)
        return results[0] if len(results) == 1 else tuple(results)

    function.__name__ = name
    return function
