# SPDX-License-Identifier: MIT
"""Operations from a few lines of text, and models from one call.

Operations take arrays of any shape and float type on any device, compute in
float32 and return the type of their input. Their gradients come by themselves.
"""

from zmlx import _core
from zmlx._rules import check_threadgroup
from zmlx.jit_compiler import jit
from zmlx.msl import expression_header

__all__ = [
    "elementwise",
    "generate",
    "jit",
    "load",
    "lora",
    "map_reduce",
    "reduce",
    "train",
]


def elementwise(
    expr,
    *,
    name=None,
    grad_expr=None,
    compute_dtype=None,
    header=None,
    use_output=True,
    grad_prelude="",
):
    """y = expr(x) for each element, as elementwise("x * tanh(log(1 + exp(x)))").

    expr: an expression of x in Metal's syntax, or statements that end in one.
    grad_expr: the derivative times the cotangent g, of g, x and y, in place of the
        symbolic one; grad_prelude is put before it.
    header: functions that the texts may call; kk_sigmoid, kk_silu and kk_gelu_tanh
        are always there.
    compute_dtype, use_output: accepted; float32 is used inside, and both x and y
        are at hand in grad_expr.
    """
    return _core.elementwise_map(
        name or "elementwise",
        expr,
        ["x"],
        grad_expr=[grad_expr] if grad_expr else [],
        grad_prelude=grad_prelude,
        header=expression_header(header),
    )


def reduce(*, init, update, finalize="acc", name=None, compute_dtype=None, header=None):
    """One value for each row (the last axis): reduce(init="0.0f", update="acc + v").

    init: what acc starts with, a constant.
    update: the next acc, from acc and the element v.
    finalize: the result, from acc (also s) and D, the row's length.
    """
    return _core.reduce(
        init, update, finalize, name or "reduce", expression_header(header)
    )


def _pass_of(op, name, texts):
    unknown = set(texts) - {"init", "update", "reduce"}
    if unknown or not {"init", "update"} <= set(texts):
        raise ValueError(
            f"[{op}] {name} must have init, update and reduce, got"
            f" {', '.join(sorted(texts)) or 'nothing'}."
        )
    return [texts["init"], texts["update"], texts.get("reduce", "")]


def map_reduce(
    *,
    pass1,
    pass2,
    write,
    name=None,
    threadgroup=256,
    compute_dtype=None,
    header=None,
):
    """A value for each element from it and two totals of its row.

    pass1: {"init", "update", "reduce"} of the total s1; update takes acc1 and x,
        reduce says how totals a and b of two parts combine.
    pass2: the same of s2; update takes acc2, x and s1.
    write: the result, from x, s1, s2 and D.
    """
    op = name or "map_reduce"
    check_threadgroup(op, threadgroup)
    return _core.map_reduce(
        _pass_of(op, "pass1", pass1),
        _pass_of(op, "pass2", pass2),
        write,
        op,
        expression_header(header),
        ["x"],
    )


def load(
    model_name,
    *,
    quantize=None,
    patch=True,
    patch_patterns=None,
    dtype=None,
    verbose=False,
):
    """mlx_lm.load, then quantise, cast and patch: (model, tokenizer)."""
    from zmlx._models import load

    return load(
        model_name,
        quantize=quantize,
        patch=patch,
        patch_patterns=patch_patterns,
        dtype=dtype,
        verbose=verbose,
    )


def lora(model, *, r=16, alpha=16.0, dropout=0.0, target_modules=None, use_dora=False):
    """Freezes the model and wraps its target modules in LoRA layers."""
    from zmlx._models import lora

    return lora(
        model,
        r=r,
        alpha=alpha,
        dropout=dropout,
        target_modules=target_modules,
        use_dora=use_dora,
    )


def train(
    model,
    tokenizer,
    dataset,
    *,
    iters=1000,
    batch_size=4,
    learning_rate=2e-4,
    output_dir="adapters",
    **kwargs,
):
    """Trains what is not frozen with mlx_lm's trainer; adapters go to output_dir."""
    from zmlx._models import train

    return train(
        model,
        tokenizer,
        dataset,
        iters=iters,
        batch_size=batch_size,
        learning_rate=learning_rate,
        output_dir=output_dir,
        **kwargs,
    )


def generate(model, tokenizer, prompt, *, max_tokens=256, temp=0.7):
    """The text that mlx_lm.generate gives."""
    from zmlx._models import generate

    return generate(model, tokenizer, prompt, max_tokens=max_tokens, temp=temp)
