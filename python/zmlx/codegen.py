# SPDX-License-Identifier: MIT
"""Bodies of raw kernels, as text for zmlx.metal.kernel.

Kernels of rows read their length from inp_shape, so one text serves every shape.
They are called with the template T (the type to compute in) and, where they have a
threadgroup, with one threadgroup of that size a row.
"""

import textwrap


def elementwise_unary_source(expr, *, input_name="inp", output_name="out"):
    """out = expr(x), one element a thread."""
    return textwrap.dedent(f"""\
        uint elem = thread_position_in_grid.x;
        T x = T({input_name}[elem]);
        {output_name}[elem] = {expr};
        """)


def elementwise_binary_source(
    expr, *, lhs_name="lhs", rhs_name="rhs", output_name="out"
):
    """out = expr(a, b), one element a thread."""
    return textwrap.dedent(f"""\
        uint elem = thread_position_in_grid.x;
        T a = T({lhs_name}[elem]);
        T b = T({rhs_name}[elem]);
        {output_name}[elem] = {expr};
        """)


def _row_length(d, input_name):
    length = d if d is not None else f"{input_name}_shape[{input_name}_ndim - 1]"
    return f"const uint D = {length};"


def rowwise_reduction_source(
    *, init, update, finalize="acc", d=None, input_name="inp", output_name="out"
):
    """One thread a row: acc from each element v in order, then finalize."""
    return textwrap.dedent(f"""\
        uint row = thread_position_in_grid.x;
        {_row_length(d, input_name)}
        T acc = {init};
        for (uint i = 0; i < D; ++i) {{
          T v = T({input_name}[row * D + i]);
          acc = {update};
        }}
        {output_name}[row] = {finalize};
        """)


def _parallel_total(name, running, init, update, reduce, threadgroup, input_name):
    """Statements that leave a total of the row in `name`, the same in each thread."""
    return textwrap.dedent(f"""\
        T {running} = {init};
        for (uint i = tid; i < D; i += TG) {{
          T x = T({input_name}[row * D + i]);
          {running} = {update};
        }}
        threadgroup T {name}_parts[{threadgroup}];
        {name}_parts[tid] = {running};
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint step = TG / 2; step > 0; step /= 2) {{
          if (tid < step) {{
            T a = {name}_parts[tid];
            T b = {name}_parts[tid + step];
            {name}_parts[tid] = {reduce};
          }}
          threadgroup_barrier(mem_flags::mem_threadgroup);
        }}
        T {name} = {name}_parts[0];
        """)


def _check_power_of_two(op, threadgroup):
    good = isinstance(threadgroup, int) and 0 < threadgroup <= 1024
    if not good or threadgroup & (threadgroup - 1):
        raise ValueError(
            f"[{op}] threadgroup must be a power of two in 1..1024, got {threadgroup}."
        )


def _head(d, threadgroup, input_name):
    return textwrap.dedent(f"""\
        constexpr uint TG = {threadgroup};
        uint row = threadgroup_position_in_grid.x;
        uint tid = thread_position_in_threadgroup.x;
        {_row_length(d, input_name)}
        """)


def rowwise_parallel_reduction_source(
    *,
    init,
    update,
    reduce,
    finalize="s",
    d=None,
    threadgroup=256,
    input_name="inp",
    output_name="out",
):
    """A threadgroup a row: acc from each element x, parts a and b, the total s."""
    _check_power_of_two("rowwise_parallel_reduction_source", threadgroup)
    total = _parallel_total("s", "acc", init, update, reduce, threadgroup, input_name)
    return (
        _head(d, threadgroup, input_name)
        + total
        + f"if (tid == 0) {{\n  {output_name}[row] = {finalize};\n}}\n"
    )


def rowwise_mapreduce_source(
    *,
    pass1_init,
    pass1_update,
    pass1_reduce,
    pass2_init,
    pass2_update,
    pass2_reduce,
    write_expr,
    d=None,
    threadgroup=256,
    input_name="inp",
    output_name="out",
):
    """A threadgroup a row: totals s1 and s2, then write_expr(x, s1, s2)."""
    _check_power_of_two("rowwise_mapreduce_source", threadgroup)
    first = (pass1_init, pass1_update, pass1_reduce)
    second = (pass2_init, pass2_update, pass2_reduce)
    write = textwrap.dedent(f"""\
        for (uint i = tid; i < D; i += TG) {{
          T x = T({input_name}[row * D + i]);
          {output_name}[row * D + i] = {write_expr};
        }}
        """)
    return (
        _head(d, threadgroup, input_name)
        + _parallel_total("s1", "acc1", *first, threadgroup, input_name)
        + _parallel_total("s2", "acc2", *second, threadgroup, input_name)
        + write
    )
