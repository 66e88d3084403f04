# SPDX-License-Identifier: MIT
"""Operations on each element, from text: y = f(x), f(a, b), f(any names).

Inputs broadcast together; float32 inside; the result has the type that MLX
promotes the inputs to. Differentiable, and usable in mx.vmap and mx.compile.
"""

from zmlx import _core
from zmlx._callable import make_callable_as
from zmlx.msl import expression_header


def unary(
    *, name, expr, compute_dtype=None, ensure_row_contiguous=True, header="", cache=True
):
    """A function of x (also called inp)."""
    return map(name=name, expr=expr, input_names=["x"], header=header)


def binary(
    *, name, expr, compute_dtype=None, ensure_row_contiguous=True, header="", cache=True
):
    """A function of a (also called x) and b."""
    return _core.binary(name, expr, header=expression_header(header))


def map(
    *,
    name,
    expr,
    input_names,
    compute_dtype=None,
    ensure_row_contiguous=True,
    header="",
    cache=True,
):
    """A function of the inputs named."""
    return _core.elementwise_map(
        name, expr, list(input_names), header=expression_header(header)
    )


make_callable_as(__name__, "zmlx.api", "elementwise")
