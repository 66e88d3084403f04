# SPDX-License-Identifier: MIT
"""Checks of arguments that several modules share."""


def require_callable(op, function):
    if not callable(function):
        raise TypeError(
            f"[{op}] a function must be given, got {type(function).__name__}."
        )


def check_threadgroup(op, value):
    """Row operations choose their own sizes, but refuse what never made sense."""
    good = value in ("auto", None) or (
        isinstance(value, int) and 0 < value <= 1024 and value & (value - 1) == 0
    )
    if not good:
        raise ValueError(
            f"[{op}] threadgroup must be a power of two in 1..1024, got {value}."
        )
