# SPDX-License-Identifier: MIT
"""Operations with gradients that are given rather than derived."""

import mlx.core as mx

from zmlx import _core
from zmlx.metal import kernel
from zmlx.msl import expression_header


def unary_from_expr(
    name,
    fwd_expr,
    vjp_expr,
    compute_dtype=None,
    ensure_row_contiguous=True,
    use_output=True,
    header="",
    vjp_prelude="",
):
    """y = fwd_expr(x) whose gradient is vjp_expr, of g (the cotangent), x and y."""
    return _core.elementwise_map(
        name,
        fwd_expr,
        ["x"],
        grad_expr=[vjp_expr],
        grad_prelude=vjp_prelude,
        header=expression_header(header),
    )


def binary_from_expr(
    name,
    fwd_expr,
    vjp_lhs_expr,
    vjp_rhs_expr,
    compute_dtype=None,
    ensure_row_contiguous=True,
    header="",
    vjp_prelude="",
):
    """y = fwd_expr(a, b) with a gradient for each, of g, a, b and y."""
    return _core.elementwise_map(
        name,
        fwd_expr,
        ["a", "b"],
        grad_expr=[vjp_lhs_expr, vjp_rhs_expr],
        grad_prelude=vjp_prelude,
        header=expression_header(header),
    )


def nary_from_expr(
    name,
    fwd_source,
    bwd_source,
    input_names,
    output_names,
    compute_dtype=mx.float32,
    ensure_row_contiguous=True,
    header="",
):
    """A function of arrays of one shape, from the bodies of two raw kernels.

    fwd_source fills the outputs from the inputs. bwd_source fills d<input> for each
    input, from the inputs and the cotangents: cotan of the first output, and
    cotan_<output> of each where there are several. Both may use the types T
    (compute_dtype) and O (the inputs' type).
    """
    inputs, outputs = list(input_names), list(output_names)
    cotangents = ["cotan"]
    if len(outputs) > 1:
        cotangents += [f"cotan_{output}" for output in outputs]
    options = {"header": header, "ensure_row_contiguous": ensure_row_contiguous}
    forward = kernel(
        name=f"{name}_fwd",
        input_names=inputs,
        output_names=outputs,
        source=fwd_source,
        **options,
    )
    backward = kernel(
        name=f"{name}_bwd",
        input_names=inputs + cotangents,
        output_names=[f"d{each}" for each in inputs],
        source=bwd_source,
        **options,
    )

    def types(arrays):
        return [("T", compute_dtype or mx.float32), ("O", arrays[0].dtype)]

    def vjp(arrays, given, _):
        every = [given[0], *given] if len(outputs) > 1 else given
        return backward(*arrays, *every, template=types(arrays))

    differentiable = forward.custom_vjp(vjp)

    def function(*arrays):
        if len(arrays) != len(inputs):
            raise ValueError(
                f"[{name}] inputs must be {len(inputs)} arrays, got {len(arrays)}."
            )
        results = differentiable(*arrays, template=types(arrays))
        return results[0] if len(outputs) == 1 else tuple(results)

    function.__name__ = name
    return function
