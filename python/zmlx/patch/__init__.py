# SPDX-License-Identifier: MIT
"""Verified patching of mlx_lm's models (and others made of mlx.nn modules).

``patch(model)`` swaps modules for fused ones in place, each only after a probe has
shown on the model's own weights that the output is the same. ``unpatch(model)``
puts every module back.
"""

from zmlx._callable import make_callable
from zmlx.patch.engine import (
    _RESULT,
    Patcher,
    PatchResult,
    chosen_patterns,
    restore,
)
from zmlx.patch.patterns import (
    ALL_PATTERNS,
    BY_NAME,
    FUSED_ACTIVATIONS,
    TRAINING_RECOMMENDED,
    Options,
    defaults,
    on_gpu,
    training_defaults,
)

__all__ = [
    "ALL_PATTERNS",
    "FUSED_ACTIVATIONS",
    "TRAINING_RECOMMENDED",
    "PatchResult",
    "list_patterns",
    "patch",
    "smart_patch",
    "unpatch",
]

_MODES = {"inference": defaults, "training": training_defaults}


def list_patterns():
    """Every pattern's name, sorted."""
    return sorted(BY_NAME)


def patch(
    model,
    *,
    mode=None,
    patterns=None,
    exclude=None,
    compute_dtype="float32",
    threadgroup=256,
    moe_fused_swiglu_max_tokens=None,
    verbose=False,
):
    """Fuses a model's modules in place and returns the model, with what was done
    as ``model._zmlx_patch_result``.

    patterns: names (see list_patterns()); by default those of mode: "inference"
    (all that can help on this device) or "training". exclude: names left out.
    moe_fused_swiglu_max_tokens: calls of more tokens than this go through a
    block's stock modules. verbose prints a line a module. compute_dtype and
    threadgroup are the reference's and change nothing here: fused modules compute
    in float32 and choose their own launch.

    Patching again is the same as once. Raises KeyError for an unknown pattern and
    ValueError for an unknown mode.
    """
    if mode is not None and mode not in _MODES:
        known = ", ".join(_MODES)
        raise ValueError(f"[patch] Unknown mode: must be one of {known}, got {mode}.")
    limit = moe_fused_swiglu_max_tokens
    if limit is not None and limit < 0:
        raise ValueError(
            f"[patch] moe_fused_swiglu_max_tokens must be 0 or more, got {limit}."
        )
    names = patterns if patterns is not None else _MODES[mode or "inference"]()
    chosen = chosen_patterns(names, exclude or [])
    report = print if verbose else lambda line: None
    report(f"[zmlx.patch] Applying {len(chosen)} patterns:")
    training = mode == "training"
    before = vars(model).get(_RESULT)
    if before is not None and before.training != training:
        restore(model)  # the two modes fuse the same modules differently
    patcher = Patcher(chosen, Options(on_gpu(), limit, training), report)
    result = patcher.apply(model)
    vars(model)[_RESULT] = result
    report(result.summary())
    return model


def unpatch(model):
    """Makes every module of a model stock again and returns the model."""
    restore(model)
    return model


def smart_patch(
    model,
    sample,
    *,
    patterns=None,
    exclude=None,
    threshold=0.995,
    warmup=3,
    iters=5,
    compute_dtype="float32",
    threadgroup=256,
    verbose=True,
    forward_fn=None,
):
    """Tries patterns one after the other and keeps those that help; see
    zmlx.patch.smart."""
    from zmlx.patch.smart import choose

    return choose(
        model,
        sample,
        names=patterns,
        exclude=exclude or [],
        threshold=threshold,
        warmup=warmup,
        iters=iters,
        verbose=verbose,
        forward=forward_fn,
    )


# zmlx.patch(model) as well as zmlx.patch.patch(model).
make_callable(__name__, patch)
