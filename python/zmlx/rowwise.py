# SPDX-License-Identifier: MIT
"""map_reduce() with its texts as separate arguments."""

from zmlx import _core
from zmlx._rules import check_threadgroup
from zmlx.msl import expression_header


def map_reduce(
    *,
    name,
    d=None,
    pass1_init,
    pass1_update,
    pass1_reduce,
    pass2_init,
    pass2_update,
    pass2_reduce,
    write_expr,
    input_names=("inp",),
    output_names=("out",),
    threadgroup=256,
    compute_dtype=None,
    header="",
):
    """A function of arrays that gives a list of one array: see zmlx.api.map_reduce.

    The first input is x in the texts; others go by their names. Rows may have any
    length; d, where given, is the one that they must have.
    """
    check_threadgroup(name, threadgroup)
    names = ["x", *list(input_names)[1:]]
    operation = _core.map_reduce(
        [pass1_init, pass1_update, pass1_reduce],
        [pass2_init, pass2_update, pass2_reduce],
        write_expr,
        name,
        expression_header(header),
        names,
    )

    def function(*arrays):
        if d is not None and arrays and arrays[0].shape[-1:] != (d,):
            raise ValueError(
                f"[{name}] the last axis must have length {d}, got shape"
                f" {tuple(arrays[0].shape)}."
            )
        return [operation(*arrays)]

    return function
