# SPDX-License-Identifier: MIT
"""Checks of a function of one's own against a reference."""

import mlx.core as mx

from zmlx._rules import require_callable


def _inputs(shape, dtype, count, seed):
    keys = mx.random.split(mx.random.key(seed), max(count, 1))
    return [mx.random.normal(shape, key=keys[i]).astype(dtype) for i in range(count)]


def _list(result):
    return list(result) if isinstance(result, list | tuple) else [result]


def _where(shape, dtype, place, count):
    output = f" of output {place}" if count > 1 else ""
    return f"{output} for shape {tuple(shape)}, {dtype}"


def _compare(got, want, where, atol, rtol):
    if got.shape != want.shape:
        raise AssertionError(
            f"Shape mismatch{where}: got {tuple(got.shape)}, must be"
            f" {tuple(want.shape)}."
        )
    if got.dtype != want.dtype:
        raise AssertionError(
            f"Type mismatch{where}: got {got.dtype}, must be {want.dtype}."
        )
    if got.size == 0:
        return
    a, b = got.astype(mx.float32), want.astype(mx.float32)
    same = (a == b) | (mx.isnan(a) & mx.isnan(b))
    # Infinities are not near anything but themselves.
    close = mx.isfinite(b) & (mx.abs(a - b) <= atol + rtol * mx.abs(b))
    if mx.all(same | close).item():
        return
    difference = mx.where(same, 0.0, mx.abs(a - b))
    most = mx.max(mx.where(mx.isnan(difference), float("inf"), difference)).item()
    bad = mx.sum(~(same | close)).item()
    raise AssertionError(
        f"Value mismatch{where}: max abs diff {most:.6g}, {bad} of {a.size} values"
        f" are further off than {atol:g} + {rtol:g} |reference|."
    )


def _check(op, kernel_fn, ref_fn, shapes, n_inputs):
    require_callable(op, kernel_fn)
    require_callable(op, ref_fn)
    if not shapes:
        raise ValueError(f"[{op}] shapes must name at least one, got none.")
    if n_inputs < 1:
        raise ValueError(f"[{op}] n_inputs must be 1 or more, got {n_inputs}.")


def assert_matches(
    kernel_fn,
    ref_fn,
    shapes,
    *,
    dtypes=None,
    atol=1e-5,
    rtol=1e-5,
    n_inputs=1,
    seed=42,
):
    """Runs both on normal values of every shape and type (float32 by default) and
    raises AssertionError unless outputs have the same shapes and types and
    |difference| <= atol + rtol |reference|. NaN equals NaN."""
    _check("assert_matches", kernel_fn, ref_fn, shapes, n_inputs)
    for shape in shapes:
        for dtype in dtypes or [mx.float32]:
            inputs = _inputs(shape, dtype, n_inputs, seed)
            got, want = _list(kernel_fn(*inputs)), _list(ref_fn(*inputs))
            where = _where(shape, dtype, 0, 1)
            if len(got) != len(want):
                raise AssertionError(
                    f"Shape mismatch{where}: got {len(got)} outputs, must be"
                    f" {len(want)}."
                )
            for place, (a, b) in enumerate(zip(got, want, strict=True)):
                where = _where(shape, dtype, place, len(got))
                _compare(a, b, where, atol, rtol)


def assert_gradient_matches(
    kernel_fn,
    ref_fn,
    shapes,
    *,
    dtypes=None,
    atol=1e-4,
    rtol=1e-4,
    n_inputs=1,
    seed=42,
):
    """The same for the gradients in every input, under a random cotangent."""
    _check("assert_gradient_matches", kernel_fn, ref_fn, shapes, n_inputs)
    for shape in shapes:
        for dtype in dtypes or [mx.float32]:
            inputs = _inputs(shape, dtype, n_inputs, seed)
            outputs = _list(ref_fn(*inputs))
            cotangents = [
                _inputs(each.shape, each.dtype, 1, seed + 1 + place)[0]
                for place, each in enumerate(outputs)
            ]
            got, want = (
                mx.vjp(lambda *a, f=f: _list(f(*a)), inputs, cotangents)[1]
                for f in (kernel_fn, ref_fn)
            )
            for place, (a, b) in enumerate(zip(got, want, strict=True)):
                where = f" of gradient {place}{_where(shape, dtype, 0, 1)}"
                _compare(a, b, where, atol, rtol)
