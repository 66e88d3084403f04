# SPDX-License-Identifier: MIT
"""Operations from one line of text: any shape, any backend, differentiable."""

from zmlx import _core


def elementwise(expr, *, name=None, grad_expr=None, grad_prelude="", header=None):
    """y = expr(x): a function of one array."""
    return _core.elementwise_map(
        name or "elementwise",
        expr,
        ["x"],
        grad_expr=[grad_expr] if grad_expr else [],
        grad_prelude=grad_prelude,
        header=header or "",
    )
